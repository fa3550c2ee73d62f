//! Steps over shared pages: the same answers as over a row's own cache, and to the last bit the same
//! however the work is cut up, whatever stands beside it and wherever its pages lie.
#![cfg(feature = "mlx")]

mod support;

use cereus_engine::kv::PageId;
use cereus_engine::model::{
    BlockBytes, Layout, Load, Model, Output, PagedCache, PagedStep, QuantisedMatrices,
};
use mlx_rs::ops::indexing::IndexOp;
use proptest::prelude::*;
use support::truth::Truth;
use support::{FAMILIES, LLAMA, QWEN3, QWEN3_MOE, Stream, arrays, config, write_folder};

const PAGE: usize = 16;
/// Of the weights: with these no family is so near to a tie that rounding decides.
const SEED: u64 = 9;

/// Loads a random model in a layout, packed numbers widened.
fn loaded(json: &str, layout: Layout) -> Model {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), json, &arrays(&config(json), SEED));
    let load = Load {
        layout,
        quantised: QuantisedMatrices::Unpacked,
    };
    Model::load_as(folder.path(), load).unwrap()
}

fn tokens(seed: u64, count: usize) -> Vec<u32> {
    let mut stream = Stream(seed);
    (0..count).map(|_| stream.below(50)).collect()
}

/// Runs several rows to their ends, `cuts` tokens at a time in turn, and gives each row's logits.
fn paged(model: &Model, rows: &[Vec<u32>], cuts: &[usize], spread: usize) -> Vec<Vec<f32>> {
    let pages_each = 1 + rows
        .iter()
        .map(|row| row.len().div_ceil(PAGE))
        .max()
        .unwrap();
    let group_count = model.config().store_groups(4).len();
    let page_count = u32::try_from(1 + rows.len() * pages_each).unwrap();
    let mut cache = PagedCache::new(model);
    for group in 0..group_count {
        cache.fit(group, page_count, page_count).unwrap();
    }
    let table = |row: usize| -> Vec<PageId> {
        let place = |page: usize| 1 + row * pages_each + (page + spread) % pages_each;
        (0..pages_each)
            .map(|page| PageId(u32::try_from(place(page)).unwrap()))
            .collect()
    };
    let tables: Vec<Vec<PageId>> = (0..rows.len()).map(table).collect();
    let per_group: Vec<Vec<&[PageId]>> = tables
        .iter()
        .map(|table| vec![table.as_slice(); group_count])
        .collect();
    let mut done = vec![0; rows.len()];
    let mut answers = vec![vec![]; rows.len()];
    let mut cuts = cuts.iter().cycle();
    while answers.iter().any(Vec::is_empty) {
        let mut steps = vec![];
        let mut asked = vec![];
        for (ix, row) in rows.iter().enumerate() {
            let count = (*cuts.next().unwrap()).min(row.len() - done[ix]);
            if count == 0 {
                continue;
            }
            let is_last = done[ix] + count == row.len();
            steps.push(PagedStep {
                slot: u16::try_from(ix).unwrap(),
                start: u32::try_from(done[ix]).unwrap(),
                tokens: &row[done[ix]..done[ix] + count],
                tables: &per_group[ix],
                output: if is_last {
                    Output::Logits
                } else {
                    Output::Nothing
                },
            });
            if is_last {
                asked.push(ix);
            }
            done[ix] += count;
        }
        if steps.is_empty() {
            continue;
        }
        let logits = model.step_paged(&mut cache, &steps).unwrap();
        for (place, row) in asked.into_iter().enumerate() {
            let place = i32::try_from(place).unwrap();
            let logits = logits.as_ref().unwrap().index(place);
            answers[row] = logits.to_vec_exact::<f32>().unwrap();
        }
    }
    answers
}

