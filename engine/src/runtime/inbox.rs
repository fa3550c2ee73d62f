//! The way into the engine's thread: bounded, and no cancel is ever lost to a full queue.
//!
//! Cancels are a set beside the queue of jobs, so asking twice takes no more room than once, and
//! the set holds only ids of jobs that live.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cereus_core::time::{Span, Tick};

use super::prepare::Opening;
use super::snapshot::CapacitySnapshot;
use crate::chat::ChatRequest;
use crate::failure::{Failure, Reason};
use crate::grammar::Constraint;
use crate::kv::Scope;
use crate::scheduler::RowId;
use crate::scheduler::flow::Flow;
use crate::scheduler::leases::Watchdog;

#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
    /// For whoever watches the thread: its end.
    gone: Condvar,
    /// The zero of the watchdog's time.
    born: Instant,
}

#[derive(Debug)]
struct State {
    jobs: VecDeque<Arrived>,
    cancels: BTreeSet<RowId>,
    /// Jobs submitted and not yet ended.
    live: BTreeMap<RowId, Flow>,
    live_max: usize,
    /// Those of `live` that are still made ready.
    preparing: BTreeSet<RowId>,
    /// Events of a row that may be unread; no bound where nobody tells what is read.
    unread_max: Option<u32>,
    /// Rows whose reader caught up.
    resumed: BTreeSet<RowId>,
    watchdog: Watchdog,
    is_stuck: bool,
    /// The newest, until the thread has taken it.
    grant_bytes: Option<u64>,
    mode: Mode,
    /// Somebody has something for the thread that does not come by here.
    is_woken: bool,
    snapshot: CapacitySnapshot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Open,
    /// No new job; those taken are finished.
    Draining,
    /// Draining, and then the thread ends.
    Stopping,
    /// The thread is gone.
    Gone,
}

#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) id: RowId,
    pub(super) scope: Option<Scope>,
    /// Or why it cannot be served, which the thread tells like every end.
    pub(super) asked: Result<Asked, Failure>,
    pub(super) at: Instant,
}

/// A request that was read on the thread that handed it in.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: ChatRequest,
    /// Absent where the backend is asked on its own thread.
    pub(super) opening: Option<Opening>,
    pub(super) constraint: Option<Box<dyn Constraint>>,
}

/// What the thread finds when it looks.
#[derive(Debug)]
pub(super) struct Mail {
    pub(super) jobs: VecDeque<Arrived>,
    pub(super) cancels: BTreeSet<RowId>,
    pub(super) resumed: BTreeSet<RowId>,
    pub(super) grant_bytes: Option<u64>,
    pub(super) mode: Mode,
}

/// Whether the thread has something else to do while there is no mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    Look,
    /// Nothing goes on before there is mail, or that time comes.
    Until(Instant),
    /// The same, or the thread is to stop.
    Wait(Option<Instant>),
}

impl State {
    fn check(&self, id: RowId) -> Result<(), Failure> {
        if self.mode != Mode::Open {
            return Err(Failure::new(
                Reason::Draining,
                "this engine is shutting down",
            ));
        }
        if self.live.len() >= self.live_max {
            return Err(Failure::new(
                Reason::QueueFull,
                "the engine's queue is full",
            ));
        }
        if self.live.contains_key(&id) {
            return Err(Failure::client("a job of this id is being served"));
        }
        Ok(())
    }
}

impl State {
    fn has_no_mail(&self) -> bool {
        self.jobs.is_empty()
            // The cancel of a job that is still being prepared waits for it, and is no mail until
            // then.
            && self.cancels.is_subset(&self.preparing)
            && self.resumed.is_empty()
            && self.grant_bytes.is_none()
            && !self.is_woken
    }

