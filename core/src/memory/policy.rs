//! What an operator may set: the share of the memory, and what is kept free of models.

use super::GIB;

const PPM: f64 = 1_000_000.0;

/// The share of physical memory that models may fill, in parts per million: 1 to 1 000 000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CapFraction(u32);

impl CapFraction {
    /// Nine tenths.
    pub const REFERENCE: Self = Self(900_000);

    #[must_use]
    pub const fn ppm(self) -> u32 {
        self.0
    }

    /// Reads an environment variable: zero, less, or no finite number counts as not set; more than
    /// one is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fraction = positive(text)?.min(1.0);
        Some(Self((rounded(fraction * PPM) as u32).max(1)))
    }
}

/// Reads an environment variable of gibibytes that takes the place of the activation reserve;
/// `None` when it says nothing above zero.
#[must_use]
pub fn activation_bytes_of(text: &str) -> Option<u64> {
    positive(text).map(|gib| rounded(gib * GIB as f64))
}

/// Everything that bounds a machine's models, each with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemoryPolicy {
    pub fraction: CapFraction,
    /// For what a step computes in between.
    pub activation_bytes: u64,
    /// For the operator's own programs (`memory_reserve_gb`).
    pub reserve_bytes: u64,
    /// For prefixes kept in memory.
    pub prefix_bytes: u64,
}

impl MemoryPolicy {
    /// What a provider runs with unless its operator says otherwise, as the published engine does: 3 GiB
    /// for a step, 4 GiB for the operator's own programs.
    #[must_use]
    pub const fn reference() -> Self {
        Self {
            fraction: CapFraction::REFERENCE,
            activation_bytes: 3 * GIB,
            reserve_bytes: 4 * GIB,
            prefix_bytes: 0,
        }
    }
}

fn positive(text: &str) -> Option<f64> {
    let number: f64 = text.trim().parse().ok()?;
    (number.is_finite() && number > 0.0).then_some(number)
}

/// The one conversion from a float: to the nearest, and saturating.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an operator's decimal becomes a whole number here, and stays one"
)]
fn rounded(value: f64) -> u64 {
    (value + 0.5) as u64
}
