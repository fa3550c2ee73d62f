//! The gated delta rule of recurrent layers: a short convolution, then a matrix a head that each token
//! reads, corrects and reads again.
//!
//! A token's numbers come from those before it in one order, so cutting a run of tokens anywhere, or
//! setting other rows beside it, changes no bit.

use std::sync::Mutex;

use pulp::{Simd, WithSimd};

use super::gate::sigmoid_times;
use super::norm::inverse_rms;
use super::rows::shares;
use super::vectors::arch;
use super::{LANES, Lanes, Rows, crew};

/// Numbers of the convolution that are worth another thread.
const GRAIN: usize = 16_384;
/// Columns of a head's matrix that a run of tokens passes before the next: they stay near.
const NEAR: usize = 32;

/// One layer's constants.
#[derive(Debug)]
pub struct Delta {
    pub key_heads: usize,
    /// A multiple of `key_heads`: that many in a row share a key.
    pub value_heads: usize,
    pub key_dim: usize,
    pub value_dim: usize,
    /// (kernel, mixed width): what a channel takes of itself, from the oldest token to the present.
    pub convolution: Vec<f32>,
    /// Of decay, (value heads).
    pub rates: Vec<f32>,
    pub decay_bias: Vec<f32>,
    /// Keeps the length of queries and keys from dividing by zero.
    pub length_eps: f32,
}

/// What the tokens of a step bring: (tokens, mixed width), and twice (tokens, value heads).
#[derive(Clone, Copy, Debug)]
pub struct DeltaRows<'a> {
    /// Queries, keys and values, before the convolution.
    pub mixed: Rows<'a>,
    /// How much of the matrix decays, before the bias.
    pub decay: Rows<'a>,
    /// How much of a correction is written, before the sigmoid.
    pub write: Rows<'a>,
}

/// One row's tokens in a step, and its state.
#[derive(Debug)]
pub struct DeltaSpan<'a> {
    pub first: usize,
    pub count: usize,
    /// Of the tokens before; absent at a row's beginning.
    pub before: Option<DeltaState<'a>>,
    /// After the tokens, (kernel - 1, mixed width) and (value heads * value dim, key dim).
    pub tail: &'a mut [f32],
    pub matrix: &'a mut [f32],
}

/// In the shapes of [`DeltaSpan::tail`] and [`DeltaSpan::matrix`].
#[derive(Clone, Copy, Debug)]
pub struct DeltaState<'a> {
    pub tail: Rows<'a>,
    pub matrix: Rows<'a>,
}

impl Delta {
    fn key_width(&self) -> usize {
        self.key_heads * self.key_dim
    }

    pub(super) fn value_width(&self) -> usize {
        self.value_heads * self.value_dim
    }

    pub(super) fn mixed_width(&self) -> usize {
        2 * self.key_width() + self.value_width()
    }

