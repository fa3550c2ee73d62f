//! What came of a step: tokens are counted, blocks become findable, rows end.

use super::{
    Admission, EndReason, Ended, RowId, RowSlot, Scheduler, StepPlan, occupied, occupied_mut,
};

impl Scheduler {
    /// The step of `plan` was computed. `stopped` names the rows whose newest token ended them (end
    /// of text, stop string); a name that the step gave no token is ignored. Rows that ended are
    /// appended to `out`. Rows cancelled since the plan are passed over.
    pub fn commit(&mut self, plan: &StepPlan, stopped: &[RowId], out: &mut Vec<Ended>) {
        let block = self.kv.layout().block_tokens;
        for save in &plan.saves {
            let hashes = self.live(save.slot, save.row).map(|row| &row.hashes);
            let ix = (save.tokens / block - 1) as usize;
            match hashes.and_then(|hashes| hashes.get(ix)).copied() {
                Some(hash) => self.kv.index_state(hash, save.to),
                None => self.kv.drop_state(save.to),
            }
        }
        for chunk in &plan.prefill {
            let Some(row) = self.live(chunk.slot, chunk.row) else {
                continue;
            };
            assert_eq!(row.computed, chunk.start, "a plan is committed once");
            self.write(chunk.slot, chunk.len);
            if chunk.len > self.config.prefill_chunk_tokens {
                self.lower(chunk.slot);
            }
            if chunk.is_last {
                self.prefilling_count -= 1;
                self.sample(chunk.slot, 1);
            }
        }
        for decode in &plan.decode {
            let Some(row) = self.live(decode.slot, decode.row) else {
                continue;
            };
            assert_eq!(row.computed, decode.position, "a plan is committed once");
            self.write(decode.slot, 1);
            self.sample(decode.slot, 1);
        }
        // After all were written, as in a run of steps: which of two pages was let go first decides
        // which is forgotten first.
        let firsts = plan.prefill.iter().filter(|chunk| chunk.is_last);
        let firsts = firsts.map(|chunk| (chunk.slot, chunk.row));
        let decodes = plan.decode.iter().map(|decode| (decode.slot, decode.row));
        for (slot, row) in firsts.chain(decodes) {
            if self.live(slot, row).is_some() {
                self.end_if_due(slot, stopped, out);
            }
        }
    }

    /// The step of `plan` was not computed, or not to its end. Nothing of it counts; rows that it
    /// preempted stay so. What its rows' slots and pages hold is unknown, so the caller cancels each
    /// row of the plan before the next.
    pub fn abandon(&mut self, plan: &StepPlan) {
        for save in &plan.saves {
            self.kv.drop_state(save.to);
        }
    }

    /// How many steps of plain decode lie ahead: nothing can be admitted, no prompt is unfinished,
    /// no row reaches its bound before the last of them, none must leave, and no state is saved.
    /// `None` when the next step is not plain decode.
    #[must_use]
    pub fn steps_until_change(&self) -> Option<u32> {
        if self.prefilling_count > 0 || self.can_admit() {
            return None;
        }
        let mut steps = u32::MAX;
        let mut decoding = 0;
        for &slot in &self.order {
            let row = occupied(&self.rows, slot);
            if !row.is_paused {
                decoding += 1;
                steps = steps.min(row.remaining());
                if let Some(at) = self.next_checkpoint(row) {
                    steps = steps.min(at - row.computed - 1);
                }
            }
        }
        if decoding == 0 {
            return None;
        }
        let steps = steps.min(self.steps_in_room(decoding));
        (steps > 0).then_some(steps)
    }

    /// Computes `steps` decode steps at once: the same as that many plans and commits, of which only
    /// the last may end rows. `stopped` names the rows that the last token ended. A row that came
    /// meanwhile enters by the next plan, so the caller lets the macro step end with the step during
    /// which it came.
    pub fn advance_decode(&mut self, steps: u32, stopped: &[RowId], out: &mut Vec<Ended>) {
        assert!(steps > 0, "a macro step has a last step");
        for ix in 0..self.order.len() {
            self.check_advance(self.order[ix], steps);
        }
        let mut left = steps;
        while left > 0 {
            let together = self.steady_steps().min(left);
            self.write_all(together);
            left -= together;
        }
        // Rows end only here, after all have written: in a single step, too, nobody gives back a
        // page before all have taken theirs.
        let mut ix = 0;
        while let Some(&slot) = self.order.get(ix) {
            let is_paused = occupied(&self.rows, slot).is_paused;
            if is_paused || !self.end_if_due(slot, stopped, out) {
                ix += 1;
            }
        }
    }

