//! One socket and the timers that go with it.

use super::backoff::Ending;
use super::{
    AgentWake, DIAL_WAIT_MAX, HEARTBEAT_EVERY, LEAVE_WAIT_MAX, PING_EVERY, PONG_WAIT_MAX,
    SUSPENSION_GAP, SessionId, earlier,
};
use crate::time::Tick;

/// Where the agent stands with its coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Session {
    Dialling {
        id: SessionId,
        overdue_at: Tick,
    },
    Open(Open),
    /// Outside of the owner's hours.
    Resting,
    Stopped,
    Waiting {
        dial_at: Tick,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Open {
    pub(super) id: SessionId,
    opened_at: Tick,
    /// The coordinator has said something that we understood.
    pub(super) is_accepted: bool,
    /// It has said that our earning key is known.
    pub(super) is_linked: bool,
    heartbeat_at: Tick,
    pinged_at: Tick,
    ponged_at: Tick,
    capacity_seq: u64,
    pub(super) leaving: Option<Leaving>,
}

/// The coordinator said goodbye; running jobs may still finish.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leaving {
    pub(super) departure: Departure,
    pub(super) until: Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Departure {
    Deploy,
    SentAway,
}

/// What the ping timer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    Alive,
    NotDue,
    Silent,
    Suspended,
}

impl Session {
    pub(super) fn dialling(now: Tick, id: SessionId) -> Self {
        Self::Dialling {
            id,
            overdue_at: now + DIAL_WAIT_MAX,
        }
    }

    pub(super) fn next_wake(&self) -> Option<(Tick, AgentWake)> {
        match self {
            Self::Dialling { overdue_at, .. } => Some((*overdue_at, AgentWake::DialOverdue)),
            Self::Open(open) => open.next_wake(),
            Self::Resting | Self::Stopped => None,
            Self::Waiting { dial_at } => Some((*dial_at, AgentWake::DialDue)),
        }
    }
}

impl Open {
    pub(super) fn new(now: Tick, id: SessionId) -> Self {
        Self {
            id,
            opened_at: now,
            is_accepted: false,
            is_linked: false,
            heartbeat_at: now + HEARTBEAT_EVERY,
            pinged_at: now,
            ponged_at: now,
            capacity_seq: 0,
            leaving: None,
        }
    }

    pub(super) fn leave(&mut self, now: Tick, departure: Departure) {
        self.leaving = Some(Leaving {
            departure,
            until: now + LEAVE_WAIT_MAX,
        });
    }

    pub(super) fn pong(&mut self, now: Tick) {
        self.ponged_at = now;
    }

    /// How the session ended, now that it has.
    pub(super) fn ending(&self, now: Tick) -> Ending {
        match &self.leaving {
            Some(Leaving {
                departure: Departure::Deploy,
                ..
            }) => Ending::Deploy,
            Some(Leaving {
                departure: Departure::SentAway,
                ..
            }) => Ending::SentAway,
            None if self.is_accepted => Ending::Lost(now.since(self.opened_at)),
            None => Ending::Unaccepted,
        }
    }

    /// Reads the ping timer, and arms it anew when it was due.
    pub(super) fn pulse(&mut self, now: Tick) -> Pulse {
        if now < self.pinged_at + PING_EVERY {
            return Pulse::NotDue;
        }
        let gap = now.since(self.pinged_at);
        self.pinged_at = now;
        if gap > SUSPENSION_GAP {
            return Pulse::Suspended;
        }
        if now.since(self.ponged_at) >= PONG_WAIT_MAX {
            return Pulse::Silent;
        }
        Pulse::Alive
    }

    /// True when a heartbeat is due; arms the timer anew.
    pub(super) fn is_heartbeat_due(&mut self, now: Tick) -> bool {
        let is_due = self.heartbeat_at <= now;
        if is_due {
            self.heartbeat_at = now + HEARTBEAT_EVERY;
        }
        is_due
    }

    pub(super) const fn number_report(&mut self) -> u64 {
        self.capacity_seq += 1;
        self.capacity_seq
    }

    fn next_wake(&self) -> Option<(Tick, AgentWake)> {
        let ping_at = self.pinged_at + PING_EVERY;
        let mut wake = Some((self.heartbeat_at, AgentWake::HeartbeatDue));
        wake = earlier(wake, (ping_at, AgentWake::PingDue));
        if let Some(leaving) = &self.leaving {
            wake = earlier(wake, (leaving.until, AgentWake::LeaveOverdue));
        }
        wake
    }
}
