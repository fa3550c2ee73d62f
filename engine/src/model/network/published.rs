//! Files as a family's makers publish them, brought to the names and shapes of the network.
//!
//! Files that were converted for MLX have them already. Nothing is computed here: MLX does it when
//! the network is brought into memory, and by then names and shapes have been checked.

use std::collections::BTreeMap;

use mlx_rs::error::Exception;
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::ops::stack;
use mlx_rs::{Array, Dtype};

use super::checkpoint::one_plus;
use crate::model::config::{Config, FeedForward};
use crate::model::error::ModelError;
use crate::model::families::{Family, network_name};

pub(super) type Arrays = BTreeMap<String, Array>;

/// The files' tensors by the network's names.
pub(super) fn network_arrays(config: &Config, files: Arrays) -> Result<Arrays, ModelError> {
    let named = files
        .into_iter()
        .filter_map(|(stored, array)| Some((network_name(config, &stored)?, array)));
    let mut arrays: Arrays = named.collect();
    for (index, layer) in config.layers.iter().enumerate() {
        let experts = match &layer.feed_forward {
            FeedForward::Dense(_) => continue,
            FeedForward::Experts(experts) | FeedForward::DenseAndExperts(_, experts) => experts,
        };
        let layer = format!("model.layers.{index}");
        let place = Experts {
            network: format!("{layer}.{}", experts.names.experts),
            count: experts.count,
        };
        if arrays.contains_key(&format!("{}.gate_proj.weight", place.network)) {
            continue;
        }
        let in_mlp = format!("{layer}.mlp.experts");
        place.stack_each(&in_mlp, &mut arrays)?;
        place.cut_halves(&in_mlp, &mut arrays)?;
        place.cut_halves(&format!("{layer}.experts"), &mut arrays)?;
        place.unmix_blocks(&in_mlp, &mut arrays)?;
    }
    if config.family == Family::Qwen35 {
        unshift(&mut arrays)?;
    }
    Ok(arrays)
}

/// The experts of a layer.
struct Experts {
    /// Their name in the network.
    network: String,
    count: i32,
}

const PARTS: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

impl Experts {
    /// Qwen3 publishes each expert by itself.
    fn stack_each(&self, stored: &str, arrays: &mut Arrays) -> Result<(), ModelError> {
        if !arrays.contains_key(&format!("{stored}.0.gate_proj.weight")) {
            return Ok(());
        }
        for part in PARTS {
            let mut each = Vec::new();
            for expert in 0..self.count {
                let name = format!("{stored}.{expert}.{part}.weight");
                let Some(array) = arrays.remove(&name) else {
                    let expected = each
                        .first()
                        .map_or(vec![], |first: &Array| first.shape().to_vec());
                    return Err(ModelError::TensorMissing { name, expected });
                };
                each.push(array);
            }
            let name = format!("{}.{part}.weight", self.network);
            arrays.insert(name, stack(&each, 0)?);
        }
        Ok(())
    }

    /// Qwen3.5 and Gemma 4 publish (experts, 2 inner, hidden): all gates, then all ups.
    fn cut_halves(&self, stored: &str, arrays: &mut Arrays) -> Result<(), ModelError> {
        let Some(both) = arrays.remove(&format!("{stored}.gate_up_proj")) else {
            return Ok(());
        };
        let middle = paired(&both, 3, &format!("{stored}.gate_up_proj"))? / 2;
        let halves = [
            (PARTS[0], both.try_index((.., ..middle))?),
            (PARTS[1], both.try_index((.., middle..))?),
        ];
        for (part, half) in halves {
            arrays.insert(format!("{}.{part}.weight", self.network), half);
        }
        if let Some(down) = arrays.remove(&format!("{stored}.down_proj")) {
            arrays.insert(format!("{}.{}.weight", self.network, PARTS[2]), down);
        }
        Ok(())
    }

    /// gpt-oss publishes gates and ups in turns, in blocks of 32 numbers: 16 bytes and a scale.
    fn unmix_blocks(&self, stored: &str, arrays: &mut Arrays) -> Result<(), ModelError> {
        let endings = [
            ("blocks", "weight", 4),
            ("scales", "scales", 3),
            ("bias", "bias", 2),
        ];
        for (published, network, rank) in endings {
            let name = format!("{stored}.gate_up_proj_{published}");
            if let Some(both) = arrays.remove(&name) {
                paired(&both, rank, &name)?;
                for (first, part) in [(0, PARTS[0]), (1, PARTS[1])] {
                    let part = format!("{}.{part}.{network}", self.network);
                    arrays.insert(part, words(every_other(&both, first)?, &name)?);
                }
            }
            let name = format!("{stored}.down_proj_{published}");
            if let Some(down) = arrays.remove(&name) {
                let part = format!("{}.{}.{network}", self.network, PARTS[2]);
                arrays.insert(part, words(down, &name)?);
            }
        }
        Ok(())
    }
}

/// The size of the second axis, which holds two things.
fn paired(both: &Array, rank: usize, name: &str) -> Result<i32, ModelError> {
    let shape = both.shape();
    if shape.len() == rank && shape[1] % 2 == 0 {
        return Ok(shape[1]);
    }
    Err(ModelError::Inconsistent(format!(
        "tensor {name} has shape {shape:?}, which is no stack of pairs"
    )))
}

fn every_other(both: &Array, first: i32) -> Result<Array, Exception> {
    let mut apart = both.shape().to_vec();
    apart[1] /= 2;
    apart.insert(2, 2);
    both.reshape(&apart)?.try_index((.., .., first))
}

/// Blocks of bytes as MLX reads them: rows of 32-bit words. Other arrays stay.
fn words(blocks: Array, name: &str) -> Result<Array, ModelError> {
    if blocks.ndim() != 4 {
        return Ok(blocks);
    }
    let shape = blocks.shape().to_vec();
    if blocks.dtype() != Dtype::Uint8 || shape[3] != 16 {
        return Err(ModelError::Inconsistent(format!(
            "tensor {name} has shape {shape:?}, which is not of blocks of 16 bytes"
        )));
    }
    let row_bytes = shape[2].checked_mul(16);
    let row_bytes = row_bytes.ok_or_else(|| {
        ModelError::Inconsistent(format!("tensor {name} has rows of {} blocks", shape[2]))
    })?;
    let rows = blocks.reshape(&[shape[0], shape[1], row_bytes])?;
    Ok(rows.view_dtype(Dtype::Uint32)?)
}

/// Qwen3.5 publishes convolutions channel first, and the whole network's norms as the difference
/// to one; the former tells that the latter is so.
fn unshift(arrays: &mut Arrays) -> Result<(), ModelError> {
    const SHIFTED: &[&str] = &[
        ".input_layernorm.weight",
        ".post_attention_layernorm.weight",
        "model.norm.weight",
        ".q_norm.weight",
        ".k_norm.weight",
    ];
    let is_published = |name: &str, array: &Array| {
        name.ends_with("conv1d.weight") && array.ndim() == 3 && array.dim(2) != 1
    };
    if !arrays.iter().any(|(name, array)| is_published(name, array)) {
        return Ok(());
    }
    for (name, array) in arrays.iter_mut() {
        if is_published(name, array) {
            *array = array.swap_axes(1, 2)?;
        } else if SHIFTED.iter().any(|ending| name.ends_with(ending)) {
            *array = one_plus(array)?;
        }
    }
    Ok(())
}
