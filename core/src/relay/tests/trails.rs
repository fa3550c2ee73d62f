//! A trail steps a relay again, and shows where another one did otherwise.

use proptest::prelude::*;

use super::*;

fn told(relay: &Relay) -> Vec<Told> {
    let entries = relay.trail().entries().iter();
    entries.map(|entry| entry.told).collect()
}

#[test]
fn a_trail_says_what_happened_and_nothing_that_was_said() {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.chunk(FIRST, PREAMBLE);
    scene.says("a secret");
    scene.says("and more");
    scene.step(RelayEvent::Released);
    scene.complete();
    scene.finish();
    let expected = [
        Told::Dispatched,
        Told::Began,
        Told::Chunk(Fate::Empty),
        Told::Chunk(Fate::Relayed),
        Told::Released,
        Told::Completed,
        Told::Finished,
    ];
    assert_eq!(told(&scene.relay), expected);
    let trail = scene.relay.trail();
    assert_eq!(&TrailReplayer::new().replayed(trail), trail);
}

/// Of two attempts that were sent out at once the older one's task ran last.
fn overtaken(mischief: RelayMischief) -> Relay {
    let mut scene = Scene::new(Delivery::Streamed);
    scene.relay.dangerous_plant(mischief);
    scene.step(RelayEvent::AttemptDispatched {
        attempt: SECOND,
        is_second: false,
    });
    scene.seal(SECOND);
    scene.seal(FIRST);
    scene.chunk(SECOND, &content("late"));
    scene.relay
}

#[test]
fn a_relay_that_let_the_older_attempt_take_the_newer_ones_place_is_shown_by_its_trail() {
    let (sound, broken) = (
        overtaken(RelayMischief::None),
        overtaken(RelayMischief::LastBegunWins),
    );
    let mut replayer = TrailReplayer::new();
    assert_eq!(&replayer.replayed(sound.trail()), sound.trail());
    let recorded = broken.trail();
    let replayed = replayer.replayed(recorded);
    let last = |trail: &Trail| trail.entries().last().map(|entry| entry.told);
    assert_eq!(
        last(recorded),
        Some(Told::Chunk(Fate::Stale)),
        "the answer was lost"
    );
    assert_eq!(last(&replayed), Some(Told::Chunk(Fate::Relayed)));
    // The bug itself is replayed by the build that has it.
    replayer.dangerous_plant(RelayMischief::LastBegunWins);
    assert_eq!(&replayer.replayed(recorded), recorded);
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Dispatch(bool),
    Seal(bool),
    Say(bool),
    Preamble(bool),
    Garbage(bool),
    Cancel(bool),
    End(bool),
    Complete(bool),
    Release,
    Leave,
    Deny,
    Finish,
    Read,
}

fn op() -> impl Strategy<Value = Op> {
    let which = any::<bool>;
    prop_oneof![
        2 => which().prop_map(Op::Dispatch),
        4 => which().prop_map(Op::Seal),
        6 => which().prop_map(Op::Say),
        2 => which().prop_map(Op::Preamble),
        1 => which().prop_map(Op::Garbage),
        1 => which().prop_map(Op::Cancel),
        1 => which().prop_map(Op::End),
        2 => which().prop_map(Op::Complete),
        2 => Just(Op::Release),
        1 => Just(Op::Leave),
        1 => Just(Op::Deny),
        1 => Just(Op::Finish),
        2 => Just(Op::Read),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// INV-31.
    #[test]
    fn every_trail_steps_a_relay_to_itself(
        ops in prop::collection::vec(op(), 0..40),
        is_whole in any::<bool>(),
    ) {
        let delivery = if is_whole { Delivery::Whole } else { Delivery::Streamed };
        let mut scene = Scene::new(delivery);
        let name = |is_second: bool| if is_second { SECOND } else { FIRST };
        for (ix, op) in (0_u64..).zip(ops) {
            scene.now = Tick(ix * 1_000);
            match op {
                Op::Dispatch(is_second) => {
                    let attempt = name(is_second);
                    scene.step(RelayEvent::AttemptDispatched { attempt, is_second });
                }
                Op::Seal(which) => scene.seal(name(which)),
                Op::Say(which) => drop(scene.chunk(name(which), &content("word"))),
                Op::Preamble(which) => drop(scene.chunk(name(which), PREAMBLE)),
                Op::Garbage(which) => drop(scene.chunk(name(which), "what?")),
                Op::Cancel(which) => {
                    scene.step(RelayEvent::AttemptCancelled { attempt: name(which) });
                }
                Op::End(which) => drop(scene.step(RelayEvent::AttemptEnded { attempt: name(which) })),
                Op::Complete(which) => {
                    let parts = UsageParts::default();
                    scene.step(RelayEvent::Completed { attempt: name(which), parts });
                }
                Op::Release => drop(scene.step(RelayEvent::Released)),
                Op::Leave => drop(scene.step(RelayEvent::ConsumerLeft)),
                Op::Deny => drop(scene.step(RelayEvent::Denied { denial: Denial::ProviderFailed })),
                Op::Finish => drop(scene.finish()),
                Op::Read => drop(scene.taken()),
            }
        }
        let trail = scene.relay.trail();
        prop_assert_eq!(&TrailReplayer::new().replayed(trail), trail);
    }
}
