//! Each kernel against the plainest code that computes the same.
#![allow(unsafe_code, reason = "some kernels leave exclusion to their caller")]

mod experts;
mod rounding;

use std::sync::Arc;

use proptest::prelude::*;

use self::rounding::{Rounding, assert_as_plain, wide};
use super::*;

/// A stream of numbers in -1..1.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            f32::from(i16::from_le_bytes([
                word.to_le_bytes()[2],
                word.to_le_bytes()[5],
            ])) / 32_768.0
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn panels_multiply_as_the_matrix_they_were_made_of(
        rows in 0_usize..21, inputs in 1_usize..70, first in 1_usize..50, second in 0_usize..40,
        seed: u64,
    ) {
        let matrices = [numbers(seed, first * inputs), numbers(seed ^ 1, second * inputs)];
        let panels = Panels::pack(inputs, &[&matrices[0], &matrices[1]]);
        let outputs = first + second;
        prop_assert_eq!(panels.outputs(), outputs);
        let input = numbers(seed ^ 2, rows * inputs);
        let mut output = vec![f32::NAN; rows * outputs];
        panels.multiply(&Rows::dense(&input, inputs), &mut output);
        let (x, w) = (wide(&input), wide(&matrices.concat()));
        assert_as_plain(&output, |rounding| {
            let one = |ix: usize| {
                let x = &x[ix / outputs * inputs..][..inputs];
                rounding.dot(x, &w[ix % outputs * inputs..][..inputs])
            };
            (0..rows * outputs).map(one).collect()
        });
        // To the last bit the same, alone or in company.
        for (row, together) in output.chunks_exact(outputs).enumerate() {
            let mut alone = vec![f32::NAN; outputs];
            panels.multiply(&Rows::dense(&input[row * inputs..][..inputs], inputs), &mut alone);
            prop_assert_eq!(together, alone.as_slice());
        }
    }
}

#[test]
fn norms_and_gates_compute_their_formulas() {
    let (rows, width) = (5, 37);
    let (input, update, weight) = (
        numbers(1, rows * width),
        numbers(2, rows * width),
        numbers(3, width),
    );
    let formula = |rounding: &mut Rounding, row: &[f32]| -> Vec<f64> {
        let row = wide(row);
        let mean = rounding.dot(&row, &row) / 37.0;
        let scale = rounding.near((mean + f64::from(1e-6_f32)).sqrt().recip());
        row.iter()
            .zip(&weight)
            .map(|(x, w)| rounding.near(x * scale * f64::from(*w)))
            .collect()
    };
    let normed_plainly = |found: &[f32], input: &[f32]| {
        assert_as_plain(found, |rounding| {
            let rows = input.chunks(width);
            rows.flat_map(|row| formula(rounding, row)).collect()
        });
    };
    let mut normed = vec![0.0; input.len()];
    rms_norm(&Rows::dense(&input, width), &weight, 1e-6, &mut normed);
    normed_plainly(&normed, &input);

    let mut sum = vec![0.0; input.len()];
    let (a, b) = (Rows::dense(&input, width), Rows::dense(&update, width));
    add_rms_norm(&a, &b, &weight, 1e-6, &mut sum, &mut normed);
    let added: Vec<f32> = input.iter().zip(&update).map(|(a, b)| a + b).collect();
    assert_eq!(added, sum);
    normed_plainly(&normed, &added);

    let gate_up = numbers(4, rows * 2 * width);
    let mut gated = vec![0.0; rows * width];
    let gate = Rows::new(&gate_up, rows, width, 2 * width);
    let up = Rows::new(&gate_up[width..], rows, width, 2 * width);
    super::gated(Gate::Silu, &gate, &up, &mut gated);
    assert_as_plain(&gated, |rounding| {
        let rows = gate_up.chunks(2 * width).map(wide);
        let one = |row: Vec<f64>| {
            let gated = |ix: usize| row[ix] / (1.0 + (-row[ix]).exp()) * row[width + ix];
            (0..width).map(gated).collect::<Vec<f64>>()
        };
        let all = rows.flat_map(one);
        all.map(|value| rounding.near(value)).collect()
    });
}

