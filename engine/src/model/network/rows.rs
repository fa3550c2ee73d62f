//! Each row's own past, plainly kept, and a packed step over several rows.
//!
//! A step runs tokens of several rows at once, some one token long (decode), some a piece of a
//! prompt (prefill). They are packed one after the other: every matrix product sees all tokens
//! together, and only what looks at the past sees each row alone, over that row's own cache. So no
//! row is padded to another's length, and none can change another's answer through the cache.

use std::ops::Range;

use mlx_rs::Array;
use mlx_rs::error::Exception;
use mlx_rs::ops::indexing::{TryIndexMutOp, TryIndexOp};
use mlx_rs::ops::{concatenate, zeros_dtype};

use super::Model;
use super::delta::{DeltaInput, DeltaState, GatedDelta};
use super::past::{Attention, KeyValue, Past};
use crate::model::config::{Config, Store};

/// Tokens by which a row's room grows. Growing copies, so it is rare; room is memory, so it is
/// small beside a context.
const GROWTH_TOKENS: i32 = 256;

/// The past of one row.
#[derive(Debug)]
pub struct RowCache {
    stores: Vec<Kept>,
    length: i32,
}

/// What a row keeps in one store; nothing until the first token.
#[derive(Debug)]
enum Kept {
    /// Every token's keys and values.
    All(Option<KeysValues>),
    /// Those of the last tokens, as many as the next one sees besides itself.
    Last {
        window: i32,
        held: Option<KeysValues>,
    },
    /// A recurrent layer's state.
    State(Option<DeltaState>),
}

/// Both (1, kv heads, tokens or room for them, head_dim).
#[derive(Clone, Debug)]
struct KeysValues {
    keys: Array,
    values: Array,
}

impl RowCache {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let empty = |store: Store| match store {
            Store::Attention { window: None, .. } => Kept::All(None),
            Store::Attention {
                window: Some(window),
                ..
            } => Kept::Last { window, held: None },
            Store::Recurrent(_) => Kept::State(None),
        };
        Self {
            stores: config.stores().into_iter().map(empty).collect(),
            length: 0,
        }
    }

    /// Tokens whose past is held.
    #[must_use]
    pub fn length(&self) -> i32 {
        self.length
    }

    /// Keys, values and states, as far as there are any yet.
    pub fn tensors(&self) -> impl Iterator<Item = &Array> {
        let held = self.stores.iter().filter_map(|kept| match kept {
            Kept::All(held) | Kept::Last { held, .. } => {
                held.as_ref().map(|held| [&held.keys, &held.values])
            }
            Kept::State(state) => state.as_ref().map(|state| [&state.tail, &state.matrix]),
        });
        held.flatten()
    }
}

impl Kept {
    /// Keeps those of new tokens, the first at `start`, and returns all that these may see.
    fn append(&mut self, start: i32, new: KeysValues) -> Result<KeysValues, Exception> {
        match self {
            Self::All(held) => new.into_room(start, held),
            Self::Last { window, held } => {
                let seen = match held.take() {
                    Some(past) => KeysValues {
                        keys: concatenate(&[past.keys, new.keys], 2)?,
                        values: concatenate(&[past.values, new.values], 2)?,
                    },
                    None => new,
                };
                let first = (seen.keys.dim(2) - *window + 1).max(0);
                *held = Some(KeysValues {
                    keys: seen.keys.try_index((.., .., first..))?,
                    values: seen.values.try_index((.., .., first..))?,
                });
                Ok(seen)
            }
            Self::State(_) => unreachable!("attention has a store of keys and values"),
        }
    }
}