/// ENG-07.
#[test]
fn pages_give_the_logits_of_the_network() {
    for &json in FAMILIES {
        let config = config(json);
        let arrays = arrays(&config, SEED);
        let rows: Vec<Vec<u32>> = [1, 15, 16, 17, 70]
            .into_iter()
            .map(|n| tokens(n, n as usize))
            .collect();
        let truths = rows.iter().map(|row| Truth::of(&config, &arrays, row));
        let truths: Vec<Truth> = truths.collect();
        for layout in [Layout::Joined, Layout::Packed] {
            let model = loaded(json, layout);
            let found = paged(&model, &rows, &[7, 3, 40], 2);
            for ((truth, row), found) in truths.iter().zip(&rows).zip(&found) {
                truth.check(row.len(), found, &format!("{layout:?} {json}"));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// ENG-07.
    #[test]
    fn neither_company_nor_cuts_nor_places_change_a_bit(
        lengths in prop::collection::vec(1_usize..60, 1..5),
        cuts in prop::collection::vec(1_usize..30, 1..6),
        spread in 0_usize..4,
        family in 0..FAMILIES.len(),
    ) {
        let model = loaded(FAMILIES[family], Layout::Packed);
        let rows: Vec<Vec<u32>> = lengths.iter().map(|n| tokens(*n as u64, *n)).collect();
        let together = paged(&model, &rows, &cuts, spread);
        for (row, logits) in rows.iter().zip(&together) {
            let alone = paged(&model, std::slice::from_ref(row), &[1_000], 0);
            prop_assert_eq!(&alone[0], logits);
        }
    }
}

/// ENG-07.
#[test]
fn long_prompts_are_the_same_whole_and_in_pieces() {
    let json = QWEN3
        .replace("\"hidden_size\": 48", "\"hidden_size\": 256")
        .replace("\"intermediate_size\": 96", "\"intermediate_size\": 1024")
        .replace("512", "4096");
    let model = loaded(&json, Layout::Packed);
    let rows: Vec<Vec<u32>> = [700, 300, 530].map(|n| tokens(n as u64, n)).to_vec();
    let whole = paged(&model, &rows, &[1_000], 0);
    let pieces = paged(&model, &rows, &[37, 160, 5], 1);
    assert_eq!(whole, pieces);
}

/// A prompt's pages, told as bytes and put into other pages of another cache, serve as if they had been
/// computed there.
#[test]
fn pages_that_were_exported_are_the_same_elsewhere_to_the_last_bit() {
    let page = |id: u32| PageId(id);
    for (json, layout) in [LLAMA, QWEN3, QWEN3_MOE]
        .iter()
        .flat_map(|json| [Layout::Packed, Layout::Joined].map(|layout| (json, layout)))
    {
        let model = loaded(json, layout);
        let tokens = tokens(7, 3 * PAGE + 5);
        let step = |cache: &mut PagedCache, start: usize, table: &[PageId]| {
            let tables: &[&[PageId]] = &[table];
            let rows = [PagedStep {
                slot: 0,
                start: u32::try_from(start).unwrap(),
                tokens: &tokens[start..],
                tables,
                output: Output::Logits,
            }];
            let logits = model.step_paged(cache, &rows).unwrap().unwrap();
            logits.index(0).to_vec_exact::<f32>().unwrap()
        };
        let empty = |pages| {
            let mut cache = PagedCache::new(&model);
            cache.fit(0, pages, pages).unwrap();
            cache
        };
        let mut first = empty(9);
        let table = [1, 2, 3, 4].map(page);
        let prefix = 2 * PAGE;
        // Both compute the rest by itself, so that only the prefix's way differs.
        let rows = [PagedStep {
            slot: 0,
            start: 0,
            tokens: &tokens[..prefix],
            tables: &[&table[..2]],
            output: Output::Nothing,
        }];
        model.step_paged(&mut first, &rows).unwrap();
        let expected = step(&mut first, prefix, &table);

        let pages = [1, 2].map(page);
        let bytes = first.export(0, &pages).unwrap();
        let mut second = empty(9);
        let others = [8, 6].map(page);
        let blocks = others.iter().zip(bytes_of_each(&first, &pages));
        let blocks: Vec<_> = blocks
            .map(|(page, bytes)| (std::slice::from_ref(page), bytes))
            .collect();
        let blocks: Vec<BlockBytes<'_>> = blocks
            .iter()
            .map(|(pages, bytes)| BlockBytes { pages, bytes })
            .collect();
        second.import(0, &blocks).unwrap();
        assert_eq!(second.export(0, &others).unwrap(), bytes, "{json}");
        let answer = step(&mut second, prefix, &[8, 6, 2, 3].map(page));
        assert_eq!(answer, expected, "{json} {layout:?}");

        for bad in [&bytes[..bytes.len() - 1], &[&bytes[..], &[0]].concat()] {
            let block = BlockBytes {
                pages: &others,
                bytes: bad,
            };
            assert!(second.import(0, &[block]).is_err(), "{} bytes", bad.len());
        }
    }
}

fn bytes_of_each(cache: &PagedCache, pages: &[PageId]) -> Vec<Vec<u8>> {
    let export = |page| cache.export(0, std::slice::from_ref(page)).unwrap();
    pages.iter().map(export).collect()
}
