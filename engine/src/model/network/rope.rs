//! Rotary positions on tensors.

use std::f32::consts::PI;

use mlx_rs::error::Exception;
use mlx_rs::{Array, fast};

use crate::model::config::{self, RopeStretch};

/// Turns queries and keys by their position.
#[derive(Clone, Debug)]
pub(in crate::model) struct Rope {
    /// Leading components of a head that turn.
    pub(in crate::model) dims: i32,
    /// Positions that one radian takes, for each pair of components.
    #[allow(dead_code, reason = "for kernels that turn heads themselves")]
    pub(in crate::model) periods: Vec<f32>,
    turning: Turning,
}

/// The same for MLX, which computes plain frequencies itself, in its own rounding.
#[derive(Clone, Debug)]
enum Turning {
    Plain { theta: f32, scale: f32 },
    Periods(Array),
}

impl Rope {
    pub(in crate::model) fn new(rope: &config::Rope) -> Self {
        let plain: Vec<f32> = (0..rope.dims / 2)
            .map(|pair| plain_period(rope, pair))
            .collect();
        let pairs = rope.dims / 2;
        let (periods, turning) = match rope.stretch {
            RopeStretch::None => (
                plain,
                Turning::Plain {
                    theta: rope.theta,
                    scale: 1.0,
                },
            ),
            RopeStretch::Linear { factor } => (
                plain.iter().map(|period| period * factor).collect(),
                Turning::Plain {
                    theta: rope.theta,
                    scale: factor.recip(),
                },
            ),
            RopeStretch::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_context_tokens,
            } => {
                let stretch = Llama3 {
                    factor,
                    low: low_freq_factor,
                    high: high_freq_factor,
                    original: original_context_tokens,
                };
                let periods: Vec<f32> = plain.iter().map(|plain| stretch.period(*plain)).collect();
                let array = Array::from_slice(&periods, &[pairs]);
                (periods, Turning::Periods(array))
            }
        };
        Self {
            dims: rope.dims,
            periods,
            turning,
        }
    }

    /// `states` is (batch, heads, tokens, head_dim), its first token at position 0.
    pub(in crate::model) fn at_start(&self, states: &Array) -> Result<Array, Exception> {
        match &self.turning {
            Turning::Plain { theta, scale } => {
                fast::rope(states, self.dims, false, *theta, *scale, 0, None)
            }
            Turning::Periods(periods) => {
                fast::rope(states, self.dims, false, None, 1.0, 0, periods)
            }
        }
    }

    /// `states` is (rows, heads, tokens, head_dim), row `i`'s first token at `positions[i]`.
    pub(in crate::model) fn at_positions(
        &self,
        states: &Array,
        positions: &Array,
    ) -> Result<Array, Exception> {
        match &self.turning {
            Turning::Plain { theta, scale } => {
                fast::rope_dynamic(states, self.dims, false, *theta, *scale, positions, None)
            }
            Turning::Periods(periods) => {
                fast::rope_dynamic(states, self.dims, false, None, 1.0, positions, periods)
            }
        }
    }
}

/// theta^(2 pair / dims).
fn plain_period(rope: &config::Rope, pair: i32) -> f32 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "head widths are exact below 2^24"
    )]
    let exponent = (2 * pair) as f32 / rope.dims as f32;
    rope.theta.powf(exponent)
}

struct Llama3 {
    factor: f32,
    low: f32,
    high: f32,
    original: f32,
}

impl Llama3 {
    fn period(&self, plain: f32) -> f32 {
        let wavelength = 2.0 * PI * plain;
        if wavelength > self.original / self.low {
            return plain * self.factor;
        }
        if wavelength < self.original / self.high {
            return plain;
        }
        let smooth = (self.original / wavelength - self.low) / (self.high - self.low);
        plain / ((1.0 - smooth) / self.factor + smooth)
    }
}
