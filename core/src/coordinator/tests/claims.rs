//! What a machine claims, and what is paid for it.

use super::*;
use crate::effect::Receipt;

/// One request served with that claim; the receipt, and whether an alarm was raised.
fn served(usage: Usage, seen: Shown, ending: Ending, asked: Ask) -> (Receipt, bool) {
    let mut world = World::new();
    world.provider(1, 11, 4);
    let (attempt, conn) = dispatched(&world.step(Event::Arrived(asked))).unwrap();
    world.step(Event::AttemptStarted { conn, attempt });
    let effects = world.step(Event::AttemptCompleted {
        conn,
        attempt,
        usage,
        shown: seen,
        ending,
    });
    let is_alarmed = effects.iter().any(|effect| {
        matches!(
            effect,
            Effect::Alarm {
                alarm: Alarm::OverClaim,
                ..
            }
        )
    });
    world.persist();
    world.core.invariant_quiescent();
    (world.out.receipts[0], is_alarmed)
}

fn usage(prompt_tokens: u32, completion_tokens: u32) -> Usage {
    Usage {
        prompt_tokens,
        completion_tokens,
    }
}

fn multiplies_out(receipt: &Receipt) {
    let cost = receipt.price.cost(
        u64::from(receipt.usage.prompt_tokens),
        u64::from(receipt.usage.completion_tokens),
    );
    assert_eq!(receipt.charged, cost, "tokens times price is the charge");
}

#[test]
fn a_claim_for_the_prompt_beyond_the_band_is_cut_and_raises_the_alarm_too() {
    let asked = Ask {
        prompt_tokens: 6,
        prompt_tokens_bound: 4_000,
        ..ask(5, ACCOUNT)
    };
    let (receipt, is_alarmed) = served(usage(960, 2), shown(2, 9), Ending::Said, asked);
    assert!(receipt.usage.prompt_tokens <= 60, "{:?}", receipt.usage);
    assert!(is_alarmed);
    let (receipt, is_alarmed) = served(usage(19, 2), shown(2, 9), Ending::Said, asked);
    assert_eq!(receipt.usage, usage(19, 2));
    assert!(!is_alarmed);
}

#[test]
fn a_receipt_multiplies_out_whatever_was_claimed_and_streamed() {
    let expensive = |id| Ask {
        prompt_tokens: 3_000,
        prompt_tokens_bound: 13_000,
        output_tokens_max: 1_000,
        ..ask(id, ACCOUNT)
    };
    let claims = [
        (usage(u32::MAX, u32::MAX), shown(900, 900_000), Ending::Said),
        (usage(0, 1), shown(900, 3_000), Ending::Said),
        (Usage::default(), shown(1_000, 5_000), Ending::Cut),
        (usage(3_100, 800), shown(800, 3_000), Ending::Said),
    ];
    for (claim, seen, ending) in claims {
        let (receipt, _) = served(claim, seen, ending, expensive(5));
        multiplies_out(&receipt);
        assert!(receipt.charged <= receipt.held);
    }
}

#[test]
fn an_answer_cut_at_its_bound_is_charged_for_the_bound() {
    let asked = Ask {
        output_tokens_max: 5,
        ..ask(5, ACCOUNT)
    };
    let (receipt, is_alarmed) = served(Usage::default(), shown(6, 25), Ending::Cut, asked);
    assert_eq!(receipt.usage.completion_tokens, 5);
    assert!(is_alarmed, "the machine did not heed its bound");
    multiplies_out(&receipt);
}

#[test]
fn gross_claims_of_the_first_that_are_heard_widen_no_band() {
    let long = |id| Ask {
        prompt_tokens: 10,
        prompt_tokens_bound: 4_000,
        output_tokens_max: 4_000,
        ..ask(id, ACCOUNT)
    };
    let mut world = World::new();
    for machine in 1..=5u64 {
        let conn = ConnId(machine);
        let (trust, models) = (Trust::SelfSigned, Cow::Owned(vec![MODEL]));
        world.step(Event::ProviderJoined {
            conn,
            machine: MachineId(u128::from(machine)),
            owner: AccountId(100 + machine),
            trust,
            spec: SPEC,
            models,
        });
        world.step(Event::ProviderVerified { conn });
        world.report(conn, 1, slot(1, 0));
        let (attempt, conn) = dispatched(&world.step(Event::Arrived(long(u128::from(machine)))))
            .expect("it is the only one with room");
        world.step(Event::AttemptStarted { conn, attempt });
        world.step(Event::AttemptCompleted {
            conn,
            attempt,
            usage: usage(10, 100_000),
            shown: shown(300, 900),
            ending: Ending::Said,
        });
        world.persist();
        let charged = world.out.receipts[0].usage.completion_tokens;
        assert!(charged <= 300 * 3 / 2 + 3, "{charged} for 900 bytes");
    }
}

