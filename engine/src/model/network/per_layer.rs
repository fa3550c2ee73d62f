//! A second embedding of each token, of which each layer gets a part of its own.

use mlx_rs::Array;
use mlx_rs::error::Exception;
use mlx_rs::ops::indexing::TryIndexOp;

use super::checkpoint::{Checkpoint, Layout, LinearSize};
use super::layer::Place;
use super::layers::{self, Norm};
use super::linear::{Linear, Matrix};
use crate::model::config::{Activation, Bias, Config, PerLayerInput};
use crate::model::error::ModelError;

#[derive(Clone, Debug)]
pub(super) struct LayerInputs {
    shape: PerLayerInput,
    layer_count: i32,
    embedding: Matrix,
    projection: Linear,
    projection_scale: f32,
    norm: Norm,
}

impl LayerInputs {
    pub(super) fn build(
        shape: PerLayerInput,
        config: &Config,
        from: &mut Checkpoint,
    ) -> Result<Self, ModelError> {
        let layer_count = i32::try_from(config.layers.len()).expect("layers are bounded");
        let all = layer_count * shape.width;
        let size = LinearSize {
            output: all,
            input: config.hidden_size,
        };
        let projection = "model.per_layer_model_projection";
        let norm = "model.per_layer_projection_norm";
        Ok(Self {
            shape,
            layer_count,
            embedding: from.matrix("model.embed_tokens_per_layer", shape.vocab_size, all)?,
            projection: from.linear(projection, size, Bias::Absent)?,
            projection_scale: root(config.hidden_size).recip(),
            norm: from.norm(norm, config.norm, shape.width)?,
        })
    }

    /// Each layer's part, (batch, tokens, width), from the tokens and their first embedding.
    pub(super) fn of(&self, tokens: &Array, state: &Array) -> Result<Vec<Array>, Exception> {
        let parts = [
            tokens.dim(0),
            tokens.dim(1),
            self.layer_count,
            self.shape.width,
        ];
        let embedded = self.embedding.rows(tokens)?;
        let embedded = layers::scaled(&embedded, root(self.shape.width))?.reshape(&parts)?;
        let projected = self.projection.apply(state)?;
        let projected = layers::scaled(&projected, self.projection_scale)?.reshape(&parts)?;
        let sum = layers::norm(&self.norm, &projected)?.add(embedded)?;
        let sum = layers::scaled(&sum, std::f32::consts::FRAC_1_SQRT_2)?;
        let part = |index: i32| sum.try_index((.., .., index));
        (0..self.layer_count).map(part).collect()
    }
}

/// What a layer does with its part: it gates it by the state, and adds what comes of it.
#[derive(Clone, Debug)]
pub(super) struct LayerGate {
    gate: Linear,
    projection: Linear,
    norm: Norm,
    layout: Layout,
}

impl LayerGate {
    pub(super) fn build(
        shape: &PerLayerInput,
        place: &Place<'_>,
        from: &mut Checkpoint,
    ) -> Result<Self, ModelError> {
        let hidden = place.config.hidden_size;
        let mut linear = |name: &str, output: i32, input: i32| {
            let size = LinearSize { output, input };
            from.linear(&place.named(name), size, Bias::Absent)
        };
        Ok(Self {
            gate: linear("per_layer_input_gate", shape.width, hidden)?,
            projection: linear("per_layer_projection", hidden, shape.width)?,
            norm: place.norm("post_per_layer_input_norm", from)?,
            layout: from.layout(),
        })
    }

    pub(super) fn apply(&self, state: &Array, own_input: &Array) -> Result<Array, Exception> {
        let gate = self.gate.apply(state)?;
        let gated = layers::gated(Activation::GeluTanh, self.layout, &gate, own_input)?;
        layers::norm(&self.norm, &self.projection.apply(&gated)?)
    }
}

fn root(width: i32) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "widths are exact below 2^24")]
    let width = width as f32;
    width.sqrt()
}
