//! What becomes of an attempt: accepted, started, in progress, failed, overdue, abandoned.

use super::admit::public;
use super::conduct::Offence;
use super::fleet::{Load, NIL};
use super::life::{Attempt, Phase, Progress};
use super::verdict::{Opinion, Verdict};
use super::{Coordinator, Due, Mischief, WakeReason};
use crate::denial::Denial;
use crate::effect::{Effect, Effects};
use crate::event::{AttemptFault, Shown};
use crate::ids::{AttemptKey, ConnId, RequestId};
use crate::slab::Key;
use crate::time::{Span, Tick};

/// How long the terminal of an attempt whose consumer left may take.
const PARKED_WAIT: Span = Span::secs(10);
/// First content is awaited for this many times the forecast.
const PATIENCE_FACTOR: u64 = 4;
/// And at least so long: what networks and a step that is under way take is in no forecast.
const PATIENCE_MIN: Span = Span::secs(8);

/// Whether the engine may still be running what we gave up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Remains {
    Ended,
    Lingers,
}

impl Coordinator {
    pub(super) fn on_accepted(&mut self, now: Tick, conn: ConnId, attempt: AttemptKey) {
        let Some(key) = self.live(conn, attempt) else {
            return;
        };
        let attempt = self.attempts.at_mut(key.slot);
        if attempt.progress != Progress::Sent {
            self.counts.stale_events += 1;
            return;
        }
        attempt.progress = Progress::Accepted;
        attempt.accepted_at = now;
        let attempt = *attempt;
        self.fleet.accepted(attempt.offer, load_of(&attempt));
        if self.request_of(&attempt).phase == Phase::Running {
            let due = attempt.patience_until;
            self.set_timer(key, due, WakeReason::FirstContentOverdue);
        }
    }

    /// First content: it picks the winner among the attempts that are out.
    pub(super) fn on_started(
        &mut self,
        now: Tick,
        conn: ConnId,
        attempt: AttemptKey,
        out: &mut Effects,
    ) {
        let Some(key) = self.live(conn, attempt) else {
            return;
        };
        let attempt = self.attempts.at_mut(key.slot);
        if attempt.progress == Progress::Started {
            self.counts.stale_events += 1;
            return;
        }
        let was_accepted = attempt.progress == Progress::Accepted;
        attempt.progress = Progress::Started;
        if !was_accepted {
            attempt.accepted_at = now;
        }
        attempt.started_at = now;
        attempt.shown = Shown {
            pieces: 1,
            text_bytes: 1,
            ..Shown::default()
        };
        let attempt = *attempt;
        if !was_accepted {
            self.fleet.accepted(attempt.offer, load_of(&attempt));
        }
        self.fleet.prefilled(attempt.offer, load_of(&attempt));
        let took = now.since(attempt.dispatched_at);
        self.fleet.took(attempt.provider, attempt.forecast, took);
        self.fleet.refresh(attempt.provider, &self.config);
        self.give_up_rivals(now, key, out);
        let request = self
            .requests
            .get_mut(attempt.request)
            .expect("a live attempt's request");
        if request.hold_is_durable && !request.is_released {
            request.is_released = true; // INV-05: otherwise `Persisted` releases it.
            out.push(Effect::Release {
                request: request.ask.request,
            });
        }
        let deadline = now + self.config.limits.idle_wait_max;
        self.set_timer(key, deadline, WakeReason::IdleOverdue);
    }

    /// The winner is known: whoever else works for the request may stop.
    pub(super) fn give_up_rivals(&mut self, now: Tick, winner: Key, out: &mut Effects) {
        let request = self.attempts.at(winner.slot).request;
        let racing = self.requests.get(request).expect("a live request").racing;
        for rival in racing.rivals_of(winner) {
            self.send_cancel(rival, out);
            let loser = self.take_attempt(rival, Remains::Lingers);
            self.fill(now, loser.provider, out);
        }
    }

    pub(super) fn on_progressed(
        &mut self,
        now: Tick,
        conn: ConnId,
        attempt: AttemptKey,
        shown: Shown,
    ) {
        let Some(key) = self.live(conn, attempt) else {
            return;
        };
        let idle_wait = self.config.limits.idle_wait_max;
        let attempt = self.attempts.at_mut(key.slot);
        if shown.pieces >= attempt.shown.pieces {
            attempt.shown = shown;
        }
        let request = self.requests.get(attempt.request);
        if request.is_some_and(|request| request.phase == Phase::Running) {
            // The timer that is armed looks here when it fires, so progress costs no re-arming.
            attempt.due = now + idle_wait;
            attempt.deadline = attempt.due;
        }
    }

