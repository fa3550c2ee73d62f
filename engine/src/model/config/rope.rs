//! How rotary positions turn, as configs of both generations of `transformers` write it.

use super::{Keys, missing};
use crate::model::error::ModelError;

/// Rotary positions of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Leading components of a head that turn; the rest stay.
    pub dims: i32,
    pub theta: f32,
    pub pairs: RopePairs,
    pub stretch: RopeStretch,
}

/// Which two components of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// One of the first half with its like of the second, as `transformers` has it.
    Halves,
    /// Neighbours, as in the paper and in Meta's own files: `rope_traditional` asks for it.
    Neighbours,
}

/// How rotary frequencies are stretched for contexts longer than those first trained on.
#[derive(Clone, Debug, PartialEq)]
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
    /// LongRoPE: each pair's wavelength has a factor of its own; queries and keys grow.
    Long {
        /// One for each pair of components.
        factors: Vec<f32>,
        magnitude: f32,
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
    /// Whether the ramp begins and ends at whole pairs.
    pub ramp: YarnRamp,
    pub mscale: f32,
    /// None where the file has zero or nothing.
    pub mscale_all_dim: Option<f32>,
    /// What queries and keys grow by, where the file says it outright.
    pub attention_factor: Option<f32>,
}

/// Where YaRN's ramp between kept and stretched pairs begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum YarnRamp {
    /// At the whole pairs around the places that the two betas name.
    Truncated,
    /// Between two pairs, exactly at those places.
    Exact,
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
            Some(section) => Self::of_section(keys, &section, theta, dims),
            None => Self::plain(theta, dims),
        }
    }

    /// Reads one object of the file, which may bring its own `rope_theta`.
    pub(in crate::model) fn of_section(
        keys: &Keys<'_>,
        section: &Keys<'_>,
        theta: f32,
        dims: i32,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            dims: even(dims)?,
            theta: section.positive("rope_theta")?.unwrap_or(theta),
            pairs: RopePairs::Halves,
            stretch: RopeStretch::read(keys, section, dims)?,
        })
    }

    /// The same with the pairs that `rope_traditional` asks for, in families that have the key.
    pub(in crate::model) fn paired_as(self, keys: &Keys<'_>) -> Result<Self, ModelError> {
        let pairs = if keys.flag("rope_traditional", false)? {
            RopePairs::Neighbours
        } else {
            RopePairs::Halves
        };
        Ok(Self { pairs, ..self })
    }

    pub(in crate::model) fn plain(theta: f32, dims: i32) -> Result<Self, ModelError> {
        Ok(Self {
            dims: even(dims)?,
            theta,
            pairs: RopePairs::Halves,
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
    fn read(keys: &Keys<'_>, section: &Keys<'_>, dims: i32) -> Result<Self, ModelError> {
        let kind = match section.text("rope_type")? {
            Some(kind) => Some(kind),
            None => section.text("type")?,
        };
        match kind {
            // For text alone, the three axes of `mrope` are one.
            None | Some("default" | "mrope") => Ok(Self::None),
            // The base grows with what lies beyond the context of the model, and a row that would
            // go beyond it is not admitted.
            Some("dynamic") => section.demand("factor").map(|_| Self::None),
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
                    original_context_tokens: section.demand(ORIGINAL)?,
                })
            }
            Some("longrope") => long(keys, section, dims),
            Some("yarn") => Ok(Self::Yarn(Yarn {
                factor: section.demand("factor")?,
                original_context_tokens: section.positive(ORIGINAL)?.unwrap_or(4_096.0),
                beta_fast: section.positive("beta_fast")?.unwrap_or(32.0),
                beta_slow: section.positive("beta_slow")?.unwrap_or(1.0),
                ramp: if section.flag("truncate", true)? {
                    YarnRamp::Truncated
                } else {
                    YarnRamp::Exact
                },
                mscale: section.positive("mscale")?.unwrap_or(1.0),
                mscale_all_dim: section.at_least_zero("mscale_all_dim")?,
                attention_factor: section.positive("attention_factor")?,
            })),
            Some("proportional") => Ok(Self::Proportional {
                turning: even(turning(section, dims, 1.0)?)?,
                factor: section.positive("factor")?.unwrap_or(1.0),
            }),
            Some(other) => Err(ModelError::Unsupported(format!("rope scaling {other}"))),
        }
    }
}

/// The context that a model was first trained on.
const ORIGINAL: &str = "original_max_position_embeddings";

/// A context within the first one keeps the short factors; a longer one has the long factors from
/// the first token on, because keys that were kept turn no more.
fn long(keys: &Keys<'_>, section: &Keys<'_>, dims: i32) -> Result<RopeStretch, ModelError> {
    const CONTEXT: &str = "max_position_embeddings";
    // Some files have it outside the object.
    let original = match section.positive(ORIGINAL)? {
        Some(original) => original,
        None => keys.demand(ORIGINAL)?,
    };
    let stretch = keys.demand(CONTEXT)? / original;
    let (key, magnitude) = if stretch > 1.0 {
        let grown = (1.0 + stretch.ln() / original.ln()).sqrt();
        ("long_factor", grown)
    } else {
        ("short_factor", 1.0)
    };
    let pairs = usize::try_from(even(dims)? / 2).expect("widths are positive");
    let factors = section.positives(key, pairs)?;
    Ok(RopeStretch::Long {
        factors: factors.ok_or_else(|| missing(key))?,
        magnitude: section.positive("attention_factor")?.unwrap_or(magnitude),
    })
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
