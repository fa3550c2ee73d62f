//! What a recorder writes is what its coordinator handled, and trouble with the disk is its own.

use std::fs;

use cereus_core::config::{Catalog, Limits, ModelSpec};
use cereus_core::draw::Seed;
use cereus_core::event::Trust;
use cereus_core::journal::{Ending, Reader, Start, replay};
use cereus_core::money::Price;

use super::files::Kept;
use super::*;

fn config() -> Config {
    let spec = ModelSpec {
        id: "tiny".to_owned(),
        price: Price::DEFAULT,
        context_tokens: 8_192,
        output_tokens_default: 256,
        weights_bytes: 0,
    };
    Config {
        epoch: cereus_core::ids::Epoch(0),
        seed: Seed::from_number(1),
        catalog: Catalog::new(vec![spec]).unwrap(),
        limits: Limits::reference(),
        fee_percent: 10,
        trust_min: Trust::SelfSigned,
    }
}

const SMALL: JournalSettings = JournalSettings {
    rules: SegmentRules {
        size_min: 10_000,
        kept_max: 50_000,
    },
    disk_reserve: 0,
};

/// A recorder beside the coordinator that it records.
struct Recorded {
    core: Coordinator,
    recorder: Recorder,
    now: Tick,
    out: Effects,
}

impl Recorded {
    fn new(data: &Path, settings: JournalSettings) -> Self {
        Self {
            core: Coordinator::new(config()),
            recorder: Recorder::start(data, &config(), settings).unwrap(),
            now: Tick::ZERO,
            out: Effects::default(),
        }
    }

    fn turn(&mut self) {
        self.now = self.now + Span::millis(1);
        self.recorder.event(self.now, &Event::Woke);
        self.out.clear();
        self.core
            .step(self.now, &Event::Woke, &mut self.out)
            .unwrap();
        self.recorder.effects(&self.out, 0);
        self.recorder.flush(self.now, &self.core);
    }
}

fn segments(data: &Path) -> Vec<Kept> {
    Files::open(data, SMALL).unwrap().kept().unwrap()
}

#[tokio::test]
async fn a_long_journal_is_cut_and_its_oldest_parts_go() {
    let data = tempfile::tempdir().unwrap();
    let mut recorded = Recorded::new(data.path(), SMALL);
    let mut turns = 0_u64;
    while !matches!(&recorded.recorder.state, State::Recording(writer) if writer.segment() > 8) {
        recorded.turn();
        turns += 1;
        // Nobody waits for the thread; a test that is faster than its disk gives way.
        while recorded.recorder.work.capacity() < BATCHES_MAX / 2 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(recorded.recorder.lost_count(), 0);
    recorded.recorder.close(&recorded.core).await;
    let kept = segments(data.path());
    let total: u64 = kept.iter().map(|it| it.size).sum();
    assert!(kept.len() >= 3 && kept[0].number > 1, "{}", kept.len());
    assert!(total <= SMALL.rules.kept_max, "{total}");
    let mut events = 0;
    for (ix, segment) in kept.iter().enumerate() {
        let bytes = fs::read(&segment.path).unwrap();
        let mut reader = Reader::open(&bytes).unwrap();
        assert!(matches!(reader.segment().start, Start::Snapshot(_)));
        if ix > 0 {
            assert_eq!(reader.segment().events_before, events);
        }
        let mut core = reader.coordinator().unwrap();
        let report = replay(&mut reader, &mut core);
        assert!(report.is_faithful(), "{report:?}");
        assert_eq!(report.ending, Ending::Closed);
        events = reader.segment().events_before + report.events;
    }
    assert_eq!(events, turns, "no event is missing between segments");
}

#[tokio::test]
async fn a_disk_without_room_makes_it_rest_and_it_begins_anew_with_what_it_missed_counted() {
    let data = tempfile::tempdir().unwrap();
    let mut recorded = Recorded::new(data.path(), SMALL);
    recorded.turn();
    // The thread reports trouble, as it does when a write fails.
    recorded.recorder.is_broken.store(true, Ordering::Release);
    recorded.turn();
    assert!(matches!(recorded.recorder.state, State::Resting { .. }));
    for _ in 0..5 {
        recorded.turn();
    }
    assert_eq!(recorded.recorder.lost_count(), 5);
    recorded.now = recorded.now + REST;
    recorded.turn();
    recorded.turn();
    recorded.recorder.close(&recorded.core).await;
    let kept = segments(data.path());
    assert_eq!(kept.len(), 2);
    let bytes = fs::read(&kept[1].path).unwrap();
    let mut reader = Reader::open(&bytes).unwrap();
    assert_eq!(reader.segment().number, 2);
    let mut core = reader.coordinator().unwrap();
    let report = replay(&mut reader, &mut core);
    assert!(report.is_faithful() && report.events == 1, "{report:?}");
}

#[test]
fn events_gather_for_a_moment_before_a_thread_is_woken_for_them() {
    let data = tempfile::tempdir().unwrap();
    let mut recorded = Recorded::new(data.path(), SMALL);
    let (work, mut inbox) = mpsc::channel(8);
    recorded.recorder.work = work;
    // The head of the segment went out with the first turn.
    recorded.now = recorded.now + BATCH_WAIT;
    recorded.turn();
    assert!(inbox.try_recv().is_ok());
    recorded.turn();
    let due = recorded.recorder.next_wake().unwrap();
    assert_eq!(due, recorded.now + BATCH_WAIT);
    recorded.turn();
    assert!(inbox.try_recv().is_err(), "two events are not worth a wake");
    recorded.recorder.flush(due, &recorded.core);
    assert!(inbox.try_recv().is_ok(), "and none waits for a third");
    assert_eq!(recorded.recorder.next_wake(), None);
    recorded.turn();
    recorded.recorder.give_up(recorded.now);
    assert!(inbox.try_recv().is_ok(), "the end takes what there is");
}

#[test]
fn a_disk_that_stands_still_is_not_waited_for() {
    let data = tempfile::tempdir().unwrap();
    let mut recorded = Recorded::new(data.path(), SMALL);
    // A thread that takes nothing: its inbox is full, and nobody reads it.
    let (work, _inbox) = mpsc::channel(1);
    recorded.recorder.work = work;
    for _ in 0..10 {
        recorded.now = recorded.now + BATCH_WAIT;
        recorded.turn();
    }
    assert!(matches!(recorded.recorder.state, State::Resting { .. }));
    assert!(recorded.recorder.lost_count() > 0);
}
