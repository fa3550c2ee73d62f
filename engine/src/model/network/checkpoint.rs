//! Where a network's tensors come from: named arrays, each taken once and of the shape that the
//! config demands. Names and shapes are stated once, by the builders of the layers; listing them
//! is building a network of nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use mlx_rs::error::Exception;
use mlx_rs::ops::zeros_dtype;
use mlx_rs::{Array, Dtype};

use super::delta::{GatedDelta, LENGTH_EPS};
use super::layers::Norm;
use super::linear::{Linear, Matrix, Projections};
use super::past::Attention;
use super::published::network_arrays;
use super::quantised::{Floats, Packing, Quantised};
use super::rope::Rope;
use crate::kernels::{self, Pairs, Panels, Rotary};
use crate::model::config::{Bias, Config, NormShape, NormWeight, Numbers, RopePairs};
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
    load: Load,
    numbers: Numbers,
    /// What packed numbers are unpacked to.
    floats: Dtype,
    /// What the network holds and computes from the files, to be computed before it runs.
    made: Vec<Array>,
    /// Rotary positions of the CPU's kernels: layers that turn alike share a table.
    rotaries: Vec<Arc<Rotary>>,
}

/// How the network holds what the files give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub layout: Layout,
    pub quantised: QuantisedMatrices,
}

/// What becomes of matrices of a few bits a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantisedMatrices {
    /// They stay so: little memory, and on a GPU the faster way.
    Kept,
    /// Floats: on a CPU the faster way when several rows run at once.
    Unpacked,
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

impl Load {
    /// What training differentiates by.
    pub const AS_STORED: Self = Self {
        layout: Layout::Apart,
        quantised: QuantisedMatrices::Kept,
    };
}

/// The name of the norm before the head.
pub(super) const LAST_NORM: &str = "model.norm.weight";
const WORD_BITS: i32 = 32;
/// Bits of a number that is packed the affine way.
const AFFINE_BITS: &[i32] = &[2, 3, 4, 5, 6, 8];
/// Neighbours in a row that share a scale and an offset.
const AFFINE_GROUPS: &[i32] = &[32, 64, 128];

impl Checkpoint {
    pub(super) fn of(
        config: &Config,
        arrays: BTreeMap<String, Array>,
        load: Load,
    ) -> Result<Self, ModelError> {
        let arrays = network_arrays(config, arrays)?;
        // Norms are never packed: they tell what the network computes with.
        let norm = arrays.get(LAST_NORM);
        Ok(Self {
            floats: norm.map_or(Dtype::Float32, Array::dtype),
            source: Source::Arrays(arrays),
            load,
            numbers: config.numbers.clone(),
            made: vec![],
            rotaries: vec![],
        })
    }

    pub(super) fn listing() -> Self {
        Self {
            source: Source::Listing(vec![]),
            load: Load::AS_STORED,
            numbers: Numbers::Plain,
            floats: Dtype::Float32,
            made: vec![],
            rotaries: vec![],
        }
    }

    pub(super) fn layout(&self) -> Layout {
        self.load.layout
    }

    pub(super) fn into_listed(self) -> Vec<TensorShape> {
        match self.source {
            Source::Listing(list) => list,
            Source::Arrays(_) => vec![],
        }
    }

    /// Gives what the network holds, for whoever computes it before the first step.
    ///
    /// A tensor left over means that config and weights are of different models.
    pub(super) fn finish(self) -> Result<Vec<Array>, ModelError> {
        let left = match self.source {
            Source::Arrays(left) => left.into_keys().next(),
            Source::Listing(_) => None,
        };
        match left {
            Some(name) => Err(ModelError::TensorUnknown { name }),
            None => Ok(self.made),
        }
    }

    pub(super) fn tensor(&mut self, name: String, shape: &[i32]) -> Result<Array, ModelError> {
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

    /// A tensor that the network holds as it is.
    pub(super) fn constant(&mut self, name: String, shape: &[i32]) -> Result<Array, ModelError> {
        let array = self.tensor(name, shape)?;
        Ok(self.kept(array))
    }

    /// Notes something that the network holds and that was computed from tensors.
    pub(super) fn kept(&mut self, array: Array) -> Array {
        self.made.push(array.clone());
        array
    }

    /// Whether the files hold a tensor.
    pub(super) fn has(&self, name: &str) -> bool {
        self.peek(name).is_some()
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
            NormWeight::OnePlusStored => one_plus(&stored)?,
        };
        Ok(Norm {
            on_host: match self.load.layout {
                Layout::Apart | Layout::Joined => None,
                Layout::Packed => Some(numbers(&weight)?.into()),
            },
            weight: Some(self.kept(weight)),
            eps: shape.eps,
        })
    }

