//! The books of one loaded model's keys and values: what each row has reserved and holds, and what is
//! kept for rows to come, all under one grant of bytes.
//!
//! Reservations are made in bytes before pages are taken, so a page that a reservation covers is
//! always there: what nobody holds is forgotten to make room. Rows are named by slot; who a slot
//! belongs to is the scheduler's business.

mod moved;
mod prefix;

pub use moved::TakenIn;

use super::index::{Index, PartIx};
use super::pool::{Let, Pool};
use super::{BlockHash, KvLayout, LayoutError, PageCopy, PageId, StateId};

/// A window's pool may grow to so many times what all rows can hold of it: the rest are pages that
/// slid out and may be found again. It bounds what the pools' storage can come to beyond the grant
/// when the mix of work shifts from one group to another.
const WINDOW_POOL_ROWS: u64 = 2;

/// What a row found when it was admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Leading tokens that need not be computed.
    pub tokens: u32,
    /// The recurrent state after them, to be copied to the row's slot before the step.
    pub restore: Option<StateId>,
}

/// Whether a prompt may be found whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HitLimit {
    /// The last block is computed, if only for its last token: what comes next is drawn from that token's
    /// logits, and logits are not kept.
    LastBlock,
    /// Only the last token is computed; the page that it lies in is copied first. Recurrent layouts
    /// keep to [`Self::LastBlock`]: there is no state one token before a block's end.
    LastToken,
}

