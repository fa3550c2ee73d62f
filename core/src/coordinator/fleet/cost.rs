//! What it costs to send a request to a machine, in microseconds that somebody waits: the request
//! itself until its first content and through its answer, and whoever the machine serves already.

use super::pool::Candidate;

/// What a prompt token costs more for each token before it, in millionths of what it costs by itself:
/// between M1 Max (92) and M3 Max (100), as published for an 8B model at 512 and 8,192 tokens.
const ATTENTION_PPM: u64 = 95;
/// Slow-down of a decode step for each further row in the batch, in thousandths: fits published rates of
/// a 7B model.
const BATCH_SLOWDOWN_MILLI: u64 = 390;
/// Of one prompt in a step that also decodes, what engines of this kind take.
const CHUNK_TOKENS: u64 = 512;
/// Prompt at which machines of one class are compared.
const REFERENCE_PROMPT_TOKENS: u64 = 512;

// What each kind of waiting counts, in percent of waiting for first content. Found by simulation of the
// recorded hours at half of what a fleet can do and at nearly all: rows that stall for somebody's prompt
// count little enough that a long prompt goes to a fast machine that works rather than to a slow one that
// is idle, and enough that answers keep their pace.
const STALLED_PERCENT: u64 = 80;
const ANSWER_PERCENT: u64 = 50;
const SLOWED_PERCENT: u64 = 100;

const OVERCOMMIT_PERCENT: u64 = 120;
/// Prompts that come between never bound a machine to fewer rows.
const ROWS_DESPITE_STALLS: u32 = 4;

/// The size of a request, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) prompt_tokens: u32,
    /// Of these, what the machine has read before.
    pub(crate) cached_tokens: u32,
    /// As expected: what its consumer allows says little.
    pub(crate) output_tokens: u32,
}

/// The terms of one choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Until its prompt is begun.
    pub(crate) wait_us: u64,
    /// Until it is read, the steps of the rows beside it among them.
    pub(crate) prefill_us: u64,
    /// What the rows beside it lose meanwhile.
    pub(crate) stalled_us: u64,
    /// Its answer in that batch.
    pub(crate) answer_us: u64,
    /// By how much it slows the answers beside it.
    pub(crate) slowed_us: u64,
}

impl Cost {
    pub(crate) fn of(work: Work, candidate: &Candidate) -> Self {
        let load = u64::from(candidate.load);
        let prefill_us = shared_prefill_us(work, candidate);
        let output = u64::from(work.output_tokens);
        let alone_us = u64::from(candidate.step_us);
        // Whatever a machine claims of itself and consumers ask for.
        let answer_us = output.saturating_mul(alone_us);
        let slowdown_us = answer_us.saturating_mul(BATCH_SLOWDOWN_MILLI * load) / 1_000;
        Self {
            wait_us: candidate.wait_us.into(),
            prefill_us,
            stalled_us: percent(prefill_us.saturating_mul(load), STALLED_PERCENT),
            answer_us: percent(answer_us.saturating_add(slowdown_us), ANSWER_PERCENT),
            slowed_us: percent(slowdown_us, SLOWED_PERCENT),
        }
    }

    pub(crate) const fn total_us(self) -> u64 {
        self.first_content_us()
            .saturating_add(self.stalled_us)
            .saturating_add(self.answer_us)
            .saturating_add(self.slowed_us)
    }

    pub(crate) const fn first_content_us(self) -> u64 {
        self.wait_us.saturating_add(self.prefill_us)
    }
}

/// What keeps a newcomer of any size waiting, or keeps others: by this, candidates of one class are
/// ordered.
pub(super) fn standing_us(candidate: &Candidate) -> u64 {
    let own_us = prefill_us(REFERENCE_PROMPT_TOKENS, candidate.prefill_us_per_ktok);
    let load = u64::from(candidate.load);
    u64::from(candidate.wait_us) + percent(own_us.saturating_mul(load), STALLED_PERCENT)
}

/// To read a prompt with nothing beside it: its tokens, and each token's look at those before it.
pub(super) const fn prefill_us(prompt_tokens: u64, us_per_ktok: u32) -> u64 {
    let flat_us = prompt_tokens * us_per_ktok as u64 / 1_000;
    let before = prompt_tokens / 2;
    let attention_us = flat_us as u128 * (before * ATTENTION_PPM) as u128 / 1_000_000;
    if attention_us > u64::MAX as u128 {
        return u64::MAX;
    }
    flat_us.saturating_add(attention_us as u64)
}

/// The same beside rows that decode, each of whose steps takes a piece of the prompt along.
fn shared_prefill_us(work: Work, candidate: &Candidate) -> u64 {
    let (prompt, cached) = (work.prompt_tokens.into(), work.cached_tokens.into());
    let whole_us = prefill_us(prompt, candidate.prefill_us_per_ktok);
    let lone_us = whole_us.saturating_sub(prefill_us(cached, candidate.prefill_us_per_ktok));
    if candidate.load == 0 {
        return lone_us;
    }
    let steps = (prompt - cached).div_ceil(CHUNK_TOKENS);
    let step_us = batch_step_us(candidate.step_us.into(), candidate.load);
    lone_us.saturating_add(steps.saturating_mul(step_us))
}

/// A step of a batch of one row more than these.
pub(super) const fn batch_step_us(alone_us: u64, rows_before: u32) -> u64 {
    alone_us.saturating_mul(1_000 + BATCH_SLOWDOWN_MILLI * rows_before as u64) / 1_000
}