    /// A matrix of (`rows`, `columns`).
    pub(super) fn matrix(
        &mut self,
        name: &str,
        rows: i32,
        columns: i32,
    ) -> Result<Matrix, ModelError> {
        let matrix = self.weight(name, &[rows, columns])?;
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
        let projections = match self.load.layout {
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

    /// Adds what the CPU's own kernel wants to know of a layer, if it is to compute.
    pub(super) fn attention(&mut self, layer: Attention) -> Result<Attention, ModelError> {
        if self.load.layout != Layout::Packed {
            return Ok(layer);
        }
        let size = |size: i32| usize::try_from(size).expect("sizes are positive");
        let ones = || vec![1.0; size(layer.head_dim)].into();
        let norm = |norm: &Option<Norm>| {
            let norm = norm.as_ref()?;
            Some(norm.on_host.clone().unwrap_or_else(ones))
        };
        let norms = [&layer.query_norm, &layer.key_norm, &layer.value_norm];
        let sinks = layer.sinks.as_ref().map(numbers).transpose()?;
        let on_host = kernels::Attention {
            query_heads: size(layer.query_heads),
            kv_heads: size(layer.kv_heads),
            head_dim: size(layer.head_dim),
            scale: layer.scale,
            window: layer.window.map(size),
            norms: kernels::HeadNorms {
                query: norm(&layer.query_norm),
                key: norm(&layer.key_norm),
                value: norm(&layer.value_norm),
                eps: norms
                    .into_iter()
                    .flatten()
                    .map(|norm| norm.eps)
                    .next()
                    .unwrap_or(0.0),
            },
            rotary: layer.rope.as_ref().map(|rope| self.rotary(rope)),
            sinks,
        };
        Ok(Attention {
            on_host: Some(Arc::new(on_host)),
            ..layer
        })
    }

    /// The same for a recurrent layer.
    pub(super) fn delta(&mut self, layer: GatedDelta) -> Result<GatedDelta, ModelError> {
        if self.load.layout != Layout::Packed {
            return Ok(layer);
        }
        let size = |size: i32| usize::try_from(size).expect("sizes are positive");
        let shape = &layer.shape;
        let (width, kernel) = (size(shape.mixed_width()), size(shape.kernel));
        let by_channel = numbers(&layer.convolution)?;
        let places = (0..kernel).flat_map(|place| (0..width).map(move |ix| ix * kernel + place));
        let on_host = kernels::Delta {
            key_heads: size(shape.key_heads),
            value_heads: size(shape.value_heads),
            key_dim: size(shape.key_dim),
            value_dim: size(shape.value_dim),
            convolution: places.map(|ix| by_channel[ix]).collect(),
            rates: numbers(&layer.decay_log)?
                .into_iter()
                .map(f32::exp)
                .collect(),
            decay_bias: numbers(&layer.decay_bias)?,
            length_eps: LENGTH_EPS,
        };
        Ok(GatedDelta {
            on_host: Some(Arc::new(on_host)),
            ..layer
        })
    }

    fn rotary(&mut self, rope: &Rope) -> Arc<Rotary> {
        let frequencies: Vec<f32> = rope.periods.iter().map(|period| period.recip()).collect();
        let pairs = match rope.pairs {
            RopePairs::Halves => Pairs::Halves,
            RopePairs::Neighbours => Pairs::Neighbours,
        };
        let rotary = Rotary::new(frequencies, pairs, rope.magnitude);
        let known = self.rotaries.iter().find(|known| known.turns_as(&rotary));
        if let Some(known) = known {
            return Arc::clone(known);
        }
        let rotary = Arc::new(rotary);
        self.rotaries.push(Arc::clone(&rotary));
        rotary
    }

    /// As the network is to hold it.
    fn laid_out(&self, matrix: Matrix) -> Result<Matrix, ModelError> {
        match (self.load.layout, matrix) {
            (Layout::Packed, Matrix::Dense(weight)) => {
                let inputs = usize::try_from(weight.dim(1)).expect("shapes are positive");
                let panels = Panels::pack(inputs, &[&numbers(&weight)?]);
                Ok(Matrix::Packed(Arc::new(panels)))
            }
            (_, matrix) => Ok(matrix),
        }
    }

    /// A stack of `count` linear layers, each of the same size. Whoever holds it as it is notes it.
    pub(super) fn stacked(
        &mut self,
        name: &str,
        count: i32,
        size: LinearSize,
        bias: Bias,
    ) -> Result<Linear, ModelError> {
        let shape = [count, size.output, size.input];
        let matrix = self.weight(name, &shape)?;
        let bias = match bias {
            Bias::Absent => None,
            Bias::Present => Some(self.tensor(format!("{name}.bias"), &shape[..2])?),
        };
        Ok(Linear { matrix, bias })
    }

    fn part(&mut self, name: &str, size: LinearSize, bias: Bias) -> Result<Linear, ModelError> {
        let matrix = self.weight(name, &[size.output, size.input])?;
        let bias = match bias {
            Bias::Absent => None,
            Bias::Present => Some(self.tensor(format!("{name}.bias"), &[size.output])?),
        };
        Ok(Linear { matrix, bias })
    }

    /// A matrix or a stack of them, of a shape that is stated as if it were of floats.
    fn weight(&mut self, name: &str, shape: &[i32]) -> Result<Matrix, ModelError> {
        let stored = format!("{name}.weight");
        if self.numbers == Numbers::Plain || !self.has(&format!("{name}.scales")) {
            return Ok(Matrix::Dense(self.tensor(stored, shape)?));
        }
        if let Numbers::Unknown { mode, bits } = &self.numbers {
            let bits = bits.map_or(String::new(), |bits| format!(" of {bits} bits"));
            return Err(ModelError::Unsupported(format!(
                "tensor {stored}{bits} in quantization mode {mode}"
            )));
        }
        let quantised = self.quantised(name, shape)?;
        Ok(match self.load.quantised {
            QuantisedMatrices::Kept => Matrix::Quantised(quantised),
            QuantisedMatrices::Unpacked => Matrix::Dense(quantised.unpacked()?),
        })
    }

    /// How it is packed follows from the shapes: groups from the scales, bits from the words.
    fn quantised(&mut self, name: &str, shape: &[i32]) -> Result<Quantised, ModelError> {
        let (columns, rows) = shape.split_last().expect("a matrix has two axes");
        let with = |last: i32| [rows, &[last]].concat();
        let scales_name = format!("{name}.scales");
        let width = |checkpoint: &Self, name: &str| {
            let array = checkpoint.peek(name);
            array
                .and_then(|array| array.shape().last().copied())
                .unwrap_or(0)
        };
        let groups = width(self, &scales_name);
        let words = width(self, &format!("{name}.weight"));
        let group = whole(*columns, groups);
        let bits = whole(words.saturating_mul(WORD_BITS), *columns);
        let (Some(group), Some(bits)) = (group, bits) else {
            return Err(ModelError::Unsupported(format!(
                "tensor {name}.weight of {words} words and {groups} scales for {columns} columns"
            )));
        };
        let scales = self.tensor(scales_name, &with(groups))?;
        let packing = if scales.dtype() == Dtype::Uint8 {
            let floats = Floats::of(bits, group).ok_or_else(|| {
                ModelError::Unsupported(format!(
                    "tensor {name}.weight of {bits}-bit floats in groups of {group}"
                ))
            })?;
            Packing::Floats(floats)
        } else if AFFINE_BITS.contains(&bits) && AFFINE_GROUPS.contains(&group) {
            Packing::Affine {
                bits,
                group,
                offsets: self.tensor(format!("{name}.biases"), &with(groups))?,
            }
        } else {
            return Err(ModelError::Unsupported(format!(
                "tensor {name}.weight of {bits} bits in groups of {group}, mode affine"
            )));
        };
        Ok(Quantised {
            weight: self.tensor(format!("{name}.weight"), &with(words))?,
            scales,
            packing,
            floats: self.floats,
        })
    }

    fn peek(&self, name: &str) -> Option<&Array> {
        match &self.source {
            Source::Arrays(arrays) => arrays.get(name),
            Source::Listing(_) => None,
        }
    }
}

/// How often `part` goes into `all`, when it does so exactly.
fn whole(all: i32, part: i32) -> Option<i32> {
    (part > 0 && all % part == 0).then(|| all / part)
}

/// What an array holds, computed.
pub(super) fn numbers(array: &Array) -> Result<Vec<f32>, ModelError> {
    let array = array.as_dtype(Dtype::Float32)?.contiguous()?;
    let numbers = array.try_as_slice::<f32>();
    numbers
        .map(<[f32]>::to_vec)
        .map_err(|cause| ModelError::Mlx(cause.to_string()))
}

pub(super) fn one_plus(stored: &Array) -> Result<Array, Exception> {
    stored.add(Array::from_int(1))
}

/// How wide a linear layer's input and output are.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinearSize {
    pub(super) output: i32,
    pub(super) input: i32,
}
