//! Who pays has a receipt, however the request ended for whoever asked.

use super::*;

/// A request whose consumer was shown thirty tokens.
fn streaming() -> (World, AttemptKey, ConnId) {
    let mut world = World::new();
    world.provider(1, 11, 4);
    let (attempt, conn) = dispatched(&world.ask(1)).unwrap();
    world.step(Event::AttemptStarted { conn, attempt });
    world.persist();
    world.step(Event::AttemptProgressed {
        conn,
        attempt,
        shown: shown(30, 120),
    });
    (world, attempt, conn)
}

fn leave(world: &mut World) {
    let request = RequestId(1);
    let effects = world.step(Event::ConsumerLeft { request });
    assert_eq!(refused(&effects), Some(Denial::Cancelled));
}

/// What ends the attempt of a request whose consumer has left, or could not keep up.
fn endings() -> Vec<fn(&mut World, AttemptKey, ConnId)> {
    vec![
        |world, attempt, conn| {
            leave(world);
            world.step(completed((attempt, conn), 30));
        },
        |world, attempt, conn| {
            leave(world);
            let fault = AttemptFault::Cancelled;
            world.step(Event::AttemptFailed {
                conn,
                attempt,
                fault,
            });
        },
        |world, _, conn| {
            leave(world);
            let cause = GoneCause::Lost;
            world.step(Event::ProviderLeft { conn, cause });
        },
        |world, _, _| {
            leave(world);
            while world.core.books().held() != MicroUsd::ZERO {
                world.wake();
            }
        },
        |world, attempt, conn| {
            let fault = AttemptFault::ConsumerStalled;
            let effects = world.step(Event::AttemptFailed {
                conn,
                attempt,
                fault,
            });
            assert_eq!(refused(&effects), Some(Denial::Cancelled));
        },
    ]
}

/// INV-29, and INV-02: the receipt is no second end.
#[test]
fn whatever_ends_a_stream_that_was_shown_its_charge_has_a_receipt() {
    for (nth, ending) in endings().into_iter().enumerate() {
        let (mut world, attempt, conn) = streaming();
        ending(&mut world, attempt, conn);
        let request = RequestId(1);
        let account = world.core.books().account(ACCOUNT).unwrap();
        let charged = MicroUsd(1_000_000) - account.available;
        assert!(charged > MicroUsd::ZERO, "ending {nth} is paid for");
        assert!(world.out.receipts.is_empty(), "not durable yet");
        assert!(world.core.keeps(request), "ending {nth}");

        let effects = world.persist();
        assert_eq!(
            effects,
            [Effect::Charge {
                request,
                receipt: 0
            }]
        );
        let receipt = world.out.receipts[0];
        assert_eq!((receipt.request, receipt.account), (request, ACCOUNT));
        assert_eq!((receipt.model, receipt.machine), (MODEL, MachineId(11)));
        assert_eq!(receipt.charged, charged);
        assert!(receipt.usage.completion_tokens > 0 && receipt.usage.prompt_tokens > 0);
        assert_eq!(receipt.balance_after, MicroUsd(1_000_000) - charged);
        let counts = world.core.counts();
        assert_eq!((counts.failed, counts.finished), (1, 0), "ending {nth}");
        assert!(!world.core.keeps(request));
        assert_eq!(world.persist(), [], "once");
        world.core.invariant_quiescent();
    }
}

#[test]
fn a_drain_waits_for_the_receipt_of_who_left() {
    let (mut world, attempt, conn) = streaming();
    leave(&mut world);
    assert_eq!(world.step(Event::DrainBegan), []);
    let effects = world.step(completed((attempt, conn), 30));
    assert!(!effects.contains(&Effect::Drained), "{effects:?}");
    let effects = world.persist();
    assert!(matches!(
        effects[..],
        [Effect::Charge { .. }, Effect::Drained]
    ));
}
