//! What rows leave to one another: finding a prefix, adopting it, and giving blocks and states to
//! the index.

use super::{HitLimit, Ledger};
use crate::kv::index::{EntryIx, PartIx};
use crate::kv::{BlockHash, GROUPS_MAX, PageId, StateId};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) blocks: u32,
    pub(super) tokens: u32,
}

impl Ledger {
    /// How much of a sequence of `tokens` tokens would be found.
    #[must_use]
    pub fn lookup(&self, hashes: &[BlockHash], tokens: u32) -> u32 {
        self.hit(hashes, tokens).tokens
    }

    /// Room for a state to be saved by the step that is planned, when there is some to spare.
    /// Whoever takes one gives it to [`Self::index_state`] or back.
    pub fn take_state(&mut self) -> Option<StateId> {
        let bytes = self.layout.state_bytes;
        assert!(bytes > 0, "only recurrent layouts have states");
        if !self.try_make_room(bytes) {
            return None;
        }
        self.used_bytes += bytes;
        Some(self.states_free.pop().unwrap_or_else(|| {
            let state = StateId(self.states_extent);
            self.states_extent += 1;
            state
        }))
    }

    /// The state after the block of this hash was saved. A second one of the same block is dropped.
    pub fn index_state(&mut self, hash: BlockHash, state: StateId) {
        let entry = self.index.find_or_enter(hash);
        let kind = self.index.state_kind();
        if self.index.part(entry, kind).is_some() {
            self.drop_state(state);
        } else {
            self.index.add_state(entry, state.0);
        }
    }

    /// The state was not saved after all.
    pub fn drop_state(&mut self, state: StateId) {
        self.used_bytes -= self.layout.state_bytes;
        self.states_free.push(state);
    }

    /// Whether the state after this block is saved already.
    #[must_use]
    pub fn has_state(&self, hash: BlockHash) -> bool {
        let entry = self.index.find(hash);
        entry.is_some_and(|entry| self.index.part(entry, self.index.state_kind()).is_some())
    }

    /// The longest prefix that every kind of layer can go on from.
    pub(super) fn hit(&self, hashes: &[BlockHash], tokens: u32) -> Hit {
        let block = self.layout.block_tokens;
        let last_token = tokens.saturating_sub(1);
        let is_recurrent = self.layout.state_bytes > 0;
        let blocks_max = match self.limits.hit_limit {
            HitLimit::LastToken if !is_recurrent => tokens / block,
            HitLimit::LastBlock | HitLimit::LastToken => last_token / block,
        };
        let mut best = Hit::default();
        // For each group, how many blocks in a row are there, up to the one looked at.
        let mut runs = [0u32; GROUPS_MAX];
        for (ix, &hash) in (0..blocks_max).zip(hashes) {
            let Some(entry) = self.index.find(hash) else {
                if self.has_full() {
                    break;
                }
                runs.fill(0);
                continue;
            };
            let start = last_token.min((ix + 1) * block);
            let mut is_usable =
                !is_recurrent || self.index.part(entry, self.index.state_kind()).is_some();
            let mut is_broken = false;
            for (group, run) in runs.iter_mut().enumerate().take(self.pools.len()) {
                let is_there = self.index.part(entry, group).is_some();
                *run = if is_there { *run + 1 } else { 0 };
                let needed_from = self.seen_from(group, start) / block;
                is_usable &= *run > ix - needed_from.min(ix);
                is_broken |= !is_there && self.layout.groups[group].window_tokens.is_none();
            }
            if is_broken {
                break;
            }
            if is_usable {
                best = Hit {
                    blocks: ix + 1,
                    tokens: start,
                };
            }
        }
        best
    }

    fn has_full(&self) -> bool {
        let mut groups = self.layout.groups.iter();
        groups.any(|group| group.window_tokens.is_none())
    }

    /// The first position that a query at `position` sees.
    pub(super) fn seen_from(&self, group: usize, position: u32) -> u32 {
        let window = self.layout.groups[group].window_tokens;
        window.map_or(0, |window| (position + 1).saturating_sub(window.get()))
    }

    pub(super) fn adopt(&mut self, slot: u16, hashes: &[BlockHash], start: u32) {
        let block_pages = self.index.block_pages();
        for group in 0..self.pools.len() {
            let table = self.table_ix(slot, group);
            assert!(self.tables[table].is_empty(), "a slot's last row let go");
            let seen = self.seen_from(group, start) / self.layout.page_tokens;
            let pages = u32::try_from(hashes.len()).expect("a hit is bounded") * block_pages;
            let slid = seen.min(pages);
            self.tables[table].resize(slid as usize, PageId::NONE);
            self.slid[table] = slid;
            for ix in slid..pages {
                let hash = hashes[(ix / block_pages) as usize];
                let entry = self.index.find(hash).expect("the hit was found just now");
                let part = self.index.part(entry, group).expect("and is whole");
                let page = self.index.page(part, ix % block_pages);
                assert_eq!(
                    self.pools[group].part(page),
                    part,
                    "a page that was handed out again is in no part"
                );
                if self.pools[group].hold(page) {
                    self.index.page_held(part);
                }
                self.tables[table].push(page);
            }
        }
        self.rows[usize::from(slot)].indexed_blocks =
            u32::try_from(hashes.len()).expect("a hit is bounded");
    }

    pub(super) fn restore(&mut self, hashes: &[BlockHash]) -> Option<StateId> {
        if self.layout.state_bytes == 0 {
            return None;
        }
        let entry = self.index.find(*hashes.last()?)?;
        let part = self.index.part(entry, self.index.state_kind())?;
        self.index.touch(part);
        Some(StateId(self.index.state(part)))
    }

    /// Makes the row's block `ix` findable in each group that still has it whole and in which no
    /// other row was first.
    pub(super) fn donate(&mut self, slot: u16, ix: usize, hash: BlockHash) {
        let block_pages = self.index.block_pages() as usize;
        let pages = ix * block_pages..(ix + 1) * block_pages;
        let mut entry: Option<EntryIx> = self.index.find(hash);
        for group in 0..self.pools.len() {
            if entry.is_some_and(|entry| self.index.part(entry, group).is_some()) {
                continue;
            }
            let pool = &mut self.pools[group];
            let table = &self.tables[usize::from(slot) * self.layout.groups.len() + group];
            let block = &table[pages.clone()];
            let is_own = |&page| page != PageId::NONE && pool.part(page) == PartIx::NONE;
            if !block.iter().all(is_own) {
                continue;
            }
            let into = *entry.get_or_insert_with(|| self.index.enter(hash));
            let part = self.index.add_pages(into, group, block.iter().copied());
            for &page in block {
                pool.enter_part(page, part);
            }
        }
    }
}
