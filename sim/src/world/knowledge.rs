//! What the coordinator is told of requests and machines. In production it estimates tokens from
//! bytes, hears benchmarks that were taken on another day, and knows of an answer only how long its
//! consumer would let it become.

use crate::hardware::Chip;
use crate::stream::{Ratio, Stream, narrow};

/// Whether it is told the truth: an upper bound of what a policy could make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Knowledge {
    Perfect,
    Production,
}

/// Bytes of text for each token, in thousandths: code and tables at the lower end, prose at the upper.
const BYTES_MILLI: (u64, u64) = (3_000, 5_000);
/// A benchmark is off by so much in either direction, in thousandths: another build, a warm machine.
const BENCHMARK_MILLI: u64 = 150;
/// Consumers who say nothing of the length of an answer get the model's default.
const UNBOUNDED: Ratio = Ratio::new(1, 2);
const BOUNDS: [u32; 6] = [256, 512, 1_024, 2_048, 4_096, 16_384];
/// What such a consumer is promised.
pub const OUTPUT_TOKENS_DEFAULT: u32 = 4_096;

/// What is asked for a prompt of so many tokens and an answer of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Bytes of the prompt's text.
    pub prompt_bytes: u32,
    pub output_tokens_max: u32,
}

/// Draws what is told of requests, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Teller {
    knowledge: Knowledge,
    stream: Stream,
}

impl Teller {
    pub(super) fn new(knowledge: Knowledge, seed: u64) -> Self {
        Self {
            knowledge,
            stream: Stream::new(seed, "knowledge"),
        }
    }

    /// `room`: tokens that the context leaves for the answer. No bound is below the true length, so
    /// that the work of a trace is the same whatever is told of it.
    pub(super) fn tell(&mut self, prompt_tokens: u32, output_tokens: u32, room: u32) -> Told {
        let exact = |milli| u64::from(prompt_tokens) * milli / 1_000;
        let (low, high) = BYTES_MILLI;
        let (prompt_bytes, bound) = match self.knowledge {
            Knowledge::Perfect => (exact(4_000), output_tokens),
            Knowledge::Production => {
                let bytes = exact(self.stream.between(low, high));
                let bound = match self.stream.chance(UNBOUNDED) {
                    true => OUTPUT_TOKENS_DEFAULT,
                    false => self.stream.pick(&BOUNDS),
                };
                let longer = BOUNDS.into_iter().find(|longer| *longer >= output_tokens);
                (bytes, bound.max(longer.unwrap_or(room)))
            }
        };
        Told {
            prompt_bytes: u32::try_from(prompt_bytes).unwrap_or(u32::MAX).max(1),
            output_tokens_max: bound.clamp(1, room),
        }
    }
}

/// What a machine says of its speed when it joins, in thousandths of a token a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Benchmark {
    pub(super) decode_mtps: u32,
    pub(super) prefill_mtps: u32,
}

impl Benchmark {
    pub(super) fn of(chip: &Chip, knowledge: Knowledge, stream: &mut Stream) -> Self {
        let mut off = |mtps: u32| match knowledge {
            Knowledge::Perfect => mtps,
            Knowledge::Production => {
                let milli = stream.between(1_000 - BENCHMARK_MILLI, 1_000 + BENCHMARK_MILLI);
                narrow(u64::from(mtps) * milli / 1_000)
            }
        };
        Self {
            decode_mtps: off(chip.decode_mtps()),
            prefill_mtps: off(chip.prefill_mtps()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_says_little_of_the_answer_and_is_never_below_it() {
        let mut teller = Teller::new(Knowledge::Production, 3);
        let mut bounds = std::collections::BTreeMap::new();
        for ix in 0..2_000u32 {
            let output = 1 + ix % 700;
            let told = teller.tell(1_000, output, 100_000);
            assert!(told.output_tokens_max >= output);
            assert!((3_000..=5_000).contains(&told.prompt_bytes));
            *bounds.entry(told.output_tokens_max).or_insert(0u32) += 1;
        }
        assert!(bounds[&OUTPUT_TOKENS_DEFAULT] > 900, "{bounds:?}");
        assert!(bounds[&16_384] > 100, "{bounds:?}");
        assert!(
            bounds.keys().all(|bound| BOUNDS.contains(bound)),
            "{bounds:?}"
        );
    }

    #[test]
    fn perfect_knowledge_is_the_truth() {
        let mut teller = Teller::new(Knowledge::Perfect, 3);
        let told = Told {
            prompt_bytes: 4_000,
            output_tokens_max: 17,
        };
        assert_eq!(teller.tell(1_000, 17, 100), told);
    }
}
