//! The tasks' turns. Each takes from what waits for it as its twin in the shell does: the control task
//! a batch, a connection's task one thing after another; which source comes first is drawn, as `select!`
//! draws it.

use std::collections::VecDeque;

use cereus_core::event::Event;
use cereus_core::exchange::{ConnectionEffect, ConnectionEvent, ControlEffect, ControlEvent};
use cereus_core::ids::{AttemptKey, ConnId, RequestId};
use cereus_core::time::Tick;

use super::witness::Oracles;
use super::{Checked, CoordinatorProcess, Heard, ProcessEffect, Surroundings, Task};
use crate::oracle::{MoneyModel, Origin, Violation, require};
use crate::swarm::Plant;

/// Events of one turn of the control task.
const BATCH_MAX: u64 = 256;
/// Things that a connection's task takes before another task has its turn.
const TAKES_MAX: u64 = 8;

/// Where a task takes its next thing from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Durable,
    Heard,
    Inbox,
    LetGo,
    Orders,
    Wake,
}

impl CoordinatorProcess {
    /// A turn of `task`, whose time has come.
    pub(in crate::swarm) fn run(
        &mut self,
        now: Tick,
        task: Task,
        by: &mut Surroundings<'_>,
    ) -> Checked {
        self.due.remove(&task);
        match task {
            Task::Connection(_) if self.is_inbox_full() => {
                self.blocked.insert(task);
                return Ok(());
            }
            Task::Connection(conn) => {
                for _ in 0..by.order.between(1, TAKES_MAX) {
                    self.run_connection(now, conn, by)?;
                    if self.is_inbox_full() {
                        break;
                    }
                }
            }
            Task::Control => self.run_control(now, by)?,
        }
        if !self.is_inbox_full() {
            for blocked in core::mem::take(&mut self.blocked) {
                self.want(blocked, by);
            }
        }
        self.answers.drain(by.effects);
        let waits = match task {
            Task::Connection(conn) => !self.connection_sources(conn).is_empty(),
            Task::Control => !self.control_sources().is_empty(),
        };
        if waits {
            self.want(task, by);
        }
        Ok(())
    }

    /// Whoever has something for the control task waits until it has made room.
    fn is_inbox_full(&self) -> bool {
        self.inbox.events.len() >= usize::from(self.limits.inbox_max)
    }

    fn run_control(&mut self, now: Tick, by: &mut Surroundings<'_>) -> Checked {
        match drawn(&self.control_sources(), by) {
            Some(Source::Durable) => {
                if let Some(up_to) = self.inbox.durable.take() {
                    let event = ControlEvent::Happened(Event::Persisted { up_to });
                    self.step_control(now, Origin::Inside, event, by)?;
                }
            }
            Some(Source::Inbox) => {
                let waiting = u64::try_from(self.inbox.events.len()).expect("few events");
                for _ in 0..by.order.between(1, waiting.min(BATCH_MAX)) {
                    let (origin, event) = self.inbox.events.pop_front().expect("counted above");
                    if !self.is_late_repeat(&event) {
                        self.step_control(now, origin, event, by)?;
                    }
                }
            }
            Some(Source::Wake) => {
                self.inbox.is_woken = false;
                let event = ControlEvent::Happened(Event::Woke);
                self.step_control(now, Origin::Inside, event, by)?;
            }
            Some(Source::Heard | Source::LetGo | Source::Orders) | None => {}
        }
        if let Some((at, _)) = self.control.core().next_wake() {
            let task = Task::Control;
            by.effects.push(ProcessEffect::Wake { at, task });
        }
        Ok(())
    }

    /// A request is repeated while it is open; one that waited here until its end came is none.
    fn is_late_repeat(&mut self, event: &ControlEvent<RequestId>) -> bool {
        let ControlEvent::Arrived { request, .. } = event else {
            return false;
        };
        let is_first = self.arrived.insert(*request);
        !is_first && !self.watch.requests.is_open(*request)
    }

    fn control_sources(&self) -> Vec<Source> {
        let inbox = &self.inbox;
        [
            (inbox.durable.is_some(), Source::Durable),
            (!inbox.events.is_empty(), Source::Inbox),
            (inbox.is_woken, Source::Wake),
        ]
        .into_iter()
        .filter_map(|(waits, source)| waits.then_some(source))
        .collect()
    }