/// What the scheduler promises never to exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvLimits {
    pub rows_max: u16,
    /// The most tokens of a row that a step writes.
    pub chunk_tokens: u32,
    /// The same for a row that is alone.
    pub solo_tokens: u32,
    pub hit_limit: HitLimit,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct RowBooks {
    is_live: bool,
    reserved_bytes: u64,
    /// Leading blocks that the index has been told of.
    indexed_blocks: u32,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ledger {
    layout: KvLayout,
    limits: KvLimits,
    rows: Vec<RowBooks>,
    /// By slot, then by group. Capacity stays when a row ends.
    tables: Vec<Vec<PageId>>,
    /// Beside each table: its leading entries that are [`PageId::NONE`].
    slid: Vec<u32>,
    pools: Vec<Pool>,
    index: Index,
    states_extent: u32,
    states_free: Vec<StateId>,
    reserved_bytes: u64,
    /// Pages and states that are held or can be found.
    used_bytes: u64,
}

impl Ledger {
    /// # Errors
    /// The layout contradicts itself.
    pub fn new(layout: KvLayout, limits: KvLimits) -> Result<Self, LayoutError> {
        layout.check()?;
        let groups = layout.groups.len();
        let tables = usize::from(limits.rows_max) * groups;
        let mut ledger = Self {
            limits,
            rows: vec![RowBooks::default(); usize::from(limits.rows_max)],
            tables: vec![Vec::new(); tables],
            slid: vec![0; tables],
            pools: vec![Pool::new(0); groups],
            index: Index::new(groups, layout.block_pages()),
            states_extent: 0,
            states_free: Vec::new(),
            reserved_bytes: 0,
            used_bytes: 0,
            layout,
        };
        ledger.set_limits();
        Ok(ledger)
    }

    #[must_use]
    pub const fn layout(&self) -> &KvLayout {
        &self.layout
    }

    /// The most bytes that a row of `tokens` holds at once.
    #[must_use]
    pub fn bytes(&self, tokens: u32) -> u64 {
        self.bytes_at(tokens, self.limits.chunk_tokens)
    }

    /// The same when a step writes up to `step_tokens` of it.
    #[must_use]
    pub fn bytes_at(&self, tokens: u32, step_tokens: u32) -> u64 {
        self.layout.bytes(tokens, step_tokens)
    }

    /// Reserved by running rows.
    #[must_use]
    pub const fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes
    }

    /// Held by running rows or kept for rows to come.
    #[must_use]
    pub const fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Ids of a group's pages are below this, now and until the next [`Self::resize`].
    #[must_use]
    pub fn pages_max(&self, group: usize) -> u32 {
        let pool = &self.pools[group];
        pool.extent().max(pool.in_use_max() + 1)
    }

    /// Ids of a group's pages handed out so far are below this: the storage that is needed now.
    #[must_use]
    pub fn pages_extent(&self, group: usize) -> u32 {
        self.pools[group].extent()
    }

    /// Ids of saved states handed out so far are below this.
    #[must_use]
    pub const fn states_extent(&self) -> u32 {
        self.states_extent
    }

    /// Logical page `i` covers the row's positions from `i` pages on; [`PageId::NONE`] where a
    /// window has moved on.
    #[must_use]
    pub fn table(&self, slot: u16, group: usize) -> &[PageId] {
        &self.tables[self.table_ix(slot, group)]
    }

    /// Pages that nobody holds are forgotten to meet a smaller grant. What rows hold stays until
    /// they leave.
    pub fn resize(&mut self, grant_bytes: u64) {
        self.layout.grant_bytes = grant_bytes;
        self.set_limits();
        self.reclaim();
        for pool in &mut self.pools {
            pool.trim();
        }
    }

    /// What would still be free of the grant after reserving so much more. `None` when it would not
    /// fit.
    #[must_use]
    pub fn room_after(&self, bytes: u64) -> Option<u64> {
        let reserved = self.reserved_bytes.checked_add(bytes)?;
        self.layout.grant_bytes.checked_sub(reserved)
    }

    /// Raises the row's reservation to `bytes`, if all reservations together fit the grant. An old
    /// reservation that no longer fits is refused as well.
    pub fn reserve(&mut self, slot: u16, bytes: u64) -> bool {
        let row = &self.rows[usize::from(slot)];
        assert!(row.is_live, "a running row reserves");
        let more = bytes.saturating_sub(row.reserved_bytes);
        if self.room_after(more).is_none() {
            return false;
        }
        self.rows[usize::from(slot)].reserved_bytes += more;
        self.reserved_bytes += more;
        assert!(
            self.reserved_bytes <= self.layout.grant_bytes,
            "reservations keep to the grant (INV-08)"
        );
        true
    }

    /// Gives back what the row has reserved above `bytes`, which covers all that it holds.
    pub fn lower(&mut self, slot: u16, bytes: u64) {
        let row = &mut self.rows[usize::from(slot)];
        let less = row.reserved_bytes.saturating_sub(bytes);
        row.reserved_bytes -= less;
        self.reserved_bytes -= less;
    }

    /// A row begins: it gets a reservation, which the caller has seen to fit, and what is found of
    /// its first `tokens` tokens.
    pub fn admit(
        &mut self,
        slot: u16,
        hashes: &[BlockHash],
        tokens: u32,
        reserved_bytes: u64,
    ) -> Adopted {
        let row = &mut self.rows[usize::from(slot)];
        assert!(!row.is_live, "a slot holds one row");
        *row = RowBooks {
            is_live: true,
            ..RowBooks::default()
        };
        let fits = self.reserve(slot, reserved_bytes);
        assert!(fits, "a row is admitted into room that is there");
        let hit = self.hit(hashes, tokens);
        let found = &hashes[..hit.blocks as usize];
        self.adopt(slot, found, hit.tokens);
        // Read before room is made: a state that is forgotten now is not overwritten before the
        // step has begun.
        let restore = self.restore(found);
        self.make_room(self.layout.state_bytes);
        self.used_bytes += self.layout.state_bytes;
        Adopted {
            tokens: hit.tokens,
            restore,
        }
    }

    /// Sees that the row can write its positions `from..to`: takes the pages that are missing and
    /// copies one that must stay as it is. Doing it twice changes nothing.
    pub fn grow(&mut self, slot: u16, from: u32, to: u32, copies: &mut Vec<PageCopy>) {
        assert!(from < to, "a row grows by at least one token");
        let first = (from / self.layout.page_tokens) as usize;
        let pages = to.div_ceil(self.layout.page_tokens) as usize;
        for group in 0..self.pools.len() {
            let table = self.table_ix(slot, group);
            if let Some(&held) = self.tables[table].get(first)
                && let Some(own) = self.own(group, held)
            {
                self.tables[table][first] = own;
                copies.push(PageCopy {
                    group: u8::try_from(group).expect("groups are few"),
                    from: held,
                    to: own,
                });
            }
            while self.tables[table].len() < pages {
                self.make_room_for_page(group);
                let page = self.take_page(group);
                self.tables[table].push(page);
            }
        }
    }

    /// The row's first `computed` tokens are written. Blocks that are whole by now can be found from
    /// here on, and pages that its windows have left are let go.
    pub fn written(&mut self, slot: u16, computed: u32, hashes: &[BlockHash]) {
        let whole = (computed / self.layout.block_tokens) as usize;
        let known = whole.min(hashes.len());
        let indexed = self.rows[usize::from(slot)].indexed_blocks as usize;
        if indexed < known {
            for (ix, &hash) in hashes.iter().enumerate().take(known).skip(indexed) {
                self.donate(slot, ix, hash);
            }
            let known = u32::try_from(known).expect("blocks are fewer than tokens");
            self.rows[usize::from(slot)].indexed_blocks = known;
        }
        for group in 0..self.pools.len() {
            if self.layout.groups[group].window_tokens.is_some() {
                self.slide(slot, group, computed);
            }
        }
    }

    /// Up to so many written tokens a row may go from `computed` in one [`Self::grow`] and one
    /// [`Self::written`] and leave the books as if it had gone token by token: where a window next
    /// takes a page or lets one go.
    #[must_use]
    pub fn steady_until(&self, slot: u16, computed: u32) -> u32 {
        let page = self.layout.page_tokens;
        let mut next = u32::MAX;
        for (group, shape) in self.layout.groups.iter().enumerate() {
            if let Some(window) = shape.window_tokens {
                let slid = self.slid[self.table_ix(slot, group)];
                let lets_go = ((slid + 1) * page).saturating_add(window.get() - 1);
                next = next.min(lets_go.max(computed + 1));
                next = next.min((computed / page + 1).saturating_mul(page));
            }
        }
        next
    }

    /// The row is gone, with its reservation.
    pub fn release(&mut self, slot: u16) {
        let row = core::mem::take(&mut self.rows[usize::from(slot)]);
        assert!(row.is_live, "a row is released once");
        self.reserved_bytes -= row.reserved_bytes;
        self.used_bytes -= self.layout.state_bytes;
        for group in 0..self.pools.len() {
            let table = self.table_ix(slot, group);
            self.slid[table] = 0;
            // Pages are let go from the end, so that the last of a sequence is forgotten first: a
            // beginning is of use without its continuation, and never the other way round.
            while let Some(page) = self.tables[table].pop() {
                if page != PageId::NONE {
                    self.let_go(group, page);
                }
            }
        }
        self.reclaim();
    }

    pub(super) const fn table_ix(&self, slot: u16, group: usize) -> usize {
        slot as usize * self.pools.len() + group
    }

    fn set_limits(&mut self) {
        for (ix, pool) in self.pools.iter_mut().enumerate() {
            let group = &self.layout.groups[ix];
            let by_bytes = self.layout.grant_bytes / group.bytes_per_page;
            let by_rows = group.window_tokens.map_or(u64::MAX, |_| {
                let pages = |step_tokens| self.layout.pages(ix, u32::MAX, step_tokens);
                let rows = u64::from(self.limits.rows_max);
                let company = rows.saturating_mul(pages(self.limits.chunk_tokens));
                let solo = pages(self.limits.solo_tokens);
                company
                    .saturating_mul(WINDOW_POOL_ROWS)
                    .max(company.saturating_add(solo))
            });
            let pages = by_bytes.min(by_rows).min(u64::from(Pool::PAGES_MAX));
            pool.set_in_use_max(u32::try_from(pages).expect("bounded by the line above"));
        }
    }

    /// Lets go of the pages that no query from `computed` on sees.
    fn slide(&mut self, slot: u16, group: usize, computed: u32) {
        let table = self.table_ix(slot, group);
        let seen = self.seen_from(group, computed) / self.layout.page_tokens;
        while self.slid[table] < seen {
            let at = self.slid[table] as usize;
            let page = core::mem::replace(&mut self.tables[table][at], PageId::NONE);
            self.slid[table] += 1;
            self.let_go(group, page);
        }
    }

    /// Exchanges a page that must stay as it is for one that may be written. When there is no room
    /// for a copy of a page that only the index shares, the index forgets it instead.
    fn own(&mut self, group: usize, held: PageId) -> Option<PageId> {
        let part = self.pools[group].part(held);
        let is_shared = self.pools[group].is_shared(held);
        if !is_shared && part == PartIx::NONE {
            return None;
        }
        let bytes = self.layout.groups[group].bytes_per_page;
        let is_full = self.pools[group].is_full() && self.index.oldest(group).is_none();
        if !is_shared && (is_full || !self.try_make_room(bytes)) {
            self.forget(part);
            return None;
        }
        self.make_room_for_page(group);
        let own = self.take_page(group);
        self.let_go(group, held);
        Some(own)
    }

    fn take_page(&mut self, group: usize) -> PageId {
        self.used_bytes += self.layout.groups[group].bytes_per_page;
        self.pools[group].take()
    }

    fn let_go(&mut self, group: usize, page: PageId) {
        match self.pools[group].let_go(page) {
            Let::Free => self.used_bytes -= self.layout.groups[group].bytes_per_page,
            Let::Idle(part) => self.index.page_idle(part),
            Let::Shared => {}
        }
    }

    fn make_room_for_page(&mut self, group: usize) {
        if self.pools[group].is_full() {
            let oldest = self.index.oldest(group);
            let (_, part) = oldest.expect("rows hold less of a window than its pool");
            self.forget(part);
        }
        self.make_room(self.layout.groups[group].bytes_per_page);
    }

    /// Keeps what nobody holds inside the grant.
    fn reclaim(&mut self) {
        // After the grant has shrunk the rows alone may hold more than it; then there is no room to
        // make, and that is no error.
        let _is_inside = self.try_make_room(0);
    }

    fn make_room(&mut self, bytes: u64) {
        let is_made = self.try_make_room(bytes);
        assert!(is_made, "what is reserved is there");
    }

    /// Forgets what went unused the longest until so many bytes are free.
    fn try_make_room(&mut self, bytes: u64) -> bool {
        while self.used_bytes.saturating_add(bytes) > self.layout.grant_bytes {
            let Some(part) = self.index.oldest_of_all() else {
                return false;
            };
            self.forget(part);
        }
        true
    }

    fn forget(&mut self, part: PartIx) {
        let kind = self.index.kind(part);
        if kind == self.index.state_kind() {
            let state = StateId(self.index.state(part));
            self.index.remove(part);
            return self.drop_state(state);
        }
        let before = self.pools[kind].in_use();
        for ix in 0..self.index.block_pages() {
            let page = self.index.page(part, ix);
            self.pools[kind].leave_part(page, part);
        }
        let freed = before - self.pools[kind].in_use();
        self.used_bytes -= u64::from(freed) * self.layout.groups[kind].bytes_per_page;
        self.index.remove(part);
    }
}

#[cfg(test)]
impl Ledger {
    pub(super) fn pool(&self, group: usize) -> &Pool {
        &self.pools[group]
    }

    pub(super) const fn index(&self) -> &Index {
        &self.index
    }

    pub(crate) fn findable_blocks(&self) -> usize {
        self.index.entries()
    }

    pub(super) fn saved_states(&self) -> u64 {
        u64::from(self.states_extent) - self.states_free.len() as u64
    }

    pub(super) fn live_slots(&self) -> impl Iterator<Item = u16> + '_ {
        (0..self.limits.rows_max).filter(|&slot| self.rows[usize::from(slot)].is_live)
    }

    pub(super) fn indexed_blocks(&self, slot: u16) -> u32 {
        self.rows[usize::from(slot)].indexed_blocks
    }

    pub(super) fn reserved_of(&self, slot: u16) -> u64 {
        self.rows[usize::from(slot)].reserved_bytes
    }
}
