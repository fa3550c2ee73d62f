//! Machines come, report and go, and some of them as others.

use cereus_core::event::{Event, GoneCause};
use cereus_core::ids::ConnId;
use cereus_core::time::Span;

use super::super::plan::Lie;
use super::super::script::{self, Act};
use super::attempts::completed;
use super::{Checked, What, World};
use crate::oracle::require;

const BEAT: Span = Span::secs(5);
const BEAT_OFTEN: Span = Span::secs(1);
/// Challenges are passed each so many reports.
const BEATS_PER_CHALLENGE: u64 = 60;
/// Until a recorded registration fails its challenge.
const UNPROVEN: Span = Span::secs(3);

impl World<'_> {
    pub(super) fn joins(&mut self, number: usize) -> Checked {
        if self.machines[number].conn.is_some() {
            return Ok(());
        }
        self.conns += 1;
        let conn = ConnId(self.conns);
        let machine = &mut self.machines[number];
        machine.conn = Some(conn);
        self.by_conn.insert(conn, number);
        let joined = machine.joins(conn);
        let soon = self.now + self.plan.latency + self.plan.latency;
        self.queue.push(soon, What::Proves(number, conn));
        self.queue.push(soon, What::Beats(number, conn));
        self.step(&joined)
    }

    pub(super) fn beats(&mut self, number: usize, conn: ConnId) -> Checked {
        if self.machines[number].conn != Some(conn) {
            return Ok(());
        }
        let is_busy = self.chance.chance(self.plan.foreign);
        let rows = u64::from(self.machines[number].plan.rows);
        let foreign = if is_busy {
            self.chance.between(1, rows)
        } else {
            0
        };
        // Rows of ours that the coordinator does not know to run: it takes them for others' work.
        let ours = self
            .tries
            .values()
            .filter(|attempt| attempt.machine == number);
        let known = ours.filter(|attempt| attempt.has_row && attempt.is_accepted);
        let known = u32::try_from(known.count()).expect("few");
        let machine = &mut self.machines[number];
        let taken_for_others = machine.running.saturating_sub(known);
        machine.seq += 1;
        machine.is_ready = true;
        machine.lingering = 0;
        let report = machine.reports(conn);
        machine.foreign_told = machine.foreign + taken_for_others;
        if machine.is_honest() {
            // It changes when it was told, so that what is believed is stale until the next report.
            machine.foreign = u32::try_from(foreign).expect("few rows");
        }
        let seq = machine.seq;
        let is_often = machine.plan.liar.is_some_and(|liar| liar.reports_often);
        let pause = if is_often { BEAT_OFTEN } else { BEAT };
        self.queue.push(self.now + pause, What::Beats(number, conn));
        if is_often || seq.is_multiple_of(BEATS_PER_CHALLENGE) {
            self.queue.push(self.now, What::Proves(number, conn));
        }
        self.step(&report)?;
        if self.machines[number].is_honest() {
            require(!self.core.is_barred(conn), "INV-28", || {
                format!("machine {number} is honest and barred")
            })?;
        }
        Ok(())
    }

    /// A connection ends with all that it carries; the machine comes back.
    pub(super) fn leaves(&mut self, number: usize, cause: GoneCause, back_after: Span) -> Checked {
        let Some(conn) = self.machines[number].conn else {
            return Ok(());
        };
        self.cut_off(number);
        self.queue.push(self.now + back_after, What::Joins(number));
        self.step(&Event::ProviderLeft { conn, cause })
    }

    pub(super) fn cut_off(&mut self, number: usize) {
        let Some(conn) = self.machines[number].conn else {
            return;
        };
        self.by_conn.remove(&conn);
        self.machines[number].disconnected();
        for attempt in self.tries.values().filter(|attempt| attempt.conn == conn) {
            self.asked[attempt.request as usize].was_cut_off = true;
        }
        self.tries.retain(|_, attempt| attempt.conn != conn);
    }

    /// Somebody shows what an honest machine said when it registered, and speaks of its attempts.
    pub(super) fn replays(&mut self, number: usize) -> Checked {
        let honest: Vec<usize> = (0..self.machines.len())
            .filter(|&ix| self.machines[ix].is_honest())
            .collect();
        let victim = self.chance.pick(&honest);
        self.conns += 1;
        let conn = ConnId(self.conns);
        let joined = self.machines[victim].joins(conn);
        self.step(&joined)?;
        let attempts = self.tries.iter();
        let attempts = attempts.filter(|(_, attempt)| attempt.machine == victim);
        let attempt = attempts.map(|(&key, _)| key).next();
        if let Some(attempt) = attempt {
            let truth = self.asked[self.tries[&attempt].request as usize].truth;
            let script = script::lying(
                Lie::OverClaim,
                &self.machines[victim],
                &truth,
                &mut self.chance,
            );
            if let Some(&(_, Act::Complete(answer))) = script.last() {
                self.step(&completed(conn, attempt, answer))?;
            }
        }
        self.queue.push(self.now + UNPROVEN, What::Ends(conn));
        let pause = Span(self.chance.between(300_000, 6_000_000));
        self.queue.push(self.now + pause, What::Replays(number));
        Ok(())
    }

    pub(super) fn maybe_reconnects(&mut self, number: usize) -> Checked {
        let machine = &self.machines[number];
        let after = machine.plan.liar.and_then(|liar| liar.reconnects_after);
        if after.is_none_or(|after| machine.attempts_here < after) {
            return Ok(());
        }
        self.leaves(number, GoneCause::Closed, Span::millis(50))
    }
}
