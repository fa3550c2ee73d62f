//! The attempts that are out: how far each has come, when its machine owes the next sign, and which
//! of them are on one machine. Nothing here decides; each function says what it found.

use serde::{Deserialize, Serialize};

use super::fleet::Load;
use super::requests::Served;
use crate::event::Shown;
use crate::ids::{AccountId, AttemptKey, ConnId, MachineId};
use crate::slab::{Key, Slab};
use crate::time::{Span, Tick};

const NIL: u32 = u32::MAX;
/// First content is awaited for this many times the forecast.
const PATIENCE_FACTOR: u64 = 4;
/// And at least so long: what networks and a step that is under way take is in no forecast.
const PATIENCE_MIN: Span = Span::secs(8);

/// A pause in an answer may be so long at least: an engine that stops to load, to compile a form or
/// to swap says nothing meanwhile.
const PAUSE_MIN: Span = Span::secs(30);

/// How far an attempt has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Progress {
    Sent,
    Accepted,
    Started,
}

/// Whom an attempt goes to, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Route {
    pub(super) request: Key,
    pub(super) conn: ConnId,
    pub(super) machine: MachineId,
    /// Place of the provider in the fleet.
    pub(super) provider: u32,
    pub(super) offer: u32,
    /// Who earns.
    pub(super) payee: AccountId,
    pub(super) load: Load,
    /// Expected time to first content, by what the machine says of itself.
    pub(super) forecast: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Attempt {
    route: Route,
    progress: Progress,
    /// Another attempt of its request was out at the same time.
    has_raced: bool,
    /// The moment after which it is given up; the timer looks here when it fires.
    deadline: Tick,
    /// The moment after which silence is the machine's own fault: its request may have less time.
    due: Tick,
    dispatched_at: Tick,
    accepted_at: Tick,
    started_at: Tick,
    /// When content of it came last, and how long a pause may follow.
    heard_at: Tick,
    pause: Span,
    /// What was relayed of it so far.
    shown: Shown,
    /// It was found late before its end.
    is_late: bool,
    /// Links of the provider's list, as places; [`NIL`] ends it.
    prev: u32,
    next: u32,
}

impl Attempt {
    pub(super) const fn route(&self) -> &Route {
        &self.route
    }

    /// Its provider counts it in its reports.
    pub(super) const fn is_accepted(&self) -> bool {
        !matches!(self.progress, Progress::Sent)
    }

    pub(super) const fn has_started(&self) -> bool {
        matches!(self.progress, Progress::Started)
    }

    pub(super) const fn has_raced(&self) -> bool {
        self.has_raced
    }

    pub(super) const fn shown(&self) -> Shown {
        self.shown
    }

    /// Whether it may be given up now.
    pub(super) fn is_overdue(&self, now: Tick) -> bool {
        self.deadline <= now
    }

    /// Whether its machine has had all the time that is its own.
    pub(super) fn is_due(&self, now: Tick) -> bool {
        self.due <= now
    }

    pub(super) const fn due(&self) -> Tick {
        self.due
    }

    /// Whether it may yet be found late: its content flows, and it was not before.
    pub(super) const fn may_lag(&self) -> bool {
        self.has_started() && !self.is_late
    }

    pub(super) const fn dispatched_at(&self) -> Tick {
        self.dispatched_at
    }

    pub(super) const fn started_at(&self) -> Tick {
        self.started_at
    }

    /// From dispatch until now.
    pub(super) const fn age(&self, now: Tick) -> Span {
        now.since(self.dispatched_at)
    }

    /// From first content until now.
    pub(super) const fn streams_for(&self, now: Tick) -> Span {
        now.since(self.started_at)
    }

    /// When first content is due, by the forecast made at dispatch: a function of the machine's own
    /// figures, so that neither a slow machine is given up too soon nor a dead one too late.
    pub(super) fn patience_until(&self, upload_per_prompt_token: Span) -> Tick {
        self.dispatched_at + self.patience(upload_per_prompt_token)
    }

    /// When so many percent of that time have passed.
    pub(super) fn patience_at(&self, percent: u8, upload_per_prompt_token: Span) -> Tick {
        let patience = self.patience(upload_per_prompt_token);
        self.dispatched_at + Span(patience.0 / 100 * u64::from(percent))
    }

    fn patience(&self, upload_per_prompt_token: Span) -> Span {
        let prompt_tokens = u64::from(self.route.load.prompt_tokens);
        let upload = upload_per_prompt_token.0.saturating_mul(prompt_tokens);
        let patience = self.route.forecast.0.saturating_mul(PATIENCE_FACTOR);
        Span(patience.max(PATIENCE_MIN.0).saturating_add(upload))
    }

    /// From its newest content until now.
    pub(super) const fn silent_for(&self, now: Tick) -> Span {
        now.since(self.heard_at)
    }

