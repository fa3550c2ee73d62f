//! Consumers: whose a request is, how long they think, how often they try again and when they leave.
//!
//! With sessions the loop is closed: a session sends its next request a drawn time of thinking after
//! the answer to its last has come, or has failed to; what it asks is the next row of the trace,
//! whatever time that row names. Without, requests come when the trace says.
//!
//! A consumer that tries again does as the common client libraries do: statuses 429 and 5xx, a
//! `Retry-After` up to a bound, otherwise half a second, doubled each time up to eight, less up to a
//! quarter by chance. An answer that breaks off amid is not tried again.
//!
//! Accounts are equal, or by Zipf: the first asks twice as much as the second and three times as much as the
//! third. Then each account has a scope of its own in prefix caches, and the requests of one
//! conversation, as far as a trace shows it by the second block of a prompt, are of one account.

use cereus_core::denial::Denial;
use cereus_core::digest::Mix;
use cereus_core::draw::{Purpose, Seed};
use cereus_core::ids::AccountId;
use cereus_core::time::Span;

use crate::stream::{Ratio, Stream};

/// How much each account asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tenants {
    /// All alike, in one scope of the prefix caches.
    Alike,
    Zipf,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct People {
    pub tenants: Tenants,
    /// Nought: requests come when the trace says.
    pub sessions: u32,
    pub think_mean: Span,
    /// After the first try.
    pub retries_max: u8,
    pub retry_after_max: Span,
    /// Until first content, on average: between half of it and half as much again. Nought: for ever.
    pub patience_mean: Span,
    /// Those who leave amid an answer.
    pub hang_up: Ratio,
}

impl People {
    /// They take what comes: no retries, endless patience.
    #[must_use]
    pub const fn patient() -> Self {
        Self {
            tenants: Tenants::Alike,
            sessions: 0,
            think_mean: Span::secs(30),
            retries_max: 0,
            retry_after_max: Span::secs(60),
            patience_mean: Span::ZERO,
            hang_up: Ratio::new(0, 100),
        }
    }
}

impl People {
    /// Whether any of this is to be told of.
    #[must_use]
    pub fn do_anything(&self) -> bool {
        let leave = self.patience_mean > Span::ZERO || self.hang_up.num > 0;
        leave || self.retries_max > 0 || self.sessions > 0
    }
}

/// Who leaves amid an answer does so this long after its first word, on average.
const READ_MEAN: Span = Span::secs(5);
const BACK_OFF: Span = Span::millis(500);
const BACK_OFF_MAX: Span = Span::secs(8);

/// What one request's consumer does, drawn by the request's number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners {
    people: People,
    seed: u64,
}

impl Manners {
    pub(super) const fn new(people: People, seed: u64) -> Self {
        Self { people, seed }
    }

    pub(super) fn patience(&self, number: u64) -> Option<Span> {
        let mean_us = self.people.patience_mean.0;
        (mean_us > 0).then(|| {
            let mut stream = self.stream("patience", number);
            Span(stream.between(mean_us / 2, mean_us + mean_us / 2))
        })
    }

    /// After so long of reading it leaves, if the answer is not over by then.
    pub(super) fn reading(&self, number: u64) -> Option<Span> {
        if self.people.hang_up.num == 0 {
            return None;
        }
        let mut stream = self.stream("reading", number);
        let leaves = stream.chance(self.people.hang_up);
        leaves.then(|| Span(stream.exponential(READ_MEAN.0)))
    }

    pub(super) fn thought(&self, number: u64) -> Span {
        let mean_us = self.people.think_mean.0;
        Span(self.stream("thought", number).exponential(mean_us))
    }

    /// How long it waits before it tries again what was turned down on the `nth` try, from nought;
    /// `None`: it gives up.
    pub(super) fn retry(&self, number: u64, nth: u8, denial: Denial) -> Option<Span> {
        let status = denial.status();
        let is_transient = status == 429 || status >= 500;
        if nth >= self.people.retries_max || !is_transient {
            return None;
        }
        let told = denial.retry_after_s().map(|s| Span::secs(s.into()));
        if let Some(wait) =
            told.filter(|wait| (Span(1)..=self.people.retry_after_max).contains(wait))
        {
            return Some(wait);
        }
        let doubled = BACK_OFF.0 << nth.min(8);
        let most = doubled.min(BACK_OFF_MAX.0);
        let less = self.stream("back off", number).below(most / 4 + 1);
        Some(Span(most - less))
    }

