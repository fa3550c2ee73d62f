//! One answer between a provider's connection and a consumer's: the request's [`Relay`] with what
//! wakes its two sides.
//!
//! The connection's task feeds chunks in, the coordinator's task releases and ends, the consumer's
//! takes bytes out. A lock is held for one step of the relay, never across an await.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use cereus_core::denial::Denial;
use cereus_core::event::Event;
use cereus_core::ids::{AttemptKey, RequestId};
use cereus_core::relay::{AttemptNews, Relay, RelayEffect, RelayEvent, Trail};
use cereus_core::time::Tick;

use crate::app::App;
use crate::control::Notice;
use crate::ending::{About, Outcome};
use crate::receipts::Sealing;

pub(crate) struct Answer {
    id: RequestId,
    about: About,
    arrived_at: Tick,
    /// Whose prompts it may share a provider's cache with.
    scope: String,
    shared: Mutex<Shared>,
}

/// What was asked.
pub(crate) struct Asked {
    pub(crate) id: RequestId,
    pub(crate) about: About,
    /// What is sealed to a provider, with its place in the room for bodies.
    pub(crate) body: Bytes,
    /// Whose prompts it may share a provider's cache with.
    pub(crate) scope: String,
}

struct Shared {
    relay: Relay,
    /// What is sealed to a provider; each attempt seals it anew. It goes once no other provider can need
    /// it, and its room with it: with the first bytes that the consumer sees, or with a denial, after
    /// which the request may still be waited for by its receipt.
    body: Option<Bytes>,
    /// Reused by every step.
    effects: Vec<RelayEffect>,
    sealing: Sealing,
    head: Option<Head>,
    /// Pieces of content that came: about as many tokens.
    piece_count: u32,
    /// Its consumer has gone before the end.
    has_left: bool,
    is_closed: bool,
    waker: Option<Waker>,
}

/// How the reply begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Open,
    Refused(Denial),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({})", self.id)
    }
}

impl Answer {
    pub(crate) fn new(now: Tick, asked: Asked, relay: Relay) -> Arc<Self> {
        Arc::new(Self {
            id: asked.id,
            about: asked.about,
            arrived_at: now,
            scope: asked.scope,
            shared: Mutex::new(Shared {
                relay,
                body: Some(asked.body),
                effects: Vec::new(),
                sealing: Sealing::default(),
                head: None,
                piece_count: 0,
                has_left: false,
                is_closed: false,
                waker: None,
            }),
        })
    }

    pub(crate) const fn id(&self) -> RequestId {
        self.id
    }

    pub(crate) const fn about(&self) -> &About {
        &self.about
    }

    /// Whether its reply has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.shared().head == Some(Head::Open)
    }

    pub(crate) fn piece_count(&self) -> u32 {
        self.shared().piece_count
    }

    /// Of a request that is paid for.
    pub(crate) fn paid_outcome(&self) -> Outcome {
        match self.shared().has_left {
            true => Outcome::Left,
            false => Outcome::Finished,
        }
    }

    pub(crate) const fn arrived_at(&self) -> Tick {
        self.arrived_at
    }

    /// The request's body; `None` once it can be sent to no provider any more.
    pub(crate) fn body(&self) -> Option<Bytes> {
        self.shared().body.clone()
    }

    pub(crate) fn scope(&self) -> &str {
        &self.scope
    }

    pub(crate) fn sealing(&self) -> Sealing {
        self.shared().sealing.clone()
    }

    pub(crate) fn sealed_with(&self, sealing: Sealing) {
        self.shared().sealing = sealing;
    }

    /// What its relay was told so far.
    pub(crate) fn trail(&self) -> Trail {
        self.shared().relay.trail().clone()
    }

    /// One step of the relay that concerns the consumer only.
    pub(crate) fn step(&self, now: Tick, event: RelayEvent<'_>) {
        let mut out = Vec::new();
        self.shared().step(now, event, &mut out);
        assert!(out.is_empty(), "it concerns the consumer only");
    }

    /// One step of the relay and how `attempt` stands then, under one lock. What concerns the attempt
    /// goes to `out`.
    pub(crate) fn step_attempt(
        &self,
        now: Tick,
        attempt: AttemptKey,
        event: RelayEvent<'_>,
        out: &mut Vec<RelayEffect>,
    ) -> AttemptNews {
        let mut shared = self.shared();
        shared.step(now, event, out);
        let news = shared.relay.news_of(attempt);
        shared.piece_count = shared.piece_count.max(news.shown.pieces);
        news
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no holder of this lock panics")
    }
}

