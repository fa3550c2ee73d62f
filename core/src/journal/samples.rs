//! One event of each kind, for the journals in `traces/journal` that each version of the format wrote.

use std::borrow::Cow;

use crate::config::{Catalog, Config, Limits, ModelSpec};
use crate::draw::Seed;
use crate::event::{
    Ask, AttemptFault, Delivery, Ending, Event, GoneCause, MachineReport, MachineSpec, Machines,
    Shown, SlotReport, SlotState, Stamped, Thermal, Trust, Usage,
};
use crate::ids::{AccountId, AttemptKey, ConnId, Epoch, MachineId, ModelIx, RequestId};
use crate::money::{MicroUsd, Price};
use crate::relay::{Entry, Fate, Told, Trail};
use crate::time::{Span, Tick};
use crate::traits::Traits;

/// As version 1 wrote it, whatever is published today.
#[allow(
    clippy::needless_update,
    reason = "needless only until the next limit is added"
)]
pub(super) fn config() -> Config {
    let spec = |id: &str, context_tokens| ModelSpec {
        id: id.into(),
        price: Price::DEFAULT,
        context_tokens,
        output_tokens_default: 512,
        weights_bytes: 8_000_000,
    };
    Config {
        epoch: Epoch(0),
        seed: Seed::from_number(7),
        catalog: Catalog::new(vec![spec("acme/tiny", 4_096), spec("acme/small", 8_192)])
            .expect("two models are a catalogue"),
        limits: Limits {
            accounts_max: 1_000_000,
            providers_max: 131_072,
            models_per_provider_max: 64,
            requests_max: 1_048_576,
            queue_depth_max: 256,
            queue_wait_max: Span::secs(120),
            accept_wait_max: Span::secs(10),
            accept_wait_per_prompt_token: Span::millis(1),
            first_content_wait_max: Span::secs(600),
            idle_wait_max: Span::secs(600),
            attempts_max: 8,
            capacity_refusals_max: 3,
            challenge_fresh_max: Span::secs(16 * 60),
            cold_load_default: Span::secs(30),
            candidates_max: 8,
            // What version 1 did not have.
            ..Limits::reference()
        },
        fee_percent: 10,
        trust_min: Trust::SelfSigned,
    }
}

/// What version 1 could say, each variant with values of its own; what it could not say is as its
/// records are read.
pub(super) fn version_1() -> Vec<Stamped<'static>> {
    let (account, conn) = (AccountId(1), ConnId(7));
    let request = RequestId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
    let attempt = AttemptKey {
        slot: 3,
        generation: 2,
    };
    let slot = |model, state| SlotReport {
        model: ModelIx(model),
        state,
        running: 1,
        waiting: 2,
        concurrency_max: 8,
        budget_used: 3_000,
        budget_max: 40_000,
        budget_queued: 500,
        decode_mtps: 61_000,
        prefill_mtps: 700_000,
        load_ms: 900,
        wedged: model == 1,
    };
    let failed = |fault| Event::AttemptFailed {
        conn,
        attempt,
        fault,
    };
    let left = |cause| Event::ProviderLeft { conn, cause };
    let mut events = vec![
        Event::AccountOpened {
            account,
            balance: MicroUsd(5_000_000),
        },
        Event::AccountCredited {
            account,
            amount: MicroUsd(250),
            reference: None,
        },
        Event::HoldRecovered {
            account,
            request: RequestId(9),
            amount: MicroUsd(1_234),
        },
        Event::Persisted { up_to: 2 },
        Event::ProviderJoined {
            conn,
            machine: MachineId(0xfeed_beef),
            owner: AccountId(2),
            trust: Trust::Hardware,
            spec: MachineSpec {
                memory_gb: 64,
                bandwidth_gbs: 400,
                decode_mtps: 50_000,
                prefill_mtps: 600_000,
                can_seal: true,
                private_only: false,
            },
            models: Cow::Owned(vec![ModelIx(0), ModelIx(1)]),
        },
        Event::ProviderRestocked {
            conn,
            models: Cow::Owned(vec![ModelIx(1)]),
        },
        Event::ProviderVerified { conn },
        Event::ProviderUnverified { conn },
        Event::ProviderDistrusted { conn },
        Event::ProviderReported {
            conn,
            report: MachineReport {
                seq: 11,
                draining: true,
                thermal: Thermal::Serious,
                memory_pressure_ppm: 120_000,
                has_capacity: true,
                free_for_load_bytes: Some(1 << 33),
            },
            slots: Cow::Owned(vec![
                slot(0, SlotState::Running),
                slot(1, SlotState::IdleShutdown),
            ]),
        },
        Event::ModelLoaded {
            conn,
            model: ModelIx(1),
        },
        Event::ModelLoadFailed {
            conn,
            model: ModelIx(0),
            draining: true,
        },
        Event::Arrived(Ask {
            prompt_tokens: 20,
            prompt_tokens_bound: 81,
            output_tokens_max: 64,
            delivery: Delivery::Streamed,
            ..Ask::new(request, account, ModelIx(1))
        }),
        Event::ConsumerLeft { request },
        Event::AttemptAccepted { conn, attempt },
        Event::AttemptStarted { conn, attempt },
        Event::AttemptProgressed {
            conn,
            attempt,
            shown: Shown {
                pieces: 5,
                ..Shown::default()
            },
        },
        Event::AttemptCompleted {
            conn,
            attempt,
            usage: Usage {
                prompt_tokens: 19,
                completion_tokens: 6,
            },
            shown: Shown {
                text_bytes: 40,
                ..Shown::default()
            },
            ending: Ending::Said,
        },
        Event::DrainBegan,
        Event::Woke,
    ];
    let faults = [
        AttemptFault::Busy,
        AttemptFault::ConsumerStalled,
        AttemptFault::Client(422),
        AttemptFault::Encryption,
        AttemptFault::Internal,
        AttemptFault::ModelUnavailable,
        AttemptFault::Cancelled,
        AttemptFault::Unsent,
    ];
    events.extend(faults.map(failed));
    let causes = [
        GoneCause::Closed,
        GoneCause::Lost,
        GoneCause::Replaced,
        GoneCause::Silent,
        GoneCause::Violation,
        GoneCause::WriteStalled,
    ];
    events.extend(causes.map(left));
    stamped(events)
}

