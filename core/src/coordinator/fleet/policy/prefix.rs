//! Policies of the field that know who has read a prompt's beginning, by their published rules and
//! defaults. All of them ask the same memory of what machines were sent, so that what differs is the
//! rule alone.

use super::super::Fleet;
use super::super::choose::{Want, is_fit};
use super::super::cost::prefill_us;
use super::super::pool::Candidate;
use crate::draw::{Purpose, Seed};
use crate::prefix::BLOCK_TOKENS;

/// `SGLang`'s router: loads are uneven when they differ by more than this, and by this factor in
/// thousandths; a match counts from this share of the prompt on, in thousandths.
const UNEVEN_BY: u32 = 64;
const UNEVEN_MILLI: u64 = 1_500;
const MATCH_MILLI: u64 = 300;
/// What the Gateway API's inference extension and `llm-d` weigh by default: the prefix, the queue and the
/// memory in use.
const WEIGHTS: [u64; 3] = [3, 2, 2];

/// A machine that could take the request, and what is known of it.
struct Seen<'a> {
    candidate: &'a Candidate,
    /// Blocks of the prompt that it has read.
    matched: u64,
    /// All blocks that it was ever sent: the size of its tree, where nothing is dropped.
    sent_blocks: u64,
    /// Prompts that wait there or are being read, and all that it has reserved.
    prefill_tokens: u64,
    used_tokens: u64,
    waiting: u64,
    /// Of its memory, in thousandths.
    used_milli: u64,
    /// Decides between equals.
    chance: u64,
}

impl Fleet {
    fn seen(&self, want: &Want<'_>, seed: Seed) -> Vec<Seen<'_>> {
        let readers = self.readers(want);
        let pool = &self.supply(want.model).pool;
        let fit = pool.iter().filter(|candidate| is_fit(want, candidate));
        let seen = fit.map(|candidate| {
            let offer = self.offers.at(candidate.offer);
            let used_tokens = offer.used_tokens();
            let which = u128::from(candidate.machine.0);
            Seen {
                candidate,
                matched: readers.blocks(candidate.offer).map_or(0, u64::from),
                sent_blocks: offer.sent_blocks,
                prefill_tokens: offer.prefill_tokens,
                used_tokens,
                waiting: offer.report.waiting.into(),
                used_milli: used_tokens.saturating_mul(1_000) / offer.report.budget_max.max(1),
                chance: seed.draw(Purpose::Tie, want.request.0, which),
            }
        });
        seen.collect()
    }

    /// The longest match, if it is long enough; otherwise the machine that was sent least. While loads are
    /// uneven, the least loaded.
    pub(super) fn cache_aware(&self, want: &Want<'_>, seed: Seed) -> Option<&Candidate> {
        let seen = self.seen(want, seed);
        let loads = || seen.iter().map(|it| it.candidate.load);
        let (least, most) = (loads().min()?, loads().max()?);
        let is_uneven =
            most - least > UNEVEN_BY && u64::from(most) * 1_000 > u64::from(least) * UNEVEN_MILLI;
        if is_uneven {
            let least = seen.iter().min_by_key(|it| (it.candidate.load, it.chance));
            return least.map(|it| it.candidate);
        }
        let blocks = blocks_of(want);
        let best = seen.iter().max_by_key(|it| (it.matched, it.chance))?;
        if best.matched * 1_000 > blocks * MATCH_MILLI {
            return Some(best.candidate);
        }
        let smallest = seen.iter().min_by_key(|it| (it.sent_blocks, it.chance));
        smallest.map(|it| it.candidate)
    }

    /// `Dynamo`'s: the fewest blocks to read, those that wait there among them, and to hold.
    pub(super) fn fewest_blocks(&self, want: &Want<'_>, seed: Seed) -> Option<&Candidate> {
        let blocks = blocks_of(want);
        let tokens = u64::from(BLOCK_TOKENS);
        let cost = |it: &Seen<'_>| {
            let to_read = it.prefill_tokens / tokens + blocks.saturating_sub(it.matched);
            let to_hold = it.used_tokens / tokens + blocks;
            to_read + to_hold
        };
        let seen = self.seen(want, seed).into_iter();
        let best = seen.min_by_key(|it| (cost(it), it.chance));
        best.map(|it| it.candidate)
    }

    /// Preble's: where more is matched than is left, the machine with the longest match; otherwise the
    /// least of the work that is there, what would be evicted, and what is left to read.
    pub(super) fn exploit_or_explore(&self, want: &Want<'_>, seed: Seed) -> Option<&Candidate> {
        let seen = self.seen(want, seed);
        let blocks = blocks_of(want);
        let longest = seen.iter().map(|it| it.matched).max()?;
        if longest > blocks.saturating_sub(longest) {
            let same = seen.iter().filter(|it| it.matched == longest);
            let best = same.min_by_key(|it| (it.candidate.load, it.chance));
            return best.map(|it| it.candidate);
        }
        let cost = |it: &Seen<'_>| {
            let per_ktok = it.candidate.prefill_us_per_ktok;
            let read_us = |tokens: u64| prefill_us(tokens, per_ktok);
            let answers = u64::from(it.candidate.load) * u64::from(want.output_tokens);
            let there_us = read_us(it.prefill_tokens) + answers * u64::from(it.candidate.step_us);
            let room = u64::from(it.candidate.room_tokens);
            let evicted_us = read_us(want.need_tokens.saturating_sub(room));
            let left = blocks.saturating_sub(it.matched) * u64::from(BLOCK_TOKENS);
            there_us + evicted_us + read_us(left.min(want.prompt_tokens.into()))
        };
        let best = seen.iter().min_by_key(|it| (cost(it), it.chance));
        best.map(|it| it.candidate)
    }

    /// `llm-d`'s: the highest weighted sum of the matched share, the shortness of the queue among all, and
    /// the free share of memory.
    pub(super) fn highest_score(&self, want: &Want<'_>, seed: Seed) -> Option<&Candidate> {
        let seen = self.seen(want, seed);
        let waiting = || seen.iter().map(|it| it.waiting);
        let (least, most) = (waiting().min()?, waiting().max()?);
        let blocks = blocks_of(want);
        let score = |it: &Seen<'_>| {
            let matched = it.matched * 1_000 / blocks.max(1);
            let queue = ((most - it.waiting) * 1_000).checked_div(most - least);
            let free = 1_000u64.saturating_sub(it.used_milli);
            let scores = [matched, queue.unwrap_or(1_000), free];
            let weighted = scores
                .iter()
                .zip(WEIGHTS)
                .map(|(score, weight)| score * weight);
            weighted.sum::<u64>()
        };
        let best = seen.iter().max_by_key(|it| (score(it), it.chance));
        best.map(|it| it.candidate)
    }
}

fn blocks_of(want: &Want<'_>) -> u64 {
    u64::from(want.prompt_tokens).div_ceil(BLOCK_TOKENS.into())
}
