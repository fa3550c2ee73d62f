//! Arrivals: may it enter, who serves it, or does it wait. And every way in which a request that has
//! shown nothing yet is let go.

use super::attempts::{Route, public};
use super::books::HoldError;
use super::fleet::{Choice, First, Load, Reach, Want};
use super::queues::{Waiting, Whose};
use super::requests::Request;
use super::terms::Terms;
use super::timers::Due;
use super::{Coordinator, Mischief, WakeReason};
use crate::denial::Denial;
use crate::draw::Purpose;
use crate::effect::{Alarm, Effect, Effects};
use crate::event::Ask;
use crate::ids::{ModelIx, RequestId, WireId};
use crate::slab::Key;
use crate::time::{Span, Tick};

const RETRY_AFTER_MIN_S: u64 = 1;
const RETRY_AFTER_MAX_S: u64 = 60;
/// Wait for a consumer's place when no answer has ended yet, so that nobody knows how fast the queue moves.
const RETRY_AFTER_UNMEASURED_S: u64 = 2;
const NO_PROVIDER_RETRY_S: u16 = 5;

/// What becomes of a request that may enter.
#[derive(Clone, Copy)]
enum Way {
    /// It goes there.
    Now(First),
    Queued,
    /// It waits, and this one no longer does.
    InPlaceOf(Key),
}

impl Coordinator {
    pub(super) fn on_arrived(&mut self, now: Tick, ask: Ask, out: &mut Effects) {
        if self.requests.find(ask.request).is_some() {
            self.counts.duplicates += 1; // INV-16: a repeat changes nothing.
            return;
        }
        self.counts.arrived += 1;
        let Err(denial) = self.admit(now, ask, out) else {
            return;
        };
        self.counts.refuse(denial);
        out.push(Effect::Refuse {
            request: ask.request,
            denial,
        });
    }

    /// Checks in order of cost to the consumer; the hold comes last, so that no early way out has
    /// to give money back.
    fn admit(&mut self, now: Tick, ask: Ask, out: &mut Effects) -> Result<(), Denial> {
        if self.is_draining {
            return Err(Denial::Draining);
        }
        let catalog = &self.config.catalog;
        let spec = catalog
            .spec(ask.model)
            .filter(|_| catalog.is_sold(ask.model))
            .ok_or(Denial::UnknownModel)?;
        let want = self.want(&ask);
        let terms = Terms::new(spec.price, self.config.fee_percent);
        if want.need_tokens > u64::from(spec.context_tokens) {
            return Err(Denial::TooLong);
        }
        if !self.requests.has_room() {
            out.push(Effect::Alarm {
                alarm: Alarm::RequestsFull,
                count: 1,
            });
            return Err(self.full(ask.request, ask.model));
        }
        let chosen = self.fleet.first_choice(now, want, &self.config);
        self.bear(now, &want, chosen.map(|first| first.choice.offer))?;
        let way = match chosen {
            Some(first) => Way::Now(first),
            None => self.place_in_queue(&want)?,
        };
        let bound = ask.prompt_tokens_bound.max(ask.prompt_tokens);
        let price = terms.price;
        let amount = price.cost(u64::from(bound), u64::from(ask.output_tokens_max));
        let held = self.books.hold(ask.account, ask.request, amount);
        let (hold, transfer) = held.map_err(|error| match error {
            HoldError::Insufficient => Denial::Broke,
            HoldError::UnknownAccount => Denial::UnknownAccount,
        })?;
        let wait_max = self.config.limits.first_content_wait_max;
        let deadline = now + ask.content_within.map_or(wait_max, |own| own.min(wait_max));
        let key = self
            .requests
            .admit(now, ask, terms, hold, deadline, want.output_tokens);
        self.durable.awaits(key, transfer.seq);
        out.post(transfer);
        match way {
            Way::Now(first) => {
                self.fleet.note_first(now, &want, first);
                self.dispatch(now, key, first.choice, out);
            }
            Way::Queued => self.enqueue(key),
            Way::InPlaceOf(other) => {
                self.shed(other, out);
                self.enqueue(key);
            }
        }
        Ok(())
    }

