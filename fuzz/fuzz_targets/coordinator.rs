//! The control plane under any order of events: every invariant after every step, and after the
//! fleet has gone and time has passed nothing is left.
#![no_main]

use cereus_core::coordinator::Coordinator;
use cereus_core::effect::Effects;
use cereus_core::event::Event;
use cereus_core::time::{Span, Tick};
use cereus_fuzz::ops::{Op, Script, Turn, config};
use libfuzzer_sys::fuzz_target;

const OPS_MAX: usize = 150;
/// Wakes after which everything must have ended.
const WAKES_MAX: u32 = 10_000;

fuzz_target!(|ops: Vec<Op>| {
    let mut coordinator = Coordinator::new(config());
    let (mut script, mut out) = (Script::default(), Effects::default());
    let mut now = Tick(1);
    for op in ops.iter().take(OPS_MAX) {
        let event = match script.turn(op, coordinator.books().last_seq()) {
            Turn::Event(event) => event,
            Turn::Pass(span) => {
                now = now + span;
                Event::Woke
            }
        };
        out.clear();
        let before = coordinator.digest();
        if coordinator.step(now, &event, &mut out).is_err() {
            assert_eq!(coordinator.digest(), before, "misuse changed the state");
            assert!(out.list.is_empty());
        }
        script.follow(&out);
        coordinator.check();
    }
    let again = Coordinator::restore(&coordinator.snapshot()).expect("our own snapshot");
    assert_eq!(again.digest(), coordinator.digest(), "INV-17");
    for _ in 0..WAKES_MAX {
        out.clear();
        let up_to = coordinator.books().last_seq();
        coordinator
            .step(now, &Event::Persisted { up_to }, &mut out)
            .expect("all was posted");
        let Some((at, _)) = coordinator.next_wake() else {
            break;
        };
        now = Tick(now.0.max(at.0) + Span::millis(1).0);
        coordinator
            .step(now, &Event::Woke, &mut out)
            .expect("a wake is no misuse");
        coordinator.check();
    }
    coordinator.invariant_quiescent();
});