    fn check_advance(&mut self, slot: RowSlot, steps: u32) {
        let row = occupied(&self.rows, slot);
        assert!(!row.is_prefilling(), "only plain decode is advanced");
        if row.is_paused {
            return;
        }
        assert!(
            steps <= row.remaining(),
            "no row runs past its bound inside a macro step"
        );
        if let Admission::Optimistic { .. } = self.config.admission {
            let bytes = self.kv.bytes(row.computed + steps);
            let is_reserved = self.kv.reserve(slot.0, bytes);
            assert!(is_reserved, "no row outgrows the room inside a macro step");
        }
    }

    /// Steps in which no window of any row takes a page or lets one go, but at their ends.
    fn steady_steps(&self) -> u32 {
        let steps = self.order.iter().map(|&slot| {
            let computed = occupied(&self.rows, slot).computed;
            self.kv.steady_until(slot.0, computed) - computed
        });
        steps.min().unwrap_or(u32::MAX)
    }

    fn write_all(&mut self, steps: u32) {
        let mut copies = Vec::new();
        for &slot in &self.order {
            let row = occupied(&self.rows, slot);
            if row.is_decoding() {
                let to = row.computed + steps;
                self.kv.grow(slot.0, row.computed, to, &mut copies);
            }
        }
        assert!(copies.is_empty(), "a decoding row writes its own pages");
        for ix in 0..self.order.len() {
            let slot = self.order[ix];
            if occupied(&self.rows, slot).is_decoding() {
                self.write(slot, steps);
                self.sample(slot, steps);
            }
        }
    }

    /// Steps for which all rows find room without another's leaving, at least.
    fn steps_in_room(&self, decoding: u64) -> u32 {
        let room = self.kv.room_after(0);
        if self.config.admission == Admission::WorstCase {
            // Each row has reserved its memory to the end, so all steps have room, unless the grant
            // shrank below what is reserved.
            return room.map_or(0, |_| u32::MAX);
        }
        let layout = self.kv.layout();
        let page_of_all: u64 = layout.groups.iter().map(|group| group.bytes_per_page).sum();
        let Some(pages) = room
            .unwrap_or(0)
            .checked_div(page_of_all.saturating_mul(decoding))
        else {
            return u32::MAX;
        };
        let page = u64::from(layout.page_tokens);
        let steps = self.order.iter().filter_map(|&slot| {
            let row = occupied(&self.rows, slot);
            let held = u64::from(row.computed).div_ceil(page);
            let tokens = (held + pages) * page - u64::from(row.computed);
            (!row.is_paused).then_some(tokens)
        });
        let steps = steps.min().unwrap_or(0);
        u32::try_from(steps).unwrap_or(u32::MAX)
    }

    /// A stripe is behind the row, and its windows have slid: it needs what any row needs.
    fn lower(&mut self, slot: RowSlot) {
        let row = occupied(&self.rows, slot);
        let tokens = self.reserved_tokens(row, row.tokens());
        self.kv.lower(slot.0, self.kv.bytes(tokens));
    }

    /// So many more tokens of the row are written.
    fn write(&mut self, slot: RowSlot, len: u32) {
        let row = occupied_mut(&mut self.rows, slot);
        row.computed += len;
        self.kv.written(slot.0, row.computed, &row.hashes);
        self.context_tokens_live += u64::from(len);
    }

    fn sample(&mut self, slot: RowSlot, count: u32) {
        occupied_mut(&mut self.rows, slot).generated += count;
    }

    /// Ends the row in `slot` when its newest token was its last, and says whether it did.
    fn end_if_due(&mut self, slot: RowSlot, stopped: &[RowId], out: &mut Vec<Ended>) -> bool {
        let row = occupied(&self.rows, slot);
        let reason = if stopped.contains(&row.ask.id) {
            EndReason::Stopped
        } else if row.remaining() == 0 {
            EndReason::LimitReached
        } else {
            return false;
        };
        let row = self.remove(slot);
        out.push(Ended {
            row: row.ask.id,
            slot,
            generated: row.generated,
            reason,
        });
        self.recycle(row);
        true
    }

    /// The row that a plan meant, unless it ended since.
    fn live(&self, slot: RowSlot, id: RowId) -> Option<&super::Row> {
        let row = self.rows.get(usize::from(slot.0))?.as_ref();
        row.filter(|row| row.ask.id == id)
    }
}
