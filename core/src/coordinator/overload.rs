//! When more is asked than the fleet can do. A burst may wait: it passes. Where every machine has had work
//! waiting for a while, waiting longer serves nobody: each answer would come late, and who is served would
//! be who has waited longest in vain. Then a request is let in only if its own wait would be short, and is
//! told otherwise at once when to come back.

use serde::{Deserialize, Serialize};

use super::Coordinator;
use super::fleet::Want;
use crate::config::Limits;
use crate::denial::Denial;
use crate::event::Machines;
use crate::ids::ModelIx;
use crate::time::{Span, Tick};

/// Who has little under way may find so many times the wait of the others, so that a flood of one account
/// does not shut the rest out.
const LIGHT_FACTOR: u64 = 3;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Overload {
    models: Vec<State>,
}

/// Of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct State {
    is_overloaded: bool,
    /// By how much waits have been long for more time than they were short, at most the limit.
    long_for: Span,
    asked_at: Tick,
}

/// One request stands for no more time than this.
const ASK_MAX: Span = Span::secs(1);

impl Overload {
    pub(super) fn new(models: usize) -> Self {
        Self {
            models: vec![State::default(); models],
        }
    }

    /// Models were listed: so many places there are.
    pub(super) fn grow(&mut self, models: usize) {
        self.models.resize(models, State::default());
    }

    /// A request found this wait. Whether waits are long, from when they have been long for long enough
    /// until they have been short for as long: a few small requests find room at any time.
    fn stands(&mut self, now: Tick, model: ModelIx, wait: Span, limits: &Limits) -> bool {
        let state = &mut self.models[usize::from(model.0)];
        let passed = now.since(state.asked_at).min(ASK_MAX).0;
        state.asked_at = now;
        let long_for = match wait > limits.overload_wait_max {
            true => state.long_for.0.saturating_add(passed),
            false => state.long_for.0.saturating_sub(passed),
        };
        state.long_for = Span(long_for).min(limits.overload_after);
        if state.long_for == limits.overload_after {
            state.is_overloaded = true;
        } else if state.long_for == Span::ZERO {
            state.is_overloaded = false;
        }
        state.is_overloaded
    }
}

impl Coordinator {
    /// Turns away what would only wait, where waits have been long for a while. `chosen` is the offer
    /// that it would be sent to. What is for the asker's own machines is no load of the others and finds
    /// none of it: it is let in, and says nothing of how long waits are.
    ///
    /// # Errors
    /// It would wait for too long.
    pub(super) fn bear(
        &mut self,
        now: Tick,
        want: &Want<'_>,
        chosen: Option<u32>,
    ) -> Result<(), Denial> {
        let is_at_home = match chosen {
            Some(offer) => self.fleet.is_for_one(offer),
            None => want.machines == Machines::Own,
        };
        if is_at_home {
            return Ok(());
        }
        let limits = &self.config.limits;
        let wait = match chosen {
            Some(offer) => self.fleet.wait_of(offer, limits),
            None => self.wait_in_queue(want.model),
        };
        let wait = wait.unwrap_or(Span::ZERO);
        if !self.overload.stands(now, want.model, wait, limits) {
            return Ok(());
        }
        let factor = match self.books.is_light(want.account) {
            true => LIGHT_FACTOR,
            false => 1,
        };
        let wait_max = Span(limits.overload_wait_max.0.saturating_mul(factor));
        if wait <= wait_max {
            return Ok(());
        }
        Err(self.busy_for(want.request, wait))
    }

    /// `None`: no answer has ended while somebody waited, so nobody knows.
    fn wait_in_queue(&self, model: ModelIx) -> Option<Span> {
        let interval_us = self.queues.interval_us(model)?;
        let depth = u64::from(self.queues.count(model)) + 1;
        Some(Span(depth * u64::from(interval_us)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether waits count as long after each of these seconds, in which one request in ten finds a short
    /// wait, or all do.
    fn after(seconds: &[bool]) -> Vec<bool> {
        let mut overload = Overload::new(1);
        let limits = Limits::reference();
        let mut now = Tick(0);
        let mut stands = |is_long: bool, nth: u64| {
            now = now + Span::millis(100);
            let wait = match is_long && nth > 0 {
                true => limits.overload_wait_max + Span::millis(1),
                false => limits.overload_wait_max,
            };
            overload.stands(now, ModelIx(0), wait, &limits)
        };
        let second = |&is_long: &bool| (0..10).map(|nth| stands(is_long, nth)).last();
        seconds.iter().filter_map(second).collect()
    }

    #[test]
    fn a_burst_passes_and_waits_that_stay_long_are_overload_until_they_stay_short() {
        let burst = [[true; 8].as_slice(), &[false; 8]].concat();
        assert!(after(&burst).iter().all(|stands| !stands));
        let flood = [[true; 20].as_slice(), &[false; 4], &[true; 4], &[false; 20]].concat();
        let stands = after(&flood);
        assert_eq!(stands.iter().position(|stands| *stands), Some(12));
        assert!(stands[12..28].iter().all(|stands| *stands), "as it was");
        assert!(!stands[47]);
    }
}
