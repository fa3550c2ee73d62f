//! When more is asked than the fleet can do. A burst may wait: it passes. Where every machine has had work
//! waiting for a while, waiting longer serves nobody: each answer would come late, and who is served would
//! be who has waited longest in vain. Then a request is let in only if its own wait would be short, and is
//! told otherwise at once when to come back.

use serde::{Deserialize, Serialize};

use super::Coordinator;
use super::fleet::Want;
use crate::config::Limits;
use crate::denial::Denial;
use crate::ids::ModelIx;
use crate::time::{Span, Tick};

/// Who has little under way may find so many times the wait of the others, so that a flood of one account
/// does not shut the rest out.
const LIGHT_FACTOR: u64 = 3;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Overload {
    /// By model: since when no request has found a short wait.
    since: Vec<Option<Tick>>,
}

impl Overload {
    pub(super) fn new(models: usize) -> Self {
        Self {
            since: vec![None; models],
        }
    }

    /// Models were listed: so many places there are.
    pub(super) fn grow(&mut self, models: usize) {
        self.since.resize(models, None);
    }

    /// A request found this wait. Whether waits have been long for too long.
    fn stands(&mut self, now: Tick, model: ModelIx, wait: Span, limits: &Limits) -> bool {
        let since = &mut self.since[usize::from(model.0)];
        if wait <= limits.overload_wait_max {
            *since = None;
            return false;
        }
        let since = *since.get_or_insert(now);
        now.since(since) >= limits.overload_after
    }
}

impl Coordinator {
    /// Turns away what would only wait, where waits have been long for a while. `chosen` is the offer
    /// that it would be sent to.
    ///
    /// # Errors
    /// It would wait for too long.
    pub(super) fn bear(
        &mut self,
        now: Tick,
        want: &Want<'_>,
        chosen: Option<u32>,
    ) -> Result<(), Denial> {
        let limits = &self.config.limits;
        let wait = match chosen {
            Some(offer) => self.fleet.wait_of(offer, limits),
            None => self.wait_in_queue(want.model),
        };
        let Some(wait) = wait else { return Ok(()) };
        if !self.overload.stands(now, want.model, wait, limits) {
            return Ok(());
        }
        let factor = match self.books.is_light(want.account) {
            true => LIGHT_FACTOR,
            false => 1,
        };
        let wait_max = Span(limits.overload_wait_max.0 * factor);
        if wait <= wait_max {
            return Ok(());
        }
        Err(self.busy_for(want.request, wait))
    }

    /// `None`: no answer has ended while somebody waited, so nobody knows.
    fn wait_in_queue(&self, model: ModelIx) -> Option<Span> {
        let interval_ms = self.queues.interval_ms(model)?;
        let depth = u64::from(self.queues.count(model)) + 1;
        Some(Span::millis(depth * u64::from(interval_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_a_standing_wait_is_overload() {
        let mut overload = Overload::new(1);
        let limits = Limits::reference();
        let model = ModelIx(0);
        let long = limits.overload_wait_max + Span::millis(1);
        let at = |ms| Tick(0) + Span::millis(ms);
        assert!(!overload.stands(at(0), model, long, &limits));
        let after_ms = limits.overload_after.as_millis_floor();
        assert!(!overload.stands(at(after_ms - 1), model, long, &limits));
        assert!(overload.stands(at(after_ms), model, long, &limits));
        let short = limits.overload_wait_max;
        assert!(!overload.stands(at(after_ms + 1), model, short, &limits));
        assert!(!overload.stands(at(after_ms + 2), model, long, &limits));
    }
}
