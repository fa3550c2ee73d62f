//! `sim liars`: worlds in which up to a third of the machines lie, each world from one number.
//!
//! The real `Coordinator` decides; machines, consumers and the way between them are models. What a
//! relay would have seen of an answer is told as facts, so that a world is long enough for a memory
//! to show: hundreds of requests over many minutes. The swarm beside this sends bytes instead.
//!
//! Four oracles look on. What a consumer asked is served whenever an honest machine has room
//! (INV-26). A machine's lies become rare (INV-27). Nobody pays for what was not shown, beyond the
//! stated band (INV-06). And no honest machine is barred for what an honest machine does (INV-28).

mod judge;
mod machine;
mod plan;
mod script;
#[cfg(test)]
mod tests;
mod world;

use cereus_core::coordinator::{Mischief, Offence};

use crate::swarm::Failure;
pub use plan::{Lie, Plan};
use world::World;

/// A defence that is taken away, to prove that an oracle notices when it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    /// One machine's word against a request is passed on.
    BelievesOne,
    /// A connection may speak of another's attempts.
    ForeignWord,
    /// A fault of this kind is not counted.
    Forgives(Offence),
    /// How late a machine was is not remembered.
    ForgetsLateness,
    /// What a machine did is forgotten when its connection ends.
    ForgetsMachines,
    /// Whoever registers under a name takes it over, proven or not.
    JoinsUnproven,
    /// What a machine claims is charged.
    PaysClaims,
}

impl Plant {
    pub const ALL: [Self; 16] = [
        Self::BelievesOne,
        Self::ForeignWord,
        Self::Forgives(Offence::BrokenSeal),
        Self::Forgives(Offence::Broke),
        Self::Forgives(Offence::Deserted),
        Self::Forgives(Offence::EmptyAnswer),
        Self::Forgives(Offence::GrossOverClaim),
        Self::Forgives(Offence::LoneRefusal),
        Self::Forgives(Offence::OverClaim),
        Self::Forgives(Offence::Overrun),
        Self::Forgives(Offence::Refusals),
        Self::Forgives(Offence::Silence),
        Self::ForgetsLateness,
        Self::ForgetsMachines,
        Self::JoinsUnproven,
        Self::PaysClaims,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BelievesOne => "believes-one",
            Self::ForeignWord => "foreign-word",
            Self::Forgives(offence) => match offence {
                Offence::BrokenSeal => "forgives-broken-seals",
                Offence::Broke => "forgives-failures",
                Offence::Deserted => "forgives-desertion",
                Offence::EmptyAnswer => "forgives-empty-answers",
                Offence::GrossOverClaim => "forgives-gross-claims",
                Offence::LoneRefusal => "forgives-lone-refusals",
                Offence::OverClaim => "forgives-over-claims",
                Offence::Overrun => "forgives-overruns",
                Offence::Refusals => "forgives-refusals",
                Offence::Silence => "forgives-silence",
            },
            Self::ForgetsLateness => "forgets-lateness",
            Self::ForgetsMachines => "forgets-machines",
            Self::JoinsUnproven => "joins-unproven",
            Self::PaysClaims => "pays-claims",
        }
    }

    const fn in_core(self) -> Mischief {
        match self {
            Self::BelievesOne => Mischief::BelievesOne,
            Self::ForeignWord => Mischief::ForeignWord,
            Self::Forgives(offence) => Mischief::Forgives(offence),
            Self::ForgetsLateness => Mischief::ForgetsLateness,
            Self::ForgetsMachines => Mischief::ForgetsMachines,
            Self::JoinsUnproven => Mischief::JoinsUnproven,
            Self::PaysClaims => Mischief::PaysClaims,
        }
    }
}

/// What one world went through. The sums over all seeds tell whether the generator is lazy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tally {
    pub steps: u64,
    pub requests: u64,
    pub answered: u64,
    pub refused: u64,
    /// Ended after content, by a machine that lied.
    pub broken: u64,
    pub attempts: u64,
    pub liars: u64,
    /// Attempts on which a machine lied.
    pub lies: u64,
    /// Of all attempts and of the lies, those from when the memory had had its time.
    pub late_attempts: u64,
    pub late_lies: u64,
    /// The most lies of one machine, of a thousand late attempts.
    pub worst_permille: u64,
    pub digest: u128,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.requests += other.requests;
        self.answered += other.answered;
        self.refused += other.refused;
        self.broken += other.broken;
        self.attempts += other.attempts;
        self.liars += other.liars;
        self.lies += other.lies;
        self.late_attempts += other.late_attempts;
        self.late_lies += other.late_lies;
        self.worst_permille = self.worst_permille.max(other.worst_permille);
        self.digest = self.digest.rotate_left(1) ^ other.digest;
    }
}

/// Runs the world of one seed to its end.
pub fn run_seed(seed: u64, plant: Option<Plant>) -> Result<Tally, Box<Failure>> {
    run_plan(&Plan::draw(seed), plant)
}

pub fn run_plan(plan: &Plan, plant: Option<Plant>) -> Result<Tally, Box<Failure>> {
    World::new(plan, plant).run().map_err(Box::new)
}
