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
    /// Our requests that it has.
    pub pending: u32,
    /// By the model's place in the catalogue. Empty: none of the models that it can serve is sold.
    pub offers: Vec<Offered>,
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
