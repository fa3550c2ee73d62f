//! What the coordinator wants done: imperative, small, in causal order, in a buffer that the caller
//! reuses.

use core::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::denial::Denial;
use crate::digest::Mix;
use crate::event::{GoneCause, Usage};
use crate::few::Few;
use crate::ids::{AccountId, AttemptKey, ConnId, MachineId, ModelIx, RequestId, WireId};
use crate::money::{MicroUsd, Price};
use crate::time::Tick;

/// One instruction to the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Seal the body of `request` to the provider on `conn` and send it under the id `wire`.
    Dispatch {
        request: RequestId,
        attempt: AttemptKey,
        conn: ConnId,
        wire: WireId,
        /// Beside an attempt that is out, and not in place of one.
        is_second: bool,
    },
    /// Tell the provider to stop; nothing more of this attempt reaches the consumer.
    CancelAttempt { attempt: AttemptKey, conn: ConnId },
    /// The hold is durable and this attempt has content: the consumer may now see what was relayed of
    /// it (INV-05).
    Release {
        request: RequestId,
        attempt: AttemptKey,
    },
    /// Ends the request before any content, with an HTTP status.
    Refuse { request: RequestId, denial: Denial },
    /// Ends the request after content: one in-band error event. What its consumer was shown may still
    /// be charged.
    Fail { request: RequestId, denial: Denial },
    /// Ends the request well; the settlement is durable, the last bytes may go.
    /// `receipt` is the index into [`Effects::receipts`].
    Finish { request: RequestId, receipt: u32 },
    /// Make this transfer durable, then say `Persisted`. Index into [`Effects::transfers`].
    Post { transfer: u32 },
    /// Close a provider's connection.
    Disconnect { conn: ConnId, cause: GoneCause },
    /// Ask the provider to load a model now: fewer machines have it in memory than the operator wants.
    LoadModel { conn: ConnId, model: ModelIx },
    /// A limit was hit or a rule was bent; once per occurrence, for the operator.
    Alarm { alarm: Alarm, count: u64 },
    /// Draining, and the last request has ended.
    Drained,
    // Digests hash the position: what is newer stands below.
    /// Tell a provider that stays that another process has its machine's identity.
    TellContested { conn: ConnId },
    /// The request has ended by [`Effect::Fail`]; what its consumer was shown is charged by now, and the
    /// settlement is durable. `receipt` is the index into [`Effects::receipts`].
    Charge { request: RequestId, receipt: u32 },
    /// Tell a provider that has come back that its machine is lost at work again and again.
    TellLossy { conn: ConnId },
}

const _: () = assert!(size_of::<Effect>() <= 64, "effects travel by value");

/// What an operator should hear of. Appended, never reordered: digests hash the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Alarm {
    AccountsFull,
    /// The memory of machines that are gone is full: one with faults was forgotten.
    FaultsForgotten,
    /// Two processes share the identity of one machine.
    IdentityContested,
    /// An inventory was longer than a provider may offer; the rest is not routed to.
    ModelsCut,
    /// A provider claimed more tokens than the bytes that it streamed can hold (INV-06).
    OverClaim,
    ProvidersFull,
    RequestsFull,
    /// A timer could not be armed; what it would have ended has ended at once.
    TimersFull,
    /// An account was not opened: its balance is more than an account, or the books, may hold.
    BalanceOutOfBounds,
    /// More was proven of one machine at a time than is kept; the newest proof does not count.
    ProofsFull,
    /// The connection of one machine is lost at work again and again: most likely its system ends it for
    /// want of memory. The roster says which one.
    LostAtWork,
}

/// Where money can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LedgerAccount {
    /// The world outside: deposits come from here.
    Clearing,
    /// What a consumer may spend.
    Consumer(AccountId),
    /// What is set aside for a consumer's running requests.
    Held(AccountId),
    Platform,
    /// What an operator earned.
    Provider(AccountId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Posting {
    pub account: LedgerAccount,
    pub amount: MicroUsd,
}

/// Most postings of one transfer: a hold, its rest, who served, and a few beneficiaries.
pub const POSTINGS_MAX: usize = 6;

pub type Postings = Few<Posting, POSTINGS_MAX>;

impl Postings {
    /// Postings in their order.
    ///
    /// # Panics
    /// There are more than [`POSTINGS_MAX`].
    #[must_use]
    pub fn listed(amounts: &[(LedgerAccount, MicroUsd)]) -> Self {
        let mut postings = Self::EMPTY;
        for &(account, amount) in amounts {
            postings.push(Posting { account, amount });
        }
        postings
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TransferKind {
    Deposit,
    Hold,
    Settle,
    Void,
}

/// What gave rise to a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Something outside the books, which the reference names.
    Outside,
    Request(RequestId),
}

/// One transaction of the double-entry ledger: its postings sum to zero (INV-03).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transfer {
    /// Consecutive from 1 in each process.
    pub seq: u64,
    pub kind: TransferKind,
    pub cause: Cause,
    /// The number of what it applies, in the books of whoever told of it: a credit's row in the store.
    pub reference: Option<u64>,
    pub postings: Postings,
}

impl Transfer {
    /// The request that it belongs to.
    #[must_use]
    pub const fn request(&self) -> Option<RequestId> {
        match self.cause {
            Cause::Outside => None,
            Cause::Request(request) => Some(request),
        }
    }

    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.postings
            .iter()
            .map(|posting| i128::from(posting.amount.0))
            .sum::<i128>()
            == 0
    }
}

