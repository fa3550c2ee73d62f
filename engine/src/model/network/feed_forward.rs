//! What a layer does with each token alone.

use mlx_rs::Array;
use mlx_rs::error::Exception;

use super::checkpoint::{Checkpoint, Layout, LinearSize};
use super::experts::Experts;
use super::layer::Place;
use super::layers::{self, Norm, Normed};
use super::linear::{Linear, Projections};
use crate::model::config::{self, Activation};
use crate::model::error::ModelError;

#[derive(Clone, Debug)]
pub(super) enum FeedForward {
    Dense(Dense),
    Experts(Box<Experts>),
    Both(Box<Both>),
}

/// A dense layer beside experts, each with norms of its own.
#[derive(Clone, Debug)]
pub(super) struct Both {
    dense: Dense,
    dense_after: Norm,
    experts_before: Norm,
    experts: Experts,
    experts_after: Norm,
}

impl FeedForward {
    pub(super) fn build(
        shape: &config::FeedForward,
        place: &Place<'_>,
        from: &mut Checkpoint,
    ) -> Result<Self, ModelError> {
        Ok(match shape {
            config::FeedForward::Dense(dense) => {
                Self::Dense(Dense::build(dense, "mlp", place, from)?)
            }
            config::FeedForward::Experts(experts) => {
                Self::Experts(Box::new(Experts::build(experts, place, from)?))
            }
            config::FeedForward::DenseAndExperts(dense, experts) => Self::Both(Box::new(Both {
                dense: Dense::build(dense, "mlp", place, from)?,
                dense_after: place.norm("post_feedforward_layernorm_1", from)?,
                experts_before: place.norm("pre_feedforward_layernorm_2", from)?,
                experts: Experts::build(experts, place, from)?,
                experts_after: place.norm("post_feedforward_layernorm_2", from)?,
            })),
        })
    }

    pub(super) fn apply(&self, at: &Normed) -> Result<Array, Exception> {
        match self {
            Self::Dense(dense) => dense.apply(&at.normed),
            Self::Experts(experts) => experts.apply(&at.normed, &at.normed),
            Self::Both(both) => {
                let dense = layers::norm(&both.dense_after, &both.dense.apply(&at.normed)?)?;
                let input = layers::norm(&both.experts_before, &at.state)?;
                let experts = both.experts.apply(&at.state, &input)?;
                dense.add(layers::norm(&both.experts_after, &experts)?)
            }
        }
    }
}

/// `down(act(gate(x)) * up(x))`.
#[derive(Clone, Debug)]
pub(super) struct Dense {
    /// Gate, up.
    inputs: Projections,
    down: Linear,
    activation: Activation,
    layout: Layout,
}

impl Dense {
    pub(super) fn build(
        shape: &config::Dense,
        name: &str,
        place: &Place<'_>,
        from: &mut Checkpoint,
    ) -> Result<Self, ModelError> {
        let hidden = place.config.hidden_size;
        let named = |part: &str| place.named(&format!("{name}.{part}"));
        let parts = [
            (named("gate_proj"), shape.inner),
            (named("up_proj"), shape.inner),
        ];
        let size = LinearSize {
            output: hidden,
            input: shape.inner,
        };
        Ok(Self {
            inputs: from.projections(&parts, hidden, shape.bias)?,
            down: from.linear(&named("down_proj"), size, shape.bias)?,
            activation: shape.activation,
            layout: from.layout(),
        })
    }

    pub(super) fn apply(&self, state: &Array) -> Result<Array, Exception> {
        let parts = self.inputs.apply(state)?;
        let [gate, up] = parts.as_slice() else {
            unreachable!("a gated layer is built with two projections");
        };
        self.down
            .apply(&layers::gated(self.activation, self.layout, gate, up)?)
    }
}
