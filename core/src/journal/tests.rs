use core::num::NonZeroU32;
use std::borrow::Cow;

use proptest::prelude::*;

use super::replay::Replayed;
use super::*;
use crate::config::{Catalog, Config, Limits, ModelSpec};
use crate::coordinator::{Coordinator, Misuse};
use crate::denial::Denial;
use crate::digest::Mix;
use crate::draw::Seed;
use crate::effect::{Effect, Effects, Transfer};
use crate::event::{
    Ask, AttemptFault, Delivery, Event, GoneCause, MachineReport, SlotReport, SlotState,
};
use crate::event::{Stamped, Trust};
use crate::ids::{AccountId, AttemptKey, ConnId, Epoch, ModelIx, RequestId};
use crate::money::{MicroUsd, Price};
use crate::time::Tick;

fn config() -> Config {
    let spec = ModelSpec {
        id: "acme/tiny".into(),
        price: Price::DEFAULT,
        context_tokens: 4_096,
        output_tokens_default: 512,
        weights_bytes: 8_000_000,
    };
    Config {
        epoch: Epoch(0),
        seed: Seed::from_number(7),
        catalog: Catalog::new(vec![spec]).expect("one model is a catalogue"),
        limits: Limits::reference(),
        fee_percent: 10,
        trust_min: Trust::SelfSigned,
    }
}

/// Answers each event with effects that depend on all events before it.
#[derive(Default)]
struct Echo {
    mix: Mix,
    steps: u64,
    lies_after: Option<u64>,
}

impl Replayed for Echo {
    fn step(&mut self, now: Tick, event: &Event<'_>, out: &mut Effects) -> Result<(), Misuse> {
        use core::hash::Hash;
        now.hash(&mut self.mix);
        event.hash(&mut self.mix);
        self.steps += 1;
        let request = RequestId(self.mix.end_wide());
        if self.lies_after.is_some_and(|after| self.steps > after) {
            out.push(Effect::Drained);
        }
        match self.mix.end() % 3 {
            0 => out.push(Effect::Release {
                request,
                attempt: AttemptKey {
                    slot: 1,
                    generation: 1,
                },
            }),
            1 => out.push(Effect::Refuse {
                request,
                denial: Denial::Full { retry_after_s: 2 },
            }),
            _ => {}
        }
        Ok(())
    }

    fn digest(&self) -> u128 {
        self.mix.end_wide()
    }
}

fn written(events: &[Stamped<'_>], every: u32) -> Vec<u8> {
    let every = NonZeroU32::new(every).expect("tests pass a positive interval");
    let (mut bytes, mut echo, mut out) = (Vec::new(), Echo::default(), Effects::default());
    let mut writer = Writer::begin(&config(), every, &mut bytes).expect("the config is small");
    for stamped in events {
        writer
            .event(stamped.at, &stamped.event, &mut bytes)
            .expect("test events are small");
        // The list is never cleared: batching must not matter.
        let from = out.list.len();
        echo.step(stamped.at, &stamped.event, &mut out)
            .expect("an echo takes everything");
        writer.effects(&out, from);
        if writer.is_checkpoint_due() {
            writer.checkpoint(Some(echo.digest()), &mut bytes);
        }
    }
    assert!(writer.offset() == bytes.len() as u64);
    writer.close(Some(echo.digest()), &mut bytes);
    bytes
}

fn replayed(bytes: &[u8]) -> Result<Report, Fault> {
    let mut reader = Reader::open(bytes)?;
    Ok(replay(&mut reader, &mut Echo::default()))
}

fn slot() -> impl Strategy<Value = SlotReport> {
    (any::<u16>(), any::<u32>(), any::<u64>(), any::<bool>()).prop_map(
        |(small, medium, large, wedged)| SlotReport {
            model: ModelIx(small),
            state: SlotState::Running,
            running: small,
            waiting: 0,
            concurrency_max: 8,
            budget_used: large,
            budget_max: large,
            budget_queued: 0,
            decode_mtps: medium,
            prefill_mtps: medium,
            load_ms: 0,
            wedged,
        },
    )
}

fn event() -> impl Strategy<Value = Event<'static>> {
    let attempt = || {
        (any::<u32>(), any::<u32>()).prop_map(|(slot, generation)| AttemptKey { slot, generation })
    };
    prop_oneof![
        Just(Event::Woke),
        Just(Event::DrainBegan),
        any::<u64>().prop_map(|up_to| Event::Persisted { up_to }),
        (any::<u64>(), any::<i64>()).prop_map(|(account, amount)| Event::AccountCredited {
            reference: Some(account),
            account: AccountId(account),
            amount: MicroUsd(amount),
        }),
        (any::<u64>(), prop::collection::vec(slot(), 0..8)).prop_map(|(conn, slots)| {
            Event::ProviderReported {
                conn: ConnId(conn),
                report: MachineReport::default(),
                slots: Cow::Owned(slots),
            }
        }),
        any::<u64>().prop_map(|conn| Event::ProviderLeft {
            conn: ConnId(conn),
            cause: GoneCause::Silent,
        }),
        (any::<u128>(), any::<u64>(), any::<u32>()).prop_map(|(request, account, tokens)| {
            Event::Arrived(Ask {
                prompt_tokens: tokens,
                prompt_tokens_bound: tokens,
                output_tokens_max: 64,
                delivery: Delivery::Streamed,
                ..Ask::new(RequestId(request), AccountId(account), ModelIx(0))
            })
        }),
        (any::<u64>(), attempt(), any::<u16>()).prop_map(|(conn, attempt, status)| {
            Event::AttemptFailed {
                conn: ConnId(conn),
                attempt,
                fault: AttemptFault::Client(status),
            }
        }),
    ]
}

