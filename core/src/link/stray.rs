//! Chunks for ids that nobody waits for: their provider has missed a cancel and would compute to the end,
//! so it gets another; but not one for every chunk.

use std::collections::{BTreeMap, VecDeque};

use super::LinkConfig;
use crate::ids::WireId;
use crate::time::Tick;

/// When each unknown id was last cancelled. Bounded; the oldest is forgotten first.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Strays {
    cancelled_at: BTreeMap<WireId, Tick>,
    /// In the order of time, each id once.
    order: VecDeque<(Tick, WireId)>,
}

impl Strays {
    /// Whether a cancel should go out for `wire` now.
    pub(super) fn should_cancel(&mut self, now: Tick, wire: WireId, config: &LinkConfig) -> bool {
        while let Some((at, oldest)) = self.order.front().copied() {
            let is_over = now.since(at) >= config.stray_cancel_every;
            if !is_over && self.order.len() < config.stray_ids_max {
                break;
            }
            if !is_over && self.cancelled_at.contains_key(&wire) {
                break;
            }
            self.order.pop_front();
            self.cancelled_at.remove(&oldest);
        }
        if self.cancelled_at.contains_key(&wire) {
            return false;
        }
        self.cancelled_at.insert(wire, now);
        self.order.push_back((now, wire));
        assert_eq!(
            self.order.len(),
            self.cancelled_at.len(),
            "each id is once in both"
        );
        true
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Seed;
    use crate::time::Span;
    use crate::wire::proof::Posture;

    fn config() -> LinkConfig {
        LinkConfig::reference(Seed::from_number(1), 0, Posture::Advisory)
    }

    #[test]
    fn an_id_is_cancelled_at_most_once_in_ten_seconds() {
        let (config, mut strays) = (config(), Strays::default());
        let at = |ms: u64| Tick::ZERO + Span::millis(ms);
        assert!(strays.should_cancel(at(0), WireId(1), &config));
        assert!(!strays.should_cancel(at(9_999), WireId(1), &config));
        assert!(strays.should_cancel(at(5_000), WireId(2), &config));
        assert!(strays.should_cancel(at(10_000), WireId(1), &config));
        assert!(!strays.should_cancel(at(14_999), WireId(2), &config));
    }

    #[test]
    fn the_table_never_outgrows_its_bound() {
        let (config, mut strays) = (config(), Strays::default());
        for id in 0..10_000u128 {
            assert!(strays.should_cancel(Tick(u64::try_from(id).unwrap()), WireId(id), &config));
            assert!(strays.count() <= 4_096);
        }
        assert!(!strays.should_cancel(Tick(10_000), WireId(9_999), &config));
        assert!(
            strays.should_cancel(Tick(10_000), WireId(0), &config),
            "the oldest is forgotten"
        );
    }
}