struct Case {
    layer: Attention,
    tokens: usize,
    qkv: Vec<f32>,
}

impl Case {
    fn width(&self) -> usize {
        (self.layer.query_heads + 2 * self.layer.kv_heads) * self.layer.head_dim
    }

    fn projected<'a>(&self, qkv: &'a [f32]) -> Projected<'a> {
        let count = qkv.len() / self.width();
        let part = |first: usize, heads: usize| {
            let dim = self.layer.head_dim;
            Rows::new(&qkv[first * dim..], count, heads * dim, self.width())
        };
        let (q, kv) = (self.layer.query_heads, self.layer.kv_heads);
        Projected {
            query: part(0, q),
            key_value: Some((part(q, kv), part(q + kv, kv))),
        }
    }

    /// Softmax over everything seen, one token and head after the other, in float64.
    fn slowly(&self, rounding: &mut Rounding) -> Vec<f64> {
        let Attention {
            query_heads,
            kv_heads,
            head_dim,
            ref norms,
            ..
        } = self.layer;
        let head = |rounding: &mut Rounding,
                    token: usize,
                    ix: usize,
                    weight: Option<&Arc<[f32]>>,
                    turns: bool|
         -> Vec<f64> {
            let start = token * self.width() + ix * head_dim;
            let mut x: Vec<f64> = self.qkv[start..start + head_dim]
                .iter()
                .map(|x| f64::from(*x))
                .collect();
            if let Some(weight) = weight {
                let mean = rounding.dot(&x, &x) / head_dim as f64;
                let scale = rounding.near((mean + f64::from(norms.eps)).sqrt().recip());
                x.iter_mut()
                    .zip(weight.iter())
                    .for_each(|(x, w)| *x = rounding.near(*x * scale * f64::from(*w)));
            }
            if let Some(rotary) = self.layer.rotary.as_ref().filter(|_| turns) {
                let half = rotary.width() / 2;
                for pair in 0..half {
                    let angle = token as f64 * 10_000_f64.powf(-(pair as f64) / half as f64);
                    let angle = rounding.near(angle);
                    let (first, second) = match rotary.pairs() {
                        Pairs::Halves => (pair, pair + half),
                        Pairs::Neighbours => (2 * pair, 2 * pair + 1),
                    };
                    let (a, b) = (x[first], x[second]);
                    let size = a.abs() + b.abs();
                    let turned = a * angle.cos() - b * angle.sin();
                    x[first] = rounding.of(turned, 4, size);
                    let turned = b * angle.cos() + a * angle.sin();
                    x[second] = rounding.of(turned, 4, size);
                }
            }
            x
        };
        let mut answers = vec![];
        for token in 0..self.tokens {
            for query_head in 0..query_heads {
                let kv_head = query_head / (query_heads / kv_heads);
                let query = head(rounding, token, query_head, norms.query.as_ref(), true);
                let from = self
                    .layer
                    .window
                    .map_or(0, |window| (token + 1).saturating_sub(window));
                let scores: Vec<f64> = (from..=token)
                    .map(|other| {
                        let ix = query_heads + kv_head;
                        let key = head(rounding, other, ix, norms.key.as_ref(), true);
                        let score = rounding.dot(&query, &key) * f64::from(self.layer.scale);
                        let score = rounding.near(score);
                        rounding.near(score.exp())
                    })
                    .collect();
                let sink = self
                    .layer
                    .sinks
                    .as_ref()
                    .map_or(0.0, |sinks| f64::from(sinks[query_head]).exp());
                let total = scores.iter().sum::<f64>() + sink;
                let total = rounding.of(total, scores.len(), total);
                let mut answer = vec![0.0; head_dim];
                for (other, score) in (from..=token).zip(&scores) {
                    let value = head(
                        rounding,
                        other,
                        query_heads + kv_heads + kv_head,
                        norms.value.as_ref(),
                        false,
                    );
                    answer
                        .iter_mut()
                        .zip(&value)
                        .for_each(|(a, v)| *a += v * score / total);
                }
                // As if all that was added had been as great as the least favourable of it.
                let count = scores.len();
                let most = answer.iter().copied().map(f64::abs).fold(1.0, f64::max);
                answers.extend(answer.iter().map(|x| rounding.of(*x, count, most)));
            }
        }
        answers
    }

    /// In steps of the given lengths, beside a row of other tokens, over pages in no order.
    fn in_steps(&self, steps: &[usize], seed: u32) -> Vec<f32> {
        let Attention {
            query_heads,
            kv_heads,
            head_dim,
            ..
        } = self.layer;
        let pages = u32::try_from(self.tokens.div_ceil(PAGE_TOKENS)).unwrap();
        let pool = PagePool::new(1 + 2 * pages as usize, kv_heads, head_dim).unwrap();
        let own: Vec<u32> = (0..pages).map(|ix| 1 + 2 * ((ix + seed) % pages)).collect();
        let other: Vec<u32> = (0..pages).map(|ix| 2 + 2 * ((ix + 1) % pages)).collect();
        let width = query_heads * head_dim;
        let mut answers = vec![];
        let mut start = 0;
        for &count in steps {
            let company = usize::from(start % 3 != 0) * 5.min(self.tokens);
            let mut qkv = numbers(u64::from(seed), company * self.width());
            qkv.extend_from_slice(&self.qkv[start * self.width()..(start + count) * self.width()]);
            let mut rows = vec![RowSpan {
                first: company,
                count,
                start,
                table: own.clone(),
            }];
            if company > 0 {
                rows.push(RowSpan {
                    first: 0,
                    count: company,
                    start: 0,
                    table: other.clone(),
                });
            }
            let mut output = vec![f32::NAN; (company + count) * width];
            // SAFETY: the pool is this function's, and the two tables share no page.
            unsafe {
                attend(
                    &self.layer,
                    &rows,
                    &self.projected(&qkv),
                    &pool,
                    &mut output,
                );
            }
            answers.extend_from_slice(&output[company * width..]);
            start += count;
        }
        answers
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn attention_over_pages_is_attention(
        tokens in 1_usize..70,
        kv_heads in 1_usize..3,
        group in 1_usize..6,
        head_dim in prop::sample::select(vec![8_usize, 16, 20, 64, 80]),
        window in prop::option::of(1_usize..40),
        has_norms: bool,
        has_rotary: bool,
        are_neighbours: bool,
        has_sinks: bool,
        cuts in prop::collection::vec(1_usize..20, 0..6),
        seed: u32,
    ) {
        let query_heads = kv_heads * group;
        let half = head_dim / 4;
        let norms: Option<Arc<[f32]>> = has_norms.then(|| numbers(7, head_dim).into());
        let layer = Attention {
            query_heads, kv_heads, head_dim,
            scale: 1.3,
            window,
            norms: HeadNorms { query: norms.clone(), key: norms.clone(), value: norms, eps: 1e-5 },
            rotary: has_rotary.then(|| {
                let frequencies = (0..half).map(|ix| 10_000_f32.powf(-(ix as f32) / half as f32));
                let pairs = if are_neighbours { Pairs::Neighbours } else { Pairs::Halves };
                Arc::new(Rotary::new(frequencies.collect(), pairs, 1.0))
            }),
            sinks: has_sinks.then(|| numbers(9, query_heads)),
        };
        let width = (query_heads + 2 * kv_heads) * head_dim;
        let case = Case { layer, tokens, qkv: numbers(u64::from(seed) + 1, tokens * width) };
        let whole = case.in_steps(&[tokens], seed);
        assert_as_plain(&whole, |rounding| case.slowly(rounding));
        let mut steps = vec![];
        let mut left = tokens;
        for cut in cuts {
            let step = cut.min(left);
            if step > 0 {
                steps.push(step);
            }
            left -= step;
        }
        steps.extend(std::iter::repeat_n(1, left));
        // To the last bit: neither the cuts nor the company nor the pages' order is seen.
        prop_assert_eq!(whole, case.in_steps(&steps, seed.wrapping_add(1)));
    }
}

