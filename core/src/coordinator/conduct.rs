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
    /// It answered with nothing what another machine answered with something.
    EmptyAnswer,
    /// It claimed many times what it showed.
    GrossOverClaim,
    /// It called a request wrong that another machine served.
    LoneRefusal,
    /// It claimed more than the band allows.
    OverClaim,
    /// It went on beyond the bound that it was given.
    Overrun,
    /// It took work and said nothing for longer than its own figures explain, or went silent.
    Silence,
}

impl Offence {
    /// Faults that a machine has at least, once it did this.
    const fn faults_min(self) -> u8 {
        match self {
            Self::Broke | Self::OverClaim => 1,
            Self::EmptyAnswer
            | Self::GrossOverClaim
            | Self::LoneRefusal
            | Self::Overrun
            | Self::Silence => FAULTS_TO_BAR,
        }
    }
}

impl Coordinator {
    pub(super) fn strike(&mut self, now: Tick, slot: u32, offence: Offence) {
        let machine = self.fleet.providers.at(slot).machine;
        self.strike_machine(now, machine, offence);
    }

    /// The machine may be gone by now: it will come back.
    pub(super) fn strike_machine(&mut self, now: Tick, machine: MachineId, offence: Offence) {
        let Some(record) = self.fleet.record(machine) else {
            return;
        };
        record.faults = record.faults.saturating_add(1).max(offence.faults_min());
        let (faults, live) = (record.faults, record.live);
        let is_barred = faults >= FAULTS_TO_BAR;
        if is_barred {
            let doublings = u32::from(faults - FAULTS_TO_BAR).min(5);
            let bar = Span((BAR.0 << doublings).min(BAR_MAX.0));
            let is_armed = record.barred_until > now;
            record.barred_until = now + bar;
            if !is_armed {
                // A full wheel only means that the bar stays until the machine's next success.
                let _ = self.wheel.arm(now + bar, Due::Machine(machine));
            }
        }
        if live != NIL {
            let provider = self.fleet.providers.at_mut(live);
            provider.has_faults = true;
            provider.is_barred |= is_barred;
            self.fleet.refresh(live, &self.config);
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
