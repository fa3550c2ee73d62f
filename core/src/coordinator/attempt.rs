//! What becomes of an attempt: accepted, started, in progress, failed, overdue, abandoned.

use super::admit::public;
use super::conduct::Offence;
use super::fleet::{Load, NIL};
use super::life::{Attempt, Phase, Progress};
use super::{Coordinator, Mischief, WakeReason};
use crate::denial::Denial;
use crate::effect::{Effect, Effects};
use crate::event::{AttemptFault, Shown};
use crate::ids::{AttemptKey, ConnId, RequestId};
use crate::slab::Key;
use crate::time::{Span, Tick};

/// How long the terminal of an attempt whose consumer left may take.
const PARKED_WAIT: Span = Span::secs(10);

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
        let attempt = *attempt;
        self.fleet.accepted(attempt.offer, load_of(&attempt));
        let request = self
            .requests
            .get_mut(attempt.request)
            .expect("a live attempt's request");
        request.accepted_at = now;
        if matches!(request.phase, Phase::Running(_)) {
            let deadline = now + self.config.limits.first_content_wait_max;
            self.set_timer(attempt.request, deadline, WakeReason::FirstContentOverdue);
        }
    }

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
        let attempt = *attempt;
        if !was_accepted {
            self.fleet.accepted(attempt.offer, load_of(&attempt));
        }
        self.fleet.prefilled(attempt.offer, load_of(&attempt));
        self.fleet.refresh(attempt.provider, &self.config);
        let request = self
            .requests
            .get_mut(attempt.request)
            .expect("a live attempt's request");
        if !was_accepted {
            request.accepted_at = now;
        }
        request.started_at = now;
        request.shown = Shown {
            pieces: 1,
            text_bytes: 1,
            ..Shown::default()
        };
        if request.hold_is_durable && !request.is_released {
            request.is_released = true; // INV-05: otherwise `Persisted` releases it.
            out.push(Effect::Release {
                request: request.ask.request,
            });
        }
        let deadline = now + self.config.limits.idle_wait_max;
        self.set_timer(attempt.request, deadline, WakeReason::IdleOverdue);
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
        let request_key = self.attempts.at(key.slot).request;
        let request = self
            .requests
            .get_mut(request_key)
            .expect("a live attempt's request");
        if shown.pieces >= request.shown.pieces {
            request.shown = shown;
        }
        if matches!(request.phase, Phase::Running(_)) {
            // The timer that is armed looks here when it fires, so progress costs no re-arming.
            request.idle_deadline = now + self.config.limits.idle_wait_max;
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
            AttemptFault::ConsumerStalled | AttemptFault::Encryption => Remains::Lingers,
            AttemptFault::Busy
            | AttemptFault::Cancelled
            | AttemptFault::Client(_)
            | AttemptFault::Internal
            | AttemptFault::ModelUnavailable
            | AttemptFault::Unsent => Remains::Ended,
        };
        if fault == AttemptFault::ConsumerStalled {
            self.send_cancel(key, out);
        }
        let attempt = self.take_attempt(key, remains);
        match fault {
            AttemptFault::Busy => self.fleet.refused(attempt.offer),
            AttemptFault::Internal => self.strike(now, attempt.provider, Offence::Broke),
            AttemptFault::ModelUnavailable => {
                self.fleet
                    .loaded(attempt.offer, crate::event::SlotState::Crashed);
            }
            AttemptFault::Cancelled
            | AttemptFault::Client(_)
            | AttemptFault::ConsumerStalled
            | AttemptFault::Encryption
            | AttemptFault::Unsent => {}
        }
        self.after_fault(now, &attempt, fault, out);
        if fault == AttemptFault::Encryption {
            self.on_distrusted(now, conn, out);
        }
        self.fleet.refresh(attempt.provider, &self.config);
        self.fill(now, attempt.provider, out);
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
        let request = self
            .requests
            .get_mut(key)
            .expect("a live attempt's request");
        if matches!(request.phase, Phase::Parked(_)) {
            self.settle_relayed(key, attempt.payee, out);
            return;
        }
        if fault == AttemptFault::ConsumerStalled && attempt.progress == Progress::Started {
            let id = request.ask.request;
            self.counts.failed += 1;
            self.settle_relayed(key, attempt.payee, out);
            out.push(Effect::Fail {
                request: id,
                denial: Denial::Cancelled,
            });
            return;
        }
        if fault == AttemptFault::Busy {
            request.capacity_refusals += 1;
        }
        let refusals = request.capacity_refusals;
        let (id, model) = (request.ask.request, request.ask.model);
        let denial = match fault {
            AttemptFault::Busy => self.full(id, model),
            AttemptFault::Cancelled | AttemptFault::ConsumerStalled => Denial::Cancelled,
            AttemptFault::Client(status) => Denial::Client(status),
            AttemptFault::Encryption => Denial::Encryption,
            AttemptFault::Internal | AttemptFault::ModelUnavailable | AttemptFault::Unsent => {
                Denial::ProviderFailed
            }
        };
        let is_final = match fault {
            AttemptFault::Busy => refusals >= self.config.limits.capacity_refusals_max,
            AttemptFault::Cancelled
            | AttemptFault::Client(_)
            | AttemptFault::ConsumerStalled
            | AttemptFault::Encryption => true,
            AttemptFault::Internal | AttemptFault::ModelUnavailable | AttemptFault::Unsent => false,
        };
        if attempt.progress == Progress::Started {
            self.fail(key, denial, out);
        } else if is_final {
            self.refuse(key, denial, out);
        } else {
            self.fail_over(now, key, denial, out);
        }
    }

    /// Tries another machine; there is none: refuses with `denial`.
    pub(super) fn fail_over(&mut self, now: Tick, key: Key, denial: Denial, out: &mut Effects) {
        let attempts = self.requests.get(key).expect("a live request").attempts;
        let attempts_max = self
            .config
            .limits
            .attempts_max
            .min(super::life::TRIED_MAX as u8);
        let offer = if attempts < attempts_max {
            self.choose(key)
        } else {
            None
        };
        match offer {
            Some(offer) if !self.is_draining => {
                self.counts.failovers += 1;
                self.dispatch(now, key, offer, out);
            }
            _ => self.refuse(key, denial, out),
        }
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
        match request.phase {
            Phase::Queued => {
                let model = usize::from(request.ask.model.0);
                self.queues[model].remove(&mut self.requests, key);
                self.refuse(key, Denial::Cancelled, out);
            }
            Phase::Running(attempt) => {
                self.send_cancel(attempt, out);
                if self.attempts.at(attempt.slot).progress == Progress::Started {
                    self.park(now, key, attempt);
                    self.counts.failed += 1;
                    out.push(Effect::Fail {
                        request: id,
                        denial: Denial::Cancelled,
                    });
                    return;
                }
                let attempt = self.take_attempt(attempt, Remains::Lingers);
                self.refuse(key, Denial::Cancelled, out);
                self.fill(now, attempt.provider, out);
            }
            Phase::Parked(_) | Phase::Settling => {}
        }
    }

    /// The provider's terminal still comes, with the usage of what was streamed.
    fn park(&mut self, now: Tick, key: Key, attempt: Key) {
        self.requests.get_mut(key).expect("a live request").phase = Phase::Parked(attempt);
        self.set_timer(key, now + PARKED_WAIT, WakeReason::ParkedOverdue);
    }

    pub(super) fn on_overdue(
        &mut self,
        now: Tick,
        key: Key,
        reason: WakeReason,
        out: &mut Effects,
    ) {
        let Some(request) = self.requests.get(key) else {
            return;
        };
        if request.idle_deadline > now {
            let deadline = request.idle_deadline;
            self.set_timer(key, deadline, reason);
            return;
        }
        match request.phase {
            Phase::Queued => {
                let (id, model) = (request.ask.request, request.ask.model);
                self.queues[usize::from(model.0)].remove(&mut self.requests, key);
                let denial = self.full(id, model);
                self.refuse(key, denial, out);
            }
            Phase::Running(attempt) => {
                self.send_cancel(attempt, out);
                let attempt = self.take_attempt(attempt, Remains::Lingers);
                if attempt.progress == Progress::Started {
                    self.fail(key, Denial::Timeout, out);
                } else {
                    self.fail_over(now, key, Denial::Timeout, out);
                }
                self.fill(now, attempt.provider, out);
            }
            Phase::Parked(attempt) => {
                let attempt = self.take_attempt(attempt, Remains::Lingers);
                self.settle_relayed(key, attempt.payee, out);
                self.fill(now, attempt.provider, out);
            }
            Phase::Settling => {}
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

    /// Takes an attempt off its provider's list and off the ledger.
    pub(super) fn take_attempt(&mut self, key: Key, remains: Remains) -> Attempt {
        let attempt = self.attempts.remove(key).expect("a live attempt");
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
}

pub(super) const fn load_of(attempt: &Attempt) -> Load {
    Load {
        prompt_tokens: attempt.prompt_tokens,
        need_tokens: attempt.need_tokens,
    }
}
