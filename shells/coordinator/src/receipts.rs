//! The newest receipts, for `GET /v1/receipts/{id}`. What was charged is in the ledger for good.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use cereus_core::config::Catalog;
use cereus_core::effect::Receipt;
use cereus_core::ids::{AccountId, RequestId, WireId};
use serde_json::{Value, json};

/// Receipts kept, a few hundred bytes each.
const KEPT_MAX: usize = 16_384;

/// With which keys a request travelled, as fingerprints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sealing {
    pub(crate) provider_key: String,
    pub(crate) session_key: String,
}

#[derive(Debug, Default)]
pub(crate) struct Receipts {
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    kept: BTreeMap<RequestId, Kept>,
    oldest_first: VecDeque<RequestId>,
}

#[derive(Debug)]
struct Kept {
    receipt: Receipt,
    sealing: Sealing,
}

impl Receipts {
    pub(crate) fn keep(&self, receipt: Receipt, sealing: Sealing) {
        let mut shelf = self.shelf.lock().expect("no holder of this lock panics");
        if shelf.oldest_first.len() == KEPT_MAX
            && let Some(oldest) = shelf.oldest_first.pop_front()
        {
            shelf.kept.remove(&oldest);
        }
        shelf.oldest_first.push_back(receipt.request);
        shelf
            .kept
            .insert(receipt.request, Kept { receipt, sealing });
    }

    /// The receipt of that id as JSON, if it belongs to `account`.
    pub(crate) fn find(&self, id: &str, account: AccountId, catalog: &Catalog) -> Option<Value> {
        // Any 128 bits are printed in the form that wire ids have.
        let WireId(id) = WireId::parse(id)?;
        let shelf = self.shelf.lock().expect("no holder of this lock panics");
        let kept = shelf.kept.get(&RequestId(id))?;
        (kept.receipt.account == account).then(|| as_json(kept, catalog))
    }
}

fn as_json(kept: &Kept, catalog: &Catalog) -> Value {
    let Kept { receipt, sealing } = kept;
    json!({
        "object": "receipt",
        "id": receipt.request.to_string(),
        "model": catalog.spec(receipt.model).map(|spec| spec.id.as_str()),
        "machine": format!("{:032x}", receipt.machine.0),
        "attempts": receipt.attempts,
        "sealed": {
            "cipher": "X25519, XSalsa20-Poly1305",
            "provider_key": sealing.provider_key,
            "session_key": sealing.session_key,
        },
        "usage": {
            "prompt_tokens": receipt.usage.prompt_tokens,
            "completion_tokens": receipt.usage.completion_tokens,
        },
        "price_micro_usd_per_mtok": {
            "input": receipt.price.input_per_mtok.0,
            "output": receipt.price.output_per_mtok.0,
        },
        "micro_usd": {
            "held": receipt.held.0,
            "charged": receipt.charged.0,
            "payout": receipt.payout.0,
            "balance_before": receipt.balance_before.0,
            "balance_after": receipt.balance_after.0,
        },
        "spans_us": {
            "queue": receipt.dispatched_at.since(receipt.arrived_at).0,
            "accept": receipt.accepted_at.since(receipt.dispatched_at).0,
            "prefill": receipt.started_at.since(receipt.accepted_at).0,
            "decode": receipt.completed_at.since(receipt.started_at).0,
            "total": receipt.completed_at.since(receipt.arrived_at).0,
        },
    })
}