    /// Runs each span's tokens from its state; `output` is (tokens, value width).
    ///
    /// # Panics
    /// A shape is another than is stated.
    pub fn run(&self, rows: &DeltaRows<'_>, spans: &mut [DeltaSpan<'_>], output: &mut [f32]) {
        let width = self.mixed_width();
        assert_eq!(rows.mixed.width(), width);
        assert_eq!(rows.decay.width(), self.value_heads);
        assert_eq!(rows.write.width(), self.value_heads);
        assert_eq!(rows.mixed.count() * self.value_width(), output.len());
        let mut heads = vec![0.0; rows.mixed.count() * width];
        self.convolve(rows, spans, &mut heads);
        let mut said = vec![0.0; output.len()];
        self.correct(rows, spans, &heads, &mut said);
        self.gather(spans, &said, output);
        for span in spans {
            self.keep_tail(rows, span);
        }
    }

    /// A token of a span, or one before it; `None` before the row's beginning.
    fn source<'a>(
        &self,
        rows: &DeltaRows<'a>,
        span: &DeltaSpan<'a>,
        token: usize,
        place: usize,
    ) -> Option<&'a [f32]> {
        let behind = self.convolution.len() / self.mixed_width() - 1;
        match (token + place).checked_sub(behind) {
            Some(token) => Some(rows.mixed.row(span.first + token)),
            None => span.before.map(|state| state.tail.row(token + place)),
        }
    }

    /// Queries, keys and values of all tokens, the former two of length one, as the state meets them.
    fn convolve(&self, rows: &DeltaRows<'_>, spans: &[DeltaSpan<'_>], heads: &mut [f32]) {
        let width = self.mixed_width();
        let arch = arch();
        let shares = shares(heads, width, GRAIN);
        crew::for_each(shares.count(), &|ix| {
            let (first, heads) = shares.take(ix);
            for (ix, heads) in heads.chunks_exact_mut(width).enumerate() {
                let token = first + ix;
                let of = |span: &&DeltaSpan<'_>| span.first + span.count > token;
                let span = spans.iter().find(of).expect("each token is of a span");
                for (place, weights) in self.convolution.chunks_exact(width).enumerate() {
                    if let Some(input) = self.source(rows, span, token - span.first, place) {
                        arch.dispatch(AddProduct {
                            input,
                            weights,
                            sum: &mut *heads,
                        });
                    }
                }
                arch.dispatch(Activate { heads, delta: self });
            }
        });
    }

    /// `said` is (tokens, value dim) of one head of one span behind the other.
    fn correct(
        &self,
        rows: &DeltaRows<'_>,
        spans: &mut [DeltaSpan<'_>],
        heads: &[f32],
        said: &mut [f32],
    ) {
        let mut tasks = Vec::with_capacity(spans.len() * self.value_heads);
        let mut rest = said;
        for span in spans {
            let matrices = span.matrix.chunks_exact_mut(self.value_dim * self.key_dim);
            for (head, matrix) in matrices.enumerate() {
                let (said, others) = rest.split_at_mut(span.count * self.value_dim);
                rest = others;
                match &span.before {
                    Some(state) => {
                        let columns = matrix.chunks_exact_mut(self.key_dim).enumerate();
                        for (ix, column) in columns {
                            column.copy_from_slice(state.matrix.row(head * self.value_dim + ix));
                        }
                    }
                    None => matrix.fill(0.0),
                }
                tasks.push(Mutex::new(Some(Correct {
                    delta: self,
                    rows: *rows,
                    first: span.first,
                    head,
                    heads,
                    matrix,
                    said,
                })));
            }
        }
        let arch = arch();
        crew::for_each(tasks.len(), &|ix| {
            let task = tasks[ix].lock().expect("taking cannot panic").take();
            arch.dispatch(task.expect("each index is worked on once"));
        });
    }

    fn gather(&self, spans: &[DeltaSpan<'_>], said: &[f32], output: &mut [f32]) {
        let mut said = said.chunks_exact(self.value_dim);
        for span in spans {
            for head in 0..self.value_heads {
                for token in span.first..span.first + span.count {
                    let place = token * self.value_width() + head * self.value_dim;
                    let part = said.next().expect("each head says something of each token");
                    output[place..place + self.value_dim].copy_from_slice(part);
                }
            }
        }
    }

    fn keep_tail(&self, rows: &DeltaRows<'_>, span: &mut DeltaSpan<'_>) {
        let width = self.mixed_width();
        let mut tail = std::mem::take(&mut span.tail);
        for place in 0..tail.len() / width {
            let (kept, rest) = tail.split_at_mut(width);
            tail = rest;
            match self.source(rows, span, span.count, place) {
                Some(source) => kept.copy_from_slice(source),
                None => kept.fill(0.0),
            }
        }
    }
}

/// `sum += input * weights`.
struct AddProduct<'a> {
    input: &'a [f32],
    weights: &'a [f32],
    sum: &'a mut [f32],
}

impl WithSimd for AddProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (inputs, input_rest) = S::as_simd_f32s(self.input);
        let (weights, weight_rest) = S::as_simd_f32s(self.weights);
        let (sums, sum_rest) = S::as_mut_simd_f32s(self.sum);
        for ((sum, input), weight) in sums.iter_mut().zip(inputs).zip(weights) {
            *sum = simd.mul_add_f32s(*input, *weight, *sum);
        }
        let input = simd.partial_load_f32s(input_rest);
        let weight = simd.partial_load_f32s(weight_rest);
        let sum = simd.partial_load_f32s(sum_rest);
        simd.partial_store_f32s(sum_rest, simd.mul_add_f32s(input, weight, sum));
    }
}

/// `silu` of one token's numbers, and then queries and keys of length one. Queries carry the scale of
/// a dot product of their width besides.
struct Activate<'a> {
    delta: &'a Delta,
    heads: &'a mut [f32],
}

impl WithSimd for Activate<'_> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::cast_precision_loss, reason = "widths are exact below 2^24")]
    fn with_simd<S: Simd>(self, simd: S) {
        let (vectors, rest) = S::as_mut_simd_f32s(self.heads);
        for x in vectors {
            *x = sigmoid_times(simd, *x, *x);
        }
        let x = simd.partial_load_f32s(rest);
        simd.partial_store_f32s(rest, sigmoid_times(simd, x, x));
        let dim = self.delta.key_dim;
        let root = (dim as f32).sqrt().recip();
        let (queries, keys) = self.heads.split_at_mut(self.delta.key_width());
        let keys = &mut keys[..self.delta.key_width()];
        let eps = self.delta.length_eps / dim as f32;
        for (part, scale) in [(queries, root * root), (keys, root)] {
            for head in part.chunks_exact_mut(dim) {
                let scale = scale * inverse_rms(simd, head, eps);
                head.iter_mut().for_each(|x| *x *= scale);
            }
        }
    }
}

