//! Completion, settlement and durability: who pays what, and when the consumer may see it.

use super::attempt::Remains;
use super::conduct::Offence;
use super::life::{Attempt, Phase};
use super::tally::{Claim, Excess};
use super::verdict::{Verdict, is_agreed};
use super::{Coordinator, Mischief};
use crate::effect::{Alarm, Effect, Effects, Receipt};
use crate::event::{Ending, Usage};
use crate::ids::{AttemptKey, ConnId};
use crate::money::MicroUsd;
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
        let slot = attempt.provider;
        let key = attempt.request;
        if claim.shown.pieces < attempt.shown.pieces {
            // A relay whose consumer left may have forgotten what it had shown.
            claim.shown = attempt.shown;
        }
        let is_empty = claim.shown.pieces == 0;
        let request = self.request_of(&attempt);
        let is_parked = request.phase == Phase::Parked;
        let ask = request.ask;
        let tally = &mut self.tallies[usize::from(ask.model.0)];
        let judged = tally.judge(&ask, claim);
        if claim.ending == Ending::Said && !is_empty {
            tally.learn(attempt.payee, &ask, claim);
        }
        if !is_empty {
            let took = now.since(attempt.started_at);
            let tokens = judged.usage.completion_tokens;
            self.fleet.streamed(slot, attempt.offer, tokens, took);
        }
        self.note_claim(now, slot, &claim, judged.excess, out);
        if is_empty && !is_parked {
            if self.doubts_emptiness(now, &attempt, out) {
                return self.fill(now, slot, out);
            }
        } else {
            self.refute(now, key);
        }
        let seq = self.settle(key, &attempt, judged.usage, out);
        if is_parked {
            self.forget(key);
        } else {
            let request = self.requests.get_mut(key).expect("a live request");
            request.phase = Phase::Settling;
            request.completed_at = now;
            request.settle_seq = seq;
            self.awaiting.push_back((seq, key));
        }
        self.queues[usize::from(ask.model.0)].completed(now);
        self.fill(now, slot, out);
    }

    /// An answer without a word is shown only when others have none either, or nobody else is there
    /// to be asked.
    fn doubts_emptiness(&mut self, now: Tick, attempt: &Attempt, out: &mut Effects) -> bool {
        self.hear(attempt, Verdict::Empty);
        let request = self.request_of(attempt);
        if !request.racing.is_empty() {
            return true;
        }
        !is_agreed(&request.opinions) && self.goes_on(now, attempt.request, out)
    }

    /// Settles what was streamed, by our own count, and ends a request whose terminal effect is out.
    pub(super) fn settle_relayed(&mut self, key: Key, attempt: &Attempt, out: &mut Effects) {
        let request = self.requests.get(key).expect("a live request");
        let tally = &self.tallies[usize::from(request.ask.model.0)];
        let usage = tally.relayed(&request.ask, attempt.shown);
        self.settle(key, attempt, usage, out);
        self.forget(key);
    }

    /// What a claim says of the machine that made it.
    fn note_claim(
        &mut self,
        now: Tick,
        slot: u32,
        claim: &Claim,
        excess: Excess,
        out: &mut Effects,
    ) {
        let offence = match (claim.ending, excess) {
            (Ending::Cut, _) => Offence::Overrun,
            (Ending::Said, Excess::None) if claim.shown.pieces == 0 => return,
            (Ending::Said, Excess::None) => return self.absolve(slot),
            (Ending::Said, Excess::Slight) => Offence::OverClaim,
            (Ending::Said, Excess::Gross) => Offence::GrossOverClaim,
        };
        self.counts.over_claims += 1;
        let count = self.counts.over_claims;
        out.push(Effect::Alarm {
            alarm: Alarm::OverClaim,
            count,
        });
        self.strike(now, slot, offence);
    }

    /// Moves the hold, once. Nothing delivered costs nothing.
    fn settle(&mut self, key: Key, attempt: &Attempt, usage: Usage, out: &mut Effects) -> u64 {
        let request = self.requests.get_mut(key).expect("a live request");
        request.served = attempt.served();
        let hold = request.hold.take().expect("a running request holds money");
        let (usage, cost) = if usage.completion_tokens == 0 {
            (Usage::default(), MicroUsd::ZERO)
        } else {
            let cost = request.price.cost(
                u64::from(usage.prompt_tokens),
                u64::from(usage.completion_tokens),
            );
            (usage, cost)
        };
        // Full books cannot take an operator's account: nobody is charged, and the alarm says so.
        let (settled, transfer) = match self.books.settle(hold, cost, attempt.payee) {
            Ok(settled) => settled,
            Err(hold) => {
                out.push(Effect::Alarm {
                    alarm: Alarm::AccountsFull,
                    count: 1,
                });
                out.post(self.books.void(hold));
                return self.books.last_seq();
            }
        };
        out.post(transfer);
        if self.mischief == Mischief::DoubleSettle {
            out.post(crate::effect::Transfer {
                seq: transfer.seq,
                ..transfer
            });
        }
        request.usage = usage;
        request.charged = settled.charged;
        request.payout = settled.payout;
        self.counts.prompt_tokens += u64::from(usage.prompt_tokens);
        self.counts.completion_tokens += u64::from(usage.completion_tokens);
        transfer.seq
    }

    pub(super) fn on_persisted(&mut self, up_to: u64, out: &mut Effects) {
        self.durable_up_to = self.durable_up_to.max(up_to);
        while let Some(&(seq, key)) = self.awaiting.front() {
            if seq > self.durable_up_to {
                return;
            }
            self.awaiting.pop_front();
            let Some(request) = self.requests.get_mut(key) else {
                continue;
            };
            request.hold_is_durable = true;
            match request.phase {
                Phase::Settling => {
                    if request.settle_seq == seq {
                        self.finish(key, out);
                    }
                    continue;
                }
                Phase::Parked | Phase::Queued => continue,
                Phase::Running => {}
            }
            let has_started = self.winner_of(key).is_some();
            let request = self.requests.get_mut(key).expect("a live request");
            if has_started && !request.is_released {
                request.is_released = true; // INV-05
                out.push(Effect::Release {
                    request: request.ask.request,
                });
            }
        }
    }

    /// The settlement is durable: the last bytes may go.
    fn finish(&mut self, key: Key, out: &mut Effects) {
        let request = self.requests.get(key).expect("a live request");
        let account = self
            .books
            .account(request.ask.account)
            .expect("its account is open");
        let receipt = Receipt {
            request: request.ask.request,
            account: request.ask.account,
            machine: request.served.machine,
            model: request.ask.model,
            attempts: request.attempts,
            usage: request.usage,
            price: request.price,
            held: request.held,
            charged: request.charged,
            payout: request.payout,
            balance_before: account.available + request.charged,
            balance_after: account.available,
            arrived_at: request.arrived_at,
            dispatched_at: request.served.dispatched_at,
            accepted_at: request.served.accepted_at,
            started_at: request.served.started_at,
            completed_at: request.completed_at,
        };
        self.counts.finished += 1;
        self.forget(key);
        out.finish(receipt);
    }
}