#[test]
fn a_copied_page_holds_the_same() {
    let pool = PagePool::new(3, 2, 4).unwrap();
    // SAFETY: this thread has the pool to itself.
    unsafe { pool.tile_mut(1, 1) }.0[5] = 7.0;
    // SAFETY: as above.
    unsafe { pool.copy(1, 2) };
    assert_eq!(pool.tile(2, 1).0[5], 7.0);
    assert_eq!(pool.tile(0, 1).0[5], 0.0);
    assert_eq!(pool.page_count(), 3);
}

/// The rule in double precision, token by token; the shapes of [`Delta::run`] for one span.
fn plain_delta(
    delta: &Delta,
    [mixed, decay, write]: &[Vec<f32>; 3],
    rounding: &mut Rounding,
) -> Vec<f64> {
    let (dim, value_dim) = (delta.key_dim, delta.value_dim);
    let key_width = delta.key_heads * dim;
    let width = 2 * key_width + delta.value_heads * value_dim;
    let kernel = delta.convolution.len() / width;
    let at = |rounding: &mut Rounding, token: usize, channel: usize| {
        let places = (0..kernel).filter(|place| token + place + 1 >= kernel);
        let (inputs, weights): (Vec<f64>, Vec<f64>) = places
            .map(|place| {
                let input = mixed[(token + place + 1 - kernel) * width + channel];
                let weight = delta.convolution[place * width + channel];
                (f64::from(input), f64::from(weight))
            })
            .unzip();
        let sum = rounding.dot(&inputs, &weights);
        rounding.near(sum / (1.0 + (-sum).exp()))
    };
    let unit = |rounding: &mut Rounding, token: usize, first: usize| -> Vec<f64> {
        let head: Vec<f64> = (first..first + dim)
            .map(|ix| at(rounding, token, ix))
            .collect();
        let square = rounding.dot(&head, &head);
        let scale = (square + f64::from(delta.length_eps)).sqrt().recip();
        head.iter().map(|x| rounding.near(x * scale)).collect()
    };
    let mut output = vec![];
    let mut matrices = vec![vec![vec![0.0; dim]; value_dim]; delta.value_heads];
    for token in 0..mixed.len() / width {
        for (head, matrix) in matrices.iter_mut().enumerate() {
            let key_head = head * delta.key_heads / delta.value_heads;
            let query = unit(rounding, token, key_head * dim);
            let key = unit(rounding, token, key_width + key_head * dim);
            let place = token * delta.value_heads + head;
            let decay = f64::from(decay[place]) + f64::from(delta.decay_bias[head]);
            let time = rounding.near(decay.exp().ln_1p());
            let keep = rounding.near((-f64::from(delta.rates[head]) * time).exp());
            let write = rounding.near(1.0 / (1.0 + (-f64::from(write[place])).exp()));
            for (ix, column) in matrix.iter_mut().enumerate() {
                let value = at(rounding, token, 2 * key_width + head * value_dim + ix);
                let read = rounding.dot(column, &key) * keep;
                let missing = rounding.of(
                    (value - read) * write,
                    4,
                    (value.abs() + read.abs()) * write,
                );
                for (x, key) in column.iter_mut().zip(&key) {
                    let size = (keep * *x).abs() + (missing * key).abs();
                    *x = rounding.of(keep * *x + missing * key, 2, size);
                }
                output.push(rounding.dot(column, &query) / (dim as f64).sqrt());
            }
        }
    }
    output
}

