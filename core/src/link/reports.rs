//! How often a provider's reports are told: each one while they come now and then, the newest of those
//! that come in a flood. Each is an event, and a line of the journal.

use crate::event::{MachineReport, SlotReport};
use crate::time::{Span, Tick};

/// Reports that may come at once.
const BURST: u32 = 16;
/// And from then on, one in this time.
const EVERY: Span = Span::millis(250);

/// A report with its slots.
pub(super) type Report = (MachineReport, Vec<SlotReport>);

#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Reports {
    /// Those of a burst that were told and not made up for.
    spent: u32,
    /// Since when time makes up for them.
    since: Tick,
    /// The newest that was not told.
    waiting: Option<Report>,
}

impl Reports {
    /// A report came. It is returned if it is told now.
    pub(super) fn came(&mut self, now: Tick, report: Report) -> Option<Report> {
        self.make_up(now);
        self.waiting = Some(report);
        self.due(now)
    }

    /// What has waited for its time.
    pub(super) fn due(&mut self, now: Tick) -> Option<Report> {
        self.make_up(now);
        if self.spent >= BURST {
            return None;
        }
        let report = self.waiting.take()?;
        self.spent += 1;
        Some(report)
    }

    pub(super) fn due_at(&self) -> Option<Tick> {
        self.waiting.as_ref().map(|_| self.since + EVERY)
    }

    fn make_up(&mut self, now: Tick) {
        let made_up = now.since(self.since).0 / EVERY.0;
        let made_up = u32::try_from(made_up).unwrap_or(u32::MAX);
        if made_up >= self.spent {
            self.spent = 0;
            self.since = now;
        } else {
            self.spent -= made_up;
            self.since = self.since + Span(u64::from(made_up) * EVERY.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(seq: u64) -> Report {
        let report = MachineReport {
            seq,
            ..MachineReport::default()
        };
        (report, Vec::new())
    }

    #[test]
    fn reports_now_and_then_are_told_as_they_come() {
        let mut reports = Reports::default();
        for seq in 0..200 {
            let now = Tick(seq * 300_000);
            assert_eq!(reports.came(now, report(seq)), Some(report(seq)));
            assert_eq!(reports.due_at(), None);
        }
    }

    #[test]
    fn of_a_flood_the_newest_is_told_in_its_time() {
        let mut reports = Reports::default();
        let mut told = 0;
        let mut newest = None;
        for seq in 1..=100_000 {
            let now = Tick(1_000_000 + seq * 100);
            if let Some((report, _)) = reports.came(now, report(seq)) {
                told += 1;
                newest = Some(report.seq);
            }
        }
        assert_eq!(told, BURST + 39, "ten seconds of them");
        let at = reports.due_at().expect("the last one waits");
        assert!(reports.due(Tick(at.0 - 1)).is_none());
        let (last, _) = reports.due(at).expect("its time has come");
        assert_eq!((last.seq, reports.due_at()), (100_000, None));
        assert!(newest < Some(last.seq));
    }
}
