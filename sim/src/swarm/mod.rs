//! `sim swarm`: random worlds, each from one number. Bytes travel on the links, so that the codecs,
//! the sealing and the relays are simulated too; everything that can break breaks for a while, then
//! nothing does, and what was asked must come to its end.

mod coordinator;
mod disk;
mod lies;
mod net;
mod people;
pub mod plan;
mod provider;
#[cfg(test)]
mod tests;
mod text;
mod turns;
mod world;

use cereus_core::coordinator::Mischief;
use cereus_core::time::Tick;
use thiserror::Error;

use crate::oracle::Violation;
use plan::Plan;
use world::World;

/// A bug put in on purpose, to prove that an oracle notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    DoubleSettle,
    DroppedChunk,
    LeakedHold,
    LostCancel,
    LostReceipt,
    OldConnection,
    OlderAttempt,
    StaleReport,
    UnheardTerminal,
}

impl Plant {
    pub const ALL: [Self; 9] = [
        Self::DoubleSettle,
        Self::DroppedChunk,
        Self::LeakedHold,
        Self::LostCancel,
        Self::LostReceipt,
        Self::OldConnection,
        Self::OlderAttempt,
        Self::StaleReport,
        Self::UnheardTerminal,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DoubleSettle => "double-settle",
            Self::DroppedChunk => "dropped-chunk",
            Self::LeakedHold => "leaked-hold",
            Self::LostCancel => "lost-cancel",
            Self::LostReceipt => "lost-receipt",
            Self::OldConnection => "old-connection",
            Self::OlderAttempt => "older-attempt",
            Self::StaleReport => "stale-report",
            Self::UnheardTerminal => "unheard-terminal",
        }
    }

    /// The bugs of the coordinator; the others are in what surrounds it.
    const fn in_core(self) -> Option<Mischief> {
        match self {
            Self::DoubleSettle => Some(Mischief::DoubleSettle),
            Self::LeakedHold => Some(Mischief::LeakedHold),
            Self::LostCancel => Some(Mischief::LostCancel),
            Self::LostReceipt => Some(Mischief::LostReceipt),
            Self::StaleReport => Some(Mischief::StaleReport),
            Self::DroppedChunk
            | Self::OldConnection
            | Self::OlderAttempt
            | Self::UnheardTerminal => None,
        }
    }
}

/// What one world went through. The sums over all seeds tell whether the generator is lazy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tally {
    pub events: u64,
    pub core_steps: u64,
    pub frames: u64,
    pub answered: u64,
    pub broken: u64,
    pub left: u64,
    pub reset: u64,
    pub refused: u64,
    pub faults: u64,
    pub stale_events: u64,
    /// Loads that machines were told to make.
    pub loads: u64,
    /// Planned and without an object when their time came.
    pub skipped: u64,
    pub digest: u128,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.core_steps += other.core_steps;
        self.frames += other.frames;
        self.answered += other.answered;
        self.broken += other.broken;
        self.left += other.left;
        self.reset += other.reset;
        self.refused += other.refused;
        self.faults += other.faults;
        self.stale_events += other.stale_events;
        self.loads += other.loads;
        self.skipped += other.skipped;
        self.digest = self.digest.rotate_left(1) ^ other.digest;
    }
}

/// A world that broke a law.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("seed {seed} at {}.{:06} s: {violation}", .at.0 / 1_000_000, .at.0 % 1_000_000)]
pub struct Failure {
    pub seed: u64,
    pub at: Tick,
    pub violation: Violation,
}

/// Runs the world of one seed to its end.
pub fn run_seed(seed: u64, plant: Option<Plant>) -> Result<Tally, Box<Failure>> {
    World::new(Plan::draw(seed), plant).run().map_err(Box::new)
}
