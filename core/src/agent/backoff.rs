//! How long to wait before dialling again.

use super::{
    BACKOFF_MAX, BACKOFF_MIN, CONTESTED_WAIT, DEPLOY_WAIT_MAX, DEPLOY_WAIT_MIN, OPERATOR_WAIT,
    STABLE_SESSION, STABLE_SPREAD_MAX, UNREACHABLE_FAILURES,
};
use crate::draw::{Purpose, Seed};
use crate::time::Span;

/// How a session, or an attempt at one, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Another process has this machine's identity.
    Contested,
    /// The coordinator is restarting and said so.
    Deploy,
    /// After the coordinator had spoken to us; it had lasted this long.
    Lost(Span),
    /// The coordinator sent us away.
    SentAway,
    /// Our process slept: nobody is to blame.
    Suspended,
    /// Before the coordinator had spoken to us.
    Unaccepted,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Backoff {
    next: Span,
    /// In a row, none of them accepted.
    failures: u32,
    draws: u64,
}

impl Backoff {
    pub(super) const fn new() -> Self {
        Self {
            next: BACKOFF_MIN,
            failures: 0,
            draws: 0,
        }
    }

    /// Whether exactly now it has failed often enough for the operator to hear of it.
    pub(super) const fn is_unreachable_now(&self) -> bool {
        self.failures == UNREACHABLE_FAILURES
    }

    pub(super) fn wait(&mut self, seed: Seed, ending: Ending) -> Span {
        match ending {
            Ending::Suspended => return Span::ZERO,
            Ending::Contested => return CONTESTED_WAIT,
            Ending::SentAway => return OPERATOR_WAIT,
            Ending::Deploy => {
                let range = DEPLOY_WAIT_MAX.0 - DEPLOY_WAIT_MIN.0;
                return DEPLOY_WAIT_MIN + Span(self.draw(seed, range));
            }
            Ending::Lost(lasted) => {
                self.failures = 0;
                // Accepting and closing again is no success: only time proves one.
                if lasted >= STABLE_SESSION {
                    self.next = BACKOFF_MIN;
                    // Whole fleets lose their sockets together, and would come back together.
                    let spread = Span(self.draw(seed, STABLE_SPREAD_MAX.0));
                    return self.jittered(seed) + spread;
                }
            }
            Ending::Unaccepted => self.failures = self.failures.saturating_add(1),
        }
        self.jittered(seed)
    }

    /// From half of the base to just below the whole of it.
    fn jittered(&mut self, seed: Seed) -> Span {
        let half = Span(self.double().0 / 2);
        half + Span(self.draw(seed, half.0))
    }

    /// The base of this wait; the next one is twice as long.
    fn double(&mut self) -> Span {
        let base = self.next;
        self.next = Span((base.0 * 2).min(BACKOFF_MAX.0));
        base
    }

    fn draw(&mut self, seed: Seed, bound: u64) -> u64 {
        self.draws += 1;
        seed.draw_below(Purpose::BackoffJitter, u128::from(self.draws), 0, bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(endings: &[Ending]) -> Vec<u64> {
        let mut backoff = Backoff::new();
        let seed = Seed::from_number(3);
        endings
            .iter()
            .map(|ending| backoff.wait(seed, *ending).as_millis_floor())
            .collect()
    }

    /// What the next wait is drawn from, once these sessions have ended.
    fn base_after(endings: &[Ending]) -> Span {
        let mut backoff = Backoff::new();
        for ending in endings {
            backoff.wait(Seed::from_number(3), *ending);
        }
        backoff.next
    }

    /// ENG-21.
    #[test]
    fn an_unreachable_coordinator_is_tried_ever_more_rarely() {
        let bases: Vec<Span> = (0..8)
            .map(|failures| base_after(&vec![Ending::Unaccepted; failures]))
            .collect();
        assert_eq!(bases, [1, 2, 4, 8, 16, 30, 30, 30].map(Span::secs));
    }

    /// ENG-21.
    #[test]
    fn a_session_of_29_seconds_does_not_reset_the_wait_and_one_of_30_does() {
        let outage = [Ending::Unaccepted; 3];
        let after = |lasted| base_after(&[&outage[..], &[Ending::Lost(lasted)]].concat());
        assert_eq!(after(Span::secs(29)), Span::secs(16));
        assert_eq!(after(Span(Span::secs(30).0 - 1)), Span::secs(16));
        // The wait itself began anew, so that the one after it is of two seconds.
        assert_eq!(after(Span::secs(30)), Span::secs(2));
    }

    #[test]
    fn a_wait_lies_between_the_half_of_its_base_and_the_whole() {
        for number in 0..64 {
            let mut backoff = Backoff::new();
            for base in [1, 2, 4, 8, 16, 30, 30].map(Span::secs) {
                let wait = backoff.wait(Seed::from_number(number), Ending::Unaccepted);
                assert!(wait >= Span(base.0 / 2) && wait < base, "{wait:?}");
            }
        }
    }

    #[test]
    fn those_that_were_stable_come_back_spread_over_seconds() {
        let stable = Ending::Lost(STABLE_SESSION);
        let waits = waits(&[stable; 64]);
        assert!(waits.iter().all(|wait| (500..5_000).contains(wait)));
        for from in (1_000..4_000).step_by(1_000) {
            let second = from..from + 1_000;
            assert!(waits.iter().any(|wait| second.contains(wait)), "{from}");
        }
    }

    #[test]
    fn the_operator_hears_of_ten_failures_in_a_row_and_of_no_fewer() {
        let mut backoff = Backoff::new();
        let seed = Seed::from_number(3);
        let heard = (1..=20)
            .filter(|_| {
                backoff.wait(seed, Ending::Unaccepted);
                backoff.is_unreachable_now()
            })
            .collect::<Vec<_>>();
        assert_eq!(heard, [10]);
        backoff.wait(seed, Ending::Lost(Span::ZERO));
        assert_eq!(backoff.failures, 0);
    }

    #[test]
    fn a_drain_is_told_from_an_outage() {
        for deploy in waits(&[Ending::Deploy; 32]) {
            assert!((1_000..5_000).contains(&deploy));
        }
        assert_eq!(waits(&[Ending::SentAway]), [30_000]);
        assert_eq!(waits(&[Ending::Contested]), [300_000]);
        assert_eq!(waits(&[Ending::Suspended]), [0]);
    }
}