    pub(super) fn on_failed(
        &mut self,
        now: Tick,
        conn: ConnId,
        attempt: AttemptKey,
        fault: AttemptFault,
        out: &mut Effects,
    ) {
        let Some(key) = self.live(conn, attempt) else {
            return;
        };
        let remains = match fault {
            AttemptFault::AnswerTooLarge
            | AttemptFault::ConsumerStalled
            | AttemptFault::Encryption
            | AttemptFault::HoldOverdue => Remains::Lingers,
            AttemptFault::Busy
            | AttemptFault::Cancelled
            | AttemptFault::Client(_)
            | AttemptFault::Internal
            | AttemptFault::ModelUnavailable
            | AttemptFault::Unsent => Remains::Ended,
        };
        match fault {
            AttemptFault::AnswerTooLarge
            | AttemptFault::ConsumerStalled
            | AttemptFault::HoldOverdue => self.send_cancel(key, out),
            AttemptFault::Busy
            | AttemptFault::Cancelled
            | AttemptFault::Client(_)
            | AttemptFault::Encryption
            | AttemptFault::Internal
            | AttemptFault::ModelUnavailable
            | AttemptFault::Unsent => {}
        }
        let attempt = self.take_attempt(key, remains);
        match fault {
            AttemptFault::Busy => self.fleet.refused(now, attempt.offer),
            AttemptFault::Client(status) => self.hear(&attempt, Verdict::Client(status)),
            AttemptFault::Internal => self.strike(now, attempt.provider, Offence::Broke),
            AttemptFault::ModelUnavailable => {
                self.fleet
                    .loaded(attempt.offer, crate::event::SlotState::Crashed);
            }
            AttemptFault::AnswerTooLarge
            | AttemptFault::Cancelled
            | AttemptFault::ConsumerStalled
            | AttemptFault::Encryption
            | AttemptFault::HoldOverdue
            | AttemptFault::Unsent => {}
        }
        self.after_fault(now, &attempt, fault, out);
        if fault == AttemptFault::Encryption {
            self.on_distrusted(now, conn, out);
        }
        self.fleet.refresh(attempt.provider, &self.config);
        self.fill(now, attempt.provider, out);
    }

    /// A machine spoke against the request itself.
    pub(super) fn hear(&mut self, attempt: &Attempt, verdict: Verdict) {
        let is_credible = !self.fleet.providers.at(attempt.provider).has_faults;
        let request = self
            .requests
            .get_mut(attempt.request)
            .expect("a live attempt's request");
        request.opinions.push(Opinion {
            verdict,
            machine: attempt.machine,
            owner: attempt.payee,
            is_credible,
        });
    }

    /// The attempt is off the ledger; decides what its request does next.
    pub(super) fn after_fault(
        &mut self,
        now: Tick,
        attempt: &Attempt,
        fault: AttemptFault,
        out: &mut Effects,
    ) {
        let key = attempt.request;
        let request = self.request_of(attempt);
        if request.phase == Phase::Parked {
            self.settle_relayed(key, attempt, out);
            return;
        }
        if fault == AttemptFault::ConsumerStalled && attempt.progress == Progress::Started {
            let id = request.ask.request;
            self.counts.failed += 1;
            self.settle_relayed(key, attempt, out);
            out.push(Effect::Fail {
                request: id,
                denial: Denial::Cancelled,
            });
            return;
        }
        if !request.racing.is_empty() {
            return; // Another attempt is at it.
        }
        let (id, model) = (request.ask.request, request.ask.model);
        let has_shown = request.has_shown(attempt.progress);
        let is_agreed = super::verdict::is_agreed(&request.opinions);
        let refusals = request.capacity_refusals + u8::from(fault == AttemptFault::Busy);
        self.requests
            .get_mut(key)
            .expect("a live request")
            .capacity_refusals = refusals;
        let (denial, is_final) = match fault {
            AttemptFault::AnswerTooLarge => (Denial::AnswerTooLarge, true),
            AttemptFault::Busy => {
                let is_final = refusals >= self.config.limits.capacity_refusals_max;
                (self.full(id, model), is_final)
            }
            AttemptFault::Cancelled | AttemptFault::ConsumerStalled => (Denial::Cancelled, true),
            AttemptFault::Client(status) => (Denial::Client(status), is_agreed),
            AttemptFault::Encryption => (Denial::Encryption, false),
            AttemptFault::HoldOverdue => (Denial::HoldOverdue, true),
            AttemptFault::Internal | AttemptFault::ModelUnavailable | AttemptFault::Unsent => {
                (Denial::ProviderFailed, false)
            }
        };
        if has_shown {
            self.fail(key, denial, out);
        } else if is_final {
            self.refuse(key, denial, out);
        } else {
            self.again(now, key, denial, out);
        }
    }

