//! What can happen to a [`crate::coordinator::Coordinator`]: past tense, no prompt text.
//!
//! An event is also a journal record, so each derives serde. Variants are grouped by subject, and
//! their order is part of the journal's format: append, never reorder.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::config::{Limits, ModelSpec};
use crate::ids::{AccountId, AttemptKey, ConnId, MachineId, ModelIx, RequestId};
use crate::money::{MicroUsd, Price};
use crate::prefix::Prefix;
use crate::time::{Span, Tick};
use crate::traits::Traits;

/// How well a machine's identity is proven: by nothing, by a key of its own, or by a
/// key that an enclave vouches for. Ordered, higher is better.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Trust {
    #[default]
    None,
    SelfSigned,
    Hardware,
}

impl Trust {
    /// As on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SelfSigned => "self_signed",
            Self::Hardware => "hardware",
        }
    }
}

/// State of one model on one machine, as its last heartbeat has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SlotState {
    /// No slot, or a state that we do not know: cold.
    Absent,
    Crashed,
    Idle,
    IdleShutdown,
    Reloading,
    Running,
}

impl SlotState {
    /// As on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Crashed => "crashed",
            Self::Idle => "idle",
            Self::IdleShutdown => "idle_shutdown",
            Self::Reloading => "reloading",
            Self::Running => "running",
        }
    }

    /// Weights are in memory: `idle` counts exactly as `running`.
    #[must_use]
    pub const fn is_resident(self) -> bool {
        matches!(self, Self::Idle | Self::Running)
    }

    #[must_use]
    pub const fn is_routable(self) -> bool {
        !matches!(self, Self::Crashed | Self::Reloading)
    }
}

/// One slot of a heartbeat, after the numbers were clamped to what a machine can be
/// (`wire/limits.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SlotReport {
    pub model: ModelIx,
    pub state: SlotState,
    pub running: u16,
    pub waiting: u16,
    /// 0 = not reported.
    pub concurrency_max: u16,
    /// Tokens reserved by running requests.
    pub budget_used: u64,
    /// 0 = no token budget reported.
    pub budget_max: u64,
    pub budget_queued: u64,
    /// Thousandths of a token a second; 0 = unknown.
    pub decode_mtps: u32,
    /// Thousandths of a token a second; 0 = unknown.
    pub prefill_mtps: u32,
    /// 0 = never measured.
    pub load_ms: u32,
    /// The engine suspects itself of being stuck.
    pub wedged: bool,
}

impl SlotReport {
    /// The `budget_max` of a slot that says what a token costs and grants nothing: full at this
    /// moment, and silent about how much an empty machine holds.
    pub const BUDGET_SPENT: u64 = 1;

    /// The largest request that the machine could hold if it were empty, if the report says so.
    #[must_use]
    pub const fn capacity_tokens(&self) -> Option<u64> {
        match self.budget_max {
            0 | Self::BUDGET_SPENT => None,
            tokens => Some(tokens),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Thermal {
    #[default]
    Nominal,
    Fair,
    Serious,
    Critical,
}

/// What a heartbeat says about its machine as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MachineReport {
    /// Per-connection sequence; 0 = the sender does not number its reports.
    pub seq: u64,
    pub draining: bool,
    pub thermal: Thermal,
    /// Parts per million of memory pressure.
    pub memory_pressure_ppm: u32,
    /// Whether the report had a capacity record at all. When false, `slots` says nothing.
    pub has_capacity: bool,
    /// Largest model that could be loaded now, in bytes. `None` = not reported.
    pub free_for_load_bytes: Option<u64>,
}

/// What `register` says, after clamping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MachineSpec {
    pub memory_gb: u32,
    pub bandwidth_gbs: u32,
    /// Registration benchmark in thousandths of a token a second; 0 = none.
    pub decode_mtps: u32,
    pub prefill_mtps: u32,
    /// A valid sealing key and sealed chunks were promised: required for any work.
    pub can_seal: bool,
    /// Serves only its owner's requests.
    pub private_only: bool,
}

/// Why a provider's connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GoneCause {
    /// The peer said goodbye (1000 or 1001): health-neutral.
    Closed,
    /// The socket died.
    Lost,
    /// A newer connection of the same machine took over.
    Replaced,
    /// No heartbeat for two sweeps.
    Silent,
    /// It broke the protocol, or failed too many challenges.
    Violation,
    /// A write did not finish in time.
    WriteStalled,
    /// Connections that prove the same identity replace each other too often: two processes share
    /// it, and the newer one goes.
    Contested,
}

