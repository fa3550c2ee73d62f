//! The oracles of a liars' world. Each knows the truth that the coordinator cannot see.

use std::collections::BTreeMap;

use cereus_core::coordinator::{BAND_PERCENT, BAND_TOKENS};
use cereus_core::effect::{LedgerAccount, Receipt, Transfer, TransferKind};
use cereus_core::ids::{MachineId, RequestId};
use cereus_core::time::Tick;

use super::plan::Plan;
use super::script::{Answer, Truth};
use crate::oracle::{MoneyModel, Violation, require};

/// After so many attempts of its own a liar's share must have fallen.
const ATTEMPTS_TO_LEARN: u32 = 50;
/// Or after so many, if it has had them when half of a long world is over: with fewer nobody can know
/// it, as it is no more than an honest machine bears.
const ATTEMPTS_AT_HALF: u32 = 10;
const HALF_MIN: Tick = Tick(300_000_000);
/// And then it is at most one attempt in so many.
const SHARE_DIVISOR: u64 = 50;
/// A count of few: two lies more than the share, since a machine whose bar has ended, or whose memory
/// has faded, is tried with one request, in a world of any length, and one of tens of thousands of
/// liars has luck.
const SLACK: u64 = 2;
/// Bytes for each token that the coordinator assumes of a model that it has seen nothing of, in
/// thousandths, and the tokens of a template.
const TEXT_PRIOR: u32 = 3_000;
/// By how much liars who are the first to be heard may widen it before they are known.
const TEMPLATE_SLACK: u32 = 12;
const TEMPLATE_PRIOR: u32 = 24;

/// Lies of one machine among all attempts that could as well have gone to an honest one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    attempts: u32,
    /// How many attempts there had been, of anybody, when it had had its time.
    late_from: Option<u64>,
    pub(super) lies: u64,
    pub(super) late_lies: u64,
}

/// Whether an honest machine that the request had not tried had room too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Forced,
    Free,
}

/// See the module.
pub(super) struct Judge {
    pub(super) money: MoneyModel,
    pub(super) attempts: u64,
    pub(super) shares: Vec<Share>,
    settled: BTreeMap<RequestId, i64>,
}

impl Judge {
    pub(super) fn new(machines: usize) -> Self {
        Self {
            money: MoneyModel::new(),
            attempts: 0,
            shares: vec![Share::default(); machines],
            settled: BTreeMap::new(),
        }
    }

    /// An attempt goes to a machine. What is sent there because no honest machine had room counts
    /// for nothing.
    pub(super) fn dispatched(&mut self, machine: usize, choice: Choice, is_lie: bool) {
        let share = &mut self.shares[machine];
        share.attempts += 1;
        if choice == Choice::Free {
            self.attempts += 1;
            share.lies += u64::from(is_lie);
            share.late_lies += u64::from(is_lie && share.late_from.is_some());
        }
        if share.attempts == ATTEMPTS_TO_LEARN {
            share.late_from = share.late_from.or(Some(self.attempts));
        }
    }

    /// Half of all requests have come: whoever was asked more rarely has had its time too, where that
    /// is time enough for an answer that drips to be seen.
    pub(super) fn half_is_over(&mut self, now: Tick, plan: &Plan) {
        if now < HALF_MIN {
            return;
        }
        for (share, machine) in self.shares.iter_mut().zip(&plan.machines) {
            let is_steady = machine.liar.is_some_and(|liar| liar.serves_each.is_none());
            if is_steady && share.attempts >= ATTEMPTS_AT_HALF {
                share.late_from = share.late_from.or(Some(self.attempts));
            }
        }
    }

    /// Attempts since a machine had had its time.
    pub(super) fn late_attempts(&self, machine: usize) -> u64 {
        let from = self.shares[machine].late_from;
        from.map_or(0, |from| self.attempts - from)
    }

    /// INV-27: a machine's lies are rare once it has had its time.
    pub(super) fn require_rare(&self, machine: usize, plan: &Plan) -> Result<(), Violation> {
        let (lies, of) = (self.shares[machine].late_lies, self.late_attempts(machine));
        let allowed = of.div_ceil(SHARE_DIVISOR) + SLACK;
        require(lies <= allowed, "INV-27", || {
            let how = plan.machines[machine].liar;
            format!("machine {machine} lied in {lies} of {of} late attempts: {how:?}")
        })
    }

    pub(super) fn posted(&mut self, transfer: &Transfer) -> Result<(), Violation> {
        self.money.post(transfer)?;
        if let Some(request) = transfer.request()
            && transfer.kind == TransferKind::Settle
        {
            let paid = transfer.postings.iter().filter(|posting| {
                matches!(
                    posting.account,
                    LedgerAccount::Platform | LedgerAccount::Provider(_)
                )
            });
            let paid = paid.map(|posting| posting.amount.0).sum();
            self.settled.insert(request, paid);
        }
        Ok(())
    }

    /// Nobody pays for a request that ended without its answer.
    pub(super) fn denied(&self, request: RequestId) -> Result<(), Violation> {
        let paid = self.settled.get(&request).copied().unwrap_or(0);
        require(paid == 0, "INV-06", || {
            format!("request {request} was not served, and {paid} was paid for it")
        })
    }

    /// INV-06: what is charged is what was shown, within the stated band.
    pub(super) fn finished(
        &self,
        receipt: &Receipt,
        plan: &Plan,
        truth: &Truth,
        answered: Option<(MachineId, Answer)>,
    ) -> Result<(), Violation> {
        let Some((machine, answer)) = answered else {
            let what = || format!("request {} is paid and nobody answered", receipt.request);
            return require(false, "INV-06", what);
        };
        require(receipt.machine == machine, "INV-06", || {
            let paid = receipt.machine;
            format!("{paid:?} is paid for what {machine:?} said")
        })?;
        let usage = receipt.usage;
        // What is learnt of a model comes from rounded counts and from prompts that share their tokens
        // with a template of unknown length: it may be off by a quarter.
        let milli = plan.text_milli_learnt().min(TEXT_PRIOR) * 4 / 5;
        let shown = answer.shown;
        let completion_max = band(tokens(shown.text_bytes, milli)) + shown.marks;
        let template = plan.template_learnt().max(TEMPLATE_PRIOR) + TEMPLATE_SLACK;
        let prompt_max = band(tokens(truth.prompt_bytes, milli) + template);
        let is_nothing = shown.pieces == 0;
        let is_within = usage.completion_tokens <= completion_max.min(truth.output_tokens_max)
            && usage.prompt_tokens <= prompt_max
            && (!is_nothing || receipt.charged.0 == 0);
        require(is_within, "INV-06", || {
            format!(
                "{usage:?} is charged where {prompt_max} and {completion_max} are the band of {answer:?}"
            )
        })?;
        let is_free = usage.completion_tokens == 0;
        let cost = receipt.price.cost(
            u64::from(usage.prompt_tokens),
            u64::from(usage.completion_tokens),
        );
        require(is_free || receipt.charged == cost, "INV-06", || {
            format!(
                "{:?} is charged where {usage:?} costs {cost:?}",
                receipt.charged
            )
        })
    }
}

fn tokens(bytes: u32, milli: u32) -> u32 {
    (bytes * 1_000).div_ceil(milli)
}

fn band(own: u32) -> u32 {
    let band = u64::from(own) * BAND_PERCENT / 100 + BAND_TOKENS;
    u32::try_from(band).expect("few tokens")
}