    /// Goes on with another machine, or ends the request with `denial`.
    fn again(&mut self, now: Tick, key: Key, denial: Denial, out: &mut Effects) {
        if !self.goes_on(now, key, out) {
            self.give_up(key, denial, out);
        }
    }

    /// Sends the request to another machine, or lets it wait for one at the head of its account's
    /// lane. False when there is none to wait for, or no time.
    pub(super) fn goes_on(&mut self, now: Tick, key: Key, out: &mut Effects) -> bool {
        if !self.may_go_on(now, key) {
            return false;
        }
        if let Some(offer) = self.choose(key) {
            self.counts.failovers += 1;
            self.dispatch(now, key, offer, out);
            return true;
        }
        let request = self.requests.get(key).expect("a live request");
        let model = request.ask.model;
        let waits_until = self.queued_until(request);
        let has_place = self.queue(model).count() < self.config.limits.queue_depth_max;
        let others = self.fleet.capable_beside(model, request.tried_machines());
        if others == 0 || !has_place || waits_until <= now {
            return false;
        }
        self.requeue(key);
        true
    }

    /// Whether the request has time and attempts left.
    fn may_go_on(&self, now: Tick, key: Key) -> bool {
        let request = self.requests.get(key).expect("a live request");
        let attempts_max = self
            .config
            .limits
            .attempts_max
            .min(super::life::TRIED_MAX as u8);
        !self.is_draining && request.attempts < attempts_max && now < request.deadline
    }

    /// Ends a request that nobody has seen anything of. What a machine said against the request
    /// itself tells its consumer more than how the last one failed.
    pub(super) fn give_up(&mut self, key: Key, denial: Denial, out: &mut Effects) {
        let request = self.requests.get(key).expect("a live request");
        let denial = super::verdict::status(request).map_or(denial, Denial::Client);
        self.refuse(key, denial, out);
    }

    /// Ends a request whose content has begun to flow: the consumer pays nothing for half an answer.
    pub(super) fn fail(&mut self, key: Key, denial: Denial, out: &mut Effects) {
        let request = self.requests.get(key).expect("a live request").ask.request;
        self.counts.failed += 1;
        self.void_hold(key, out);
        self.forget(key);
        out.push(Effect::Fail { request, denial });
    }

    pub(super) fn on_consumer_left(&mut self, now: Tick, id: RequestId, out: &mut Effects) {
        let Some(slot) = self.by_id.get(id) else {
            return;
        };
        let key = self.requests.key_at(slot);
        let request = self
            .requests
            .get(key)
            .expect("the index names a live request");
        let (phase, racing, model) = (request.phase, request.racing, request.ask.model);
        match phase {
            Phase::Queued => {
                self.queues[usize::from(model.0)].remove(&mut self.requests, key);
                self.refuse(key, Denial::Cancelled, out);
            }
            Phase::Running => {
                for attempt in racing.iter() {
                    self.send_cancel(attempt, out);
                }
                if let Some(winner) = self.winner_of(key) {
                    self.park(now, key, winner);
                    self.counts.failed += 1;
                    out.push(Effect::Fail {
                        request: id,
                        denial: Denial::Cancelled,
                    });
                    return;
                }
                let mut providers = [NIL; super::life::RACERS_MAX];
                for (place, attempt) in providers.iter_mut().zip(racing.iter()) {
                    *place = self.take_attempt(attempt, Remains::Lingers).provider;
                }
                self.refuse(key, Denial::Cancelled, out);
                for provider in providers.into_iter().filter(|slot| *slot != NIL) {
                    self.fill(now, provider, out);
                }
            }
            Phase::Parked | Phase::Settling => {}
        }
    }

    /// The attempt whose content is the request's answer.
    pub(super) fn winner_of(&self, key: Key) -> Option<Key> {
        let racing = self.requests.get(key).expect("a live request").racing;
        racing
            .iter()
            .find(|attempt| self.attempts.at(attempt.slot).progress == Progress::Started)
    }

    /// The provider's terminal still comes, with the usage of what was streamed.
    fn park(&mut self, now: Tick, key: Key, attempt: Key) {
        self.requests.get_mut(key).expect("a live request").phase = Phase::Parked;
        self.set_timer(attempt, now + PARKED_WAIT, WakeReason::ParkedOverdue);
    }

