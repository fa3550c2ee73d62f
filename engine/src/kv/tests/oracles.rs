//! Numbers worked out by hand from the formulas, and the cases that a sentence states.

use core::num::NonZeroU32;

use super::memory::Sequence;
use super::recount::recount;
use crate::kv::{
    Adopted, BlockHash, Group, HitLimit, KvLayout, KvLimits, LayoutError, Ledger, PageCopy, PageId,
    StateId,
};

fn layout(windows: &[Option<u32>]) -> KvLayout {
    let group = |window: &Option<u32>| Group {
        window_tokens: window.map(|tokens| NonZeroU32::new(tokens).unwrap()),
        bytes_per_page: 16,
    };
    KvLayout {
        page_tokens: 16,
        block_tokens: 256,
        groups: windows.iter().map(group).collect(),
        state_bytes: 0,
        grant_bytes: 16 * 1_000,
    }
}

fn limits(hit_limit: HitLimit) -> KvLimits {
    KvLimits {
        rows_max: 4,
        chunk_tokens: 512,
        solo_tokens: 2_048,
        hit_limit,
    }
}

fn ledger(layout: KvLayout, limit: HitLimit) -> Ledger {
    Ledger::new(layout, limits(limit)).unwrap()
}

fn sequence(length: u32, tenant: Option<u8>) -> Sequence {
    let tokens: Vec<u32> = (0..length).collect();
    Sequence::new(&tokens, tenant, 256)
}

/// Runs a whole row in slot 0 and lets it go.
fn run(ledger: &mut Ledger, length: u32, hashes: &[BlockHash]) -> Adopted {
    let adopted = ledger.admit(0, hashes, length, ledger.bytes(length));
    let mut computed = adopted.tokens;
    while computed < length {
        let to = length.min(computed + 512);
        ledger.grow(0, computed, to, &mut Vec::new());
        ledger.written(0, to, hashes);
        computed = to;
    }
    ledger.release(0);
    recount(ledger);
    adopted
}

/// ENG-15.
#[test]
fn pages_are_as_many_as_the_specification_counts() {
    let shape = layout(&[None, Some(1_024)]);
    assert_eq!(shape.pages(0, 17, 512), 2);
    assert_eq!(shape.pages(1, 17, 512), 2);
    // 1,023 positions behind the chunk and 512 of it are 96 pages, and one more when they begin
    // inside a page: the larger of the reference's two rules.
    assert_eq!((1_023u64 + 512).div_ceil(16), 96);
    assert_eq!(shape.pages(1, 100_000, 512), 97);
    assert_eq!(shape.pages(1, 1_024, 512), 64);
    assert_eq!(shape.bytes(17, 512), 2 * 16 + 2 * 16);
}

/// ENG-17.
#[test]
fn a_gpt_oss_row_costs_what_its_rate_says() {
    // 12 full layers of 8 heads of 64, keys and values of 2 bytes.
    let layout = KvLayout::full_attention(24_576, 0);
    assert_eq!(layout.bytes(16_000, 512), 16_000 * 24_576);
    let tokens = (433 * (1u64 << 30)) / 10 / 24_576;
    assert_eq!(tokens / 10_000, 189, "1.89 million before the watermark");
    assert_eq!(
        (tokens - tokens / 20) / 10_000,
        179,
        "1.80 million after it"
    );
}

/// ENG-16.
#[test]
fn one_token_of_a_prompt_is_always_computed() {
    for (length, blocks) in [(256, 0), (257, 1), (512, 1), (513, 2)] {
        let mut ledger = ledger(layout(&[None]), HitLimit::LastBlock);
        let sequence = sequence(600, Some(1));
        assert_eq!(run(&mut ledger, 600, &sequence.hashes).tokens, 0);
        assert_eq!(ledger.lookup(&sequence.hashes, length), blocks * 256);
        let hashes = &sequence.hashes[..(length / 256) as usize];
        assert_eq!(run(&mut ledger, length, hashes).tokens, blocks * 256);
    }
}

#[test]
fn a_prompt_that_is_there_whole_copies_the_page_of_its_last_token() {
    let mut ledger = ledger(layout(&[None, Some(100)]), HitLimit::LastToken);
    let sequence = sequence(512, Some(1));
    run(&mut ledger, 512, &sequence.hashes);
    let adopted = ledger.admit(1, &sequence.hashes, 512, ledger.bytes(520));
    assert_eq!(adopted.tokens, 511);
    let shared = [ledger.table(1, 0)[31], ledger.table(1, 1)[31]];
    let mut copies = Vec::new();
    ledger.grow(1, 511, 512, &mut copies);
    let own = [ledger.table(1, 0)[31], ledger.table(1, 1)[31]];
    let expected = [0u8, 1].map(|group| PageCopy {
        group,
        from: shared[usize::from(group)],
        to: own[usize::from(group)],
    });
    assert_eq!(copies, expected);
    ledger.grow(1, 511, 512, &mut copies);
    assert_eq!(copies.len(), 2, "growing twice copies once");
    recount(&ledger);
}

#[test]
fn a_page_that_only_the_index_shares_is_written_when_there_is_no_room_for_a_copy() {
    let tight = KvLayout {
        grant_bytes: 16 * 32,
        ..layout(&[None])
    };
    let mut ledger = ledger(tight, HitLimit::LastToken);
    let sequence = sequence(512, Some(1));
    run(&mut ledger, 512, &sequence.hashes);
    let adopted = ledger.admit(1, &sequence.hashes, 512, ledger.bytes(512));
    assert_eq!(adopted.tokens, 511);
    let mut copies = Vec::new();
    ledger.grow(1, 511, 512, &mut copies);
    assert_eq!(copies, []);
    assert_eq!(
        ledger.lookup(&sequence.hashes, 600),
        256,
        "the block is no longer found"
    );
    recount(&ledger);
}