fn events() -> impl Strategy<Value = Vec<Stamped<'static>>> {
    prop::collection::vec(
        (any::<u64>(), event()).prop_map(|(at, event)| Stamped {
            at: Tick(at),
            event,
        }),
        0..24,
    )
}

fn one_day() -> Vec<Stamped<'static>> {
    (0..20)
        .map(|ix| Stamped {
            at: Tick(ix * 1_000),
            event: Event::Persisted { up_to: ix },
        })
        .collect()
}

#[test]
fn every_flipped_bit_is_reported_at_or_before_its_byte() {
    let bytes = written(&one_day(), 8);
    for ix in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[ix] ^= 1 << bit;
            let fault = match replayed(&flipped) {
                Err(fault) => fault,
                Ok(report) => match report.ending {
                    Ending::Faulty(fault) => fault,
                    Ending::Closed => panic!("byte {ix} flipped and nobody noticed"),
                },
            };
            assert!(fault.at() <= ix as u64, "{fault} for byte {ix}");
            assert!(!fault.is_torn_tail(), "{fault} for byte {ix}");
        }
    }
}

#[test]
fn every_truncation_is_a_torn_tail_and_all_before_it_is_replayed() {
    let events = one_day();
    let bytes = written(&events, 8);
    let mut replayed_max = 0;
    for size in 0..bytes.len() {
        match replayed(&bytes[..size]) {
            Err(fault) => assert!(fault.is_torn_tail(), "{fault} at {size}"),
            Ok(report) => {
                let Ending::Faulty(fault) = report.ending else {
                    panic!("cut at {size} and nobody noticed");
                };
                assert!(fault.is_torn_tail() && fault.at() <= size as u64);
                assert!(report.is_faithful());
                assert!(report.events >= replayed_max);
                replayed_max = report.events;
            }
        }
    }
    assert_eq!(replayed_max, events.len() as u64);
}

#[test]
fn zeros_until_the_end_are_a_torn_tail_and_zeros_amid_records_are_damage() {
    let mut bytes = written(&one_day(), 3);
    let reader = Reader::open(&bytes).unwrap();
    let first = usize::try_from(reader.offset()).unwrap();
    let half = usize::midpoint(first, bytes.len());
    let mut zeroed = bytes.clone();
    zeroed[half..].fill(0);
    zeroed.extend([0; 512]);
    let report = replayed(&zeroed).unwrap();
    let Ending::Faulty(fault) = report.ending else {
        panic!("it has no end");
    };
    assert!(fault.is_torn_tail(), "{fault}");
    assert!(fault.at() <= half as u64 && report.is_faithful());

    bytes[half..half + 40].fill(0);
    let report = replayed(&bytes).unwrap();
    assert!(matches!(
        report.ending,
        Ending::Faulty(Fault::BadChecksum { .. })
    ));
}

