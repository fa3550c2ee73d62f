//! Each row's keys and values, and attention of a packed step over them.
//!
//! A step runs tokens of several rows at once, some one token long (decode), some a piece of a
//! prompt (prefill). They are packed one after the other: every matrix product sees all tokens
//! together, and only attention looks at each row alone, over that row's own cache. So no row is
//! padded to another's length, and none can change another's answer through the cache.

use std::ops::Range;

use mlx_rs::Array;
use mlx_rs::error::Exception;
use mlx_rs::fast::{self, ScaledDotProductAttentionMask};
use mlx_rs::ops::indexing::{TryIndexMutOp, TryIndexOp};
use mlx_rs::ops::{concatenate, zeros_dtype};

use super::config::Config;
use super::forward::{Attend, Model};
use super::rope::Rope;

/// Tokens by which a row's room grows. Growing copies, so it is rare; room is memory, so it is
/// small beside a context.
const GROWTH_TOKENS: i32 = 256;

/// The cached keys and values of one row.
#[derive(Debug)]
pub struct RowCache {
    layers: Vec<LayerCache>,
    length: i32,
}

/// Both (1, kv heads, room, head_dim); absent until the first token.
#[derive(Debug, Default)]
struct LayerCache {
    stored: Option<Stored>,
}

#[derive(Debug)]
struct Stored {
    keys: Array,
    values: Array,
}

impl RowCache {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let layers = (0..config.layer_count)
            .map(|_| LayerCache::default())
            .collect();
        Self { layers, length: 0 }
    }

    /// Tokens whose keys and values are held.
    #[must_use]
    pub fn length(&self) -> i32 {
        self.length
    }

    fn arrays(&self) -> impl Iterator<Item = &Array> {
        let stored = self.layers.iter().filter_map(|layer| layer.stored.as_ref());
        stored.flat_map(|stored| [&stored.keys, &stored.values])
    }
}

impl LayerCache {
    /// Appends (1, kv heads, tokens, head_dim) at `start` and returns all up to the new end.
    fn append(&mut self, start: i32, keys: &Array, values: &Array) -> Result<Stored, Exception> {
        let end = start + keys.dim(2);
        let stored = match self.stored.take() {
            Some(stored) if stored.keys.dim(2) >= end => stored,
            Some(stored) => Stored {
                keys: concatenate(&[stored.keys, room_like(keys, end - start)?], 2)?,
                values: concatenate(&[stored.values, room_like(values, end - start)?], 2)?,
            },
            None => Stored {
                keys: room_like(keys, end)?,
                values: room_like(values, end)?,
            },
        };
        let stored = self.stored.insert(stored);
        stored.keys.try_index_mut((.., .., start..end), keys)?;
        stored.values.try_index_mut((.., .., start..end), values)?;
        Ok(Stored {
            keys: stored.keys.try_index((.., .., ..end))?,
            values: stored.values.try_index((.., .., ..end))?,
        })
    }
}

/// Zeros of the same kind for at least `tokens` tokens.
fn room_like(array: &Array, tokens: i32) -> Result<Array, Exception> {
    let room = tokens.div_euclid(GROWTH_TOKENS) * GROWTH_TOKENS + GROWTH_TOKENS;
    zeros_dtype(&[1, array.dim(1), room, array.dim(3)], array.dtype())
}

/// What one row does in a step.
#[derive(Debug)]
pub struct RowStep<'a> {
    pub cache: &'a mut RowCache,
    /// The tokens that follow those cached; at least one.
    pub tokens: &'a [u32],
    pub output: Output,
}

/// Whether a row's last token is to yield logits. A prompt's earlier pieces need none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Logits,
    Nothing,
}

impl Model {
    /// Bytes of keys and values that one cached token takes.
    #[must_use]
    pub fn kv_bytes_per_token(&self) -> u64 {
        let config = self.config();
        let per_head = u64::from(config.head_dim.unsigned_abs()) * self.element_size();
        2 * u64::from(config.kv_heads.unsigned_abs())
            * per_head
            * u64::from(config.layer_count.unsigned_abs())
    }