    fn lose_all(&mut self) -> BTreeSet<RowId> {
        self.mode = Mode::Gone;
        self.jobs.clear();
        self.preparing.clear();
        self.cancels.clear();
        self.resumed.clear();
        self.snapshot = CapacitySnapshot {
            has_crashed: true,
            ..CapacitySnapshot::default()
        };
        std::mem::take(&mut self.live).into_keys().collect()
    }
}

fn span(time: Duration) -> Span {
    Span(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

impl Inbox {
    pub(super) fn new(live_max: usize, unread_max: Option<u32>) -> Self {
        Self {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                cancels: BTreeSet::new(),
                live: BTreeMap::new(),
                live_max,
                preparing: BTreeSet::new(),
                unread_max,
                resumed: BTreeSet::new(),
                watchdog: Watchdog::REFERENCE,
                is_stuck: false,
                grant_bytes: None,
                mode: Mode::Open,
                is_woken: false,
                snapshot: CapacitySnapshot::default(),
            }),
            changed: Condvar::new(),
            gone: Condvar::new(),
            born: Instant::now(),
        }
    }

    /// Whether a job may come in now; the answer may be another one in a moment.
    pub(super) fn check(&self, id: RowId) -> Result<(), Failure> {
        self.lock().check(id)
    }

    pub(super) fn submit(&self, arrived: Arrived) -> Result<(), Failure> {
        let mut state = self.lock();
        state.check(arrived.id)?;
        state.live.insert(arrived.id, Flow::default());
        state.jobs.push_back(arrived);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Keeps a place for a job that is yet to be made ready.
    pub(super) fn reserve(&self, id: RowId) -> Result<(), Failure> {
        let mut state = self.lock();
        state.check(id)?;
        state.live.insert(id, Flow::default());
        state.preparing.insert(id);
        Ok(())
    }

    /// Whether anybody still waits for a job that is being made ready.
    pub(super) fn is_wanted(&self, id: RowId) -> bool {
        let state = self.lock();
        state.preparing.contains(&id) && !state.cancels.contains(&id)
    }

    /// A job that a place was kept for. One whose engine is lost meanwhile has had its end.
    pub(super) fn ready(&self, arrived: Arrived) {
        let mut state = self.lock();
        if state.preparing.remove(&arrived.id) {
            state.jobs.push_back(arrived);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Unknown ids are passed over: their job ended a moment ago.
    pub(super) fn cancel(&self, id: RowId) {
        let mut state = self.lock();
        if state.live.contains_key(&id) {
            state.cancels.insert(id);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Has the thread look around.
    pub(super) fn wake(&self) {
        self.lock().is_woken = true;
        self.changed.notify_one();
    }

    pub(super) fn grant(&self, bytes: u64) {
        self.lock().grant_bytes = Some(bytes);
        self.changed.notify_one();
    }

    /// Modes go forwards only.
    pub(super) fn set_mode(&self, mode: Mode) {
        let mut state = self.lock();
        let rank = |mode| match mode {
            Mode::Open => 0,
            Mode::Draining => 1,
            Mode::Stopping => 2,
            Mode::Gone => 3,
        };
        if rank(mode) > rank(state.mode) {
            state.mode = mode;
        }
        drop(state);
        self.changed.notify_one();
        if mode == Mode::Gone {
            self.gone.notify_all();
        }
    }

    pub(super) fn mail(&self, patience: Patience) -> Mail {
        let mut state = self.lock();
        while state.has_no_mail() {
            let wait = match patience {
                Patience::Look => break,
                // A stop is no mail, so it does not end the wait by itself; it does once no job is
                // being prepared.
                Patience::Wait(_) if state.mode == Mode::Stopping && state.preparing.is_empty() => {
                    break;
                }
                Patience::Wait(None) => Duration::MAX,
                Patience::Until(at) | Patience::Wait(Some(at)) => {
                    at.saturating_duration_since(Instant::now())
                }
            };
            if wait.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(state, wait);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.is_woken = false;
        let State {
            cancels, preparing, ..
        } = &mut *state;
        let early = cancels.intersection(preparing).copied().collect();
        let cancels = std::mem::replace(cancels, early);
        let cancels = cancels.difference(&state.preparing).copied().collect();
        // The engine's thread may not end while jobs are still being prepared: somebody must answer
        // them.
        let mode = match state.mode {
            Mode::Stopping if !state.preparing.is_empty() => Mode::Draining,
            mode => mode,
        };
        Mail {
            jobs: std::mem::take(&mut state.jobs),
            cancels,
            resumed: std::mem::take(&mut state.resumed),
            grant_bytes: state.grant_bytes.take(),
            mode,
        }
    }

    /// The job's last event goes out now; its id may be used again.
    pub(super) fn ended(&self, id: RowId) {
        let mut state = self.lock();
        assert!(state.live.remove(&id).is_some(), "a job ends once (INV-02)");
        state.cancels.remove(&id);
        state.resumed.remove(&id);
    }

    /// An event of the row goes out. Whether the row is to pause.
    pub(super) fn said(&self, id: RowId) -> bool {
        let mut state = self.lock();
        let unread_max = state.unread_max;
        let flow = state.live.get_mut(&id);
        flow.zip(unread_max)
            .is_some_and(|(flow, unread_max)| flow.said(unread_max))
    }

    /// Unknown ids are passed over: their job ended a moment ago.
    pub(super) fn read(&self, id: RowId, events: u32) {
        let mut state = self.lock();
        let unread_max = state.unread_max;
        if let Some((flow, unread_max)) = state.live.get_mut(&id).zip(unread_max)
            && flow.read(events, unread_max)
        {
            state.resumed.insert(id);
            drop(state);
            self.changed.notify_one();
        }
    }

    pub(super) fn watch(&self, step_time_max: Duration) {
        self.lock().watchdog = Watchdog::new(span(step_time_max));
    }

    pub(super) fn step_began(&self) {
        let now = self.now();
        self.lock().watchdog.step_began(now);
    }

    /// Whether the step ended in time. After one that did not, all jobs were failed, and the thread
    /// says no more of any.
    pub(super) fn step_ended(&self) -> bool {
        let mut state = self.lock();
        state.watchdog.step_ended();
        !state.is_stuck
    }

    /// Waits for a step that does not end, and takes the jobs that live; none when the thread ends
    /// before.
    pub(super) fn when_stuck(&self) -> BTreeSet<RowId> {
        let poll_every = Duration::from_micros(Watchdog::POLL_EVERY.0);
        let mut state = self.lock();
        loop {
            if state.mode == Mode::Gone {
                return BTreeSet::new();
            }
            if state.watchdog.is_stuck(self.now()) {
                state.is_stuck = true;
                return state.lose_all();
            }
            let waited = self.gone.wait_timeout(state, poll_every);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The thread is in a step that does not end: nobody should wait for it.
    pub(super) fn is_stuck(&self) -> bool {
        self.lock().is_stuck
    }

    fn now(&self) -> Tick {
        Tick(span(self.born.elapsed()).0)
    }

    /// The thread panicked: takes no more jobs and hands out those that live, each to be failed.
    pub(super) fn crashed(&self) -> BTreeSet<RowId> {
        self.lock().lose_all()
    }

    pub(super) fn publish(&self, snapshot: CapacitySnapshot) {
        self.lock().snapshot = snapshot;
    }

    pub(super) fn snapshot(&self) -> CapacitySnapshot {
        let state = self.lock();
        let mut snapshot = state.snapshot;
        // Jobs that the thread has not looked at yet wait as well.
        let unseen = state.jobs.len() + state.preparing.len();
        let unseen = u32::try_from(unseen).unwrap_or(u32::MAX);
        snapshot.num_waiting = snapshot.num_waiting.saturating_add(unseen);
        snapshot
    }

    /// A panic elsewhere leaves this state whole: each change is one assignment.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
