//! Blocks that are kept elsewhere as well: where one lies that can be found, and room for those that
//! come back.

use super::Ledger;
use crate::kv::index::PartIx;
use crate::kv::{BlockHash, PageId};

/// The one group of a layout whose blocks move.
const GROUP: usize = 0;

/// A block that was taken in. It can be found from now on, and its pages hold nothing yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TakenIn {
    /// Its place in the chain.
    pub ix: usize,
    /// In the order of their positions.
    pub pages: Vec<PageId>,
}

impl Ledger {
    /// How many blocks of a chain, from the first, can be found.
    #[must_use]
    pub fn found(&self, chain: &[BlockHash]) -> usize {
        let is_found = |hash: &&BlockHash| self.part_of(**hash).is_some();
        chain.iter().take_while(is_found).count()
    }

    /// Where a block lies, if it can be found, in the order of its positions.
    ///
    /// # Panics
    /// The layout's blocks do not move ([`KvLayout::is_full_attention`](crate::kv::KvLayout)).
    #[must_use]
    pub fn block(&self, hash: BlockHash) -> Option<Vec<PageId>> {
        assert!(
            self.layout.is_full_attention(),
            "only blocks of full attention move"
        );
        let part = self.part_of(hash)?;
        let pages = 0..self.index.block_pages();
        Some(pages.map(|ix| self.index.page(part, ix)).collect())
    }

    /// Makes room for the blocks of `chain` from `from` on, as far as there is some that nobody holds
    /// and that was not used since: other blocks of this chain stay. The caller fills the pages before
    /// the next step, or has the blocks forgotten. Those that can be found are passed over.
    ///
    /// # Panics
    /// As [`Self::block`].
    pub fn take_in(&mut self, chain: &[BlockHash], from: usize) -> Vec<TakenIn> {
        assert!(
            self.layout.is_full_attention(),
            "only blocks of full attention move"
        );
        let newest = self.index.stamp();
        self.refresh(&chain[..from]);
        let mut taken = Vec::new();
        let mut end = from;
        for (ix, &hash) in chain.iter().enumerate().skip(from) {
            if self.part_of(hash).is_some() {
                self.refresh(&[hash]);
            } else if self.make_room_for_block(newest) {
                let pages = self.take_block(hash);
                taken.push(TakenIn { ix, pages });
            } else {
                break;
            }
            end = ix + 1;
        }
        self.refresh(&chain[..end]);
        taken
    }

    /// The block cannot be found any more, whoever holds it.
    pub fn forget_block(&mut self, hash: BlockHash) {
        if let Some(part) = self.part_of(hash) {
            self.forget(part);
        }
    }

    fn part_of(&self, hash: BlockHash) -> Option<PartIx> {
        self.index.part(self.index.find(hash)?, GROUP)
    }

    /// The blocks are the most recently used, the first most of all: a prefix is of use without its
    /// continuation, never the other way round.
    fn refresh(&mut self, chain: &[BlockHash]) {
        for &hash in chain.iter().rev() {
            if let Some(part) = self.part_of(hash) {
                self.index.refresh(part);
            }
        }
    }

    /// Forgets what went unused the longest until a block fits, but nothing that is newer than
    /// `newest`.
    fn make_room_for_block(&mut self, newest: u64) -> bool {
        let pages = self.index.block_pages();
        let bytes = u64::from(pages).saturating_mul(self.layout.groups[GROUP].bytes_per_page);
        while self.used_bytes.saturating_add(bytes) > self.layout.grant_bytes {
            match self.index.oldest(GROUP) {
                Some((stamp, part)) if stamp <= newest => self.forget(part),
                Some(_) | None => return false,
            }
        }
        let pool = &self.pools[GROUP];
        pages <= pool.in_use_max().saturating_sub(pool.in_use())
    }

    fn take_block(&mut self, hash: BlockHash) -> Vec<PageId> {
        let pages = 0..self.index.block_pages();
        let pages: Vec<PageId> = pages.map(|_| self.take_page(GROUP)).collect();
        let entry = self.index.find_or_enter(hash);
        let part = self.index.add_pages(entry, GROUP, pages.iter().copied());
        for &page in &pages {
            self.pools[GROUP].enter_part(page, part);
        }
        // Pages are let go from the end, as when a row leaves, so that a beginning outlives its
        // continuation.
        for &page in pages.iter().rev() {
            self.let_go(GROUP, page);
        }
        pages
    }
}