    /// Where a request that nobody can take now may wait. A full queue is shared: who has fewer
    /// places than another account gets one of that account's.
    fn place_in_queue(&self, want: &Want<'_>) -> Result<Way, Denial> {
        let retry_after_s = NO_PROVIDER_RETRY_S;
        match self.fleet.reach(want) {
            Reach::Nobody => return Err(Denial::NoProvider { retry_after_s }),
            Reach::NoneLargeEnough => return Err(Denial::NoneLargeEnough { retry_after_s }),
            Reach::NoneSuited => return Err(Denial::NoneSuited { retry_after_s }),
            Reach::Possible => {}
        }
        if self.has_place_to_wait(want.model) {
            return Ok(Way::Queued);
        }
        match self.queues.gives_way_to(want.model, want.account) {
            Some(other) => Ok(Way::InPlaceOf(other)),
            None => Err(self.full(want.request, want.model)),
        }
    }

    pub(super) fn has_place_to_wait(&self, model: ModelIx) -> bool {
        self.queues.count(model) < self.config.limits.queue_depth_max
    }

    /// Refuses a request that waits.
    pub(super) fn shed(&mut self, key: Key, out: &mut Effects) {
        self.queues.remove(key);
        let ask = self.requests.at(key).ask();
        let denial = self.full(ask.request, ask.model);
        self.refuse(key, denial, out);
    }

    fn enqueue(&mut self, key: Key) {
        self.counts.queued += 1;
        self.queues.push(key, waiting(self.requests.at(key)));
        self.time_wait(key);
    }

    /// A request whose machine failed it waits again, where it would stand had it never been sent.
    pub(super) fn requeue(&mut self, key: Key) {
        self.counts.requeued += 1;
        self.requests.at_mut(key).requeue();
        self.queues.push_again(key, waiting(self.requests.at(key)));
        self.time_wait(key);
    }

    /// All waiting of a request together has one end, and content has an earlier or later one.
    pub(super) fn queued_until(&self, request: &Request) -> Tick {
        let until = request.arrived_at() + self.config.limits.queue_wait_max;
        until.min(request.deadline())
    }

    fn time_wait(&mut self, key: Key) {
        let until = self.queued_until(self.requests.at(key));
        self.timers.set_surely(until, Due::Queued(key));
    }

    /// The request has waited for as long as it may.
    pub(super) fn on_queue_overdue(&mut self, key: Key, out: &mut Effects) {
        // It may have been sent in the same turn, before this was looked at.
        if let Some(waiting) = self.queues.remove(key) {
            let id = self.requests.at(key).ask().request;
            let denial = self.full(id, waiting.model);
            self.give_up(key, denial, out);
        }
    }

    /// Sends a request to an offer that was just chosen.
    pub(super) fn dispatch(&mut self, now: Tick, key: Key, choice: Choice, out: &mut Effects) {
        let Choice {
            offer,
            cached_tokens,
        } = choice;
        let seller = self.fleet.seller(offer);
        let want = self.requests.at(key).want();
        let load = Load {
            prompt_tokens: want.prompt_tokens,
            fresh_tokens: want.prompt_tokens - cached_tokens,
            need_tokens: want.need_tokens,
        };
        self.timers.clear(Due::Queued(key));
        let limits = &self.config.limits;
        let forecast = self.fleet.forecast(offer, load.prompt_tokens, limits);
        self.fleet
            .note_prefix(offer, want.prefix, load.fresh_tokens, want.output_tokens);
        self.fleet.reserve(now, offer, load);
        let route = Route {
            request: key,
            conn: seller.id.conn,
            machine: seller.id.machine,
            provider: seller.provider,
            offer,
            payee: seller.id.owner,
            load,
            forecast,
        };
        let attempt = self.attempts.add(now, route);
        let nth = self.requests.send(key, attempt, seller.tag);
        let request = self.requests.at(key);
        let id = request.ask().request;
        let is_second = request.racing().count() > 1;
        if is_second {
            request
                .racing()
                .iter()
                .for_each(|it| self.attempts.race(it));
        }
        let seed = &self.config.seed;
        let bits = seed.draw_wide(Purpose::AttemptId, id.0, u128::from(nth));
        let per_token = limits.accept_wait_per_prompt_token.0;
        let extra = Span(per_token.saturating_mul(u64::from(load.prompt_tokens)));
        let accept_by = now + limits.accept_wait_max + extra;
        self.await_sign(attempt, accept_by, WakeReason::AcceptOverdue);
        self.time_second(key);
        self.fleet.refresh(seller.provider, &self.config);
        self.counts.dispatched += 1;
        out.push(Effect::Dispatch {
            request: id,
            attempt: public(attempt),
            conn: seller.id.conn,
            wire: WireId::from_bits(bits),
            is_second,
        });
    }

