//! The gated delta rule: a recurrent layer that keeps a matrix a head.
//!
//! Each token passes a short convolution, then decays the matrix, reads it by its key, and writes
//! back what was missing of its value.

use std::sync::Arc;

use mlx_rs::error::Exception;
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::ops::{broadcast_to, concatenate, exp, sigmoid, stack, zeros_dtype};
use mlx_rs::{Array, Dtype, fast, nn};

use super::checkpoint::{Checkpoint, LinearSize};
use super::layer::Place;
use super::layers::{self, Norm};
use super::linear::{Linear, Projections};
use super::past::Past;
use crate::kernels;
use crate::model::config::{self, Bias, NormShape, NormWeight};
use crate::model::error::ModelError;

/// What keeps the length of queries and keys from dividing by zero, as the family has it.
pub(in crate::model) const LENGTH_EPS: f32 = 1e-6;

/// One recurrent layer's constants, made once at load.
#[derive(Clone, Debug)]
pub(in crate::model) struct GatedDelta {
    /// Index into [`Model::stores`](super::Model::stores) of the state it keeps.
    pub(in crate::model) store: usize,
    pub(in crate::model) shape: config::GatedDelta,
    /// (mixed width, kernel, 1).
    pub(in crate::model) convolution: Array,
    /// Logarithms of the rates of decay, (value heads).
    pub(in crate::model) decay_log: Array,
    pub(in crate::model) decay_bias: Array,
    /// What the CPU's own kernel wants to know, if it is to compute.
    pub(in crate::model) on_host: Option<Arc<kernels::Delta>>,
}

/// What the tokens of a step bring, each (batch, tokens, its width).
#[derive(Clone, Debug)]
pub(in crate::model) struct DeltaInput {
    /// Queries, keys and values, before the convolution.
    pub(in crate::model) mixed: Array,
    /// How much of the state decays, before the bias, (value heads).
    pub(in crate::model) decay: Array,
    /// How much of a correction is written, before the sigmoid, (value heads).
    pub(in crate::model) write: Array,
}

/// What a row keeps.
#[derive(Clone, Debug)]
pub(in crate::model) struct DeltaState {
    /// The last tokens that the convolution still sees, (batch, kernel - 1, mixed width).
    pub(in crate::model) tail: Array,
    /// (batch, value heads, value dim, key dim), in single precision.
    pub(in crate::model) matrix: Array,
}

/// What a run of tokens gives: (batch, tokens, value width), and the state after them.
#[derive(Debug)]
pub(in crate::model) struct DeltaRun {
    pub(in crate::model) output: Array,
    pub(in crate::model) state: DeltaState,
}

impl GatedDelta {
    /// Runs tokens from a state; from the beginning when there is none.
    pub(in crate::model) fn run(
        &self,
        input: &DeltaInput,
        state: Option<&DeltaState>,
    ) -> Result<DeltaRun, Exception> {
        let shape = &self.shape;
        let (batch, tokens) = (input.mixed.dim(0), input.mixed.dim(1));
        let start = match state {
            Some(state) => state.clone(),
            None => self.empty(batch, input.mixed.dtype())?,
        };
        let mixed = concatenate(&[&start.tail, &input.mixed], 1)?;
        let tail = mixed.try_index((.., tokens.., ..))?;
        let convolved = nn::silu(self.convolve(&mixed, tokens)?)?;
        let key_width = shape.key_heads * shape.key_dim;
        let parts = convolved.split_at_indices(&[key_width, 2 * key_width], -1)?;
        let query = self.unit_heads(&parts[0])?;
        let key = self.unit_heads(&parts[1])?;
        let value = parts[2].reshape(&[batch, tokens, shape.value_heads, shape.value_dim])?;
        // Queries carry the scale of a dot product of this width besides.
        let query = layers::scaled(&query, root(shape.key_dim).recip())?;
        let steps = Steps {
            query,
            key,
            value,
            keep: self.kept(&input.decay)?,
            write: sigmoid(&input.write)?,
        };
        let (output, matrix) = steps.run(&start.matrix)?;
        Ok(DeltaRun {
            output: output.reshape(&[batch, tokens, shape.value_width()])?,
            state: DeltaState { tail, matrix },
        })
    }

    fn empty(&self, batch: i32, dtype: Dtype) -> Result<DeltaState, Exception> {
        let shape = &self.shape;
        let matrix = [batch, shape.value_heads, shape.value_dim, shape.key_dim];
        Ok(DeltaState {
            tail: zeros_dtype(&[batch, shape.kernel - 1, shape.mixed_width()], dtype)?,
            matrix: zeros_dtype(&matrix, Dtype::Float32)?,
        })
    }

    /// Each component by itself over the kernel's tokens: a sum of shifted products, because MLX
    /// convolves one channel at a time slowly on a CPU.
    fn convolve(&self, mixed: &Array, tokens: i32) -> Result<Array, Exception> {
        let mut sum: Option<Array> = None;
        for place in 0..self.shape.kernel {
            let weight = self.convolution.try_index((.., place, 0))?;
            let part = mixed
                .try_index((.., place..place + tokens, ..))?
                .multiply(weight)?;
            sum = Some(match sum {
                Some(sum) => sum.add(part)?,
                None => part,
            });
        }
        Ok(sum.expect("a kernel sees at least two tokens"))
    }

