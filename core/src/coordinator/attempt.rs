//! What becomes of an attempt: accepted, started, in progress, failed, overdue, abandoned.

use super::attempts::{Attempt, Sign, public};
use super::conduct::Offence;
use super::fleet::{Reach, Refusing};
use super::requests::{Phase, RACERS_MAX};
use super::timers::Due;
use super::verdict::{Opinion, Verdict};
use super::{Coordinator, Mischief, WakeReason};
use crate::denial::Denial;
use crate::effect::{Effect, Effects};
use crate::event::{AttemptFault, Shown};
use crate::ids::{AttemptKey, ConnId, RequestId};
use crate::slab::Key;
use crate::time::{Span, Tick};

/// How long the terminal of an attempt whose consumer left may take.
const PARKED_WAIT: Span = Span::secs(10);

/// Who leaves an answer that has said a few words and then nothing for so long pays nothing for it: that
/// would be a living otherwise. Of an answer that had come further, what was delivered is paid.
const SILENCE_FREE: Span = Span::secs(10);
/// Pieces of one answer after which a machine may get more than one request at a time: more than a
/// few words that anybody could say, and too few for a wait.
const PIECES_TO_TRUST: u32 = 32;

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
        if self.attempts.accept(now, key) == Sign::Repeated {
            self.counts.stale_events += 1;
            return;
        }
        let attempt = self.attempts.at(key);
        let route = attempt.route();
        self.fleet.accepted(route.offer, route.load);
        if self.requests.at(route.request).phase() == Phase::Running {
            let upload = self.config.limits.accept_wait_per_prompt_token;
            let due = attempt.patience_until(upload);
            self.await_sign(key, due, WakeReason::FirstContentOverdue);
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
        let was_accepted = self.attempts.at(key).is_accepted();
        let route = self.attempts.at(key).route();
        let whole = self
            .fleet
            .answer_time(route.offer, route.load.output_tokens());
        if self.attempts.start(now, key, whole) == Sign::Repeated {
            self.counts.stale_events += 1;
            return;
        }
        let attempt = self.attempts.at(key);
        let (route, took) = (*attempt.route(), attempt.age(now));
        if !was_accepted {
            self.fleet.accepted(route.offer, route.load);
        }
        self.fleet.prefilled(route.offer, route.load);
        self.fleet.begins(route.provider);
        if self.mischief != Mischief::ForgetsLateness {
            self.fleet.took(route.provider, route.forecast, took);
        }
        self.fleet.refresh(route.provider, &self.config);
        self.give_up_rivals(now, key, out);
        self.release(route.request, out);
        let due = self
            .attempts
            .at(key)
            .pause_until(Span::ZERO, self.config.limits.idle_wait_max);
        self.await_sign(key, due, WakeReason::IdleOverdue);
        // INV-09: what was learnt just now may have opened the machine to more.
        self.fill(now, route.provider, out);
    }

    /// Lets the consumer see its answer, once there is one and its hold is durable (INV-05).
    pub(super) fn release(&mut self, key: Key, out: &mut Effects) {
        let Some(winner) = self.winner_of(key) else {
            return;
        };
        let request = self.requests.at_mut(key);
        if request.release() {
            out.push(Effect::Release {
                request: request.ask().request,
                attempt: public(winner),
            });
        }
    }

    pub(super) fn on_progressed(
        &mut self,
        now: Tick,
        conn: ConnId,
        attempt: AttemptKey,
        shown: Shown,
        out: &mut Effects,
    ) {
        let Some(key) = self.live(conn, attempt) else {
            return;
        };
        self.attempts.show(now, key, shown);
        let provider = self.attempts.at(key).route().provider;
        let request = self.attempts.at(key).route().request;
        if self.requests.at(request).phase() == Phase::Running {
            // The timer that is set looks here when it fires, so progress costs no setting anew.
            let pause_max = self.config.limits.idle_wait_max;
            let due = self.attempts.at(key).pause_until(Span::ZERO, pause_max);
            self.attempts.await_sign(key, due, due);
        }
        self.note_lag(now, key, out);
        if shown.pieces >= PIECES_TO_TRUST {
            self.try_out(now, provider, out);
        }
    }

    /// A machine that was sent one request at a time does what it is asked: it may get more.
    fn try_out(&mut self, now: Tick, provider: u32, out: &mut Effects) {
        if self.fleet.goes_on(provider) {
            self.fleet.refresh(provider, &self.config);
            self.fill(now, provider, out);
        }
    }

    /// An answer that drips is known long before its end, so that others need not wait for it.
    fn note_lag(&mut self, now: Tick, key: Key, out: &mut Effects) {
        let attempt = self.attempts.at(key);
        if !attempt.may_lag() || self.mischief == Mischief::ForgetsLateness {
            return;
        }
        let (route, pieces) = (*attempt.route(), attempt.shown().pieces);
        let so_far = attempt.streams_for(now);
        let is_late = self.fleet.lags(route.provider, route.offer, pieces, so_far);
        if is_late {
            self.attempts.lags(key);
            self.fleet.refresh(route.provider, &self.config);
            self.fill(now, route.provider, out);
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
            | AttemptFault::HoldOverdue => {
                self.send_cancel(key, out);
                Remains::Lingers
            }
            AttemptFault::Encryption => Remains::Lingers,
            AttemptFault::Busy
            | AttemptFault::Cancelled
            | AttemptFault::Client(_)
            | AttemptFault::Internal
            | AttemptFault::ModelUnavailable
            | AttemptFault::Unsent => Remains::Ended,
        };
        let attempt = self.take_attempt(key, remains);
        let route = *attempt.route();
        match fault {
            AttemptFault::Busy => {
                self.fleet.refused(now, route.offer);
                self.note_refusal(now, &attempt);
            }
            AttemptFault::Client(status) => self.hear(&attempt, Verdict::Client(status)),
            AttemptFault::Internal => self.strike(now, route.provider, Offence::Broke),
            AttemptFault::ModelUnavailable => {
                self.fleet.crashes(route.offer);
                self.note_refusal(now, &attempt);
            }
            AttemptFault::Encryption => self.strike(now, route.provider, Offence::BrokenSeal),
            AttemptFault::AnswerTooLarge
            | AttemptFault::Cancelled
            | AttemptFault::ConsumerStalled
            | AttemptFault::HoldOverdue
            | AttemptFault::Unsent => {}
        }
        self.after_fault(now, &attempt, fault, out);
        if fault == AttemptFault::Encryption {
            self.on_distrusted(now, conn, out);
        }
        self.fleet.refresh(route.provider, &self.config);
        self.fill(now, route.provider, out);
    }

    /// An honest machine refuses now and then; who does so whenever it is asked has a fault.
    fn note_refusal(&mut self, now: Tick, attempt: &Attempt) {
        let provider = attempt.route().provider;
        match self.fleet.refuses(now, provider, attempt.dispatched_at()) {
            Refusing::NowAndThen => {}
            Refusing::Steadily => self.strike(now, provider, Offence::Refusals),
        }
    }

    /// A machine spoke against the request itself.
    pub(super) fn hear(&mut self, attempt: &Attempt, verdict: Verdict) {
        let route = attempt.route();
        let opinion = Opinion {
            verdict,
            machine: route.machine,
            owner: route.payee,
            is_credible: self.fleet.is_credible(route.provider),
        };
        self.fleet.speaks_against(route.provider);
        self.requests.at_mut(route.request).hear(opinion);
    }

    /// The attempt is off the ledger; decides what its request does next.
    pub(super) fn after_fault(
        &mut self,
        now: Tick,
        attempt: &Attempt,
        fault: AttemptFault,
        out: &mut Effects,
    ) {
        let key = attempt.route().request;
        let request = self.requests.at(key);
        if request.phase() == Phase::Parked {
            self.settle_relayed(now, attempt, out);
            return;
        }
        if fault == AttemptFault::ConsumerStalled && attempt.has_started() {
            let request = request.ask().request;
            self.counts.failed += 1;
            self.requests.at_mut(key).park();
            self.settle_relayed(now, attempt, out);
            out.push(Effect::Fail {
                request,
                denial: Denial::Cancelled,
            });
            return;
        }
        if !request.racing().is_empty() {
            return; // Another attempt is at it.
        }
        let (id, model) = (request.ask().request, request.ask().model);
        let has_shown = request.is_shown() && attempt.has_started();
        let (denial, is_final) = match fault {
            AttemptFault::AnswerTooLarge => (Denial::AnswerTooLarge, true),
            AttemptFault::Busy => {
                // Strangers that refuse prove no want of room: anybody can bring a dozen of them.
                if self.fleet.is_credible(attempt.route().provider) {
                    self.requests.at_mut(key).count_refusal();
                }
                let refusals = self.requests.at(key).capacity_refusals();
                // It waits no more; where another machine is open it is not lost.
                let is_many = refusals >= self.config.limits.capacity_refusals_max;
                let want = self.requests.at(key).want();
                let is_final = is_many && self.fleet.choose(want, &self.config).is_none();
                (self.full(id, model), is_final)
            }
            AttemptFault::Cancelled | AttemptFault::ConsumerStalled => (Denial::Cancelled, true),
            AttemptFault::Client(status) => {
                let is_agreed = super::verdict::is_agreed(request.opinions())
                    || self.mischief == Mischief::BelievesOne;
                (Denial::Client(status), is_agreed)
            }
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
        let request = self.requests.at(key);
        let want = request.want();
        if let Some(choice) = self.fleet.choose(want, &self.config) {
            self.counts.failovers += 1;
            self.dispatch(now, key, choice, out);
            return true;
        }
        let others = match self.fleet.reach(&want) {
            Reach::Possible => self.fleet.capable_beside(&want),
            Reach::Nobody | Reach::NoneLargeEnough | Reach::NoneSuited => 0,
        };
        let has_time = self.queued_until(request) > now;
        if others == 0 || !self.has_place_to_wait(want.model) || !has_time {
            return false;
        }
        self.requeue(key);
        true
    }

    /// Whether the request has time and attempts left.
    pub(super) fn may_go_on(&self, now: Tick, key: Key) -> bool {
        let request = self.requests.at(key);
        let attempts_max = self.config.limits.attempts_max;
        let attempts_max = attempts_max.min(super::requests::TRIED_MAX as u8);
        !self.is_draining && request.attempts() < attempts_max && now < request.deadline()
    }

    /// Ends a request that nobody has seen anything of. What a machine said against the request
    /// itself tells its consumer more than how the last one failed.
    pub(super) fn give_up(&mut self, key: Key, denial: Denial, out: &mut Effects) {
        let opinions = self.requests.at(key).opinions();
        let denial = super::verdict::status(opinions).map_or(denial, Denial::Client);
        self.refuse(key, denial, out);
    }

    /// Ends a request whose content has begun to flow: the consumer pays nothing for half an answer.
    pub(super) fn fail(&mut self, key: Key, denial: Denial, out: &mut Effects) {
        let request = self.requests.at(key).ask().request;
        self.counts.failed += 1;
        self.void_hold(key, out);
        self.forget(key);
        out.push(Effect::Fail { request, denial });
    }

    pub(super) fn on_consumer_left(&mut self, now: Tick, id: RequestId, out: &mut Effects) {
        let Some(key) = self.requests.find(id) else {
            return;
        };
        let request = self.requests.at(key);
        let (phase, racing) = (request.phase(), request.racing());
        match phase {
            Phase::Queued => {
                self.queues.remove(key);
                self.refuse(key, Denial::Cancelled, out);
            }
            Phase::Running => {
                for attempt in racing.iter() {
                    self.send_cancel(attempt, out);
                }
                let winner = self.winner_of(key);
                let is_hollow = |winner: &Key| {
                    let attempt = self.attempts.at(*winner);
                    attempt.silent_for(now) >= SILENCE_FREE
                        && attempt.shown().pieces < PIECES_TO_TRUST
                };
                if let Some(winner) = winner.filter(is_hollow) {
                    let attempt = self.take_attempt(winner, Remains::Lingers);
                    self.fail(key, Denial::Cancelled, out);
                    return self.fill(now, attempt.route().provider, out);
                }
                if let Some(winner) = winner {
                    self.park(now, key, winner);
                    self.counts.failed += 1;
                    out.push(Effect::Fail {
                        request: id,
                        denial: Denial::Cancelled,
                    });
                    return;
                }
                let mut providers = [None; RACERS_MAX];
                for (place, attempt) in providers.iter_mut().zip(racing.iter()) {
                    let attempt = self.take_attempt(attempt, Remains::Lingers);
                    *place = Some(attempt.route().provider);
                }
                self.refuse(key, Denial::Cancelled, out);
                for provider in providers.into_iter().flatten() {
                    self.fill(now, provider, out);
                }
            }
            Phase::Billed | Phase::Parked | Phase::Settling => {}
        }
    }

    /// The attempt whose content is the request's answer.
    pub(super) fn winner_of(&self, key: Key) -> Option<Key> {
        let racing = self.requests.at(key).racing();
        let mut racing = racing.iter();
        racing.find(|attempt| self.attempts.at(*attempt).has_started())
    }

    /// The provider's terminal still comes, with the usage of what was streamed.
    fn park(&mut self, now: Tick, key: Key, attempt: Key) {
        self.requests.at_mut(key).park();
        self.await_sign(attempt, now + PARKED_WAIT, WakeReason::ParkedOverdue);
    }

    /// An attempt was given all the time that it gets.
    pub(super) fn on_overdue(
        &mut self,
        now: Tick,
        key: Key,
        reason: WakeReason,
        out: &mut Effects,
    ) {
        let Some(attempt) = self.attempts.get(key) else {
            return;
        };
        if !attempt.is_overdue(now) {
            let due = attempt.due();
            return self.await_sign(key, due, reason);
        }
        let request = attempt.route().request;
        match self.requests.at(request).phase() {
            Phase::Billed | Phase::Queued | Phase::Settling => {
                unreachable!("no attempt of it is out")
            }
            Phase::Running => {
                if reason == WakeReason::IdleOverdue && self.is_explained(now, key) {
                    return;
                }
                self.send_cancel(key, out);
                let attempt = self.take_attempt(key, Remains::Lingers);
                let provider = attempt.route().provider;
                // Where the request's own deadline came first, the machine is not to blame.
                if attempt.is_due(now) {
                    self.strike(now, provider, Offence::Silence);
                }
                let running = self.requests.at(request);
                if running.is_shown() && attempt.has_started() {
                    self.fail(request, Denial::Timeout, out);
                } else if running.racing().is_empty() {
                    self.again(now, request, Denial::Timeout, out);
                }
                self.fill(now, provider, out);
            }
            Phase::Parked => {
                let attempt = self.take_attempt(key, Remains::Lingers);
                self.settle_relayed(now, &attempt, out);
                self.fill(now, attempt.route().provider, out);
            }
        }
    }

    /// Whether the prompts that its machine reads meanwhile explain the pause of an answer: an engine
    /// that does not read them in pieces writes nothing until it has read them. It gets that time.
    fn is_explained(&mut self, now: Tick, key: Key) -> bool {
        let attempt = self.attempts.at(key);
        let reading = self.fleet.reading_time(attempt.route().provider);
        let due = attempt.pause_until(reading, self.config.limits.idle_wait_max);
        let is_explained = due > now;
        if is_explained {
            self.await_sign(key, due, WakeReason::IdleOverdue);
        }
        is_explained
    }

    /// The attempt, if the event speaks of one that is alive on the connection that it came from.
    pub(super) fn live(&mut self, conn: ConnId, attempt: AttemptKey) -> Option<Key> {
        let conn = if self.mischief == Mischief::ForeignWord {
            self.attempts.conn_of(attempt).unwrap_or(conn)
        } else {
            conn
        };
        let found = self.attempts.live(conn, attempt);
        self.counts.stale_events += u64::from(found.is_none());
        found
    }

    /// Takes an attempt off its request, its provider's list and the ledger.
    pub(super) fn take_attempt(&mut self, key: Key, remains: Remains) -> Attempt {
        let attempt = self.attempts.take(key);
        let route = attempt.route();
        // Whatever it waited for: an attempt has one timer.
        self.timers
            .clear(Due::Attempt(key, WakeReason::IdleOverdue));
        self.requests.unsend(route.request, key);
        if !attempt.has_started() {
            let want = self.requests.at(route.request).want();
            self.fleet.forget_prefix(route.offer, want.prefix);
        }
        self.fleet.release(
            route.offer,
            route.load,
            attempt.is_accepted(),
            attempt.has_started(),
            remains == Remains::Lingers,
        );
        self.fleet.refresh(route.provider, &self.config);
        attempt
    }

    pub(super) fn send_cancel(&self, key: Key, out: &mut Effects) {
        if self.mischief == Mischief::LostCancel {
            return;
        }
        out.push(Effect::CancelAttempt {
            attempt: public(key),
            conn: self.attempts.at(key).route().conn,
        });
    }

    /// The attempt's one timer: when the machine owes what it waits for. Until content has begun the
    /// request's own deadline may come first.
    pub(super) fn await_sign(&mut self, key: Key, due: Tick, reason: WakeReason) {
        let request = self.attempts.at(key).route().request;
        let content_by = self.requests.at(request).deadline();
        let deadline = match reason {
            WakeReason::AcceptOverdue | WakeReason::FirstContentOverdue => due.min(content_by),
            WakeReason::BarLifted
            | WakeReason::ChallengeExpired
            | WakeReason::IdleOverdue
            | WakeReason::LoadOverdue
            | WakeReason::ParkedOverdue
            | WakeReason::ProofExpired
            | WakeReason::QueueOverdue
            | WakeReason::ReportStale
            | WakeReason::SecondDue => due,
        };
        self.attempts.await_sign(key, due, deadline);
        self.timers.set_surely(deadline, Due::Attempt(key, reason));
    }
}
