//! Every deadline that the coordinator waits for. A subject has one timer of each kind: setting it
//! again moves it, so that nobody else keeps names of timers.

use serde::{Deserialize, Serialize};

use super::WakeReason;
use super::requests::RACERS_MAX;
use crate::config::Limits;
use crate::slab::Key;
use crate::time::Tick;
use crate::wheel::Wheel;

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Due {
    Attempt(Key, WakeReason),
    /// Of a provider: the end of its bar.
    Bar(Key),
    /// Of a provider: its last challenge is too old.
    Challenge(Key),
    /// Of a provider: the end of a load, or of the rest after one.
    Load(Key),
    /// Of a provider: the end of a proof.
    Proof(Key),
    /// Of a request: the end of its wait in the queue.
    Queued(Key),
    /// Of a provider: its last report is too old.
    Report(Key),
    /// Of a request: its one attempt has shown nothing for long enough. It does not wait then.
    Second(Key),
}

impl Due {
    pub(super) const fn reason(self) -> WakeReason {
        match self {
            Self::Attempt(_, reason) => reason,
            Self::Bar(_) => WakeReason::BarLifted,
            Self::Challenge(_) => WakeReason::ChallengeExpired,
            Self::Load(_) => WakeReason::LoadOverdue,
            Self::Proof(_) => WakeReason::ProofExpired,
            Self::Queued(_) => WakeReason::QueueOverdue,
            Self::Report(_) => WakeReason::ReportStale,
            Self::Second(_) => WakeReason::SecondDue,
        }
    }

    /// Whether a machine stays open beyond what it has shown until somebody looks. Those come before all
    /// else that happens: a process that was stopped for a while hears of requests before it wakes.
    const fn closes(self) -> bool {
        match self {
            Self::Challenge(_) | Self::Proof(_) | Self::Report(_) => true,
            Self::Attempt(..)
            | Self::Bar(_)
            | Self::Load(_)
            | Self::Queued(_)
            | Self::Second(_) => false,
        }
    }
}

/// Timers of one provider: [`Due::Bar`], [`Due::Challenge`], [`Due::Report`], [`Due::Load`] and
/// [`Due::Proof`].
pub(super) const TIMERS_PER_PROVIDER: usize = 5;

