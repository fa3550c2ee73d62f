//! Products with a weight matrix that was packed once, when the model was loaded.
//!
//! A BLAS packs its operands at each call, which costs more than the product when few rows are
//! multiplied, as in decode. Here the weights lie as the inner loop reads them: for sixteen outputs
//! the sixteen weights of each input together. A product of eight rows with two such panels keeps
//! its sixteen sums in registers, reads each weight once and streams through memory in order.
#![allow(unsafe_code, reason = "threads write disjoint columns of one output")]

use multiversion::multiversion;

use super::{LANES, Lanes, Rows, crew};

/// Rows of one inner tile.
const TILE_ROWS: usize = 8;
/// Work for one thread is not cut finer than this many multiplications: about ten microseconds.
const GRAIN: usize = 500_000;

/// A weight matrix (out, in), packed.
#[derive(Clone, Debug)]
pub struct Panels {
    inputs: usize,
    outputs: usize,
    /// Panel after panel; in each, for each input its weights to sixteen outputs. The last panel's
    /// missing outputs have zeros.
    packed: Vec<Lanes>,
}

impl Panels {
    /// Packs matrices of one width (each row-major, (out, inputs)) as if one stood below the other.
    ///
    /// # Panics
    /// A matrix has no whole number of rows.
    #[must_use]
    pub fn pack(inputs: usize, matrices: &[&[f32]]) -> Self {
        let rows = || {
            matrices
                .iter()
                .flat_map(|matrix| matrix.chunks_exact(inputs))
        };
        for matrix in matrices {
            assert_eq!(matrix.len() % inputs, 0, "a matrix has whole rows");
        }
        let outputs = rows().count();
        let mut packed = vec![[0.0; LANES]; outputs.div_ceil(LANES) * inputs];
        for (output, row) in rows().enumerate() {
            let panel = &mut packed[output / LANES * inputs..][..inputs];
            for (place, weight) in panel.iter_mut().zip(row) {
                place[output % LANES] = *weight;
            }
        }
        Self {
            inputs,
            outputs,
            packed,
        }
    }

    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `output = input W^T`, a row of `outputs` numbers for each row of
    /// `inputs`. A row's sums are the same
    /// whatever rows stand beside it.
    ///
    /// # Panics
    /// The two do not have the same number of rows.
    pub fn multiply(&self, input: &Rows<'_>, output: &mut [f32]) {
        let rows = input.count();
        assert_eq!(input.width(), self.inputs, "a row has every input");
        assert_eq!(
            output.len(),
            rows * self.outputs,
            "an output for each input row"
        );
        if rows == 0 {
            return;
        }
        let pairs = self.outputs.div_ceil(2 * LANES);
        let work_of_pair = 2 * LANES * self.inputs * rows;
        let pairs_together = GRAIN.div_ceil(work_of_pair);
        let target = Target(output.as_mut_ptr());
        crew::for_each(pairs.div_ceil(pairs_together), &|ix| {
            let first = ix * pairs_together;
            for pair in first..(first + pairs_together).min(pairs) {
                let columns = Columns {
                    target: &target,
                    rows,
                    width: self.outputs,
                    first: pair * 2 * LANES,
                };
                multiply_pair(self, input, &columns);
            }
        });
    }

    /// The weights of one output.
    ///
    /// # Panics
    /// There is no such output, or `row` has another width.
    pub fn row(&self, output: usize, row: &mut [f32]) {
        assert!(output < self.outputs, "an output of this matrix");
        assert_eq!(row.len(), self.inputs, "a row has every input");
        for (weight, place) in row.iter_mut().zip(self.panel(output / LANES)) {
            *weight = place[output % LANES];
        }
    }

    fn panel(&self, ix: usize) -> &[Lanes] {
        &self.packed[ix * self.inputs..][..self.inputs]
    }
}

struct Target(*mut f32);

// SAFETY: threads write through it to columns of their own only, see `Columns`.
unsafe impl Sync for Target {}

/// The columns of the output that one pair of panels fills.
struct Columns<'a> {
    target: &'a Target,
    rows: usize,
    width: usize,
    first: usize,
}

impl Columns<'_> {
    #[inline(always)]
    fn store(&self, row: usize, panel: usize, values: &Lanes) {
        let column = self.first + panel * LANES;
        let count = LANES.min(self.width.saturating_sub(column));
        assert!(row < self.rows);
        // SAFETY: row and columns lie inside the output, and no other pair has these columns.
        unsafe {
            let place = self.target.0.add(row * self.width + column);
            std::ptr::copy_nonoverlapping(values.as_ptr(), place, count);
        }
    }
}

#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512bw+avx512dq+fma+avx2",
    "x86_64+avx2+fma"
))]
fn multiply_pair(weights: &Panels, input: &Rows<'_>, columns: &Columns<'_>) {
    let first = columns.first / LANES;
    let has_second = columns.first + LANES < columns.width;
    let rows = columns.rows;
    let mut row = 0;
    while row + TILE_ROWS <= rows {
        if has_second {
            tile::<TILE_ROWS, 2>(weights, input, row, first, columns);
        } else {
            tile::<TILE_ROWS, 1>(weights, input, row, first, columns);
        }
        row += TILE_ROWS;
    }
    while row + 4 <= rows {
        if has_second {
            tile::<4, 2>(weights, input, row, first, columns);
        } else {
            tile::<4, 1>(weights, input, row, first, columns);
        }
        row += 4;
    }
    while row < rows {
        if has_second {
            tile::<1, 2>(weights, input, row, first, columns);
        } else {
            tile::<1, 1>(weights, input, row, first, columns);
        }
        row += 1;
    }
}

/// The sums of `ROWS` rows from `row` on with `PANELS` panels from `panel` on. Each sum runs over
/// the inputs in order, so its value does not depend on the tile that it is part of.
#[inline(always)]
fn tile<const ROWS: usize, const PANELS: usize>(
    weights: &Panels,
    input: &Rows<'_>,
    row: usize,
    panel: usize,
    columns: &Columns<'_>,
) {
    let inputs = weights.inputs;
    let rows: [&[f32]; ROWS] = std::array::from_fn(|ix| &input.row(row + ix)[..inputs]);
    let panels: [&[Lanes]; PANELS] = std::array::from_fn(|ix| weights.panel(panel + ix));
    let mut sums = [[[0.0_f32; LANES]; ROWS]; PANELS];
    for ix in 0..inputs {
        for (panel, sums) in panels.iter().zip(&mut sums) {
            for (row, sums) in rows.iter().zip(sums) {
                for (sum, weight) in sums.iter_mut().zip(&panel[ix]) {
                    *sum = row[ix].mul_add(*weight, *sum);
                }
            }
        }
    }
    for (panel, sums) in sums.iter().enumerate() {
        for (ix, sums) in sums.iter().enumerate() {
            columns.store(row + ix, panel, sums);
        }
    }
}
