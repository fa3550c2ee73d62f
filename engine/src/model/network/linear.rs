//! Matrix products with the weights: the one place that knows how a matrix is held.

use mlx_rs::Array;
use mlx_rs::error::Exception;
use mlx_rs::ops::concatenate;

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
}

impl Matrix {
    /// `x W^T`.
    pub(in crate::model) fn apply(&self, input: &Array) -> Result<Array, Exception> {
        match self {
            Self::Dense(weight) => input.matmul(weight.t()),
        }
    }

    pub(super) fn arrays(&self) -> impl Iterator<Item = &Array> {
        match self {
            Self::Dense(weight) => std::iter::once(weight),
        }
    }

    /// The rows that the ids name.
    pub(in crate::model) fn rows(&self, ids: &Array) -> Result<Array, Exception> {
        match self {
            Self::Dense(weight) => weight.take_axis(ids, 0),
        }
    }
}

impl Linear {
    pub(in crate::model) fn apply(&self, input: &Array) -> Result<Array, Exception> {
        let product = self.matrix.apply(input)?;
        match &self.bias {
            Some(bias) => product.add(bias),
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
            Matrix::Dense(weight) => weight,
        });
        let weights: Vec<&Array> = weights.collect();
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
