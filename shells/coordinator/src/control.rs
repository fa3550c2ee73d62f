//! The one task that owns the [`Coordinator`]: drains its inbox in batches, steps, carries out.
//!
//! It hears of events only; the bytes of answers go past it. It never waits for a consumer or a
//! provider: whoever cannot take an order at once is let go.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use cereus_core::coordinator::Coordinator;
use cereus_core::denial::Denial;
use cereus_core::effect::{Effect, Effects, TransferKind};
use cereus_core::event::{Ask, AttemptFault, Event, GoneCause};
use cereus_core::ids::{AttemptKey, ConnId, ModelIx, RequestId, WireId};
use cereus_core::time::Tick;
use tokio::sync::{mpsc, watch};

use crate::answer::Answer;
use crate::app::App;
use crate::journal::Recorder;
use crate::store::WaitingDeposit;
use crate::store::writer::{Durable, Entry, Writer};

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
}

/// What the coordinator tells the task of a provider's connection.
#[derive(Debug)]
pub(crate) enum Order {
    Cancel {
        attempt: AttemptKey,
    },
    Close {
        cause: GoneCause,
    },
    Dispatch {
        attempt: AttemptKey,
        wire: WireId,
        answer: Arc<Answer>,
    },
    /// Going away for a deployment.
    Drain,
    LoadModel {
        model: ModelIx,
    },
}

/// Why the loop ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Drained,
    StoreFailed(String),
}

pub(crate) struct Control {
    app: Arc<App>,
    core: Coordinator,
    out: Effects,
    recorder: Recorder,
    writer: Writer,
    durable: watch::Receiver<Durable>,
    providers: HashMap<ConnId, Line>,
    answers: HashMap<RequestId, Arc<Answer>>,
    /// Deposits in the order in which the core heard of them.
    crediting: VecDeque<i64>,
    /// What this turn posted.
    entries: Vec<Entry>,
    posted_up_to: u64,
    /// Events that carrying out effects gave rise to.
    echoes: VecDeque<Event<'static>>,
    /// When the newest batch went to the store.
    committing: VecDeque<Committing>,
    is_drained: bool,
}

/// The way to a registered provider's connection.
struct Line {
    orders: mpsc::Sender<Order>,
    /// Passed its last challenge; for the display, the core keeps its own account.
    is_verified: bool,
}

struct Committing {
    up_to: u64,
    at: Tick,
}

impl Control {
    pub(crate) fn new(
        app: Arc<App>,
        recorder: Recorder,
        writer: Writer,
        durable: watch::Receiver<Durable>,
    ) -> Self {
        Self {
            core: Coordinator::new(app.config.clone()),
            app,
            out: Effects::with_capacity(BATCH_MAX),
            recorder,
            writer,
            durable,
            providers: HashMap::new(),
            answers: HashMap::new(),
            crediting: VecDeque::new(),
            entries: Vec::new(),
            posted_up_to: 0,
            echoes: VecDeque::new(),
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
            let wake = self
                .core
                .next_wake()
                .map(|(at, _)| self.app.clock.instant(at));
            let wake_at = wake.unwrap_or_else(tokio::time::Instant::now);
            // Every branch is cancel safe: `changed`, `recv_many` and a sleep lose nothing.
            tokio::select! {
                changed = self.durable.changed() => {
                    if changed.is_err() {
                        return Ending::StoreFailed("the store's thread ended".to_owned());
                    }
                    if let Some(reason) = self.take_durable() {
                        return Ending::StoreFailed(reason);
                    }
                }
                _ = drain.wait_for(|drain| *drain), if !is_draining => {
                    is_draining = true;
                    self.happened(&Event::DrainBegan);
                }
                count = inbox.recv_many(&mut batch, BATCH_MAX) => {
                    self.app.metrics.batch_events.observe(count_f64(count));
                    for notice in batch.drain(..) {
                        self.noticed(notice);
                    }
                }
                () = tokio::time::sleep_until(wake_at), if wake.is_some() => {
                    self.happened(&Event::Woke);
                }
            }
            self.end_turn().await;
        }
        for line in self.providers.values() {
            let _ = line.orders.try_send(Order::Drain);
        }
        self.recorder.close(&self.core).await;
        Ending::Drained
    }

    fn noticed(&mut self, notice: Notice) {
        match notice {
            Notice::Happened(event) => self.happened(&event),
            Notice::Arrived { ask, answer } => {
                self.app.metrics.requests_running.inc();
                self.answers.insert(ask.request, answer);
                self.happened(&Event::Arrived(ask));
            }
            Notice::Joined {
                conn,
                orders,
                event,
            } => {
                self.providers.insert(
                    conn,
                    Line {
                        orders,
                        is_verified: false,
                    },
                );
                self.happened(&event);
            }
            Notice::Credited(deposit) => {
                self.crediting.push_back(deposit.id);
                let WaitingDeposit {
                    account, amount, ..
                } = deposit;
                self.happened(&Event::AccountCredited { account, amount });
            }
        }
    }

    /// One event and all that follows from it.
    fn happened(&mut self, event: &Event<'_>) {
        self.step(event);
        while let Some(echo) = self.echoes.pop_front() {
            self.step(&echo);
        }
    }

    fn step(&mut self, event: &Event<'_>) {
        let now = self.app.clock.now();
        self.recorder.event(now, event);
        self.app.metrics.events.inc();
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        if let Err(misuse) = self.core.step(now, event, &mut out) {
            tracing::error!(%misuse, "the core refused an event");
            self.refused(event);
        }
        self.recorder.effects(&out, 0);
        for effect in &out.list {
            self.carry_out(now, *effect, &out);
        }
        self.out = out;
        self.watch_fleet(event);
    }

