//! How long to wait before dialling again.

use super::{
    BACKOFF_MAX, BACKOFF_MIN, DEPLOY_WAIT_MAX, DEPLOY_WAIT_MIN, OPERATOR_WAIT, STABLE_SESSION,
    UNREACHABLE_FAILURES,
};
use crate::draw::{Purpose, Seed};
use crate::time::Span;

/// Jitter of the doubling: parts per million of the wait, from this ...
const JITTER_LEAST_PPM: u64 = 800_000;
/// ... to just below this much more.
const JITTER_RANGE_PPM: u64 = 400_000;
const PPM: u64 = 1_000_000;

/// How a session, or an attempt at one, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
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
                }
            }
            Ending::Unaccepted => self.failures = self.failures.saturating_add(1),
        }
        let ppm = JITTER_LEAST_PPM + self.draw(seed, JITTER_RANGE_PPM);
        let wait = Span(self.next.0 * ppm / PPM);
        self.next = Span((self.next.0 * 2).min(BACKOFF_MAX.0));
        wait
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

    #[test]
    fn an_unreachable_coordinator_is_tried_ever_more_rarely() {
        let expected = [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000];
        for (wait, nominal) in waits(&[Ending::Unaccepted; 8]).iter().zip(expected) {
            assert!(
                *wait >= nominal * 8 / 10 && *wait < nominal * 12 / 10,
                "{wait}"
            );
        }
    }

    #[test]
    fn accepting_and_closing_again_does_not_reset_the_wait_and_a_stable_session_does() {
        let brief = Ending::Lost(Span::secs(29));
        let stable = Ending::Lost(STABLE_SESSION);
        let waits = waits(&[brief, brief, brief, stable]);
        assert!(waits[2] >= 3_200, "{waits:?}");
        assert!(waits[3] < 1_200, "{waits:?}");
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
        assert_eq!(waits(&[Ending::Suspended]), [0]);
    }
}
