//! Qwen3.5: three recurrent layers by the gated delta rule to each layer of gated attention; dense
//! or with experts and a shared one.

use super::decoder::Defaults;
use super::{Decoder, Family, before, qwen3_moe, silu};
use crate::model::config::{
    Attention, Bias, Config, Experts, FeedForward, GatedDelta, HeadNorms, Keys, Layer, Mixer,
    NormPlaces, OutputGate, OutputScale, Rope, missing, turning,
};
use crate::model::error::ModelError;

const THETA_DEFAULT: f32 = 100_000.0;
/// Every fourth layer attends, when the file does not say.
const INTERVAL_DEFAULT: i32 = 4;

pub(super) fn read(keys: &Keys<'_>) -> Result<Config, ModelError> {
    let decoder = Decoder::read(keys, &Defaults::PLAIN)?;
    let delta = gated_delta(keys)?;
    let bias = Bias::from_flag(keys.flag("attention_bias", false)?);
    let attention = Attention {
        head_norms: HeadNorms::QueryKey,
        input_bias: bias,
        output_bias: bias,
        gate: OutputGate::Sigmoid,
        ..decoder.attention(rope(keys, decoder.head_dim)?)
    };
    let feed_forward = match keys.count("num_experts")? {
        None | Some(0) => FeedForward::Dense(silu(keys)?),
        Some(_) => FeedForward::Experts(Experts {
            shared_inner: Some(keys.width("shared_expert_intermediate_size")?),
            ..qwen3_moe::experts(keys, "norm_topk_prob", true)?
        }),
    };
    let interval = keys.width_if_any("full_attention_interval")?;
    let interval = interval.unwrap_or(INTERVAL_DEFAULT).unsigned_abs() as usize;
    let layers = (1..=decoder.layer_count).map(|number| {
        if number % interval == 0 {
            return before(attention.clone(), feed_forward.clone());
        }
        Layer {
            mixer: Mixer::GatedDelta(delta),
            feed_forward: feed_forward.clone(),
            norms: NormPlaces::Before,
            output_scale: OutputScale::Absent,
        }
    });
    let layers: Vec<Layer> = layers.collect();
    agree(keys, &layers)?;
    decoder.config(keys, Family::Qwen35, layers)
}

fn rope(keys: &Keys<'_>, head_dim: i32) -> Result<Rope, ModelError> {
    const SHARE_DEFAULT: f64 = 0.25;
    match keys.section("rope_parameters")? {
        Some(section) => {
            let dims = turning(&section, head_dim, SHARE_DEFAULT)?;
            Rope::of_section(keys, &section, THETA_DEFAULT, dims)
        }
        None => Rope::plain(THETA_DEFAULT, turning(keys, head_dim, SHARE_DEFAULT)?),
    }
}

fn gated_delta(keys: &Keys<'_>) -> Result<GatedDelta, ModelError> {
    let heads = |key: &str| keys.heads(key)?.ok_or_else(|| missing(key));
    let dim = |key: &str| keys.head_dim(key)?.ok_or_else(|| missing(key));
    let key_heads = heads("linear_num_key_heads")?;
    let value_heads = heads("linear_num_value_heads")?;
    if value_heads % key_heads != 0 {
        return Err(ModelError::Inconsistent(format!(
            "linear_num_value_heads {value_heads} is no multiple of linear_num_key_heads \
             {key_heads}"
        )));
    }
    let kernel = heads("linear_conv_kernel_dim")?;
    if kernel < 2 {
        return Err(ModelError::Inconsistent(
            "linear_conv_kernel_dim is 1: such a convolution sees no past".to_owned(),
        ));
    }
    Ok(GatedDelta {
        key_heads,
        value_heads,
        key_dim: dim("linear_key_head_dim")?,
        value_dim: dim("linear_value_head_dim")?,
        kernel,
    })
}

/// `layer_types`, where the file has it, must say what the interval says.
fn agree(keys: &Keys<'_>, layers: &[Layer]) -> Result<(), ModelError> {
    const KEY: &str = "layer_types";
    let Some(types) = keys.texts(KEY, layers.len())? else {
        return Ok(());
    };
    for (index, (kind, layer)) in types.into_iter().zip(layers).enumerate() {
        let expected = match layer.mixer {
            Mixer::Attention(_) => "full_attention",
            Mixer::GatedDelta(_) => "linear_attention",
        };
        if kind != expected {
            return Err(ModelError::Inconsistent(format!(
                "{KEY} says {kind} for layer {index}; by full_attention_interval it is {expected}"
            )));
        }
    }
    Ok(())
}