/// Rows of which each still gets its tokens at a pleasant pace, and a fifth more, since not all are busy at
/// all times; at most `base`. By the slowest that a token may come, by the time that a lone token takes, and by what the prompts of the rows that
/// take one another's place hold each token up: `stalled_us`, shared among the tokens of an answer.
pub(super) fn rows_of_quality(slowest_us: u64, alone_us: u64, stalled_us: u64, base: u32) -> u32 {
    let unstalled = rows_at_pace(slowest_us, alone_us, 0, base);
    let stalled = rows_at_pace(slowest_us, alone_us, stalled_us, base);
    // Fewer would not help: one long prompt is stall enough, and machines that have read a beginning would
    // be full for those that go on from it.
    unstalled.min(stalled.max(ROWS_DESPITE_STALLS))
}

fn rows_at_pace(slowest_us: u64, alone_us: u64, stalled_us: u64, base: u32) -> u32 {
    let spare_us = slowest_us.saturating_sub(alone_us);
    let each_us = alone_us * BATCH_SLOWDOWN_MILLI / 1_000 + stalled_us;
    let rows = spare_us / each_us.max(1);
    let rows = rows.clamp(1, base.max(1).into());
    let more = (rows * OVERCOMMIT_PERCENT).div_ceil(100);
    u32::try_from(more).unwrap_or(u32::MAX).min(base)
}

const fn percent(us: u64, percent: u64) -> u64 {
    us.saturating_mul(percent) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_a_machine_follow_from_its_lone_pace() {
        // Lone tokens a second, in tenths; the published caps with a base of 24 and of 8.
        let published = [
            (150, 2, 2),
            (250, 2, 2),
            (300, 3, 3),
            (400, 5, 5),
            (500, 6, 6),
            (501, 8, 8),
            (600, 9, 8),
            (800, 14, 8),
            (1_000, 17, 8),
        ];
        for (tenths, of_24, of_8) in published {
            let alone_us = 10_000_000 / tenths;
            assert_eq!(rows_of_quality(66_667, alone_us, 0, 24), of_24, "{tenths}");
            assert_eq!(rows_of_quality(66_667, alone_us, 0, 8), of_8, "{tenths}");
        }
        assert_eq!(rows_of_quality(66_667, 20_000, 0, 1), 1);
        assert_eq!(
            rows_of_quality(66_667, 10_000, 60_000, 24),
            4,
            "long prompts"
        );
        assert_eq!(
            rows_of_quality(66_667, 400_000, 0, 8),
            2,
            "slow, and still of use"
        );
        assert_eq!(rows_of_quality(66_667, 10_000, 0, 24), 17);
        assert_eq!(
            rows_of_quality(66_667, 10_000, 6_000, 24),
            6,
            "prompts come between"
        );
    }

    fn candidate(load: u32) -> Candidate {
        Candidate {
            machine: super::super::pool::MachineTag(1),
            offer: 0,
            wait_us: 20_000,
            prefill_us_per_ktok: 1_000_000,
            step_us: 20_000,
            room_tokens: u32::MAX,
            load,
            has: crate::traits::Traits::NONE,
        }
    }

    #[test]
    fn each_token_of_a_long_prompt_costs_more_and_what_was_read_costs_nothing() {
        let short = prefill_us(512, 1_000_000);
        let long = prefill_us(8_192, 1_000_000);
        assert!(long > 16 * short && long < 24 * short, "{short} {long}");
        let work = |cached_tokens| Work {
            prompt_tokens: 8_192,
            cached_tokens,
            output_tokens: 100,
        };
        let whole = Cost::of(work(0), &candidate(0));
        let rest = Cost::of(work(7_168), &candidate(0));
        assert_eq!(whole.prefill_us, long);
        // The last 1,024 tokens look at all before them.
        assert!(
            (1_500_000..2_000_000).contains(&rest.prefill_us),
            "{rest:?}"
        );
        assert_eq!(whole.answer_us, rest.answer_us);
    }

    #[test]
    fn no_claim_is_too_large_to_be_compared() {
        let work = Work {
            prompt_tokens: u32::MAX,
            cached_tokens: 0,
            output_tokens: u32::MAX,
        };
        let slow = Candidate {
            wait_us: u32::MAX,
            prefill_us_per_ktok: u32::MAX,
            step_us: u32::MAX,
            ..candidate(u32::MAX)
        };
        assert_eq!(Cost::of(work, &slow).total_us(), u64::MAX);
        assert!(standing_us(&slow) > standing_us(&candidate(0)));
    }

    /// Tokens a second of each of so many rows, in tenths: the published projection of 92.8 alone.
    #[test]
    fn a_row_of_a_batch_is_as_slow_as_published() {
        let alone_us = 10_000_000 / 928;
        let published = [928, 668, 521, 428];
        for (before, tenths) in (0..).zip(published) {
            let projected = 10_000_000 / batch_step_us(alone_us, before);
            assert!(projected.abs_diff(tenths) <= 1, "{before}: {projected}");
        }
    }

    #[test]
    fn whoever_works_already_makes_a_machine_dearer() {
        let work = Work {
            prompt_tokens: 1_000,
            cached_tokens: 0,
            output_tokens: 200,
        };
        let costs = [0, 1, 2, 4].map(|load| Cost::of(work, &candidate(load)).total_us());
        assert!(costs.is_sorted_by(|one, next| one < next), "{costs:?}");
    }
}