/// Why one attempt failed, as far as routing cares: who is at fault, and whether another machine may do
/// better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AttemptFault {
    /// Transient: queue full, no memory, draining. Another machine may do it.
    Busy,
    /// The consumer, who has seen a part, could not be written to in time: ends with 499.
    ConsumerStalled,
    /// The request itself is at fault, with the status to pass on (400, 413, 415, 422).
    Client(u16),
    /// Plaintext or unopenable chunk: the provider is untrusted from now on.
    Encryption,
    /// The provider broke (500 and the like).
    Internal,
    /// The machine does not have the model after all.
    ModelUnavailable,
    /// The provider confirmed a cancel that we sent.
    Cancelled,
    /// The frame could not be queued or written.
    Unsent,
    // The order is part of the journal's format: what is newer stands below.
    /// A plain answer outgrew what one reply may hold; nothing of it was shown.
    AnswerTooLarge,
    /// More of a stream came than may be held back while its hold is not durable; nothing of it was
    /// shown.
    HoldOverdue,
}

/// Tokens of a finished attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Usage {
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
}

/// Parts of a [`Usage`] that its consumer is told of, and that change no price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UsageParts {
    /// Of the prompt: what had been computed before.
    pub cached_tokens: u32,
    /// Of the completion: what was thought.
    pub reasoning_tokens: u32,
}

/// How a consumer wants the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Delivery {
    /// Server-sent events, as they come.
    Streamed,
    /// One JSON object at the end: until then the consumer has seen nothing.
    Whole,
}

/// What the coordinator saw of an answer itself: the measure that every claim is held to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shown {
    /// Pieces of content.
    pub pieces: u32,
    /// Bytes of their text, unescaped.
    pub text_bytes: u32,
    /// The most tokens in it that leave no text of their own: what opens and closes thoughts and
    /// calls, the one that ends the answer, and what the request's own wishes may have kept back.
    pub marks: u32,
    /// Prompt and answer counted by the model's own tokenizer, where the shell has it.
    pub counted: Option<Usage>,
}

impl Shown {
    /// The most tokens that the bytes can hold, whatever the tokenizer (INV-06).
    #[must_use]
    pub const fn tokens_max(&self) -> u32 {
        self.text_bytes.saturating_add(self.marks)
    }
}

/// How an answer came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ending {
    /// The machine said that it was done.
    Said,
    /// The machine went on beyond the bound that it was given; what came until then is the answer.
    Cut,
}

/// Whose machines may serve a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Machines {
    /// Those that serve everybody, and the asker's own.
    #[default]
    Any,
    /// Only the asker's own that serve nobody else.
    Own,
    /// These, and others only while none of these has room.
    OwnFirst,
}

/// What a consumer asked, as facts: sizes, and what it demands of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ask {
    pub request: RequestId,
    pub account: AccountId,
    pub model: ModelIx,
    /// Estimate for routing: about a token for each four bytes of text.
    pub prompt_tokens: u32,
    /// Upper bound for billing: bytes of the messages.
    pub prompt_tokens_bound: u32,
    /// Output bound written into the forwarded body.
    pub output_tokens_max: u32,
    pub delivery: Delivery,
    /// What a machine must have.
    pub needs: Traits,
    /// The least trust in the machine, where it is more than the coordinator's own floor.
    pub trust_min: Trust,
    pub machines: Machines,
    /// Content must begin within this time, where it is less than the coordinator's own limit.
    pub content_within: Option<Span>,
    /// The beginning of the prompt, by name.
    pub prefix: Prefix,
}

impl Ask {
    /// A request without sizes that demands nothing.
    #[must_use]
    pub const fn new(request: RequestId, account: AccountId, model: ModelIx) -> Self {
        Self {
            request,
            account,
            model,
            prompt_tokens: 0,
            prompt_tokens_bound: 0,
            output_tokens_max: 0,
            delivery: Delivery::Streamed,
            needs: Traits::NONE,
            trust_min: Trust::None,
            machines: Machines::Any,
            content_within: None,
            prefix: Prefix::NONE,
        }
    }

    /// All that a machine must have.
    #[must_use]
    pub const fn demands(&self) -> Traits {
        self.needs.and(Traits::of_trust(self.trust_min))
    }

    /// Bytes of text for each token of [`Ask::prompt_tokens`].
    pub const BYTES_PER_TOKEN: u32 = 4;

    /// Bytes of the prompt's text, as far as the estimate keeps them.
    #[must_use]
    pub const fn prompt_text_bytes(&self) -> u32 {
        self.prompt_tokens.saturating_mul(Self::BYTES_PER_TOKEN)
    }
}

