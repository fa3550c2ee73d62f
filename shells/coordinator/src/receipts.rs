//! Receipts: the newest in memory, for `GET /v1/receipts/{id}` right after an answer; all of them in the
//! store, for as long as it keeps them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use cereus_core::effect::{Item, Line};
use cereus_core::event::Usage;
use cereus_core::ids::{AccountId, MachineId, RequestId, WireId};
use serde::{Serialize, Serializer};
use tokio::sync::Mutex as AsyncMutex;

use crate::store::{FinishedRequest, Store, StoreError};

/// Receipts in memory, a few hundred bytes each.
const KEPT_MAX: usize = 16_384;

/// With which keys a request travelled, as fingerprints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sealing {
    pub(crate) provider_key: String,
    pub(crate) session_key: String,
}

#[derive(Debug)]
pub(crate) struct Receipts {
    shelf: Mutex<Shelf>,
    /// For what is not on the shelf; one question at a time.
    store: Arc<AsyncMutex<Box<dyn Store>>>,
}

#[derive(Debug, Default)]
struct Shelf {
    kept: BTreeMap<RequestId, Arc<FinishedRequest>>,
    oldest_first: VecDeque<RequestId>,
}

impl Receipts {
    pub(crate) fn new(store: Box<dyn Store>) -> Self {
        Self {
            shelf: Mutex::default(),
            store: Arc::new(AsyncMutex::new(store)),
        }
    }

    pub(crate) fn keep(&self, finished: Arc<FinishedRequest>) {
        let mut shelf = self.shelf.lock().expect("no holder of this lock panics");
        if shelf.oldest_first.len() == KEPT_MAX
            && let Some(oldest) = shelf.oldest_first.pop_front()
        {
            shelf.kept.remove(&oldest);
        }
        let request = finished.receipt.request;
        shelf.oldest_first.push_back(request);
        shelf.kept.insert(request, finished);
    }

    /// The receipt of that id as JSON, if it belongs to `account`.
    pub(crate) async fn find(
        &self,
        id: &str,
        account: AccountId,
    ) -> Result<Option<String>, StoreError> {
        // Any 128 bits are printed in the form that wire ids have.
        let Some(WireId(id)) = WireId::parse(id) else {
            return Ok(None);
        };
        let request = RequestId(id);
        if let Some(finished) = self.on_shelf(request) {
            let is_theirs = finished.receipt.account == account;
            return Ok(is_theirs.then(|| finished.body().to_owned()));
        }
        let store = Arc::clone(&self.store).lock_owned().await;
        let found = tokio::task::spawn_blocking(move || store.receipt(request))
            .await
            .expect("reading a receipt does not panic")?;
        Ok(found
            .filter(|receipt| receipt.account == account)
            .map(|receipt| receipt.body))
    }

    fn on_shelf(&self, request: RequestId) -> Option<Arc<FinishedRequest>> {
        let shelf = self.shelf.lock().expect("no holder of this lock panics");
        shelf.kept.get(&request).cloned()
    }
}

/// As consumers see it, and as the store keeps it: JSON.
pub(crate) fn as_json(finished: &FinishedRequest) -> String {
    let FinishedRequest {
        receipt,
        model,
        sealing,
        ..
    } = finished;
    let shown = Shown {
        object: "receipt",
        id: receipt.request,
        model,
        machine: receipt.machine,
        attempts: receipt.attempts,
        sealed: Sealed {
            cipher: "X25519, XSalsa20-Poly1305",
            provider_key: &sealing.provider_key,
            session_key: &sealing.session_key,
        },
        usage: receipt.usage,
        price_micro_usd_per_mtok: Prices {
            input: receipt.price.input_per_mtok.0,
            output: receipt.price.output_per_mtok.0,
        },
        lines: receipt.lines.iter().map(ShownLine::of).collect(),
        micro_usd: Amounts {
            held: receipt.held.0,
            charged: receipt.charged.0,
            payout: receipt.payout.0,
            balance_before: receipt.balance_before.0,
            balance_after: receipt.balance_after.0,
        },
        spans_us: Spans {
            queue: receipt.dispatched_at.since(receipt.arrived_at).0,
            accept: receipt.accepted_at.since(receipt.dispatched_at).0,
            prefill: receipt.started_at.since(receipt.accepted_at).0,
            decode: receipt.completed_at.since(receipt.started_at).0,
            total: receipt.completed_at.since(receipt.arrived_at).0,
        },
    };
    serde_json::to_string(&shown).expect("it holds no map")
}

#[derive(Serialize)]
struct Shown<'a> {
    object: &'static str,
    #[serde(serialize_with = "dashed")]
    id: RequestId,
    model: &'a str,
    #[serde(serialize_with = "digits")]
    machine: MachineId,
    attempts: u8,
    sealed: Sealed<'a>,
    usage: Usage,
    price_micro_usd_per_mtok: Prices,
    lines: Vec<ShownLine>,
    micro_usd: Amounts,
    spans_us: Spans,
}

#[derive(Serialize)]
struct Sealed<'a> {
    cipher: &'static str,
    provider_key: &'a str,
    session_key: &'a str,
}

#[derive(Serialize)]
struct Prices {
    input: i64,
    output: i64,
}

#[derive(Serialize)]
struct ShownLine {
    item: &'static str,
    tokens: u32,
    micro_usd: i64,
}

impl ShownLine {
    fn of(line: &Line) -> Self {
        let item = match line.item {
            Item::Prompt => "prompt",
            Item::Completion => "completion",
            Item::Least => "least_charge",
            Item::Limit => "limit_of_hold",
        };
        Self {
            item,
            tokens: line.tokens,
            micro_usd: line.amount.0,
        }
    }
}

#[derive(Serialize)]
struct Amounts {
    held: i64,
    charged: i64,
    payout: i64,
    balance_before: i64,
    balance_after: i64,
}

#[derive(Serialize)]
struct Spans {
    queue: u64,
    accept: u64,
    prefill: u64,
    decode: u64,
    total: u64,
}

fn dashed<S: Serializer>(id: &RequestId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

fn digits<S: Serializer>(machine: &MachineId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{:032x}", machine.0))
}
