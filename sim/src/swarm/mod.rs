//! `sim swarm`: random worlds, each from one number. Bytes travel on the links, so that the codecs,
//! the sealing and the relays are simulated too; everything that can break breaks for a while, then
//! nothing does, and what was asked must come to its end.

mod clock;
mod coordinator;
mod disk;
mod lies;
mod log;
pub mod marks;
mod net;
mod people;
pub mod plan;
mod plant;
mod provider;
pub mod shrink;
#[cfg(test)]
mod tests;
mod text;
mod turns;
mod world;

use cereus_core::effect::Effects;
use cereus_core::event::Event;
use cereus_core::time::Tick;
use thiserror::Error;

use crate::oracle::Violation;
use marks::Marks;
use plan::{Only, Plan};
pub use plant::Plant;
use world::World;

/// What one world went through. The sums over all seeds tell whether the generator is lazy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
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
    /// In microseconds.
    pub simulated_us: u64,
    pub marks: Marks,
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
        self.simulated_us += other.simulated_us;
        self.marks.add(&other.marks);
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

/// Sees each step of the coordinator.
pub type Observer = fn(Tick, &Event<'_>, &Effects);

/// One world to run.
#[derive(Clone, Debug)]
pub struct Trial {
    pub seed: u64,
    pub plant: Option<Plant>,
    pub only: Only,
    pub observer: Option<Observer>,
}

impl Trial {
    /// The whole world of that seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self {
            seed,
            plant: None,
            only: Only::default(),
            observer: None,
        }
    }

    /// Runs it to its end.
    pub fn run(&self) -> Result<Tally, Box<Failure>> {
        let mut plan = Plan::draw(self.seed);
        plan.keep(&self.only);
        World::new(plan, self).run().map_err(Box::new)
    }
}

/// Runs the world of one seed to its end.
pub fn run_seed(seed: u64, plant: Option<Plant>) -> Result<Tally, Box<Failure>> {
    Trial {
        plant,
        ..Trial::of(seed)
    }
    .run()
}
