//! The slow recount: every number that the ledger keeps, from the tables alone.

use std::collections::BTreeMap;

use crate::kv::PageId;
use crate::kv::index::PartIx;
use crate::kv::ledger::Ledger;

/// Checks the books while no step is under way (ENG-05, ENG-06).
pub(crate) fn recount(ledger: &Ledger) {
    let layout = ledger.layout();
    let live: Vec<u16> = ledger.live_slots().collect();
    let reserved: u64 = live.iter().map(|&slot| ledger.reserved_of(slot)).sum();
    assert_eq!(ledger.reserved_bytes(), reserved, "reservations add up");
    let mut used = (live.len() as u64 + ledger.saved_states()) * layout.state_bytes;
    let mut held_of: BTreeMap<u32, u32> = BTreeMap::new();
    for (group, shape) in layout.groups.iter().enumerate() {
        let pool = ledger.pool(group);
        let mut refs: BTreeMap<PageId, u32> = BTreeMap::new();
        for &slot in &live {
            for &page in ledger.table(slot, group) {
                assert_ne!(page, PageId::POISON, "nobody holds the poison page");
                if page != PageId::NONE {
                    *refs.entry(page).or_default() += 1;
                }
            }
        }
        let mut in_use = 0;
        for id in (1..pool.extent()).map(PageId) {
            let named = refs.remove(&id).unwrap_or(0);
            assert_eq!(
                pool.refs(id),
                named,
                "a page counts the tables that name it"
            );
            let part = pool.part(id);
            let is_free = pool.free().contains(&id);
            assert_eq!(is_free, named == 0 && part == PartIx::NONE);
            in_use += u32::from(!is_free);
            assert!(
                named <= 1 || part != PartIx::NONE || was_shared(ledger, group, id),
                "only a full block's page is in two tables"
            );
            if part != PartIx::NONE {
                *held_of.entry(part.0).or_default() += u32::from(named > 0);
            }
        }
        assert!(refs.is_empty(), "tables name pages that were handed out");
        assert_eq!(pool.in_use(), in_use);
        assert!(pool.extent() <= ledger.pages_max(group));
        used += u64::from(in_use) * shape.bytes_per_page;
    }
    assert_eq!(ledger.used_bytes(), used, "bytes in use add up");
    let index = ledger.index();
    let mut listed = 0;
    for kind in 0..layout.groups.len() {
        let parts = index.listed(kind);
        for part in &parts {
            assert_eq!(index.held(*part), held_of[&part.0]);
            assert!(index.held(*part) < layout.block_pages());
        }
        listed += parts.len();
    }
    let unused = held_of
        .values()
        .filter(|&&held| held < layout.block_pages());
    assert_eq!(
        listed,
        unused.count(),
        "each part with an unused page is listed"
    );
}

/// A block that the index forgot while two rows read it is still full, and still theirs.
fn was_shared(ledger: &Ledger, group: usize, page: PageId) -> bool {
    ledger.live_slots().all(|slot| {
        let at = ledger
            .table(slot, group)
            .iter()
            .position(|&held| held == page);
        at.is_none_or(|at| {
            let block = (at as u32) / ledger.layout().block_pages();
            block < ledger.indexed_blocks(slot)
        })
    })
}
