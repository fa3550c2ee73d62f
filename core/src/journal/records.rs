//! The table of records: what each event looks like in a journal.
//!
//! **A new event is one line in [`Events`]**, under the next free number. A number is never used
//! again. **A field that is added** makes a new record: the changed line gets the next free number,
//! and under its old one it moves to `was`, which reads the old layout and says what the missing
//! field is. So each journal that was ever written stays readable;
//! `traces/journal` holds one of each version, and a test reads them all.

use std::borrow::Cow;

use super::Checkpoint;
use super::layout::{List, Maybe, Put, Take, Whole, choice, put_leaf, structure, take_leaf};
use crate::config::{Catalog, Config, Limits, ModelSpec};
use crate::draw::Seed;
use crate::event::{
    Ask, AttemptFault, Delivery, Ending, Event, GoneCause, MachineReport, MachineSpec, Machines,
    Shown, SlotReport, SlotState, Stamped, Thermal, Trust, Usage,
};
use crate::ids::{AccountId, AttemptKey, ConnId, Epoch, MachineId, ModelIx, RequestId};
use crate::money::{MicroUsd, Price};
use crate::prefix::Prefix;
use crate::relay::{Entry, Fate, Told, Trail};
use crate::time::{Span, Tick};
use crate::traits::Traits;

choice! {
    /// Numbers up to 21 are those of version 1, which counted the variants.
    Events: Event<'static, '_> {
        0 AccountOpened { account: AccountId, balance: MicroUsd },
        2 HoldRecovered { account: AccountId, request: RequestId, amount: MicroUsd },
        3 Persisted { up_to: u64 },
        4 ProviderJoined {
            conn: ConnId, machine: MachineId, owner: AccountId, trust: TrustLayout, spec: Spec,
            models: List<ModelIx>,
        },
        5 ProviderRestocked { conn: ConnId, models: List<ModelIx> },
        6 ProviderVerified { conn: ConnId },
        7 ProviderUnverified { conn: ConnId },
        8 ProviderDistrusted { conn: ConnId },
        9 ProviderReported { conn: ConnId, report: Report, slots: List<Slot> },
        10 ProviderLeft { conn: ConnId, cause: Cause },
        11 ModelLoaded { conn: ConnId, model: ModelIx },
        12 ModelLoadFailed { conn: ConnId, model: ModelIx, draining: bool },
        14 ConsumerLeft { request: RequestId },
        15 AttemptAccepted { conn: ConnId, attempt: AttemptKey },
        16 AttemptStarted { conn: ConnId, attempt: AttemptKey },
        19 AttemptFailed { conn: ConnId, attempt: AttemptKey, fault: FaultLayout },
        20 DrainBegan {},
        21 Woke {},
        23 AttemptProgressed { conn: ConnId, attempt: AttemptKey, shown: Seen },
        24 AttemptCompleted {
            conn: ConnId, attempt: AttemptKey, usage: UsageLayout, shown: Seen, ending: End,
        },
        25 ModelListed { spec: Whole<Model> },
        26 ModelPriced { model: ModelIx, price: Prices },
        27 ModelRetired { model: ModelIx },
        30 AccountCredited { account: AccountId, amount: MicroUsd, reference: Option<u64> },
        32 ProviderAttested { conn: ConnId, gives: Traits, valid_for: Span },
        33 WarmMinChanged { model: ModelIx, machines: u16 },
        34 Arrived { @0 ask: AskLayout },
        35 LimitsChanged { limits: Whole<AllLimits> },
    } was {
        // Before the beginnings of prompts had names.
        31 |bytes| ThirdAsk::take(bytes).map(Event::Arrived),
        // Before a request could demand anything of a machine.
        22 |bytes| SecondAsk::take(bytes).map(Event::Arrived),
        // Before a credit said where it was recorded.
        1 |bytes| Some(Event::AccountCredited {
            account: AccountId::take(bytes)?,
            amount: MicroUsd::take(bytes)?,
            reference: None,
        }),
        // Before an answer could be asked for whole: taken for a stream, where less can be done again.
        13 |bytes| FirstAsk::take(bytes).map(Event::Arrived),
        // Before bytes were counted: a piece was taken for a token.
        17 |bytes| Some(Event::AttemptProgressed {
            conn: ConnId::take(bytes)?,
            attempt: AttemptKey::take(bytes)?,
            shown: Shown { pieces: u32::take(bytes)?, ..Shown::default() },
        }),
        18 |bytes| Some(Event::AttemptCompleted {
            conn: ConnId::take(bytes)?,
            attempt: AttemptKey::take(bytes)?,
            usage: UsageLayout::take(bytes)?,
            shown: Shown { text_bytes: u32::take(bytes)?, ..Shown::default() },
            ending: Ending::Said,
        }),
        // Before overload had limits.
        29 |bytes| SecondLimits::take(bytes).map(|limits| Event::LimitsChanged {
            limits: Cow::Owned(limits),
        }),
        // Before a request could have two attempts at a time.
        28 |bytes| FirstLimits::take(bytes).map(|limits| Event::LimitsChanged {
            limits: Cow::Owned(limits),
        }),
    }
}