#[test]
fn a_reader_goes_on_at_the_first_sound_record_behind_a_hole() {
    let sound = written(&one_day(), 3);
    let mut reader = Reader::open(&sound).unwrap();
    assert_eq!(reader.skip_hole(), None, "nothing is damaged");
    let mut starts = Vec::new();
    loop {
        starts.push(reader.offset());
        if !matches!(reader.next(), Some(Ok(_))) {
            break;
        }
    }
    let (from, to) = (starts[1], starts[3]);
    let mut bytes = sound.clone();
    let hole = usize::try_from(from).unwrap()..usize::try_from(to).unwrap();
    bytes[hole].fill(0x5a);
    let mut reader = Reader::open(&bytes).unwrap();
    assert!(matches!(reader.next(), Some(Ok(_))));
    assert!(matches!(reader.next(), Some(Err(_))));
    assert_eq!(reader.skip_hole(), Some(Hole { from, to }));
    assert!(reader.all(|record| record.is_ok()));
    assert_eq!(reader.skip_hole(), None);
}

#[test]
fn a_removed_or_repeated_record_is_found() {
    let bytes = written(&one_day(), 8);
    let mut reader = Reader::open(&bytes).expect("just written");
    let first = usize::try_from(reader.offset()).expect("small");
    reader.next().expect("there are records").expect("sound");
    let second = usize::try_from(reader.offset()).expect("small");

    let removed = [&bytes[..first], &bytes[second..]].concat();
    let repeated = [&bytes[..second], &bytes[first..]].concat();
    for (bytes, at) in [(removed, first), (repeated, second)] {
        let report = replayed(&bytes).expect("the header is sound");
        assert_eq!(
            report.ending,
            Ending::Faulty(Fault::BadChecksum { at: at as u64 })
        );
    }
}

#[test]
fn bytes_after_the_closing_record_are_reported() {
    let mut bytes = written(&one_day(), 8);
    let at = bytes.len() as u64;
    bytes.push(0);
    let report = replayed(&bytes).expect("the header is sound");
    assert_eq!(report.ending, Ending::Faulty(Fault::TrailingBytes { at }));
}

#[test]
fn the_first_checkpoint_that_differs_is_named() {
    let bytes = written(&one_day(), 8);
    let mut reader = Reader::open(&bytes).expect("just written");
    let mut liar = Echo {
        lies_after: Some(9),
        ..Echo::default()
    };
    let report = replay(&mut reader, &mut liar);
    let divergence = report.diverged.expect("one more effect diverges");
    assert_eq!(divergence.agreed, 1);
    assert_eq!(divergence.recorded.events, 16);
    assert_ne!(
        divergence.recorded.effects_digest,
        divergence.replayed.effects_digest
    );
    assert!(!report.is_faithful());
    assert_eq!(report.events, 20);
}

#[test]
fn an_oversized_event_is_refused_and_appends_nothing() {
    let mut bytes = Vec::new();
    let mut writer =
        Writer::begin(&config(), NonZeroU32::MIN, &mut bytes).expect("the config is small");
    let size = bytes.len();
    let event = Event::ProviderRestocked {
        conn: ConnId(1),
        models: Cow::Owned(vec![ModelIx(9); RECORD_SIZE_MAX]),
    };
    let refused = writer.event(Tick::ZERO, &event, &mut bytes);
    assert!(refused.is_err());
    assert_eq!(bytes.len(), size);
}