/// What each span says, one behind the other, when each is cut in two at its place.
fn delta_in_pieces(
    delta: &Delta,
    inputs: &[[Vec<f32>; 3]],
    cuts: &[usize],
) -> (Vec<f32>, Vec<f32>) {
    let width = delta.mixed_width();
    let kernel = delta.convolution.len() / width;
    let matrix_len = delta.value_width() * delta.key_dim;
    let tail_len = (kernel - 1) * width;
    let mut states: Vec<Option<(Vec<f32>, Vec<f32>)>> = vec![None; inputs.len()];
    let mut said = vec![vec![]; inputs.len()];
    for is_second in [false, true] {
        let counts: Vec<(usize, usize)> = inputs
            .iter()
            .zip(cuts)
            .map(|(input, cut)| {
                let count = input[0].len() / width;
                if is_second { (*cut, count) } else { (0, *cut) }
            })
            .collect();
        let packed = |part: usize, width: usize| -> Vec<f32> {
            let rows = inputs.iter().zip(&counts);
            rows.flat_map(|(input, (from, to))| &input[part][from * width..to * width])
                .copied()
                .collect()
        };
        let mixed = packed(0, width);
        let (decay, write) = (packed(1, delta.value_heads), packed(2, delta.value_heads));
        let rows = DeltaRows {
            mixed: Rows::dense(&mixed, width),
            decay: Rows::dense(&decay, delta.value_heads),
            write: Rows::dense(&write, delta.value_heads),
        };
        let mut after = vec![(vec![f32::NAN; tail_len], vec![f32::NAN; matrix_len]); inputs.len()];
        let mut first = 0;
        let mut spans = vec![];
        for ((state, (tail, matrix)), (from, to)) in states.iter().zip(&mut after).zip(&counts) {
            spans.push(DeltaSpan {
                first,
                count: to - from,
                before: state.as_ref().map(|(tail, matrix)| DeltaState {
                    tail: Rows::dense(tail, width),
                    matrix: Rows::dense(matrix, delta.key_dim),
                }),
                tail,
                matrix,
            });
            first += to - from;
        }
        let mut output = vec![f32::NAN; first * delta.value_width()];
        delta.run(&rows, &mut spans, &mut output);
        let mut output = &output[..];
        for (said, (from, to)) in said.iter_mut().zip(&counts) {
            let (own, others) = output.split_at((to - from) * delta.value_width());
            said.extend_from_slice(own);
            output = others;
        }
        states = after.into_iter().map(Some).collect();
    }
    let matrices = states.into_iter().flatten();
    (
        said.concat(),
        matrices.flat_map(|(_, matrix)| matrix).collect(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// ENG-07.
    #[test]
    fn delta_layers_follow_the_rule_however_tokens_are_cut(
        key_heads in 1_usize..3, times in 1_usize..3, key_dim in 1_usize..40,
        value_dim in 1_usize..40, kernel in 2_usize..5,
        spans in prop::collection::vec((1_usize..9, 0_usize..9), 1..4), seed: u64,
    ) {
        let value_heads = key_heads * times;
        let width = 2 * key_heads * key_dim + value_heads * value_dim;
        let delta = Delta {
            key_heads, value_heads, key_dim, value_dim,
            convolution: numbers(seed, kernel * width),
            rates: numbers(seed ^ 1, value_heads).iter().map(|x| x.abs()).collect(),
            decay_bias: numbers(seed ^ 2, value_heads),
            length_eps: 1e-6,
        };
        let inputs: Vec<[Vec<f32>; 3]> = (3..).zip(&spans).map(|(part, (count, _))| {
            let of = |word: u64, width: usize| numbers(seed ^ (word + 8 * part), count * width);
            [of(0, width), of(1, value_heads), of(2, value_heads)]
        }).collect();
        let whole: Vec<usize> = spans.iter().map(|(count, _)| *count).collect();
        let cuts: Vec<usize> = spans.iter().map(|(count, cut)| *cut.min(count)).collect();
        let (said, matrices) = delta_in_pieces(&delta, &inputs, &whole);
        assert_as_plain(&said, |rounding| {
            let each = inputs.iter();
            each.flat_map(|input| plain_delta(&delta, input, rounding)).collect()
        });
        let in_pieces = delta_in_pieces(&delta, &inputs, &cuts);
        prop_assert_eq!((&in_pieces.0, &in_pieces.1), (&said, &matrices));
        // And alone.
        let alone = delta_in_pieces(&delta, &inputs[..1], &cuts[..1]);
        prop_assert_eq!(&alone.0[..], &said[..alone.0.len()]);
    }
}