/// What version 2 says otherwise.
pub(super) fn version_2() -> Vec<Stamped<'static>> {
    let conn = ConnId(7);
    let attempt = AttemptKey {
        slot: 3,
        generation: 2,
    };
    let usage = Usage {
        prompt_tokens: 19,
        completion_tokens: 6,
    };
    let shown = Shown {
        pieces: 5,
        text_bytes: 21,
        marks: 2,
        counted: Some(usage),
    };
    let mut events: Vec<_> = version_1().into_iter().map(|it| it.event).collect();
    events.extend([
        Event::Arrived(Ask {
            prompt_tokens: 20,
            prompt_tokens_bound: 81,
            output_tokens_max: 64,
            delivery: Delivery::Whole,
            ..Ask::new(RequestId(10), AccountId(1), ModelIx(0))
        }),
        Event::AttemptProgressed {
            conn,
            attempt,
            shown,
        },
        Event::AttemptCompleted {
            conn,
            attempt,
            usage,
            shown,
            ending: Ending::Cut,
        },
    ]);
    stamped(events)
}

/// What later builds of version 2 say otherwise: records 29 and above.
pub(super) fn version_2_later() -> Vec<Stamped<'static>> {
    stamped(vec![
        Event::LimitsChanged {
            limits: Cow::Owned(Limits {
                second_attempt_percent: 50,
                ..config().limits
            }),
        },
        Event::AccountCredited {
            account: AccountId(1),
            amount: MicroUsd(-5),
            reference: Some(41),
        },
        Event::Arrived(Ask {
            prompt_tokens: 20,
            prompt_tokens_bound: 81,
            output_tokens_max: 64,
            delivery: Delivery::Whole,
            needs: Traits::HARDWARE,
            trust_min: Trust::SelfSigned,
            machines: Machines::OwnFirst,
            content_within: Some(Span::secs(9)),
            ..Ask::new(RequestId(10), AccountId(1), ModelIx(0))
        }),
        Event::ProviderAttested {
            conn: ConnId(7),
            gives: Traits::HARDWARE,
            valid_for: Span::secs(600),
        },
        Event::WarmMinChanged {
            model: ModelIx(1),
            machines: 3,
        },
    ])
}

/// A trail with an entry of each kind.
pub(super) fn trail() -> (RequestId, Trail) {
    let attempt = AttemptKey {
        slot: 3,
        generation: 2,
    };
    let told = [
        (true, Told::Dispatched),
        (true, Told::Began),
        (true, Told::Chunk(Fate::Empty)),
        (true, Told::Chunk(Fate::Relayed)),
        (true, Told::DispatchedBeside),
        (true, Told::Chunk(Fate::Held)),
        (true, Told::Chunk(Fate::Stale)),
        (true, Told::BrokenOff),
        (true, Told::Cancelled),
        (true, Told::Cut),
        (true, Told::Ended),
        (true, Told::Completed),
        (false, Told::Released),
        (false, Told::Left),
        (false, Told::Denied),
        (false, Told::Finished),
    ];
    let entries: Vec<Entry> = (1..)
        .zip(told)
        .map(|(second, (is_of_attempt, told))| Entry {
            at: Tick(second * 1_000_003),
            attempt: is_of_attempt.then_some(attempt),
            told,
        })
        .collect();
    let trail = Trail::of(Delivery::Whole, &entries).expect("few entries");
    (RequestId(10), trail)
}

fn stamped(events: Vec<Event<'static>>) -> Vec<Stamped<'static>> {
    (1..)
        .map(|second| Tick(second * 1_000_001))
        .zip(events)
        .map(|(at, event)| Stamped { at, event })
        .collect()
}
