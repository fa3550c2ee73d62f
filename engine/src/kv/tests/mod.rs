//! The laws of the ledger, on random rows over random layouts.

mod chain;
mod disk;
pub(crate) mod memory;
mod oracles;
pub(crate) mod recount;

use core::num::NonZeroU32;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use memory::{Memory, Sequence};
use recount::recount;

const ROWS_MAX: u16 = 4;
const STEP_TOKENS: u32 = 48;
/// Rows of one family begin with the same tokens; small, so that they meet.
const FAMILIES: u32 = 2;

fn window(tokens: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(tokens)
}

/// Full attention alone, with a window, with two, a window alone, and with a recurrent state.
pub(crate) fn layouts() -> impl Strategy<Value = KvLayout> {
    let windows = prop_oneof![
        Just(vec![None]),
        Just(vec![None, window(40)]),
        Just(vec![None, window(9), window(33)]),
        Just(vec![window(24)]),
        Just(vec![]),
    ];
    let blocks = prop_oneof![Just(8u32), Just(16), Just(32)];
    (windows, blocks, any::<bool>(), 40u64..160).prop_map(
        |(windows, block_tokens, is_recurrent, pages)| {
            let is_recurrent = is_recurrent || windows.is_empty();
            KvLayout {
                page_tokens: 8,
                block_tokens,
                groups: (10..)
                    .zip(windows)
                    .map(|(bytes_per_page, window_tokens)| Group {
                        window_tokens,
                        bytes_per_page,
                    })
                    .collect(),
                state_bytes: if is_recurrent { 25 } else { 0 },
                grant_bytes: pages * 10,
            }
        },
    )
}

#[derive(Clone, Debug)]
enum Op {
    Admit {
        family: u32,
        /// Tokens shared with the family; then the row's own.
        common: u32,
        prompt: u32,
        output: u32,
        tenant: Option<u8>,
    },
    Advance(u16, u32),
    Compute(u16, u32),
    Release(u16),
    /// To so many eighths of the first grant, if that holds what is reserved.
    Resize(u64),
    /// The blocks of such a row come from elsewhere, if the layout's blocks move.
    TakeIn {
        family: u32,
        common: u32,
        length: u32,
        tenant: u8,
    },
    /// Some block of a family's is forgotten.
    Forget(u32, usize),
}

fn op() -> impl Strategy<Value = Op> {
    let tenant = prop_oneof![Just(Some(1u8)), Just(Some(1)), Just(Some(2)), Just(None)];
    prop_oneof![
        4 => (0..FAMILIES, 0u32..160, 1u32..160, 1u32..80, tenant).prop_map(
            |(family, common, prompt, output, tenant)| Op::Admit {
                family, common, prompt, output, tenant,
            }
        ),
        10 => (0..ROWS_MAX, 1..=STEP_TOKENS).prop_map(|(slot, len)| Op::Compute(slot, len)),
        3 => (0..ROWS_MAX, 1u32..60).prop_map(|(slot, len)| Op::Advance(slot, len)),
        2 => (0..ROWS_MAX).prop_map(Op::Release),
        1 => (4u64..12).prop_map(Op::Resize),
        2 => (0..FAMILIES, 0u32..160, 1u32..200, 1u8..3).prop_map(
            |(family, common, length, tenant)| Op::TakeIn { family, common, length, tenant }
        ),
        1 => (0..FAMILIES, 0usize..4).prop_map(|(family, ix)| Op::Forget(family, ix)),
    ]
}

fn full_layout() -> impl Strategy<Value = KvLayout> {
    layouts().prop_map(|layout| KvLayout {
        groups: vec![Group {
            window_tokens: None,
            bytes_per_page: 10,
        }],
        state_bytes: 0,
        ..layout
    })
}

struct Live {
    tokens: Vec<u32>,
    tenant: Option<u8>,
    sequence: Sequence,
    computed: u32,
}

struct Harness {
    ledger: Ledger,
    memory: Memory,
    rows: BTreeMap<u16, Live>,
    grant_first: u64,
    admitted: u32,
    /// By block hash: which tenant made it.
    makers: BTreeMap<BlockHash, u8>,
}

