//! The likeliest token, and the likeliest few.

use std::cmp::Ordering;

use super::Sampling;

/// Logits looked through together.
const BLOCK: usize = 256;
const LANES: usize = 16;

/// A token with its logit or weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) value: f32,
    pub(super) token: u32,
}

impl Candidate {
    /// Greatest first, then the lower id: a total order, so equal values cannot differ by run.
    fn rank(&self, other: &Self) -> Ordering {
        other
            .value
            .total_cmp(&self.value)
            .then(self.token.cmp(&other.token))
    }
}

/// The greatest logit, the lowest id among equals. What is no number is passed over; `None` when the
/// greatest is not finite.
pub(super) fn likeliest(logits: &[f32]) -> Option<Candidate> {
    let mut best = f32::NEG_INFINITY;
    let mut best_start = 0;
    for (ix, block) in logits.chunks(BLOCK).enumerate() {
        let greatest = greatest(block);
        if greatest > best {
            best = greatest;
            best_start = ix * BLOCK;
        }
    }
    if !best.is_finite() {
        return None;
    }
    let at = logits[best_start..]
        .iter()
        .position(|&logit| logit == best)?;
    Some(Candidate {
        value: best,
        token: u32::try_from(best_start + at).ok()?,
    })
}

/// Comparing, not `f32::max`: it passes over what is no number in one instruction.
fn greatest(block: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = block.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    let all = lanes.iter().chain(rest);
    all.fold(
        f32::NEG_INFINITY,
        |max, &value| if value > max { value } else { max },
    )
}

/// Leaves in `kept` what the three filters leave of the weights, greatest first. Each of the three
/// keeps a beginning of one descending order of the whole distribution, so the shortest holds; the
/// greatest is always kept.
///
/// Most of a vocabulary can be ruled out by comparing with one weight, so only a few are sorted.
pub(super) fn keep(sampling: &Sampling, weights: &[f32], total: f64, kept: &mut Vec<Candidate>) {
    let at_most = f64::from(sampling.top_p) * total;
    let is_nucleus = sampling.top_p < 1.0;
    #[expect(clippy::cast_precision_loss, reason = "a vocabulary is far below 2^53")]
    let count = weights.len() as f64;
    // Weights below the average of the share left out hold less than that share together, so each
    // of them is preceded by more than `top_p`. The factor leaves room for rounding.
    let nucleus_floor = if is_nucleus {
        (total - at_most) / count * 0.999
    } else {
        0.0
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a bound, rounded down next"
    )]
    let floor = (nucleus_floor as f32 * 0.999).max(sampling.min_p);
    match usize::try_from(sampling.top_k) {
        Ok(0) | Err(_) => collect(weights, floor, kept),
        Ok(top_k) => greatest_of(weights, top_k, floor, kept),
    }
    kept.sort_unstable_by(Candidate::rank);
    let mut preceding = 0.0;
    let mut count = 0;
    for candidate in &*kept {
        if is_nucleus && preceding > at_most {
            break;
        }
        preceding += f64::from(candidate.value);
        count += 1;
    }
    kept.truncate(count);
}

/// The `count` greatest values that are at least `floor`, in no order.
pub(super) fn greatest_of(values: &[f32], count: usize, floor: f32, kept: &mut Vec<Candidate>) {
    kept.clear();
    if count == 0 {
        return;
    }
    // So many blocks hold a value as great as the last of their greatest: so do at least so many
    // tokens, and what is less is none of them.
    for block in values.chunks(BLOCK) {
        kept.push(Candidate {
            value: greatest(block),
            token: 0,
        });
    }
    let bound = if kept.len() >= count {
        let (_, last, _) = kept.select_nth_unstable_by(count - 1, Candidate::rank);
        last.value.max(floor)
    } else {
        floor
    };
    collect(values, bound, kept);
    if kept.len() > count {
        kept.select_nth_unstable_by(count - 1, Candidate::rank);
        kept.truncate(count);
    }
}

/// Sorted, greatest first.
pub(super) fn sorted_greatest(values: &[f32], count: usize, kept: &mut Vec<Candidate>) {
    greatest_of(values, count, f32::NEG_INFINITY, kept);
    kept.sort_unstable_by(Candidate::rank);
}

fn collect(values: &[f32], floor: f32, kept: &mut Vec<Candidate>) {
    kept.clear();
    let all = (0_u32..).zip(values.iter().copied());
    kept.extend(
        all.filter(|&(_, value)| value >= floor)
            .map(|(token, value)| Candidate { value, token }),
    );
}