#[test]
fn a_coordinator_recorded_in_batches_is_replayed_step_by_step() {
    let account = AccountId(1);
    let mut events = vec![Event::AccountOpened {
        account,
        balance: MicroUsd::ZERO,
    }];
    for _ in 0..20 {
        events.push(Event::AccountCredited {
            account,
            amount: MicroUsd(5),
            reference: None,
        });
        events.push(Event::Woke);
    }
    let (mut bytes, mut out) = (Vec::new(), Effects::default());
    let mut writer =
        Writer::begin(&config(), NonZeroU32::MIN, &mut bytes).expect("the config is small");
    let mut live = Coordinator::new(config());
    for (at, event) in (0..).map(Tick).zip(&events) {
        writer.event(at, event, &mut bytes).expect("small");
        let from = out.list.len();
        live.step(at, event, &mut out).expect("in order");
        writer.effects(&out, from);
        writer.checkpoint(Some(live.digest()), &mut bytes);
    }
    assert_eq!(out.transfers.len(), 20, "one buffer holds the whole batch");
    writer.close(Some(live.digest()), &mut bytes);

    let mut reader = Reader::open(&bytes).expect("just written");
    let mut fresh = Coordinator::new(reader.config().clone());
    let report = replay(&mut reader, &mut fresh);
    assert_eq!(report.diverged, None);
    assert_eq!(report.ending, Ending::Closed);
    assert_eq!(report.checkpoints, events.len() as u64 + 1);
    assert_eq!(fresh.digest(), live.digest());
}

/// The events of the journal in `traces/journal` that `version` wrote.
fn events_of(bytes: &[u8]) -> (Reader<'_>, Vec<Stamped<'static>>) {
    let reader = Reader::open(bytes).expect("every version is read");
    let events = reader.clone().filter_map(|record| match record {
        Ok(Record::Event(stamped)) => Some(stamped),
        Ok(Record::Checkpoint(_) | Record::Closed(_) | Record::Snapshot(_) | Record::Trail(..)) => {
            None
        }
        Err(fault) => panic!("a journal that was written stays readable: {fault}"),
    });
    let events = events.collect();
    (reader, events)
}

#[test]
fn the_journal_of_version_1_is_read_whole() {
    let bytes = include_bytes!("../../../traces/journal/1.journal");
    let (reader, events) = events_of(bytes);
    assert_eq!(events, samples::version_1());
    assert_eq!(reader.config(), &samples::config());
    assert_eq!(reader.segment().number, 1);
    let report = replay(&mut reader.clone(), &mut Echo::default());
    assert_eq!((report.checkpoints, report.ending), (3, Ending::Closed));
}

#[test]
fn the_journal_of_version_2_is_read_whole() {
    let bytes = include_bytes!("../../../traces/journal/2.journal");
    let (reader, events) = events_of(bytes);
    assert_eq!(events, samples::version_2());
    assert_eq!(reader.config(), &samples::config());
    let report = replay(&mut reader.clone(), &mut Echo::default());
    assert_eq!((report.checkpoints, report.ending), (3, Ending::Closed));
}

#[test]
fn the_journal_of_version_2_with_records_up_to_33_is_read_whole() {
    let bytes = include_bytes!("../../../traces/journal/2-33.journal");
    let (reader, events) = events_of(bytes);
    assert_eq!(events, samples::version_2_later());
    assert_eq!(reader.config(), &samples::config());
    let trails = reader.filter_map(|record| match record {
        Ok(Record::Trail(request, trail)) => Some((request, trail)),
        Ok(Record::Checkpoint(_) | Record::Closed(_) | Record::Event(_) | Record::Snapshot(_))
        | Err(_) => None,
    });
    assert_eq!(trails.collect::<Vec<_>>(), [samples::trail()]);
}

#[test]
fn a_version_of_the_future_is_refused_by_its_name() {
    let mut bytes = written(&one_day(), 8);
    bytes[8..12].copy_from_slice(&9_u32.to_le_bytes());
    let fault = Reader::open(&bytes).expect_err("version 9 is not known");
    assert_eq!(fault, Fault::UnsupportedVersion { at: 8, version: 9 });
    assert!(fault.to_string().contains("version 9"), "{fault}");
}

#[test]
fn a_header_that_knew_fewer_limits_is_read_with_the_published_ones() {
    let mut bytes = Vec::new();
    let mut config = config();
    config.limits.queue_depth_max = 7;
    Writer::begin(&config, NonZeroU32::MIN, &mut bytes).expect("the config is small");
    let text = String::from_utf8(bytes[HEADER_SIZE..].to_vec()).expect("JSON");
    let older = text.replacen(",\"candidates_max\":8", "", 1);
    assert!(older.len() < text.len(), "{text}");
    let newer = older.replacen("\"limits\":{", "\"limits\":{\"of_the_future\":1,", 1);
    for content in [older, newer] {
        let reader_bytes = with_head(content.as_bytes());
        let reader = Reader::open(&reader_bytes).expect("readable");
        assert_eq!(reader.config(), &config);
    }
}

