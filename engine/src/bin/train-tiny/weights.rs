//! The weights before training.

use std::collections::BTreeMap;

use cereus_engine::model::{Config, tensor_shapes};
use mlx_rs::Array;

use crate::dice::Dice;

/// Arrays by their Hugging Face names, in one fixed order.
pub(crate) type Weights = BTreeMap<String, Array>;

const DEVIATION: f32 = 0.02;

/// Norms begin at one. Matrices are normal with a deviation of 0.02, narrower where a layer adds
/// to the stream, so that depth does not make the stream grow.
pub(crate) fn fresh(config: &Config, seed: u64) -> Weights {
    let mut dice = Dice::new(seed);
    let narrow = DEVIATION / (2.0 * config.layers.len() as f32).sqrt();
    let mut weights = Weights::new();
    for tensor in tensor_shapes(config) {
        let count: i32 = tensor.shape.iter().product();
        let adds_to_stream = tensor.name.contains("o_proj") || tensor.name.contains("down_proj");
        let values: Vec<f32> = if tensor.shape.len() == 1 {
            (0..count).map(|_| 1.0).collect()
        } else {
            let deviation = if adds_to_stream { narrow } else { DEVIATION };
            (0..count).map(|_| normal(&mut dice) * deviation).collect()
        };
        weights.insert(tensor.name, Array::from_slice(&values, &tensor.shape));
    }
    weights
}

/// A normal draw by the sum of twelve uniform ones: no function of libm, so every platform starts
/// from the same weights.
fn normal(dice: &mut Dice) -> f32 {
    let sum: u64 = (0..12).map(|_| dice.roll() >> 40).sum();
    sum as f32 / (1u32 << 24) as f32 - 6.0
}
