//! Gemma 4: windows and full layers of different head widths, layers that see an earlier layer's
//! keys and values, a second embedding for each layer, experts beside the dense part.

use super::decoder::{Defaults, Span, grouped};
use super::gemma3::gelu;
use super::qwen3_moe::chosen;
use super::{Decoder, Family};
use crate::model::config::{
    Attention, Config, Dense, ExpertNames, Experts, FeedForward, Head, HeadNorms, KeyValue, Keys,
    Layer, Mixer, NormPlaces, NormWeight, OutputScale, PerLayerInput, Rope, RopeStretch, Router,
    missing,
};
use crate::model::error::ModelError;

const DEFAULTS: Defaults = Defaults {
    query_heads: Some(8),
    kv_heads: Some(1),
    head_dim: Some(256),
    vocab_size: Some(262_144),
    context_tokens: 131_072,
    norm_eps: Some(1e-6),
    norm_weight: NormWeight::AsStored,
};
const WINDOW_DEFAULT: i32 = 512;
const PATTERN_DEFAULT: i32 = 5;
const SOFTCAP_DEFAULT: f32 = 30.0;
/// Of one layer's second embedding; published ones have 256. All layers' stand in one row.
const HIDDEN_MAX: i32 = 65_536;
const NAMES: ExpertNames = ExpertNames {
    router: "router.proj",
    experts: "experts.switch_glu",
};

pub(super) fn read(keys: &Keys<'_>) -> Result<Config, ModelError> {
    let decoder = Decoder::read(keys, &DEFAULTS)?;
    let pattern = keys.width_if_any("sliding_window_pattern")?;
    let pattern = pattern.unwrap_or(PATTERN_DEFAULT).unsigned_abs() as usize;
    let window = keys.width_if_any("sliding_window")?;
    let windows = decoder.windows(keys, Some(window.unwrap_or(WINDOW_DEFAULT)), |index| {
        if (index + 1) % pattern == 0 {
            Span::All
        } else {
            Span::Window
        }
    })?;
    let sharing = sharing(keys, &windows)?;
    let dense = gelu(keys)?;
    let is_wide = keys.flag("use_double_wide_mlp", true)?;
    let experts = experts(keys, dense)?;
    let layers = windows.into_iter().zip(&sharing).map(|(window, shared)| {
        let wide = if shared.is_some() && is_wide { 2 } else { 1 };
        let dense = Dense {
            inner: dense.inner * wide,
            ..dense
        };
        Ok(Layer {
            mixer: Mixer::Attention(attention(keys, &decoder, window, *shared)?),
            feed_forward: match experts {
                Some(experts) => FeedForward::DenseAndExperts(dense, experts),
                None => FeedForward::Dense(dense),
            },
            norms: NormPlaces::Around,
            output_scale: OutputScale::Stored,
        })
    });
    let layers = layers.collect::<Result<Vec<_>, ModelError>>()?;
    let (hidden_size, vocab_size) = (decoder.hidden_size, decoder.vocab_size);
    let config = decoder.config(keys, Family::Gemma4, layers)?;
    Ok(Config {
        head: if keys.flag("tie_word_embeddings", true)? {
            Head::Tied
        } else {
            Head::Own
        },
        embedding_scale: Some(root(hidden_size)),
        per_layer_input: per_layer_input(keys, vocab_size)?,
        logit_softcap: match keys.positive("final_logit_softcapping")? {
            None if keys.is_null("final_logit_softcapping") => None,
            cap => Some(cap.unwrap_or(SOFTCAP_DEFAULT)),
        },
        ..config
    })
}