/// A header of this version around `content`.
fn with_head(content: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    let length = u32::try_from(content.len()).expect("small");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&checksum(HEADER_SIZE as u64, content).to_le_bytes());
    let head = checksum(0, &bytes);
    bytes.extend_from_slice(&head.to_le_bytes());
    bytes.extend_from_slice(content);
    bytes
}

#[test]
fn a_later_segment_replays_alone_from_its_snapshot() {
    let account = AccountId(1);
    let mut live = Coordinator::new(config());
    let (mut out, mut bytes) = (Effects::default(), Vec::new());
    let opened = Event::AccountOpened {
        account,
        balance: MicroUsd(40),
    };
    live.step(Tick(1), &opened, &mut out).expect("in order");
    let mut writer = Writer::resume(&live, 2, 1, NonZeroU32::MIN, &mut bytes).expect("small");
    for at in 2..30 {
        let event = Event::AccountCredited {
            account,
            amount: MicroUsd(5),
            reference: None,
        };
        writer.event(Tick(at), &event, &mut bytes).expect("small");
        out.clear();
        live.step(Tick(at), &event, &mut out).expect("in order");
        writer.effects(&out, 0);
    }
    assert_eq!((writer.segment(), writer.events_so_far()), (2, 29));
    writer.close(Some(live.digest()), &mut bytes);

    let mut reader = Reader::open(&bytes).expect("just written");
    assert_eq!(
        (reader.segment().number, reader.segment().events_before),
        (2, 1)
    );
    let mut restored = reader.coordinator().expect("of this build");
    let report = replay(&mut reader, &mut restored);
    assert!(
        report.is_faithful() && report.ending == Ending::Closed,
        "{report:?}"
    );
    assert_eq!(
        restored.books().account(account),
        live.books().account(account)
    );
}

#[test]
fn a_snapshot_of_another_build_is_refused_by_name_and_its_events_are_still_read() {
    let mut bytes = Vec::new();
    let live = Coordinator::new(config());
    let writer = Writer::resume(&live, 2, 0, NonZeroU32::MIN, &mut bytes).expect("small");
    writer.close(None, &mut bytes);
    let digest = format!("{:032x}", live.digest());
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let at = text.find(&digest).expect("the header names it");
    let mut content = bytes[HEADER_SIZE..].to_vec();
    let size = usize::try_from(u32::from_le_bytes(
        bytes[12..16].try_into().expect("four bytes"),
    ))
    .expect("small");
    content.truncate(size);
    let at = at - HEADER_SIZE;
    content[at] = if content[at] == b'0' { b'1' } else { b'0' };
    let mut foreign = with_head(&content);
    foreign.extend_from_slice(&bytes[HEADER_SIZE + size..]);
    let reader = Reader::open(&foreign).expect("the header is sound");
    let fault = reader.coordinator().expect_err("another state");
    assert!(matches!(fault, Fault::ForeignSnapshot { .. }), "{fault}");
    assert!(fault.to_string().contains("another build"));
    assert!(reader.into_iter().all(|record| record.is_ok()));
}

#[test]
fn the_state_is_digested_in_proportion_to_its_size_and_never_more() {
    let mut bytes = Vec::new();
    let mut writer =
        Writer::begin(&config(), NonZeroU32::MIN, &mut bytes).expect("the config is small");
    let mut event = |writer: &mut Writer| {
        writer
            .event(Tick::ZERO, &Event::Woke, &mut bytes)
            .expect("small");
    };
    for _ in 0..STATE_EVENTS_PER_ENTITY - 1 {
        event(&mut writer);
    }
    assert!(!writer.is_state_due(1));
    event(&mut writer);
    assert!(writer.is_state_due(1));
    assert!(
        !writer.is_state_due(100_000),
        "a large state waits for longer"
    );
    writer.checkpoint(None, &mut Vec::new());
    assert!(writer.is_state_due(1), "it is still due");
    writer.checkpoint(Some(1), &mut Vec::new());
    assert!(!writer.is_state_due(1));
}

