//! What a machine's consumers see of its answers. A claim far above our estimate, a request that it
//! called wrong, an answer of nothing: none of these proves anything by itself, since the text, the
//! template or the draw may explain it, and a consumer who knows how can ask for it. If half of those who
//! asked see the like, it is the machine.

use serde::{Deserialize, Serialize};

use crate::ids::AccountId;

/// Consumers whose newest answer is remembered.
const CONSUMERS_MAX: usize = 8;
/// With fewer, one consumer's text could speak for half of them.
const CONSUMERS_MIN: usize = 3;

/// How the newest answer to each of the last consumers of one machine was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Habits {
    /// The longest silent first.
    newest: [Option<Seen>; CONSUMERS_MAX],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Seen {
    consumer: AccountId,
    is_odd: bool,
}

impl Habits {
    /// An answer came, or what should have been one. `true` if half of the consumers see odd ones, this
    /// one among them.
    pub(super) fn push(&mut self, consumer: AccountId, is_odd: bool) -> bool {
        let is_same = |place: &Option<Seen>| place.is_some_and(|old| old.consumer == consumer);
        let is_free = |place: &Option<Seen>| place.is_none();
        let place = self.newest.iter().position(is_same);
        let place = place.or_else(|| self.newest.iter().position(is_free));
        let place = place.unwrap_or(0);
        self.newest[place] = Some(Seen { consumer, is_odd });
        let count = self.count(|_| true);
        self.newest[place..count].rotate_left(1);
        let odd = self.count(|seen| seen.is_odd);
        is_odd && count >= CONSUMERS_MIN && odd * 2 >= count
    }

    /// Nothing that would have to be remembered.
    pub(super) fn is_spotless(&self) -> bool {
        self.count(|seen| seen.is_odd) == 0
    }

    fn count(&self, of: impl Fn(&Seen) -> bool) -> usize {
        self.newest.iter().flatten().filter(|one| of(one)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn habits(of: &[(u64, bool)]) -> (Habits, bool) {
        let mut habits = Habits::default();
        let mut is_shown = false;
        for &(consumer, is_odd) in of {
            is_shown = habits.push(AccountId(consumer), is_odd);
        }
        (habits, is_shown)
    }

    #[test]
    fn one_consumer_shows_nothing_however_often_it_asks() {
        let mut often: Vec<(u64, bool)> = vec![(1, false), (2, false)];
        often.extend([(3, true); 50]);
        assert!(!habits(&often).1);
        assert!(!habits(&[(3, true); 50]).1, "nor if it is the only one");
    }

    #[test]
    fn two_of_three_or_four_consumers_show_it() {
        assert!(habits(&[(1, false), (2, true), (3, true)]).1);
        assert!(
            !habits(&[(2, true), (3, true), (1, false)]).1,
            "not by this answer"
        );
        assert!(habits(&[(1, false), (2, true), (3, true), (4, false), (2, true)]).1);
        assert!(!habits(&[(1, false), (2, true), (4, false), (5, false), (3, true)]).1);
    }

    #[test]
    fn the_newest_answer_of_a_consumer_counts_and_the_longest_silent_makes_room() {
        let (made_good, _) = habits(&[(1, true), (2, true), (3, true), (1, false), (2, false)]);
        assert!(!made_good.is_spotless());
        let mut many: Vec<(u64, bool)> = vec![(3, true)];
        many.extend((10..18).map(|consumer| (consumer, false)));
        assert!(habits(&many).0.is_spotless());
    }
}
