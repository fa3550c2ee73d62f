//! Rotary positions on tensors.

use std::f32::consts::PI;
use std::f64::consts::PI as PI64;

use mlx_rs::error::Exception;
use mlx_rs::ops::concatenate;
use mlx_rs::{Array, fast};

use super::layers;
use crate::model::config::{self, RopePairs, RopeStretch, Yarn, YarnRamp};

/// Turns queries and keys by their position.
#[derive(Clone, Debug)]
pub(in crate::model) struct Rope {
    /// Leading components of a head that turn.
    pub(in crate::model) dims: i32,
    /// Positions that one radian takes, for each pair of components; infinite where a pair stays.
    pub(in crate::model) periods: Vec<f32>,
    /// What the turning components are multiplied by.
    pub(in crate::model) magnitude: f32,
    pub(in crate::model) pairs: RopePairs,
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
        let pairs = rope.dims / 2;
        let plain: Vec<f32> = (0..pairs).map(|pair| plain_period(rope, pair)).collect();
        let by_theta = |scale: f32| Turning::Plain {
            theta: rope.theta,
            scale,
        };
        let by_periods = |periods: &[f32]| Turning::Periods(Array::from_slice(periods, &[pairs]));
        let (periods, turning, magnitude) = match &rope.stretch {
            RopeStretch::None => (plain, by_theta(1.0), 1.0),
            RopeStretch::Linear { factor } => {
                let stretched: Vec<f32> = plain.iter().map(|period| period * factor).collect();
                (stretched, by_theta(factor.recip()), 1.0)
            }
            RopeStretch::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_context_tokens,
            } => {
                let stretch = Llama3 {
                    factor: *factor,
                    low: *low_freq_factor,
                    high: *high_freq_factor,
                    original: *original_context_tokens,
                };
                let periods: Vec<f32> = plain.iter().map(|plain| stretch.period(*plain)).collect();
                let turning = by_periods(&periods);
                (periods, turning, 1.0)
            }
            RopeStretch::Long { factors, magnitude } => {
                let factors = plain.iter().zip(factors);
                let periods: Vec<f32> = factors.map(|(plain, factor)| plain * factor).collect();
                let turning = by_periods(&periods);
                (periods, turning, *magnitude)
            }
            RopeStretch::Yarn(yarn) => {
                let periods = yarn_periods(yarn, rope, &plain);
                let turning = by_periods(&periods);
                (periods, turning, yarn_magnitude(yarn))
            }
            RopeStretch::Proportional { turning, factor } => {
                let period = |(pair, plain): (i32, &f32)| {
                    let turns = 2 * pair < *turning;
                    if turns { plain * factor } else { f32::INFINITY }
                };
                let periods: Vec<f32> = (0..).zip(&plain).map(period).collect();
                let turning = by_periods(&periods);
                (periods, turning, 1.0)
            }
        };
        Self {
            dims: rope.dims,
            periods,
            magnitude,
            pairs: rope.pairs,
            turning,
        }
    }

    fn are_neighbours(&self) -> bool {
        self.pairs == RopePairs::Neighbours
    }

    /// `states` is (batch, heads, tokens, head_dim), its first token at position 0.
    pub(in crate::model) fn at_start(&self, states: &Array) -> Result<Array, Exception> {
        let (states, neighbours) = (&self.grown(states)?, self.are_neighbours());
        match &self.turning {
            Turning::Plain { theta, scale } => {
                fast::rope(states, self.dims, neighbours, *theta, *scale, 0, None)
            }
            Turning::Periods(periods) => {
                fast::rope(states, self.dims, neighbours, None, 1.0, 0, periods)
            }
        }
    }

    /// `states` is (rows, heads, tokens, head_dim), row `i`'s first token at `positions[i]`.
    pub(in crate::model) fn at_positions(
        &self,
        states: &Array,
        positions: &Array,
    ) -> Result<Array, Exception> {
        let (states, neighbours) = (&self.grown(states)?, self.are_neighbours());
        match &self.turning {
            Turning::Plain { theta, scale } => fast::rope_dynamic(
                states, self.dims, neighbours, *theta, *scale, positions, None,
            ),
            Turning::Periods(periods) => {
                fast::rope_dynamic(states, self.dims, neighbours, None, 1.0, positions, periods)
            }
        }
    }
}

impl Rope {
    fn grown(&self, states: &Array) -> Result<Array, Exception> {
        if self.magnitude == 1.0 {
            return Ok(states.clone());
        }
        let width = states.dim(-1);
        if self.dims == width {
            return layers::scaled(states, self.magnitude);
        }
        let parts = states.split_at_indices(&[self.dims], -1)?;
        concatenate(
            &[&layers::scaled(&parts[0], self.magnitude)?, &parts[1]],
            -1,
        )
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

/// The pair of components that makes so many turns over the original context, as a fraction.
fn yarn_pair(yarn: &Yarn, rope: &config::Rope, turns: f32) -> f64 {
    let wavelength = f64::from(yarn.original_context_tokens) / (f64::from(turns) * 2.0 * PI64);
    f64::from(rope.dims) * wavelength.ln() / (2.0 * f64::from(rope.theta).ln())
}

fn yarn_periods(yarn: &Yarn, rope: &config::Rope, plain: &[f32]) -> Vec<f32> {
    let low = yarn_pair(yarn, rope, yarn.beta_fast);
    let high = yarn_pair(yarn, rope, yarn.beta_slow);
    let (low, high) = match yarn.ramp {
        YarnRamp::Truncated => (low.floor(), high.ceil()),
        YarnRamp::Exact => (low, high),
    };
    let (low, high) = (low.max(0.0), high.min(f64::from(rope.dims - 1)));
    // A ramp of no length would divide by zero.
    let high = if low == high { high + 0.001 } else { high };
    let period = |(pair, plain): (i32, &f32)| {
        #[expect(clippy::cast_possible_truncation, reason = "tensors compute in f32")]
        let ramp = ((f64::from(pair) - low) / (high - low)).clamp(0.0, 1.0) as f32;
        let stretched = yarn.factor * plain;
        let kept = 1.0 - ramp;
        (stretched * plain) / (stretched * kept + plain * (1.0 - kept))
    };
    (0..).zip(plain).map(period).collect()
}

fn yarn_magnitude(yarn: &Yarn) -> f32 {
    let growth = |mscale: f32| {
        if yarn.factor <= 1.0 {
            1.0
        } else {
            0.1 * mscale * yarn.factor.ln() + 1.0
        }
    };
    let by_factor = growth(yarn.mscale) / yarn.mscale_all_dim.map_or(1.0, growth);
    yarn.attention_factor.unwrap_or(by_factor)
}