/// What a line of a receipt is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    Prompt,
    Completion,
    /// What is missing to the least charge.
    Least,
    /// Given back: the charge is at most what was held.
    Limit,
}

/// One line of a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    pub item: Item,
    pub tokens: u32,
    pub amount: MicroUsd,
}

pub const LINES_MAX: usize = 6;

pub type Lines = Few<Line, LINES_MAX>;

/// What a settled request was, cost and took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Receipt {
    pub request: RequestId,
    pub account: AccountId,
    pub machine: MachineId,
    pub model: ModelIx,
    pub attempts: u8,
    /// What the consumer is charged for (INV-06 bounds it).
    pub usage: Usage,
    pub price: Price,
    pub held: MicroUsd,
    /// The sum of the lines.
    pub charged: MicroUsd,
    pub lines: Lines,
    pub payout: MicroUsd,
    /// What the account could spend before the hold of this request, other requests aside.
    pub balance_before: MicroUsd,
    pub balance_after: MicroUsd,
    pub arrived_at: Tick,
    pub dispatched_at: Tick,
    pub accepted_at: Tick,
    pub started_at: Tick,
    pub completed_at: Tick,
}

/// A reused buffer of effects. Drain it after every step, in order.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    pub list: Vec<Effect>,
    pub transfers: Vec<Transfer>,
    pub receipts: Vec<Receipt>,
}

impl Effects {
    #[must_use]
    pub fn with_capacity(count: usize) -> Self {
        Self {
            list: Vec::with_capacity(count),
            transfers: Vec::with_capacity(count),
            receipts: Vec::with_capacity(count),
        }
    }

    pub fn clear(&mut self) {
        self.list.clear();
        self.transfers.clear();
        self.receipts.clear();
    }

    /// Digests the effects from position `from` of the list. What an effect points to is hashed in
    /// place of the index, so that it does not matter how steps were batched in one buffer.
    pub fn digest_from(&self, from: usize, mix: &mut Mix) {
        for effect in self.list.iter().skip(from) {
            match effect {
                Effect::Post { transfer } => {
                    mix.write_u8(1);
                    pick(&self.transfers, *transfer).hash(mix);
                }
                Effect::Finish { request, receipt } => {
                    mix.write_u8(2);
                    request.hash(mix);
                    pick(&self.receipts, *receipt).hash(mix);
                }
                Effect::Charge { request, receipt } => {
                    mix.write_u8(3);
                    request.hash(mix);
                    pick(&self.receipts, *receipt).hash(mix);
                }
                Effect::Alarm { .. }
                | Effect::CancelAttempt { .. }
                | Effect::Disconnect { .. }
                | Effect::Dispatch { .. }
                | Effect::Drained
                | Effect::Fail { .. }
                | Effect::LoadModel { .. }
                | Effect::Refuse { .. }
                | Effect::Release { .. }
                | Effect::TellContested { .. }
                | Effect::TellLossy { .. } => {
                    mix.write_u8(0);
                    effect.hash(mix);
                }
            }
        }
    }

    pub fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }

    pub fn post(&mut self, transfer: Transfer) {
        assert!(
            transfer.is_balanced(),
            "a transfer neither makes nor loses money"
        );
        let ix = u32::try_from(self.transfers.len()).expect("a step posts few transfers");
        self.transfers.push(transfer);
        self.list.push(Effect::Post { transfer: ix });
    }

    pub fn finish(&mut self, receipt: Receipt) {
        let ix = self.keep(receipt);
        self.list.push(Effect::Finish {
            request: receipt.request,
            receipt: ix,
        });
    }

    pub fn charge(&mut self, receipt: Receipt) {
        let ix = self.keep(receipt);
        self.list.push(Effect::Charge {
            request: receipt.request,
            receipt: ix,
        });
    }

    fn keep(&mut self, receipt: Receipt) -> u32 {
        let ix = u32::try_from(self.receipts.len()).expect("a step ends few requests");
        self.receipts.push(receipt);
        ix
    }
}

fn pick<T>(list: &[T], ix: u32) -> Option<&T> {
    list.get(usize::try_from(ix).ok()?)
}