    /// One event and all that follows from it, orders that find no room included.
    fn step_control(
        &mut self,
        now: Tick,
        origin: Origin,
        event: ControlEvent<RequestId>,
        by: &mut Surroundings<'_>,
    ) -> Checked {
        let mut origin = Some(origin);
        let mut next = Some(event);
        let mut refused = VecDeque::new();
        while let Some(event) = next {
            let mut out = core::mem::take(&mut self.control_out);
            let mut oracles = Oracles {
                watch: &mut self.watch,
                money: by.money,
                origin: origin.take(),
                observer: self.observer,
                marker: &mut self.marker,
                recording: self.recording.as_mut(),
                steps: 0,
                verdict: Ok(()),
            };
            self.control.step(now, event, &mut oracles, &mut out);
            by.steps += oracles.steps;
            oracles.verdict?;
            for effect in out.drain(..) {
                self.follow_control(now, effect, &mut refused, by)?;
            }
            by.money.require_receipts()?;
            self.control_out = out;
            next = refused.pop_front();
        }
        Ok(())
    }

    fn follow_control(
        &mut self,
        now: Tick,
        effect: ControlEffect<RequestId>,
        refused: &mut VecDeque<ControlEvent<RequestId>>,
        by: &mut Surroundings<'_>,
    ) -> Checked {
        match effect {
            ControlEffect::Charged { receipt, .. } => by.money.receipted(&receipt),
            ControlEffect::Finished { request, receipt } => {
                by.money.receipted(&receipt);
                self.answers
                    .finished(request, receipt.usage.completion_tokens);
            }
            ControlEffect::LetGo { conn } => {
                if let Some(post) = self.posts.get_mut(&conn) {
                    post.is_let_go = true;
                    self.want(Task::Connection(conn), by);
                }
            }
            ControlEffect::Order { conn, order } => {
                let orders_max = self.limits.orders_max;
                let room = self
                    .posts
                    .get_mut(&conn)
                    .filter(|post| !post.is_let_go && post.orders.len() < usize::from(orders_max));
                match room {
                    Some(post) => {
                        post.orders.push_back(order);
                        self.want(Task::Connection(conn), by);
                    }
                    None => refused.push_back(ControlEvent::OrderRefused { conn, order }),
                }
            }
            ControlEffect::Post { transfer, .. } => {
                let receipt = transfer.request();
                let receipt = receipt.and_then(|request| self.core().settled(request));
                MoneyModel::require_receipt_beside(&transfer, receipt.as_ref())?;
                by.effects.push(ProcessEffect::Post { transfer });
            }
            ControlEffect::Relay { request, event } => self.answers.step(now, request, event),
            // Nothing is left to do for these: the oracles have seen the misuse, and the consumer
            // was told of the end.
            ControlEffect::Alarm { .. }
            | ControlEffect::CreditRefused { .. }
            | ControlEffect::Denied { .. }
            | ControlEffect::Drained
            | ControlEffect::Released { .. }
            | ControlEffect::WasMisused(_) => {}
        }
        Ok(())
    }

    fn run_connection(&mut self, now: Tick, conn: ConnId, by: &mut Surroundings<'_>) -> Checked {
        let source = drawn(&self.connection_sources(conn), by);
        let Some(post) = self.posts.get_mut(&conn) else {
            return Ok(());
        };
        match source {
            Some(Source::Heard) => match post.heard.pop_front() {
                Some(Heard::Closed) => self.step_connection(
                    now,
                    conn,
                    ConnectionEvent::SocketClosed { code: None },
                    by,
                ),
                Some(Heard::Frame(frame)) => {
                    let owed = self.terminals.owed(now, conn, &frame);
                    self.step_connection(now, conn, ConnectionEvent::FrameReceived(&frame), by)?;
                    self.require_told(now, conn, owed, &frame)
                }
                Some(Heard::Written) => {
                    self.step_connection(now, conn, ConnectionEvent::WriteFinished, by)
                }
                None => Ok(()),
            },
            Some(Source::LetGo) => self.step_connection(now, conn, ConnectionEvent::LetGo, by),
            Some(Source::Orders) => match post.orders.pop_front() {
                Some(order) => {
                    self.terminals.ordered(now, conn, &order);
                    self.step_connection(now, conn, ConnectionEvent::Ordered(order), by)
                }
                None => Ok(()),
            },
            Some(Source::Wake) => {
                post.is_woken = false;
                self.step_connection(now, conn, ConnectionEvent::Woke, by)
            }
            Some(Source::Durable | Source::Inbox) | None => Ok(()),
        }
    }

