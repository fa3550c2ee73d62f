//! The one task that owns the control half of the exchange: drains its inbox in batches, steps, carries
//! out.
//!
//! It hears of events only; the bytes of answers go past it. It never waits for a consumer or a
//! provider: whoever cannot take an order at once is let go.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use cereus_core::config::Config;
use cereus_core::coordinator::{Coordinator, Misuse};
use cereus_core::denial::Denial;
use cereus_core::effect::{Effects, Receipt, Transfer};
use cereus_core::event::{Ask, Event};
use cereus_core::exchange::{self, ControlEffect, ControlEvent, Witness};
use cereus_core::ids::{ConnId, RequestId};
use cereus_core::relay::RelayEvent;
use cereus_core::time::Tick;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use crate::answer::Answer;
use crate::app::App;
use crate::ending::Outcome;
use crate::hint::command_on;
use crate::journal::Recorder;
use crate::questions::{Look, Restock, Restocked};
use crate::receipts::Sealing;
use crate::store::writer::{Commit, Durable, Writer};
use crate::store::{DepositId, Entry, FinishedRequest, LoggedReceipt, WaitingDeposit};

/// Events between consumers, providers and the coordinator before their senders wait.
pub(crate) const INBOX_MAX: usize = 16_384;
/// Events of one turn: one journal write and one commit for all of them.
const BATCH_MAX: usize = 256;

/// What the rest of the process tells the coordinator.
#[derive(Debug)]
pub(crate) enum Notice {
    Happened(Event<'static>),
    Arrived {
        ask: Ask,
        answer: Arc<Answer>,
    },
    Joined {
        conn: ConnId,
        orders: mpsc::Sender<Order>,
        event: Event<'static>,
    },
    Credited(WaitingDeposit),
    Looked(Look),
    Restocked(Restock),
}

/// What the coordinator tells the task of a provider's connection.
pub(crate) type Order = exchange::Order<Arc<Answer>>;

/// Why the loop ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Drained,
    StoreFailed(String),
}

pub(crate) struct Control {
    app: Arc<App>,
    exchange: exchange::Control<Arc<Answer>>,
    /// What has happened and was not stepped yet.
    todo: VecDeque<ControlEvent<Arc<Answer>>>,
    out: Vec<ControlEffect<Arc<Answer>>>,
    recorder: Recorder,
    writer: Writer,
    durable: watch::Receiver<Durable>,
    /// Channels to the tasks of registered connections.
    orders: HashMap<ConnId, mpsc::Sender<Order>>,
    /// Transfers and receipts that the next batch takes to the store.
    entries: Vec<Entry>,
    posted_up_to: u64,
    /// Receipts of settlements that are not durable yet.
    unshown: HashMap<RequestId, Arc<FinishedRequest>>,
    /// When the newest batch went to the store.
    committing: VecDeque<Committing>,
    is_drained: bool,
    /// Of the catalogue that the rest of the process knows.
    catalog_epoch: u64,
}

struct Committing {
    up_to: u64,
    at: Tick,
}

impl Control {
    pub(crate) fn new(
        app: Arc<App>,
        config: Config,
        recorder: Recorder,
        writer: Writer,
        durable: watch::Receiver<Durable>,
    ) -> Self {
        let origin = app.epoch.origin();
        Self {
            catalog_epoch: config.catalog.epoch(),
            exchange: exchange::Control::new(config),
            app,
            todo: VecDeque::new(),
            out: Vec::new(),
            recorder,
            writer,
            durable,
            orders: HashMap::new(),
            entries: Vec::new(),
            posted_up_to: origin,
            unshown: HashMap::new(),
            committing: VecDeque::new(),
            is_drained: false,
        }
    }