/// Whether a timer that may be missing was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "without a timer the caller does what is safe without"]
pub(super) enum Armed {
    Yes,
    NoRoom,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Timers {
    wheel: Wheel<Due>,
    /// Those that close a machine, apart: see [`Due::closes`].
    closing: Wheel<Due>,
    /// The timer of each subject, by its place.
    attempts: Vec<Key>,
    requests: Vec<Key>,
    providers: Vec<[Key; TIMERS_PER_PROVIDER]>,
    /// A timer found no room since somebody asked.
    has_lost: bool,
}

/// Attempts that can be out at once.
pub(super) fn attempts_max(limits: &Limits) -> u32 {
    let racers_max = u32::try_from(RACERS_MAX).expect("few race for one request");
    limits.requests_max.saturating_mul(racers_max)
}

/// Room for every timer that can be set at once, so that none of those of requests and attempts ever
/// finds none. A request has the timer of its wait, or those of its attempts, or that of its one
/// attempt beside that of the second that may come.
fn timers_max(limits: &Limits) -> u32 {
    let per_provider = u32::try_from(TIMERS_PER_PROVIDER).expect("a few");
    attempts_max(limits).saturating_add(limits.providers_max.saturating_mul(per_provider))
}

impl Timers {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            wheel: Wheel::new(timers_max(limits)),
            closing: Wheel::new(timers_max(limits)),
            attempts: Vec::new(),
            requests: Vec::new(),
            providers: Vec::new(),
            has_lost: false,
        }
    }

    pub(super) fn set_limits(&mut self, limits: &Limits) {
        self.wheel.set_limit(timers_max(limits));
        self.closing.set_limit(timers_max(limits));
    }

    /// Sets a subject's timer, in place of the one that it had.
    pub(super) fn set(&mut self, at: Tick, due: Due) -> Armed {
        self.clear(due);
        let timer = self.wheel_of(due).arm(at, due);
        *self.place(due) = timer.unwrap_or(Key::NONE);
        self.has_lost |= timer.is_none();
        match timer {
            Some(_) => Armed::Yes,
            None => Armed::NoRoom,
        }
    }

    /// The same for a timer that has its place whatever happens.
    pub(super) fn set_surely(&mut self, at: Tick, due: Due) {
        let armed = self.set(at, due);
        assert!(armed == Armed::Yes, "the wheel holds a timer for each");
    }

    /// Takes a subject's timer away, if it has one of this kind.
    pub(super) fn clear(&mut self, due: Due) {
        let timer = core::mem::replace(self.place(due), Key::NONE);
        self.wheel_of(due).cancel(timer);
    }

    pub(super) fn clear_provider(&mut self, provider: Key) {
        for due in [Due::Bar, Due::Challenge, Due::Report, Due::Load, Due::Proof] {
            self.clear(due(provider));
        }
    }

    /// Whether somebody will look at the age of a provider's reports.
    pub(super) fn looks_at_reports_of(&self, provider: Key) -> bool {
        let timers = self.providers.get(provider.slot as usize);
        timers.is_some_and(|timers| timers[2] != Key::NONE)
    }

    /// What is due by now of those that close a machine, in order of time, is appended to `fired`.
    pub(super) fn expire_closing(&mut self, now: Tick, fired: &mut Vec<Due>) {
        let before = fired.len();
        self.closing.expire(now, fired);
        self.forget(&fired[before..]);
    }

    /// What is due by now of the others, in order of time, is appended to `fired`.
    pub(super) fn expire(&mut self, now: Tick, fired: &mut Vec<Due>) {
        let before = fired.len();
        self.wheel.expire(now, fired);
        self.forget(&fired[before..]);
    }

    fn forget(&mut self, fired: &[Due]) {
        for &due in fired {
            *self.place(due) = Key::NONE;
        }
    }

    pub(super) fn next_wake(&self) -> Option<(Tick, WakeReason)> {
        let wakes = [self.closing.next_wake(), self.wheel.next_wake()];
        let next = wakes.into_iter().flatten().min_by_key(|(at, _)| *at);
        next.map(|(at, due)| (at, due.reason()))
    }

    /// `true`, once: a timer found no room.
    pub(super) const fn take_lost(&mut self) -> bool {
        core::mem::replace(&mut self.has_lost, false)
    }

    pub(super) fn count(&self) -> usize {
        self.wheel.count() + self.closing.count()
    }

    /// A wheel without any room, to see what is done then.
    #[cfg(test)]
    pub(super) fn close(&mut self) {
        self.wheel.set_limit(0);
        self.closing.set_limit(0);
    }

    const fn wheel_of(&mut self, due: Due) -> &mut Wheel<Due> {
        match due.closes() {
            true => &mut self.closing,
            false => &mut self.wheel,
        }
    }

    fn place(&mut self, due: Due) -> &mut Key {
        match due {
            Due::Attempt(key, _) => at(&mut self.attempts, key, Key::NONE),
            Due::Queued(key) | Due::Second(key) => at(&mut self.requests, key, Key::NONE),
            Due::Bar(key) => &mut self.provider(key)[0],
            Due::Challenge(key) => &mut self.provider(key)[1],
            Due::Report(key) => &mut self.provider(key)[2],
            Due::Load(key) => &mut self.provider(key)[3],
            Due::Proof(key) => &mut self.provider(key)[4],
        }
    }

    fn provider(&mut self, key: Key) -> &mut [Key; TIMERS_PER_PROVIDER] {
        at(&mut self.providers, key, [Key::NONE; TIMERS_PER_PROVIDER])
    }
}

/// The entry of a subject, by its place: as many as there are places of subjects.
fn at<T: Clone>(list: &mut Vec<T>, key: Key, nothing: T) -> &mut T {
    let place = key.slot as usize;
    if list.len() <= place {
        list.resize(place + 1, nothing);
    }
    &mut list[place]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: Key = Key {
        slot: 3,
        generation: 1,
    };

    fn fired(timers: &mut Timers, now: Tick) -> Vec<Due> {
        let mut fired = Vec::new();
        timers.expire_closing(now, &mut fired);
        timers.expire(now, &mut fired);
        fired
    }

    #[test]
    fn a_timer_that_is_set_again_moves_and_those_of_other_kinds_stay() {
        let mut timers = Timers::new(&Limits::reference());
        let at = |s: u64| Tick(s * 1_000_000);
        timers.set_surely(at(1), Due::Bar(SUBJECT));
        timers.set_surely(at(2), Due::Report(SUBJECT));
        timers.set_surely(at(5), Due::Bar(SUBJECT));
        assert_eq!(timers.count(), 2);
        assert_eq!(fired(&mut timers, at(3)), [Due::Report(SUBJECT)]);
        assert!(!timers.looks_at_reports_of(SUBJECT));
        timers.clear_provider(SUBJECT);
        assert_eq!(timers.next_wake(), None);
    }

    #[test]
    fn a_timer_without_room_is_told_to_its_setter_and_once_to_who_asks() {
        let mut timers = Timers::new(&Limits::reference());
        timers.close();
        assert_eq!(timers.set(Tick(9), Due::Report(SUBJECT)), Armed::NoRoom);
        assert!(!timers.looks_at_reports_of(SUBJECT));
        assert!(timers.take_lost() && !timers.take_lost());
    }
}