    /// Heads of length one, one for each value head.
    fn unit_heads(&self, flat: &Array) -> Result<Array, Exception> {
        let shape = &self.shape;
        let heads = flat.reshape(&[flat.dim(0), flat.dim(1), shape.key_heads, shape.key_dim])?;
        #[expect(
            clippy::cast_precision_loss,
            reason = "head widths are exact below 2^24"
        )]
        let eps = LENGTH_EPS / shape.key_dim as f32;
        let unit = layers::scaled(
            &fast::rms_norm(heads, None, eps)?,
            root(shape.key_dim).recip(),
        )?;
        let times = shape.value_heads / shape.key_heads;
        let (batch, tokens) = (flat.dim(0), flat.dim(1));
        let wide = [batch, tokens, shape.key_heads, times, shape.key_dim];
        let flat = [batch, tokens, shape.value_heads, shape.key_dim];
        broadcast_to(unit.expand_dims(3)?, &wide)?.reshape(&flat)
    }

    /// The share of the state that a token keeps, in single precision.
    fn kept(&self, decay: &Array) -> Result<Array, Exception> {
        let rate = exp(self.decay_log.as_type::<f32>()?)?;
        let time = nn::softplus(decay.add(&self.decay_bias)?)?;
        exp(rate.multiply(time)?.negative()?)
    }
}

fn root(width: i32) -> f32 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "head widths are exact below 2^24"
    )]
    let width = width as f32;
    width.sqrt()
}

/// Tokens after the convolution: heads (batch, tokens, value heads, dim), and a number a head.
struct Steps {
    query: Array,
    key: Array,
    value: Array,
    keep: Array,
    write: Array,
}

impl Steps {
    /// Token by token, because each corrects what the one before it has written.
    fn run(&self, state: &Array) -> Result<(Array, Array), Exception> {
        let mut state = state.clone();
        let mut outputs = Vec::new();
        for token in 0..self.query.dim(1) {
            let at = |array: &Array| array.try_index((.., token));
            // Keys and queries as rows of the matrix, values and shares as its columns.
            let key = at(&self.key)?.expand_dims(2)?;
            let query = at(&self.query)?.expand_dims(2)?;
            let value = at(&self.value)?.expand_dims(3)?;
            let column = |array: &Array| at(array)?.expand_dims(2)?.expand_dims(3);
            let kept = state.multiply(column(&self.keep)?)?;
            let read = kept.multiply(&key)?.sum_axis(-1, true)?;
            let missing = value.subtract(read)?.multiply(column(&self.write)?)?;
            state = kept.add(key.multiply(missing)?)?;
            let output = state.multiply(query)?.sum_axis(-1, false)?;
            outputs.push(output.as_dtype(self.query.dtype())?);
        }
        Ok((stack(&outputs, 1)?, state))
    }
}

/// The layer around the rule.
#[derive(Clone, Debug)]
pub(super) struct DeltaBlock {
    constants: GatedDelta,
    /// Queries, keys and values; gate; write; decay.
    inputs: Projections,
    norm: Norm,
    output: Linear,
}

impl DeltaBlock {
    pub(super) fn build(
        shape: &config::GatedDelta,
        place: &Place<'_>,
        from: &mut Checkpoint,
    ) -> Result<Self, ModelError> {
        let hidden = place.config.hidden_size;
        let named = |name: &str| place.named(&format!("linear_attn.{name}"));
        let parts = [
            (named("in_proj_qkv"), shape.mixed_width()),
            (named("in_proj_z"), shape.value_width()),
            (named("in_proj_b"), shape.value_heads),
            (named("in_proj_a"), shape.value_heads),
        ];
        let inputs = from.projections(&parts, hidden, Bias::Absent)?;
        let convolution = [shape.mixed_width(), shape.kernel, 1];
        let per_head = [shape.value_heads];
        let constants = GatedDelta {
            store: place.store,
            shape: *shape,
            convolution: from.constant(named("conv1d.weight"), &convolution)?,
            decay_log: from.constant(named("A_log"), &per_head)?,
            decay_bias: from.constant(named("dt_bias"), &per_head)?,
            on_host: None,
        };
        let constants = from.delta(constants)?;
        let norm = NormShape {
            weight: NormWeight::AsStored,
            ..place.config.norm
        };
        let size = LinearSize {
            output: hidden,
            input: shape.value_width(),
        };
        Ok(Self {
            constants,
            inputs,
            norm: from.norm(&named("norm"), norm, shape.value_dim)?,
            output: from.linear(&named("out_proj"), size, Bias::Absent)?,
        })
    }

    pub(super) fn apply(&self, state: &Array, past: &mut impl Past) -> Result<Array, Exception> {
        let parts = self.inputs.apply(state)?;
        let [mixed, gate, write, decay] = parts.as_slice() else {
            unreachable!("a recurrent layer is built with four projections");
        };
        let input = DeltaInput {
            mixed: mixed.clone(),
            decay: decay.clone(),
            write: write.clone(),
        };
        let shape = &self.constants.shape;
        let heads = [
            state.dim(0),
            state.dim(1),
            shape.value_heads,
            shape.value_dim,
        ];
        let made = past.recur(&self.constants, &input)?.reshape(&heads)?;
        let gated = layers::norm_gated_by_silu(&self.norm, &made, &gate.reshape(&heads)?)?;
        self.output
            .apply(&gated.reshape(&[heads[0], heads[1], -1])?)
    }
}
