//! The next step: who decodes, whose prompt goes on, who enters, and who must leave for them.

use super::{
    Admitted, Decode, Preempted, Prefill, Restore, Row, RowSlot, Save, Scheduler, StepPlan,
    occupied, occupied_mut,
};

/// Whether the rows that run were all looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Running {
    Planned,
    /// A row had to make room for those planned before it, and with it the rest waits.
    Stopped,
}

impl Scheduler {
    /// Admits what fits and writes the next step into `out` (which is cleared). A plan that computes
    /// nothing means that there is nothing to do until the next call of another method, unless rows
    /// were preempted by it. A plan is committed or abandoned before the next; only plain decode may
    /// be [advanced](Self::advance_decode) instead.
    pub fn plan(&mut self, out: &mut StepPlan) {
        out.clear();
        let chunk = if self.is_solo() {
            self.config.solo_prefill_tokens
        } else {
            self.config.prefill_chunk_tokens
        };
        let mut running = self.plan_decodes(out);
        if running == Running::Planned && self.prefilling_count > 0 {
            running = self.plan_prefills(chunk, out);
        }
        if out.preempted.is_empty() {
            assert_eq!(running, Running::Planned, "who stops was preempted");
            self.plan_waiting(chunk, out);
        }
        if self.kv.layout().state_bytes > 0 {
            self.plan_saves(out);
        }
    }

    /// Whether a [`Self::plan`] would admit the first of the waiting rows, as far as room goes.
    pub(super) fn can_admit(&self) -> bool {
        !self.free.is_empty()
            && (self.waiting.iter().find(|row| !row.is_paused))
                .is_some_and(|row| self.admission_bytes(row).is_some())
    }

    /// Where the row's next checkpoint lies, if its layout and its names let it have one.
    pub(super) fn next_checkpoint(&self, row: &Row) -> Option<u32> {
        if self.kv.layout().state_bytes == 0 || row.hashes.is_empty() {
            return None;
        }
        let block = self.kv.layout().block_tokens;
        let every = block.saturating_mul(self.config.checkpoint_blocks.get());
        let regular = (row.computed / every + 1).saturating_mul(every);
        // Up to this block the same prompt will be found when it is asked again, so a state is
        // saved there.
        let last = (row.prefill_end - 1) / block * block;
        Some(if last > row.computed {
            regular.min(last)
        } else {
            regular
        })
    }

    /// One row, with a prompt to compute, and nobody to hold up.
    fn is_solo(&self) -> bool {
        if self.order.len() + self.waiting.len() != 1 {
            return false;
        }
        let running = self.order.first().map(|&slot| occupied(&self.rows, slot));
        let only = running.or_else(|| self.waiting.front());
        only.is_some_and(|row| row.is_prefilling() && !row.is_paused)
    }

    fn plan_decodes(&mut self, out: &mut StepPlan) -> Running {
        let mut ix = 0;
        while let Some(&slot) = self.order.get(ix) {
            let row = occupied(&self.rows, slot);
            if row.is_decoding() {
                let (id, position) = (row.ask.id, row.computed);
                assert_eq!(position + 1, row.tokens(), "only the newest is not written");
                if !self.secure(slot, position + 1, 1, out) {
                    return Running::Stopped;
                }
                self.kv
                    .grow(slot.0, position, position + 1, &mut out.copies);
                out.decode.push(Decode {
                    row: id,
                    slot,
                    position,
                });
                ix = self.place(slot, ix, out);
            }
            ix += 1;
        }
        Running::Planned
    }

