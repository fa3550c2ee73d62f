//! Who may wait at the door: connections that have not shown yet whose they are.
//!
//! Anybody can open a connection and say nothing on it. A [`Door`] bounds how many of them there are,
//! in all and from one origin, and turns nobody away who knocks: the one that has waited longest goes
//! instead. An honest peer shows itself in a moment, so it is never the one that has waited longest
//! unless thousands knock at once. What is behind the door (consumers with a key, machines that
//! passed their challenge) is counted elsewhere, so that strangers cannot take its room.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use crate::time::{Span, Tick};

/// How many connections may wait at the door before they have shown whose they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorLimits {
    pub waiting_max: usize,
    /// The most from one origin, counted once they have waited for longer than `grace`.
    pub of_origin_max: usize,
    /// Within this time no connection has to go because others of its origin wait too.
    pub grace: Span,
}

/// Where a connection comes from, as far as one owner is likely: an IPv4 address, or the 64-bit
/// network that one IPv6 customer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin([u8; 8]);

impl Origin {
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            // `::/64` is no network of a customer, so no IPv6 origin looks like this.
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                Self([0, 0, 0, 0, a, b, c, d])
            }
            IpAddr::V6(address) => {
                let octets = address.octets();
                let (network, _) = octets.split_at(8);
                Self(network.try_into().expect("half of sixteen octets"))
            }
        }
    }
}

/// Names a connection that waits. A door gives none twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What follows when a connection comes to the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    pub ticket: Ticket,
    /// The connection that has to go for this one: it is to be closed, and waits no more.
    pub sent_away: Option<Ticket>,
}

#[derive(Clone, Copy, Debug)]
struct Guest {
    origin: Option<Origin>,
    since: Tick,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Door {
    limits: DoorLimits,
    /// Tickets rise, so the first has waited longest.
    waiting: BTreeMap<Ticket, Guest>,
    by_origin: BTreeMap<Origin, BTreeSet<Ticket>>,
    ticket_last: u64,
    sent_away_count: u64,
}

impl Door {
    #[must_use]
    pub fn new(limits: DoorLimits) -> Self {
        assert!(limits.waiting_max > 0, "a door lets somebody in");
        assert!(limits.of_origin_max > 0, "a door lets everybody knock");
        Self {
            limits,
            waiting: BTreeMap::new(),
            by_origin: BTreeMap::new(),
            ticket_last: 0,
            sent_away_count: 0,
        }
    }

    /// Somebody knocks. Without an origin (behind a proxy of ours) only the bound of all holds.
    pub fn enter(&mut self, now: Tick, origin: Option<Origin>) -> Entered {
        let sent_away = self.has_to_go(now, origin);
        if let Some(ticket) = sent_away {
            self.leave(ticket);
            self.sent_away_count += 1;
        }
        self.ticket_last += 1;
        let ticket = Ticket(self.ticket_last);
        self.waiting.insert(ticket, Guest { origin, since: now });
        if let Some(origin) = origin {
            self.by_origin.entry(origin).or_default().insert(ticket);
        }
        assert!(
            self.waiting.len() <= self.limits.waiting_max,
            "whoever enters a full door takes a place"
        );
        Entered { ticket, sent_away }
    }

    /// It has shown whose it is, or is gone. One that left already is passed over.
    pub fn leave(&mut self, ticket: Ticket) {
        let Some(guest) = self.waiting.remove(&ticket) else {
            return;
        };
        let Some(origin) = guest.origin else { return };
        if let Some(tickets) = self.by_origin.get_mut(&origin) {
            tickets.remove(&ticket);
            if tickets.is_empty() {
                self.by_origin.remove(&origin);
            }
        }
    }

    #[must_use]
    pub fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    #[must_use]
    pub fn sent_away_count(&self) -> u64 {
        self.sent_away_count
    }

