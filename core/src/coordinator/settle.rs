//! Completion, settlement and durability: who pays what, and when the consumer may see it.

use super::attempt::Remains;
use super::attempts::Attempt;
use super::books::Settled;
use super::conduct::Offence;
use super::requests::Phase;
use super::tally::{Claim, Excess};
use super::verdict::{Verdict, is_agreed};
use super::{Coordinator, Mischief};
use crate::effect::{Alarm, Effect, Effects, Receipt, TransferKind};
use crate::event::{AttemptFault, Delivery, Ending, Usage};
use crate::ids::{AccountId, AttemptKey, ConnId};
use crate::slab::Key;
use crate::time::Tick;

impl Coordinator {
    pub(super) fn on_completed(
        &mut self,
        now: Tick,
        conn: ConnId,
        attempt: AttemptKey,
        mut claim: Claim,
        out: &mut Effects,
    ) {
        let Some(key) = self.live(conn, attempt) else {
            return;
        };
        let remains = match claim.ending {
            Ending::Said => Remains::Ended,
            Ending::Cut => Remains::Lingers,
        };
        if claim.shown.pieces > 0 {
            self.give_up_rivals(now, key, out);
        }
        let attempt = self.take_attempt(key, remains);
        let route = *attempt.route();
        let (slot, key) = (route.provider, route.request);
        if claim.shown.pieces < attempt.shown().pieces {
            // A relay whose consumer left may have forgotten what it had shown.
            claim.shown = attempt.shown();
        }
        let is_empty = claim.shown.pieces == 0;
        let request = self.requests.at(key);
        if is_empty && attempt.has_raced() {
            // It may have lost to its rival without knowing: nothing of it was looked at, be the
            // rival gone by now.
            self.after_fault(now, &attempt, AttemptFault::Unsent, out);
            return self.fill(now, slot, out);
        }
        let is_parked = request.phase() == Phase::Parked;
        let ask = *request.ask();
        let tally = &self.tallies[usize::from(ask.model.0)];
        let mut judged = tally.judge(&ask, claim);
        if is_empty && !claim.may_be_held_back() {
            // Whatever its end may count, nothing was shown.
            judged.usage = Usage::default();
        }
        if self.mischief == Mischief::PaysClaims {
            judged.usage = claim.usage;
        }
        // Who was told to stop made more than was shown: how much, nobody can say.
        let offence = match is_parked {
            true => None,
            false => self.offence_of(now, slot, ask.account, &claim, judged.excess),
        };
        if claim.is_whole() && offence.is_none() && !is_parked {
            self.tallies[usize::from(ask.model.0)].learn(route.payee, &ask, claim);
            let tokens = judged.usage.completion_tokens;
            self.lengths.learn(ask.account, ask.model, tokens);
            self.fleet.learn(ask.model, route.load.fresh_tokens, tokens);
        }
        if !is_empty && self.mischief != Mischief::ForgetsLateness {
            let since = attempt.started_at();
            let tokens = judged.usage.completion_tokens;
            self.fleet
                .streamed_since(now, slot, route.offer, tokens, since);
        }
        match offence {
            Some(offence) => self.strike(now, slot, offence),
            None if claim.is_whole() && judged.excess == Excess::None => self.absolve(slot),
            None => {}
        }
        if offence.is_some() || (judged.excess != Excess::None && !is_parked) {
            self.counts.over_claims += 1;
            if offence.is_some() || judged.is_alarming {
                out.push(Effect::Alarm {
                    alarm: Alarm::OverClaim,
                    count: self.counts.over_claims,
                });
            }
        }
        if is_empty && !is_parked {
            if self.doubts_emptiness(now, &attempt, &claim, out) {
                return self.fill(now, slot, out);
            }
        } else {
            self.refute(now, key);
        }
        self.settle(now, &attempt, judged.usage, out);
        self.queues.completed(now, ask.model);
        self.fill(now, slot, out);
    }

    /// An answer without a word is shown only when others have none either, or nobody else is there
    /// to be asked.
    fn doubts_emptiness(
        &mut self,
        now: Tick,
        attempt: &Attempt,
        claim: &Claim,
        out: &mut Effects,
    ) -> bool {
        let verdict = match claim.may_be_held_back() {
            true => Verdict::Stopped,
            false => Verdict::Empty,
        };
        self.hear(attempt, verdict);
        let key = attempt.route().request;
        let opinions = self.requests.at(key).opinions();
        let is_agreed = is_agreed(opinions) || self.mischief == Mischief::BelievesOne;
        !is_agreed && self.goes_on(now, key, out)
    }

