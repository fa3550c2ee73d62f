//! Matrix products with the weights: the one place that knows how a matrix is held.

use std::sync::Arc;

use mlx_rs::error::Exception;
use mlx_rs::ops::{concatenate, gather_mm};
use mlx_rs::{Array, Dtype};

use super::quantised::Quantised;
use crate::kernels::{Panels, Rows};
use crate::model::folder::is_cpu;
use crate::model::host;

/// `y = x W^T + b`.
#[derive(Clone, Debug)]
pub(in crate::model) struct Linear {
    pub(in crate::model) matrix: Matrix,
    pub(in crate::model) bias: Option<Array>,
}

/// How a matrix of weights is held.
#[derive(Clone, Debug)]
pub(in crate::model) enum Matrix {
    /// (out, in), as in the files.
    Dense(Array),
    /// For the CPU's own kernels.
    Packed(Arc<Panels>),
    /// A few bits a number. Products unpack as they go.
    Quantised(Quantised),
}

impl Matrix {
    /// `x W^T`.
    pub(in crate::model) fn apply(&self, input: &Array) -> Result<Array, Exception> {
        match self {
            Self::Dense(weight) => input.matmul(weight.t()),
            Self::Packed(panels) => product(panels, input),
            Self::Quantised(quantised) => quantised.apply(input),
        }
    }

    /// What MLX holds of it.
    pub(super) fn arrays(&self) -> impl Iterator<Item = &Array> {
        let (dense, quantised) = match self {
            Self::Dense(weight) => (Some(weight), None),
            Self::Packed(_) => (None, None),
            Self::Quantised(quantised) => (None, Some(quantised.arrays())),
        };
        dense.into_iter().chain(quantised.into_iter().flatten())
    }

    /// The same with a stack of matrices, (experts, out, in): input rows (.., 1, in) by the expert
    /// that each is for.
    fn apply_chosen(&self, input: &Array, experts: &Array) -> Result<Array, Exception> {
        match self {
            Self::Dense(weights) => chosen_products(input, weights, experts),
            Self::Packed(_) => unreachable!("stacks are packed with their layer"),
            Self::Quantised(quantised) => quantised.apply_chosen(input, experts),
        }
    }

    /// The rows that the ids name.
    pub(in crate::model) fn rows(&self, ids: &Array) -> Result<Array, Exception> {
        match self {
            Self::Dense(weight) => weight.take_axis(ids, 0),
            Self::Packed(panels) => packed_rows(panels, ids),
            Self::Quantised(quantised) => quantised.rows(ids),
        }
    }
}

/// MLX's CPU gathers in single precision only, so there 16-bit floats are widened on the way.
fn chosen_products(input: &Array, weights: &Array, experts: &Array) -> Result<Array, Exception> {
    let turned = weights.swap_axes(-1, -2)?;
    if input.dtype() == Dtype::Float32 || !is_cpu()? {
        return gather_mm(input, turned, None, experts, false);
    }
    let wide = |array: &Array| array.as_dtype(Dtype::Float32);
    let made = gather_mm(wide(input)?, wide(&turned)?, None, experts, false)?;
    made.as_dtype(input.dtype())
}

fn product(panels: &Arc<Panels>, input: &Array) -> Result<Array, Exception> {
    let mut shape = input.shape().to_vec();
    if let Some(width) = shape.last_mut() {
        *width = width_of(panels.outputs());
    }
    let panels = Arc::clone(panels);
    let kernel = move |inputs: &[Rows<'_>], outputs: &mut [&mut [f32]]| {
        panels.multiply(&inputs[0], outputs[0]);
    };
    host::apply_one(&[input], &shape, kernel)
}

/// Ids come from the caller of a step and are known before MLX computes anything.
fn packed_rows(panels: &Panels, ids: &Array) -> Result<Array, Exception> {
    let unreadable = |cause| Exception::custom(format!("token ids: {cause}"));
    let ids_known = ids.try_as_slice::<u32>().map_err(unreadable)?;
    let width = panels.inputs();
    let mut rows = vec![0.0; ids_known.len() * width];
    for (id, row) in ids_known.iter().zip(rows.chunks_exact_mut(width)) {
        let id = usize::try_from(*id).unwrap_or(usize::MAX);
        if id >= panels.outputs() {
            return Err(Exception::custom("a token id lies outside the vocabulary"));
        }
        panels.row(id, row);
    }
    let shape = [ids.shape(), &[width_of(width)]].concat();
    Ok(Array::from_slice(&rows, &shape))
}

fn width_of(width: usize) -> i32 {
    i32::try_from(width).expect("widths are read from a config as i32")
}

impl Linear {
    pub(in crate::model) fn apply(&self, input: &Array) -> Result<Array, Exception> {
        let product = self.matrix.apply(input)?;
        match &self.bias {
            Some(bias) => product.add(bias),
            None => Ok(product),
        }
    }

    /// The same for a stack of layers, of which each row takes its own.
    pub(super) fn apply_chosen(&self, input: &Array, experts: &Array) -> Result<Array, Exception> {
        let product = self.matrix.apply_chosen(input, experts)?;
        match &self.bias {
            Some(biases) => product.add(biases.take_axis(experts, 0)?.expand_dims(-2)?),
            None => Ok(product),
        }
    }

    pub(super) fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.matrix.arrays().chain(&self.bias)
    }
}

/// Several products of one input.
#[derive(Clone, Debug)]
pub(in crate::model) enum Projections {
    /// Each by itself, as in the files.
    Apart(Vec<Linear>),
    /// One matrix of all, its output cut at `cuts`.
    Joined { all: Linear, cuts: Vec<i32> },
}

impl Projections {
    /// One matrix of all where their kinds allow it: fewer, larger products.
    pub(in crate::model) fn joined(parts: Vec<Linear>) -> Result<Self, Exception> {
        let weights = parts.iter().map(|part| match &part.matrix {
            Matrix::Dense(weight) => Some(weight),
            Matrix::Packed(_) | Matrix::Quantised(_) => None,
        });
        let Some(weights) = weights.collect::<Option<Vec<&Array>>>() else {
            return Ok(Self::Apart(parts));
        };
        let mut end = 0;
        let ends = weights.iter().map(|weight| {
            end += weight.dim(0);
            end
        });
        let mut cuts: Vec<i32> = ends.collect();
        cuts.pop();
        let biases: Vec<&Array> = parts.iter().filter_map(|part| part.bias.as_ref()).collect();
        if !biases.is_empty() && biases.len() < parts.len() {
            return Ok(Self::Apart(parts));
        }
        let bias = (!biases.is_empty()).then(|| concatenate(&biases, 0));
        Ok(Self::Joined {
            all: Linear {
                matrix: Matrix::Dense(concatenate(&weights, 0)?),
                bias: bias.transpose()?,
            },
            cuts,
        })
    }

    pub(super) fn arrays(&self) -> impl Iterator<Item = &Array> {
        let parts = match self {
            Self::Apart(parts) => parts.as_slice(),
            Self::Joined { all, .. } => std::slice::from_ref(all),
        };
        parts.iter().flat_map(Linear::arrays)
    }

    /// The products, in the order of the layer.
    pub(in crate::model) fn apply(&self, input: &Array) -> Result<Vec<Array>, Exception> {
        match self {
            Self::Apart(each) => each.iter().map(|linear| linear.apply(input)).collect(),
            Self::Joined { all, cuts } => all.apply(input)?.split_at_indices(cuts, -1),
        }
    }
}
