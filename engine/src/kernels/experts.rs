//! Many gated feed-forward layers, of which each row takes a few.
//!
//! The rows that chose one expert are multiplied by its weights together, so these are read once
//! for all of them. What a row gets is the same to the last bit whoever shares its experts.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::choice::{Choice, Weighing};
use super::gate::Gate;
use super::panels::{GRAIN, Product, Sheet, Source, Target};
use super::rows::shares;
use super::vectors::arch;
use super::{LANES, Lanes, Panels, Rows, crew};

/// Rows whose gates are computed before the next: their numbers stay in the first cache.
const GATED_ROWS: usize = 32;
/// Numbers summed by one thread at least: about ten microseconds.
const SUM_GRAIN: usize = 16_384;

#[derive(Clone, Debug)]
pub struct Experts {
    hidden: usize,
    inner: usize,
    each: Vec<Expert>,
    gate: Gate,
    weighing: Weighing,
    chosen: usize,
}

#[derive(Clone, Debug)]
struct Expert {
    /// Panels of gates and of what they let through in turn.
    inputs: Panels,
    input_bias: Option<Vec<f32>>,
    down: Panels,
    down_bias: Option<Vec<f32>>,
}

/// One expert as the files give it: matrices row-major, (inner, hidden), (inner, hidden) and
/// (hidden, inner); biases in the same order.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    pub matrices: [&'a [f32]; 3],
    pub biases: Option<[&'a [f32]; 3]>,
}

/// Room that a call works in, for the numbers of each choice of each row.
#[derive(Debug)]
pub struct Room<'a> {
    /// `chosen` times `gated_width` for each row.
    pub gated: &'a mut [f32],
    /// `chosen` times the row itself.
    pub made: &'a mut [f32],
}

/// A part of the work: some rows of one expert by some of its pairs of panels.
struct Piece {
    expert: usize,
    places: Range<usize>,
    pairs: Range<usize>,
}

impl Experts {
    /// # Panics
    /// A row cannot choose so many experts.
    #[must_use]
    pub fn new(hidden: usize, gate: Gate, weighing: Weighing, chosen: usize) -> Self {
        Self {
            hidden,
            inner: 0,
            each: vec![],
            gate,
            weighing,
            chosen,
        }
    }

    /// Packs one more.
    ///
    /// # Panics
    /// It has no whole number of rows, or is of another size than those before.
    pub fn push(&mut self, stored: Stored<'_>) {
        let [gate, up, down] = stored.matrices;
        let inner = gate.len() / self.hidden;
        assert!(self.each.is_empty() || inner == self.inner);
        self.inner = inner;
        assert_eq!(gate.len(), up.len(), "each number has its gate");
        assert_eq!(down.len(), up.len(), "as many numbers go out as came in");
        let zeros = vec![0.0; LANES * self.hidden];
        let bias = stored.biases.map(|[gate, up, _]| {
            assert_eq!((gate.len(), up.len()), (inner, inner));
            in_turn(gate, up, 1, &zeros).concat()
        });
        self.each.push(Expert {
            inputs: Panels::pack(self.hidden, &in_turn(gate, up, self.hidden, &zeros)),
            input_bias: bias,
            down: Panels::pack(inner, &[down]),
            down_bias: stored.biases.map(|[.., down]| down.to_vec()),
        });
    }

    #[must_use]
    pub fn chosen(&self) -> usize {
        self.chosen
    }

    /// Numbers of room between the gates and the way down, for each choice.
    #[must_use]
    pub fn gated_width(&self) -> usize {
        self.inner.next_multiple_of(LANES)
    }

