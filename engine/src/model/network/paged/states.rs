//! Recurrent states: one for each slot, and copies that are kept.

use std::sync::Arc;

use mlx_rs::Array;
use mlx_rs::error::Exception;
use mlx_rs::ops::concatenate;
use mlx_rs::ops::indexing::TryIndexOp;

use super::PagedStep;
use crate::kernels::{self, DeltaRows, DeltaSpan, Rows};
use crate::kv::StateId;
use crate::model::host;
use crate::model::network::delta::{DeltaInput, DeltaState, GatedDelta};
use crate::model::network::rows::token_count;

/// By store; absent where a layer has none, and before a row's first token.
type SlotStates = Vec<Option<DeltaState>>;

#[derive(Debug)]
pub(super) struct States {
    store_count: usize,
    slots: Vec<SlotStates>,
    kept: Vec<SlotStates>,
}

impl States {
    pub(super) const fn new(store_count: usize) -> Self {
        Self {
            store_count,
            slots: vec![],
            kept: vec![],
        }
    }

    /// Arrays are never changed in place, so a copy is a second holder.
    pub(super) fn save(&mut self, slot: u16, to: StateId) {
        let state = self.slot(slot).clone();
        let to = to.0 as usize;
        if to >= self.kept.len() {
            self.kept.resize(to + 1, vec![]);
        }
        self.kept[to] = state;
    }

    pub(super) fn restore(&mut self, slot: u16, from: StateId) {
        let state = self.kept[from.0 as usize].clone();
        *self.slot(slot) = state;
    }

    pub(super) fn release(&mut self, slot: u16) {
        self.slot(slot).fill(None);
    }

    pub(super) fn arrays(&self, slot: u16) -> impl Iterator<Item = &Array> {
        let states = self.slots.get(usize::from(slot)).into_iter().flatten();
        let states = states.flatten();
        states.flat_map(|state| [&state.tail, &state.matrix])
    }

    fn slot(&mut self, slot: u16) -> &mut SlotStates {
        let slot = usize::from(slot);
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, vec![None; self.store_count]);
        }
        &mut self.slots[slot]
    }

    /// Each row from its own state.
    pub(super) fn run(
        &mut self,
        layer: &GatedDelta,
        input: &DeltaInput,
        rows: &[PagedStep<'_>],
    ) -> Result<Array, Exception> {
        for row in rows.iter().filter(|row| row.start == 0) {
            self.slot(row.slot)[layer.store] = None;
        }
        match &layer.on_host {
            Some(kernel) => self.run_together(kernel, layer, input, rows),
            None => self.run_each(layer, input, rows),
        }
    }

    fn run_each(
        &mut self,
        layer: &GatedDelta,
        input: &DeltaInput,
        rows: &[PagedStep<'_>],
    ) -> Result<Array, Exception> {
        let mut outputs = Vec::with_capacity(rows.len());
        let mut first = 0;
        for row in rows {
            let end = first + token_count(row.tokens.len());
            let own = |packed: &Array| packed.try_index((.., first..end));
            let input = DeltaInput {
                mixed: own(&input.mixed)?,
                decay: own(&input.decay)?,
                write: own(&input.write)?,
            };
            let state = &mut self.slot(row.slot)[layer.store];
            let run = layer.run(&input, state.as_ref())?;
            *state = Some(run.state);
            outputs.push(run.output);
            first = end;
        }
        concatenate(&outputs, 1)
    }

    /// All rows by one kernel.
    fn run_together(
        &mut self,
        kernel: &Arc<kernels::Delta>,
        layer: &GatedDelta,
        input: &DeltaInput,
        rows: &[PagedStep<'_>],
    ) -> Result<Array, Exception> {
        let shape = &layer.shape;
        let output = [1, input.mixed.dim(1), shape.value_width()];
        let tail = [1, shape.kernel - 1, shape.mixed_width()];
        let matrix = [1, shape.value_heads, shape.value_dim, shape.key_dim];
        let mut before = Vec::with_capacity(rows.len());
        for row in rows {
            before.push(self.slot(row.slot)[layer.store].take());
        }
        let mut inputs = vec![&input.mixed, &input.decay, &input.write];
        let mut shapes = vec![&output[..]];
        for state in &before {
            inputs.extend(state.iter().flat_map(|state| [&state.tail, &state.matrix]));
            shapes.extend([&tail[..], &matrix[..]]);
        }
        let counts = rows.iter().zip(&before);
        let run = Run {
            kernel: Arc::clone(kernel),
            rows: counts
                .map(|(row, before)| (row.tokens.len(), before.is_some()))
                .collect(),
        };
        let mut made = host::apply(&inputs, &shapes, run)?.into_iter();
        let output = made.next();
        for row in rows {
            let (tail, matrix) = made.next().zip(made.next()).expect("as asked");
            self.slot(row.slot)[layer.store] = Some(DeltaState { tail, matrix });
        }
        Ok(output.expect("as asked"))
    }
}

struct Run {
    kernel: Arc<kernels::Delta>,
    /// Tokens of each, and whether it has a state.
    rows: Vec<(usize, bool)>,
}

impl host::Kernel for Run {
    fn run(&self, inputs: &[Rows<'_>], outputs: &mut [&mut [f32]]) {
        let [mixed, decay, write, states @ ..] = inputs else {
            unreachable!("a recurrent layer is given three arrays, and states");
        };
        let [output, after @ ..] = outputs else {
            unreachable!("it is asked for its output, and states");
        };
        let mut states = states.chunks_exact(2);
        let mut first = 0;
        let mut spans = Vec::with_capacity(self.rows.len());
        for ((count, has_state), after) in self.rows.iter().zip(after.chunks_exact_mut(2)) {
            let before = has_state.then(|| {
                let state = states.next().expect("a state for each row that has one");
                kernels::DeltaState {
                    tail: state[0],
                    matrix: state[1],
                }
            });
            let [tail, matrix] = after else {
                unreachable!("a state is two arrays");
            };
            spans.push(DeltaSpan {
                first,
                count: *count,
                before,
                tail,
                matrix,
            });
            first += count;
        }
        let rows = DeltaRows {
            mixed: *mixed,
            decay: *decay,
            write: *write,
        };
        self.kernel.run(&rows, &mut spans, output);
    }
}