/// The consumer's end. Dropping it before the answer is over tells the coordinator.
pub(crate) struct Stream {
    app: Arc<App>,
    request: RequestId,
    answer: Arc<Answer>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({})", self.request)
    }
}

impl Stream {
    pub(crate) fn new(app: Arc<App>, request: RequestId, answer: Arc<Answer>) -> Self {
        Self {
            app,
            request,
            answer,
        }
    }

    /// Waits until the reply can begin. Cancel safe.
    pub(crate) async fn head(&self) -> Head {
        poll_fn(|context| {
            let mut shared = self.answer.shared();
            match shared.head {
                Some(head) => Poll::Ready(head),
                None => wait(&mut shared, context),
            }
        })
        .await
    }

    /// Waits for all that there is to be. Cancel safe.
    pub(crate) async fn whole(&self) -> Bytes {
        poll_fn(|context| {
            let mut shared = self.answer.shared();
            if shared.is_closed {
                return Poll::Ready(());
            }
            wait(&mut shared, context)
        })
        .await;
        self.answer.shared().taken()
    }

    /// Everything that has gathered since the last time, as one piece.
    pub(crate) fn poll_bytes(&self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        // One lock for looking and for leaving the waker: a piece that came in between would wake
        // nobody.
        let mut shared = self.answer.shared();
        let bytes = shared.taken();
        if !bytes.is_empty() {
            return Poll::Ready(Some(bytes));
        }
        if shared.is_closed {
            return Poll::Ready(None);
        }
        wait(&mut shared, context)
    }
}

impl Shared {
    /// What concerns the consumer is done here.
    fn step(&mut self, now: Tick, event: RelayEvent<'_>, out: &mut Vec<RelayEffect>) {
        if matches!(
            event,
            RelayEvent::ConsumerLeft | RelayEvent::Denied { .. } | RelayEvent::Finished { .. }
        ) {
            self.body = None;
        }
        self.has_left |= matches!(
            event,
            RelayEvent::ConsumerLeft
                | RelayEvent::Denied {
                    denial: Denial::Cancelled
                }
        );
        self.relay.step(now, event, &mut self.effects);
        let mut is_news = false;
        for effect in self.effects.drain(..) {
            match effect {
                RelayEffect::Open => {
                    self.head = Some(Head::Open);
                    self.body = None;
                    is_news = true;
                }
                RelayEffect::Readable => is_news = true,
                RelayEffect::Refuse { denial } => {
                    self.head = Some(Head::Refused(denial));
                    self.is_closed = true;
                    is_news = true;
                }
                RelayEffect::Close => {
                    self.is_closed = true;
                    is_news = true;
                }
                RelayEffect::AttemptCut { .. }
                | RelayEffect::AttemptFailed { .. }
                | RelayEffect::AttemptProgressed { .. }
                | RelayEffect::AttemptStarted { .. } => out.push(effect),
            }
        }
        if is_news && let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn taken(&mut self) -> Bytes {
        let mut bytes = Vec::new();
        self.relay.take(&mut bytes);
        Bytes::from(bytes)
    }
}

fn wait<T>(shared: &mut Shared, context: &Context<'_>) -> Poll<T> {
    match &mut shared.waker {
        Some(waker) => waker.clone_from(context.waker()),
        None => shared.waker = Some(context.waker().clone()),
    }
    Poll::Pending
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.answer.shared().relay.is_over() {
            return;
        }
        self.answer
            .step(self.app.clock.now(), RelayEvent::ConsumerLeft);
        let notice = Notice::Happened(Event::ConsumerLeft {
            request: self.request,
        });
        if let Err(unsent) = self.app.control.try_send(notice) {
            // The inbox is full. The coordinator must hear of it all the same, or it would hold the
            // money and the machine.
            let control = self.app.control.clone();
            let Ok(runtime) = tokio::runtime::Handle::try_current() else {
                return;
            };
            runtime.spawn(async move {
                let _ = control.send(unsent.into_inner()).await;
            });
        }
    }
}