/// A coordinator whose only model is free.
fn free_world() -> World {
    let mut config = config();
    let free = ModelSpec {
        price: Price {
            input_per_mtok: MicroUsd::ZERO,
            output_per_mtok: MicroUsd::ZERO,
        },
        ..config.catalog.spec(MODEL).unwrap().clone()
    };
    config.catalog = Catalog::new(vec![free]).unwrap();
    World {
        core: Coordinator::new(config),
        ..World::new()
    }
}

#[test]
fn a_free_model_serves_an_empty_account_and_charges_nothing() {
    let mut world = free_world();
    world.step(Event::AccountOpened {
        account: ACCOUNT,
        balance: MicroUsd::ZERO,
    });
    world.provider(1, 11, 4);
    let (attempt, conn) = dispatched(&world.ask(5)).expect("nothing is asked for");
    world.step(Event::AttemptStarted { conn, attempt });
    world.step(Event::AttemptCompleted {
        conn,
        attempt,
        usage: usage(20, 10),
        shown: shown(10, 40),
        ending: Ending::Said,
    });
    world.persist();
    assert_eq!(world.out.receipts[0].charged, MicroUsd::ZERO);
    world.core.invariant_quiescent();
}

#[test]
fn text_of_a_token_for_each_byte_is_cut_to_the_band_and_alarms_nobody() {
    let asked = Ask {
        output_tokens_max: 500,
        ..ask(5, ACCOUNT)
    };
    let (receipt, is_alarmed) = served(usage(90, 201), shown(200, 200), Ending::Said, asked);
    assert!(receipt.usage.completion_tokens < 110, "{:?}", receipt.usage);
    assert!(!is_alarmed);
    let (_, is_alarmed) = served(usage(90, 400), shown(200, 200), Ending::Said, asked);
    assert!(is_alarmed);
}

#[test]
fn who_reads_too_slowly_pays_for_no_more_tokens_than_pieces() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    let asked = Ask {
        output_tokens_max: 3_000,
        ..ask(5, ACCOUNT)
    };
    let (attempt, conn) = dispatched(&world.step(Event::Arrived(asked))).unwrap();
    world.step(Event::AttemptStarted { conn, attempt });
    world.persist();
    let shown = shown(1_000, 5_000);
    world.step(Event::AttemptProgressed {
        conn,
        attempt,
        shown,
    });
    world.step(Event::AttemptFailed {
        conn,
        attempt,
        fault: AttemptFault::ConsumerStalled,
    });
    world.persist();
    assert_eq!(world.out.receipts[0].usage.completion_tokens, 1_000);
}

#[test]
fn a_plain_answer_that_its_consumer_left_and_its_machine_never_ended_costs_nothing() {
    for ending in [None, Some(GoneCause::Lost)] {
        let mut world = World::new();
        world.provider(1, 11, 4);
        let asked = Ask {
            delivery: Delivery::Whole,
            ..ask(5, ACCOUNT)
        };
        let (attempt, conn) = dispatched(&world.step(Event::Arrived(asked))).unwrap();
        world.step(Event::AttemptStarted { conn, attempt });
        world.persist();
        let request = RequestId(5);
        world.step(Event::ConsumerLeft { request });
        match ending {
            Some(cause) => drop(world.step(Event::ProviderLeft { conn, cause })),
            None => {
                while world.core.books().held() != MicroUsd::ZERO {
                    world.wake();
                }
            }
        }
        world.persist();
        let account = world.core.books().account(ACCOUNT).unwrap();
        assert_eq!(account.available, MicroUsd(1_000_000), "{ending:?}");
        assert_eq!(world.out.receipts[0].charged, MicroUsd::ZERO);
        assert!(!world.core.keeps(request));
        world.core.invariant_quiescent();
    }
}