impl KeysValues {
    fn into_room(self, start: i32, held: &mut Option<Self>) -> Result<Self, Exception> {
        let end = start + self.keys.dim(2);
        let room = match held.take() {
            Some(room) if room.keys.dim(2) >= end => room,
            Some(room) => Self {
                keys: concatenate(&[room.keys, room_like(&self.keys, end - start)?], 2)?,
                values: concatenate(&[room.values, room_like(&self.values, end - start)?], 2)?,
            },
            None => Self {
                keys: room_like(&self.keys, end)?,
                values: room_like(&self.values, end)?,
            },
        };
        let room = held.insert(room);
        room.keys.try_index_mut((.., .., start..end), &self.keys)?;
        room.values
            .try_index_mut((.., .., start..end), &self.values)?;
        Ok(Self {
            keys: room.keys.try_index((.., .., ..end))?,
            values: room.values.try_index((.., .., ..end))?,
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
        let mut past = Packed {
            positions: Array::from_slice(&positions, &[total]),
            spans: &spans,
            seen: vec![vec![None; self.stores().len()]; rows.len()],
            rows,
        };
        let hidden = self.hidden(&tokens, &mut past)?;
        let logits = if outputs.is_empty() {
            None
        } else {
            let last = Array::from_slice(&outputs, &[token_count(outputs.len())]);
            let hidden = hidden.try_index(0)?.take_axis(last, 0)?;
            Some(self.head(&hidden)?.as_type::<f32>()?)
        };
        let caches = rows.iter().flat_map(|row| row.cache.tensors());
        mlx_rs::transforms::eval(logits.iter().chain(caches))?;
        for (row, span) in rows.iter_mut().zip(&spans) {
            row.cache.length += span.end - span.start;
        }
        Ok(logits)
    }
}

pub(super) fn token_count(count: usize) -> i32 {
    i32::try_from(count).expect("a step's tokens fit its budget, far below 2^31")
}

struct Packed<'a, 'rows> {
    /// Each packed token's place in its own row.
    positions: Array,
    /// Each row's tokens among the packed ones.
    spans: &'a [Range<i32>],
    /// By row and store: what this step's tokens see, for layers that share a store.
    seen: Vec<Vec<Option<KeysValues>>>,
    rows: &'a mut [RowStep<'rows>],
}

impl Packed<'_, '_> {
    /// (1, tokens, heads, dim) to (tokens, heads, 1, dim): each token turns by its own position.
    fn turned(&self, layer: &Attention, heads: &Array) -> Result<Array, Exception> {
        let apart = apart(heads)?;
        let rope = layer.rope.as_ref();
        rope.map_or(Ok(apart.clone()), |rope| {
            rope.at_positions(&apart, &self.positions)
        })
    }

    fn remember(&mut self, layer: &Attention, raw: KeyValue<'_>) -> Result<(), Exception> {
        let key = self.turned(layer, &layer.keys(raw.key)?)?;
        let value = apart(&layer.values(raw.value)?)?;
        for (row_ix, span) in self.spans.iter().enumerate() {
            let cache = &mut self.rows[row_ix].cache;
            let new = KeysValues {
                keys: own(&key, span)?,
                values: own(&value, span)?,
            };
            let seen = cache.stores[layer.store].append(cache.length, new)?;
            self.seen[row_ix][layer.store] = Some(seen);
        }
        Ok(())
    }
}

fn apart(heads: &Array) -> Result<Array, Exception> {
    heads.try_index(0)?.expand_dims(2)
}

/// One row's part, (1, heads, the row's tokens, dim).
fn own(packed: &Array, span: &Range<i32>) -> Result<Array, Exception> {
    packed.try_index(span.clone())?.swap_axes(0, 2)
}

impl Past for Packed<'_, '_> {
    fn attend(
        &mut self,
        layer: &Attention,
        query: &Array,
        key_value: Option<KeyValue<'_>>,
    ) -> Result<Array, Exception> {
        if let Some(raw) = key_value {
            self.remember(layer, raw)?;
        }
        let query = self.turned(layer, &layer.queries(query)?)?;
        let mut answers = Vec::with_capacity(self.spans.len());
        for (seen, span) in self.seen.iter().zip(self.spans) {
            let seen = seen[layer.store]
                .as_ref()
                .expect("a layer that shares a store comes after the one that fills it");
            let answer = layer.over(&own(&query, span)?, &seen.keys, &seen.values)?;
            answers.push(answer.swap_axes(1, 2)?);
        }
        let answers = concatenate(&answers, 1)?;
        answers.reshape(&[1, answers.dim(1), -1])
    }

    fn recur(&mut self, layer: &GatedDelta, input: &DeltaInput) -> Result<Array, Exception> {
        let mut outputs = Vec::with_capacity(self.spans.len());
        for (row, span) in self.rows.iter_mut().zip(self.spans) {
            let part = |packed: &Array| packed.try_index((.., span.clone(), ..));
            let input = DeltaInput {
                mixed: part(&input.mixed)?,
                decay: part(&input.decay)?,
                write: part(&input.write)?,
            };
            let Kept::State(state) = &mut row.cache.stores[layer.store] else {
                unreachable!("a recurrent layer has a recurrent store");
            };
            let run = layer.run(&input, state.as_ref())?;
            *state = Some(run.state);
            outputs.push(run.output);
        }
        concatenate(&outputs, 1)
    }
}
