//! Attention of a packed step over paged keys and values: head norms, rotary positions, writing the
//! new tokens and reading all, for each row and head by itself.
//!
//! A sum runs over components, positions and pages in one order, so that a row's answer is the same
//! to the last bit whatever stands beside it in the step and however its prompt was cut.
#![allow(
    unsafe_code,
    reason = "threads write disjoint heads of one output and of one pool"
)]

use std::cell::RefCell;
use std::sync::Arc;

use pulp::{Simd, WithSimd};

use super::exponential::exp;
use super::norm::inverse_rms;
use super::pages::{PAGE_TOKENS, PagePool};
use super::rotary::{Pairs, Rotary, rotate};
use super::vectors::arch;
use super::{LANES, Lanes, Rows, crew};

/// Queries that share one reading of a page.
const TILE_QUERIES: usize = 8;
/// Queries whose answers are summed together, over as many vectors of components each.
const ANSWER_TILE: usize = 4;

/// One layer's constants.
#[derive(Debug)]
pub struct Attention {
    pub query_heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub scale: f32,
    /// A token sees itself and so many less one before it.
    pub window: Option<usize>,
    pub norms: HeadNorms,
    pub rotary: Option<Arc<Rotary>>,
    /// A logit for each query head that takes part in the softmax and has no value.
    pub sinks: Option<Vec<f32>>,
}

/// Norms of each head by itself, before rotary positions.
#[derive(Debug, Default)]
pub struct HeadNorms {
    pub query: Option<Arc<[f32]>>,
    pub key: Option<Arc<[f32]>>,
    pub value: Option<Arc<[f32]>>,
    pub eps: f32,
}

/// A row's tokens in a packed step and where its past lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowSpan {
    /// Index of its first token among the packed ones.
    pub first: usize,
    pub count: usize,
    /// Position of that token in the row.
    pub start: usize,
    /// Page `i` holds positions `16 i` to `16 i + 15`, up to the last of the row's new tokens. Pages
    /// before the window may be anything.
    pub table: Vec<u32>,
}

/// What is projected from a step's tokens. Without keys and values nothing is written: the layer
/// reads what an earlier one wrote.
#[derive(Clone, Copy, Debug)]
pub struct Projected<'a> {
    /// (tokens, query heads * head_dim).
    pub query: Rows<'a>,
    /// Both (tokens, kv heads * head_dim).
    pub key_value: Option<(Rows<'a>, Rows<'a>)>,
}

/// Writes the new tokens' keys and values into `pool` and each token's answer, (tokens, query heads,
/// head_dim), into `output`.
///
/// # Safety
/// Nobody else uses the pool meanwhile, and no page that a row writes stands in another row's table.
pub unsafe fn attend(
    layer: &Attention,
    rows: &[RowSpan],
    projected: &Projected<'_>,
    pool: &PagePool,
    output: &mut [f32],
) {
    let width = layer.query_heads * layer.head_dim;
    let end = rows
        .iter()
        .map(|row| row.start + row.count)
        .max()
        .unwrap_or(0);
    let tokens = rows
        .iter()
        .map(|row| row.first + row.count)
        .max()
        .unwrap_or(0);
    assert!(output.len() >= tokens * width, "each token has an answer");
    let turns = layer
        .rotary
        .as_ref()
        .map(|rotary| (rotary, rotary.table(end)));
    let turns = turns.as_ref().map(|(rotary, table)| Turns {
        width: rotary.width(),
        pairs: rotary.pairs(),
        table,
    });
    let job = Job {
        layer,
        projected,
        pool,
        turns,
        output: Output(output.as_mut_ptr()),
        output_len: output.len(),
    };
    let arch = arch();
    crew::for_each(rows.len() * layer.kv_heads, &|ix| {
        let row = &rows[ix / layer.kv_heads];
        SCRATCH.with_borrow_mut(|scratch| {
            arch.dispatch(OneHead {
                job: &job,
                row,
                head: ix % layer.kv_heads,
                scratch,
            });
        });
    });
}

struct Job<'a> {
    layer: &'a Attention,
    projected: &'a Projected<'a>,
    pool: &'a PagePool,
    turns: Option<Turns<'a>>,
    output: Output,
    output_len: usize,
}

struct Turns<'a> {
    width: usize,
    pairs: Pairs,
    table: &'a [f32],
}

struct Output(*mut f32);

// SAFETY: each row and key-value head writes to its own query heads of its own tokens.
unsafe impl Sync for Output {}