    fn stream(&self, label: &str, number: u64) -> Stream {
        Stream::new(
            self.seed ^ (number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            label,
        )
    }
}

/// Whose each request is.
#[derive(Clone, Debug)]
pub(super) struct Purses {
    seed: Seed,
    tenants: Tenants,
    accounts: u32,
    /// Sums of what each account asks, up to and with it; nothing where all are alike.
    sums: Vec<u64>,
}

/// A common multiple of small numbers, so that the first accounts' shares are exact.
const ZIPF: u64 = 720_720;

impl Purses {
    pub(super) fn new(seed: Seed, tenants: Tenants, accounts: u32) -> Self {
        let shares = match tenants {
            Tenants::Alike => 0..0,
            Tenants::Zipf => 0..u64::from(accounts),
        };
        let mut sum = 0;
        let sums = shares.map(|ix| {
            sum += ZIPF / (ix + 1) + 1;
            sum
        });
        Self {
            seed,
            tenants,
            accounts,
            sums: sums.collect(),
        }
    }

    /// The account of whatever has this name: a request, a conversation, a session.
    pub(super) fn of(&self, name: u64) -> AccountId {
        let below = match self.sums.last() {
            None => u64::from(self.accounts),
            Some(&sum) => sum,
        };
        let drawn = (self.seed).draw_below(Purpose::Simulation, u128::from(name), 1, below);
        match self.tenants {
            Tenants::Alike => AccountId(drawn + 1),
            Tenants::Zipf => AccountId(self.sums.partition_point(|&sum| sum <= drawn) as u64 + 1),
        }
    }

    /// The account of a request that belongs to no session.
    pub(super) fn of_request(&self, number: u64, blocks: &[u64]) -> AccountId {
        match self.tenants {
            Tenants::Alike => self.of(number),
            Tenants::Zipf => self.of(blocks.get(1).copied().unwrap_or(number)),
        }
    }

    /// The blocks of a prompt as one account's caches name them.
    pub(super) fn scoped(&self, account: AccountId, blocks: &mut [u64]) {
        match self.tenants {
            Tenants::Alike => {}
            Tenants::Zipf => {
                for block in blocks {
                    let mixed = Mix::of(&[account.0, *block]);
                    *block = u64::try_from(mixed & u128::from(u64::MAX)).expect("masked");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manners() -> Manners {
        let people = People {
            retries_max: 3,
            patience_mean: Span::secs(10),
            hang_up: Ratio::new(1, 4),
            ..People::patient()
        };
        Manners::new(people, 5)
    }

    #[test]
    fn a_client_waits_as_long_as_it_is_told_and_otherwise_ever_longer() {
        let manners = manners();
        let full = |retry_after_s| Denial::Full { retry_after_s };
        assert_eq!(manners.retry(1, 0, full(7)), Some(Span::secs(7)));
        assert_eq!(manners.retry(1, 2, full(60)), Some(Span::secs(60)));
        assert_eq!(manners.retry(1, 3, full(7)), None, "three retries are all");
        let own = |nth| manners.retry(1, nth, full(61)).unwrap();
        assert!((375_000..=500_000).contains(&own(0).0));
        assert!((1_500_000..=2_000_000).contains(&own(2).0));
        assert_eq!(manners.retry(1, 0, Denial::Broke), None);
        assert_eq!(manners.retry(1, 0, Denial::Client(422)), None);
        assert!(manners.retry(1, 0, Denial::ProviderFailed).is_some());
    }

    #[test]
    fn patience_and_reading_have_their_means() {
        let manners = manners();
        let waits: Vec<u64> = (0..4_000).map(|n| manners.patience(n).unwrap().0).collect();
        assert!(waits.iter().all(|us| (5_000_000..=15_000_000).contains(us)));
        let mean = waits.iter().sum::<u64>() / 4_000;
        assert!(mean.abs_diff(10_000_000) < 200_000, "{mean}");
        let leaves = (0..4_000).filter(|n| manners.reading(*n).is_some());
        assert!((900..1_100).contains(&leaves.count()));
        let patient = Manners::new(People::patient(), 5);
        assert_eq!((patient.patience(1), patient.reading(1)), (None, None));
    }

    #[test]
    fn the_first_account_asks_twice_as_much_as_the_second() {
        let purses = Purses::new(Seed::from_number(1), Tenants::Zipf, 50);
        let mut asked = [0u32; 51];
        for name in 0..40_000 {
            asked[usize::try_from(purses.of(name).0).unwrap()] += 1;
        }
        assert_eq!(asked[0], 0);
        assert!((8_400..9_400).contains(&asked[1]), "{}", asked[1]);
        assert!(asked[1].abs_diff(2 * asked[2]) < 500);
        assert!(asked[50] > 100);
    }

    #[test]
    fn a_conversation_has_one_account_and_each_account_its_own_names() {
        let purses = Purses::new(Seed::from_number(1), Tenants::Zipf, 50);
        let of = |number, blocks: &[u64]| purses.of_request(number, blocks);
        assert_eq!(of(1, &[0, 77, 3]), of(9, &[0, 77, 4, 5]));
        let (mut one, mut other, mut same) = ([1, 2], [1, 2], [1, 2]);
        purses.scoped(AccountId(1), &mut one);
        purses.scoped(AccountId(2), &mut other);
        purses.scoped(AccountId(1), &mut same);
        assert!(one[0] != other[0] && one == same);
    }
}
