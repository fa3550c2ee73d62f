//! Silence: no heartbeat comes, two sweeps in a row notice it, the connection ends. The second sweep is the
//! benefit of the doubt, for a coordinator that was itself asleep.

use super::LinkConfig;
use crate::time::Tick;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Liveness {
    heard_at: Tick,
    /// The next sweep that may find silence; earlier ones would find none.
    sweep_at: Tick,
    strikes: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    Alive,
    Silent,
}

impl Liveness {
    pub(super) fn new(now: Tick, config: &LinkConfig) -> Self {
        let mut liveness = Self {
            heard_at: now,
            sweep_at: now,
            strikes: 0,
        };
        liveness.skip_idle_sweeps(config);
        liveness
    }

    pub(super) fn heard(&mut self, now: Tick) {
        self.heard_at = now;
        self.strikes = 0;
    }

    pub(super) fn sweep_at(&self) -> Tick {
        self.sweep_at
    }

    /// Strikes once for each sweep that comes late: what piled up while the coordinator slept must
    /// be read before anybody is called silent.
    pub(super) fn sweep(&mut self, now: Tick, config: &LinkConfig) -> Pulse {
        if now < self.sweep_at {
            return Pulse::Alive;
        }
        if now.since(self.heard_at) < config.stale_after {
            self.strikes = 0;
            self.skip_idle_sweeps(config);
            return Pulse::Alive;
        }
        self.strikes += 1;
        if self.strikes >= config.strikes_max {
            return Pulse::Silent;
        }
        let next = self.sweep_at + config.sweep_every;
        self.sweep_at = if next > now {
            next
        } else {
            now + config.sweep_every
        };
        Pulse::Alive
    }

    /// To the first sweep on the grid that a peer silent from now on would not survive unmarked.
    fn skip_idle_sweeps(&mut self, config: &LinkConfig) {
        let stale_at = self.heard_at + config.stale_after;
        let every = config.sweep_every.0.max(1);
        let sweeps = stale_at.since(self.sweep_at).0.div_ceil(every).max(1);
        self.sweep_at = self.sweep_at + crate::time::Span(every.saturating_mul(sweeps));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::draw::Seed;
    use crate::time::Span;
    use crate::wire::proof::Posture;

    fn config() -> LinkConfig {
        LinkConfig::reference(Seed::from_number(1), 0, Posture::Advisory)
    }

    /// When the link falls silent if it is woken exactly on time.
    fn silent_at(heartbeats_s: &[u64]) -> u64 {
        let config = config();
        let mut liveness = Liveness::new(Tick::ZERO, &config);
        let mut beats = heartbeats_s
            .iter()
            .map(|s| Tick::ZERO + Span::secs(*s))
            .peekable();
        loop {
            if let Some(beat) = beats.next_if(|beat| *beat <= liveness.sweep_at()) {
                liveness.heard(beat);
                continue;
            }
            let now = liveness.sweep_at();
            if liveness.sweep(now, &config) == Pulse::Silent {
                return now.0 / 1_000_000;
            }
        }
    }

    #[test]
    fn silence_ends_at_the_second_stale_sweep() {
        assert_eq!(silent_at(&[]), 120);
        assert_eq!(silent_at(&[1]), 150);
        assert_eq!(silent_at(&[5, 10, 15]), 150);
        assert_eq!(silent_at(&[100]), 240);
    }

    #[test]
    fn a_heartbeat_between_two_strikes_forgives_the_first() {
        assert_eq!(silent_at(&[110]), 240);
    }

    #[test]
    fn a_coordinator_that_slept_reads_before_it_judges() {
        let config = config();
        let mut liveness = Liveness::new(Tick::ZERO, &config);
        let morning = Tick::ZERO + Span::secs(36_000);
        assert_eq!(liveness.sweep(morning, &config), Pulse::Alive);
        assert_eq!(liveness.sweep_at(), morning + config.sweep_every);
        liveness.heard(morning + Span::secs(1));
        assert_eq!(liveness.sweep(liveness.sweep_at(), &config), Pulse::Alive);
    }

    proptest! {
        #[test]
        fn sweeping_lazily_equals_sweeping_every_time(
            mut beats in prop::collection::vec(0u64..600, 0..8),
        ) {
            beats.sort_unstable();
            let config = config();
            let (mut heard, mut strikes, mut expected) = (0, 0, 0);
            for sweep in (30..2_000).step_by(30) {
                if let Some(beat) = beats.iter().filter(|beat| **beat <= sweep).max() {
                    strikes = if *beat > heard { 0 } else { strikes };
                    heard = *beat;
                }
                strikes = if sweep - heard >= 90 { strikes + 1 } else { 0 };
                if strikes == i32::from(config.strikes_max) {
                    expected = sweep;
                    break;
                }
            }
            let lived: Vec<u64> = beats.into_iter().filter(|beat| *beat <= expected).collect();
            prop_assert_eq!(silent_at(&lived), expected);
        }
    }
}
