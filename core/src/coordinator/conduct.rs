//! What a machine did wrong is remembered against it, whatever its connection (INV-13).
//!
//! Faults of use (it broke, it left) add up, and three in a row bar the machine: it is used
//! only when nothing else is free. What no honest machine does bars at once, and so does what only
//! half of a machine's consumers together can show. Bars grow with each
//! further fault and end by time; a few good answers in a row take one fault away.

use serde::{Deserialize, Serialize};

use super::fleet::FAULTS_TO_BAR;
use super::timers::{Armed, Due};
use super::{Coordinator, Mischief};
use crate::effect::Effects;
use crate::ids::MachineId;
use crate::slab::Key;
use crate::time::Tick;

/// What a machine did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Offence {
    /// It broke the contract of sealing.
    BrokenSeal,
    /// It failed, or its connection carried what is no answer.
    Broke,
    /// Its connection ended with work on it.
    Deserted,
    /// To half of its consumers it answered with nothing what another machine answered.
    EmptyAnswer,
    /// It claimed more than is true of any text.
    GrossOverClaim,
    /// To half of its consumers it called a request wrong that another machine served.
    LoneRefusal,
    /// It claimed more than the band allows, and to half of its consumers.
    OverClaim,
    /// It went on beyond the bound that it was given.
    Overrun,
    /// Again and again it had no room, or not the model, whatever it reports and lists.
    Refusals,
    /// It took work and said nothing for longer than its own figures explain, or went silent.
    Silence,
}

impl Offence {
    /// Faults that a machine has at least, once it did this.
    const fn faults_min(self) -> u8 {
        match self {
            Self::Broke | Self::Deserted => 1,
            Self::BrokenSeal
            | Self::EmptyAnswer
            | Self::GrossOverClaim
            | Self::LoneRefusal
            | Self::OverClaim
            | Self::Overrun
            | Self::Refusals
            | Self::Silence => FAULTS_TO_BAR,
        }
    }
}

impl Coordinator {
    pub(super) fn strike(&mut self, now: Tick, slot: u32, offence: Offence) {
        let machine = self.fleet.id(slot).machine;
        self.strike_machine(now, machine, offence);
    }

    /// The machine may be gone by now: it will come back.
    pub(super) fn strike_machine(&mut self, now: Tick, machine: MachineId, offence: Offence) {
        if self.mischief == Mischief::Forgives(offence) {
            return;
        }
        self.fleet.blame(now, machine, offence.faults_min());
        for at in 0..self.fleet.connections(machine).len() {
            let slot = self.fleet.connections(machine)[at];
            self.time_bar(slot);
            self.fleet.refresh(slot, &self.config);
        }
    }

    /// It completed what it was asked.
    pub(super) fn absolve(&mut self, slot: u32) {
        let is_better = self.fleet.absolve(slot);
        if self.fleet.goes_on(slot) || is_better {
            self.fleet.refresh(slot, &self.config);
        }
    }

    /// Bars are timed while their machine is here; one that comes back is looked at when it joins.
    pub(super) fn time_bar(&mut self, slot: u32) {
        let due = Due::Bar(self.fleet.key(slot));
        match self.fleet.barred_until(slot) {
            Some(until) => match self.timers.set(until, due) {
                // Without a timer the bar ends with the first report after its time.
                Armed::Yes | Armed::NoRoom => {}
            },
            None => self.timers.clear(due),
        }
    }

    pub(super) fn on_bar_lifted(&mut self, now: Tick, key: Key, out: &mut Effects) {
        if !self.fleet.is_here(key) {
            return;
        }
        let slot = key.slot;
        self.fleet.serve_bar(now, slot);
        self.time_bar(slot);
        self.fleet.refresh(slot, &self.config);
        self.fill(now, slot, out);
    }
}