#[test]
fn effects_digest_the_same_however_they_were_batched() {
    let transfer = |seq| Transfer {
        seq,
        kind: crate::effect::TransferKind::Deposit,
        cause: crate::effect::Cause::Outside,
        reference: Some(seq),
        postings: crate::effect::Postings::EMPTY,
    };
    let (mut apart, mut together) = (EffectsDigest::default(), EffectsDigest::default());
    let mut batch = Effects::default();
    for seq in 1..=3 {
        let mut single = Effects::default();
        single.post(transfer(seq));
        apart.fold(&single, 0);
        let from = batch.list.len();
        batch.post(transfer(seq));
        together.fold(&batch, from);
    }
    assert_eq!(apart, together);
}

proptest! {
    #[test]
    fn what_was_written_is_read(events in events(), every in 1u32..9) {
        let bytes = written(&events, every);
        let mut reader = Reader::open(&bytes).expect("just written");
        prop_assert_eq!(reader.config(), &config());
        let mut read = Vec::new();
        for record in &mut reader {
            if let Record::Event(stamped) = record.expect("just written") {
                read.push(stamped);
            }
        }
        prop_assert_eq!(&read, &events);
        let report = replayed(&bytes).expect("just written");
        prop_assert!(report.is_faithful());
        prop_assert_eq!(report.ending, Ending::Closed);
        prop_assert_eq!(report.checkpoints, events.len() as u64 / u64::from(every) + 1);
    }

    #[test]
    fn a_damaged_journal_is_never_taken_for_a_sound_one(
        events in events(),
        place in any::<prop::sample::Index>(),
        change in 1u8..,
    ) {
        let mut bytes = written(&events, 4);
        let ix = place.index(bytes.len());
        bytes[ix] ^= change;
        match replayed(&bytes) {
            Err(fault) => prop_assert!(fault.at() <= ix as u64),
            Ok(report) => {
                let Ending::Faulty(fault) = report.ending else {
                    return Err(TestCaseError::fail("nobody noticed"));
                };
                prop_assert!(fault.at() <= ix as u64 && !fault.is_torn_tail());
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(noise in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = replayed(&noise);
        let mut grafted = written(&[], 1);
        grafted.extend_from_slice(&noise);
        let _ = replayed(&grafted);
    }
}

#[test]
fn a_replay_steps_each_trail_again_and_names_the_first_relay_that_strays() {
    use crate::relay::{Entry, Fate, Told, Trail};
    let attempt = AttemptKey {
        slot: 1,
        generation: 1,
    };
    let told = |fate| {
        let told = [Told::Dispatched, Told::Began, Told::Chunk(fate)];
        let entries = told.map(|told| Entry {
            at: Tick(7),
            attempt: Some(attempt),
            told,
        });
        Trail::of(Delivery::Streamed, &entries).expect("few entries")
    };
    let mut bytes = Vec::new();
    let mut writer = Writer::begin(&config(), NonZeroU32::MIN, &mut bytes).expect("small");
    for (request, fate) in [(1, Fate::Relayed), (2, Fate::Stale), (3, Fate::Held)] {
        let written = writer.trail(RequestId(request), &told(fate), &mut bytes);
        written.expect("small");
    }
    let live = Coordinator::new(config());
    writer.close(Some(live.digest()), &mut bytes);
    let mut reader = Reader::open(&bytes).expect("just written");
    let report = replay(&mut reader, &mut Coordinator::new(config()));
    assert_eq!((report.trails, report.diverged), (3, None));
    let strayed = report.strayed.expect("the second was never so");
    assert_eq!(strayed.request, RequestId(2));
    let kinds = [strayed.recorded, strayed.replayed].map(|entry| entry.map(|it| it.told));
    let expected = [Fate::Stale, Fate::Relayed].map(|fate| Some(Told::Chunk(fate)));
    assert_eq!(kinds, expected);
    assert!(!report.is_faithful());
}
