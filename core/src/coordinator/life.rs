//! The lives of requests and of their attempts.

use serde::{Deserialize, Serialize};

use super::books::Hold;
use super::pool::MachineTag;
use crate::event::{Ask, Shown, Usage};
use crate::ids::{AccountId, ConnId, MachineId};
use crate::money::MicroUsd;
use crate::slab::Key;
use crate::time::Tick;

/// Most attempts of one request that can be remembered.
pub(crate) const TRIED_MAX: usize = 8;

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Phase {
    Queued,
    /// One attempt is out.
    Running(Key),
    /// The consumer left after content; the attempt's terminal settles what was streamed.
    Parked(Key),
    /// Settled; the last bytes wait for the settlement to be durable.
    Settling,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) ask: Ask,
    pub(crate) phase: Phase,
    /// Taken when it is settled or voided.
    pub(crate) hold: Option<Hold>,
    pub(crate) held: MicroUsd,
    pub(crate) hold_is_durable: bool,
    /// The transfer that settled it, while its durability is awaited.
    pub(crate) settle_seq: u64,
    pub(crate) is_released: bool,
    pub(crate) timer: Key,
    /// The moment after which silence is a fault; the timer looks here when it fires.
    pub(crate) idle_deadline: Tick,
    pub(crate) attempts: u8,
    pub(crate) capacity_refusals: u8,
    pub(crate) tried: [MachineTag; TRIED_MAX],
    /// What was relayed so far.
    pub(crate) shown: Shown,
    pub(crate) prev_queued: Key,
    pub(crate) next_queued: Key,
    pub(crate) machine: MachineId,
    pub(crate) usage: Usage,
    pub(crate) charged: MicroUsd,
    pub(crate) payout: MicroUsd,
    pub(crate) arrived_at: Tick,
    pub(crate) dispatched_at: Tick,
    pub(crate) accepted_at: Tick,
    pub(crate) started_at: Tick,
    pub(crate) completed_at: Tick,
}

impl Request {
    /// Tokens that a machine must have room for.
    pub(crate) const fn need_tokens(&self) -> u64 {
        self.ask.prompt_tokens as u64 + self.ask.output_tokens_max as u64
    }

    pub(crate) fn has_tried(&self, machine: MachineTag) -> bool {
        self.tried[..usize::from(self.attempts).min(TRIED_MAX)].contains(&machine)
    }
}

/// How far an attempt has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Progress {
    Sent,
    Accepted,
    Started,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) request: Key,
    pub(crate) conn: ConnId,
    /// Place of the provider in the fleet.
    pub(crate) provider: u32,
    pub(crate) offer: u32,
    pub(crate) payee: AccountId,
    pub(crate) progress: Progress,
    pub(crate) prompt_tokens: u32,
    pub(crate) need_tokens: u64,
    /// Links of the provider's list of attempts, as places; `u32::MAX` ends it.
    pub(crate) prev: u32,
    pub(crate) next: u32,
}