    /// Runs until drained, or until the store fails.
    pub(crate) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Notice>,
        mut drain: watch::Receiver<bool>,
    ) -> Ending {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut is_draining = false;
        while !self.is_drained {
            let wake = self.next_wake().map(|at| self.app.clock.instant(at));
            let wake_at = wake.unwrap_or_else(tokio::time::Instant::now);
            // Every branch is cancel safe: `changed`, `recv_many` and a sleep lose nothing.
            tokio::select! {
                changed = self.durable.changed() => {
                    if changed.is_err() {
                        return Ending::StoreFailed("the store's thread ended".to_owned());
                    }
                    if let Some(reason) = self.take_durable() {
                        self.recorder.give_up(self.app.clock.now());
                        return Ending::StoreFailed(reason);
                    }
                }
                _ = drain.wait_for(|drain| *drain), if !is_draining => {
                    is_draining = true;
                    self.step(ControlEvent::Happened(Event::DrainBegan));
                }
                count = inbox.recv_many(&mut batch, BATCH_MAX) => {
                    self.app.metrics.batch_events.observe(count_f64(count));
                    for notice in batch.drain(..) {
                        self.noticed(notice);
                    }
                }
                () = tokio::time::sleep_until(wake_at), if wake.is_some() => self.woke(),
            }
            if let Err(reason) = self.end_turn().await {
                self.recorder.give_up(self.app.clock.now());
                return Ending::StoreFailed(reason);
            }
        }
        self.recorder.close(self.exchange.core()).await;
        Ending::Drained
    }

    fn next_wake(&self) -> Option<Tick> {
        let core = self.exchange.core().next_wake().map(|(at, _)| at);
        let wakes = [core, self.recorder.next_wake()];
        wakes.into_iter().flatten().min()
    }

    /// The core's time, or only that of what is to be written; the end of the turn does the latter.
    fn woke(&mut self) {
        let now = self.app.clock.now();
        let core = self.exchange.core().next_wake();
        if core.is_some_and(|(at, _)| at <= now) {
            self.step(ControlEvent::Happened(Event::Woke));
        }
    }

    fn noticed(&mut self, notice: Notice) {
        match notice {
            Notice::Happened(event) => self.step(ControlEvent::Happened(event)),
            Notice::Arrived { ask, answer } => {
                self.app.metrics.requests_running.inc();
                let request = answer;
                self.step(ControlEvent::Arrived { ask, request });
            }
            Notice::Joined {
                conn,
                orders,
                event,
            } => {
                self.orders.insert(conn, orders);
                self.step(ControlEvent::Happened(event));
            }
            Notice::Looked(look) => look.at(self.exchange.core()),
            Notice::Restocked(restock) => self.restock(restock),
            Notice::Credited(WaitingDeposit {
                id,
                account,
                amount,
            }) => self.step(ControlEvent::Credited {
                deposit: id.number(),
                account,
                amount,
            }),
        }
    }

    /// The operator's file names other models or prices: all that follows happens in one turn, so that
    /// nobody meets half of it.
    fn restock(&mut self, restock: Restock) {
        let before = self.exchange.core().catalog().clone();
        let changes = before.changes_to(restock.specs);
        let restocked = changes.map(|events| {
            let events = events.into_iter().map(ControlEvent::Happened);
            self.todo.extend(events);
            self.step_all();
            let after = self.exchange.core().catalog().clone();
            Restocked { before, after }
        });
        // If this fails, nobody waits for the answer any more.
        let _ = restock.tell.send(restocked);
    }

    /// One event and all that follows from it, in order.
    fn step(&mut self, event: ControlEvent<Arc<Answer>>) {
        self.todo.push_back(event);
        self.step_all();
    }

    fn step_all(&mut self) {
        while let Some(event) = self.todo.pop_front() {
            let now = self.app.clock.now();
            let mut out = std::mem::take(&mut self.out);
            let mut journal = Journal {
                recorder: &mut self.recorder,
                app: &self.app,
            };
            self.exchange.step(now, event, &mut journal, &mut out);
            for effect in out.drain(..) {
                self.carry_out(now, effect);
            }
            self.out = out;
        }
        self.publish();
    }

    /// Whoever answers without the core hears what is sold after the core does, and never before.
    fn publish(&mut self) {
        let catalog = self.exchange.core().catalog();
        if catalog.epoch() != self.catalog_epoch {
            self.catalog_epoch = catalog.epoch();
            self.app.directory.sell(catalog);
        }
    }

    fn carry_out(&mut self, now: Tick, effect: ControlEffect<Arc<Answer>>) {
        match effect {
            ControlEffect::Alarm { alarm, count } => {
                tracing::warn!(?alarm, count, "alarm");
                let name = format!("{alarm:?}");
                self.app
                    .metrics
                    .alarms
                    .get_or_create(&crate::metrics::Named { name })
                    .inc();
            }
            ControlEffect::Charged { request, receipt } => {
                self.show(&receipt);
                self.recorder.trail(now, request.id(), &request.trail());
            }
            ControlEffect::CreditRefused { deposit, misuse } => {
                let reason = misuse.to_string();
                tracing::error!(
                    credit = deposit,
                    reason,
                    "a credit is set aside: it does not count, and no start meets it again; \
                     {} shows it",
                    command_on(&self.app.data, "credit list")
                );
                let deposit = DepositId::of(deposit);
                self.entries.push(Entry::Refused { deposit, reason });
            }
            ControlEffect::Denied { request, denial } => {
                let waited = now.since(request.arrived_at());
                let after_ms = waited.as_millis_floor();
                let outcome = Outcome::of(denial, request.has_begun());
                log_denied(&request, denial, outcome, after_ms);
                if outcome == Outcome::Broken {
                    // Behind the transfer that voids its hold, which came first.
                    let (id, about) = (request.id(), request.about());
                    let broken = LoggedReceipt::of_broken(id, about, request.piece_count());
                    self.entries.push(Entry::Logged(broken));
                }
                self.app.ended(denial.code());
            }
            ControlEffect::Drained => self.is_drained = true,
            ControlEffect::Finished {
                request: _,
                receipt,
            } => {
                self.app.ended("finished");
                self.show(&receipt);
            }
            ControlEffect::LetGo { conn } => {
                self.orders.remove(&conn);
            }
            ControlEffect::Order { conn, order } => {
                let refused = match self.orders.get(&conn) {
                    Some(orders) => orders.try_send(order).err().map(TrySendError::into_inner),
                    None => Some(order),
                };
                if let Some(order) = refused {
                    tracing::warn!(conn = conn.0, "a provider's connection takes no orders");
                    self.todo
                        .push_back(ControlEvent::OrderRefused { conn, order });
                }
            }
            ControlEffect::Post { transfer } => {
                self.posted_up_to = transfer.seq;
                self.entries.push(Entry::Transfer(transfer));
                self.settled(&transfer);
            }
            ControlEffect::Relay { request, event } => {
                let is_last = matches!(
                    event,
                    RelayEvent::Denied { .. } | RelayEvent::Finished { .. }
                );
                request.step(now, event);
                if is_last {
                    self.recorder.trail(now, request.id(), &request.trail());
                }
            }
            ControlEffect::Released { request } => {
                let waited = now.since(request.arrived_at());
                self.app
                    .metrics
                    .first_content_seconds
                    .observe(waited.0 as f64 / 1e6);
            }
            ControlEffect::WasMisused(misuse) => {
                tracing::error!(%misuse, "the core refused an event");
            }
        }
    }

    /// The receipt of what a transfer settles becomes durable with it.
    fn settled(&mut self, transfer: &Transfer) {
        let core = self.exchange.core();
        let settled = transfer.request().and_then(|id| core.settled(id));
        let Some(receipt) = settled else { return };
        let spec = core.catalog().spec(receipt.model);
        let request = self.exchange.request(receipt.request);
        let model = spec.map_or_else(String::new, |spec| spec.id.clone());
        let sealing = request.map_or_else(Sealing::default, |request| request.sealing());
        let outcome = request.map_or(Outcome::Finished, |request| request.paid_outcome());
        let finished = FinishedRequest::new(receipt, model, sealing, outcome);
        let finished = Arc::new(finished);
        self.entries.push(Entry::Receipt(Arc::clone(&finished)));
        self.unshown.insert(receipt.request, finished);
    }

    /// The settlement is durable: its receipt may be asked for.
    fn show(&mut self, receipt: &Receipt) {
        self.app.charged(receipt);
        if let Some(finished) = self.unshown.remove(&receipt.request) {
            self.app.receipts.keep(finished);
        }
    }

    /// Tells the core how far the ledger is on disk; the reason if it never will be again.
    fn take_durable(&mut self) -> Option<String> {
        let durable = self.durable.borrow_and_update().clone();
        match durable {
            Durable::Failed(reason) => Some(reason),
            Durable::UpTo(up_to) => {
                self.is_durable(up_to);
                None
            }
        }
    }

    /// How many transfers of this run there are up to that one.
    fn since_start(&self, transfer: u64) -> u64 {
        transfer.saturating_sub(self.app.epoch.origin())
    }

    fn is_durable(&mut self, up_to: u64) {
        self.app
            .metrics
            .transfers_durable
            .set(self.since_start(up_to));
        let now = self.app.clock.now();
        while let Some(batch) = self.committing.pop_front_if(|it| it.up_to <= up_to) {
            let took = now.since(batch.at);
            self.app.metrics.commit_seconds.observe(took.0 as f64 / 1e6);
        }
        self.step(ControlEvent::Happened(Event::Persisted { up_to }));
    }

    /// Hands all entries to the store, and those that come of it. The reason if it takes none any more.
    async fn commit(&mut self) -> Result<(), String> {
        while !self.entries.is_empty() {
            self.commit_once().await?;
        }
        Ok(())
    }

    async fn commit_once(&mut self) -> Result<(), String> {
        let up_to = self.posted_up_to;
        self.app
            .metrics
            .transfers_posted
            .set(self.since_start(up_to));
        if self.committing.back().is_none_or(|last| last.up_to < up_to) {
            let at = self.app.clock.now();
            self.committing.push_back(Committing { up_to, at });
        }
        let entries = std::mem::take(&mut self.entries);
        match self.writer.commit(entries, up_to).await? {
            Commit::Done => self.is_durable(up_to),
            Commit::Later => {}
        }
        Ok(())
    }

    async fn end_turn(&mut self) -> Result<(), String> {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let metrics = &self.app.metrics;
        metrics
            .providers
            .set(gauge(self.exchange.connection_count()));
        metrics
            .providers_verified
            .set(gauge(self.exchange.verified_count()));
        self.commit().await?;
        let now = self.app.clock.now();
        self.recorder.flush(now, self.exchange.core());
        self.app
            .metrics
            .journal_events_lost
            .set(self.recorder.lost_count());
        Ok(())
    }
}

/// Every step of the core goes to the journal.
struct Journal<'a> {
    recorder: &'a mut Recorder,
    app: &'a App,
}

impl Witness for Journal<'_> {
    fn before(&mut self, now: Tick, event: &Event<'_>) {
        self.recorder.event(now, event);
        self.app.metrics.events.inc();
    }

    fn after(
        &mut self,
        _now: Tick,
        _event: &Event<'_>,
        _stepped: Result<(), Misuse>,
        effects: &Effects,
        _core: &Coordinator,
    ) {
        self.recorder.effects(effects, 0);
    }
}

/// A line for each request that gets no whole answer, without a word of what was said.
fn log_denied(request: &Answer, denial: Denial, outcome: Outcome, after_ms: u64) {
    let about = request.about();
    tracing::info!(
        request = %request.id(),
        account = about.account.0,
        model = about.model,
        prompt_tokens = about.prompt_tokens,
        completion_tokens = request.piece_count(),
        status = if request.has_begun() { 200 } else { denial.status() },
        outcome = outcome.name(),
        why = denial.code(),
        after_ms,
        "request {}",
        outcome.name()
    );
}

fn count_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
