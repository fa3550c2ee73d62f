//! What a machine did wrong is remembered against it, whatever its connection (INV-13).
//!
//! Faults of use (it broke, it miscounted) add up, and three in a row bar the machine: it is used
//! only when nothing else is free. What no honest machine does bars at once. Bars grow with each
//! further fault and end by time; each good answer takes one fault away.

use super::fleet::NIL;
use super::{Coordinator, Due};
use crate::effect::Effects;
use crate::ids::MachineId;
use crate::time::{Span, Tick};

/// Faults in a row after which a machine is barred.
const FAULTS_TO_BAR: u8 = 3;
const BAR: Span = Span::secs(30);
const BAR_MAX: Span = Span::secs(600);

/// What a machine did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offence {
    /// It failed, or its connection carried what is no answer.
    Broke,
    /// It claimed many times what it showed.
    GrossOverClaim,
    /// It claimed more than the band allows.
    OverClaim,
    /// It went on beyond the bound that it was given.
    Overrun,
}

impl Offence {
    /// Faults that a machine has at least, once it did this.
    const fn faults_min(self) -> u8 {
        match self {
            Self::Broke | Self::OverClaim => 1,
            Self::GrossOverClaim | Self::Overrun => FAULTS_TO_BAR,
        }
    }
}

impl Coordinator {
    pub(super) fn strike(&mut self, now: Tick, slot: u32, offence: Offence) {
        let machine = self.fleet.providers.at(slot).machine;
        let record = self
            .fleet
            .machines
            .get_mut(&machine)
            .expect("a live machine has a record");
        record.faults = record.faults.saturating_add(1).max(offence.faults_min());
        self.fleet.providers.at_mut(slot).has_faults = true;
        if record.faults < FAULTS_TO_BAR {
            return;
        }
        let doublings = u32::from(record.faults - FAULTS_TO_BAR).min(5);
        let bar = Span((BAR.0 << doublings).min(BAR_MAX.0));
        let is_armed = record.barred_until > now;
        record.barred_until = now + bar;
        self.fleet.providers.at_mut(slot).is_barred = true;
        self.fleet.refresh(slot, &self.config);
        if !is_armed {
            // A full wheel only means that the bar stays until the machine's next success.
            let _ = self.wheel.arm(now + bar, Due::Machine(machine));
        }
    }

    pub(super) fn on_bar_lifted(&mut self, now: Tick, machine: MachineId, out: &mut Effects) {
        let Some(record) = self.fleet.machines.get_mut(&machine) else {
            return;
        };
        if record.barred_until > now {
            let _ = self.wheel.arm(record.barred_until, Due::Machine(machine));
            return;
        }
        record.barred_until = Tick::ZERO;
        let live = record.live;
        if live != NIL {
            self.fleet.providers.at_mut(live).is_barred = false;
            self.fleet.refresh(live, &self.config);
            self.fill(now, live, out);
        }
    }
}