    fn connection_sources(&self, conn: ConnId) -> Vec<Source> {
        let Some(post) = self.posts.get(&conn) else {
            return Vec::new();
        };
        [
            (!post.heard.is_empty(), Source::Heard),
            (post.is_let_go && post.orders.is_empty(), Source::LetGo),
            (!post.orders.is_empty(), Source::Orders),
            (post.is_woken, Source::Wake),
        ]
        .into_iter()
        .filter_map(|(waits, source)| waits.then_some(source))
        .collect()
    }

    /// INV-24: the end that a provider says of an attempt is on its way to the core in the same step,
    /// whoever has left meanwhile.
    fn require_told(
        &self,
        now: Tick,
        conn: ConnId,
        owed: Option<AttemptKey>,
        frame: &[u8],
    ) -> Checked {
        let Some(attempt) = owed else { return Ok(()) };
        let still_owed = self.terminals.owed(now, conn, frame);
        require(still_owed.is_none(), "INV-24", || {
            format!("{conn:?} ends {attempt:?} and the core does not hear of it")
        })
    }

    fn step_connection(
        &mut self,
        now: Tick,
        conn: ConnId,
        event: ConnectionEvent<'_, RequestId>,
        by: &mut Surroundings<'_>,
    ) -> Checked {
        let Some(post) = self.posts.get_mut(&conn) else {
            return Ok(());
        };
        let mut out = core::mem::take(&mut self.connection_out);
        let answers = &mut self.answers;
        post.connection
            .step(now, event, &self.rules, answers, &mut out);
        if let Some(machine) = post.connection.link().machine() {
            self.machines.insert(conn, machine);
            let newest = self.newest.entry(machine).or_insert(conn);
            *newest = conn.max(*newest);
        }
        match post.connection.next_wake() {
            Some(at) => {
                let task = Task::Connection(conn);
                by.effects.push(ProcessEffect::Wake { at, task });
            }
            None => {
                // The task has ended, and what waited for it goes with it.
                self.posts.remove(&conn);
            }
        }
        for effect in out.drain(..) {
            self.follow_connection(conn, effect, by)?;
        }
        self.connection_out = out;
        Ok(())
    }

    fn follow_connection(
        &mut self,
        conn: ConnId,
        effect: ConnectionEffect,
        by: &mut Surroundings<'_>,
    ) -> Checked {
        match effect {
            ConnectionEffect::Close { .. } => by.effects.push(ProcessEffect::Hangup { conn }),
            ConnectionEffect::Tell(event) => {
                self.terminals.told(&event);
                let event = ControlEvent::Happened(self.mislabelled(conn, event));
                self.post(Origin::Connection(conn), event, by);
            }
            ConnectionEffect::WasMisused(misuse) => {
                return Err(Violation {
                    law: "INV-16",
                    what: format!("the link was misused: {misuse:?}"),
                });
            }
            ConnectionEffect::Write { frame, deadline: _ } => {
                by.effects.push(ProcessEffect::Write { conn, frame });
            }
        }
        Ok(())
    }

    /// The planted bug of connections: what an old one says is taken for the new one's word.
    fn mislabelled(&self, conn: ConnId, event: Event<'static>) -> Event<'static> {
        let newest = self
            .machines
            .get(&conn)
            .and_then(|machine| self.newest.get(machine));
        let (Some(Plant::OldConnection), Some(&newest), Event::ProviderLeft { cause, .. }) =
            (self.plant, newest, &event)
        else {
            return event;
        };
        Event::ProviderLeft {
            conn: newest,
            cause: *cause,
        }
    }
}

fn drawn(sources: &[Source], by: &mut Surroundings<'_>) -> Option<Source> {
    let count = u64::try_from(sources.len()).expect("few sources");
    let ix = usize::try_from(by.order.below(count)).expect("below a length");
    sources.get(ix).copied()
}
