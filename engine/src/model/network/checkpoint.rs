//! Where a network's tensors come from: named arrays, each taken once and of the shape that the
//! config demands. Names and shapes are stated once, by the builders of the layers; listing them
//! is building a network of nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use mlx_rs::ops::zeros_dtype;
use mlx_rs::{Array, Dtype};

use super::layers::Norm;
use super::linear::{Linear, Matrix, Projections};
use crate::kernels::Panels;
use crate::model::config::{Bias, Config, Head, NormShape, NormWeight};
use crate::model::error::ModelError;

/// One tensor that a model of some config has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorShape {
    pub name: String,
    pub shape: Vec<i32>,
}

#[derive(Debug)]
pub(super) struct Checkpoint {
    source: Source,
    layout: Layout,
    /// What the network holds and computes from the files, to be computed before it runs.
    made: Vec<Array>,
}

/// How the network holds matrices that share an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Each by itself, as in the files: training differentiates by them.
    Apart,
    /// As one matrix: fewer, larger products.
    Joined,
    /// As one matrix, packed for the CPU's own kernels, which then compute norms and gates as well.
    Packed,
}

#[derive(Debug)]
enum Source {
    Arrays(BTreeMap<String, Array>),
    /// Gives zeros that nobody computes, and remembers what was asked for.
    Listing(Vec<TensorShape>),
}

impl Checkpoint {
    pub(super) fn of(arrays: BTreeMap<String, Array>, layout: Layout) -> Self {
        Self {
            source: Source::Arrays(arrays),
            layout,
            made: vec![],
        }
    }

    pub(super) fn listing() -> Self {
        Self {
            source: Source::Listing(vec![]),
            layout: Layout::Apart,
            made: vec![],
        }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn into_listed(self) -> Vec<TensorShape> {
        match self.source {
            Source::Listing(list) => list,
            Source::Arrays(_) => vec![],
        }
    }

    /// Gives what the network holds, for whoever computes it before the first step.
    ///
    /// A tensor left over means that config and weights are of different models, unless it is one
    /// that takes no part in the network.
    pub(super) fn finish(self, config: &Config) -> Result<Vec<Array>, ModelError> {
        let Source::Arrays(left) = self.source else {
            return Ok(self.made);
        };
        let is_idle = |name: &str| {
            name.ends_with("rotary_emb.inv_freq")
                || (config.head == Head::Tied && name == "lm_head.weight")
        };
        match left.into_keys().find(|name| !is_idle(name)) {
            Some(name) => Err(ModelError::TensorUnknown { name }),
            None => Ok(self.made),
        }
    }

    fn tensor(&mut self, name: String, shape: &[i32]) -> Result<Array, ModelError> {
        let expected = shape.to_vec();
        let array = match &mut self.source {
            Source::Arrays(arrays) => arrays.remove(&name),
            Source::Listing(list) => {
                list.push(TensorShape {
                    name: name.clone(),
                    shape: expected.clone(),
                });
                Some(zeros_dtype(shape, Dtype::Float32)?)
            }
        };
        let Some(array) = array else {
            return Err(ModelError::TensorMissing { name, expected });
        };
        if array.shape() != shape {
            let found = array.shape().to_vec();
            return Err(ModelError::TensorShape {
                name,
                expected,
                found,
            });
        }
        Ok(array)
    }

    pub(super) fn norm(
        &mut self,
        name: &str,
        shape: NormShape,
        width: i32,
    ) -> Result<Norm, ModelError> {
        let stored = self.tensor(format!("{name}.weight"), &[width])?;
        let weight = match shape.weight {
            NormWeight::AsStored => stored,
            NormWeight::OnePlusStored => stored.add(Array::from_int(1))?,
        };
        self.made.push(weight.clone());
        let on_host = match self.layout {
            Layout::Apart | Layout::Joined => None,
            Layout::Packed => Some(numbers(&weight)?.into()),
        };
        Ok(Norm {
            weight: Some(weight),
            eps: shape.eps,
            on_host,
        })
    }

    /// A matrix of (`rows`, `columns`).
    pub(super) fn matrix(
        &mut self,
        name: &str,
        rows: i32,
        columns: i32,
    ) -> Result<Matrix, ModelError> {
        let matrix = Matrix::Dense(self.tensor(format!("{name}.weight"), &[rows, columns])?);
        let matrix = self.laid_out(matrix)?;
        self.made.extend(matrix.arrays().cloned());
        Ok(matrix)
    }

    pub(super) fn linear(
        &mut self,
        name: &str,
        size: LinearSize,
        bias: Bias,
    ) -> Result<Linear, ModelError> {
        let part = self.part(name, size, bias)?;
        let linear = Linear {
            matrix: self.laid_out(part.matrix)?,
            bias: part.bias,
        };
        self.made.extend(linear.arrays().cloned());
        Ok(linear)
    }

    /// Several linear layers of one input, by name and width.
    pub(super) fn projections(
        &mut self,
        parts: &[(String, i32)],
        input: i32,
        bias: Bias,
    ) -> Result<Projections, ModelError> {
        let part = |(name, output): &(String, i32)| {
            let output = *output;
            self.part(name, LinearSize { output, input }, bias)
        };
        let parts = parts.iter().map(part).collect::<Result<Vec<_>, _>>()?;
        let projections = match self.layout {
            Layout::Apart => Projections::Apart(parts),
            Layout::Joined => Projections::joined(parts)?,
            Layout::Packed => match Projections::joined(parts)? {
                Projections::Apart(parts) => Projections::Apart(parts),
                Projections::Joined { all, cuts } => Projections::Joined {
                    all: Linear {
                        matrix: self.laid_out(all.matrix)?,
                        bias: all.bias,
                    },
                    cuts,
                },
            },
        };
        self.made.extend(projections.arrays().cloned());
        Ok(projections)
    }

    /// As the network is to hold it.
    fn laid_out(&self, matrix: Matrix) -> Result<Matrix, ModelError> {
        match (self.layout, matrix) {
            (Layout::Packed, Matrix::Dense(weight)) => {
                let inputs = usize::try_from(weight.dim(1)).expect("shapes are positive");
                let panels = Panels::pack(inputs, &[&numbers(&weight)?]);
                Ok(Matrix::Packed(Arc::new(panels)))
            }
            (_, matrix) => Ok(matrix),
        }
    }

    fn part(&mut self, name: &str, size: LinearSize, bias: Bias) -> Result<Linear, ModelError> {
        let weight = self.tensor(format!("{name}.weight"), &[size.output, size.input])?;
        let bias = match bias {
            Bias::Absent => None,
            Bias::Present => Some(self.tensor(format!("{name}.bias"), &[size.output])?),
        };
        Ok(Linear {
            matrix: Matrix::Dense(weight),
            bias,
        })
    }
}

/// What an array holds, computed.
fn numbers(array: &Array) -> Result<Vec<f32>, ModelError> {
    let array = array.as_dtype(Dtype::Float32)?;
    let numbers = array.try_as_slice::<f32>();
    numbers
        .map(<[f32]>::to_vec)
        .map_err(|cause| ModelError::Mlx(cause.to_string()))
}

/// How wide a linear layer's input and output are.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinearSize {
    pub(super) output: i32,
    pub(super) input: i32,
}