impl Job<'_> {
    #[inline(always)]
    #[expect(
        clippy::mut_from_ref,
        reason = "each place is written by one thread, see `Output`"
    )]
    fn answer(&self, token: usize, head: usize) -> &mut [f32] {
        let dim = self.layer.head_dim;
        let start = (token * self.layer.query_heads + head) * dim;
        assert!(start + dim <= self.output_len);
        // SAFETY: inside the output, and this token and head are one thread's alone.
        unsafe { std::slice::from_raw_parts_mut(self.output.0.add(start), dim) }
    }

    #[inline(always)]
    fn turn(&self, head: &mut [f32], position: usize) {
        if let Some(turns) = &self.turns {
            rotate(
                &mut head[..turns.width],
                turns.pairs,
                &turns.table[position * turns.width..][..turns.width],
            );
        }
    }
}

/// What a thread keeps between heads, so that it need not ask for memory.
#[derive(Default)]
struct Scratch {
    queries: Vec<f32>,
    head: Vec<f32>,
    /// Of a tile of queries: for each its scores, page by page.
    scores: Vec<Lanes>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// All that a step does with one key-value head of one row.
struct OneHead<'a> {
    job: &'a Job<'a>,
    row: &'a RowSpan,
    head: usize,
    scratch: &'a mut Scratch,
}

impl WithSimd for OneHead<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            job,
            row,
            head,
            scratch,
        } = self;
        let layer = job.layer;
        let dim = layer.head_dim;
        if let Some((key, value)) = &job.projected.key_value {
            for ix in 0..row.count {
                let raw = RawToken {
                    key,
                    value,
                    head,
                    ix,
                };
                write_token(simd, job, row, &raw, &mut scratch.head);
            }
        }
        // Queries of this head, token after token, the group's heads together.
        let group = layer.query_heads / layer.kv_heads;
        let count = row.count * group;
        scratch.queries.resize(count * dim, 0.0);
        for (ix, query) in scratch.queries.chunks_exact_mut(dim).enumerate() {
            let (token, query_head) = (row.first + ix / group, head * group + ix % group);
            query.copy_from_slice(head_of(&job.projected.query, token, query_head, dim));
            normalise(simd, query, layer.norms.query.as_deref(), layer.norms.eps);
            job.turn(query, row.start + ix / group);
            query.iter_mut().for_each(|x| *x *= layer.scale);
        }
        let mut done = 0;
        while done < count {
            let step = match count - done {
                TILE_QUERIES.. => TILE_QUERIES,
                4.. => 4,
                2.. => 2,
                _ => 1,
            };
            let tile = Tile {
                job,
                row,
                head,
                first: done,
                queries: &scratch.queries[done * dim..][..step * dim],
            };
            match step {
                TILE_QUERIES => tile.run::<S, TILE_QUERIES>(simd, &mut scratch.scores),
                4 => tile.run::<S, 4>(simd, &mut scratch.scores),
                2 => tile.run::<S, 2>(simd, &mut scratch.scores),
                _ => tile.run::<S, 1>(simd, &mut scratch.scores),
            }
            done += step;
        }
    }
}

#[inline(always)]
fn head_of<'a>(rows: &Rows<'a>, token: usize, head: usize, dim: usize) -> &'a [f32] {
    &rows.row(token)[head * dim..][..dim]
}

#[inline(always)]
fn normalise<S: Simd>(simd: S, head: &mut [f32], weight: Option<&[f32]>, eps: f32) {
    if let Some(weight) = weight {
        let scale = inverse_rms(simd, head, eps);
        for (x, weight) in head.iter_mut().zip(weight) {
            *x = *x * scale * weight;
        }
    }
}

/// A new token's projections, of which one head is to be written.
struct RawToken<'a> {
    key: &'a Rows<'a>,
    value: &'a Rows<'a>,
    head: usize,
    /// Index of the token among the row's new ones.
    ix: usize,
}

#[inline(always)]
fn write_token<S: Simd>(
    simd: S,
    job: &Job<'_>,
    row: &RowSpan,
    raw: &RawToken<'_>,
    buffer: &mut Vec<f32>,
) {
    let RawToken {
        key,
        value,
        head,
        ix,
    } = *raw;
    let norms = &job.layer.norms;
    let dim = job.layer.head_dim;
    let position = row.start + ix;
    let page = row.table[position / PAGE_TOKENS];
    let place = position % PAGE_TOKENS;
    // SAFETY: the caller of `attend` promises that the page is this row's, and the head is this
    // thread's.
    let (keys, values) = unsafe { job.pool.tile_mut(page, head) };
    buffer.clear();
    buffer.extend_from_slice(head_of(key, row.first + ix, head, dim));
    normalise(simd, buffer, norms.key.as_deref(), norms.eps);
    job.turn(buffer, position);
    for (component, x) in buffer.iter().enumerate() {
        keys[component * PAGE_TOKENS + place] = *x;
    }
    let values = &mut values[place * dim..][..dim];
    values.copy_from_slice(head_of(value, row.first + ix, head, dim));
    normalise(simd, values, norms.value.as_deref(), norms.eps);
}

