//! What other processes on this machine ask of a running coordinator: who is here, what is sold. The
//! answers are JSON; the command line prints them.

use std::fmt;

use cereus_core::config::Catalog;
use cereus_core::coordinator::Coordinator;
use cereus_core::coordinator::roster::{Offered, Present};
use cereus_core::time::Span;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::control::Notice;

/// The question of [`ask_coordinator`](crate::store::ask_coordinator) for every connected machine.
pub const PROVIDERS: &str = "providers";
/// The question for every model that is sold.
pub const PRICES: &str = "prices";

/// Somebody wants to look at the core, between two of its steps.
pub(crate) struct Look(Box<dyn FnOnce(&Coordinator) + Send>);

impl Look {
    pub(crate) fn at(self, core: &Coordinator) {
        (self.0)(core);
    }
}

impl fmt::Debug for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Look")
    }
}

/// Answers a question on a thread that may wait; `None` if it is not understood, or the coordinator
/// has ended.
pub(crate) fn answer(question: &str, control: &mpsc::Sender<Notice>) -> Option<String> {
    // What costs time is done here: the core's task copies and goes on.
    match question {
        PROVIDERS => {
            let (machines, catalog) =
                look(control, |core| (core.roster(), core.catalog().clone()))?;
            let machines = machines.iter().map(|one| machine(one, &catalog));
            Some(json!({ "machines": machines.collect::<Vec<_>>() }).to_string())
        }
        PRICES => {
            let catalog = look(control, |core| core.catalog().clone())?;
            let models = catalog.iter().map(|(_, spec)| {
                json!({
                    "id": spec.id,
                    "input_micro_usd_per_mtok": spec.price.input_per_mtok.0,
                    "output_micro_usd_per_mtok": spec.price.output_per_mtok.0,
                    "least_micro_usd": spec.price.cost(0, 0).0,
                    "context_tokens": spec.context_tokens,
                    "output_tokens_default": spec.output_tokens_default,
                })
            });
            Some(json!({ "models": models.collect::<Vec<_>>() }).to_string())
        }
        _ => None,
    }
}

fn look<T: Send + 'static>(
    control: &mpsc::Sender<Notice>,
    read: impl FnOnce(&Coordinator) -> T + Send + 'static,
) -> Option<T> {
    let (tell, told) = oneshot::channel();
    let look = Look(Box::new(move |core: &Coordinator| {
        drop(tell.send(read(core)));
    }));
    control.blocking_send(Notice::Looked(look)).ok()?;
    told.blocking_recv().ok()
}

fn machine(present: &Present, catalog: &Catalog) -> Value {
    let offers = present.offers.iter().map(|offered| offer(offered, catalog));
    json!({
        "machine": format!("{:032x}", present.machine.0),
        "connection": present.conn.0,
        "account": present.owner.0,
        "trust": present.trust.name(),
        "verified": present.is_verified,
        "serves": present.audience.to_string(),
        "report_age_ms": present.report_age.as_millis_floor(),
        "barred_for_ms": present.barred_for.map(Span::as_millis_floor),
        "requests": present.pending,
        "why_nothing": present.hindrance(),
        "models": offers.collect::<Vec<_>>(),
    })
}

fn offer(offered: &Offered, catalog: &Catalog) -> Value {
    let spec = catalog.spec(offered.model);
    let why_nothing = if catalog.is_sold(offered.model) {
        (!offered.closed.is_empty()).then(|| offered.closed.join(", "))
    } else {
        Some("not sold any more".to_owned())
    };
    json!({
        "id": spec.map(|spec| spec.id.as_str()),
        "state": offered.state.name(),
        "requests": offered.pending,
        "other_rows": offered.others,
        "rows_max": offered.concurrency_max,
        "why_nothing": why_nothing,
    })
}
