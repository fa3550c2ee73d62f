//! What the coordinator saw of machines: each sight goes into the machine's record, and from there to its
//! connections, which the gates and costs read.

use super::standing::{self, Refusing};
use super::{Fleet, TOKENS_MEASURED};
use crate::ids::{AccountId, MachineId};
use crate::time::{Span, Tick};

impl Fleet {
    /// An answer took `actual` where what the machine says of its speed lets expect `expected`.
    pub(crate) fn took(&mut self, slot: u32, expected: Span, actual: Span) {
        let record = self.providers.at(slot).record;
        self.memory.at_mut(record).standing.took(expected, actual);
        self.recall(record);
    }

    /// First content of an answer came.
    pub(crate) fn begins(&mut self, slot: u32) {
        let record = self.providers.at(slot).record;
        self.memory.at_mut(record).standing.begins();
    }

    /// A machine had no room, or not the model, for what was sent at `sent_at`.
    pub(crate) fn refuses(&mut self, now: Tick, slot: u32, sent_at: Tick) -> Refusing {
        let record = self.providers.at(slot).record;
        self.memory.at_mut(record).standing.refuses(now, sent_at)
    }

    /// A machine spoke against a request.
    pub(crate) fn speaks_against(&mut self, slot: u32) {
        let record = self.providers.at(slot).record;
        self.memory.at_mut(record).standing.speaks_against();
        self.recall(record);
    }

    /// Whether its machine's word against a request counts: it has no fault on record, and has served
    /// a request since it last spoke against one.
    pub(crate) fn is_credible(&self, slot: u32) -> bool {
        self.providers.at(slot).is_credible
    }

    /// It completed work: that helps to make a fault good, and a bar ends.
    /// `true`: that changed what is thought of it.
    pub(crate) fn absolve(&mut self, slot: u32) -> bool {
        let provider = self.providers.at(slot);
        let (had_faults, record) = (provider.has_faults, provider.record);
        let was_lossy = provider.is_lossy;
        if had_faults || was_lossy || !provider.is_credible {
            let record = self.memory.at_mut(record);
            record.standing.success();
            record.losses.answered();
        } else {
            return false;
        }
        self.recall(record);
        had_faults || was_lossy
    }

    /// The connection of a machine is lost, with what it was working on. `true`: that happens to it too
    /// often.
    pub(crate) fn loses(&mut self, now: Tick, slot: u32) -> bool {
        let provider = self.providers.at(slot);
        let (record, rows) = (provider.record, provider.pending);
        let is_lossy = self.memory.at_mut(record).losses.lost(now, rows);
        self.recall(record);
        is_lossy
    }

    /// Whether its machine was lost at work again and again.
    pub(crate) fn is_lossy(&self, slot: u32) -> bool {
        self.providers.at(slot).is_lossy
    }

    /// How a machine's answer to that consumer was. `true` if it is odd, as those to half of its
    /// consumers are; or if the machine has faults enough that nobody need doubt whose it is.
    pub(crate) fn answers(
        &mut self,
        now: Tick,
        machine: MachineId,
        consumer: AccountId,
        is_odd: bool,
    ) -> bool {
        let record = self.memory.of(now, machine);
        let record = self.memory.at_mut(record);
        let is_habit = record.habits.push(consumer, is_odd);
        is_habit || (is_odd && record.standing.is_notorious())
    }

    /// A machine failed through a fault of its own, which brings it at least to so many.
    pub(crate) fn blame(&mut self, now: Tick, machine: MachineId, faults_min: u8) {
        let record = self.memory.of(now, machine);
        self.memory.at_mut(record).standing.fault(now, faults_min);
        self.recall(record);
    }

    /// When the bar of a provider's machine ends, if there is one.
    pub(crate) fn barred_until(&self, slot: u32) -> Option<Tick> {
        let record = self.providers.at(slot).record;
        self.memory.at(record).standing.barred_until()
    }

    /// Ends a bar whose time is up.
    pub(crate) fn serve_bar(&mut self, now: Tick, slot: u32) {
        let provider = self.providers.at(slot);
        if !provider.is_barred {
            return;
        }
        let record = provider.record;
        self.memory.at_mut(record).standing.serve(now);
        self.recall(record);
    }

    /// Copies what a record says of a machine to its connections.
    pub(super) fn recall(&mut self, record: u32) {
        let standing = self.memory.at(record).standing;
        let is_lossy = self.memory.at(record).losses.is_lossy();
        for at in 0..self.memory.at(record).here.len() {
            let slot = self.memory.at(record).here[at];
            let provider = self.providers.at_mut(slot);
            provider.is_barred = standing.barred_until().is_some();
            provider.is_on_probation = standing.is_on_probation();
            provider.is_lossy = is_lossy;
            provider.late_us = standing.late_us();
            provider.slow_milli = standing.slow_milli();
            provider.has_faults = standing.has_faults();
            provider.is_credible = standing.is_credible();
            self.list_strangers(slot);
        }
    }

    /// An answer of so many tokens was streamed since then.
    pub(crate) fn streamed_since(
        &mut self,
        now: Tick,
        slot: u32,
        ix: u32,
        tokens: u32,
        since: Tick,
    ) {
        let took = now.since(since);
        let provider = self.providers.at(slot);
        // The whole machine, whatever the model: another one that works takes its share.
        let has_others = |ix: &u32| self.offers.at(*ix).others() > 0;
        let is_alone = provider.pending == 0
            && provider.crowded_at < since
            && !provider.offers.iter().any(has_others);
        let offer = self.offers.at_mut(ix);
        if tokens >= TOKENS_MEASURED && is_alone {
            let step_us = took.0 / u64::from(tokens - 1);
            let step_us = u32::try_from(step_us).unwrap_or(u32::MAX).max(1);
            let old_us = if offer.lone_step_us == 0 {
                step_us
            } else {
                offer.lone_step_us
            };
            offer.lone_step_us = old_us - old_us / 4 + step_us / 4;
        }
        self.streamed(slot, ix, tokens, took);
    }

    /// An answer of so many tokens was streamed in this time.
    fn streamed(&mut self, slot: u32, ix: u32, tokens: u32, actual: Span) {
        let expected = self.answer_time(ix, tokens);
        let record = self.providers.at(slot).record;
        self.memory
            .at_mut(record)
            .standing
            .streamed(expected, actual);
        self.recall(record);
    }

    /// So many tokens were streamed so far. `true`: that is late beyond doubt, and it was noted.
    pub(crate) fn lags(&mut self, slot: u32, ix: u32, tokens: u32, so_far: Span) -> bool {
        let expected = self.answer_time(ix, tokens);
        let is_late = standing::is_late(expected, so_far);
        if is_late {
            self.streamed(slot, ix, tokens, so_far);
        }
        is_late
    }
}
