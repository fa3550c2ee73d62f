//! Recurrent states: one for each slot, and copies that are kept.

use mlx_rs::Array;
use mlx_rs::error::Exception;
use mlx_rs::ops::concatenate;
use mlx_rs::ops::indexing::TryIndexOp;

use super::PagedStep;
use crate::kv::StateId;
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

    /// Each row by itself, from its own state.
    pub(super) fn run(
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
            if row.start == 0 {
                *state = None;
            }
            let run = layer.run(&input, state.as_ref())?;
            *state = Some(run.state);
            outputs.push(run.output);
            first = end;
        }
        concatenate(&outputs, 1)
    }
}
