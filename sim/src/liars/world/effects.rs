//! What the coordinator decided, and what the oracles say to it.

use cereus_core::effect::{Effect, Effects};
use cereus_core::ids::RequestId;
use cereus_core::time::{Span, Tick};

use super::super::machine::Machine;
use super::{Asked, Checked, DISK, What, World, number_of};
use crate::oracle::require;

impl World<'_> {
    pub(super) fn carry_out(&mut self, effect: Effect, effects: &Effects) -> Checked {
        match effect {
            Effect::Alarm { .. }
            | Effect::Drained
            | Effect::LoadModel { .. }
            | Effect::Release { .. }
            | Effect::TellContested { .. }
            | Effect::TellLossy { .. } => Ok(()),
            Effect::CancelAttempt { attempt, conn } => {
                self.cancelled(attempt, conn);
                Ok(())
            }
            Effect::Charge { .. } => unreachable!("no consumer leaves: {effect:?}"),
            Effect::Disconnect { conn, .. } => {
                if let Some(&number) = self.by_conn.get(&conn) {
                    require(!self.machines[number].is_honest(), "INV-26", || {
                        format!("the working connection of honest machine {number} is closed")
                    })?;
                    self.cut_off(number);
                    self.queue
                        .push(self.now + Span::secs(1), What::Joins(number));
                }
                Ok(())
            }
            Effect::Dispatch {
                request,
                attempt,
                conn,
                ..
            } => self.dispatched(number_of(request), attempt, conn),
            Effect::Fail { request, denial } => {
                let asked = self.over(request);
                let is_liars = asked
                    .speaks
                    .is_some_and(|machine| !self.machines[machine].is_honest());
                self.tally.broken += 1;
                self.judge.denied(request)?;
                require(is_liars || asked.was_cut_off, "INV-26", || {
                    format!("{request} broke off at an honest machine: {denial:?}")
                })
            }
            Effect::Finish { request, receipt } => {
                let receipt = effects.receipts[receipt as usize];
                self.judge.money.receipted(&receipt);
                let asked = self.over(request);
                self.tally.answered += 1;
                self.judge
                    .finished(&receipt, self.plan, &asked.truth, asked.answered)?;
                let is_empty = asked
                    .answered
                    .is_some_and(|(_, said)| said.shown.pieces == 0);
                if is_empty {
                    self.require_nobody(request, &asked, "got nothing")?;
                }
                Ok(())
            }
            Effect::Post { transfer } => {
                self.judge.posted(&effects.transfers[transfer as usize])?;
                if !self.is_persisting {
                    self.is_persisting = true;
                    self.queue.push(self.now + DISK, What::Persists);
                }
                Ok(())
            }
            Effect::Refuse { request, denial } => {
                let asked = self.over(request);
                self.tally.refused += 1;
                self.judge.denied(request)?;
                self.require_nobody(request, &asked, &format!("was refused with {denial:?}"))
            }
        }
    }

    pub(super) fn over(&mut self, request: RequestId) -> Asked {
        let asked = &mut self.asked[number_of(request) as usize];
        assert!(!asked.is_over, "a request ends once");
        asked.is_over = true;
        self.open -= 1;
        *asked
    }

    /// INV-26: no honest machine with room was left unasked while there was time.
    pub(super) fn require_nobody(&self, request: RequestId, asked: &Asked, what: &str) -> Checked {
        let has_time =
            self.now.since(asked.asked_at) < self.core.config().limits.first_content_wait_max;
        let left = self.honest(asked.tried, Machine::has_room);
        let left = left.filter(|_| has_time);
        require(left.is_none(), "INV-26", || {
            let tried: Vec<usize> = (0..self.machines.len())
                .filter(|ix| asked.tried & (1 << ix) != 0)
                .collect();
            format!("{request} {what} while machine {left:?} had room; {tried:?} were tried")
        })
    }

    /// An honest machine that a request has not tried.
    pub(super) fn honest(&self, tried: u64, can: impl Fn(&Machine, Tick) -> bool) -> Option<usize> {
        let mut machines = self.machines.iter().enumerate();
        let found = machines.find(|(ix, machine)| tried & (1 << ix) == 0 && can(machine, self.now));
        found.map(|(ix, _)| ix)
    }
}
