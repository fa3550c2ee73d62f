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
use crate::ids::{AccountId, AttemptKey, ConnId, ModelIx, RequestId};
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
            0 => out.push(Effect::Release { request }),
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
            writer.checkpoint(echo.digest(), &mut bytes);
        }
    }
    assert!(writer.offset() == bytes.len() as u64);
    writer.close(echo.digest(), &mut bytes);
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
                request: RequestId(request),
                account: AccountId(account),
                model: ModelIx(0),
                prompt_tokens: tokens,
                prompt_tokens_bound: tokens,
                output_tokens_max: 64,
                delivery: Delivery::Streamed,
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
        writer.checkpoint(live.digest(), &mut bytes);
    }
    assert_eq!(out.transfers.len(), 20, "one buffer holds the whole batch");
    writer.close(live.digest(), &mut bytes);

    let mut reader = Reader::open(&bytes).expect("just written");
    let mut fresh = Coordinator::new(reader.config().clone());
    let report = replay(&mut reader, &mut fresh);
    assert_eq!(report.diverged, None);
    assert_eq!(report.ending, Ending::Closed);
    assert_eq!(report.checkpoints, events.len() as u64 + 1);
    assert_eq!(fresh.digest(), live.digest());
}

#[test]
fn effects_digest_the_same_however_they_were_batched() {
    let transfer = |seq| Transfer {
        seq,
        kind: crate::effect::TransferKind::Deposit,
        request: RequestId(1),
        postings: [crate::effect::Posting {
            account: crate::effect::LedgerAccount::Clearing,
            amount: MicroUsd::ZERO,
        }; 4],
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
