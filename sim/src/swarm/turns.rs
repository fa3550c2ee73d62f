//! When the tasks of the coordinator's process get their turns: in any order, late, and now and then
//! not for a while.

use cereus_core::time::{Span, Tick};

use super::plan::{Plan, TaskPlan};
use crate::stream::{Ratio, Stream};

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    plan: TaskPlan,
    stream: Stream,
    order: Stream,
}

impl Turns {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.tasks,
            stream: Stream::new(plan.seed, "turns"),
            order: Stream::new(plan.seed, "what a task takes first"),
        }
    }

    /// When a task that something waits for runs, and its rank among those of the same tick.
    pub(super) fn draw(&mut self, now: Tick) -> (Tick, u32) {
        let is_stalled = self.stream.chance(self.plan.stalls);
        let most = if is_stalled {
            self.plan.stall_max
        } else {
            self.plan.lag_max
        };
        let lag = Span(self.stream.below(most.0 + 1));
        let rank = self.stream.below(1 << 32);
        (now + lag, u32::try_from(rank).expect("drawn below 2^32"))
    }

    /// Draws which of several things a task takes first.
    pub(super) const fn order(&mut self) -> &mut Stream {
        &mut self.order
    }

    /// Faults are over: whoever may run does, in any order still.
    pub(super) fn heal(&mut self) {
        self.plan.lag_max = Span::ZERO;
        self.plan.stalls = Ratio::NEVER;
    }
}
