//! One layer: its two parts, and the norms and sums around them.

use mlx_rs::Array;
use mlx_rs::error::Exception;

use super::attention::AttentionBlock;
use super::checkpoint::Checkpoint;
use super::delta::DeltaBlock;
use super::feed_forward::FeedForward;
use super::layers::{self, Norm, Normed};
use super::past::Past;
use super::per_layer::LayerGate;
use crate::model::config::{self, Config, NormPlaces, OutputScale};
use crate::model::error::ModelError;

/// Where a layer stands in its model.
pub(super) struct Place<'a> {
    pub(super) config: &'a Config,
    pub(super) prefix: String,
    pub(super) store: usize,
}

impl Place<'_> {
    pub(super) fn named(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// A norm of the whole state.
    pub(super) fn norm(&self, name: &str, from: &mut Checkpoint) -> Result<Norm, ModelError> {
        from.norm(&self.named(name), self.config.norm, self.config.hidden_size)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) mixer_norm: Norm,
    mixer: Mixer,
    feed_forward_norm: Norm,
    feed_forward: FeedForward,
    after: Option<After>,
    gate: Option<LayerGate>,
    output_scale: Option<Array>,
}

#[derive(Clone, Debug)]
enum Mixer {
    Attention(AttentionBlock),
    GatedDelta(DeltaBlock),
}

/// Norms of what each part made, before it is added.
#[derive(Clone, Debug)]
struct After {
    mixer: Norm,
    feed_forward: Norm,
}

impl Layer {
    pub(super) fn build(
        layer: &config::Layer,
        place: &Place<'_>,
        from: &mut Checkpoint,
    ) -> Result<Self, ModelError> {
        let mixer_norm = place.norm("input_layernorm", from)?;
        let (feed_forward_norm, after) = match layer.norms {
            NormPlaces::Before => (place.norm("post_attention_layernorm", from)?, None),
            NormPlaces::Around => {
                let after = After {
                    mixer: place.norm("post_attention_layernorm", from)?,
                    feed_forward: place.norm("post_feedforward_layernorm", from)?,
                };
                (place.norm("pre_feedforward_layernorm", from)?, Some(after))
            }
        };
        let mixer = match &layer.mixer {
            config::Mixer::Attention(attention) => {
                Mixer::Attention(AttentionBlock::build(attention, place, from)?)
            }
            config::Mixer::GatedDelta(delta) => {
                Mixer::GatedDelta(DeltaBlock::build(delta, place, from)?)
            }
        };
        let gate = place.config.per_layer_input;
        Ok(Self {
            mixer_norm,
            mixer,
            feed_forward_norm,
            feed_forward: FeedForward::build(&layer.feed_forward, place, from)?,
            after,
            gate: gate
                .map(|input| LayerGate::build(&input, place, from))
                .transpose()?,
            output_scale: match layer.output_scale {
                OutputScale::Absent => None,
                OutputScale::Stored => Some(from.constant(place.named("layer_scalar"), &[1])?),
            },
        })
    }

    /// From a state and its norm to the next layer's.
    pub(super) fn apply(
        &self,
        at: &Normed,
        own_input: Option<&Array>,
        next: &Norm,
        past: &mut impl Past,
    ) -> Result<Normed, Exception> {
        let mut seen = match &self.mixer {
            Mixer::Attention(block) => block.apply(&at.normed, past)?,
            Mixer::GatedDelta(block) => block.apply(&at.normed, past)?,
        };
        if let Some(after) = &self.after {
            seen = layers::norm(&after.mixer, &seen)?;
        }
        let at = layers::add_norm(&self.feed_forward_norm, &at.state, &seen)?;
        let mut made = self.feed_forward.apply(&at)?;
        if let Some(after) = &self.after {
            made = layers::norm(&after.feed_forward, &made)?;
        }
        if self.gate.is_none() && self.output_scale.is_none() {
            return layers::add_norm(next, &at.state, &made);
        }
        let mut state = at.state.add(made)?;
        if let (Some(gate), Some(own_input)) = (&self.gate, own_input) {
            state = state.add(gate.apply(&state, own_input)?)?;
        }
        if let Some(scale) = &self.output_scale {
            state = state.multiply(scale)?;
        }
        let normed = layers::norm(next, &state)?;
        Ok(Normed { state, normed })
    }
}
