//! Sizes that both ends hold each other to, and the most that a report may claim. "Limits and timeouts" in
//! `docs/protocol.md` says why.

/// Largest message that a coordinator reads; beyond it the connection closes with 1009.
pub const TO_COORDINATOR_SIZE_MAX: usize = 10 * 1024 * 1024;

/// Largest message that a coordinator reads of a provider that has not registered: a registration
/// of [`super::REPORTED_SLOTS_MAX`] models takes less than half of it.
pub const REGISTER_SIZE_MAX: usize = 128 * 1024;

/// Largest message that a provider reads.
pub const TO_PROVIDER_SIZE_MAX: usize = 32 * 1024 * 1024;

/// Largest capacity in GB that a report may claim.
pub const MEMORY_GB_MAX: u32 = 1_024;

/// Largest memory bandwidth in GB/s that a registration may claim.
pub const BANDWIDTH_GBS_MAX: u32 = 2_000;

/// Fastest decode that is believed, in tokens a second.
pub const DECODE_TPS_MAX: u32 = 500;

/// Fastest prefill that is believed, in tokens a second. What is faster counts as this much: a machine
/// that says more of itself never looks slower for it.
pub const PREFILL_TPS_MAX: u32 = 20_000;

/// Highest concurrency that one slot may claim.
pub const CONCURRENCY_MAX: u16 = 24;

/// Longest model load that is believed, in milliseconds.
pub const LOAD_MS_MAX: u32 = 3_600_000;

/// Largest token budget that is believed.
pub const TOKEN_BUDGET_MAX: u64 = 10_000_000_000;
