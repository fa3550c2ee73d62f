//! The seam between a network and what it remembers.
//!
//! Training, the plain cache of one row and a paged cache differ only in how a layer sees the
//! past. A layer hands over its raw projections and its constants; how heads are normalised, turned
//! to their positions, stored and attended over is the business of whoever implements [`Past`],
//! because a fused kernel does all of it in one pass.

use std::sync::Arc;

use mlx_rs::Array;
use mlx_rs::error::Exception;
use mlx_rs::fast::{self, ScaledDotProductAttentionMask};

use super::delta::{DeltaInput, GatedDelta};
use super::layers::{self, Norm};
use super::rope::Rope;
use crate::kernels;

/// One attention layer's constants, made once at load.
#[derive(Clone, Debug)]
pub(in crate::model) struct Attention {
    /// Index into [`Model::stores`](super::Model::stores) of the keys and values it sees.
    pub(in crate::model) store: usize,
    pub(in crate::model) query_heads: i32,
    pub(in crate::model) kv_heads: i32,
    pub(in crate::model) head_dim: i32,
    pub(in crate::model) scale: f32,
    /// Tokens that a token sees, itself included; all when absent.
    pub(in crate::model) window: Option<i32>,
    /// Over each head, before rotary positions.
    pub(in crate::model) query_norm: Option<Norm>,
    pub(in crate::model) key_norm: Option<Norm>,
    pub(in crate::model) value_norm: Option<Norm>,
    pub(in crate::model) rope: Option<Rope>,
    /// One logit a query head that takes its share of attention and gives nothing, (query heads).
    pub(in crate::model) sinks: Option<Array>,
    /// The same for the CPU's own kernel; absent where MLX computes.
    pub(in crate::model) on_host: Option<Arc<kernels::Attention>>,
}

/// How layers see the past, for one step of a batch.
pub(in crate::model) trait Past {
    /// Attention of raw queries (batch, tokens, query_heads * head_dim) over the past and
    /// themselves. Raw keys and values (batch, tokens, kv_heads * head_dim) are stored first; a
    /// layer without any sees those that another layer stored in this step. Returns (batch,
    /// tokens, query_heads * head_dim).
    fn attend(
        &mut self,
        layer: &Attention,
        query: &Array,
        key_value: Option<KeyValue<'_>>,
    ) -> Result<Array, Exception>;

    /// A recurrent layer's output (batch, tokens, value width). An implementation hands each row's
    /// own tokens and state to [`GatedDelta::run`], and stores the state that comes back.
    fn recur(&mut self, layer: &GatedDelta, input: &DeltaInput) -> Result<Array, Exception>;
}

/// Raw projections of the tokens of a step.
#[derive(Clone, Copy, Debug)]
pub(in crate::model) struct KeyValue<'a> {
    pub(in crate::model) key: &'a Array,
    pub(in crate::model) value: &'a Array,
}

impl Attention {
    /// (batch, tokens, heads * head_dim) to (batch, tokens, heads, head_dim), normalised.
    pub(in crate::model) fn queries(&self, raw: &Array) -> Result<Array, Exception> {
        self.heads(raw, self.query_heads, self.query_norm.as_ref())
    }

    pub(in crate::model) fn keys(&self, raw: &Array) -> Result<Array, Exception> {
        self.heads(raw, self.kv_heads, self.key_norm.as_ref())
    }

    pub(in crate::model) fn values(&self, raw: &Array) -> Result<Array, Exception> {
        self.heads(raw, self.kv_heads, self.value_norm.as_ref())
    }

    fn heads(&self, raw: &Array, count: i32, norm: Option<&Norm>) -> Result<Array, Exception> {
        let apart = raw.reshape(&[raw.dim(0), raw.dim(1), count, self.head_dim])?;
        norm.map_or(Ok(apart.clone()), |norm| layers::norm(norm, &apart))
    }

    /// Attention of (batch, heads, tokens, head_dim) over at least as many keys and values, the
    /// last of which belong to the same tokens.
    pub(in crate::model) fn over(
        &self,
        query: &Array,
        key: &Array,
        value: &Array,
    ) -> Result<Array, Exception> {
        let (tokens, seen) = (query.dim(2), key.dim(2));
        let sinks = self.sinks.as_ref();
        let over = |mask: Option<ScaledDotProductAttentionMask<'_>>| {
            fast::scaled_dot_product_attention(query, key, value, self.scale, mask, sinks)
        };
        match self.window.filter(|window| seen > *window) {
            Some(window) => {
                let mask = window_mask(tokens, seen, window)?;
                over(Some(ScaledDotProductAttentionMask::Array(&mask)))
            }
            None if tokens == 1 => over(None),
            None => over(Some(ScaledDotProductAttentionMask::Causal)),
        }
    }
}

/// True where a token (row) sees a key (column): itself and the `window - 1` before it. The last
/// key is that of the last token.
fn window_mask(tokens: i32, seen: i32, window: i32) -> Result<Array, Exception> {
    let places: Vec<i32> = (0..seen).collect();
    let keys = Array::from_slice(&places, &[1, seen]);
    let past = usize::try_from(seen - tokens).expect("a token's own key is among those seen");
    let queries = Array::from_slice(&places[past..], &[tokens, 1]);
    let far = queries.subtract(&keys)?;
    far.ge(Array::from_int(0))?
        .logical_and(far.lt(Array::from_int(window))?)
}
