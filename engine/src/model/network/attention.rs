//! An attention layer but for attention itself: the products that make queries, keys and
//! values, their norms and positions, the gate, and the product behind. What a layer sees of the
//! past is behind `Past`.

use mlx_rs::Array;
use mlx_rs::error::Exception;

use super::checkpoint::{Checkpoint, LinearSize};
use super::layer::Place;
use super::layers::{self, Norm};
use super::linear::{Linear, Projections};
use super::past::{Attention, KeyValue, Past};
use super::rope::Rope;
use crate::model::config::{self, HeadNorms, OutputGate, Sinks};
use crate::model::error::ModelError;

#[derive(Clone, Debug)]
pub(super) struct AttentionBlock {
    constants: Attention,
    /// Queries; then keys and values, or one projection for both, or neither.
    inputs: Projections,
    gate: OutputGate,
    output: Linear,
}

impl AttentionBlock {
    pub(super) fn build(
        shape: &config::Attention,
        place: &Place<'_>,
        from: &mut Checkpoint,
    ) -> Result<Self, ModelError> {
        let hidden = place.config.hidden_size;
        let named = |name: &str| place.named(&format!("self_attn.{name}"));
        let constants = constants(shape, place, from)?;
        let query_width = shape.query_heads * shape.head_dim;
        let kv_width = shape.kv_heads * shape.head_dim;
        let gated_width = match shape.gate {
            OutputGate::Absent => query_width,
            OutputGate::Sigmoid => 2 * query_width,
        };
        let mut parts = vec![(named("q_proj"), gated_width)];
        match shape.key_value {
            config::KeyValue::Projected => {
                parts.push((named("k_proj"), kv_width));
                parts.push((named("v_proj"), kv_width));
            }
            config::KeyValue::OneForBoth => parts.push((named("k_proj"), kv_width)),
            config::KeyValue::OfLayer(_) => {}
        }
        let size = LinearSize {
            output: hidden,
            input: query_width,
        };
        Ok(Self {
            constants: from.attention(constants)?,
            inputs: from.projections(&parts, hidden, shape.input_bias)?,
            gate: shape.gate,
            output: from.linear(&named("o_proj"), size, shape.output_bias)?,
        })
    }

    pub(super) fn apply(&self, state: &Array, past: &mut impl Past) -> Result<Array, Exception> {
        let parts = self.inputs.apply(state)?;
        let (query, key_value) = match parts.as_slice() {
            [query, key, value] => (query, Some(KeyValue { key, value })),
            [query, both] => (
                query,
                Some(KeyValue {
                    key: both,
                    value: both,
                }),
            ),
            [query] => (query, None),
            _ => unreachable!("attention is built with one to three projections"),
        };
        let seen = match self.gate {
            OutputGate::Absent => past.attend(&self.constants, query, key_value)?,
            OutputGate::Sigmoid => {
                let halves = self.halves(query)?;
                let seen = past.attend(&self.constants, &halves[0], key_value)?;
                layers::gated_by_sigmoid(&seen, &halves[1])?
            }
        };
        self.output.apply(&seen)
    }

    /// Each head's query and its gate, which the files hold side by side.
    fn halves(&self, query: &Array) -> Result<[Array; 2], Exception> {
        let (batch, tokens) = (query.dim(0), query.dim(1));
        let heads = [
            batch,
            tokens,
            self.constants.query_heads,
            2,
            self.constants.head_dim,
        ];
        let parts = query.reshape(&heads)?.split_equal(2, 3)?;
        let flat = |half: &Array| half.reshape(&[batch, tokens, -1]);
        Ok([flat(&parts[0])?, flat(&parts[1])?])
    }
}

fn constants(
    shape: &config::Attention,
    place: &Place<'_>,
    from: &mut Checkpoint,
) -> Result<Attention, ModelError> {
    let config = place.config;
    let named = |name: &str| place.named(&format!("self_attn.{name}"));
    let mut head_norm = |name: &str| from.norm(&named(name), config.norm, shape.head_dim);
    let owns = !matches!(shape.key_value, config::KeyValue::OfLayer(_));
    let (query_norm, key_norm, value_norm) = match shape.head_norms {
        HeadNorms::Absent => (None, None, None),
        HeadNorms::QueryKey => (Some(head_norm("q_norm")?), Some(head_norm("k_norm")?), None),
        HeadNorms::QueryKeyValue if owns => {
            let value_norm = Norm {
                weight: None,
                eps: config.norm.eps,
                on_host: None,
            };
            (
                Some(head_norm("q_norm")?),
                Some(head_norm("k_norm")?),
                Some(value_norm),
            )
        }
        HeadNorms::QueryKeyValue => (Some(head_norm("q_norm")?), None, None),
    };
    let sinks = match shape.sinks {
        Sinks::Absent => None,
        Sinks::Present => Some(from.constant(named("sinks"), &[shape.query_heads])?),
    };
    Ok(Attention {
        store: place.store,
        query_heads: shape.query_heads,
        kv_heads: shape.kv_heads,
        head_dim: shape.head_dim,
        scale: shape.scale,
        window: shape.window,
        query_norm,
        key_norm,
        value_norm,
        rope: Some(Rope::new(&shape.rope)),
        sinks,
        on_host: None,
    })
}
