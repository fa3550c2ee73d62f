//! Whether a folder's matrices are packed into a few bits a number.
//!
//! How a matrix is packed is read off its tensors' shapes, layer by layer, because converters mix
//! widths. The config is asked only whether it is a way that the engine has.

use super::Keys;
use crate::model::error::ModelError;

/// How the numbers of matrices stand in the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// As floats.
    Plain,
    /// Where a matrix has scales, in a few bits each.
    Quantised,
    /// The same, in a way that the engine does not have: the first such matrix is refused by name.
    Unknown { mode: String, bits: Option<i32> },
}

/// The ways that MLX packs numbers in.
const MODES: &[&str] = &["affine", "mxfp4", "mxfp8", "nvfp4"];

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
            Some(other) => return Err(ModelError::QuantMethod(other.to_owned())),
            None => {}
        }
        Ok(match section.text("mode")? {
            Some(other) if !MODES.contains(&other) => Self::Unknown {
                mode: other.to_owned(),
                bits: section.width_if_any("bits")?,
            },
            Some(_) | None => Self::Quantised,
        })
    }
}