    /// Gives waiting requests to a provider as long as it has room (INV-09).
    pub(super) fn fill(&mut self, now: Tick, slot: u32, out: &mut Effects) {
        let whose = match self.fleet.serves_only(slot) {
            Some(owner) => Whose::Only(owner),
            None => Whose::Anybody,
        };
        let mut at = 0;
        while let Some((offer, model)) = self.fleet.offer_at(slot, at) {
            at += 1;
            while let Some(key) = self.next_for(offer, model, whose) {
                let want = self.requests.at(key).want();
                let cached_tokens = self.fleet.cached_tokens(offer, &want);
                let choice = Choice {
                    offer,
                    cached_tokens,
                };
                self.dispatch(now, key, choice, out);
            }
        }
    }

    /// Takes the next request out of its queue that an offer suits. Most offers are closed or the
    /// queue is empty: no request is looked at then.
    fn next_for(&mut self, offer: u32, model: ModelIx, whose: Whose) -> Option<Key> {
        let need_tokens_min = self.queues.need_tokens_min(model)?;
        if !self.fleet.has_room(offer, need_tokens_min) {
            return None;
        }
        let (requests, fleet) = (&self.requests, &self.fleet);
        let looks = &mut self.counts.queue_looks;
        self.queues.pop(model, whose, |key| {
            *looks += 1;
            fleet.suits(offer, &requests.at(key).want())
        })
    }

    /// Ends a request that has shown nothing: gives its hold back and says why.
    pub(super) fn refuse(&mut self, key: Key, denial: Denial, out: &mut Effects) {
        let request = self.requests.at(key).ask().request;
        self.counts.refuse(denial);
        self.void_hold(key, out);
        self.forget(key);
        out.push(Effect::Refuse { request, denial });
    }

    pub(super) fn void_hold(&mut self, key: Key, out: &mut Effects) {
        if self.mischief == Mischief::LeakedHold {
            return;
        }
        if let Some(hold) = self.requests.at_mut(key).take_hold() {
            out.post(self.books.void(hold));
        }
    }

    /// The last act of a request. Its attempt, queue place and hold are gone already.
    pub(super) fn forget(&mut self, key: Key) {
        let request = self.requests.end(key);
        assert!(
            request.hold().is_none() || self.mischief == Mischief::LeakedHold,
            "a request never ends with its hold open"
        );
        self.timers.clear(Due::Queued(key));
    }

    /// Everybody is busy: come back when the queue will have drained, spread by a keyed draw.
    pub(super) fn full(&self, request: RequestId, model: ModelIx) -> Denial {
        let depth = u64::from(self.queues.count(model)) + 1;
        let interval_us = self.queues.interval_us(model);
        let wait_s = interval_us.map_or(RETRY_AFTER_UNMEASURED_S, |interval_us| {
            (depth * u64::from(interval_us)).div_ceil(1_000_000)
        });
        self.come_back(request, wait_s)
    }

    /// Everybody is busy for so long.
    pub(super) fn busy_for(&self, request: RequestId, wait: Span) -> Denial {
        self.come_back(request, wait.0.div_ceil(1_000_000))
    }

    fn come_back(&self, request: RequestId, wait_s: u64) -> Denial {
        let wait_s = wait_s.clamp(RETRY_AFTER_MIN_S, RETRY_AFTER_MAX_S);
        let spread = wait_s / 4 + 1;
        let jitter = self
            .config
            .seed
            .draw_below(Purpose::RetryJitter, request.0, 0, spread);
        let retry_after_s = u16::try_from(wait_s + jitter).expect("at most 75 seconds");
        Denial::Full { retry_after_s }
    }

    /// Refuses all that wait for a model.
    pub(super) fn refuse_waiting(&mut self, model: ModelIx, denial: Denial, out: &mut Effects) {
        for key in self.queues.keys(model) {
            self.queues.remove(key);
            self.refuse(key, denial, out);
        }
    }

    pub(super) fn on_drain_began(&mut self, out: &mut Effects) {
        self.is_draining = true;
        for model in self.queues.models() {
            self.refuse_waiting(model, Denial::Draining, out);
        }
    }
}

fn waiting(request: &Request) -> Waiting {
    let want = request.want();
    Waiting {
        model: want.model,
        account: want.account,
        need_tokens: want.need_tokens,
        due: (request.deadline(), request.arrived_at()),
    }
}