    /// The weighted sum of what each row's experts make of it. `scores` are the router's, a row for
    /// each row of `input` and a number for each expert.
    ///
    /// # Panics
    /// Sizes do not fit.
    pub fn apply(&self, input: &Rows<'_>, scores: &Rows<'_>, room: Room<'_>, output: &mut [f32]) {
        assert_eq!(input.count(), scores.count(), "each row has scores");
        assert_eq!(input.width(), self.hidden, "a row has every input");
        assert_eq!(scores.width(), self.each.len(), "a score for each expert");
        assert_eq!(output.len(), input.count() * self.hidden);
        let places = input.count() * self.chosen;
        assert_eq!(room.gated.len(), places * self.gated_width());
        assert_eq!(room.made.len(), places * self.hidden);
        if output.is_empty() {
            return;
        }
        let choice = Choice::new(scores, self.chosen, &self.weighing);
        let gated = Sheet::new(room.gated, self.gated_width());
        self.share(&choice, Expert::inputs, &|piece| {
            self.gated(&choice, input, piece, &gated);
        });
        let gated = Rows::new(room.gated, places, self.inner, self.gated_width());
        let made = Sheet::new(room.made, self.hidden);
        self.share(&choice, Expert::down, &|piece| {
            self.down(&gated, piece, &made);
        });
        self.sum(&choice, &Rows::dense(room.made, self.hidden), output);
    }

    /// Calls `work` with pieces that make up the products of all chosen rows with `weights`.
    fn share(
        &self,
        choice: &Choice,
        weights: impl Fn(&Expert) -> &Panels,
        work: &(dyn Fn(&Piece) + Sync),
    ) {
        let mut pieces = vec![];
        // The pieces of each task, and what the last of them comes to.
        let mut tasks: Vec<Range<usize>> = vec![];
        let mut last_work = GRAIN;
        for (expert, weights) in self.each.iter().map(weights).enumerate() {
            let all = choice.places_of(expert);
            if all.is_empty() {
                continue;
            }
            let rows = weights.rows_at_once(all.len());
            let pairs = GRAIN.div_ceil(weights.work_of_pair(rows));
            for first_row in all.clone().step_by(rows) {
                for first_pair in (0..weights.pairs()).step_by(pairs) {
                    let piece = Piece {
                        expert,
                        places: first_row..(first_row + rows).min(all.end),
                        pairs: first_pair..(first_pair + pairs).min(weights.pairs()),
                    };
                    if last_work >= GRAIN {
                        tasks.push(pieces.len()..pieces.len());
                        last_work = 0;
                    }
                    last_work += weights.work_of_pair(piece.places.len()) * piece.pairs.len();
                    pieces.push(piece);
                    if let Some(task) = tasks.last_mut() {
                        task.end = pieces.len();
                    }
                }
            }
        }
        crew::for_each(tasks.len(), &|ix| {
            pieces[tasks[ix].clone()].iter().for_each(work);
        });
    }

    fn gated(&self, choice: &Choice, input: &Rows<'_>, piece: &Piece, gated: &Sheet<'_>) {
        let expert = &self.each[piece.expert];
        let arch = arch();
        let mut both = [[0.0; 2 * LANES]; GATED_ROWS];
        for pair in piece.pairs.clone() {
            for first_row in piece.places.clone().step_by(GATED_ROWS) {
                let places = first_row..(first_row + GATED_ROWS).min(piece.places.end);
                let rows = places.len();
                let picked = Picked {
                    rows: input,
                    picks: choice.rows_at(places),
                };
                let sheet = Sheet::new(both.as_flattened_mut(), 2 * LANES);
                arch.dispatch(Product {
                    weights: &expert.inputs,
                    pair,
                    input: &picked,
                    rows: 0..rows,
                    target: Target {
                        sheet: &sheet,
                        first_row: 0,
                        column: 0,
                    },
                });
                arch.dispatch(Gating {
                    gate: self.gate,
                    bias: expert.bias_of(pair),
                    both: &both[..rows],
                    target: Target {
                        sheet: gated,
                        first_row,
                        column: pair * LANES,
                    },
                });
            }
        }
    }