    /// Until when it may say nothing, by what its machine claims and by the prompts that the machine
    /// reads meanwhile, at most `pause_max`.
    pub(super) fn pause_until(&self, reading: Span, pause_max: Span) -> Tick {
        let pause = Span(self.pause.0.saturating_add(reading.0));
        self.heard_at + pause.min(pause_max)
    }

    pub(super) const fn served(&self) -> Served {
        Served {
            machine: self.route.machine,
            dispatched_at: self.dispatched_at,
            accepted_at: self.accepted_at,
            started_at: self.started_at,
        }
    }
}

/// What a sign of an attempt was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// The first of its kind.
    New,
    /// Told before, or overtaken by a later sign.
    Repeated,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Attempts {
    out: Slab<Attempt>,
    /// The newest attempt on each provider, by the provider's place.
    newest: Vec<u32>,
}

impl Attempts {
    pub(super) const fn new(count_max: u32) -> Self {
        Self {
            out: Slab::with_limit(count_max),
            newest: Vec::new(),
        }
    }

    pub(super) const fn set_limit(&mut self, count_max: u32) {
        self.out.set_limit(count_max);
    }

    /// An attempt was sent.
    pub(super) fn add(&mut self, now: Tick, route: Route) -> Key {
        let provider = route.provider as usize;
        if self.newest.len() <= provider {
            self.newest.resize(provider + 1, NIL);
        }
        let next = self.newest[provider];
        let attempt = Attempt {
            route,
            progress: Progress::Sent,
            has_raced: false,
            deadline: Tick::NEVER,
            due: Tick::NEVER,
            dispatched_at: now,
            accepted_at: now,
            started_at: now,
            heard_at: now,
            pause: PAUSE_MIN,
            shown: Shown::default(),
            is_late: false,
            prev: NIL,
            next,
        };
        let key = self.out.insert(attempt);
        let key = key.expect("as many attempts as may race for all requests");
        if next != NIL {
            self.out.at_mut(next).prev = key.slot;
        }
        self.newest[provider] = key.slot;
        key
    }

    /// The connection that an attempt is on, whoever asks.
    pub(super) fn conn_of(&self, attempt: AttemptKey) -> Option<ConnId> {
        let attempt = self.out.get(named(attempt))?;
        Some(attempt.route.conn)
    }

    /// The attempt, if it is alive on that connection.
    pub(super) fn live(&self, conn: ConnId, attempt: AttemptKey) -> Option<Key> {
        let key = named(attempt);
        let attempt = self.out.get(key)?;
        (attempt.route.conn == conn).then_some(key)
    }

    pub(super) fn get(&self, key: Key) -> Option<&Attempt> {
        self.out.get(key)
    }

    pub(super) fn at(&self, key: Key) -> &Attempt {
        self.get(key).expect("a live attempt")
    }

    /// The provider has taken it.
    pub(super) fn accept(&mut self, now: Tick, key: Key) -> Sign {
        let attempt = self.at_mut(key);
        if attempt.progress != Progress::Sent {
            return Sign::Repeated;
        }
        attempt.progress = Progress::Accepted;
        attempt.accepted_at = now;
        Sign::New
    }

    /// First content came: one piece at least was shown. Who starts has accepted. All of its answer
    /// takes `whole` by what its machine says of itself, and no pause in it is longer: where that is
    /// less than what any engine may need.
    pub(super) fn start(&mut self, now: Tick, key: Key, whole: Span) -> Sign {
        let attempt = self.at_mut(key);
        match attempt.progress {
            Progress::Started => return Sign::Repeated,
            Progress::Sent => attempt.accepted_at = now,
            Progress::Accepted => {}
        }
        attempt.progress = Progress::Started;
        attempt.started_at = now;
        attempt.heard_at = now;
        attempt.pause = whole.max(PAUSE_MIN);
        attempt.shown = Shown {
            pieces: 1,
            text_bytes: 1,
            ..Shown::default()
        };
        Sign::New
    }

    /// So much was relayed. What is older than what is known changes nothing.
    pub(super) fn show(&mut self, now: Tick, key: Key, shown: Shown) {
        let attempt = self.at_mut(key);
        if shown.pieces >= attempt.shown.pieces {
            attempt.shown = shown;
            attempt.heard_at = now;
        }
    }

    /// Another attempt of its request is out.
    pub(super) fn race(&mut self, key: Key) {
        self.at_mut(key).has_raced = true;
    }

    /// It is late, and that was noted.
    pub(super) fn lags(&mut self, key: Key) {
        self.at_mut(key).is_late = true;
    }

    /// The machine owes the next sign at `due`, and the attempt is given up at `deadline`.
    pub(super) fn await_sign(&mut self, key: Key, due: Tick, deadline: Tick) {
        let attempt = self.at_mut(key);
        attempt.due = due;
        attempt.deadline = deadline;
    }