    /// An attempt was given all the time that it gets.
    pub(super) fn on_overdue(
        &mut self,
        now: Tick,
        key: Key,
        reason: WakeReason,
        out: &mut Effects,
    ) {
        let Some(attempt) = self.attempts.get(key).copied() else {
            return;
        };
        if attempt.deadline > now {
            return self.set_timer(key, attempt.due, reason);
        }
        let request = attempt.request;
        match self.request_of(&attempt).phase {
            Phase::Queued | Phase::Settling => unreachable!("no attempt of it is out"),
            Phase::Running => {
                self.send_cancel(key, out);
                let attempt = self.take_attempt(key, Remains::Lingers);
                // Where the request's own deadline came first, the machine is not to blame.
                if attempt.due <= now {
                    self.strike(now, attempt.provider, Offence::Silence);
                }
                let running = self.request_of(&attempt);
                if running.has_shown(attempt.progress) {
                    self.fail(request, Denial::Timeout, out);
                } else if running.racing.is_empty() {
                    self.again(now, request, Denial::Timeout, out);
                }
                self.fill(now, attempt.provider, out);
            }
            Phase::Parked => {
                let attempt = self.take_attempt(key, Remains::Lingers);
                self.settle_relayed(request, &attempt, out);
                self.fill(now, attempt.provider, out);
            }
        }
    }

    /// The attempt, if the event speaks of one that is alive on the connection that it came from.
    pub(super) fn live(&mut self, conn: ConnId, attempt: AttemptKey) -> Option<Key> {
        let key = Key {
            slot: attempt.slot,
            generation: attempt.generation,
        };
        if self
            .attempts
            .get(key)
            .is_some_and(|attempt| attempt.conn == conn)
        {
            return Some(key);
        }
        self.counts.stale_events += 1;
        None
    }

    pub(super) fn request_of(&self, attempt: &Attempt) -> &super::Request {
        self.requests
            .get(attempt.request)
            .expect("a live attempt's request")
    }

    /// Takes an attempt off its request, its provider's list and the ledger.
    pub(super) fn take_attempt(&mut self, key: Key, remains: Remains) -> Attempt {
        let attempt = self.attempts.remove(key).expect("a live attempt");
        self.wheel.cancel(attempt.timer);
        self.requests
            .get_mut(attempt.request)
            .expect("a live attempt's request")
            .racing
            .remove(key);
        if attempt.prev == NIL {
            self.fleet.providers.at_mut(attempt.provider).first_attempt = attempt.next;
        } else {
            self.attempts.at_mut(attempt.prev).next = attempt.next;
        }
        if attempt.next != NIL {
            self.attempts.at_mut(attempt.next).prev = attempt.prev;
        }
        let was_accepted = attempt.progress != Progress::Sent;
        let was_started = attempt.progress == Progress::Started;
        let lingers = remains == Remains::Lingers;
        self.fleet.release(
            attempt.offer,
            load_of(&attempt),
            was_accepted,
            was_started,
            lingers,
        );
        self.fleet.refresh(attempt.provider, &self.config);
        attempt
    }

    pub(super) fn send_cancel(&self, key: Key, out: &mut Effects) {
        if self.mischief == Mischief::LostCancel {
            return;
        }
        let conn = self.attempts.at(key.slot).conn;
        out.push(Effect::CancelAttempt {
            attempt: public(key),
            conn,
        });
    }

    /// The attempt's one timer: when the machine owes what it waits for. Until content has begun the
    /// request's own deadline may come first.
    pub(super) fn set_timer(&mut self, key: Key, due: Tick, reason: WakeReason) {
        let request = self.attempts.at(key.slot).request;
        let content_by = self.requests.get(request).expect("a live request").deadline;
        let deadline = match reason {
            WakeReason::AcceptOverdue | WakeReason::FirstContentOverdue => due.min(content_by),
            WakeReason::BarLifted
            | WakeReason::ChallengeExpired
            | WakeReason::IdleOverdue
            | WakeReason::ParkedOverdue
            | WakeReason::QueueOverdue
            | WakeReason::ReportStale => due,
        };
        let attempt = self.attempts.at_mut(key.slot);
        attempt.due = due;
        attempt.deadline = deadline;
        self.wheel.cancel(attempt.timer);
        let timer = self.wheel.arm(deadline, Due::Attempt(key, reason));
        attempt.timer = timer.expect("one timer an attempt, and the wheel holds as many");
    }

    /// How long a machine may say nothing, by the forecast that was made of it: a function of its
    /// own figures, so that neither a slow machine is given up too soon nor a dead one too late.
    pub(super) fn patience(&self, offer: u32, prompt_tokens: u32) -> Span {
        let limits = &self.config.limits;
        let forecast = self.fleet.forecast(offer, prompt_tokens, limits);
        let upload = limits.accept_wait_per_prompt_token.0;
        let upload = upload.saturating_mul(u64::from(prompt_tokens));
        let patience = forecast.0.saturating_mul(PATIENCE_FACTOR);
        Span(patience.max(PATIENCE_MIN.0).saturating_add(upload))
    }
}

pub(super) const fn load_of(attempt: &Attempt) -> Load {
    Load {
        prompt_tokens: attempt.prompt_tokens,
        need_tokens: attempt.need_tokens,
    }
}
