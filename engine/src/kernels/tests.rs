//! Each kernel against the plainest code that computes the same.
#![allow(unsafe_code, reason = "some kernels leave exclusion to their caller")]

use std::sync::Arc;

use proptest::prelude::*;

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

fn assert_close(left: &[f32], right: &[f32], tolerance: f32) {
    assert_eq!(left.len(), right.len());
    for (ix, (a, b)) in left.iter().zip(right).enumerate() {
        assert!(
            (a - b).abs() <= tolerance * (1.0 + a.abs()),
            "{ix}: {a} and {b}"
        );
    }
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
        let all = matrices.concat();
        let expected: Vec<f32> = (0..rows * outputs)
            .map(|ix| {
                let x = &input[ix / outputs * inputs..][..inputs];
                let w = &all[ix % outputs * inputs..][..inputs];
                x.iter().zip(w).map(|(x, w)| x * w).sum()
            })
            .collect();
        assert_close(&expected, &output, 1e-5);
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
    let formula = |row: &[f32]| -> Vec<f32> {
        let mean = row.iter().map(|x| x * x).sum::<f32>() / 37.0;
        row.iter()
            .zip(&weight)
            .map(|(x, w)| x / (mean + 1e-6).sqrt() * w)
            .collect()
    };
    let mut normed = vec![0.0; input.len()];
    rms_norm(&Rows::dense(&input, width), &weight, 1e-6, &mut normed);
    let expected: Vec<f32> = input.chunks(width).flat_map(formula).collect();
    assert_close(&expected, &normed, 1e-5);

    let mut sum = vec![0.0; input.len()];
    let (a, b) = (Rows::dense(&input, width), Rows::dense(&update, width));
    add_rms_norm(&a, &b, &weight, 1e-6, &mut sum, &mut normed);
    let added: Vec<f32> = input.iter().zip(&update).map(|(a, b)| a + b).collect();
    assert_eq!(added, sum);
    let expected: Vec<f32> = added.chunks(width).flat_map(formula).collect();
    assert_close(&expected, &normed, 1e-5);

    let gate_up = numbers(4, rows * 2 * width);
    let mut gated = vec![0.0; rows * width];
    let gate = Rows::new(&gate_up, rows, width, 2 * width);
    let up = Rows::new(&gate_up[width..], rows, width, 2 * width);
    swiglu(&gate, &up, &mut gated);
    let expected: Vec<f32> = gate_up
        .chunks(2 * width)
        .flat_map(|row| (0..width).map(|ix| row[ix] / (1.0 + (-row[ix]).exp()) * row[width + ix]))
        .collect();
    assert_close(&expected, &gated, 1e-5);
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
    fn slowly(&self) -> Vec<f32> {
        let Attention {
            query_heads,
            kv_heads,
            head_dim,
            ref norms,
            ..
        } = self.layer;
        let head =
            |token: usize, ix: usize, weight: Option<&Arc<[f32]>>, turns: bool| -> Vec<f64> {
                let start = token * self.width() + ix * head_dim;
                let mut x: Vec<f64> = self.qkv[start..start + head_dim]
                    .iter()
                    .map(|x| f64::from(*x))
                    .collect();
                if let Some(weight) = weight {
                    let mean = x.iter().map(|x| x * x).sum::<f64>() / head_dim as f64;
                    let scale = (mean + f64::from(norms.eps)).sqrt().recip();
                    x.iter_mut()
                        .zip(weight.iter())
                        .for_each(|(x, w)| *x *= scale * f64::from(*w));
                }
                if let Some(rotary) = self.layer.rotary.as_ref().filter(|_| turns) {
                    let half = rotary.width() / 2;
                    for pair in 0..half {
                        let angle = token as f64 * 10_000_f64.powf(-(pair as f64) / half as f64);
                        let (a, b) = (x[pair], x[pair + half]);
                        x[pair] = a * angle.cos() - b * angle.sin();
                        x[pair + half] = b * angle.cos() + a * angle.sin();
                    }
                }
                x
            };
        let mut answers = vec![];
        for token in 0..self.tokens {
            for query_head in 0..query_heads {
                let kv_head = query_head / (query_heads / kv_heads);
                let query = head(token, query_head, norms.query.as_ref(), true);
                let from = self
                    .layer
                    .window
                    .map_or(0, |window| (token + 1).saturating_sub(window));
                let scores: Vec<f64> = (from..=token)
                    .map(|other| {
                        let key = head(other, query_heads + kv_head, norms.key.as_ref(), true);
                        let dot: f64 = query.iter().zip(&key).map(|(q, k)| q * k).sum();
                        (dot * f64::from(self.layer.scale)).exp()
                    })
                    .collect();
                let sink = self
                    .layer
                    .sinks
                    .as_ref()
                    .map_or(0.0, |sinks| f64::from(sinks[query_head]).exp());
                let total = scores.iter().sum::<f64>() + sink;
                let mut answer = vec![0.0; head_dim];
                for (other, score) in (from..=token).zip(&scores) {
                    let value = head(
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
                answers.extend(answer.iter().map(|x| *x as f32));
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
                Arc::new(Rotary::new(frequencies.collect(), 1.0))
            }),
            sinks: has_sinks.then(|| numbers(9, query_heads)),
        };
        let width = (query_heads + 2 * kv_heads) * head_dim;
        let case = Case { layer, tokens, qkv: numbers(u64::from(seed) + 1, tokens * width) };
        let whole = case.in_steps(&[tokens], seed);
        assert_close(&case.slowly(), &whole, 1e-4);
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
