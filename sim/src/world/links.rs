//! Connections: which machine speaks on each, whether either end still has it, and when its silence
//! is noticed.
//!
//! The first connection of a machine has the machine's number; later ones follow all of these.

use cereus_core::draw::Seed;
use cereus_core::ids::ConnId;
use cereus_core::link::LinkConfig;
use cereus_core::time::{Span, Tick};
use cereus_core::wire::proof::Posture;

/// A connection by its number, from 0; the core calls it one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link(pub(super) u32);

impl Link {
    pub(super) const fn conn(self) -> ConnId {
        ConnId(self.0 as u64 + 1)
    }

    pub(super) fn of(conn: ConnId) -> Self {
        Self(u32::try_from(conn.0 - 1).expect("connections are numbered here"))
    }
}

/// One connection.
#[derive(Clone, Copy, Debug)]
struct Wire {
    machine: u32,
    /// The machine has dialled it.
    is_used: bool,
    /// The coordinator has it.
    is_known: bool,
    /// Where the grid of its sweeps begins.
    opened_at: Tick,
    heard_at: Tick,
    /// Sweeps in a row that found it silent.
    strikes: u8,
}

impl Wire {
    const fn of(machine: u32) -> Self {
        Self {
            machine,
            is_used: false,
            is_known: false,
            opened_at: Tick::ZERO,
            heard_at: Tick::ZERO,
            strikes: 0,
        }
    }
}

/// What a sweep says of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Swept {
    /// The coordinator does not have it any more.
    Gone,
    /// To be looked at again then.
    Again(Tick),
    Silent,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Links {
    wires: Vec<Wire>,
    /// What each machine speaks on now.
    current: Vec<Option<Link>>,
    stale_after: Span,
    sweep_every: Span,
    strikes_max: u8,
}

impl Links {
    pub(super) fn new(machines: u32) -> Self {
        let link = LinkConfig::reference(Seed::from_number(0), 0, Posture::Advisory);
        Self {
            wires: (0..machines).map(Wire::of).collect(),
            current: vec![None; machines as usize],
            stale_after: link.stale_after,
            sweep_every: link.sweep_every,
            strikes_max: link.strikes_max,
        }
    }

    /// The machine dials: its first connection, or a further one.
    pub(super) fn dial(&mut self, machine: u32) -> Link {
        assert!(
            self.current(machine).is_none(),
            "a machine has one connection"
        );
        let first = Link(machine);
        let link = if self.wires[first.0 as usize].is_used {
            let next = u32::try_from(self.wires.len()).expect("few enough connections");
            self.wires.push(Wire::of(machine));
            Link(next)
        } else {
            first
        };
        self.wires[link.0 as usize].is_used = true;
        self.current[machine as usize] = Some(link);
        link
    }

    /// The machine's end is gone. Returns what it was.
    pub(super) fn drop(&mut self, machine: u32) -> Option<Link> {
        self.current[machine as usize].take()
    }

    /// The registration came.
    pub(super) fn open(&mut self, now: Tick, link: Link) {
        let wire = &mut self.wires[link.0 as usize];
        wire.is_known = true;
        wire.opened_at = now;
        wire.heard_at = now;
    }

    /// The coordinator's end is gone. `false`: it was before.
    pub(super) fn close(&mut self, link: Link) -> bool {
        core::mem::take(&mut self.wires[link.0 as usize].is_known)
    }

    /// Of a machine that falls silent: when it was last heard.
    pub(super) fn heard(&mut self, now: Tick, link: Link) {
        let wire = &mut self.wires[link.0 as usize];
        wire.heard_at = wire.heard_at.max(now);
        wire.strikes = 0;
    }

    pub(super) fn machine(&self, link: Link) -> u32 {
        self.wires[link.0 as usize].machine
    }

    pub(super) fn current(&self, machine: u32) -> Option<Link> {
        self.current[machine as usize]
    }

    /// Whether the machine's end is there.
    pub(super) fn is_held(&self, link: Link) -> bool {
        self.current(self.machine(link)) == Some(link)
    }

    /// Whether the coordinator's end is there.
    pub(super) fn is_known(&self, link: Link) -> bool {
        self.wires[link.0 as usize].is_known
    }

    /// The next sweep of a connection of which nothing more may come.
    pub(super) fn next_sweep(&self, now: Tick, link: Link) -> Tick {
        let opened_at = self.wires[link.0 as usize].opened_at;
        let swept = now.since(opened_at).0 / self.sweep_every.0;
        opened_at + Span((swept + 1) * self.sweep_every.0)
    }

    /// Two stale sweeps in a row end a connection.
    pub(super) fn sweep(&mut self, now: Tick, link: Link) -> Swept {
        let wire = &mut self.wires[link.0 as usize];
        if !wire.is_known {
            return Swept::Gone;
        }
        if now.since(wire.heard_at) < self.stale_after {
            wire.strikes = 0;
            return Swept::Again(now + self.sweep_every);
        }
        wire.strikes += 1;
        match wire.strikes >= self.strikes_max {
            true => Swept::Silent,
            false => Swept::Again(now + self.sweep_every),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When a machine that speaks at these moments and then falls silent is noticed, in seconds from
    /// its joining; as in the link's own tests.
    fn silent_at(heartbeats_s: &[u64]) -> u64 {
        let mut links = Links::new(1);
        let link = links.dial(0);
        links.open(Tick::ZERO, link);
        let mut beats = heartbeats_s.iter().map(|s| Tick::ZERO + Span::secs(*s));
        let mut beat = beats.next();
        let mut sweep = links.next_sweep(Tick::ZERO, link);
        loop {
            if let Some(at) = beat.filter(|at| *at <= sweep) {
                links.heard(at, link);
                beat = beats.next();
                continue;
            }
            match links.sweep(sweep, link) {
                Swept::Again(next) => sweep = next,
                Swept::Silent => return sweep.0 / 1_000_000,
                Swept::Gone => unreachable!("it was never closed"),
            }
        }
    }

    #[test]
    fn silence_is_noticed_when_a_link_notices_it() {
        assert_eq!(silent_at(&[]), 120);
        assert_eq!(silent_at(&[1]), 150);
        assert_eq!(silent_at(&[5, 10, 15]), 150);
        assert_eq!(silent_at(&[100]), 240);
        assert_eq!(silent_at(&[110]), 240);
    }

    #[test]
    fn the_first_connection_has_its_machines_number_and_later_ones_are_new() {
        let mut links = Links::new(3);
        assert_eq!(links.dial(2), Link(2));
        assert_eq!(links.dial(0), Link(0));
        links.open(Tick::ZERO, Link(0));
        assert_eq!(links.drop(0), Some(Link(0)));
        let again = links.dial(0);
        assert_eq!((again, links.machine(again)), (Link(3), 0));
        assert!(links.is_known(Link(0)) && !links.is_held(Link(0)));
        assert!(links.close(Link(0)) && !links.close(Link(0)));
        assert_eq!(links.sweep(Tick(1), Link(0)), Swept::Gone);
    }
}