    fn plan_prefills(&mut self, chunk: u32, out: &mut StepPlan) -> Running {
        let mut ix = 0;
        while let Some(&slot) = self.order.get(ix) {
            let row = occupied(&self.rows, slot);
            let len_max = chunk.min(self.prefill_room(out));
            if len_max == 0 {
                break;
            }
            if row.is_prefilling() && !row.is_paused {
                let mut len = self.piece(row, len_max);
                let start = row.computed;
                let plain = self.config.prefill_chunk_tokens;
                // A row alone takes a long piece. If there is no memory for that, a piece of plain
                // length is tried before anybody is preempted.
                if len > plain && !self.can_grow(slot, start + len, len) {
                    len = plain;
                }
                if !self.secure(slot, start + len, len, out) {
                    return Running::Stopped;
                }
                self.push_prefill(slot, len, out);
                ix = self.place(slot, ix, out);
            }
            ix += 1;
        }
        Running::Planned
    }

    fn plan_waiting(&mut self, chunk: u32, out: &mut StepPlan) {
        let is_last = |prefill: &&Prefill| prefill.is_last;
        let finishing = out.prefill.iter().filter(is_last).count();
        let prefilling = self.order.iter().filter(|&&slot| {
            let row = occupied(&self.rows, slot);
            row.is_prefilling() && !row.is_paused
        });
        let mut partial = prefilling.count() - finishing;
        while partial < usize::from(self.config.partial_prefills_max) && !self.free.is_empty() {
            let len_max = chunk.min(self.prefill_room(out));
            if len_max == 0 {
                break;
            }
            let Some(place) = self.waiting.iter().position(|row| !row.is_paused) else {
                break;
            };
            // The head blocks the rest: nobody overtakes, so nobody starves.
            let Some(bytes) = self.admission_bytes(&self.waiting[place]) else {
                break;
            };
            let slot = self.admit(place, bytes, out);
            let row = occupied(&self.rows, slot);
            let mut len = self.piece(row, len_max);
            let end = row.computed + len;
            if !self.can_grow(slot, end, len) {
                len = len.min(self.config.prefill_chunk_tokens);
            }
            self.push_prefill(slot, len, out);
            let newest = out.prefill.last().expect("just pushed");
            partial += usize::from(!newest.is_last);
        }
    }

    /// Saved states come last: they take what the rows leave.
    fn plan_saves(&mut self, out: &mut StepPlan) {
        let block = self.kv.layout().block_tokens;
        let prefills = out.prefill.iter().map(|chunk| (chunk.slot, chunk.len));
        let decodes = out.decode.iter().map(|decode| (decode.slot, 1));
        for (slot, len) in prefills.chain(decodes) {
            let row = occupied(&self.rows, slot);
            let tokens = row.computed + len;
            if self.next_checkpoint(row) != Some(tokens) {
                continue;
            }
            let hash = row.hashes.get((tokens / block - 1) as usize);
            let Some(&hash) = hash.filter(|&&hash| !self.kv.has_state(hash)) else {
                continue;
            };
            let same = |save: &&Save| {
                let other = occupied(&self.rows, save.slot);
                other.hashes.get((save.tokens / block - 1) as usize) == Some(&hash)
            };
            if out.saves.iter().any(|save| same(&save)) {
                continue;
            }
            let Some(to) = self.kv.take_state() else {
                return;
            };
            out.saves.push(Save {
                row: row.ask.id,
                slot,
                tokens,
                to,
            });
        }
    }

    /// What a row reserves when it enters; `None` when it cannot now.
    fn admission_bytes(&self, row: &Row) -> Option<u64> {
        // A prompt is begun only where it can be ended, or it would be computed for nothing.
        let bytes = self.kv.bytes(self.reserved_tokens(row, row.tokens()));
        let room = self.kv.room_after(bytes)?;
        (room >= self.held_back_bytes()).then_some(bytes)
    }

    fn admit(&mut self, place: usize, bytes: u64, out: &mut StepPlan) -> RowSlot {
        let mut row = self.take_waiting(place);
        let slot = self.free.pop().expect("the caller saw a free slot");
        row.prefill_end = row.tokens();
        let adopted = self.kv.admit(slot.0, &row.hashes, row.tokens(), bytes);
        row.computed = adopted.tokens;
        row.cached.get_or_insert(adopted.tokens);
        self.context_tokens_live += u64::from(adopted.tokens);
        self.prefilling_count += 1;
        self.order.push(slot);
        out.admitted.push(Admitted {
            row: row.ask.id,
            slot,
            cached_tokens: adopted.tokens,
        });
        if let Some(from) = adopted.restore {
            out.restores.push(Restore { slot, from });
        }
        self.rows[usize::from(slot.0)] = Some(row);
        slot
    }

