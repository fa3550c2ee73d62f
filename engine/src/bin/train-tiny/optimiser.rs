//! How a gradient moves a weight: Muon for the matrices of the layers, AdamW for the rest, under a
//! warm-up and a cosine.
//!
//! Muon (momentum made orthogonal by a Newton-Schulz iteration) needs about half the steps of AdamW
//! alone at this size; see <https://kellerjordan.github.io/posts/muon/>.

use std::collections::BTreeMap;

use mlx_rs::error::Exception;
use mlx_rs::ops::{add, divide, matmul, multiply, sqrt, square, subtract};
use mlx_rs::{Array, Stream, with_stream};

use crate::rows::WORDS_FROM_STEP;
use crate::weights::Weights;

const MUON_RATE: f32 = 0.02;
const MUON_MOMENTUM: f32 = 0.95;
const MUON_DECAY: f32 = 0.01;
const MUON_ITERATIONS: usize = 5;
/// The quintic of the Newton-Schulz iteration, as published with Muon.
const QUINTIC: (f32, f32, f32) = (3.4445, -4.7750, 2.0315);

const ADAM_RATE: f32 = 0.004;
const ADAM_BETAS: (f32, f32) = (0.9, 0.98);
const ADAM_EPSILON: f32 = 1e-8;

const WARM_UP_STEPS: f32 = 60.0;
/// The cosine of the first stage, which ends before the cosine does.
const FIRST_PERIOD_STEPS: u64 = 1_100;
const SECOND_PEAK: f32 = 0.5;
const SECOND_WARM_UP_STEPS: f32 = 20.0;
/// The share of the full rate that is left at the last step.
const RATE_FLOOR: f32 = 0.02;

/// The running averages, by weight name and role.
pub(crate) struct Optimiser {
    pub(crate) averages: BTreeMap<String, Array>,
    steps: u64,
}

impl Optimiser {
    pub(crate) const fn new(averages: BTreeMap<String, Array>, steps: u64) -> Self {
        Self { averages, steps }
    }

    /// The factor on both rates at a step: in each stage a warm-up and then a cosine.
    pub(crate) fn rate(&self, step: u64) -> f32 {
        let (peak, warm_up_steps, step, period) = if step < WORDS_FROM_STEP {
            (1.0, WARM_UP_STEPS, step, FIRST_PERIOD_STEPS)
        } else {
            let steps = self.steps.saturating_sub(WORDS_FROM_STEP);
            (
                SECOND_PEAK,
                SECOND_WARM_UP_STEPS,
                step - WORDS_FROM_STEP,
                steps,
            )
        };
        let done = step as f32 / period as f32;
        let cosine = 0.5 * (1.0 + (std::f32::consts::PI * done).cos());
        let warm = ((step + 1) as f32 / warm_up_steps).min(1.0);
        peak * warm * (RATE_FLOOR + (1.0 - RATE_FLOOR) * cosine)
    }

    /// Moves every weight by its gradient; the gradients are in the order of the weights.
    pub(crate) fn apply(
        &mut self,
        step: u64,
        lanes: &[Stream],
        weights: &mut Weights,
        gradients: &[Array],
    ) -> Result<(), Exception> {
        assert_eq!(
            weights.len(),
            gradients.len(),
            "one gradient for each weight"
        );
        let rate = self.rate(step);
        let lanes = lanes.iter().cycle();
        for (((name, weight), gradient), lane) in weights.iter_mut().zip(gradients).zip(lanes) {
            let is_matrix = name.contains("_proj");
            *weight = with_stream(lane, || {
                if is_matrix {
                    self.muon(name, weight, gradient, rate)
                } else {
                    self.adam(name, weight, gradient, rate, step)
                }
            })?;
        }
        Ok(())
    }

    fn muon(
        &mut self,
        name: &str,
        weight: &Array,
        gradient: &Array,
        rate: f32,
    ) -> Result<Array, Exception> {
        let momentum = self.average(name, "momentum", gradient, MUON_MOMENTUM)?;
        let ahead = mixed(&momentum, gradient, MUON_MOMENTUM)?;
        let (out, inp) = (weight.dim(0) as f32, weight.dim(1) as f32);
        let step = MUON_RATE * rate * (out / inp).max(1.0).sqrt();
        let kept = scaled(weight, 1.0 - MUON_RATE * rate * MUON_DECAY)?;
        subtract(kept, scaled(&orthogonal(&ahead)?, step)?)
    }

    fn adam(
        &mut self,
        name: &str,
        weight: &Array,
        gradient: &Array,
        rate: f32,
        step: u64,
    ) -> Result<Array, Exception> {
        let first = self.average(name, "first", gradient, ADAM_BETAS.0)?;
        let second = self.average(name, "second", &square(gradient)?, ADAM_BETAS.1)?;
        let count = i32::try_from(step + 1).expect("a training has few steps");
        let first = scaled(&first, 1.0 / (1.0 - ADAM_BETAS.0.powi(count)))?;
        let second = scaled(&second, 1.0 / (1.0 - ADAM_BETAS.1.powi(count)))?;
        let move_by = divide(first, add(sqrt(second)?, Array::from_f32(ADAM_EPSILON))?)?;
        subtract(weight, scaled(&move_by, ADAM_RATE * rate)?)
    }

    /// Folds a value into its running average and returns the average.
    fn average(
        &mut self,
        name: &str,
        role: &str,
        value: &Array,
        keep: f32,
    ) -> Result<Array, Exception> {
        let key = format!("{name}:{role}");
        let new = match self.averages.get(&key) {
            Some(old) => mixed(old, value, keep)?,
            None => scaled(value, 1.0 - keep)?,
        };
        self.averages.insert(key, new.clone());
        Ok(new)
    }
}

/// The nearest matrix with orthogonal rows or columns, roughly.
fn orthogonal(matrix: &Array) -> Result<Array, Exception> {
    let is_tall = matrix.dim(0) > matrix.dim(1);
    let x = if is_tall { matrix.t() } else { matrix.clone() };
    let norm = sqrt(square(&x)?.sum(None)?)?;
    let mut x = divide(&x, add(norm, Array::from_f32(1e-7))?)?;
    for _ in 0..MUON_ITERATIONS {
        let a = matmul(&x, x.t())?;
        let b = add(scaled(&a, QUINTIC.1)?, scaled(&matmul(&a, &a)?, QUINTIC.2)?)?;
        x = add(scaled(&x, QUINTIC.0)?, matmul(&b, &x)?)?;
    }
    Ok(if is_tall { x.t() } else { x })
}

fn mixed(old: &Array, new: &Array, keep: f32) -> Result<Array, Exception> {
    add(scaled(old, keep)?, scaled(new, 1.0 - keep)?)
}

fn scaled(x: &Array, by: f32) -> Result<Array, Exception> {
    multiply(x, Array::from_f32(by))
}
