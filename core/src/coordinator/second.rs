//! A second attempt beside the first: when the first has shown nothing for a stated share of the time
//! that its forecast gives it, and a machine that has nothing to do is there. Whoever shows the first
//! content wins, and the other is told to stop.
//!
//! A second attempt costs its consumer nothing: one hold covers one answer, it is settled once, and who
//! has shown nothing is paid nothing. What it costs the fleet is bounded: there is none while anybody
//! waits for the model, and never more than one for each so many idle machines ([`IDLE_PER_SECOND`]).

use super::Coordinator;
use super::attempt::Remains;
use super::fleet::{Choice, Want};
use super::requests::Phase;
use super::timers::Due;
use crate::effect::Effects;
use crate::slab::Key;
use crate::time::Tick;

/// Machines that must be idle for each second attempt beyond the first.
const IDLE_PER_SECOND: u32 = 4;

impl Coordinator {
    /// Says when a second attempt may begin beside the one that was just sent.
    pub(super) fn time_second(&mut self, key: Key) {
        let limits = &self.config.limits;
        let percent = limits.second_attempt_percent;
        let Some(attempt) = self.requests.at(key).only_attempt() else {
            return;
        };
        if percent == 0 {
            return;
        }
        let attempt = self.attempts.at(attempt);
        let at = attempt.patience_at(percent, limits.accept_wait_per_prompt_token);
        self.timers.set_surely(at, Due::Second(key));
    }

    /// The first attempt has shown nothing for long enough.
    pub(super) fn on_second_due(&mut self, now: Tick, key: Key, out: &mut Effects) {
        if let Some(choice) = self.second_for(now, key) {
            self.counts.seconds += 1;
            self.dispatch(now, key, choice, out);
        }
    }

    fn second_for(&self, now: Tick, key: Key) -> Option<Choice> {
        let request = self.requests.get(key)?;
        let first = self.attempts.at(request.only_attempt()?);
        let is_at_home = self.fleet.serves_only(first.route().provider).is_some();
        let is_silent = request.phase() == Phase::Running && !first.has_started();
        if !is_silent || is_at_home || !self.may_go_on(now, key) {
            return None;
        }
        let want = Want {
            idle_only: true,
            ..request.want()
        };
        let idle = self.fleet.supply(want.model).idle_count();
        let is_allowed = self.requests.racing_count() < (idle / IDLE_PER_SECOND).max(1);
        if self.queues.count(want.model) > 0 || !is_allowed {
            return None;
        }
        self.fleet.choose(want, &self.config)
    }

    /// The winner is known: whoever else works for the request may stop. That it was overtaken tells
    /// how late it is at least.
    pub(super) fn give_up_rivals(&mut self, now: Tick, winner: Key, out: &mut Effects) {
        let request = self.attempts.at(winner).route().request;
        let racing = self.requests.at(request).racing();
        let winner_age = self.attempts.at(winner).age(now);
        for rival in racing.rivals_of(winner) {
            self.send_cancel(rival, out);
            let loser = self.take_attempt(rival, Remains::Lingers);
            let (route, age) = (loser.route(), loser.age(now));
            self.counts.seconds_won += u64::from(age > winner_age);
            if age > route.forecast {
                self.fleet.took(route.provider, route.forecast, age);
                self.fleet.refresh(route.provider, &self.config);
            }
            self.fill(now, route.provider, out);
        }
    }
}
