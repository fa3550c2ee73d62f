//! Arrivals: may it enter, who serves it, or does it wait. And every way in which a request that has
//! shown nothing yet is let go.

use smallvec::SmallVec;

use super::books::HoldError;
use super::fleet::{Load, Reach};
use super::life::{Attempt, Phase, Progress, Racing, Request, Served, TRIED_MAX};
use super::pool::MachineTag;
use super::queue::Whose;
use super::{Coordinator, Due, Mischief, WakeReason};
use crate::denial::Denial;
use crate::draw::Purpose;
use crate::effect::{Alarm, Effect, Effects};
use crate::event::{Ask, Shown, Usage};
use crate::ids::{AttemptKey, MachineId, ModelIx, RequestId, WireId};
use crate::money::{MicroUsd, Price};
use crate::slab::Key;
use crate::time::{Span, Tick};

const RETRY_AFTER_MIN_S: u64 = 1;
const RETRY_AFTER_MAX_S: u64 = 60;
/// Wait for a consumer's place when nothing was measured yet (`spec/routing` 6.7).
const RETRY_AFTER_UNMEASURED_S: u64 = 2;
const NO_PROVIDER_RETRY_S: u16 = 5;

/// What becomes of a request that may enter.
#[derive(Clone, Copy)]
enum Way {
    /// It goes to this offer.
    Now(u32),
    Queued,
    /// It waits, and this one no longer does.
    InPlaceOf(Key),
}

