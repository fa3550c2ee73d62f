//! A second coordinator that never hears what must change nothing: stale reports, voices of the
//! dead, repeated arrivals. It has to do the same as the first, or one of these took effect.

use cereus_core::coordinator::Coordinator;
use cereus_core::effect::{Effect, Effects};
use cereus_core::event::Event;
use cereus_core::time::Tick;

use super::{Violation, require};

/// See the module.
#[derive(Clone, Debug)]
pub struct Shadow {
    core: Coordinator,
    out: Effects,
}

impl Shadow {
    #[must_use]
    pub fn new(core: Coordinator) -> Self {
        Self {
            core,
            out: Effects::default(),
        }
    }

    /// INV-10, INV-16, INV-23: what has no force has no effect, now or later.
    pub(super) fn step(
        &mut self,
        now: Tick,
        event: &Event<'_>,
        has_force: bool,
        real: &Effects,
    ) -> Result<(), Violation> {
        self.out.clear();
        if has_force {
            // A misuse would have been one for the real core too, and the world stops on those.
            let _ = self.core.step(now, event, &mut self.out);
        }
        let mut real_list = real.list.iter().filter(|effect| !is_alarm(effect));
        let mut own_list = self.out.list.iter().filter(|effect| !is_alarm(effect));
        let is_same = real_list.by_ref().eq(own_list.by_ref())
            && real.transfers == self.out.transfers
            && real.receipts == self.out.receipts;
        require(is_same, "INV-10", || {
            format!(
                "stale news took effect: {:?} instead of {:?} after {event:?}",
                real.list, self.out.list
            )
        })
    }
}

/// Alarms count what was ignored.
const fn is_alarm(effect: &Effect) -> bool {
    matches!(effect, Effect::Alarm { .. })
}
