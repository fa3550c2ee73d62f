//! From the scheduler's plan, which names rows, to what a backend computes: tokens, places and
//! samplers.

use std::collections::BTreeMap;

use super::backend::RowWork;
use super::row::Row;
use crate::scheduler::{RowId, StepPlan};

/// The plan in the backend's terms: decoding rows, then pieces of prompts.
pub(super) fn work<'a>(rows: &'a BTreeMap<RowId, Row>, plan: &StepPlan) -> Vec<RowWork<'a>> {
    let find = |id: &RowId| rows.get(id).expect("a planned row is known");
    let decoding = plan.decode.iter().map(|decode| {
        let row = find(&decode.row);
        RowWork {
            slot: decode.slot,
            start: decode.position,
            tokens: &row.tokens[decode.position as usize..],
            sample: Some(row.sample()),
        }
    });
    let prefilling = plan.prefill.iter().map(|chunk| {
        let row = find(&chunk.row);
        let start = chunk.start as usize;
        RowWork {
            slot: chunk.slot,
            start: chunk.start,
            tokens: &row.tokens[start..start + chunk.len as usize],
            sample: chunk.is_last.then(|| row.sample()),
        }
    });
    decoding.chain(prefilling).collect()
}

/// The rows that get a token from a step, in the order of [`work`].
pub(super) fn askers(plan: &StepPlan) -> impl Iterator<Item = RowId> + '_ {
    let prefilled = plan
        .prefill
        .iter()
        .filter(|chunk| chunk.is_last)
        .map(|chunk| chunk.row);
    plan.decode.iter().map(|decode| decode.row).chain(prefilled)
}
