//! What the system says of its memory.

use std::fmt;

use cereus_core::memory::MemoryPolicy;
use cereus_core::slots::Strain;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
// Elsewhere it is built for its tests.
#[cfg(any(target_os = "macos", test))]
mod vm_stat;

#[cfg(target_os = "linux")]
pub use self::linux::LinuxMemory as SystemMemory;
#[cfg(target_os = "macos")]
pub use self::macos::MacMemory as SystemMemory;

/// Takes the place of the activation reserve, in GiB, when it is above zero.
pub const ACTIVATION_VARIABLE: &str = "CEREUS_ACTIVATION_RESERVE_GB";
/// The share of the memory that models may fill.
pub const FRACTION_VARIABLE: &str = "CEREUS_MEM_CAP_FRACTION";
/// Assumed of a system that says nothing of its memory.
const PHYSICAL_BYTES_UNKNOWN: u64 = 8 << 30;

/// Where measurements of the memory come from.
pub trait MemoryProbe: Send + fmt::Debug {
    fn read(&self) -> MemoryReading;
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryReading {
    /// What the machine has, or what this process may have of it.
    pub physical_bytes: u64,
    /// What could be given to this process now.
    pub available_bytes: u64,
    pub strain: Strain,
}

/// A probe that always says the same, for tests and for questions of the kind "what if".
#[derive(Clone, Copy, Debug)]
pub struct FixedMemory(pub MemoryReading);

impl MemoryProbe for FixedMemory {
    fn read(&self) -> MemoryReading {
        self.0
    }
}

/// The operator's policy: the reference, the environment's wishes, and a reserve from the command
/// line.
#[must_use]
pub fn policy(reserve_bytes: Option<u64>) -> MemoryPolicy {
    use cereus_core::memory::{CapFraction, activation_bytes_of};

    let reference = MemoryPolicy::reference();
    let variable = |name| std::env::var(name).ok();
    let fraction = variable(FRACTION_VARIABLE).and_then(|text| CapFraction::parse(&text));
    let activation = variable(ACTIVATION_VARIABLE).and_then(|text| activation_bytes_of(&text));
    MemoryPolicy {
        fraction: fraction.unwrap_or(reference.fraction),
        activation_bytes: activation.unwrap_or(reference.activation_bytes),
        reserve_bytes: reserve_bytes.unwrap_or(reference.reserve_bytes),
        ..reference
    }
}

/// `12.34` percent as parts per million; what comes after the second decimal is dropped.
fn percent_ppm(text: &str) -> Option<u32> {
    const DECIMALS: usize = 2;
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let part = part.get(..DECIMALS.min(part.len()))?;
    let hundredths: u32 = format!("{whole}{part:0<DECIMALS$}").parse().ok()?;
    hundredths.checked_mul(100)
}
