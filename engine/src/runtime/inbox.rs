//! The way into the engine's thread: bounded, and no cancel is ever lost to a full queue.
//!
//! Cancels are a set beside the queue of jobs, so asking twice takes no more room than once, and
//! the set holds only ids of jobs that live.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::snapshot::CapacitySnapshot;
use crate::chat::ChatRequest;
use crate::failure::{Failure, Reason};
use crate::grammar::Constraint;
use crate::kv::Scope;
use crate::scheduler::RowId;

#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    jobs: VecDeque<Arrived>,
    cancels: BTreeSet<RowId>,
    /// Jobs submitted and not yet ended.
    live: BTreeSet<RowId>,
    live_max: usize,
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
    pub(super) constraint: Option<Box<dyn Constraint>>,
}

/// What the thread finds when it looks.
#[derive(Debug)]
pub(super) struct Mail {
    pub(super) jobs: VecDeque<Arrived>,
    pub(super) cancels: BTreeSet<RowId>,
    pub(super) grant_bytes: Option<u64>,
    pub(super) mode: Mode,
}

/// Whether the thread has something else to do while there is no mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    Look,
    /// If there is no mail before, until then.
    Wait(Option<Instant>),
}

impl State {
    fn has_mail(&self) -> bool {
        !self.jobs.is_empty()
            || !self.cancels.is_empty()
            || self.grant_bytes.is_some()
            || self.is_woken
            || self.mode == Mode::Stopping
    }

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
        if self.live.contains(&id) {
            return Err(Failure::client("a job of this id is being served"));
        }
        Ok(())
    }
}

impl Inbox {
    pub(super) fn new(live_max: usize) -> Self {
        Self {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                cancels: BTreeSet::new(),
                live: BTreeSet::new(),
                live_max,
                grant_bytes: None,
                mode: Mode::Open,
                is_woken: false,
                snapshot: CapacitySnapshot::default(),
            }),
            changed: Condvar::new(),
        }
    }

    /// Whether a job may come in now; the answer may be another one in a moment.
    pub(super) fn check(&self, id: RowId) -> Result<(), Failure> {
        self.lock().check(id)
    }

    pub(super) fn submit(&self, arrived: Arrived) -> Result<(), Failure> {
        let mut state = self.lock();
        state.check(arrived.id)?;
        state.live.insert(arrived.id);
        state.jobs.push_back(arrived);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Unknown ids are passed over: their job ended a moment ago.
    pub(super) fn cancel(&self, id: RowId) {
        let mut state = self.lock();
        if state.live.contains(&id) {
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
    }

    pub(super) fn mail(&self, patience: Patience) -> Mail {
        let mut state = self.lock();
        while let Patience::Wait(until) = patience
            && !state.has_mail()
        {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            state = match left {
                None => {
                    let woken = self.changed.wait(state);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
                Some(Duration::ZERO) => break,
                Some(left) => {
                    let woken = self.changed.wait_timeout(state, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        state.is_woken = false;
        Mail {
            jobs: std::mem::take(&mut state.jobs),
            cancels: std::mem::take(&mut state.cancels),
            grant_bytes: state.grant_bytes.take(),
            mode: state.mode,
        }
    }

    /// The job's last event goes out now; its id may be used again.
    pub(super) fn ended(&self, id: RowId) {
        let mut state = self.lock();
        assert!(state.live.remove(&id), "a job ends once (INV-02)");
        state.cancels.remove(&id);
    }

    /// The thread panicked: takes no more jobs and hands out those that live, each to be failed.
    pub(super) fn crashed(&self) -> BTreeSet<RowId> {
        let mut state = self.lock();
        state.mode = Mode::Gone;
        state.jobs.clear();
        state.cancels.clear();
        state.snapshot = CapacitySnapshot {
            has_crashed: true,
            ..CapacitySnapshot::default()
        };
        std::mem::take(&mut state.live)
    }

    pub(super) fn publish(&self, snapshot: CapacitySnapshot) {
        self.lock().snapshot = snapshot;
    }

    pub(super) fn snapshot(&self) -> CapacitySnapshot {
        let state = self.lock();
        let mut snapshot = state.snapshot;
        // Jobs that the thread has not looked at yet wait as well.
        let unseen = u32::try_from(state.jobs.len()).unwrap_or(u32::MAX);
        snapshot.num_waiting = snapshot.num_waiting.saturating_add(unseen);
        snapshot
    }

    /// A panic elsewhere leaves this state whole: each change is one assignment.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