    fn down(&self, gated: &Rows<'_>, piece: &Piece, made: &Sheet<'_>) {
        let arch = arch();
        for pair in piece.pairs.clone() {
            arch.dispatch(Product {
                weights: &self.each[piece.expert].down,
                pair,
                input: gated,
                rows: piece.places.clone(),
                target: Target {
                    sheet: made,
                    first_row: 0,
                    column: pair * 2 * LANES,
                },
            });
        }
    }

    fn sum(&self, choice: &Choice, made: &Rows<'_>, output: &mut [f32]) {
        let arch = arch();
        let shares = shares(output, self.hidden, SUM_GRAIN);
        crew::for_each(shares.count(), &|ix| {
            let (first, output) = shares.take(ix);
            for (row, sum) in output.chunks_exact_mut(self.hidden).enumerate() {
                sum.fill(0.0);
                for taken in choice.taken_by(first + row) {
                    arch.dispatch(Adding {
                        share: taken.share,
                        made: made.row(taken.place),
                        bias: self.each[taken.expert].down_bias.as_deref(),
                        sum,
                    });
                }
            }
        });
    }
}

impl Expert {
    fn inputs(&self) -> &Panels {
        &self.inputs
    }

    fn down(&self) -> &Panels {
        &self.down
    }

    fn bias_of(&self, pair: usize) -> &[f32] {
        const NONE: [f32; 2 * LANES] = [0.0; 2 * LANES];
        match &self.input_bias {
            Some(bias) => &bias[pair * 2 * LANES..][..2 * LANES],
            None => &NONE,
        }
    }
}

/// Sixteen rows of gates, then the sixteen of what they let through, and so on: so one product has
/// both of a pair. What is missing at the end is zeros.
fn in_turn<'a>(gate: &'a [f32], up: &'a [f32], width: usize, zeros: &'a [f32]) -> Vec<&'a [f32]> {
    let size = LANES * width;
    let pairs = gate.chunks(size).zip(up.chunks(size));
    pairs
        .flat_map(|(gate, up)| {
            let missing = &zeros[..size - gate.len()];
            [gate, missing, up, missing]
        })
        .collect()
}

/// Some of the input's rows.
struct Picked<'a> {
    rows: &'a Rows<'a>,
    picks: &'a [usize],
}

impl Source for Picked<'_> {
    #[inline(always)]
    fn row(&self, ix: usize) -> &[f32] {
        self.rows.row(self.picks[ix])
    }
}

/// Gates of rows and what they let through, side by side, as one product makes them.
struct Gating<'a> {
    gate: Gate,
    bias: &'a [f32],
    both: &'a [[f32; 2 * LANES]],
    target: Target<'a>,
}

impl WithSimd for Gating<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (biases, _) = S::as_simd_f32s(self.bias);
        let vectors = biases.len() / 2;
        for (row, both) in self.both.iter().enumerate() {
            let (both, _) = S::as_simd_f32s(both);
            let mut lanes: Lanes = [0.0; LANES];
            let (gated, _) = S::as_mut_simd_f32s(&mut lanes);
            for (ix, gated) in gated.iter_mut().enumerate() {
                let gate = simd.add_f32s(both[ix], biases[ix]);
                let up = simd.add_f32s(both[vectors + ix], biases[vectors + ix]);
                *gated = self.gate.of(simd, gate, up);
            }
            self.target.store(row, 0, &lanes);
        }
    }
}

/// `sum += share * (made + bias)`.
struct Adding<'a> {
    share: f32,
    made: &'a [f32],
    bias: Option<&'a [f32]>,
    sum: &'a mut [f32],
}

impl WithSimd for Adding<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let made = self.sum.iter_mut().zip(self.made);
        match self.bias {
            Some(bias) => {
                for ((sum, made), bias) in made.zip(bias) {
                    *sum += self.share * (made + bias);
                }
            }
            None => {
                for (sum, made) in made {
                    *sum += self.share * made;
                }
            }
        }
    }
}
