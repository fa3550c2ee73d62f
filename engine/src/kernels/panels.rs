//! Products with a weight matrix that was packed once, when the model was loaded.
//!
//! A BLAS packs its operands at each call, which costs more than the product when few rows are
//! multiplied, as in decode. Here the weights lie as the inner loop reads them: for sixteen outputs
//! the sixteen weights of each input together. A product of eight rows with two such panels keeps
//! its sixteen sums in registers, reads each weight once and streams through memory in order.
#![allow(unsafe_code, reason = "threads write disjoint columns of one output")]

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::vectors::arch;
use super::{LANES, Lanes, Rows, crew};

/// Work for one thread is not cut finer than this many multiplications: about ten microseconds.
pub(super) const GRAIN: usize = 500_000;
/// Input numbers that are multiplied by all weights before the next: they stay in a core's second
/// cache, beside the weights that pass by.
const BLOCK: usize = 131_072;
/// Rows of the largest tile.
const TILE_ROWS: usize = 8;

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
        let block_rows = self.rows_at_once(rows);
        let pairs = self.pairs();
        let pairs_together = GRAIN.div_ceil(self.work_of_pair(block_rows));
        let parts = pairs.div_ceil(pairs_together);
        let arch = arch();
        let sheet = Sheet::new(output, self.outputs);
        // Block after block, so that threads share one.
        crew::for_each(rows.div_ceil(block_rows) * parts, &|ix| {
            let first_row = ix / parts * block_rows;
            let first_pair = ix % parts * pairs_together;
            for pair in first_pair..(first_pair + pairs_together).min(pairs) {
                arch.dispatch(Product {
                    weights: self,
                    pair,
                    input,
                    rows: first_row..(first_row + block_rows).min(rows),
                    target: Target {
                        sheet: &sheet,
                        first_row: 0,
                        column: pair * 2 * LANES,
                    },
                });
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

    /// Pairs of panels: what one product computes.
    pub(super) fn pairs(&self) -> usize {
        self.outputs.div_ceil(2 * LANES)
    }

    /// How many of `rows` rows are multiplied by all weights before the next.
    pub(super) fn rows_at_once(&self, rows: usize) -> usize {
        (BLOCK / self.inputs).next_multiple_of(TILE_ROWS).min(rows)
    }

    /// Multiplications of some rows with one pair.
    pub(super) fn work_of_pair(&self, rows: usize) -> usize {
        2 * LANES * self.inputs * rows
    }

    fn panel_count(&self) -> usize {
        self.packed.len() / self.inputs
    }

    fn panel(&self, ix: usize) -> &[Lanes] {
        &self.packed[ix * self.inputs..][..self.inputs]
    }
}

/// An output that threads fill, each its own columns.
pub(super) struct Sheet<'a> {
    start: *mut f32,
    rows: usize,
    width: usize,
    output: PhantomData<&'a mut [f32]>,
}

// SAFETY: threads write through it to columns of their own only, see `Target`.
unsafe impl Sync for Sheet<'_> {}

impl<'a> Sheet<'a> {
    /// `output` in rows of `width`.
    pub(super) fn new(output: &'a mut [f32], width: usize) -> Self {
        Self {
            start: output.as_mut_ptr(),
            rows: output.len() / width,
            width,
            output: PhantomData,
        }
    }
}

/// The columns of some of a sheet's rows that one product fills. No two that live at once have a
/// place in common.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) sheet: &'a Sheet<'a>,
    pub(super) first_row: usize,
    pub(super) column: usize,
}

impl Target<'_> {
    /// Stores sums of one row from `column` on, as far as the output is wide.
    #[inline(always)]
    pub(super) fn store(&self, row: usize, column: usize, sums: &[f32]) {
        let column = self.column + column;
        let row = self.first_row + row;
        let width = self.sheet.width;
        let count = sums.len().min(width.saturating_sub(column));
        assert!(row < self.sheet.rows);
        if count > 0 {
            // SAFETY: row and columns lie inside the output, and no other target has these places.
            unsafe {
                let place = self.sheet.start.add(row * width + column);
                std::ptr::copy_nonoverlapping(sums.as_ptr(), place, count);
            }
        }
    }
}

