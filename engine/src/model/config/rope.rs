//! How rotary positions turn, as configs of both generations of `transformers` write it.

use super::Keys;
use crate::model::error::ModelError;

/// Rotary positions of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Leading components of a head that turn; the rest stay.
    pub dims: i32,
    pub theta: f32,
    pub stretch: RopeStretch,
}

/// How rotary frequencies are stretched for contexts longer than those first trained on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeStretch {
    None,
    /// Every position divided by `factor`.
    Linear {
        factor: f32,
    },
    /// Llama 3: long wavelengths stretched, short ones kept, a ramp between.
    Llama3 {
        factor: f32,
        low_freq_factor: f32,
        high_freq_factor: f32,
        original_context_tokens: f32,
    },
}

/// What a folder without `rope_theta` gets, as in `transformers`.
const THETA_DEFAULT: f32 = 10_000.0;

impl Rope {
    /// Reads `rope_parameters` (newer files) or `rope_scaling` and `rope_theta` (older ones).
    pub(in crate::model) fn read(keys: &Keys<'_>, dims: i32) -> Result<Self, ModelError> {
        let section = match keys.section("rope_parameters")? {
            Some(section) => Some(section),
            None => keys.section("rope_scaling")?,
        };
        let theta = match section.map(|section| section.positive("rope_theta")) {
            Some(Ok(Some(theta))) => theta,
            Some(Err(error)) => return Err(error),
            Some(Ok(None)) | None => keys.positive("rope_theta")?.unwrap_or(THETA_DEFAULT),
        };
        let stretch = section.map_or(Ok(RopeStretch::None), |section| RopeStretch::read(&section));
        Ok(Self {
            dims: even(dims)?,
            theta,
            stretch: stretch?,
        })
    }
}

fn even(dims: i32) -> Result<i32, ModelError> {
    if dims % 2 == 0 {
        return Ok(dims);
    }
    Err(ModelError::Inconsistent(format!(
        "head_dim turns {dims} components, an odd number; rotary positions pair them"
    )))
}

impl RopeStretch {
    fn read(section: &Keys<'_>) -> Result<Self, ModelError> {
        let kind = match section.text("rope_type")? {
            Some(kind) => Some(kind),
            None => section.text("type")?,
        };
        match kind {
            None | Some("default") => Ok(Self::None),
            Some("linear") => Ok(Self::Linear {
                factor: section.demand("factor")?,
            }),
            Some("llama3") => {
                let low_freq_factor = section.demand("low_freq_factor")?;
                let high_freq_factor = section.demand("high_freq_factor")?;
                if high_freq_factor <= low_freq_factor {
                    return Err(ModelError::Inconsistent(
                        "rope high_freq_factor is not above low_freq_factor".to_owned(),
                    ));
                }
                Ok(Self::Llama3 {
                    factor: section.demand("factor")?,
                    low_freq_factor,
                    high_freq_factor,
                    original_context_tokens: section.demand("original_max_position_embeddings")?,
                })
            }
            Some(other) => Err(ModelError::Unsupported(format!("rope scaling {other}"))),
        }
    }
}