impl Coordinator {
    pub(super) fn on_arrived(&mut self, now: Tick, ask: Ask, out: &mut Effects) {
        if self.by_id.get(ask.request).is_some() {
            self.counts.duplicates += 1; // INV-16: a repeat changes nothing.
            return;
        }
        self.counts.arrived += 1;
        let Err(denial) = self.admit(now, ask, out) else {
            return;
        };
        self.counts.refused += 1;
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
        let need = u64::from(ask.prompt_tokens) + u64::from(ask.output_tokens_max);
        let price = spec.price;
        if need > u64::from(spec.context_tokens) {
            return Err(Denial::TooLong);
        }
        let bound = ask.prompt_tokens_bound.max(ask.prompt_tokens);
        let amount = price.cost(u64::from(bound), u64::from(ask.output_tokens_max));
        let mut request = fresh_request(now, ask);
        request.price = price;
        request.deadline = now + self.config.limits.first_content_wait_max;
        let Some(key) = self.requests.insert(request) else {
            out.push(Effect::Alarm {
                alarm: Alarm::RequestsFull,
                count: 1,
            });
            return Err(self.full(ask.request, ask.model));
        };
        let way = match self.choose(key) {
            Some(offer) => Ok(Way::Now(offer)),
            None => self.place_in_queue(&ask, need),
        };
        let held = way.and_then(|way| {
            let held = self.books.hold(ask.account, ask.request, amount);
            let (hold, transfer) = held.map_err(|error| match error {
                HoldError::Insufficient => Denial::Broke,
                HoldError::UnknownAccount => Denial::UnknownAccount,
            })?;
            Ok((way, hold, transfer))
        });
        let (way, hold, transfer) = match held {
            Ok(placed) => placed,
            Err(denial) => {
                self.requests.remove(key);
                return Err(denial);
            }
        };
        self.awaiting.push_back((hold.seq, key));
        out.post(transfer);
        let request = self.requests.get_mut(key).expect("just inserted");
        request.held = hold.amount;
        request.hold = Some(hold);
        self.by_id.insert(ask.request, key.slot);
        match way {
            Way::Now(offer) => self.dispatch(now, key, offer, out),
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
    fn place_in_queue(&self, ask: &Ask, need_tokens: u64) -> Result<Way, Denial> {
        let retry_after_s = NO_PROVIDER_RETRY_S;
        match self.fleet.reach(ask.model, ask.account, need_tokens) {
            Reach::Nobody => return Err(Denial::NoProvider { retry_after_s }),
            Reach::NoneLargeEnough => return Err(Denial::NoneLargeEnough { retry_after_s }),
            Reach::Possible => {}
        }
        let queue = self.queue(ask.model);
        if queue.count() < self.config.limits.queue_depth_max {
            return Ok(Way::Queued);
        }
        match queue.gives_way_to(ask.account) {
            Some(other) => Ok(Way::InPlaceOf(other)),
            None => Err(self.full(ask.request, ask.model)),
        }
    }

    /// Refuses a request that waits.
    pub(super) fn shed(&mut self, key: Key, out: &mut Effects) {
        let ask = self.requests.get(key).expect("a queued request lives").ask;
        self.queues[usize::from(ask.model.0)].remove(&mut self.requests, key);
        let denial = self.full(ask.request, ask.model);
        self.refuse(key, denial, out);
    }

    fn enqueue(&mut self, key: Key) {
        let model = self.requests.get(key).expect("a live request").ask.model;
        self.counts.queued += 1;
        self.queues[usize::from(model.0)].push(&mut self.requests, key);
        self.time_wait(key);
    }

    /// A request whose machine failed it waits again, before all that came after it.
    pub(super) fn requeue(&mut self, key: Key) {
        let request = self.requests.get_mut(key).expect("a live request");
        request.phase = Phase::Queued;
        let model = request.ask.model;
        self.counts.requeued += 1;
        self.queues[usize::from(model.0)].push_front(&mut self.requests, key);
        self.time_wait(key);
    }

    /// All waiting of a request together has one end, and content has an earlier or later one.
    pub(super) fn queued_until(&self, request: &Request) -> Tick {
        let until = request.arrived_at + self.config.limits.queue_wait_max;
        until.min(request.deadline)
    }

    fn time_wait(&mut self, key: Key) {
        let request = self.requests.get(key).expect("a live request");
        let until = self.queued_until(request);
        let timer = self.wheel.arm(until, Due::Queued(key));
        let request = self.requests.get_mut(key).expect("a live request");
        request.timer = timer.expect("one timer a request, and the wheel holds as many");
    }

    /// The request has waited for as long as it may.
    pub(super) fn on_queue_overdue(&mut self, key: Key, out: &mut Effects) {
        let Some(request) = self.requests.get(key) else {
            return;
        };
        if request.phase != Phase::Queued {
            return; // It was sent in the same turn, before this was looked at.
        }
        let (id, model) = (request.ask.request, request.ask.model);
        self.queues[usize::from(model.0)].remove(&mut self.requests, key);
        let denial = self.full(id, model);
        self.give_up(key, denial, out);
    }

    pub(super) fn queue(&self, model: ModelIx) -> &super::Queue {
        &self.queues[usize::from(model.0)]
    }

    /// Sends a request to an offer that was just chosen.
    pub(super) fn dispatch(&mut self, now: Tick, key: Key, offer: u32, out: &mut Effects) {
        let slot = self.fleet.offers.at(offer).provider;
        let provider = self.fleet.providers.at(slot);
        let (conn, machine, payee) = (provider.conn, provider.machine, provider.owner);
        let tag = provider.tag;
        let first = provider.first_attempt;
        let request = self.requests.get_mut(key).expect("a live request");
        assert!(
            !request.has_tried(tag),
            "a retry never goes to a machine that failed it"
        );
        let load = Load {
            prompt_tokens: request.ask.prompt_tokens,
            need_tokens: request.need_tokens(),
        };
        let timer = core::mem::replace(&mut request.timer, Key::NONE);
        self.wheel.cancel(timer);
        let patience_until = now + self.patience(offer, load.prompt_tokens);
        let forecast = self
            .fleet
            .forecast(offer, load.prompt_tokens, &self.config.limits);
        self.fleet.reserve(offer, load);
        let attempt = Attempt {
            request: key,
            conn,
            machine,
            provider: slot,
            offer,
            payee,
            progress: Progress::Sent,
            timer: Key::NONE,
            deadline: Tick::NEVER,
            due: Tick::NEVER,
            patience_until,
            forecast,
            dispatched_at: now,
            accepted_at: now,
            started_at: now,
            shown: Shown::default(),
            prompt_tokens: load.prompt_tokens,
            need_tokens: load.need_tokens,
            prev: super::fleet::NIL,
            next: first,
        };
        let attempt = self
            .attempts
            .insert(attempt)
            .expect("as many attempts as may race for all requests");
        if first != super::fleet::NIL {
            self.attempts.at_mut(first).prev = attempt.slot;
        }
        self.fleet.providers.at_mut(slot).first_attempt = attempt.slot;
        let request = self.requests.get_mut(key).expect("a live request");
        request.phase = Phase::Running;
        request.racing.add(attempt);
        request.tried[usize::from(request.attempts)] = tag;
        request.attempts += 1;
        let (id, nth) = (request.ask.request, request.attempts);
        let bits = self
            .config
            .seed
            .draw_wide(Purpose::AttemptId, id.0, u128::from(nth));
        let limits = &self.config.limits;
        let per_token = limits.accept_wait_per_prompt_token.0;
        let extra = Span(per_token.saturating_mul(u64::from(load.prompt_tokens)));
        let accept_by = now + limits.accept_wait_max + extra;
        self.set_timer(attempt, accept_by, WakeReason::AcceptOverdue);
        self.fleet.refresh(slot, &self.config);
        self.counts.dispatched += 1;
        let wire = WireId::from_bits(bits);
        out.push(Effect::Dispatch {
            request: id,
            attempt: public(attempt),
            conn,
            wire,
        });
    }

    /// Gives waiting requests to a provider as long as it has room (INV-09).
    pub(super) fn fill(&mut self, now: Tick, slot: u32, out: &mut Effects) {
        let count = self.fleet.providers.at(slot).offers.len();
        for at in 0..count {
            let offer = self.fleet.providers.at(slot).offers[at];
            let model = usize::from(self.fleet.offers.at(offer).model.0);
            let provider = self.fleet.providers.at(slot);
            let tag = provider.tag;
            let whose = match provider.is_private() {
                true => Whose::Only(provider.owner),
                false => Whose::Anybody,
            };
            // Most offers are closed or the queue is empty: no request is looked at then.
            while self.queues[model].count() > 0
                && self
                    .fleet
                    .has_room(offer, self.queues[model].need_tokens_min())
            {
                let fleet = &self.fleet;
                let looks = &mut self.counts.queue_looks;
                let key = self.queues[model].pop(&mut self.requests, whose, |request| {
                    *looks += 1;
                    fleet.has_room(offer, request.need_tokens())
                        && !request.has_tried(tag)
                        && fleet.may_serve(offer, request.tried_machines())
                });
                let Some(key) = key else { break };
                self.dispatch(now, key, offer, out);
            }
        }
    }

    /// Ends a request that has shown nothing: gives its hold back and says why.
    pub(super) fn refuse(&mut self, key: Key, denial: Denial, out: &mut Effects) {
        let request = self.requests.get(key).expect("a live request").ask.request;
        self.counts.refused += 1;
        self.void_hold(key, out);
        self.forget(key);
        out.push(Effect::Refuse { request, denial });
    }

    pub(super) fn void_hold(&mut self, key: Key, out: &mut Effects) {
        if self.mischief == Mischief::LeakedHold {
            return;
        }
        let request = self.requests.get_mut(key).expect("a live request");
        if let Some(hold) = request.hold.take() {
            out.post(self.books.void(hold));
        }
    }

    /// The last act of a request. Its attempt, queue place and hold are gone already.
    pub(super) fn forget(&mut self, key: Key) {
        let request = self.requests.remove(key).expect("a live request");
        assert!(
            request.hold.is_none() || self.mischief == Mischief::LeakedHold,
            "a request never ends with its hold open"
        );
        assert!(
            request.racing.is_empty(),
            "a request never ends before its attempts"
        );
        self.wheel.cancel(request.timer);
        self.by_id.remove(request.ask.request);
    }

    /// Everybody is busy: come back when the queue will have drained, spread by a keyed draw.
    pub(super) fn full(&self, request: RequestId, model: ModelIx) -> Denial {
        let depth = u64::from(self.queue(model).count()) + 1;
        let interval_ms = self.queue(model).interval_ms();
        let wait_s = interval_ms.map_or(RETRY_AFTER_UNMEASURED_S, |interval_ms| {
            (depth * u64::from(interval_ms)).div_ceil(1_000)
        });
        let wait_s = wait_s.clamp(RETRY_AFTER_MIN_S, RETRY_AFTER_MAX_S);
        let spread = wait_s / 4 + 1;
        let jitter = self
            .config
            .seed
            .draw_below(Purpose::RetryJitter, request.0, 0, spread);
        let retry_after_s = u16::try_from(wait_s + jitter).expect("at most 75 seconds");
        Denial::Full { retry_after_s }
    }

    pub(super) fn on_drain_began(&mut self, _now: Tick, out: &mut Effects) {
        self.is_draining = true;
        for model in 0..self.queues.len() {
            for key in self.queues[model].keys(&self.requests) {
                self.queues[model].remove(&mut self.requests, key);
                self.refuse(key, Denial::Draining, out);
            }
        }
    }
}

pub(super) const fn public(key: Key) -> AttemptKey {
    AttemptKey {
        slot: key.slot,
        generation: key.generation,
    }
}

pub(super) fn fresh_request(now: Tick, ask: Ask) -> Request {
    Request {
        ask,
        price: Price::DEFAULT,
        phase: Phase::Queued,
        racing: Racing::default(),
        hold: None,
        held: MicroUsd::ZERO,
        hold_is_durable: false,
        settle_seq: 0,
        is_released: false,
        timer: Key::NONE,
        deadline: Tick::NEVER,
        attempts: 0,
        capacity_refusals: 0,
        tried: [MachineTag(0); TRIED_MAX],
        opinions: SmallVec::new(),
        prev_queued: Key::NONE,
        next_queued: Key::NONE,
        served: Served {
            machine: MachineId(0),
            dispatched_at: now,
            accepted_at: now,
            started_at: now,
        },
        usage: Usage::default(),
        charged: MicroUsd::ZERO,
        payout: MicroUsd::ZERO,
        arrived_at: now,
        completed_at: now,
    }
}