/// Where a product finds its rows.
pub(super) trait Source {
    fn row(&self, ix: usize) -> &[f32];
}

impl Source for Rows<'_> {
    #[inline(always)]
    fn row(&self, ix: usize) -> &[f32] {
        Rows::row(self, ix)
    }
}

/// The products of some rows with one pair of panels.
pub(super) struct Product<'a, R> {
    pub(super) weights: &'a Panels,
    pub(super) pair: usize,
    pub(super) input: &'a R,
    pub(super) rows: Range<usize>,
    pub(super) target: Target<'a>,
}

impl<R: Source> WithSimd for Product<'_, R> {
    type Output = ();

    /// As many sums at once as the machine has registers for, less some for weights: sixteen of
    /// thirty-two where vectors hold sixteen numbers, twelve of sixteen where they hold eight. What
    /// is left of the rows then reads the weights once more, not row by row.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Range {
            start: mut row,
            end: rows,
        } = self.rows;
        if S::F32_LANES == LANES {
            while row + TILE_ROWS <= rows {
                self.strip::<S, TILE_ROWS>(simd, row);
                row += TILE_ROWS;
            }
            match rows - row {
                7 => self.strip::<S, 7>(simd, row),
                6 => self.strip::<S, 6>(simd, row),
                5 => self.strip::<S, 5>(simd, row),
                4 => self.strip::<S, 4>(simd, row),
                3 => self.strip::<S, 3>(simd, row),
                2 => self.strip::<S, 2>(simd, row),
                1 => self.strip::<S, 1>(simd, row),
                _ => {}
            }
            return;
        }
        while row + 3 <= rows {
            self.strip::<S, 3>(simd, row);
            row += 3;
        }
        match rows - row {
            2 => self.strip::<S, 2>(simd, row),
            1 => self.strip::<S, 1>(simd, row),
            _ => {}
        }
    }
}

impl<R: Source> Product<'_, R> {
    /// The sums of `ROWS` rows with the whole pair.
    #[inline(always)]
    fn strip<S: Simd, const ROWS: usize>(&self, simd: S, row: usize) {
        // No closure around the tile: it would be compiled without the machine's vectors.
        for vector in (0..2 * LANES / S::F32_LANES).step_by(2) {
            self.tile::<S, ROWS, 2>(simd, row, vector);
        }
    }

    /// The sums of `ROWS` rows with `VECTORS` vectors of outputs from the pair's `vector` on. Each
    /// sum runs over the inputs in order, so its value does not depend on the tile that it is in.
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &self,
        simd: S,
        row: usize,
        vector: usize,
    ) {
        let inputs = self.weights.inputs;
        let rows: [&[f32]; ROWS] = std::array::from_fn(|ix| &self.input.row(row + ix)[..inputs]);
        let places: [usize; VECTORS] = std::array::from_fn(|ix| (vector + ix) * S::F32_LANES);
        let first = 2 * self.pair;
        // The last panel has no neighbour: what stands for it is computed and not stored.
        let last = self.weights.panel_count() - 1;
        let panels: [&[Lanes]; VECTORS] = std::array::from_fn(|ix| {
            let panel = (first + places[ix] / LANES).min(last);
            &self.weights.panel(panel)[..inputs]
        });
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
        for input in 0..inputs {
            let weights: [S::f32s; VECTORS] = std::array::from_fn(|ix| {
                let (vectors, _) = S::as_simd_f32s(&panels[ix][input]);
                vectors[places[ix] % LANES / S::F32_LANES]
            });
            for row in 0..ROWS {
                let x = simd.splat_f32s(rows[row][input]);
                for ix in 0..VECTORS {
                    sums[row][ix] = simd.mul_add_f32s(x, weights[ix], sums[row][ix]);
                }
            }
        }
        for (ix, sums) in sums.into_iter().enumerate() {
            for (place, sum) in places.into_iter().zip(sums) {
                let mut lanes: Lanes = [0.0; LANES];
                let (vectors, _) = S::as_mut_simd_f32s(&mut lanes);
                vectors[0] = sum;
                self.target.store(row + ix, place, &lanes[..S::F32_LANES]);
            }
        }
    }
}