    fn has_to_go(&self, now: Tick, origin: Option<Origin>) -> Option<Ticket> {
        let neighbours = origin.and_then(|origin| self.by_origin.get(&origin));
        if let Some(neighbours) = neighbours
            && neighbours.len() >= self.limits.of_origin_max
            && let Some(oldest) = neighbours.first()
            && let Some(guest) = self.waiting.get(oldest)
            && now.since(guest.since) >= self.limits.grace
        {
            return Some(*oldest);
        }
        let is_full = self.waiting.len() >= self.limits.waiting_max;
        let oldest = self.waiting.first_key_value();
        oldest.filter(|_| is_full).map(|(ticket, _)| *ticket)
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    const LIMITS: DoorLimits = DoorLimits {
        waiting_max: 8,
        of_origin_max: 3,
        grace: Span::secs(1),
    };

    fn origin(number: u8) -> Option<Origin> {
        Some(Origin::of(Ipv4Addr::new(192, 0, 2, number).into()))
    }

    fn at(ms: u64) -> Tick {
        Tick::ZERO + Span::millis(ms)
    }

    #[test]
    fn one_origin_cannot_fill_the_door_and_its_newest_always_gets_in() {
        let mut door = Door::new(LIMITS);
        let silent: Vec<Ticket> = (0..3)
            .map(|ms| door.enter(at(ms), origin(1)).ticket)
            .collect();
        let other = door.enter(at(5), origin(2));
        assert_eq!(other.sent_away, None);
        for (ms, oldest) in (2_000..).zip(&silent) {
            let entered = door.enter(at(ms), origin(1));
            assert_eq!(entered.sent_away, Some(*oldest));
        }
        assert_eq!((door.waiting_count(), door.sent_away_count()), (4, 3));
    }

    #[test]
    fn many_that_knock_at_once_are_not_held_against_each_other() {
        let mut door = Door::new(LIMITS);
        for _ in 0..8 {
            assert_eq!(door.enter(at(0), origin(1)).sent_away, None);
        }
        // Full all the same: somebody has to go.
        assert_eq!(door.enter(at(0), origin(1)).sent_away, Some(Ticket(1)));
    }

    #[test]
    fn whoever_has_shown_itself_is_not_sent_away() {
        let mut door = Door::new(LIMITS);
        let shown = door.enter(at(0), origin(1)).ticket;
        door.leave(shown);
        door.leave(shown);
        for ms in 1..=100 {
            let entered = door.enter(at(ms), origin(1));
            assert_ne!(entered.sent_away, Some(shown));
        }
    }

    #[test]
    fn an_origin_is_an_address_of_the_old_kind_or_a_network_of_the_new() {
        let v6 = |text: &str| Origin::of(text.parse::<Ipv6Addr>().unwrap().into());
        assert_eq!(v6("2001:db8::1"), v6("2001:db8::ffff:1"));
        assert_ne!(v6("2001:db8::1"), v6("2001:db8:0:1::1"));
        assert_eq!(Some(v6("::ffff:192.0.2.7")), origin(7));
        assert_ne!(origin(7), origin(8));
    }

    proptest! {
        #[test]
        fn the_bounds_hold_and_only_those_that_wait_are_sent_away(
            knocks in prop::collection::vec((0u8..4, 0u64..1_500, any::<bool>()), 0..200),
        ) {
            let mut door = Door::new(LIMITS);
            let mut waiting = BTreeSet::new();
            let mut now = 0;
            for (number, pause, leaves) in knocks {
                now += pause;
                let from = (number > 0).then(|| origin(number)).flatten();
                let Entered { ticket, sent_away } = door.enter(at(now), from);
                if let Some(gone) = sent_away {
                    prop_assert!(waiting.remove(&gone));
                }
                waiting.insert(ticket);
                if leaves {
                    let first = *waiting.first().unwrap();
                    door.leave(first);
                    waiting.remove(&first);
                }
                prop_assert_eq!(door.waiting_count(), waiting.len());
                prop_assert!(waiting.len() <= LIMITS.waiting_max);
                let by_origin: usize = door.by_origin.values().map(BTreeSet::len).sum();
                prop_assert!(by_origin <= waiting.len());
                prop_assert!(door.by_origin.values().all(|tickets| !tickets.is_empty()));
            }
        }
    }
}