impl Harness {
    fn new(layout: KvLayout, limit: HitLimit) -> Self {
        Self {
            grant_first: layout.grant_bytes,
            ledger: Ledger::new(
                layout,
                KvLimits {
                    rows_max: ROWS_MAX,
                    chunk_tokens: STEP_TOKENS,
                    solo_tokens: STEP_TOKENS,
                    hit_limit: limit,
                },
            )
            .unwrap(),
            memory: Memory::default(),
            rows: BTreeMap::new(),
            admitted: 0,
            makers: BTreeMap::new(),
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Admit {
                family,
                common,
                prompt,
                output,
                tenant,
            } => self.admit(family, common, prompt + output, tenant),
            Op::Advance(slot, len) => {
                let Some(row) = self.rows.get_mut(&slot) else {
                    return;
                };
                let to = (row.computed + len).min(row.tokens.len() as u32);
                // The contents follow a page at a time, as decode would write them.
                while row.computed < to {
                    let next = to.min(row.computed + 1);
                    let hashes = &row.sequence.hashes;
                    let mut copies = Vec::new();
                    self.ledger.grow(slot, row.computed, next, &mut copies);
                    copies.iter().for_each(|copy| self.memory.copy(8, copy));
                    let (from, sequence) = (row.computed, &row.sequence);
                    self.memory
                        .compute(&self.ledger, slot, from, next, sequence);
                    self.ledger.written(slot, next, hashes);
                    row.computed = next;
                }
            }
            Op::Compute(slot, len) => self.compute(slot, len),
            Op::Release(slot) => {
                if let Some(row) = self.rows.remove(&slot) {
                    self.ledger.release(slot);
                    if self.ledger.layout().is_full_attention() {
                        self.check_kept(&row.sequence);
                    }
                }
            }
            Op::Resize(eighths) => {
                let grant = self.grant_first * eighths / 8;
                if self.ledger.reserved_bytes() <= grant {
                    self.ledger.resize(grant);
                }
            }
            Op::TakeIn {
                family,
                common,
                length,
                tenant,
            } => self.take_in(family, common, length, tenant),
            Op::Forget(family, ix) => {
                let block = self.ledger.layout().block_tokens;
                let tokens = vec![family; 160];
                let hash = Sequence::new(&tokens, Some(1), block)
                    .hashes
                    .get(ix)
                    .copied();
                if let Some(hash) = hash {
                    self.ledger.forget_block(hash);
                }
            }
        }
        recount(&self.ledger);
        let grant = self.ledger.layout().grant_bytes;
        assert!(self.ledger.reserved_bytes() <= grant);
        assert!(self.ledger.used_bytes() <= grant);
    }

    fn admit(&mut self, family: u32, common: u32, length: u32, tenant: Option<u8>) {
        let Some(slot) = (0..ROWS_MAX).find(|slot| !self.rows.contains_key(slot)) else {
            return;
        };
        let worst = self.ledger.bytes(length);
        if self.ledger.room_after(worst).is_none() {
            return;
        }
        self.admitted += 1;
        let own = 1_000 + self.admitted;
        let token = |ix| if ix < common { family } else { own };
        let tokens: Vec<u32> = (0..length).map(token).collect();
        let block = self.ledger.layout().block_tokens;
        let sequence = Sequence::new(&tokens, tenant, block);
        let adopted = self.ledger.admit(slot, &sequence.hashes, length, worst);
        if let Some(state) = adopted.restore {
            self.memory.restore(state, slot);
        }
        assert!(adopted.tokens < length, "one token is always computed");
        for hash in &sequence.hashes[..(adopted.tokens.div_ceil(block)) as usize] {
            assert_eq!(
                self.makers.get(hash).copied(),
                tenant,
                "tenants share nothing"
            );
        }
        if let Some(tenant) = tenant {
            for &hash in &sequence.hashes {
                self.makers.entry(hash).or_insert(tenant);
            }
        }
        let row = Live {
            tokens,
            tenant,
            sequence,
            computed: adopted.tokens,
        };
        self.rows.insert(slot, row);
    }

    /// Blocks come in where nobody holds the room, and those of the chain that are there stay.
    fn take_in(&mut self, family: u32, common: u32, length: u32, tenant: u8) {
        if !self.ledger.layout().is_full_attention() {
            return;
        }
        let token = |ix| if ix < common { family } else { 999 };
        let tokens: Vec<u32> = (0..length).map(token).collect();
        let block = self.ledger.layout().block_tokens;
        let sequence = Sequence::new(&tokens, Some(tenant), block);
        let chain = &sequence.hashes;
        let from = self.ledger.found(chain);
        let reserved = self.ledger.reserved_bytes();
        let taken = self.ledger.take_in(chain, from);
        assert_eq!(self.ledger.reserved_bytes(), reserved);
        for incoming in &taken {
            assert!(incoming.ix >= from);
            self.makers.entry(chain[incoming.ix]).or_insert(tenant);
            self.memory.fill(8, incoming, &sequence);
        }
        let end = taken.last().map_or(from, |last| last.ix + 1);
        assert!(
            self.ledger.found(chain) >= end,
            "no block of the chain left"
        );
        self.check_kept(&sequence);
    }

