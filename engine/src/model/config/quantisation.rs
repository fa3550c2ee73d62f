//! Whether a folder's matrices are packed into a few bits a number.
//!
//! How a matrix is packed is read off its tensors' shapes, layer by layer, because converters mix
//! widths. The config is asked only whether it is a way that the engine has.

use super::{Keys, missing};
use crate::model::error::ModelError;

/// How the numbers of matrices stand in the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// As floats.
    Plain,
    /// Where a matrix has scales, as whole numbers of a few bits.
    Quantised,
}

/// Bits of a packed number.
pub(in crate::model) const BITS: &[i32] = &[4, 6, 8];
/// Neighbours in a row that share a scale.
pub(in crate::model) const GROUPS: &[i32] = &[32, 64, 128];

impl Numbers {
    pub(in crate::model) fn read(keys: &Keys<'_>) -> Result<Self, ModelError> {
        let section = match keys.section("quantization")? {
            Some(section) => section,
            None => match keys.section("quantization_config")? {
                Some(section) => section,
                None => return Ok(Self::Plain),
            },
        };
        match section.text("quant_method")? {
            Some("mxfp4") => return Ok(Self::Quantised),
            Some(other) => return Err(ModelError::Unsupported(format!("quant_method {other}"))),
            None => {}
        }
        match section.text("mode")? {
            None | Some("affine") => {
                among(&section, "bits", BITS)?;
                among(&section, "group_size", GROUPS)?;
            }
            Some("mxfp4") => {}
            Some(other) => {
                return Err(ModelError::Unsupported(format!(
                    "quantization mode {other}"
                )));
            }
        }
        Ok(Self::Quantised)
    }
}

fn among(section: &Keys<'_>, key: &str, known: &[i32]) -> Result<(), ModelError> {
    let value = section.width_if_any(key)?.ok_or_else(|| missing(key))?;
    if known.contains(&value) {
        return Ok(());
    }
    Err(ModelError::Unsupported(format!(
        "quantization {key} {value}"
    )))
}
