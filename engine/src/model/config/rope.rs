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
    /// YaRN: pairs that turn often kept, those that turn seldom stretched, a ramp between; queries
    /// and keys grow with the factor.
    Yarn(Yarn),
    /// Only the first `turning` components turn, at the frequencies that they would have among
    /// all.
    Proportional {
        turning: i32,
        factor: f32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    pub factor: f32,
    pub original_context_tokens: f32,
    pub beta_fast: f32,
    pub beta_slow: f32,
    pub mscale: f32,
    /// None where the file has zero or nothing.
    pub mscale_all_dim: Option<f32>,
}

impl Rope {
    /// Reads `rope_parameters` (newer files) or `rope_scaling` and `rope_theta` (older ones).
    pub(in crate::model) fn read(
        keys: &Keys<'_>,
        dims: i32,
        theta_default: f32,
    ) -> Result<Self, ModelError> {
        let section = match keys.section("rope_parameters")? {
            Some(section) => Some(section),
            None => keys.section("rope_scaling")?,
        };
        let theta = keys.positive("rope_theta")?.unwrap_or(theta_default);
        match section {
            Some(section) => Self::of_section(&section, theta, dims),
            None => Self::plain(theta, dims),
        }
    }

    /// Reads one object, which may bring its own `rope_theta`.
    pub(in crate::model) fn of_section(
        section: &Keys<'_>,
        theta: f32,
        dims: i32,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            dims: even(dims)?,
            theta: section.positive("rope_theta")?.unwrap_or(theta),
            stretch: RopeStretch::read(section, dims)?,
        })
    }

    pub(in crate::model) fn plain(theta: f32, dims: i32) -> Result<Self, ModelError> {
        Ok(Self {
            dims: even(dims)?,
            theta,
            stretch: RopeStretch::None,
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
    fn read(section: &Keys<'_>, dims: i32) -> Result<Self, ModelError> {
        let kind = match section.text("rope_type")? {
            Some(kind) => Some(kind),
            None => section.text("type")?,
        };
        match kind {
            // For text alone, the three axes of `mrope` are one.
            None | Some("default" | "mrope") => Ok(Self::None),
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
            Some("yarn") => Ok(Self::Yarn(Yarn {
                factor: section.demand("factor")?,
                original_context_tokens: section
                    .positive("original_max_position_embeddings")?
                    .unwrap_or(4_096.0),
                beta_fast: section.positive("beta_fast")?.unwrap_or(32.0),
                beta_slow: section.positive("beta_slow")?.unwrap_or(1.0),
                mscale: section.positive("mscale")?.unwrap_or(1.0),
                mscale_all_dim: section.at_least_zero("mscale_all_dim")?,
            })),
            Some("proportional") => Ok(Self::Proportional {
                turning: even(turning(section, dims, 1.0)?)?,
                factor: section.positive("factor")?.unwrap_or(1.0),
            }),
            Some(other) => Err(ModelError::Unsupported(format!("rope scaling {other}"))),
        }
    }
}

/// How many of a head's components turn, by `partial_rotary_factor`.
pub(in crate::model) fn turning(
    keys: &Keys<'_>,
    dims: i32,
    share_default: f64,
) -> Result<i32, ModelError> {
    const KEY: &str = "partial_rotary_factor";
    let share = keys.share(KEY)?.unwrap_or(share_default);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a share of a head's width fits any integer"
    )]
    let part = (f64::from(dims) * share).floor() as i32;
    if part >= 2 {
        return Ok(part);
    }
    Err(ModelError::Inconsistent(format!(
        "{KEY} leaves {part} of {dims} components to turn"
    )))
}
