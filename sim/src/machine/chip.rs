//! How fast a chip computes: whole nanoseconds, so that a thousand steps added up one by one and
//! their sum in one formula are the same number on every platform.

/// A chip serving a 7B model in 4 bits: the model of which a public network has published its rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Chip {
    pub name: &'static str,
    pub memory_gb: u32,
    pub bandwidth_gbs: u32,
    /// To compute one prompt token.
    pub prefill_ns_per_token: u64,
    /// Every step reads the weights once.
    pub step_ns: u64,
    /// Each decoding row adds this.
    pub row_ns: u64,
    /// Each token of KV that the step reads adds this.
    pub context_ns_per_token: u64,
    /// Memory for KV beside the weights.
    pub kv_size: u64,
}

/// Size of the weights, 7B parameters in 4 bits with scales.
pub const WEIGHTS_SIZE: u64 = 4_200_000_000;
/// Keys and values of one token, as published for that model.
pub const KV_SIZE_PER_TOKEN: u64 = 357_615;
/// What the runtime keeps of the memory for itself and its activations: the headroom that the
/// published engine leaves.
const RESERVE_SIZE: u64 = 4 << 30;

const fn chip(
    name: &'static str,
    memory_gb: u32,
    bandwidth_gbs: u32,
    prefill_tokens_per_s: u64,
    row_ns: u64,
) -> Chip {
    let memory = memory_gb as u64 * 1_000_000_000;
    let bandwidth = bandwidth_gbs as u64;
    Chip {
        name,
        memory_gb,
        bandwidth_gbs,
        prefill_ns_per_token: 1_000_000_000 / prefill_tokens_per_s,
        // Bytes divided by gigabytes a second are nanoseconds.
        step_ns: WEIGHTS_SIZE / bandwidth,
        row_ns,
        context_ns_per_token: KV_SIZE_PER_TOKEN / bandwidth,
        kv_size: memory * 9 / 10 - WEIGHTS_SIZE - RESERVE_SIZE,
    }
}

/// Prefill rates as published for three chips. The published decode rates at batches of 1, 2, 4 and 8
/// (92.8, 69.5, 35.9 and 29.6 tokens a second for each row) lie by the 400 GB/s chip's line of 10.5 ms and
/// 3.1 ms a row; the others' rows scale by bandwidth.
pub const CHIPS: [Chip; 3] = [
    chip("max-previous", 64, 400, 1_638, 3_100_000),
    chip("max", 128, 546, 4_551, 2_270_000),
    chip("ultra", 256, 819, 7_680, 1_510_000),
];

impl Chip {
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        CHIPS.iter().copied().find(|chip| chip.name == name)
    }

    /// One step that computes `prefill_tokens` and a token for each of `rows`, over `context_tokens`
    /// of KV.
    #[must_use]
    pub const fn step(&self, prefill_tokens: u64, rows: u64, context_tokens: u64) -> u64 {
        self.step_ns
            + self.prefill_ns_per_token * prefill_tokens
            + self.row_ns * rows
            + self.context_ns_per_token * context_tokens
    }

    /// `steps` decode steps of `rows` rows, each of which lengthens the context by one token.
    #[must_use]
    pub const fn decode(&self, steps: u64, rows: u64, context_tokens: u64) -> u64 {
        if steps == 0 {
            return 0;
        }
        let growth = self.context_ns_per_token * rows * (steps * (steps - 1) / 2);
        steps * self.step(0, rows, context_tokens) + growth
    }

    /// Thousandths of a token a second, of a lone row: the registration benchmark.
    #[must_use]
    pub fn decode_mtps(&self) -> u32 {
        mtps(1, self.step(0, 1, 0))
    }

    #[must_use]
    pub fn prefill_mtps(&self) -> u32 {
        mtps(1, self.prefill_ns_per_token)
    }
}

/// Thousandths of a token a second, rounded down.
#[must_use]
pub fn mtps(tokens: u64, took_ns: u64) -> u32 {
    let wide = u128::from(tokens) * 1_000_000_000_000 / u128::from(took_ns.max(1));
    u32::try_from(wide).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_steps_at_once_take_as_long_as_one_by_one() {
        for chip in CHIPS {
            for (rows, context) in [(1, 0), (3, 1_000), (8, 100_000)] {
                let mut sum = 0;
                for step in 0..500 {
                    assert_eq!(chip.decode(step, rows, context), sum);
                    sum += chip.step(0, rows, context + step * rows);
                }
            }
        }
    }

    #[test]
    fn batches_slow_rows_down_as_measured() {
        let chip = CHIPS[0];
        // Tokens a second for each row, as published, within a fifth.
        for (rows, measured) in [(1, 92_800), (2, 69_500), (4, 35_900), (8, 29_600)] {
            let modelled = mtps(1, chip.step(0, rows, 0));
            assert!(
                modelled.abs_diff(measured) < measured / 5 + 6_000,
                "{rows}: {modelled}"
            );
        }
    }
}
