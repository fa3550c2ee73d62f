//! Matrices of a few bits a number, as MLX packs them.
//!
//! `mlx-rs` offers the affine way only, and weights come in small floats as well, so the three
//! operations are called through MLX's own interface in C, for all ways.
#![expect(
    unsafe_code,
    reason = "calls into MLX's interface in C, see the SAFETY paragraphs"
)]

use std::ffi::{CStr, c_int};

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype, Stream};

/// A quantised matrix, or a stack of them.
#[derive(Clone, Debug)]
pub(in crate::model) struct Quantised {
    /// (.., rows, words of 32 bits).
    pub(in crate::model) weight: Array,
    /// (.., rows, groups).
    pub(in crate::model) scales: Array,
    pub(in crate::model) packing: Packing,
    /// What its numbers become when they are unpacked.
    pub(in crate::model) floats: Dtype,
}

/// How numbers became bits.
#[derive(Clone, Debug)]
pub(in crate::model) enum Packing {
    /// `scale * whole + offset`.
    Affine {
        bits: i32,
        group: i32,
        /// As `scales`.
        offsets: Array,
    },
    Floats(Floats),
}

/// Small floats, so many to a scale that is a small float too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model) enum Floats {
    /// Four bits, 32 to a scale that is a power of two.
    Mxfp4,
    /// Eight bits, 32 to a scale that is a power of two.
    Mxfp8,
    /// Four bits, 16 to a scale of eight bits.
    Nvfp4,
}

impl Floats {
    const ALL: [Self; 3] = [Self::Mxfp4, Self::Mxfp8, Self::Nvfp4];

    /// Each is told by its sizes.
    pub(super) fn of(bits: i32, group: i32) -> Option<Self> {
        let is_it = |it: &Self| (it.bits(), it.group()) == (bits, group);
        Self::ALL.into_iter().find(is_it)
    }

    fn bits(self) -> i32 {
        match self {
            Self::Mxfp4 | Self::Nvfp4 => 4,
            Self::Mxfp8 => 8,
        }
    }

    fn group(self) -> i32 {
        match self {
            Self::Mxfp4 | Self::Mxfp8 => 32,
            Self::Nvfp4 => 16,
        }
    }

    fn mode(self) -> &'static CStr {
        match self {
            Self::Mxfp4 => c"mxfp4",
            Self::Mxfp8 => c"mxfp8",
            Self::Nvfp4 => c"nvfp4",
        }
    }
}

impl Packing {
    fn bits(&self) -> i32 {
        match self {
            Self::Affine { bits, .. } => *bits,
            Self::Floats(floats) => floats.bits(),
        }
    }

    fn group(&self) -> i32 {
        match self {
            Self::Affine { group, .. } => *group,
            Self::Floats(floats) => floats.group(),
        }
    }

    fn mode(&self) -> &'static CStr {
        match self {
            Self::Affine { .. } => c"affine",
            Self::Floats(floats) => floats.mode(),
        }
    }

    pub(super) fn offsets(&self) -> Option<&Array> {
        match self {
            Self::Affine { offsets, .. } => Some(offsets),
            Self::Floats(_) => None,
        }
    }
}

impl Quantised {
    /// `x W^T`.
    pub(super) fn apply(&self, input: &Array) -> Result<Array, Exception> {
        let stream = Stream::thread_local_or_default();
        let none = none();
        let offsets = self.packing.offsets().unwrap_or(&none);
        made("a product with a packed matrix", |result| {
            // SAFETY: every handle is of an array that lives until the end of the call, the empty
            // one standing for none; so does the stream. The mode is a C string of static life.
            unsafe {
                mlx_sys::mlx_quantized_matmul(
                    result,
                    input.as_ptr(),
                    self.weight.as_ptr(),
                    self.scales.as_ptr(),
                    offsets.as_ptr(),
                    true,
                    present(self.packing.group()),
                    present(self.packing.bits()),
                    self.packing.mode().as_ptr(),
                    stream.as_ptr(),
                )
            }
        })
    }

    /// The same with a stack, by the matrix that each row of the input is for.
    pub(super) fn apply_chosen(&self, input: &Array, chosen: &Array) -> Result<Array, Exception> {
        let stream = Stream::thread_local_or_default();
        let none = none();
        let offsets = self.packing.offsets().unwrap_or(&none);
        made("a product with chosen packed matrices", |result| {
            // SAFETY: as above. No indices for the input: all of it is taken, in order.
            unsafe {
                mlx_sys::mlx_gather_qmm(
                    result,
                    input.as_ptr(),
                    self.weight.as_ptr(),
                    self.scales.as_ptr(),
                    offsets.as_ptr(),
                    none.as_ptr(),
                    chosen.as_ptr(),
                    true,
                    present(self.packing.group()),
                    present(self.packing.bits()),
                    self.packing.mode().as_ptr(),
                    false,
                    stream.as_ptr(),
                )
            }
        })
    }

    /// The rows that the ids name, unpacked.
    pub(super) fn rows(&self, ids: &Array) -> Result<Array, Exception> {
        let packing = match &self.packing {
            Packing::Affine {
                bits,
                group,
                offsets,
            } => Packing::Affine {
                bits: *bits,
                group: *group,
                offsets: offsets.take_axis(ids, 0)?,
            },
            Packing::Floats(floats) => Packing::Floats(*floats),
        };
        let rows = Self {
            weight: self.weight.take_axis(ids, 0)?,
            scales: self.scales.take_axis(ids, 0)?,
            packing,
            floats: self.floats,
        };
        rows.unpacked()
    }

    pub(super) fn unpacked(&self) -> Result<Array, Exception> {
        let stream = Stream::thread_local_or_default();
        let none = none();
        let offsets = self.packing.offsets().unwrap_or(&none);
        let floats = mlx_sys::mlx_optional_dtype {
            value: self.floats.into(),
            has_value: true,
        };
        made("the unpacking of a matrix", |result| {
            // SAFETY: as above.
            unsafe {
                mlx_sys::mlx_dequantize(
                    result,
                    self.weight.as_ptr(),
                    self.scales.as_ptr(),
                    offsets.as_ptr(),
                    present(self.packing.group()),
                    present(self.packing.bits()),
                    self.packing.mode().as_ptr(),
                    none.as_ptr(),
                    floats,
                    stream.as_ptr(),
                )
            }
        })
    }

    pub(super) fn arrays(&self) -> impl Iterator<Item = &Array> {
        [&self.weight, &self.scales]
            .into_iter()
            .chain(self.packing.offsets())
    }
}

fn none() -> Array {
    // SAFETY: a new handle is owned by nobody else.
    unsafe { Array::from_ptr(mlx_sys::mlx_array_new()) }
}

/// The array that a call makes.
fn made(
    what: &str,
    call: impl FnOnce(*mut mlx_sys::mlx_array) -> c_int,
) -> Result<Array, Exception> {
    // SAFETY: a new handle is owned by nobody else; the call fills it, and the array made of it
    // frees it.
    let (status, array) = unsafe {
        let mut handle = mlx_sys::mlx_array_new();
        (call(&raw mut handle), Array::from_ptr(handle))
    };
    if status == 0 {
        return Ok(array);
    }
    Err(Exception::custom(format!("MLX refused {what}")))
}

fn present(value: i32) -> mlx_sys::mlx_optional_int {
    mlx_sys::mlx_optional_int {
        value,
        has_value: true,
    }
}
