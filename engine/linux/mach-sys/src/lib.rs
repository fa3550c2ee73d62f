//! The one name of `mach-sys` that mlx-rs uses.

/// The kernel's clocks.
pub mod mach_time {
    use std::time::{SystemTime, UNIX_EPOCH};

    /// A number that differs from run to run. mlx-rs seeds its default random key with it; Cereus
    /// itself never samples from that key.
    #[must_use]
    pub fn mach_approximate_time() -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| u64::from(elapsed.subsec_nanos()) ^ (elapsed.as_secs() << 32))
    }
}
