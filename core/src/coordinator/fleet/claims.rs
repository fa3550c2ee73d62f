//! What a machine's consumers see of its claims. A claim far above our estimate proves nothing by
//! itself: it may be the text. If half of those who asked see the like, it is the machine.

use serde::{Deserialize, Serialize};

use crate::ids::AccountId;

/// Consumers whose newest answer is remembered.
const CONSUMERS_MAX: usize = 8;
/// With fewer, one consumer's text could speak for half of them.
const CONSUMERS_MIN: usize = 3;

/// The newest claim to each of the last consumers of one machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// The longest silent first.
    newest: [Option<Claimed>; CONSUMERS_MAX],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Claimed {
    consumer: AccountId,
    is_unlikely: bool,
}

impl Claims {
    /// An answer's claim. `true` if half of the consumers see such, this one among them.
    pub(super) fn push(&mut self, consumer: AccountId, is_unlikely: bool) -> bool {
        let is_same = |place: &Option<Claimed>| place.is_some_and(|old| old.consumer == consumer);
        let is_free = |place: &Option<Claimed>| place.is_none();
        let place = self.newest.iter().position(is_same);
        let place = place.or_else(|| self.newest.iter().position(is_free));
        let place = place.unwrap_or(0);
        self.newest[place] = Some(Claimed {
            consumer,
            is_unlikely,
        });
        let count = self.count(|_| true);
        self.newest[place..count].rotate_left(1);
        let unlikely = self.count(|claimed| claimed.is_unlikely);
        is_unlikely && count >= CONSUMERS_MIN && unlikely * 2 >= count
    }

    /// Nothing that would have to be remembered.
    pub(super) fn is_spotless(&self) -> bool {
        self.count(|claimed| claimed.is_unlikely) == 0
    }

    fn count(&self, of: impl Fn(&Claimed) -> bool) -> usize {
        self.newest.iter().flatten().filter(|one| of(one)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(of: &[(u64, bool)]) -> (Claims, bool) {
        let mut claims = Claims::default();
        let mut is_shown = false;
        for &(consumer, is_unlikely) in of {
            is_shown = claims.push(AccountId(consumer), is_unlikely);
        }
        (claims, is_shown)
    }

    #[test]
    fn one_consumer_shows_nothing_however_often_it_asks() {
        let mut often: Vec<(u64, bool)> = vec![(1, false), (2, false)];
        often.extend([(3, true); 50]);
        assert!(!claims(&often).1);
        assert!(!claims(&[(3, true); 50]).1, "nor if it is the only one");
    }

    #[test]
    fn two_of_three_or_four_consumers_show_it() {
        assert!(claims(&[(1, false), (2, true), (3, true)]).1);
        assert!(
            !claims(&[(2, true), (3, true), (1, false)]).1,
            "not by this answer"
        );
        assert!(claims(&[(1, false), (2, true), (3, true), (4, false), (2, true)]).1);
        assert!(!claims(&[(1, false), (2, true), (4, false), (5, false), (3, true)]).1);
    }

    #[test]
    fn the_newest_answer_of_a_consumer_counts_and_the_longest_silent_makes_room() {
        let (made_good, _) = claims(&[(1, true), (2, true), (3, true), (1, false), (2, false)]);
        assert!(!made_good.is_spotless());
        let mut many: Vec<(u64, bool)> = vec![(3, true)];
        many.extend((10..18).map(|consumer| (consumer, false)));
        assert!(claims(&many).0.is_spotless());
    }
}
