//! What the files call the parts of a network, and which of their tensors take no part in it.

use super::Family;
use crate::model::config::{Config, Head, KeyValue, Mixer};

/// Parts of models that also see, hear or guess ahead. The text is served without them.
const OTHER_PARTS: &[&str] = &[
    "audio_tower.",
    "embed_audio.",
    "embed_vision.",
    "mtp.",
    "multi_modal_projector.",
    "vision_embedder.",
    "vision_tower.",
    "visual.",
];
/// Ranges that Gemma 4 was calibrated with.
const RANGES: &[&str] = &[".input_max", ".input_min", ".output_max", ".output_min"];

/// The network's name of a tensor in the files; none when it takes no part.
pub(in crate::model) fn network_name(config: &Config, stored: &str) -> Option<String> {
    let name = match config.family {
        Family::Gemma3 | Family::Gemma4 | Family::Qwen35 => text_part(stored)?,
        Family::GptOss | Family::Llama | Family::Qwen2 | Family::Qwen3 | Family::Qwen3Moe => {
            stored.to_owned()
        }
    };
    let is_idle = name.ends_with("rotary_emb.inv_freq")
        || (config.head == Head::Tied && name.starts_with("lm_head."))
        || (config.family == Family::Gemma4 && RANGES.iter().any(|range| name.ends_with(range)))
        || is_replaced(config, &name);
    (!is_idle).then_some(name)
}

/// The text part's tensors stand below `language_model`, or below `model.language_model`.
fn text_part(stored: &str) -> Option<String> {
    let inner = stored.strip_prefix("model.").unwrap_or(stored);
    let inner = inner.strip_prefix("language_model.").unwrap_or(inner);
    if OTHER_PARTS.iter().any(|part| inner.starts_with(part)) {
        return None;
    }
    Some(match stored.strip_prefix("model.language_model.") {
        Some(rest) => format!("model.{rest}"),
        None => stored
            .strip_prefix("language_model.")
            .unwrap_or(stored)
            .to_owned(),
    })
}

/// A layer that sees another's keys and values may have projections that nobody reads.
fn is_replaced(config: &Config, name: &str) -> bool {
    let part = name.strip_prefix("model.layers.");
    let Some((index, part)) = part.and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let layer = index.parse::<usize>().ok();
    let mixer = layer
        .and_then(|index| config.layers.get(index))
        .map(|layer| &layer.mixer);
    let shares = match mixer {
        Some(Mixer::Attention(attention)) => match attention.key_value {
            KeyValue::OfLayer(_) => true,
            KeyValue::Projected | KeyValue::OneForBoth => false,
        },
        Some(Mixer::GatedDelta(_)) | None => false,
    };
    let parts = [
        "self_attn.k_proj.",
        "self_attn.v_proj.",
        "self_attn.k_norm.",
    ];
    shares && parts.iter().any(|replaced| part.starts_with(replaced))
}