/// All tokens of a span through one head's matrix.
struct Correct<'a> {
    delta: &'a Delta,
    rows: DeltaRows<'a>,
    first: usize,
    head: usize,
    heads: &'a [f32],
    matrix: &'a mut [f32],
    said: &'a mut [f32],
}

impl WithSimd for Correct<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let delta = self.delta;
        let (dim, width) = (delta.key_dim, delta.mixed_width());
        let key_head = self.head / (delta.value_heads / delta.key_heads);
        let value_place = 2 * delta.key_width() + self.head * delta.value_dim;
        let tokens = self.said.len() / delta.value_dim;
        let shares: Vec<(f32, f32)> = (0..tokens).map(|token| self.shares(token)).collect();
        let columns = self.matrix.chunks_mut(NEAR * dim).enumerate();
        for (ix, columns) in columns {
            let first_column = ix * NEAR;
            let said = self.said.chunks_exact_mut(delta.value_dim);
            for (token, (said, (keep, write))) in said.zip(&shares).enumerate() {
                let heads = &self.heads[(self.first + token) * width..][..width];
                let query = &heads[key_head * dim..][..dim];
                let key = &heads[delta.key_width() + key_head * dim..][..dim];
                let values = &heads[value_place + first_column..];
                let said = &mut said[first_column..];
                let columns = columns.chunks_exact_mut(dim).zip(values).zip(said);
                for ((column, value), said) in columns {
                    let read = *keep * dot(simd, column, key);
                    let missing = (value - read) * write;
                    *said = correct(simd, column, key, query, *keep, missing);
                }
            }
        }
    }
}

impl Correct<'_> {
    /// What a token keeps of the matrix, and how much of a correction it writes.
    #[inline(always)]
    fn shares(&self, token: usize) -> (f32, f32) {
        let place = self.first + token;
        let decay = self.rows.decay.row(place)[self.head] + self.delta.decay_bias[self.head];
        // Softplus, without running over.
        let time = decay.max(0.0) + (-decay.abs()).exp().ln_1p();
        let keep = (-self.delta.rates[self.head] * time).exp();
        let write = ((-self.rows.write.row(place)[self.head]).exp() + 1.0).recip();
        (keep, write)
    }
}

#[inline(always)]
fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let mut lanes: Lanes = [0.0; LANES];
    let (sums, _) = S::as_mut_simd_f32s(&mut lanes);
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        let ((a, _), (b, _)) = (S::as_simd_f32s(a), S::as_simd_f32s(b));
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum = simd.mul_add_f32s(*a, *b, *sum);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sum(lanes) + rest
}

/// `column = keep * column + missing * key`, and the column's product with the query.
#[inline(always)]
fn correct<S: Simd>(
    simd: S,
    column: &mut [f32],
    key: &[f32],
    query: &[f32],
    keep: f32,
    missing: f32,
) -> f32 {
    let (kept, written) = (simd.splat_f32s(keep), simd.splat_f32s(missing));
    let mut lanes: Lanes = [0.0; LANES];
    let (sums, _) = S::as_mut_simd_f32s(&mut lanes);
    let (column, column_rest) = column.as_chunks_mut::<LANES>();
    let (key, key_rest) = key.as_chunks::<LANES>();
    let (query, query_rest) = query.as_chunks::<LANES>();
    for ((column, key), query) in column.iter_mut().zip(key).zip(query) {
        let (column, _) = S::as_mut_simd_f32s(column);
        let ((key, _), (query, _)) = (S::as_simd_f32s(key), S::as_simd_f32s(query));
        for (((sum, x), key), query) in sums.iter_mut().zip(column).zip(key).zip(query) {
            *x = simd.mul_add_f32s(written, *key, simd.mul_f32s(kept, *x));
            *sum = simd.mul_add_f32s(*x, *query, *sum);
        }
    }
    let mut rest = 0.0;
    for ((x, key), query) in column_rest.iter_mut().zip(key_rest).zip(query_rest) {
        *x = keep * *x + missing * key;
        rest += *x * query;
    }
    sum(lanes) + rest
}

/// In one order, whatever the machine's vectors.
#[inline(always)]
fn sum(mut lanes: Lanes) -> f32 {
    for half in [8, 4, 2, 1] {
        for ix in 0..half {
            lanes[ix] += lanes[ix + half];
        }
    }
    lanes[0]
}
