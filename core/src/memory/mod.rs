//! How much memory models and their keys and values may take.
//!
//! One type, [`MemoryCap`], answers the loader, the admission of requests, the heartbeat and
//! `doctor`, so that they cannot disagree. All amounts are whole bytes; a share of something is
//! rounded against the one who asks. Measures nothing: the shell passes what it found.

mod cap;
mod explain;
mod policy;
mod rate;

#[cfg(test)]
mod tests;

pub use self::cap::{AllocatorLimits, Load, MemoryCap, MemoryFacts, Occupancy, Rule, Shortage};
pub use self::explain::{Amount, Explanation, Term};
pub use self::policy::{CapFraction, MemoryPolicy, activation_bytes_of};
pub use self::rate::{KvRate, config_kv_rate};

pub const GIB: u64 = 1 << 30;
/// Left to the system, whatever the fraction says.
pub const OS_FLOOR_BYTES: u64 = 2 * GIB;
/// The least memory for keys and values that makes a model worth serving.
pub const KV_BYTES_MIN: u64 = GIB;
/// What the weights take in memory beyond their files, in parts per million.
const LOADED_PPM: u64 = 1_200_000;
/// Held back from a slot's grant for the growth of rows that already run: without it a
/// new row could take the last page that an old one needs for its next token.
const WATERMARK_PPM: u64 = 50_000;
const PPM: u64 = 1_000_000;

/// The memory that a load is charged for weights of this size on disk.
#[must_use]
pub const fn loaded_bytes(weights_bytes: u64) -> u64 {
    share_ceil(weights_bytes, LOADED_PPM)
}

/// What of a slot's grant new requests may take: all but the watermark.
#[must_use]
pub const fn above_watermark(grant_bytes: u64) -> u64 {
    grant_bytes - share_ceil(grant_bytes, WATERMARK_PPM)
}

/// Tokens that a slot may promise: what is left of the grant when each row that
/// may still join has taken its fixed part.
#[must_use]
pub const fn token_budget(
    grant_bytes: u64,
    bytes_per_token: u64,
    row_overhead_bytes: u64,
    free_rows: u16,
) -> u64 {
    let overhead = row_overhead_bytes.saturating_mul(free_rows as u64);
    match grant_bytes
        .saturating_sub(overhead)
        .checked_div(bytes_per_token)
    {
        Some(tokens) => tokens,
        None => 0,
    }
}

const fn share_floor(bytes: u64, ppm: u64) -> u64 {
    narrowed(bytes as u128 * ppm as u128 / PPM as u128)
}

const fn share_ceil(bytes: u64, ppm: u64) -> u64 {
    narrowed((bytes as u128 * ppm as u128).div_ceil(PPM as u128))
}

const fn narrowed(bytes: u128) -> u64 {
    if bytes > u64::MAX as u128 {
        u64::MAX
    } else {
        bytes as u64
    }
}