    /// What `/health` and the metrics show of the fleet.
    fn watch_fleet(&mut self, event: &Event<'_>) {
        let (conn, is_verified) = match event {
            Event::ProviderLeft { conn, .. } => {
                self.providers.remove(conn);
                (conn, false)
            }
            Event::ProviderVerified { conn } => (conn, true),
            Event::ProviderDistrusted { conn } | Event::ProviderUnverified { conn } => {
                (conn, false)
            }
            Event::ProviderJoined { conn, .. } => (conn, false),
            _ => return,
        };
        if let Some(line) = self.providers.get_mut(conn) {
            line.is_verified = is_verified;
        }
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let verified = self
            .providers
            .values()
            .filter(|line| line.is_verified)
            .count();
        self.app.metrics.providers.set(gauge(self.providers.len()));
        self.app.metrics.providers_verified.set(gauge(verified));
    }

    /// The core took no notice of `event`: whoever waits for its outcome must not wait for ever.
    fn refused(&mut self, event: &Event<'_>) {
        match event {
            Event::Arrived(ask) => {
                self.app.ended("misuse");
                if let Some(answer) = self.answers.remove(&ask.request) {
                    answer.deny(self.app.clock.now(), Denial::UnknownAccount);
                }
            }
            Event::ProviderJoined { conn, .. } => {
                self.providers.remove(conn);
            }
            _ => {}
        }
    }

    fn carry_out(&mut self, now: Tick, effect: Effect, out: &Effects) {
        match effect {
            Effect::Alarm { alarm, count } => {
                tracing::warn!(?alarm, count, "alarm");
                let name = format!("{alarm:?}");
                self.app
                    .metrics
                    .alarms
                    .get_or_create(&crate::metrics::Named { name })
                    .inc();
            }
            Effect::CancelAttempt { attempt, conn } => {
                self.order(conn, Order::Cancel { attempt });
            }
            Effect::Disconnect { conn, cause } => self.order(conn, Order::Close { cause }),
            Effect::Dispatch {
                request,
                attempt,
                conn,
                wire,
            } => {
                self.dispatch(request, attempt, conn, wire);
            }
            Effect::Drained => self.is_drained = true,
            Effect::Fail { request, denial } => {
                self.app.ended(denial.code());
                if let Some(answer) = self.answers.remove(&request) {
                    answer.deny(now, denial);
                }
            }
            Effect::Finish { request, receipt } => {
                let receipt = out.receipts[usize::try_from(receipt).expect("an index of u32")];
                self.app.finished(&receipt);
                if let Some(answer) = self.answers.remove(&request) {
                    self.app.receipts.keep(receipt, answer.sealing());
                    answer.finish(now, &receipt);
                }
            }
            Effect::LoadModel { conn, model } => self.order(conn, Order::LoadModel { model }),
            Effect::Post { transfer } => {
                let transfer = out.transfers[usize::try_from(transfer).expect("an index of u32")];
                let deposit = match transfer.kind {
                    TransferKind::Deposit => self.crediting.pop_front(),
                    TransferKind::Hold | TransferKind::Settle | TransferKind::Void => None,
                };
                self.posted_up_to = transfer.seq;
                self.entries.push(Entry { transfer, deposit });
            }
            Effect::Refuse { request, denial } => {
                self.app.ended(denial.code());
                if let Some(answer) = self.answers.remove(&request) {
                    answer.deny(now, denial);
                }
            }
            Effect::Release { request } => {
                if let Some(answer) = self.answers.get(&request) {
                    let waited = now.since(answer.arrived_at());
                    self.app
                        .metrics
                        .first_content_seconds
                        .observe(waited.0 as f64 / 1e6);
                    answer.release(now);
                }
            }
        }
    }

    fn dispatch(&mut self, request: RequestId, attempt: AttemptKey, conn: ConnId, wire: WireId) {
        let sent = self.answers.get(&request).is_some_and(|answer| {
            let order = Order::Dispatch {
                attempt,
                wire,
                answer: Arc::clone(answer),
            };
            self.providers
                .get(&conn)
                .is_some_and(|line| line.orders.try_send(order).is_ok())
        });
        if !sent {
            let fault = AttemptFault::Unsent;
            self.echoes.push_back(Event::AttemptFailed {
                conn,
                attempt,
                fault,
            });
        }
    }

    /// A connection that takes no orders is let go: its task ends when its sender is dropped.
    fn order(&mut self, conn: ConnId, order: Order) {
        let Some(line) = self.providers.get(&conn) else {
            return;
        };
        if line.orders.try_send(order).is_err() {
            tracing::warn!(conn = conn.0, "a provider's connection takes no orders");
            self.providers.remove(&conn);
        }
    }

    /// Tells the core how far the ledger is on disk; the reason if it never will be again.
    fn take_durable(&mut self) -> Option<String> {
        let durable = self.durable.borrow_and_update().clone();
        match durable {
            Durable::Failed(reason) => Some(reason),
            Durable::UpTo(up_to) => {
                self.app.metrics.transfers_durable.set(up_to);
                let now = self.app.clock.now();
                while let Some(batch) = self.committing.pop_front_if(|it| it.up_to <= up_to) {
                    let took = now.since(batch.at);
                    self.app.metrics.commit_seconds.observe(took.0 as f64 / 1e6);
                }
                self.happened(&Event::Persisted { up_to });
                None
            }
        }
    }

    async fn end_turn(&mut self) {
        if !self.entries.is_empty() {
            let up_to = self.posted_up_to;
            self.app.metrics.transfers_posted.set(up_to);
            self.committing.push_back(Committing {
                up_to,
                at: self.app.clock.now(),
            });
            self.writer
                .commit(std::mem::take(&mut self.entries), up_to)
                .await;
        }
        self.recorder.flush(&self.core).await;
    }
}

fn count_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
