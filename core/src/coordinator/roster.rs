//! Who is here and what comes of it, for an operator.

use core::fmt;

use super::Coordinator;
use crate::event::{SlotState, Trust};
use crate::ids::{AccountId, ConnId, MachineId, ModelIx};
use crate::link::NOTHING_SOLD;
use crate::time::Span;

/// A connected machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    pub conn: ConnId,
    pub machine: MachineId,
    /// Who earns.
    pub owner: AccountId,
    pub trust: Trust,
    /// It passed its last challenge, and lately.
    pub is_verified: bool,
    pub audience: Audience,
    /// Since its last report; since it joined, before the first one.
    pub report_age: Span,
    /// For how long it still gets work only where nobody else is there.
    pub barred_for: Option<Span>,
    /// Its connection was lost at work again and again: it gets one request at a time.
    pub lossy: Option<Lossy>,
    /// Our requests that it has.
    pub pending: u32,
    /// By the model's place in the catalogue. Empty: none of the models that it can serve is sold.
    pub offers: Vec<Offered>,
}

/// A machine whose connection was lost while it worked, more often than chance explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lossy {
    /// Losses at work, and with nothing to do, none long after another.
    pub at_work: u8,
    pub idle: u8,
    /// Our requests that it had at the last one at work.
    pub rows: u32,
    pub last_ago: Span,
    /// Whole answers until it may have more than one request at a time.
    pub answers_owed: u8,
    pub cause: LikelyCause,
}

/// Why a machine is lost again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LikelyCause {
    /// It is lost as well while it has nothing to do.
    Network,
    /// Only while it works.
    OutOfMemory,
}

/// Whom a machine serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    Everybody,
    /// Its owner's requests alone.
    Owner,
}

/// A model on a connected machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    pub model: ModelIx,
    pub state: SlotState,
    /// Our requests that it has of this model.
    pub pending: u32,
    /// Rows beside them that it reports.
    pub others: u32,
    /// What it says that it runs at once; 0: it never said.
    pub concurrency_max: u16,
    /// Why it gets nothing: what closes it for routing, as well. Empty if it may.
    pub closed: Vec<&'static str>,
}

impl Present {
    /// Why the machine as a whole gets nothing, where no single model is to blame.
    #[must_use]
    pub fn hindrance(&self) -> Option<&'static str> {
        self.offers.is_empty().then_some(NOTHING_SOLD)
    }
}

impl fmt::Display for Lossy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "lost {} times at work, the last time {} s ago with {} request(s), ",
            self.at_work,
            self.last_ago.0 / 1_000_000,
            self.rows
        )?;
        match self.cause {
            LikelyCause::Network => write!(
                f,
                "and {} times with nothing to do: most likely its network fails",
                self.idle
            ),
            LikelyCause::OutOfMemory => f.write_str(
                "and never with nothing to do: most likely its system ends it for want of memory",
            ),
        }?;
        write!(
            f,
            "; one request at a time until {} more answers have come",
            self.answers_owed
        )
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Everybody => "everybody",
            Self::Owner => "its owner",
        })
    }
}

impl Coordinator {
    /// Every connected machine, by its connection. Reads the whole fleet.
    #[must_use]
    pub fn roster(&self) -> Vec<Present> {
        self.fleet.roster(self.now)
    }

    /// One of them.
    #[must_use]
    pub fn present(&self, conn: ConnId) -> Option<Present> {
        self.fleet.present_at(self.now, conn)
    }
}
