//! The lives of requests and of their attempts.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::books::Hold;
use super::pool::MachineTag;
use super::verdict::Opinion;
use crate::event::{Ask, Delivery, Shown, Usage};
use crate::ids::{AccountId, ConnId, MachineId};
use crate::money::{MicroUsd, Price};
use crate::slab::Key;
use crate::time::{Span, Tick};

/// Most attempts of one request that can be remembered.
pub(crate) const TRIED_MAX: usize = 8;
/// Attempts of one request that may be out at a time.
pub(crate) const RACERS_MAX: usize = 2;

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Phase {
    Queued,
    /// Its attempts are out: one, or more until the first content.
    Running,
    /// The consumer left after content; the attempt's terminal settles what was streamed.
    Parked,
    /// Settled; the last bytes wait for the settlement to be durable.
    Settling,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) ask: Ask,
    pub(crate) phase: Phase,
    pub(crate) racing: Racing,
    /// What was promised when it was admitted, whatever a token costs by now.
    pub(crate) price: Price,
    /// Taken when it is settled or voided.
    pub(crate) hold: Option<Hold>,
    pub(crate) held: MicroUsd,
    pub(crate) hold_is_durable: bool,
    /// The transfer that settled it, while its durability is awaited.
    pub(crate) settle_seq: u64,
    pub(crate) is_released: bool,
    /// Of its wait in the queue; attempts have their own.
    pub(crate) timer: Key,
    /// Content must have begun by then, whatever fails or waits until then.
    pub(crate) deadline: Tick,
    pub(crate) attempts: u8,
    pub(crate) capacity_refusals: u8,
    pub(crate) tried: [MachineTag; TRIED_MAX],
    /// What machines said against the request itself.
    pub(crate) opinions: SmallVec<[Opinion; 1]>,
    pub(crate) prev_queued: Key,
    pub(crate) next_queued: Key,
    pub(crate) served: Served,
    pub(crate) usage: Usage,
    pub(crate) charged: MicroUsd,
    pub(crate) payout: MicroUsd,
    pub(crate) arrived_at: Tick,
    pub(crate) completed_at: Tick,
}

/// Who gave the answer, and when it was where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Served {
    pub(crate) machine: MachineId,
    pub(crate) dispatched_at: Tick,
    pub(crate) accepted_at: Tick,
    pub(crate) started_at: Tick,
}

impl Request {
    /// Tokens that a machine must have room for.
    pub(crate) const fn need_tokens(&self) -> u64 {
        self.ask.prompt_tokens as u64 + self.ask.output_tokens_max as u64
    }

    pub(crate) fn has_tried(&self, machine: MachineTag) -> bool {
        self.tried_machines().contains(&machine)
    }

    pub(crate) fn tried_machines(&self) -> &[MachineTag] {
        &self.tried[..usize::from(self.attempts).min(TRIED_MAX)]
    }

    /// Whether the consumer may have seen something of an attempt that has come that far. What
    /// nobody has seen can be done again.
    pub(crate) fn has_shown(&self, progress: Progress) -> bool {
        match self.ask.delivery {
            Delivery::Streamed => self.is_released && progress == Progress::Started,
            Delivery::Whole => false,
        }
    }
}

/// The attempts of one request that are out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Racing([Option<Key>; RACERS_MAX]);

impl Racing {
    pub(crate) fn iter(&self) -> impl Iterator<Item = Key> + use<> {
        self.0.into_iter().flatten()
    }

    pub(crate) fn count(&self) -> usize {
        self.iter().count()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    pub(crate) fn add(&mut self, attempt: Key) {
        let place = self.0.iter_mut().find(|place| place.is_none());
        *place.expect("the caller looked for room") = Some(attempt);
    }

    pub(crate) fn remove(&mut self, attempt: Key) {
        for place in &mut self.0 {
            place.take_if(|held| *held == attempt);
        }
    }

    /// The other attempts.
    pub(crate) fn rivals_of(&self, attempt: Key) -> impl Iterator<Item = Key> + use<> {
        self.iter().filter(move |other| *other != attempt)
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
    pub(crate) machine: MachineId,
    /// Place of the provider in the fleet.
    pub(crate) provider: u32,
    pub(crate) offer: u32,
    pub(crate) payee: AccountId,
    pub(crate) progress: Progress,
    pub(crate) timer: Key,
    /// The moment after which it is given up; the timer looks here when it fires.
    pub(crate) deadline: Tick,
    /// The moment after which silence is the machine's own fault: its request may have less time.
    pub(crate) due: Tick,
    /// When first content is due, by the forecast made at dispatch.
    pub(crate) patience_until: Tick,
    /// Expected time to first content, by what its machine says of itself.
    pub(crate) forecast: Span,
    pub(crate) dispatched_at: Tick,
    pub(crate) accepted_at: Tick,
    pub(crate) started_at: Tick,
    /// What was relayed of it so far.
    pub(crate) shown: Shown,
    pub(crate) prompt_tokens: u32,
    pub(crate) need_tokens: u64,
    /// Links of the provider's list of attempts, as places; `u32::MAX` ends it.
    pub(crate) prev: u32,
    pub(crate) next: u32,
}

impl Attempt {
    pub(crate) const fn served(&self) -> Served {
        Served {
            machine: self.machine,
            dispatched_at: self.dispatched_at,
            accepted_at: self.accepted_at,
            started_at: self.started_at,
        }
    }
}
