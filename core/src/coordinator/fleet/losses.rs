//! Connections of a machine that were lost. Once is nothing: a laptop was closed, a cable was pulled. Who
//! is lost again and again within a short time, and while it works, is ended by its own system, most often
//! for want of memory: that looks like trouble of the network to everybody but its owner. It gets one
//! request at a time until so many answers have come. Who says goodbye, who falls silent (it sleeps) and
//! who comes back beside its old connection (it slept) is none of these.

use serde::{Deserialize, Serialize};

use crate::coordinator::roster::{LikelyCause, Lossy};
use crate::time::{Span, Tick};

/// Losses that lie closer together belong together.
pub(crate) const LOSSES_WITHIN: Span = Span::secs(15 * 60);
/// So many of them at work are no chance.
pub(crate) const LOSSES_BORNE: u8 = 2;
/// Whole answers after which it may have more than one request again, doubled each time that it is lost
/// once more, until it has kept for so long.
pub(crate) const ANSWERS_OWED: u8 = 4;
const DOUBLINGS_MAX: u8 = 4;
const KEPT_FOR: Span = Span::secs(2 * 3_600);

/// See the module. Of one machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Losses {
    at_work: u8,
    idle: u8,
    /// Our requests that it had at the last loss at work.
    rows: u32,
    last_at: Tick,
    answers_owed: u8,
    rounds: u8,
}

impl Losses {
    /// A connection was lost, with so many of our requests on it. `true`: that is no chance any more.
    pub(super) fn lost(&mut self, now: Tick, rows: u32) -> bool {
        let quiet = now.since(self.last_at);
        if quiet >= LOSSES_WITHIN {
            (self.at_work, self.idle) = (0, 0);
        }
        if quiet >= KEPT_FOR {
            self.rounds = 0;
        }
        self.last_at = now;
        if rows == 0 {
            self.idle = self.idle.saturating_add(1);
            return false;
        }
        self.at_work = self.at_work.saturating_add(1);
        self.rows = rows;
        if self.at_work < LOSSES_BORNE {
            return false;
        }
        self.answers_owed = ANSWERS_OWED << self.rounds;
        self.rounds = (self.rounds + 1).min(DOUBLINGS_MAX);
        true
    }

    /// It completed work. `true`, once: it may have more than one request again.
    pub(super) fn answered(&mut self) -> bool {
        if !self.is_lossy() {
            return false;
        }
        self.answers_owed -= 1;
        if self.is_lossy() {
            return false;
        }
        (self.at_work, self.idle) = (0, 0);
        true
    }

    /// It gets one request at a time.
    pub(super) const fn is_lossy(self) -> bool {
        self.answers_owed > 0
    }

    /// Nothing that would have to be remembered.
    pub(super) fn is_spotless(self, now: Tick) -> bool {
        let has_kept = now.since(self.last_at) >= LOSSES_WITHIN;
        !self.is_lossy() && (self.at_work == 0 || has_kept)
    }

    pub(super) fn told(self, now: Tick) -> Option<Lossy> {
        let cause = match self.idle {
            0 => LikelyCause::OutOfMemory,
            1.. => LikelyCause::Network,
        };
        self.is_lossy().then(|| Lossy {
            at_work: self.at_work,
            idle: self.idle,
            rows: self.rows,
            last_ago: now.since(self.last_at),
            answers_owed: self.answers_owed,
            cause,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(minutes: u64) -> Tick {
        Tick(1) + Span::secs(minutes * 60)
    }

    #[test]
    fn losses_far_apart_or_of_an_idle_machine_are_chance() {
        let mut losses = Losses::default();
        for nth in 1..20 {
            assert!(!losses.lost(minutes(nth * 15), 3));
            assert!(!losses.lost(minutes(nth * 15), 0));
        }
        assert_eq!(losses.told(minutes(300)), None);
        assert!(!losses.is_spotless(minutes(299)));
        assert!(losses.is_spotless(minutes(300)));
    }

    #[test]
    fn each_further_loss_doubles_what_is_owed_until_the_machine_has_kept_for_long() {
        let mut losses = Losses::default();
        assert!(!losses.lost(minutes(1), 2));
        let mut owed = Vec::new();
        for nth in 2..8 {
            assert!(losses.lost(minutes(nth), 2));
            owed.push(losses.told(minutes(nth)).unwrap().answers_owed);
        }
        assert_eq!(owed, [4, 8, 16, 32, 64, 64]);
        let answers = (1..).find(|_| losses.answered());
        assert_eq!(answers, Some(64));
        assert!(!losses.lost(minutes(200), 2), "that is forgiven");
        assert!(losses.lost(minutes(201), 2));
        assert_eq!(losses.told(minutes(201)).unwrap().answers_owed, 4);
    }

    #[test]
    fn who_is_lost_while_idle_as_well_has_a_bad_network() {
        let mut losses = Losses::default();
        for rows in [1, 4] {
            losses.lost(minutes(1), rows);
        }
        let told = losses.told(minutes(2)).unwrap();
        assert_eq!((told.cause, told.rows), (LikelyCause::OutOfMemory, 4));
        losses.lost(minutes(3), 0);
        let told = losses.told(minutes(3)).unwrap();
        assert_eq!(told.cause, LikelyCause::Network);
    }
}