    /// Runs one step of all `rows`. Returns the logits, (rows asking for them, vocabulary) in
    /// float32, evaluated; absent when no row asks.
    ///
    /// # Errors
    /// MLX fails; the caches of these rows are then of no use.
    ///
    /// # Panics
    /// A row brings no token.
    pub fn step(&self, rows: &mut [RowStep<'_>]) -> Result<Option<Array>, Exception> {
        let mut tokens = Vec::new();
        let mut positions = Vec::new();
        let mut outputs = Vec::new();
        let mut spans = Vec::with_capacity(rows.len());
        for row in rows.iter() {
            assert!(
                !row.tokens.is_empty(),
                "a row in a step runs at least one token"
            );
            let first = token_count(tokens.len());
            let count = token_count(row.tokens.len());
            spans.push(first..first + count);
            tokens.extend_from_slice(row.tokens);
            positions.extend(row.cache.length..row.cache.length + count);
            if row.output == Output::Logits {
                outputs.push(first + count - 1);
            }
        }
        let total = token_count(tokens.len());
        let tokens = Array::from_slice(&tokens, &[1, total]);
        let mut attend = Packed {
            rope: self.rope(),
            scale: self.attention_scale(),
            positions: Array::from_slice(&positions, &[total]),
            spans: &spans,
            rows,
        };
        let hidden = self.hidden(&tokens, &mut attend)?;
        let logits = if outputs.is_empty() {
            None
        } else {
            let last = Array::from_slice(&outputs, &[token_count(outputs.len())]);
            let hidden = hidden.try_index(0)?.take_axis(last, 0)?;
            Some(self.head(&hidden)?.as_type::<f32>()?)
        };
        let caches = rows.iter().flat_map(|row| row.cache.arrays());
        mlx_rs::transforms::eval(logits.iter().chain(caches))?;
        for (row, span) in rows.iter_mut().zip(&spans) {
            row.cache.length += span.end - span.start;
        }
        Ok(logits)
    }
}

fn token_count(count: usize) -> i32 {
    i32::try_from(count).expect("a step's tokens fit its budget, far below 2^31")
}

struct Packed<'a, 'rows> {
    rope: &'a Rope,
    scale: f32,
    /// Each packed token's place in its own row.
    positions: Array,
    /// Each row's tokens among the packed ones.
    spans: &'a [Range<i32>],
    rows: &'a mut [RowStep<'rows>],
}

impl Attend for Packed<'_, '_> {
    fn attend(
        &mut self,
        layer_ix: usize,
        query: &Array,
        key: &Array,
        value: &Array,
    ) -> Result<Array, Exception> {
        // (1, tokens, heads, dim) to (tokens, heads, 1, dim): each token turns by its own position.
        let apart = |array: &Array| array.try_index(0)?.expand_dims(2);
        let query = self.rope.at_positions(&apart(query)?, &self.positions)?;
        let key = self.rope.at_positions(&apart(key)?, &self.positions)?;
        let value = apart(value)?;
        let mut seen = Vec::with_capacity(self.rows.len());
        for (row, span) in self.rows.iter_mut().zip(self.spans) {
            // To (1, heads, the row's tokens, dim).
            let own = |array: &Array| array.try_index(span.clone())?.swap_axes(0, 2);
            let start = row.cache.length;
            let past = row.cache.layers[layer_ix].append(start, &own(&key)?, &own(&value)?)?;
            let causal = (span.len() > 1).then_some(ScaledDotProductAttentionMask::Causal);
            let answer = fast::scaled_dot_product_attention(
                own(&query)?,
                &past.keys,
                &past.values,
                self.scale,
                causal,
                None,
            )?;
            seen.push(answer.swap_axes(1, 2)?);
        }
        concatenate(&seen, 1)
    }
}