    /// It is over.
    pub(super) fn take(&mut self, key: Key) -> Attempt {
        let attempt = self.out.remove(key).expect("a live attempt");
        if attempt.prev == NIL {
            self.newest[attempt.route.provider as usize] = attempt.next;
        } else {
            self.out.at_mut(attempt.prev).next = attempt.next;
        }
        if attempt.next != NIL {
            self.out.at_mut(attempt.next).prev = attempt.prev;
        }
        attempt
    }

    pub(super) fn newest_on(&self, provider: u32) -> Option<Key> {
        let newest = self.newest.get(provider as usize).copied();
        newest.filter(|at| *at != NIL).map(|at| self.out.key_at(at))
    }

    /// The attempts on a provider, newest first.
    pub(super) fn on(&self, provider: u32) -> impl Iterator<Item = Key> {
        core::iter::successors(self.newest_on(provider), |key| {
            let next = self.out.at(key.slot).next;
            (next != NIL).then(|| self.out.key_at(next))
        })
    }

    pub(super) fn count(&self) -> usize {
        self.out.count()
    }

    fn at_mut(&mut self, key: Key) -> &mut Attempt {
        self.out.get_mut(key).expect("a live attempt")
    }
}

const fn named(attempt: AttemptKey) -> Key {
    Key {
        slot: attempt.slot,
        generation: attempt.generation,
    }
}

/// The name under which the world knows an attempt.
pub(super) const fn public(key: Key) -> AttemptKey {
    AttemptKey {
        slot: key.slot,
        generation: key.generation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(provider: u32, forecast: Span) -> Route {
        Route {
            request: Key::NONE,
            conn: ConnId(u64::from(provider)),
            machine: MachineId(u128::from(provider)),
            provider,
            offer: provider,
            payee: AccountId(1),
            load: Load {
                prompt_tokens: 1_000,
                fresh_tokens: 1_000,
                need_tokens: 1_050,
            },
            forecast,
        }
    }

    #[test]
    fn each_machine_has_a_list_of_its_own_that_survives_any_order_of_ends() {
        let mut attempts = Attempts::new(8);
        let now = Tick(1);
        let [a, b, c] = [0; 3].map(|_| attempts.add(now, route(3, Span::ZERO)));
        let other = attempts.add(now, route(0, Span::ZERO));
        assert_eq!(attempts.on(3).collect::<Vec<_>>(), [c, b, a]);
        attempts.take(b);
        assert_eq!(attempts.on(3).collect::<Vec<_>>(), [c, a]);
        attempts.take(c);
        attempts.take(a);
        assert_eq!(attempts.on(3).count(), 0);
        assert_eq!(attempts.on(0).collect::<Vec<_>>(), [other]);
        assert_eq!(attempts.on(9).count(), 0);
    }

    #[test]
    fn a_sign_counts_once_and_content_implies_acceptance() {
        let mut attempts = Attempts::new(1);
        let key = attempts.add(Tick(1), route(0, Span::ZERO));
        assert_eq!(attempts.start(Tick(5), key, Span::ZERO), Sign::New);
        assert_eq!(attempts.start(Tick(6), key, Span::ZERO), Sign::Repeated);
        assert_eq!(attempts.accept(Tick(7), key), Sign::Repeated);
        let served = attempts.at(key).served();
        assert_eq!((served.accepted_at, served.started_at), (Tick(5), Tick(5)));
        attempts.show(Tick(8), key, Shown::default());
        assert_eq!(
            attempts.at(key).shown().pieces,
            1,
            "older than what is known"
        );
    }

    #[test]
    fn patience_is_a_multiple_of_the_forecast_with_a_floor_and_the_upload() {
        let mut attempts = Attempts::new(2);
        let quick = attempts.add(Tick(0), route(0, Span::millis(10)));
        let slow = attempts.add(Tick(0), route(0, Span::secs(10)));
        let until = |key| attempts.at(key).patience_until(Span::millis(1));
        assert_eq!(until(quick), Tick(0) + Span::secs(9));
        assert_eq!(until(slow), Tick(0) + Span::secs(41));
    }

    #[test]
    fn a_stale_name_or_a_foreign_connection_finds_no_attempt() {
        let mut attempts = Attempts::new(1);
        let key = attempts.add(Tick(1), route(4, Span::ZERO));
        let name = public(key);
        assert_eq!(attempts.live(ConnId(4), name), Some(key));
        assert_eq!(attempts.live(ConnId(5), name), None);
        attempts.take(key);
        attempts.add(Tick(1), route(4, Span::ZERO));
        assert_eq!(attempts.live(ConnId(4), name), None);
    }
}
