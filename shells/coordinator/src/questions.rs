//! What other processes on this machine ask of a running coordinator: who is here, what is sold, and to
//! read anew what is to be sold. The answers are JSON; the command line prints them.

use std::fmt;

use cereus_core::config::{Catalog, CatalogError, ModelSpec};
use cereus_core::coordinator::Coordinator;
use cereus_core::coordinator::roster::{Offered, Present};
use cereus_core::time::Span;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::control::Notice;
use crate::settings::CatalogSource;

/// The question of [`ask_coordinator`](crate::store::ask_coordinator) for every connected machine.
pub const PROVIDERS: &str = "providers";
/// The question for every model that is sold.
pub const PRICES: &str = "prices";
/// Asks it to read its catalogue's file anew, and to sell what stands there. Answered by what changed,
/// or by why nothing did.
pub const RELOAD: &str = "reload";

/// Why a coordinator has nothing to read anew.
const NO_FILE: &str = "this coordinator has no catalogue's file: its models were named by --model alone; \
    start it with --model-catalog FILE, and the file can be changed and read anew";

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

/// What the core is to sell from now on.
#[derive(Debug)]
pub(crate) struct Restock {
    pub(crate) specs: Vec<ModelSpec>,
    pub(crate) tell: oneshot::Sender<Result<Restocked, CatalogError>>,
}

/// What was sold until now, and what is.
#[derive(Debug)]
pub(crate) struct Restocked {
    pub(crate) before: Catalog,
    pub(crate) after: Catalog,
}

/// Answers a question on a thread that may wait; `None` if it is not understood, or the coordinator
/// has ended.
pub(crate) fn answer(
    question: &str,
    control: &mpsc::Sender<Notice>,
    source: &CatalogSource,
) -> Option<String> {
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
                let mut ware = ware(spec);
                ware["least_micro_usd"] = json!(spec.price.cost(0, 0).0);
                ware
            });
            Some(json!({ "models": models.collect::<Vec<_>>() }).to_string())
        }
        RELOAD => Some(match reload(control, source)? {
            Ok(changes) => json!({ "changes": changes }).to_string(),
            Err(why) => json!({ "refused": why }).to_string(),
        }),
        _ => None,
    }
}

fn ware(spec: &ModelSpec) -> Value {
    json!({
        "id": spec.id,
        "input_micro_usd_per_mtok": spec.price.input_per_mtok.0,
        "output_micro_usd_per_mtok": spec.price.output_per_mtok.0,
        "context_tokens": spec.context_tokens,
        "output_tokens_default": spec.output_tokens_default,
    })
}

/// Sells what the catalogue's file names now; what changed, or why nothing did. `None`: the
/// coordinator has ended.
fn reload(
    control: &mpsc::Sender<Notice>,
    source: &CatalogSource,
) -> Option<Result<Vec<Value>, String>> {
    if source.file.is_none() {
        return Some(Err(NO_FILE.to_owned()));
    }
    let specs = match source.read() {
        Ok(specs) => specs,
        Err(why) => return Some(Err(why)),
    };
    let (tell, told) = oneshot::channel();
    let restock = Restock { specs, tell };
    control.blocking_send(Notice::Restocked(restock)).ok()?;
    Some(match told.blocking_recv().ok()? {
        Ok(restocked) => Ok(changes(&restocked)),
        Err(error @ CatalogError::TooMany(_)) => Err(format!(
            "{error}, and one that is not sold any more has its place until the next start"
        )),
        Err(error) => Err(CatalogSource::refusal(&error)),
    })
}

/// One entry for each model to which something has happened, in the order in which it did.
fn changes(restocked: &Restocked) -> Vec<Value> {
    let Restocked { before, after } = restocked;
    let (mut retired, mut listed, mut priced) = (Vec::new(), Vec::new(), Vec::new());
    for (model, old) in before.iter() {
        if !after.is_sold(model) {
            retired.push(change("retired", json!({ "id": old.id })));
        }
    }
    for (model, new) in after.iter() {
        match before.spec(model).filter(|_| before.is_sold(model)) {
            None => listed.push(change("listed", ware(new))),
            Some(old) if old == new => {}
            Some(old) => {
                let price = new.price;
                let is_but_for_price = ModelSpec {
                    price,
                    ..old.clone()
                } == *new;
                match is_but_for_price {
                    true => priced.push(change("priced", ware(new))),
                    false => listed.push(change("changed", ware(new))),
                }
            }
        }
    }
    [retired, listed, priced].concat()
}

fn change(what: &str, mut shown: Value) -> Value {
    tracing::info!(model = %shown["id"], what, "the catalogue has changed");
    shown["change"] = json!(what);
    shown
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
        "lost_at_work": present.lossy.map(|lossy| lossy.to_string()),
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
