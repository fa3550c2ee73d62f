//! Sockets between providers and the coordinator: ordered while they live, late when clogged, silent
//! across a partition, and dead at one end before the other.

use std::collections::BTreeMap;

use cereus_core::ids::ConnId;
use cereus_core::time::{Span, Tick};

use super::plan::{Machines, Outage, Plan};
use crate::stream::Stream;

/// Frames that a system takes from a process for a peer that takes none.
const BUFFERED_MAX: u8 = 4;
/// How long a system tries to reach whoever does not answer.
const DIAL_WAIT: Span = Span::secs(3);

#[derive(Clone, Copy, Debug)]
pub(super) struct Socket {
    pub(super) machine: u32,
    pub(super) is_coordinator_open: bool,
    /// What is sent into it arrives nowhere, its end neither.
    is_dead: bool,
    buffered: u8,
    latest_up: Tick,
    latest_down: Tick,
}

#[derive(Clone, Copy, Debug, Default)]
struct Clog {
    extra: Span,
    until: Tick,
}

/// The link of one machine.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    clog: Clog,
    /// Nothing passes until then.
    parted_until: Tick,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Net {
    min: Span,
    spread: Span,
    stream: Stream,
    sockets: BTreeMap<ConnId, Socket>,
    links: Vec<Link>,
    count: u64,
}

impl Net {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            min: plan.latency_min,
            spread: plan.latency_spread,
            stream: Stream::new(plan.seed, "latency"),
            sockets: BTreeMap::new(),
            links: vec![Link::default(); plan.machines.len()],
            count: 0,
        }
    }

    /// A new socket; its number is never used again.
    pub(super) fn open(&mut self, machine: u32) -> ConnId {
        self.count += 1;
        let conn = ConnId(self.count);
        let socket = Socket {
            machine,
            is_coordinator_open: true,
            is_dead: false,
            buffered: 0,
            latest_up: Tick::ZERO,
            latest_down: Tick::ZERO,
        };
        self.sockets.insert(conn, socket);
        conn
    }

    pub(super) fn socket(&mut self, conn: ConnId) -> &mut Socket {
        self.sockets
            .get_mut(&conn)
            .expect("sockets are never forgotten")
    }

    pub(super) fn clog(&mut self, machine: u32, extra: Span, until: Tick) {
        self.links[machine as usize].clog = Clog { extra, until };
    }

    /// What is on its way arrives; nothing else does, until then or for ever.
    pub(super) fn part(&mut self, machines: Machines, until: Tick, outage: Outage) {
        for (machine, link) in (0..).zip(&mut self.links) {
            if machines.has(machine) {
                link.parted_until = link.parted_until.max(until);
            }
        }
        if outage == Outage::Silent {
            for socket in self.sockets.values_mut() {
                socket.is_dead |= machines.has(socket.machine);
            }
        }
    }

    pub(super) fn heal(&mut self) {
        self.min = Span::millis(1);
        self.spread = Span::millis(4);
        self.links.fill(Link::default());
    }

    /// One way between a consumer and the coordinator.
    pub(super) fn latency(&mut self) -> Span {
        self.min + Span(self.stream.below(self.spread.0 + 1))
    }

    /// When somebody who dials finds that nobody answers, if nobody does.
    pub(super) fn dial_fails(&self, now: Tick, machine: u32) -> Option<Tick> {
        let is_parted = now < self.links[machine as usize].parted_until;
        is_parted.then_some(now + DIAL_WAIT)
    }

    /// When a write into this socket is the network's; `None`: never.
    pub(super) fn write(&mut self, now: Tick, conn: ConnId) -> Option<Tick> {
        let link = self.links[self.sockets[&conn].machine as usize];
        let extra = extra(now, link.clog);
        let socket = self.socket(conn);
        let waits = socket.is_dead || now < link.parted_until;
        socket.buffered = match waits {
            true => socket.buffered.saturating_add(1),
            false => 0,
        };
        let is_full = socket.buffered > BUFFERED_MAX;
        let from = match is_full {
            true if socket.is_dead => return None,
            true => link.parted_until,
            false => now,
        };
        Some(from + Span(100) + extra)
    }

    /// When what is sent now arrives at the coordinator; `None`: never.
    pub(super) fn up(&mut self, now: Tick, conn: ConnId) -> Option<Tick> {
        let at = self.at(now, conn)?;
        let socket = self.socket(conn);
        socket.latest_up = socket.latest_up.max(at);
        Some(socket.latest_up)
    }

    /// When what is sent now arrives at the provider; `None`: never.
    pub(super) fn down(&mut self, now: Tick, conn: ConnId) -> Option<Tick> {
        let at = self.at(now, conn)?;
        let socket = self.socket(conn);
        socket.latest_down = socket.latest_down.max(at);
        Some(socket.latest_down)
    }

    fn at(&mut self, now: Tick, conn: ConnId) -> Option<Tick> {
        let latency = self.latency();
        let socket = self.sockets[&conn];
        let link = self.links[socket.machine as usize];
        let at = now.max(link.parted_until) + latency + extra(now, link.clog);
        (!socket.is_dead).then_some(at)
    }

    /// Sockets whose coordinator's end is open.
    pub(super) fn open_at_coordinator(&self) -> Vec<ConnId> {
        let open = self
            .sockets
            .iter()
            .filter(|(_, socket)| socket.is_coordinator_open);
        open.map(|(conn, _)| *conn).collect()
    }
}

fn extra(now: Tick, clog: Clog) -> Span {
    if now < clog.until {
        clog.extra
    } else {
        Span::ZERO
    }
}
