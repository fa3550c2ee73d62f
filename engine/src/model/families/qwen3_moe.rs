//! Qwen3 with experts: layers of them, and dense ones where the file lists or spaces them.

use super::decoder::Defaults;
use super::{Decoder, Family, before, qwen3, silu};
use crate::model::config::{
    Activation, Bias, Config, Dense, ExpertNames, Experts, FeedForward, Keys, Router, missing,
};
use crate::model::error::ModelError;

/// What Qwen's files call a router and its experts, once the experts stand in one tensor.
pub(super) const NAMES: ExpertNames = ExpertNames {
    router: "mlp.gate",
    experts: "mlp.switch_mlp",
};

pub(super) fn read(keys: &Keys<'_>) -> Result<Config, ModelError> {
    let decoder = Decoder::read(keys, &Defaults::PLAIN)?;
    let attention = qwen3::attention(keys, &decoder)?;
    let experts = experts(keys, "norm_topk_prob", false)?;
    let dense_layers = keys.indices("mlp_only_layers")?;
    let step = keys.count("decoder_sparse_step")?.unwrap_or(1);
    let step = usize::try_from(step.max(1)).expect("counts are not negative");
    let layers = (0..decoder.layer_count).map(|index| {
        let is_dense = dense_layers.contains(&index) || (index + 1) % step != 0;
        let feed_forward = if is_dense {
            FeedForward::Dense(silu(keys)?)
        } else {
            FeedForward::Experts(experts)
        };
        Ok(before(attention.clone(), feed_forward))
    });
    let layers = layers.collect::<Result<Vec<_>, ModelError>>()?;
    decoder.config(keys, Family::Qwen3Moe, layers)
}

/// Experts as Qwen's files describe them.
pub(super) fn experts(
    keys: &Keys<'_>,
    renormalise_key: &str,
    renormalised: bool,
) -> Result<Experts, ModelError> {
    let count = keys.heads("num_experts")?;
    let count = count.ok_or_else(|| missing("num_experts"))?;
    Ok(Experts {
        count,
        chosen: chosen(keys, "num_experts_per_tok", count)?,
        each: Dense {
            inner: keys.width("moe_intermediate_size")?,
            activation: Activation::Silu,
            bias: Bias::Absent,
        },
        router: if keys.flag(renormalise_key, renormalised)? {
            Router::SharesOfAllRenormalised
        } else {
            Router::SharesOfAll
        },
        shared_inner: None,
        names: NAMES,
    })
}

/// How many experts a token takes, of `count`.
pub(super) fn chosen(keys: &Keys<'_>, key: &str, count: i32) -> Result<i32, ModelError> {
    let chosen = keys.heads(key)?.ok_or_else(|| missing(key))?;
    if chosen <= count {
        return Ok(chosen);
    }
    Err(ModelError::Inconsistent(format!(
        "{key} {chosen} is more than the {count} experts that there are"
    )))
}
