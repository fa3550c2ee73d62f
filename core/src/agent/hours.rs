//! What an agent does when its owner's hours begin and end.

use super::duty::{CHECK_EVERY, IsOn};
use super::machine::Agent;
use super::session::Session;
use super::{AgentEffect, AgentOut, Notice};
use crate::schedule::LocalTime;
use crate::time::Tick;

impl Agent {
    pub(super) fn is_off_duty(&self) -> bool {
        self.duty
            .as_ref()
            .is_some_and(|duty| duty.is_on == IsOn::No)
    }

    /// The owner wants the machine back by then.
    pub(super) fn rest_at(&self) -> Option<Tick> {
        self.duty.as_ref()?.rest_at
    }

    /// Nobody is dialled before the next window.
    pub(super) fn rest(&mut self, out: &mut AgentOut) {
        self.session = Session::Resting;
        out.push(AgentEffect::Rest);
    }

    pub(super) fn on_clock_due(&mut self, now: Tick, out: &mut AgentOut) {
        if let Some(duty) = &mut self.duty
            && duty.check_at <= now
        {
            duty.check_at = now + CHECK_EVERY;
            out.push(AgentEffect::ReadLocalTime);
        }
    }

    pub(super) fn on_local_time(&mut self, now: Tick, local: LocalTime, out: &mut AgentOut) {
        let Some(duty) = &mut self.duty else {
            self.counts.stale_events += 1;
            return;
        };
        match (duty.look(now, local), duty.is_on) {
            (true, IsOn::Yes) | (false, IsOn::No) => {}
            (true, IsOn::No | IsOn::Unknown) => {
                duty.is_on = IsOn::Yes;
                // Only a resting provider rises at once. One that is still leaving its socket for
                // the end of the last window finishes that first; its models stay loaded.
                if self.session == Session::Resting {
                    self.session = Session::Waiting { dial_at: now };
                    out.push(AgentEffect::Rise);
                }
            }
            (false, IsOn::Unknown) => {
                duty.is_on = IsOn::No;
                out.push(AgentEffect::Rest);
            }
            (false, IsOn::Yes) => {
                duty.is_on = IsOn::No;
                out.push(AgentEffect::Notice(Notice::HoursEnded));
                self.leave(now, out);
            }
        }
    }

    /// The hours are over: takes nothing more, finishes what runs, and goes.
    fn leave(&mut self, now: Tick, out: &mut AgentOut) {
        match self.session {
            Session::Dialling { id, .. } => {
                out.push(AgentEffect::Abandon { session: id });
                self.rest(out);
            }
            Session::Open(_) => {
                if let Some(duty) = &mut self.duty {
                    duty.rest_at = Some(now + self.config.drain_wait_max);
                }
                // Tells the coordinator at once that nothing more fits.
                out.push(AgentEffect::Measure);
                self.go_when_free(now, out);
            }
            Session::Resting | Session::Stopped => {}
            Session::Waiting { .. } => self.rest(out),
        }
    }
}