    fn push_prefill(&mut self, slot: RowSlot, len: u32, out: &mut StepPlan) {
        let row = occupied_mut(&mut self.rows, slot);
        let start = row.computed;
        self.kv.grow(slot.0, start, start + len, &mut out.copies);
        out.prefill.push(Prefill {
            row: row.ask.id,
            slot,
            start,
            len,
            is_last: start + len == row.prefill_end,
        });
    }

    /// Prefill tokens that the step still has room for.
    fn prefill_room(&self, out: &StepPlan) -> u32 {
        let decoding = u32::try_from(out.decode.len()).expect("rows are counted in u16");
        let prefill: u32 = out.prefill.iter().map(|chunk| chunk.len).sum();
        let solo = self.config.solo_prefill_tokens;
        let budget = if decoding == 0 && self.is_solo() {
            self.config.step_token_budget.max(solo)
        } else {
            self.config.step_token_budget
        };
        let room = (budget - decoding).saturating_sub(prefill);
        match self.config.mixed_prefill_tokens_max {
            Some(quota) if decoding > 0 => room.min(quota.get().saturating_sub(prefill)),
            Some(_) | None => room,
        }
    }

    /// How much of the row's prompt goes in, up to `len_max`: a state is saved where a piece ends.
    fn piece(&self, row: &Row, len_max: u32) -> u32 {
        let len = row.prefill_left().min(len_max);
        let checkpoint = self.next_checkpoint(row);
        checkpoint.map_or(len, |at| len.min(at - row.computed))
    }

    /// Reserves what the row needs for a step that writes `len` of its tokens, up to `tokens`.
    fn can_grow(&mut self, slot: RowSlot, tokens: u32, len: u32) -> bool {
        let len = len.max(self.config.prefill_chunk_tokens);
        // Where all was reserved at its admission, it is asked again because the grant may have shrunk.
        let tokens = self.reserved_tokens(occupied(&self.rows, slot), tokens);
        self.kv.reserve(slot.0, self.kv.bytes_at(tokens, len))
    }

    /// Reserves what the row needs, preempting others for it. `false` when it had to leave itself.
    fn secure(&mut self, slot: RowSlot, tokens: u32, len: u32, out: &mut StepPlan) -> bool {
        while !self.can_grow(slot, tokens, len) {
            let victim = self.victim();
            self.preempt(victim, out);
            if victim == slot {
                return false;
            }
        }
        true
    }

    /// The lowest priority; among equals, who came last.
    fn victim(&self) -> RowSlot {
        let key = |slot: &RowSlot| {
            let row = occupied(&self.rows, *slot);
            (row.ask.priority, core::cmp::Reverse(row.arrival))
        };
        let victim = self.order.iter().copied().min_by_key(key);
        victim.expect("a row that asks for room runs")
    }

    fn preempt(&mut self, slot: RowSlot, out: &mut StepPlan) {
        let mut row = self.remove(slot);
        row.computed = 0;
        row.has_left = true;
        out.decode.retain(|decode| decode.slot != slot);
        out.prefill.retain(|chunk| chunk.slot != slot);
        out.preempted.push(Preempted {
            row: row.ask.id,
            slot,
        });
        self.wait(row);
    }

    /// Where `slot` stands now in the order; rows before it may have left.
    fn place(&self, slot: RowSlot, ix: usize, out: &StepPlan) -> usize {
        if out.preempted.is_empty() {
            return ix;
        }
        let place = self.order.iter().position(|&other| other == slot);
        place.expect("a row that was secured runs")
    }
}
