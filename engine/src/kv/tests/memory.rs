//! A stand-in for the tensors: every cell remembers which prefix it was computed from, so that a
//! wrong page, a lost copy or an early overwrite is seen by whoever reads.

use std::collections::BTreeMap;

use crate::kv::{BlockHash, Chain, Ledger, PageCopy, PageId, Scope, StateId, TakenIn};

/// A sequence as the caller of a ledger knows it.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    /// By position: stands for all tokens up to it, and for the tenant when there is one.
    pub(crate) prefixes: Vec<u64>,
    pub(crate) hashes: Vec<BlockHash>,
    newest: u64,
    chain: Option<Chain>,
}

impl Sequence {
    pub(crate) fn new(tokens: &[u32], tenant: Option<u8>, block_tokens: u32) -> Self {
        let chain = tenant.map(|tenant| {
            let scope = Scope::new(&[tenant]).expect("not empty");
            Chain::new(b"contract", &scope, block_tokens)
        });
        let mut sequence = Self {
            prefixes: Vec::new(),
            hashes: Vec::new(),
            newest: tenant.map_or(u64::MAX, u64::from),
            chain,
        };
        sequence.extend(tokens);
        sequence
    }

    pub(crate) fn extend(&mut self, tokens: &[u32]) {
        for &token in tokens {
            let mixed = (self.newest ^ u64::from(token)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.newest = mixed ^ (mixed >> 29);
            self.prefixes.push(self.newest);
        }
        if let Some(chain) = &mut self.chain {
            chain.extend(tokens, &mut self.hashes);
        }
    }

    pub(crate) const fn has_scope(&self) -> bool {
        self.chain.is_some()
    }
}

/// What a model would say after what it has read of a prefix: the same after the same.
pub(crate) const fn token_after(read: u64) -> u32 {
    (read >> 40) as u32 % 3
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    cells: BTreeMap<(usize, PageId, u32), u64>,
    saved: BTreeMap<StateId, u64>,
    running: BTreeMap<u16, u64>,
}

impl Memory {
    pub(crate) fn copy(&mut self, page_tokens: u32, copy: &PageCopy) {
        let group = usize::from(copy.group);
        for cell in 0..page_tokens {
            match self.cells.get(&(group, copy.from, cell)).copied() {
                Some(value) => self.cells.insert((group, copy.to, cell), value),
                None => self.cells.remove(&(group, copy.to, cell)),
            };
        }
    }

    pub(crate) fn restore(&mut self, from: StateId, slot: u16) {
        self.running.insert(slot, self.saved[&from]);
    }

    pub(crate) fn save(&mut self, slot: u16, to: StateId) {
        self.saved.insert(to, self.running[&slot]);
    }

    /// Fills a block with what was once computed for it.
    pub(crate) fn fill(&mut self, page_tokens: u32, block: &TakenIn, of: &Sequence) {
        for (cell, prefix) in cells(page_tokens, block.ix, &block.pages, of) {
            self.cells.insert(cell, prefix);
        }
    }

    pub(crate) fn check_block(&self, page_tokens: u32, ix: usize, pages: &[PageId], of: &Sequence) {
        for (cell, prefix) in cells(page_tokens, ix, pages, of) {
            assert_eq!(self.cells.get(&cell), Some(&prefix), "block {ix}");
        }
    }

    /// Computes positions `from..to` of a row, reading all that each of them sees, and returns what
    /// the last one read of itself (ENG-06).
    pub(crate) fn compute(
        &mut self,
        ledger: &Ledger,
        slot: u16,
        from: u32,
        to: u32,
        of: &Sequence,
    ) -> u64 {
        let mut read = None;
        let layout = ledger.layout();
        if layout.state_bytes > 0 && from > 0 {
            assert_eq!(
                self.running[&slot],
                of.prefixes[from as usize - 1],
                "the state is that of the tokens before"
            );
        }
        for group in 0..layout.groups.len() {
            let table = ledger.table(slot, group);
            for position in from..to {
                let page = table[(position / layout.page_tokens) as usize];
                assert!(page != PageId::NONE && page != PageId::POISON);
                let cell = (group, page, position % layout.page_tokens);
                self.cells.insert(cell, of.prefixes[position as usize]);
            }
            let window = layout.groups[group].window_tokens;
            let seen = window.map_or(0, |window| (from + 1).saturating_sub(window.get()));
            for position in seen..to {
                let page = table[(position / layout.page_tokens) as usize];
                let cell = (group, page, position % layout.page_tokens);
                read = self.cells.get(&cell).copied();
                assert_eq!(
                    read,
                    Some(of.prefixes[position as usize]),
                    "position {position} of group {group} holds what was computed for it"
                );
            }
        }
        let state = of.prefixes[to as usize - 1];
        self.running.insert(slot, state);
        read.unwrap_or(state)
    }
}

/// The cells of a full block of the first group, and what belongs in them.
fn cells<'a>(
    page_tokens: u32,
    ix: usize,
    pages: &'a [PageId],
    of: &'a Sequence,
) -> impl Iterator<Item = ((usize, PageId, u32), u64)> + 'a {
    let tokens = page_tokens as usize;
    let first = ix * pages.len() * tokens;
    let of_page = move |(at, &page): (usize, &PageId)| {
        let from = first + at * tokens;
        (0..page_tokens)
            .zip(of.prefixes[from..].iter().copied())
            .map(move |(cell, prefix)| ((0, page, cell), prefix))
    };
    pages.iter().enumerate().flat_map(of_page)
}