/// Some queries of one row and head.
struct Tile<'a> {
    job: &'a Job<'a>,
    row: &'a RowSpan,
    head: usize,
    /// Index of the first among the head's queries.
    first: usize,
    queries: &'a [f32],
}

impl Tile<'_> {
    #[inline(always)]
    fn group(&self) -> usize {
        self.job.layer.query_heads / self.job.layer.kv_heads
    }

    #[inline(always)]
    fn position(&self, query: usize) -> usize {
        self.row.start + (self.first + query) / self.group()
    }

    /// The first position that a query at `position` sees.
    #[inline(always)]
    fn horizon(&self, position: usize) -> usize {
        let window = self.job.layer.window;
        window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    #[inline(always)]
    fn run<S: Simd, const N: usize>(&self, simd: S, scores: &mut Vec<Lanes>) {
        let first_page = self.horizon(self.position(0)) / PAGE_TOKENS;
        let last_page = self.position(N - 1) / PAGE_TOKENS;
        let pages = &self.row.table[first_page..=last_page];
        scores.resize(N * pages.len(), [0.0; LANES]);
        for (ix, &page) in pages.iter().enumerate() {
            let mut of_page = [[0.0; LANES]; N];
            self.scores_of(simd, page, &mut of_page);
            self.hide(&mut of_page, (first_page + ix) * PAGE_TOKENS);
            for (query, lanes) in of_page.into_iter().enumerate() {
                scores[query * pages.len() + ix] = lanes;
            }
        }
        let mut shares = [0.0; N];
        for (query, share) in shares.iter_mut().enumerate() {
            let sink = self.job.layer.sinks.as_ref().map(|sinks| {
                let head = self.head * self.group() + (self.first + query) % self.group();
                sinks[head]
            });
            *share = soften(
                simd,
                &mut scores[query * pages.len()..][..pages.len()],
                sink,
            );
        }
        let mut query = 0;
        while query + ANSWER_TILE <= N {
            self.answers::<S, ANSWER_TILE>(simd, pages, scores, &shares, query);
            query += ANSWER_TILE;
        }
        while query < N {
            self.answers::<S, 1>(simd, pages, scores, &shares, query);
            query += 1;
        }
    }

    /// Each query's scores of one page.
    #[inline(always)]
    fn scores_of<S: Simd, const N: usize>(&self, simd: S, page: u32, scores: &mut [Lanes; N]) {
        let dim = self.job.layer.head_dim;
        let (keys, _) = self.job.pool.tile(page, self.head);
        let (keys, _) = keys.as_chunks::<LANES>();
        let keys = &keys[..dim];
        let queries: [&[f32]; N] = std::array::from_fn(|ix| &self.queries[ix * dim..][..dim]);
        for part in 0..LANES / S::F32_LANES {
            let mut sums = [simd.splat_f32s(0.0); N];
            for component in 0..dim {
                let (vectors, _) = S::as_simd_f32s(&keys[component]);
                for (query, sum) in queries.iter().zip(&mut sums) {
                    let x = simd.splat_f32s(query[component]);
                    *sum = simd.mul_add_f32s(x, vectors[part], *sum);
                }
            }
            for (scores, sum) in scores.iter_mut().zip(sums) {
                let (vectors, _) = S::as_mut_simd_f32s(scores);
                vectors[part] = sum;
            }
        }
    }

    /// Takes out what a query does not see of a page whose first token stands at `base`.
    #[inline(always)]
    fn hide<const N: usize>(&self, scores: &mut [Lanes; N], base: usize) {
        for (query, scores) in scores.iter_mut().enumerate() {
            let position = self.position(query);
            let horizon = self.horizon(position);
            if base >= horizon && base + PAGE_TOKENS <= position + 1 {
                continue;
            }
            for (lane, score) in scores.iter_mut().enumerate() {
                if base + lane < horizon || base + lane > position {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
    }

    /// The answers of `N` queries from `first` of the tile on.
    #[inline(always)]
    fn answers<S: Simd, const N: usize>(
        &self,
        simd: S,
        pages: &[u32],
        weights: &[Lanes],
        shares: &[f32],
        first: usize,
    ) {
        let dim = self.job.layer.head_dim;
        let weights: [&[Lanes]; N] =
            std::array::from_fn(|ix| &weights[(first + ix) * pages.len()..][..pages.len()]);
        let shares = &shares[first..];
        let mut from = 0;
        while from + ANSWER_TILE * S::F32_LANES <= dim {
            self.answer_part::<S, N, ANSWER_TILE>(simd, pages, &weights, shares, first, from);
            from += ANSWER_TILE * S::F32_LANES;
        }
        while from + S::F32_LANES <= dim {
            self.answer_part::<S, N, 1>(simd, pages, &weights, shares, first, from);
            from += S::F32_LANES;
        }
        for component in from..dim {
            for (ix, weights) in weights.iter().enumerate() {
                let mut sum = 0.0_f32;
                for (&page, weights) in pages.iter().zip(*weights) {
                    let (_, values) = self.job.pool.tile(page, self.head);
                    for (token, weight) in weights.iter().enumerate() {
                        sum = weight.mul_add(values[token * dim + component], sum);
                    }
                }
                self.answer(first + ix)[component] = sum * shares[ix];
            }
        }
    }

    /// Components of the answers from `from` on, `VECTORS` vectors of them.
    #[inline(always)]
    fn answer_part<S: Simd, const N: usize, const VECTORS: usize>(
        &self,
        simd: S,
        pages: &[u32],
        weights: &[&[Lanes]; N],
        shares: &[f32],
        first: usize,
        from: usize,
    ) {
        let dim = self.job.layer.head_dim;
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; N];
        for (ix, &page) in pages.iter().enumerate() {
            let (_, values) = self.job.pool.tile(page, self.head);
            for token in 0..PAGE_TOKENS {
                let values = &values[token * dim + from..][..VECTORS * S::F32_LANES];
                let (values, _) = S::as_simd_f32s(values);
                let values: [S::f32s; VECTORS] = std::array::from_fn(|ix| values[ix]);
                for (weights, sums) in weights.iter().zip(&mut sums) {
                    let weight = simd.splat_f32s(weights[ix][token]);
                    for (sum, value) in sums.iter_mut().zip(values) {
                        *sum = simd.mul_add_f32s(weight, value, *sum);
                    }
                }
            }
        }
        for (ix, sums) in sums.into_iter().enumerate() {
            let answer = &mut self.answer(first + ix)[from..][..VECTORS * S::F32_LANES];
            let (vectors, _) = S::as_mut_simd_f32s(answer);
            for (vector, sum) in vectors.iter_mut().zip(sums) {
                *vector = simd.mul_f32s(sum, simd.splat_f32s(shares[ix]));
            }
        }
    }

    /// Where a query's answer goes.
    #[inline(always)]
    fn answer(&self, query: usize) -> &mut [f32] {
        let query = self.first + query;
        let token = self.row.first + query / self.group();
        self.job
            .answer(token, self.head * self.group() + query % self.group())
    }
}

/// Turns scores into weights that are yet to be multiplied by the returned share.
#[inline(always)]
fn soften<S: Simd>(simd: S, scores: &mut [Lanes], sink: Option<f32>) -> f32 {
    let mut greatest = [f32::NEG_INFINITY; LANES];
    let (vectors, _) = S::as_mut_simd_f32s(&mut greatest);
    for lanes in scores.iter() {
        let (lanes, _) = S::as_simd_f32s(lanes);
        for (greatest, score) in vectors.iter_mut().zip(lanes) {
            *greatest = simd.max_f32s(*greatest, *score);
        }
    }
    let greatest = greatest
        .into_iter()
        .fold(sink.unwrap_or(f32::NEG_INFINITY), f32::max);
    let far = simd.splat_f32s(greatest);
    let mut sums = [0.0_f32; LANES];
    let (vectors, _) = S::as_mut_simd_f32s(&mut sums);
    for lanes in scores.iter_mut() {
        let (lanes, _) = S::as_mut_simd_f32s(lanes);
        for (sum, score) in vectors.iter_mut().zip(lanes) {
            *score = exp(simd, simd.sub_f32s(*score, far));
            *sum = simd.add_f32s(*sum, *score);
        }
    }
    let sink = sink.map_or(0.0, |sink| {
        let alone = exp(simd, simd.splat_f32s(sink - greatest));
        let mut lanes = [0.0_f32; LANES];
        S::as_mut_simd_f32s(&mut lanes).0[0] = alone;
        lanes[0]
    });
    (sums.iter().sum::<f32>() + sink).recip()
}