    /// Settles what was streamed, by our own count, of a request whose consumer was told of an end, and
    /// whose machine never said what it came to. Of a plain answer nobody was shown anything.
    pub(super) fn settle_relayed(&mut self, now: Tick, attempt: &Attempt, out: &mut Effects) {
        let key = attempt.route().request;
        let ask = self.requests.at(key).ask();
        let tally = &self.tallies[usize::from(ask.model.0)];
        let usage = match ask.delivery {
            Delivery::Streamed => tally.relayed(ask, attempt.shown()),
            Delivery::Whole => Usage::default(),
        };
        self.settle(now, attempt, usage, out);
    }

    /// What a claim says of the machine that made it.
    fn offence_of(
        &mut self,
        now: Tick,
        slot: u32,
        consumer: AccountId,
        claim: &Claim,
        excess: Excess,
    ) -> Option<Offence> {
        let is_unlikely = excess != Excess::None;
        let machine = self.fleet.id(slot).machine;
        let is_habit = claim.is_whole() && self.fleet.answers(now, machine, consumer, is_unlikely);
        match (claim.ending, excess) {
            (Ending::Cut, _) => Some(Offence::Overrun),
            (Ending::Said, Excess::None) => None,
            (Ending::Said, Excess::Unlikely) => is_habit.then_some(Offence::OverClaim),
            (Ending::Said, Excess::Impossible) => Some(Offence::GrossOverClaim),
        }
    }

    /// Moves the hold, once; the request stays until that is durable. Nothing delivered costs nothing.
    fn settle(&mut self, now: Tick, attempt: &Attempt, usage: Usage, out: &mut Effects) {
        let route = attempt.route();
        let request = self.requests.at_mut(route.request);
        let hold = request.take_hold().expect("a running request holds money");
        let usage = match usage.completion_tokens {
            0 => Usage::default(),
            _ => usage,
        };
        let terms = request.terms();
        let cost = terms.cost(usage);
        let settled = self.books.settle(hold, cost, route.payee, &terms.shares);
        let (usage, settled, transfer) = match settled {
            Ok((settled, transfer)) => (usage, settled, transfer),
            // Full books cannot take an operator's account: nobody is charged, and the alarm says so.
            Err(hold) => {
                out.push(Effect::Alarm {
                    alarm: Alarm::AccountsFull,
                    count: 1,
                });
                (Usage::default(), Settled::NOTHING, self.books.void(hold))
            }
        };
        out.post(transfer);
        if self.mischief == Mischief::DoubleSettle && transfer.kind == TransferKind::Settle {
            out.post(transfer);
        }
        request.settle(now, transfer.seq, attempt.served(), usage, settled);
        self.counts.prompt_tokens += u64::from(usage.prompt_tokens);
        self.counts.completion_tokens += u64::from(usage.completion_tokens);
        self.durable.awaits(route.request, transfer.seq);
    }

    pub(super) fn on_persisted(&mut self, up_to: u64, out: &mut Effects) {
        self.durable.reached(up_to);
        while let Some((transfer, key)) = self.durable.next() {
            if self.requests.get(key).is_none() {
                continue;
            }
            let request = self.requests.at_mut(key);
            request.hold_is_durable();
            match request.phase() {
                Phase::Billed if request.is_settled_by(transfer) => self.charge(key, out),
                Phase::Settling if request.is_settled_by(transfer) => self.finish(key, out),
                Phase::Running => self.release(key, out),
                Phase::Billed | Phase::Parked | Phase::Queued | Phase::Settling => {}
            }
        }
    }

    /// The settlement is durable: the last bytes may go.
    fn finish(&mut self, key: Key, out: &mut Effects) {
        self.counts.finished += 1;
        let receipt = self.receipt(key);
        out.finish(receipt);
    }

    /// The settlement is durable, and the request was counted when its consumer was told of its end.
    /// Who pays has a receipt all the same.
    fn charge(&mut self, key: Key, out: &mut Effects) {
        let receipt = self.receipt(key);
        if self.mischief != Mischief::LostReceipt {
            out.charge(receipt);
        }
    }

    /// What was settled, as the last that is heard of the request.
    fn receipt(&mut self, key: Key) -> Receipt {
        let request = self.requests.at(key);
        let account = self.books.account(request.ask().account);
        let receipt = request.receipt(account.expect("its account is open"));
        self.forget(key);
        receipt
    }
}