/// Something happened. Lists are borrowed where their owner is at hand, as in a replay; a link, whose
/// events outlive the frame that they came in, gives owned ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event<'a> {
    // Accounts. The store is the durable truth; the core is told balances before they are used.
    /// An account is known, with what it may spend.
    AccountOpened {
        account: AccountId,
        balance: MicroUsd,
    },
    /// Money came in from outside.
    AccountCredited {
        account: AccountId,
        amount: MicroUsd,
        /// Its number where it was recorded, so that it is applied once.
        reference: Option<u64>,
    },
    /// At start: the store holds an open hold of a request that died with the last process.
    /// It is voided. `AccountOpened` came before, with the balance net of the hold.
    HoldRecovered {
        account: AccountId,
        request: RequestId,
        amount: MicroUsd,
    },
    /// Every transfer numbered up to here is durable.
    Persisted {
        up_to: u64,
    },

    // Fleet. `conn` is the connection that speaks; an event of a connection that is gone is stale.
    ProviderJoined {
        conn: ConnId,
        machine: MachineId,
        /// Who earns.
        owner: AccountId,
        trust: Trust,
        spec: MachineSpec,
        #[serde(borrow)]
        models: Cow<'a, [ModelIx]>,
    },
    /// The inventory was replaced (`models_update`).
    ProviderRestocked {
        conn: ConnId,
        models: Cow<'a, [ModelIx]>,
    },
    /// A challenge was answered well.
    ProviderVerified {
        conn: ConnId,
    },
    /// Verification was cleared: not routable until the next pass.
    ProviderUnverified {
        conn: ConnId,
    },
    /// Hard verdict: nothing is routed to this connection any more.
    ProviderDistrusted {
        conn: ConnId,
    },
    ProviderReported {
        conn: ConnId,
        report: MachineReport,
        slots: Cow<'a, [SlotReport]>,
    },
    ProviderLeft {
        conn: ConnId,
        cause: GoneCause,
    },
    ModelLoaded {
        conn: ConnId,
        model: ModelIx,
    },
    ModelLoadFailed {
        conn: ConnId,
        model: ModelIx,
        draining: bool,
    },

    // Requests.
    Arrived(Ask),
    ConsumerLeft {
        request: RequestId,
    },
    AttemptAccepted {
        conn: ConnId,
        attempt: AttemptKey,
    },
    /// First content was relayed.
    AttemptStarted {
        conn: ConnId,
        attempt: AttemptKey,
    },
    /// `shown` is what was relayed so far.
    AttemptProgressed {
        conn: ConnId,
        attempt: AttemptKey,
        shown: Shown,
    },
    /// `usage` is what the machine claims, `shown` what we saw of it.
    AttemptCompleted {
        conn: ConnId,
        attempt: AttemptKey,
        usage: Usage,
        shown: Shown,
        ending: Ending,
    },
    AttemptFailed {
        conn: ConnId,
        attempt: AttemptKey,
        fault: AttemptFault,
    },

    // The process.
    /// SIGTERM: admit nothing more, finish what runs.
    DrainBegan,
    /// A wake-up that `next_wake` asked for, or a spurious one.
    Woke,

    // The catalogue and the limits, while the process runs.
    /// A model is sold from now on, again or for the first time.
    ModelListed {
        spec: Cow<'a, ModelSpec>,
    },
    /// What is admitted from now on costs this.
    ModelPriced {
        model: ModelIx,
        price: Price,
    },
    /// Nothing more is admitted for this model. What runs ends as usual.
    ModelRetired {
        model: ModelIx,
    },
    LimitsChanged {
        limits: Cow<'a, Limits>,
    },
    /// Something was proven of a machine: from now on, and for so long, it has these traits beside
    /// those that it joined with. A later proof of the same traits takes its place, so one that is
    /// valid for no time takes it back.
    ProviderAttested {
        conn: ConnId,
        gives: Traits,
        valid_for: Span,
    },
    /// So many machines should have the model in memory, whether or not anybody asks for it.
    WarmMinChanged {
        model: ModelIx,
        machines: u16,
    },
}

impl Event<'_> {
    /// The number of the credit that it tells of.
    #[must_use]
    pub const fn credit(&self) -> Option<u64> {
        if let Self::AccountCredited { reference, .. } = self {
            *reference
        } else {
            None
        }
    }
}

/// When something happened, and what: one journal record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamped<'a> {
    pub at: Tick,
    #[serde(borrow)]
    pub event: Event<'a>,
}
