//! Rotary positions, with the stretchings that configs of the two families ask for.

use std::f32::consts::PI;

use mlx_rs::error::Exception;
use mlx_rs::{Array, fast};

use super::config::{Config, RopeScaling};

/// Turns queries and keys by their position.
#[derive(Clone, Debug)]
pub(super) struct Rope {
    head_dim: i32,
    /// Absent when `periods` says it all.
    theta: Option<f32>,
    scale: f32,
    periods: Option<Array>,
}

impl Rope {
    pub(super) fn new(config: &Config) -> Self {
        let plain = Self {
            head_dim: config.head_dim,
            theta: Some(config.rope_theta),
            scale: 1.0,
            periods: None,
        };
        match config.rope_scaling {
            RopeScaling::None => plain,
            RopeScaling::Linear { factor } => Self {
                scale: factor.recip(),
                ..plain
            },
            RopeScaling::Llama3 {
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
                let periods: Vec<f32> = (0..config.head_dim / 2)
                    .map(|pair| stretch.period(plain_period(config, pair)))
                    .collect();
                let periods = Array::from_slice(&periods, &[config.head_dim / 2]);
                Self {
                    theta: None,
                    periods: Some(periods),
                    ..plain
                }
            }
        }
    }

    /// `states` is (batch, heads, tokens, head_dim), its first token at position 0.
    pub(super) fn at_start(&self, states: &Array) -> Result<Array, Exception> {
        let periods = self.periods.as_ref();
        fast::rope(
            states,
            self.head_dim,
            false,
            self.theta,
            self.scale,
            0,
            periods,
        )
    }

    /// `states` is (rows, heads, tokens, head_dim), row `i`'s first token at `positions[i]`.
    pub(super) fn at_positions(
        &self,
        states: &Array,
        positions: &Array,
    ) -> Result<Array, Exception> {
        let periods = self.periods.as_ref();
        fast::rope_dynamic(
            states,
            self.head_dim,
            false,
            self.theta,
            self.scale,
            positions,
            periods,
        )
    }
}

/// Radians per turn over 2 pi, of one pair of components: theta^(2 pair / head_dim).
fn plain_period(config: &Config, pair: i32) -> f32 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "head widths are exact below 2^24"
    )]
    let exponent = (2 * pair) as f32 / config.head_dim as f32;
    config.rope_theta.powf(exponent)
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
