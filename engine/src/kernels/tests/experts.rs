//! Experts against the sums of their formulas in double precision.

use proptest::prelude::*;

use super::numbers;
use super::rounding::{Rounding, assert_as_plain, wide};
use crate::kernels::choice::Choice;
use crate::kernels::{Experts, Gate, Room, Rows, Stored, Weighing};

/// Sizes of some experts, and of what they are applied to.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    hidden: usize,
    inner: usize,
    count: usize,
    chosen: usize,
    rows: usize,
}

struct Layer {
    sizes: Sizes,
    gate: Gate,
    weighing: Weighing,
    /// Of each: gates, ups, the way down.
    matrices: Vec<[Vec<f32>; 3]>,
    biases: Option<Vec<[Vec<f32>; 3]>>,
}

impl Layer {
    fn packed(&self) -> Experts {
        let Sizes { hidden, chosen, .. } = self.sizes;
        let mut experts = Experts::new(hidden, self.gate, self.weighing.clone(), chosen);
        for (ix, matrices) in self.matrices.iter().enumerate() {
            let biases = self.biases.as_ref().map(|each| &each[ix]);
            experts.push(Stored {
                matrices: matrices.each_ref().map(Vec::as_slice),
                biases: biases.map(|each| each.each_ref().map(Vec::as_slice)),
            });
        }
        experts
    }

    /// In double precision, number by number.
    fn plainly(&self, row: &[f32], scores: &[f32], rounding: &mut Rounding) -> Vec<f64> {
        let mut best: Vec<usize> = (0..scores.len()).collect();
        best.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        best.truncate(self.sizes.chosen);
        let power = |ix: &usize| f64::from(scores[*ix]).exp();
        let all: Vec<usize> = (0..scores.len()).collect();
        let weighed = if self.weighing == Weighing::OfAll {
            &all
        } else {
            &best
        };
        let whole: f64 = weighed.iter().map(power).sum();
        let mut sum = vec![0.0; row.len()];
        let row: Vec<f64> = row.iter().copied().map(f64::from).collect();
        for ix in &best {
            let scale = match &self.weighing {
                Weighing::OfAll | Weighing::OfChosen => 1.0,
                Weighing::OfChosenScaled(scales) => f64::from(scales[*ix]),
            };
            let share = rounding.near(power(ix) / whole * scale);
            let [gate, up, down] = &self.matrices[*ix];
            let bias = |part: usize| self.biases.as_ref().map(|each| each[*ix][part].as_slice());
            let gates = linear(gate, bias(0), &row, rounding);
            let ups = linear(up, bias(1), &row, rounding);
            let inner: Vec<f64> = gates
                .iter()
                .zip(&ups)
                // Where the tangent is near minus one, its sum with one has lost what it was off by.
                .map(|(g, u)| {
                    rounding.of(plain_gate(self.gate, *g, *u), 16, (g * u).abs() + g.abs())
                })
                .collect();
            let made = linear(down, bias(2), &inner, rounding);
            for (sum, made) in sum.iter_mut().zip(made) {
                *sum = rounding.of(*sum + share * made, 2, sum.abs() + (share * made).abs());
            }
        }
        sum
    }
}

fn linear(matrix: &[f32], bias: Option<&[f32]>, row: &[f64], rounding: &mut Rounding) -> Vec<f64> {
    let products = matrix.chunks(row.len()).enumerate();
    let one = |(ix, weights): (usize, &[f32])| {
        let bias = bias.map_or(0.0, |bias| f64::from(bias[ix]));
        let sum = rounding.dot(&wide(weights), row) + bias;
        rounding.of(sum, 1, sum.abs())
    };
    products.map(one).collect()
}

fn plain_gate(kind: Gate, gate: f64, up: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match kind {
        Gate::Silu => gate * sigmoid(gate) * up,
        Gate::GeluTanh => {
            let x = (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044_715 * gate.powi(3));
            0.5 * gate * (1.0 + x.tanh()) * up
        }
        Gate::SwigluClipped { limit } => {
            let limit = f64::from(limit);
            let gate = gate.min(limit);
            (up.clamp(-limit, limit) + 1.0) * gate * sigmoid(1.702 * gate)
        }
    }
}

fn apply(experts: &Experts, input: &Rows<'_>, scores: &Rows<'_>) -> Vec<f32> {
    let places = input.count() * experts.chosen();
    let mut gated = vec![f32::NAN; places * experts.gated_width()];
    let mut made = vec![f32::NAN; places * input.width()];
    let mut output = vec![f32::NAN; input.count() * input.width()];
    let room = Room {
        gated: &mut gated,
        made: &mut made,
    };
    experts.apply(input, scores, room, &mut output);
    output
}

fn sizes() -> impl Strategy<Value = Sizes> {
    let sizes = (
        1_usize..50,
        1_usize..50,
        1_usize..9,
        0_usize..60,
        any::<usize>(),
    );
    sizes.prop_map(|(hidden, inner, count, rows, chosen)| Sizes {
        hidden,
        inner,
        count,
        chosen: 1 + chosen % count,
        rows,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// ENG-07.
    #[test]
    fn experts_give_each_row_the_same_in_any_company(
        sizes in sizes(), kind in 0_usize..3, weighing in 0_usize..3, biased: bool, seed: u64,
    ) {
        let Sizes { hidden, inner, count, rows, .. } = sizes;
        let of = |ix: usize, part: u64, size| numbers(seed ^ (part << 8) ^ (ix as u64 + 1), size);
        let each = |ix: usize, sizes: [usize; 3], part: u64| {
            [of(ix, part, sizes[0]), of(ix, part + 1, sizes[1]), of(ix, part + 2, sizes[2])]
        };
        let layer = Layer {
            sizes,
            gate: [Gate::Silu, Gate::GeluTanh, Gate::SwigluClipped { limit: 0.75 }][kind],
            weighing: [
                Weighing::OfAll,
                Weighing::OfChosen,
                Weighing::OfChosenScaled(of(0, 9, count)),
            ][weighing].clone(),
            matrices: (0..count).map(|ix| each(ix, [inner * hidden; 3], 1)).collect(),
            biases: biased.then(|| (0..count).map(|ix| each(ix, [inner, inner, hidden], 4)).collect()),
        };
        let experts = layer.packed();
        let input = numbers(seed ^ 77, rows * hidden);
        let scores = numbers(seed ^ 78, rows * count);
        let (input, scores) = (Rows::dense(&input, hidden), Rows::dense(&scores, count));
        let output = apply(&experts, &input, &scores);
        for (row, together) in output.chunks_exact(hidden).enumerate() {
            let (input, scores) = (input.row(row), scores.row(row));
            let alone = apply(&experts, &Rows::dense(input, hidden), &Rows::dense(scores, count));
            prop_assert_eq!(together, alone.as_slice());
            assert_as_plain(together, |rounding| layer.plainly(input, scores, rounding));
        }
    }
}

#[test]
fn rows_take_the_highest_scores_and_of_equal_ones_the_first() {
    let scores = [
        1.0,
        f32::NEG_INFINITY,
        3.0,
        3.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        5.0,
    ];
    let choice = Choice::new(&Rows::dense(&scores, 5), 2, &Weighing::OfChosen);
    let experts = |row: usize| choice.taken_by(row).iter().map(|taken| taken.expert);
    assert_eq!(experts(0).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(experts(1).collect::<Vec<_>>(), [4, 0]);
    assert_eq!(choice.rows_at(choice.places_of(0)), [1]);
    assert!(choice.places_of(1).is_empty());
    assert!((choice.taken_by(0)[1].share - 0.5).abs() < f32::EPSILON);
}
