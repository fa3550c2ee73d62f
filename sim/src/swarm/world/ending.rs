//! How a swarm world heals, is probed and ends.

use cereus_core::coordinator::Coordinator;
use cereus_core::digest::Mix;
use cereus_core::time::{Span, Tick};

use super::super::people::{Fidelity, Outcome, Person};
use super::super::plan::{Lie, PROBE_TOKENS, PlannedAsk};
use super::{Happening, PROBER, World};
use crate::oracle::{ANSWERED_FOR, Violation, require};

impl World {
    /// Faults are over; liars come back as honest processes.
    pub(super) fn heal(&mut self, now: Tick) -> Result<(), Violation> {
        self.net.heal();
        self.turns.heal();
        self.disk.heal();
        for machine in 0..u32::try_from(self.posts.len()).expect("few machines") {
            if self.posts[machine as usize].provider.lie != Lie::None {
                self.posts[machine as usize].provider.lie = Lie::None;
                self.crash(now, machine, Span::millis(10), Span::millis(10));
            }
        }
        self.require_restorable()
    }

    /// INV-15: whoever asks after the storm is served.
    pub(super) fn probe(&mut self, now: Tick) -> Result<(), Violation> {
        self.require_everybody()?;
        self.is_probed = true;
        for model in 0..self.plan.models {
            let number = u32::try_from(self.people.len()).expect("few people");
            let ask = PlannedAsk {
                at: now,
                account: PROBER,
                model,
                prompt_chars: 10,
                output_tokens_max: 20,
                output_tokens_true: PROBE_TOKENS,
                leaves_after: None,
                repeats_after: None,
                reads_after: Span::ZERO,
                is_streamed: true,
            };
            self.people.push(Person::new(number, ask, Fidelity::Exact));
            let at = now + Span::secs(u64::from(model));
            self.queue.push(at, Happening::Asked { number });
        }
        Ok(())
    }

    /// INV-32: long after the storm every machine is back, as far as there are places, and each is open
    /// but for what it answers for.
    fn require_everybody(&self) -> Result<(), Violation> {
        let Some(coordinator) = &self.coordinator else {
            return Ok(());
        };
        let roster = coordinator.core().roster();
        let machines = self.plan.machines.iter();
        let coming = machines.filter(|machine| machine.joins_at != Tick::NEVER);
        let places = usize::try_from(self.plan.limits.providers_max).expect("few places");
        let expected = coming.count().min(places);
        require(roster.len() == expected, "INV-32", || {
            format!(
                "{} of {expected} machines are back: {roster:?}",
                roster.len()
            )
        })?;
        let closed = roster.iter().find(|present| {
            let mut reasons = present.offers.iter().flat_map(|offered| &offered.closed);
            present.pending == 0 && reasons.any(|reason| !ANSWERED_FOR.contains(reason))
        });
        require(closed.is_none(), "INV-32", || {
            format!("long after all has healed {closed:?}")
        })
    }

    pub(super) fn is_over(&self) -> bool {
        let Some(coordinator) = &self.coordinator else {
            return false;
        };
        self.people.iter().all(Person::is_done)
            && coordinator.core().gauges().requests == 0
            && coordinator.is_quiet()
            && self.disk.is_quiet()
            && self.posts.iter().all(|post| post.provider.is_idle())
    }

    pub(super) fn conclude(&mut self) -> Result<(), Violation> {
        self.require_restorable()?;
        let coordinator = self
            .coordinator
            .as_mut()
            .expect("the coordinator is up at the end");
        coordinator
            .watch
            .quiescent(coordinator.core(), &self.money)?;
        coordinator.core().invariant_quiescent();
        self.money.require_balances(coordinator.core())?;
        if let Some(recording) = coordinator.take_recording() {
            recording.close(coordinator.core())?;
        }
        coordinator.require_trails()?;
        for person in &self.people[self.plan.asks.len()..] {
            require(person.ended == Some(Outcome::Answered), "INV-15", || {
                format!(
                    "after healing {} is {:?}, {:?}",
                    person.request, person.ended, person.denial
                )
            })?;
        }
        self.digest.wide(coordinator.core().running_digest());
        self.tally.marks.add(coordinator.marks());
        self.tally.simulated_us = self.queue.now().0;
        self.tally.stale_events += coordinator.watch.fleet.stale;
        self.tally.loads += coordinator.core().counts().loads_ordered;
        for outcome in self.people.iter().filter_map(|person| person.ended) {
            let count = match outcome {
                Outcome::Answered => &mut self.tally.answered,
                Outcome::Broken => &mut self.tally.broken,
                Outcome::Left => &mut self.tally.left,
                Outcome::Refused => &mut self.tally.refused,
                Outcome::Reset => &mut self.tally.reset,
            };
            *count += 1;
        }
        self.tally.digest = self.digest.wide(Mix::of(&self.tally)).end_wide();
        Ok(())
    }

    /// INV-17: a snapshot comes back as the same state.
    pub(super) fn require_restorable(&self) -> Result<(), Violation> {
        let Some(coordinator) = &self.coordinator else {
            return Ok(());
        };
        let restored = Coordinator::restore(&coordinator.core().snapshot());
        let restored = restored.map(|core| core.digest());
        require(
            restored == Ok(coordinator.core().digest()),
            "INV-17",
            || format!("the snapshot restores to {restored:?}"),
        )
    }

    pub(super) fn stuck(&self) -> String {
        let waiting = self.people.iter().filter(|person| person.is_waiting());
        let waiting: Vec<String> = waiting.map(|person| person.request.to_string()).collect();
        let busy = self.posts.iter().filter(|post| !post.provider.is_idle());
        let gauges = self
            .coordinator
            .as_ref()
            .map(|coordinator| coordinator.core().gauges());
        format!(
            "nothing ends: waiting {waiting:?}, {} machines busy, {gauges:?}, store quiet {}",
            busy.count(),
            self.disk.is_quiet()
        )
    }
}
