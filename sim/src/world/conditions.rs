//! What becomes of machines while they are here: heat, wear, and what they do with a job because of
//! it.

use cereus_core::time::Tick;

use super::defects::{Defect, Defects};
use super::{Happening, WARM_UP, World};
use crate::workload::{Arrival, WorkloadError};

impl<I: Iterator<Item = Result<Arrival, WorkloadError>>> World<I> {
    pub(super) fn plan_defects(&mut self) {
        let assigned = Defects::assigned(&self.config.defects, self.config.machines_in_all());
        for (machine, defect) in (0u32..).zip(assigned) {
            match defect {
                Some(Defect::Degrades { percent, after }) => {
                    let at = Tick::ZERO + WARM_UP + after;
                    self.queue
                        .push(at, Happening::Degrades { machine, percent });
                }
                Some(Defect::Boasts { .. } | Defect::Refuses) | None => {}
            }
        }
    }

    pub(super) fn degrade(&mut self, now: Tick, machine: u32, percent: u32) {
        self.fleet.degrade(now, machine, percent);
        self.schedule_dues();
    }

    /// Between one heartbeat and the next.
    pub(super) fn warm(&mut self, now: Tick, machine: u32) {
        let thermal = self.fleet.pass(now, machine, self.config.heartbeat_every);
        self.schedule_dues();
        self.living.feels(thermal);
    }

    /// A job came to a machine. `true`: it refuses, whatever it is.
    pub(super) fn refuses_all(&mut self, machine: u32) -> bool {
        let Some(defect) = self.fleet.defect(machine) else {
            return self.fleet.is_draining(machine);
        };
        self.living.is_defective(defect);
        defect == Defect::Refuses || self.fleet.is_draining(machine)
    }
}
