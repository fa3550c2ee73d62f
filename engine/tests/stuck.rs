//! Who waits for whom, and for how long: rows for slow readers, readers for steps that do not end.

#[path = "support/start.rs"]
mod start;

use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use cereus_core::draw::Seed;
use cereus_core::time::Span;
use cereus_engine::chat::ChatRequest;
use cereus_engine::failure::{Failure, Reason};
use cereus_engine::runtime::{
    Backend, EchoBackend, EngineConfig, Event, Job, Limits, Memory, StepError, StepWork,
};
use cereus_engine::sampling::Chosen;
use cereus_engine::scheduler::leases::LeaseConfig;
use cereus_engine::scheduler::{RowId, RowSlot};
use cereus_engine::text::Vocabulary;
use start::start;

/// Long enough that whoever could go on has.
const A_WHILE: Duration = Duration::from_millis(100);

/// An echo that takes each step when it is let, or at once.
struct Gated {
    echo: EchoBackend,
    gate: Option<Receiver<()>>,
    /// Dropped with the backend.
    _alive: Sender<()>,
}

impl Vocabulary for Gated {
    fn decode(&self, tokens: &[u32]) -> String {
        self.echo.decode(tokens)
    }
}

impl Backend for Gated {
    fn limits(&self) -> Limits {
        self.echo.limits()
    }

    fn step_time_max(&self) -> Duration {
        Duration::from_millis(20)
    }

    fn prompt(&self, request: &ChatRequest) -> Result<Vec<u32>, Failure> {
        self.echo.prompt(request)
    }

    fn is_end(&self, token: u32) -> bool {
        self.echo.is_end(token)
    }

    fn step(
        &mut self,
        step: &StepWork<'_>,
        out: &mut Vec<Option<Chosen>>,
    ) -> Result<(), StepError> {
        if let Some(gate) = &self.gate {
            let _is_open = gate.recv();
        }
        self.echo.step(step, out)
    }

    fn release(&mut self, slot: RowSlot) {
        self.echo.release(slot);
    }

    fn memory(&self) -> Memory {
        Memory::default()
    }
}

fn config() -> EngineConfig {
    EngineConfig::reference(1 << 20, Seed::from_number(1))
}

fn job(id: u64) -> Job {
    Job {
        id: RowId(id),
        body: br#"{"messages":[{"role":"user","content":"some words"}]}"#.to_vec(),
        scope: None,
    }
}

/// What has come until nothing more does.
fn so_far(heard: &Receiver<Event>) -> Vec<Event> {
    std::iter::from_fn(|| heard.recv_timeout(A_WHILE).ok()).collect()
}

fn words(events: &[Event], wanted: u64) -> usize {
    let is_word = |event: &&Event| matches!(event, Event::Delta { id, .. } if id.0 == wanted);
    events.iter().filter(is_word).count()
}

#[test]
fn a_row_waits_for_its_reader_and_holds_up_no_other() {
    let config = EngineConfig {
        unread_events_max: Some(8),
        ..config()
    };
    let (engine, heard) = start(&config, EchoBackend::new(40));
    engine.submit(job(1)).unwrap();
    let mut events = so_far(&heard);
    assert_eq!(words(&events, 1), 8);
    assert_eq!(engine.capacity().num_running, 1);
    let steps = engine.capacity().steps_executed;
    // Half of them read, and one less.
    engine.read(RowId(1), 3);
    events.extend(so_far(&heard));
    assert_eq!(words(&events, 1), 8);
    assert_eq!(engine.capacity().steps_executed, steps);
    engine.read(RowId(1), 1);
    events.extend(so_far(&heard));
    assert_eq!(words(&events, 1), 8 + 4);

    engine.submit(job(2)).unwrap();
    events.extend(so_far(&heard));
    assert_eq!((words(&events, 1), words(&events, 2)), (12, 8));
    while !matches!(events.last(), Some(Event::Finished(end)) if end.id.0 == 2) {
        engine.read(RowId(2), 8);
        events.extend(so_far(&heard));
    }
    assert_eq!((words(&events, 1), words(&events, 2)), (12, 40));

    engine.read(RowId(1), u32::MAX);
    while words(&events, 1) < 40 {
        events.extend(so_far(&heard));
        engine.read(RowId(1), u32::MAX);
    }
    engine.stop();
    events.extend(heard.iter());
    assert!(matches!(events.last(), Some(Event::Finished(end)) if end.id.0 == 1));
}

#[test]
fn a_row_whose_reader_is_gone_without_a_word_is_given_up() {
    let config = EngineConfig {
        unread_events_max: Some(8),
        leases: LeaseConfig {
            backpressure: Span::millis(200),
            ..LeaseConfig::REFERENCE
        },
        ..config()
    };
    let (engine, heard) = start(&config, EchoBackend::new(40));
    engine.submit(job(1)).unwrap();
    let events: Vec<Event> = std::iter::from_fn(|| heard.recv_timeout(4 * A_WHILE).ok()).collect();
    let Some(Event::Failed { id, failure }) = events.last() else {
        panic!("{events:?}");
    };
    assert_eq!((id.0, failure), (1, &Failure::cancelled()));
    assert_eq!(engine.capacity().num_running, 0);
    // A stopped engine waits for no reader longer than that.
    engine.submit(job(2)).unwrap();
    engine.stop();
    assert_eq!(words(&heard.iter().collect::<Vec<_>>(), 2), 8);
}

#[test]
fn a_step_that_does_not_end_fails_what_lives_and_is_not_waited_for() {
    let ((permits, gate), (alive, when_dropped)) = (sync_channel(1), channel());
    let backend = Gated {
        echo: EchoBackend::new(3),
        gate: Some(gate),
        _alive: alive,
    };
    let (engine, heard) = start(&config(), backend);
    engine.submit(job(1)).unwrap();
    assert!(matches!(heard.recv().unwrap(), Event::Accepted { .. }));
    // The thread is in its first step, and this one waits in the inbox.
    engine.submit(job(2)).unwrap();
    let failed: Vec<Event> = heard.iter().take(2).collect();
    for (event, wanted) in failed.iter().zip([1, 2]) {
        let Event::Failed { id, failure } = event else {
            panic!("{event:?}");
        };
        assert_eq!((id.0, failure.reason), (wanted, Reason::Stalled));
    }
    assert_eq!(engine.capacity().state(), "crashed");
    let refused = engine.submit(job(3)).unwrap_err();
    assert_eq!(refused.reason, Reason::Draining);
    engine.stop();

    // Should the step end after all, nobody hears of it, and the model is let go.
    permits.send(()).unwrap();
    assert!(when_dropped.recv().is_err());
    assert_eq!(heard.iter().count(), 0);
}

#[test]
fn steps_that_end_in_time_are_left_alone_however_many() {
    let ((permits, gate), (alive, _)) = (sync_channel(0), channel());
    let backend = Gated {
        echo: EchoBackend::new(4),
        gate: Some(gate),
        _alive: alive,
    };
    let (engine, heard) = start(&config(), backend);
    engine.submit(job(1)).unwrap();
    let feeder = thread::spawn(move || while permits.send(()).is_ok() {});
    let events: Vec<Event> = heard.iter().take(6).collect();
    assert!(
        matches!(events.last(), Some(Event::Finished(_))),
        "{events:?}"
    );
    // Idle time is no step's.
    thread::sleep(4 * A_WHILE);
    assert_eq!(engine.capacity().state(), "idle");
    engine.stop();
    feeder.join().unwrap();
}