/// A record's content: when, and what.
pub(super) fn put_event(at: Tick, event: &Event<'_>, out: &mut Vec<u8>) {
    Tick::put(&at, out);
    Events::put(event, out);
}

pub(super) fn take_event(bytes: &mut &[u8]) -> Option<Stamped<'static>> {
    Some(Stamped {
        at: Tick::take(bytes)?,
        event: Events::take(bytes)?,
    })
}

choice! {
    TrustLayout: Trust { 0 None {}, 1 SelfSigned {}, 2 Hardware {} }
}

choice! {
    Heat: Thermal { 0 Nominal {}, 1 Fair {}, 2 Serious {}, 3 Critical {} }
}

choice! {
    State: SlotState {
        0 Absent {}, 1 Crashed {}, 2 Idle {}, 3 IdleShutdown {}, 4 Reloading {}, 5 Running {},
    }
}

choice! {
    Cause: GoneCause {
        0 Closed {},
        1 Lost {},
        2 Replaced {},
        3 Silent {},
        4 Violation {},
        5 WriteStalled {},
        6 Contested {},
    }
}

choice! {
    FaultLayout: AttemptFault {
        0 Busy {},
        1 ConsumerStalled {},
        2 Client { @0 status: u16 },
        3 Encryption {},
        4 Internal {},
        5 ModelUnavailable {},
        6 Cancelled {},
        7 Unsent {},
        8 AnswerTooLarge {},
        9 HoldOverdue {},
    }
}

structure! {
    Slot: SlotReport {
        model: ModelIx,
        state: State,
        running: u16,
        waiting: u16,
        concurrency_max: u16,
        budget_used: u64,
        budget_max: u64,
        budget_queued: u64,
        decode_mtps: u32,
        prefill_mtps: u32,
        load_ms: u32,
        wedged: bool,
    }
}

structure! {
    Report: MachineReport {
        seq: u64,
        draining: bool,
        thermal: Heat,
        memory_pressure_ppm: u32,
        has_capacity: bool,
        free_for_load_bytes: Option<u64>,
    }
}

structure! {
    Spec: MachineSpec {
        memory_gb: u32,
        bandwidth_gbs: u32,
        decode_mtps: u32,
        prefill_mtps: u32,
        can_seal: bool,
        private_only: bool,
    }
}

structure! {
    UsageLayout: Usage { prompt_tokens: u32, completion_tokens: u32 }
}

structure! {
    Seen: Shown { pieces: u32, text_bytes: u32, marks: u32, counted: Maybe<UsageLayout> }
}

choice! {
    End: Ending { 0 Said {}, 1 Cut {} }
}

choice! {
    How: Delivery { 0 Streamed {}, 1 Whole {} }
}

structure! {
    AskLayout: Ask {
        request: RequestId,
        account: AccountId,
        model: ModelIx,
        prompt_tokens: u32,
        prompt_tokens_bound: u32,
        output_tokens_max: u32,
        delivery: How,
        needs: Traits,
        trust_min: TrustLayout,
        machines: Whose,
        content_within: Maybe<Span>,
        prefix: Prefix,
    }
}

structure! {
    /// Of version 2, up to record 33.
    ThirdAsk: was Ask {
        request: RequestId,
        account: AccountId,
        model: ModelIx,
        prompt_tokens: u32,
        prompt_tokens_bound: u32,
        output_tokens_max: u32,
        delivery: How,
        needs: Traits,
        trust_min: TrustLayout,
        machines: Whose,
        content_within: Maybe<Span>,
    } plus Ask::new(request, account, model)
}

structure! {
    /// Of version 2, in its beginning.
    SecondAsk: was Ask {
        request: RequestId,
        account: AccountId,
        model: ModelIx,
        prompt_tokens: u32,
        prompt_tokens_bound: u32,
        output_tokens_max: u32,
        delivery: How,
    } plus Ask::new(request, account, model)
}

choice! {
    Whose: Machines { 0 Any {}, 1 Own {}, 2 OwnFirst {} }
}

/// Of version 1: the fields that every ask has had.
struct FirstAsk;

impl Take<Ask> for FirstAsk {
    fn take(bytes: &mut &[u8]) -> Option<Ask> {
        Some(Ask {
            request: RequestId::take(bytes)?,
            account: AccountId::take(bytes)?,
            model: ModelIx::take(bytes)?,
            prompt_tokens: u32::take(bytes)?,
            prompt_tokens_bound: u32::take(bytes)?,
            output_tokens_max: u32::take(bytes)?,
            ..Ask::new(RequestId(0), AccountId(0), ModelIx(0))
        })
    }
}