    /// A block that can be found holds what was computed for it.
    fn check_kept(&self, sequence: &Sequence) {
        for (ix, &hash) in sequence.hashes.iter().enumerate() {
            if let Some(pages) = self.ledger.block(hash) {
                self.memory.check_block(8, ix, &pages, sequence);
            }
        }
    }

    fn compute(&mut self, slot: u16, len: u32) {
        let Some(row) = self.rows.get_mut(&slot) else {
            return;
        };
        let block = self.ledger.layout().block_tokens;
        let is_recurrent = self.ledger.layout().state_bytes > 0;
        let mut to = (row.computed + len).min(row.tokens.len() as u32);
        let boundary = (row.computed / block + 1) * block;
        if is_recurrent && to > boundary {
            to = boundary;
        }
        if to == row.computed {
            return;
        }
        let mut copies = Vec::new();
        self.ledger.grow(slot, row.computed, to, &mut copies);
        for copy in &copies {
            self.memory.copy(8, copy);
        }
        let state = (is_recurrent && to == boundary && row.tenant.is_some())
            .then(|| self.ledger.take_state());
        self.memory
            .compute(&self.ledger, slot, row.computed, to, &row.sequence);
        if let Some(state) = state.flatten() {
            self.memory.save(slot, state);
            let hash = row.sequence.hashes[(to / block - 1) as usize];
            self.ledger.index_state(hash, state);
        }
        self.ledger.written(slot, to, &row.sequence.hashes);
        row.computed = to;
    }

    fn finish(&mut self) {
        for slot in std::mem::take(&mut self.rows).into_keys() {
            self.ledger.release(slot);
        }
        recount(&self.ledger);
        assert_eq!(self.ledger.reserved_bytes(), 0);
        self.ledger.resize(0);
        assert_eq!(self.ledger.used_bytes(), 0, "nothing is held for ever");
        assert_eq!(self.ledger.index().entries(), 0);
        for group in 0..self.ledger.layout().groups.len() {
            assert_eq!(self.ledger.pages_extent(group), 1, "only poison is left");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    /// ENG-05, ENG-06 and ENG-10.
    #[test]
    fn rows_read_what_was_computed_for_them_and_the_books_add_up(
        layout in layouts(),
        limit in prop_oneof![Just(HitLimit::LastBlock), Just(HitLimit::LastToken)],
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let mut harness = Harness::new(layout, limit);
        for op in &ops {
            harness.apply(op);
        }
        harness.finish();
    }

    /// ENG-05, ENG-06 and ENG-10, where blocks come and go.
    #[test]
    fn blocks_that_are_taken_in_are_found_and_nothing_else_is_lost(
        layout in full_layout(),
        limit in prop_oneof![Just(HitLimit::LastBlock), Just(HitLimit::LastToken)],
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let mut harness = Harness::new(layout, limit);
        for op in &ops {
            harness.apply(op);
        }
        harness.finish();
    }

    #[test]
    fn decoding_at_once_leaves_the_books_of_decoding_one_by_one(
        layout in layouts(),
        prompt in 1u32..100,
        steps in 1u32..120,
    ) {
        let mut slow = Harness::new(KvLayout { grant_bytes: 10_000, ..layout }, HitLimit::LastBlock);
        slow.admit(0, 1_000, prompt + steps, Some(1));
        while slow.rows[&0].computed < prompt {
            let left = prompt - slow.rows[&0].computed;
            slow.compute(0, left.min(STEP_TOKENS));
        }
        let mut fast = slow.ledger.clone();
        let hashes = slow.rows[&0].sequence.hashes.clone();
        let mut at = prompt;
        while at < prompt + steps {
            let next = fast.steady_until(0, at).min(prompt + steps);
            fast.grow(0, at, next, &mut Vec::new());
            fast.written(0, next, &hashes);
            at = next;
        }
        slow.apply(&Op::Advance(0, steps));
        recount(&fast);
        prop_assert_eq!(fast.used_bytes(), slow.ledger.used_bytes());
        prop_assert_eq!(fast.index().entries(), slow.ledger.index().entries());
        for group in 0..fast.layout().groups.len() {
            prop_assert_eq!(fast.table(0, group).len(), slow.ledger.table(0, group).len());
        }
    }
}
