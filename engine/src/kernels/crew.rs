//! Helper threads for one kernel at a time.
//!
//! A decode step is a few dozen kernels of tens of microseconds each, so handing over must cost a
//! microsecond and not the tens that waking a sleeping thread takes. Helpers watch for work a short
//! while after each piece before they sleep, and the caller never waits for one that has not come:
//! what helpers do not take it does itself.
#![allow(
    unsafe_code,
    reason = "a borrowed closure crosses to threads that outlive it"
)]

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::thread::Thread;

/// Looks for work before a helper sleeps: about a tenth of a millisecond.
const LOOKS: u32 = 4_000;
/// More helpers than this would only wait for memory.
const HELPERS_MAX: usize = 7;
/// In `Shared::state`, beside the number of helpers at work.
const OPEN: usize = 1 << 31;

/// What is to be done: called once for each index below `count`.
#[derive(Clone, Copy)]
struct Work {
    call: *const (dyn Fn(usize) + Sync),
    count: usize,
}

struct Shared {
    work: UnsafeCell<Option<Work>>,
    /// `OPEN` while helpers may join, plus the number that have and not left.
    state: AtomicUsize,
    next: AtomicUsize,
    asleep: Vec<AtomicBool>,
}

// SAFETY: `work` is written by the one caller (it holds the crew's lock) while `state` is zero, so
// that no helper can be inside, and read by helpers only between joining and leaving.
unsafe impl Sync for Shared {}

struct Crew {
    shared: &'static Shared,
    threads: Vec<Thread>,
}

static CREW: LazyLock<Mutex<Crew>> = LazyLock::new(|| Mutex::new(Crew::new()));

/// Calls `work` once for each index below `count`, on this thread and on idle ones. Which does
/// which is chance, so each index must write to places of its own.
pub(super) fn for_each(count: usize, work: &(dyn Fn(usize) + Sync)) {
    // If another model's kernel has the helpers, this thread does all the work: waiting for them
    // would take longer.
    let crew = (count > 1).then(|| CREW.try_lock().ok()).flatten();
    match crew {
        Some(crew) if !crew.threads.is_empty() => crew.run(count, work),
        Some(_) | None => (0..count).for_each(work),
    }
}

impl Crew {
    fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let helpers = (cores - 1).min(HELPERS_MAX);
        let shared: &'static Shared = Box::leak(Box::new(Shared {
            work: UnsafeCell::new(None),
            state: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            asleep: (0..helpers).map(|_| AtomicBool::new(false)).collect(),
        }));
        // If the system starts no more threads, the crew is smaller and still right.
        let threads = (0..helpers)
            .map_while(|ix| {
                let name = format!("kernel-{ix}");
                let helper = std::thread::Builder::new().name(name);
                helper.spawn(move || shared.help(ix)).ok()
            })
            .map(|handle| handle.thread().clone())
            .collect();
        Self { shared, threads }
    }

    fn run(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        let shared = self.shared;
        // SAFETY: only the lifetime changes. No helper keeps the pointer: this function returns
        // after each that joined has left, and none can join once `OPEN` is gone.
        let call = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const (dyn Fn(usize) + Sync)>(
                work,
            )
        };
        // SAFETY: `state` is zero between runs and the lock makes this the only run.
        unsafe { *shared.work.get() = Some(Work { call, count }) };
        shared.next.store(0, Ordering::Relaxed);
        shared.state.store(OPEN, Ordering::SeqCst);
        for (thread, asleep) in self.threads.iter().zip(&shared.asleep) {
            if asleep.load(Ordering::SeqCst) {
                thread.unpark();
            }
        }
        let closing = Closing(shared);
        shared.take(count, work);
        drop(closing);
    }
}

/// Waits for the helpers inside, also when the caller's share of the work panics.
struct Closing(&'static Shared);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut looks = 0;
        while self.0.state.load(Ordering::Acquire) != 0 {
            looks += 1;
            if looks < LOOKS {
                std::hint::spin_loop();
            } else {
                // A helper that takes this long has lost its core to another thread; this one gives
                // up its own for a moment.
                std::thread::yield_now();
            }
        }
    }
}

/// A helper that panics would leave its caller waiting for ever. Its message is printed by then.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        std::process::abort();
    }
}

impl Shared {
    fn take(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        loop {
            let ix = self.next.fetch_add(1, Ordering::Relaxed);
            if ix >= count {
                return;
            }
            work(ix);
        }
    }

    fn help(&self, ix: usize) {
        loop {
            self.wait(ix);
            let state = self.state.load(Ordering::SeqCst);
            let joins = state & OPEN != 0
                && self
                    .state
                    .compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok();
            if !joins {
                continue;
            }
            // SAFETY: joined, so the caller waits in `Closing` and the work stays as it is.
            let work = unsafe { *self.work.get() }.expect("work is set before it opens");
            let guard = AbortOnUnwind;
            // SAFETY: as above; the closure lives until this helper leaves.
            self.take(work.count, unsafe { &*work.call });
            std::mem::forget(guard);
            self.state.fetch_sub(1, Ordering::AcqRel);
            // The work of this run is done but not closed yet: a helper that joined it again would
            // find nothing left.
            while self.state.load(Ordering::Acquire) & OPEN != 0 {
                std::thread::yield_now();
            }
        }
    }

    /// Returns when there is work to look at: watches for a while, then sleeps.
    fn wait(&self, ix: usize) {
        for _ in 0..LOOKS {
            if self.state.load(Ordering::Relaxed) & OPEN != 0 {
                return;
            }
            std::hint::spin_loop();
        }
        self.asleep[ix].store(true, Ordering::SeqCst);
        while self.state.load(Ordering::SeqCst) & OPEN == 0 {
            std::thread::park();
        }
        self.asleep[ix].store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn each_index_is_worked_on_once_run_after_run() {
        for round in 0..20_000 {
            let count = 1 + round % 9;
            let seen: Vec<AtomicU32> = (0..count).map(|_| AtomicU32::new(0)).collect();
            for_each(count, &|ix| {
                seen[ix].fetch_add(1, Ordering::Relaxed);
            });
            assert!(seen.iter().all(|seen| seen.load(Ordering::Relaxed) == 1));
            if round % 1_000 == 0 {
                // Long enough for the helpers to fall asleep.
                std::thread::yield_now();
            }
        }
    }
}
