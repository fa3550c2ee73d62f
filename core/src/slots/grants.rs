//! How the memory for keys and values is shared out among loaded models: by what one full context of each
//! costs, so that each can hold about as many.

use crate::memory::{KV_BYTES_MIN, KvRate};

/// Tokens of context that count: a model that could take more gets no more for it.
const CONTEXT_TOKENS_MAX: u64 = 131_072;

/// The share of each, in the order of `rates`; together at most `total_bytes`.
///
/// Shares follow what one full context costs. If that is unknown of any, all get the same.
pub(super) fn slice(total_bytes: u64, rates: &[Option<KvRate>]) -> Vec<u64> {
    let weights: Option<Vec<u64>> = rates.iter().map(|rate| rate.map(context_bytes)).collect();
    let weights = weights.unwrap_or_else(|| vec![1; rates.len()]);
    let sum: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
    let share = |weight: u64| {
        let exact = u128::from(total_bytes) * u128::from(weight) / sum;
        u64::try_from(exact).expect("a share of a u64 fits a u64")
    };
    weights.into_iter().map(share).collect()
}

/// The smallest share when it is too small to serve with.
pub(super) fn too_small(grants: &[u64]) -> Option<u64> {
    let least = grants.iter().copied().min()?;
    (least < KV_BYTES_MIN).then_some(least)
}

fn context_bytes(rate: KvRate) -> u64 {
    let tokens = rate.context_tokens.min(CONTEXT_TOKENS_MAX);
    rate.bytes_per_token.saturating_mul(tokens).max(1)
}