#[test]
fn pages_that_slid_out_of_a_window_are_let_go() {
    let mut ledger = ledger(layout(&[None, Some(64)]), HitLimit::LastBlock);
    ledger.admit(0, &[], 1_000, ledger.bytes(1_000));
    for at in (0..512).step_by(128) {
        ledger.grow(0, at, at + 128, &mut Vec::new());
        ledger.written(0, at + 128, &[]);
    }
    let table = ledger.table(0, 1);
    // The query at 512 sees 449..=512, which begins in page 28.
    assert!(table[..28].iter().all(|&page| page == PageId::NONE));
    assert!(table[28..].iter().all(|&page| page != PageId::NONE));
    assert_eq!(table.len(), 32);
    assert_eq!(ledger.used_bytes(), 16 * (32 + 4));
    recount(&ledger);
}

#[test]
fn a_window_that_is_gone_is_no_hit_however_much_is_left_of_the_rest() {
    let mut ledger = ledger(layout(&[None, Some(300)]), HitLimit::LastBlock);
    let sequence = sequence(1_100, Some(1));
    run(&mut ledger, 1_100, &sequence.hashes);
    assert_eq!(ledger.lookup(&sequence.hashes, 1_100), 1_024);
    // Room for the full group and a little: the window's oldest blocks go first.
    ledger.resize(16 * (64 + 20));
    assert_eq!(ledger.lookup(&sequence.hashes, 1_100), 0);
    recount(&ledger);
}

#[test]
fn a_recurrent_row_goes_on_only_where_its_state_was_saved() {
    let recurrent = KvLayout {
        state_bytes: 100,
        ..layout(&[None])
    };
    let mut ledger = ledger(recurrent, HitLimit::LastToken);
    let sequence = sequence(1_100, Some(1));
    ledger.admit(0, &sequence.hashes, 1_100, ledger.bytes(1_100));
    ledger.grow(0, 0, 512, &mut Vec::new());
    let state = ledger.take_state().unwrap();
    ledger.index_state(sequence.hashes[1], state);
    ledger.written(0, 512, &sequence.hashes);
    ledger.grow(0, 512, 1_024, &mut Vec::new());
    ledger.written(0, 1_024, &sequence.hashes);
    ledger.release(0);
    let adopted = ledger.admit(1, &sequence.hashes, 1_100, ledger.bytes(1_100));
    let expected = Adopted {
        tokens: 512,
        restore: Some(StateId(0)),
    };
    assert_eq!(adopted, expected);
    assert!(ledger.has_state(sequence.hashes[1]));
    recount(&ledger);
}

/// ENG-10.
#[test]
fn without_a_scope_nothing_is_found_and_nothing_is_kept() {
    let mut ledger = ledger(layout(&[None]), HitLimit::LastBlock);
    let silent = sequence(600, None);
    assert_eq!(silent.hashes, []);
    run(&mut ledger, 600, &silent.hashes);
    assert_eq!(ledger.used_bytes(), 0);
    run(&mut ledger, 600, &sequence(600, Some(1)).hashes);
    assert_ne!(ledger.used_bytes(), 0);
    assert_eq!(run(&mut ledger, 600, &silent.hashes).tokens, 0);
    assert_eq!(
        run(&mut ledger, 600, &sequence(600, Some(2)).hashes).tokens,
        0
    );
    assert_eq!(
        run(&mut ledger, 600, &sequence(600, Some(1)).hashes).tokens,
        512
    );
}

#[test]
fn the_end_of_a_prefix_is_forgotten_before_its_beginning() {
    let mut ledger = ledger(layout(&[None]), HitLimit::LastBlock);
    let sequence = sequence(1_025, Some(1));
    run(&mut ledger, 1_025, &sequence.hashes);
    for (blocks, found) in [(4, 1_024), (3, 768), (2, 512), (1, 256), (0, 0)] {
        ledger.resize(16 * 16 * blocks);
        assert_eq!(ledger.lookup(&sequence.hashes, 1_025), found);
        recount(&ledger);
    }
}

#[test]
fn page_ids_begin_low_and_are_used_again() {
    let mut ledger = ledger(layout(&[None]), HitLimit::LastBlock);
    for _ in 0..10 {
        run(&mut ledger, 100, &[]);
    }
    assert_eq!(ledger.pages_extent(0), 1 + 7);
    assert_eq!(ledger.pages_max(0), 1 + 1_000);
}

#[test]
fn an_impossible_layout_is_refused() {
    let cases = [
        (
            KvLayout {
                page_tokens: 0,
                ..layout(&[None])
            },
            LayoutError::NoTokens,
        ),
        (
            KvLayout {
                block_tokens: 40,
                ..layout(&[None])
            },
            LayoutError::BlockNotOfPages,
        ),
        (layout(&[None; 9]), LayoutError::TooManyGroups),
        (layout(&[]), LayoutError::Nothing),
        (KvLayout::full_attention(0, 1), LayoutError::FreePages),
    ];
    for (layout, error) in cases {
        let ledger = Ledger::new(layout, limits(HitLimit::LastBlock));
        assert_eq!(ledger.unwrap_err(), error);
    }
}