fn attention(
    keys: &Keys<'_>,
    decoder: &Decoder,
    window: Option<i32>,
    shared: Option<usize>,
) -> Result<Attention, ModelError> {
    const GLOBAL: &str = "num_global_key_value_heads";
    let is_full = window.is_none();
    let one_for_both = is_full && keys.flag("attention_k_eq_v", false)?;
    let head_dim = match keys.head_dim("global_head_dim")? {
        Some(wide) if is_full => wide,
        Some(_) | None => decoder.head_dim,
    };
    let kv_heads = match keys.heads(GLOBAL)? {
        Some(heads) if one_for_both => grouped(decoder.query_heads, GLOBAL, heads)?,
        Some(_) | None => decoder.kv_heads,
    };
    Ok(Attention {
        head_dim,
        kv_heads,
        scale: 1.0,
        window,
        head_norms: HeadNorms::QueryKeyValue,
        key_value: match shared {
            Some(layer) => KeyValue::OfLayer(layer),
            None if one_for_both => KeyValue::OneForBoth,
            None => KeyValue::Projected,
        },
        ..decoder.attention(rope(keys, window, head_dim)?)
    })
}

fn rope(keys: &Keys<'_>, window: Option<i32>, dims: i32) -> Result<Rope, ModelError> {
    const THETA_DEFAULT: f32 = 10_000.0;
    let kind = match window {
        Some(_) => "sliding_attention",
        None => "full_attention",
    };
    if let Some(parameters) = keys.section("rope_parameters")? {
        return match parameters.section(kind)? {
            Some(section) => Rope::of_section(keys, &section, THETA_DEFAULT, dims),
            None => Rope::plain(THETA_DEFAULT, dims),
        };
    }
    match window {
        Some(_) => Rope::plain(THETA_DEFAULT, dims),
        None => Ok(Rope {
            stretch: RopeStretch::Proportional {
                turning: dims / 8 * 2,
                factor: 1.0,
            },
            ..Rope::plain(1_000_000.0, dims)?
        }),
    }
}

/// For each of the last layers, the earlier one of its kind whose keys and values it sees.
fn sharing(keys: &Keys<'_>, windows: &[Option<i32>]) -> Result<Vec<Option<usize>>, ModelError> {
    const KEY: &str = "num_kv_shared_layers";
    let shared = keys.count(KEY)?.unwrap_or(0).unsigned_abs() as usize;
    let owners = windows
        .len()
        .checked_sub(shared)
        .filter(|owners| *owners > 0);
    let owners = owners.ok_or_else(|| {
        ModelError::Inconsistent(format!(
            "{KEY} {shared} leaves none of {} layers to share from",
            windows.len()
        ))
    })?;
    let of = |(index, window): (usize, &Option<i32>)| {
        if index < owners {
            return Ok(None);
        }
        let is_kin = |earlier: &Option<i32>| earlier.is_some() == window.is_some();
        let earlier = windows[..owners].iter().rposition(is_kin);
        earlier.map(Some).ok_or_else(|| {
            ModelError::Inconsistent(format!(
                "layer {index} shares by {KEY}, and no earlier layer is of its kind in layer_types"
            ))
        })
    };
    windows.iter().enumerate().map(of).collect()
}

fn per_layer_input(keys: &Keys<'_>, vocab_size: i32) -> Result<Option<PerLayerInput>, ModelError> {
    const KEY: &str = "hidden_size_per_layer_input";
    let width = keys.count(KEY)?.unwrap_or(0);
    if width > HIDDEN_MAX {
        return Err(ModelError::Inconsistent(format!(
            "{KEY} {width} is above {HIDDEN_MAX}"
        )));
    }
    let vocab = keys.width_if_any("vocab_size_per_layer_input")?;
    Ok((width > 0).then_some(PerLayerInput {
        width,
        vocab_size: vocab.unwrap_or(vocab_size),
    }))
}

fn experts(keys: &Keys<'_>, dense: Dense) -> Result<Option<Experts>, ModelError> {
    if !keys.flag("enable_moe_block", false)? {
        return Ok(None);
    }
    let count = keys.heads("num_experts")?;
    let count = count.ok_or_else(|| missing("num_experts"))?;
    Ok(Some(Experts {
        count,
        chosen: chosen(keys, "top_k_experts", count)?,
        each: Dense {
            inner: keys.width("moe_intermediate_size")?,
            ..dense
        },
        router: Router::SharesOfChosenScaled,
        shared_inner: None,
        names: NAMES,
    }))
}

fn root(width: i32) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "tensors compute in f32")]
    let root = f64::from(width).sqrt() as f32;
    root
}
