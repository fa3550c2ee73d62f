//! Sockets between providers and the coordinator: ordered while they live, late when clogged, and
//! dead at one end before the other.

use std::collections::BTreeMap;

use cereus_core::ids::ConnId;
use cereus_core::time::{Span, Tick};

use super::plan::Plan;
use crate::stream::Stream;

#[derive(Clone, Copy, Debug)]
pub(super) struct Socket {
    pub(super) machine: u32,
    pub(super) is_coordinator_open: bool,
    latest_up: Tick,
    latest_down: Tick,
}

#[derive(Clone, Copy, Debug, Default)]
struct Clog {
    extra: Span,
    until: Tick,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Net {
    min: Span,
    spread: Span,
    stream: Stream,
    sockets: BTreeMap<ConnId, Socket>,
    clogs: Vec<Clog>,
    count: u64,
}

impl Net {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            min: plan.latency_min,
            spread: plan.latency_spread,
            stream: Stream::new(plan.seed, "latency"),
            sockets: BTreeMap::new(),
            clogs: vec![Clog::default(); plan.machines.len()],
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
        self.clogs[machine as usize] = Clog { extra, until };
    }

    pub(super) fn heal(&mut self) {
        self.min = Span::millis(1);
        self.spread = Span::millis(4);
        self.clogs.fill(Clog::default());
    }

    /// One way between a consumer and the coordinator.
    pub(super) fn latency(&mut self) -> Span {
        self.min + Span(self.stream.below(self.spread.0 + 1))
    }

    /// How long a write into this socket takes before it is the network's.
    pub(super) fn write(&self, now: Tick, conn: ConnId) -> Span {
        Span(100) + self.extra(now, self.sockets[&conn].machine)
    }

    pub(super) fn up(&mut self, now: Tick, conn: ConnId) -> Tick {
        let at = self.at(now, conn);
        let socket = self.socket(conn);
        socket.latest_up = socket.latest_up.max(at);
        socket.latest_up
    }

    pub(super) fn down(&mut self, now: Tick, conn: ConnId) -> Tick {
        let at = self.at(now, conn);
        let socket = self.socket(conn);
        socket.latest_down = socket.latest_down.max(at);
        socket.latest_down
    }

    fn at(&mut self, now: Tick, conn: ConnId) -> Tick {
        now + self.latency() + self.extra(now, self.sockets[&conn].machine)
    }

    fn extra(&self, now: Tick, machine: u32) -> Span {
        let clog = self.clogs[machine as usize];
        if now < clog.until {
            clog.extra
        } else {
            Span::ZERO
        }
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
