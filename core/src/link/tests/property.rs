//! Random operations and hostile bytes.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Bytes(Vec<u8>),
    Cancel(u32),
    Catalog,
    Chunk(u32),
    Complete(u32),
    Dispatch(u32),
    Error(u32),
    Heartbeat,
    Pass(u64),
    Register,
    WriteFinished,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Op::Bytes),
        2 => (0u32..6).prop_map(Op::Cancel),
        1 => Just(Op::Catalog),
        2 => (0u32..8).prop_map(Op::Chunk),
        2 => (0u32..8).prop_map(Op::Complete),
        4 => (0u32..6).prop_map(Op::Dispatch),
        2 => (0u32..8).prop_map(Op::Error),
        3 => Just(Op::Heartbeat),
        2 => (1u64..40).prop_map(Op::Pass),
        1 => Just(Op::Register),
        4 => Just(Op::WriteFinished),
    ]
}

fn apply(world: &mut World, op: &Op) {
    let key = provider_key().public().text();
    match op {
        Op::Bytes(bytes) => world.frame(bytes),
        Op::Cancel(number) => world.step(LinkEvent::CancelRequested {
            shown: Shown::default(),
            attempt: attempt(*number),
        }),
        Op::Catalog => {
            let model = ModelIx(0);
            let spec = world.rules.catalog.spec(model).unwrap().clone();
            if !world.rules.catalog.retire(model) {
                world.rules.catalog.list(spec).unwrap();
            }
            world.step(LinkEvent::CatalogChanged);
        }
        Op::Chunk(number) => world.chunk((*number).into(), key.as_str()),
        Op::Complete(number) => world.complete((*number).into()),
        Op::Dispatch(number) => {
            let frame = vec![b'{', b'}'];
            let (attempt, wire) = (attempt(*number), wire((*number).into()));
            let event = LinkEvent::DispatchRequested {
                attempt,
                wire,
                frame,
            };
            let answer = world
                .link
                .step(world.now, event, &world.rules, &mut world.out);
            assert!(matches!(answer, Ok(None) | Err(LinkMisuse::WireIdReused)));
        }
        Op::Error(number) => world.error((*number).into(), 500),
        Op::Heartbeat => world.heartbeat(),
        Op::Pass(s) => {
            let until = world.now.0 / 1_000_000 + s;
            world.pass_until(until);
        }
        Op::Register => world.frame(&plain_register()),
        Op::WriteFinished => {
            let answer = world.link.step(
                world.now,
                LinkEvent::WriteFinished,
                &world.rules,
                &mut world.out,
            );
            assert!(matches!(answer, Ok(None) | Err(LinkMisuse::NothingWritten)));
        }
    }
}

proptest! {
    #[test]
    fn each_attempt_ends_at_most_once_and_two_runs_are_equal(
        ops in prop::collection::vec(op(), 0..60),
    ) {
        let run = || {
            let mut world = World::new();
            world.holds_writes = true;
            let (mut ends, mut dispatched) = ([0u32; 6], [0u32; 6]);
            for op in &ops {
                if let Op::Dispatch(number) = op {
                    dispatched[*number as usize] += 1;
                }
                apply(&mut world, op);
                for effect in core::mem::take(&mut world.out.list) {
                    match effect {
                        LinkEffect::Write { .. } => {}
                        other => world.carry_out(other),
                    }
                }
            }
            for number in 0..6 {
                let ended = |line: &&str| {
                    line.starts_with(&format!("completed {number} "))
                        || line.starts_with(&format!("tell failed {number} "))
                };
                ends[number] += u32::try_from(world.log.lines().filter(ended).count()).unwrap();
                assert!(ends[number] <= dispatched[number]);
            }
            let lefts = world.log.lines().filter(|line| line.starts_with("tell left")).count();
            let joins = world.log.lines().filter(|line| line.starts_with("tell joined")).count();
            assert!(lefts <= joins && joins <= 1);
            (world.link.digest(), world.log)
        };
        prop_assert_eq!(run(), run());
    }

    #[test]
    fn hostile_bytes_never_panic_a_joined_link(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..10),
        text in ".{0,60}",
    ) {
        let mut world = World::joined();
        for frame in &frames {
            world.frame(frame);
        }
        let quoted = serde_json::to_string(&text).unwrap();
        for kind in ["inference_error", "inference_complete", "load_model_status", "heartbeat"] {
            let hostile = format!(r#"{{"type":"{kind}","request_id":{quoted},"model_id":{quoted},"status":{quoted}}}"#);
            world.frame(hostile.as_bytes());
        }
        prop_assert!(!world.link.is_closed());
    }
}