choice! {
    FateLayout: Fate { 0 Empty {}, 1 Held {}, 2 Relayed {}, 3 Stale {} }
}

choice! {
    ToldLayout: Told {
        0 Began {},
        1 BrokenOff {},
        2 Cancelled {},
        3 Chunk { @0 fate: FateLayout },
        4 Completed {},
        5 Cut {},
        6 Denied {},
        7 Dispatched {},
        8 DispatchedBeside {},
        9 Ended {},
        10 Finished {},
        11 Left {},
        12 Released {},
    }
}

structure! {
    EntryLayout: Entry { at: Tick, attempt: Maybe<AttemptKey>, told: ToldLayout }
}

pub(super) fn put_trail(request: RequestId, trail: &Trail, out: &mut Vec<u8>) {
    RequestId::put(&request, out);
    How::put(&trail.delivery(), out);
    <List<EntryLayout> as Put<[Entry]>>::put(trail.entries(), out);
}

pub(super) fn take_trail(bytes: &mut &[u8]) -> Option<(RequestId, Trail)> {
    let request = RequestId::take(bytes)?;
    let delivery = How::take(bytes)?;
    let entries: Vec<Entry> = List::<EntryLayout>::take(bytes)?;
    Some((request, Trail::of(delivery, &entries)?))
}

structure! {
    /// Since version 2 the state's digest may be missing.
    CheckpointLayout: Checkpoint {
        events: u64,
        effects: u64,
        effects_digest: u128,
        state_digest: Option<u128>,
    }
}

/// In version 1 the state's digest was always there.
pub(super) fn take_first_checkpoint(bytes: &mut &[u8]) -> Option<Checkpoint> {
    Some(Checkpoint {
        events: take_leaf(bytes)?,
        effects: take_leaf(bytes)?,
        effects_digest: take_leaf(bytes)?,
        state_digest: Some(take_leaf(bytes)?),
    })
}

/// The configuration as version 1 had it in its header. Since version 2 it is written by name, see
/// `header`.
pub(super) fn config_of_version_1(mut bytes: &[u8]) -> Option<Config> {
    let bytes = &mut bytes;
    let config = Config {
        epoch: Epoch(0),
        seed: Seed([take_leaf(bytes)?, take_leaf(bytes)?]),
        catalog: Catalog::new(List::<Model>::take(bytes)?).ok()?,
        limits: FirstLimits::take(bytes)?,
        fee_percent: take_leaf(bytes)?,
        trust_min: TrustLayout::take(bytes)?,
    };
    bytes.is_empty().then_some(config)
}

structure! {
    Prices: Price { input_per_mtok: MicroUsd, output_per_mtok: MicroUsd }
}

structure! {
    Model: ModelSpec {
        id: String,
        price: Prices,
        context_tokens: u32,
        output_tokens_default: u32,
        weights_bytes: u64,
    }
}

structure! {
    AllLimits: Limits {
        accounts_max: u32,
        providers_max: u32,
        models_per_provider_max: u16,
        requests_max: u32,
        queue_depth_max: u32,
        queue_wait_max: Span,
        accept_wait_max: Span,
        accept_wait_per_prompt_token: Span,
        first_content_wait_max: Span,
        idle_wait_max: Span,
        attempts_max: u8,
        capacity_refusals_max: u8,
        challenge_fresh_max: Span,
        cold_load_default: Span,
        candidates_max: u8,
        second_attempt_percent: u8,
        overload_after: Span,
        overload_wait_max: Span,
        pace_min_mtps: u32,
    }
}

structure! {
    /// Until the limits of overload came.
    SecondLimits: was Limits {
        accounts_max: u32,
        providers_max: u32,
        models_per_provider_max: u16,
        requests_max: u32,
        queue_depth_max: u32,
        queue_wait_max: Span,
        accept_wait_max: Span,
        accept_wait_per_prompt_token: Span,
        first_content_wait_max: Span,
        idle_wait_max: Span,
        attempts_max: u8,
        capacity_refusals_max: u8,
        challenge_fresh_max: Span,
        cold_load_default: Span,
        candidates_max: u8,
        second_attempt_percent: u8,
    } plus Limits::reference()
}

structure! {
    /// Until the limits of second attempts came.
    FirstLimits: was Limits {
        accounts_max: u32,
        providers_max: u32,
        models_per_provider_max: u16,
        requests_max: u32,
        queue_depth_max: u32,
        queue_wait_max: Span,
        accept_wait_max: Span,
        accept_wait_per_prompt_token: Span,
        first_content_wait_max: Span,
        idle_wait_max: Span,
        attempts_max: u8,
        capacity_refusals_max: u8,
        challenge_fresh_max: Span,
        cold_load_default: Span,
        candidates_max: u8,
    } plus Limits::reference()
}
