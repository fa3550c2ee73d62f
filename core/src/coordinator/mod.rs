//! The control plane: who is here, who may enter, who serves, who pays.
//!
//! [`Coordinator`] is made of parts that can be read and tested alone, since none knows another:
//! [`books`] (money), [`terms`] (what was agreed), `fleet` (providers, the ledger of their resources, who is chosen), `requests`
//! and `attempts` (how far each has come), `queues` (fair waiting), `durable` (who waits for the
//! disk), `timers`, `tally` (what claims are worth). Each changes itself alone and says what it found.
//! The files beside them only say what follows from what, and in which order: `admit`, `attempt`,
//! `second`, `settle`, `provider`, `conduct`, `verdict`, `catalogue`, `warm`.
//!
//! It sees facts, never bytes: a request is its sizes. One task owns it; the shell, the simulator and
//! the fuzzers call [`Coordinator::step`] and carry out the effects.

mod admit;
mod attempt;
mod attempts;
pub mod books;
mod catalogue;
pub mod check;
mod conduct;
mod durable;
pub mod explain;
mod fleet;
mod lengths;
mod overload;
mod provider;
mod queues;
mod requests;
pub mod roster;
mod second;
mod settle;
mod tally;
pub mod terms;
#[cfg(test)]
mod tests;
mod timers;
mod verdict;
mod warm;

use std::hash::Hash;

use serde::{Deserialize, Serialize};

use self::attempts::Attempts;
use self::books::{Books, DepositError, OpenError};
pub use self::conduct::Offence;
use self::durable::Durable;
use self::fleet::{Fleet, LoadEnd};
pub use self::fleet::{Policy, REPORT_AGE_MAX};
use self::lengths::Lengths;
use self::overload::Overload;
use self::queues::Queues;
use self::requests::Requests;
pub use self::tally::{BAND_PERCENT, BAND_TOKENS};
use self::tally::{Claim, Tally};
use self::timers::{Due, Timers, attempts_max};
use crate::config::{Catalog, Config};
use crate::denial::Denial;
use crate::digest::Mix;
use crate::effect::{Alarm, Effect, Effects, Receipt};
use crate::event::{Ask, Event};
use crate::ids::RequestId;
use crate::time::Tick;

/// Why the coordinator wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WakeReason {
    AcceptOverdue,
    BarLifted,
    ChallengeExpired,
    FirstContentOverdue,
    IdleOverdue,
    LoadOverdue,
    ParkedOverdue,
    ProofExpired,
    QueueOverdue,
    ReportStale,
    SecondDue,
}

impl WakeReason {
    pub const ALL: [Self; 11] = [
        Self::AcceptOverdue,
        Self::BarLifted,
        Self::ChallengeExpired,
        Self::FirstContentOverdue,
        Self::IdleOverdue,
        Self::LoadOverdue,
        Self::ParkedOverdue,
        Self::ProofExpired,
        Self::QueueOverdue,
        Self::ReportStale,
        Self::SecondDue,
    ];
}

/// The shell broke the contract. The state is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// An account was opened twice.
    AccountReopened,
    /// No place is left for another model.
    CatalogFull,
    /// The connection id is in use.
    ConnReused,
    /// A limit would fall below what is there.
    LimitBelowUse,
    /// The model is sold already.
    ModelReused,
    /// Nothing, or more money than a deposit, an account or the books may hold.
    MoneyOutOfBounds,
    /// `Persisted` ran ahead of what was posted.
    PersistedUnposted,
    /// Time went back.
    TimeWentBack,
    /// The account was never opened.
    UnknownAccount,
    /// A model index outside the catalogue.
    UnknownModel,
}

impl core::fmt::Display for Misuse {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::AccountReopened => "an account was opened twice",
            Self::CatalogFull => "the catalogue has no place for another model",
            Self::ConnReused => "a connection id was used again",
            Self::LimitBelowUse => "a limit would fall below what is in use",
            Self::ModelReused => "a model was listed that is sold already",
            Self::MoneyOutOfBounds => "an amount is nothing, or more than the books may hold",
            Self::PersistedUnposted => "more was called durable than was posted",
            Self::TimeWentBack => "time went back",
            Self::UnknownAccount => "an account was used before it was opened",
            Self::UnknownModel => "a model index lies outside the catalogue",
        })
    }
}

impl core::error::Error for Misuse {}

/// A planted bug, to prove that the simulator's oracles bite. Never set outside tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mischief {
    #[default]
    None,
    /// A hold is settled twice.
    DoubleSettle,
    /// A refused request keeps its hold.
    LeakedHold,
    /// A cancel is decided but never sent.
    LostCancel,
    /// A report that came out of order overwrites a newer one.
    StaleReport,
    /// One machine's word against a request is passed on.
    BelievesOne,
    /// A connection may speak of another's attempts.
    ForeignWord,
    /// A fault of this kind is not counted.
    Forgives(Offence),
    /// How late a machine was is not remembered.
    ForgetsLateness,
    /// What a machine did is forgotten when its connection ends.
    ForgetsMachines,
    /// Whoever registers under a name takes it over, proven or not.
    JoinsUnproven,
    /// What a machine claims is charged.
    PaysClaims,
    /// Who was told of an end before the settlement pays without a receipt.
    LostReceipt,
    /// A machine that passes its challenge stays closed until it reports again.
    UnopenedGate,
    /// What a machine has shown counts until somebody is woken to look at it.
    ClosesWhenWoken,
}

/// What happened so far, for metrics and for the conservation check (INV-01).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Counts {
    pub arrived: u64,
    pub duplicates: u64,
    pub finished: u64,
    pub refused: u64,
    pub failed: u64,
    pub dispatched: u64,
    pub failovers: u64,
    pub queued: u64,
    pub requeued: u64,
    /// Attempts that began beside another, and those of them that won.
    pub seconds: u64,
    pub seconds_won: u64,
    /// Waiting requests that were held against an offer with room.
    pub queue_looks: u64,
    pub stale_events: u64,
    pub stale_reports: u64,
    pub reports: u64,
    pub over_claims: u64,
    /// Loads that machines were told to make, and those that they made of themselves.
    pub loads_ordered: u64,
    pub loads_unasked: u64,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// The refused by their reasons: see [`Counts::refusals`].
    refused_by: [u64; Denial::CODES.len()],
}

impl Counts {
    fn refuse(&mut self, denial: Denial) {
        self.refused += 1;
        self.refused_by[denial.code_ix()] += 1;
    }

    /// How many were refused for each reason that there was, by its code.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = Denial::CODES.into_iter().zip(self.refused_by);
        counts.filter(|(_, count)| *count > 0)
    }
}

/// What a person or a metric wants to know at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    pub providers: usize,
    pub requests: usize,
    pub queued: usize,
    pub held: i64,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Coordinator {
    config: Config,
    now: Tick,
    books: Books,
    fleet: Fleet,
    requests: Requests,
    attempts: Attempts,
    queues: Queues,
    /// By model.
    tallies: Vec<Tally>,
    lengths: Lengths,
    overload: Overload,
    timers: Timers,
    durable: Durable,
    is_draining: bool,
    has_drained: bool,
    counts: Counts,
    mischief: Mischief,
    steps: u64,
    running: Mix,
    fired: Vec<Due>,
}

impl Coordinator {
    #[must_use]
    pub fn new(config: Config) -> Self {
        let models = config.catalog.count();
        let limits = &config.limits;
        Self {
            now: Tick::ZERO,
            books: Books::new(limits.accounts_max, config.epoch),
            fleet: Fleet::new(&config),
            requests: Requests::new(limits.requests_max),
            attempts: Attempts::new(attempts_max(limits)),
            queues: Queues::new(models),
            tallies: vec![Tally::new(); models],
            lengths: Lengths::new(models),
            overload: Overload::new(models),
            timers: Timers::new(limits),
            durable: Durable::default(),
            is_draining: false,
            has_drained: false,
            counts: Counts::default(),
            mischief: Mischief::None,
            steps: 0,
            running: Mix::keyed(config.seed.0),
            fired: Vec::new(),
            config,
        }
    }

    /// One thing happened; here is all that follows. `out` is appended to, in causal order.
    ///
    /// # Errors
    /// A [`Misuse`] says that the caller broke the contract; nothing has changed then.
    pub fn step(&mut self, now: Tick, event: &Event<'_>, out: &mut Effects) -> Result<(), Misuse> {
        if now < self.now {
            return Err(Misuse::TimeWentBack);
        }
        self.admissible(event)?;
        let first_effect = out.list.len();
        self.now = now;
        self.steps += 1;
        if self.mischief != Mischief::ClosesWhenWoken || matches!(event, Event::Woke) {
            self.close_overdue(now);
        }
        self.apply(now, event, out);
        self.fall_back(now, out);
        self.order_loads(now, out);
        self.sound_alarms(out);
        if self.is_draining && !self.has_drained && self.requests.count() == 0 {
            self.has_drained = true;
            out.push(Effect::Drained);
        }
        now.hash(&mut self.running);
        event.hash(&mut self.running);
        out.digest_from(first_effect, &mut self.running);
        Ok(())
    }

    /// The next moment at which `Event::Woke` should come, and why. An early or spurious wake is
    /// harmless.
    #[must_use]
    pub fn next_wake(&self) -> Option<(Tick, WakeReason)> {
        self.timers.next_wake()
    }

    /// Equal digests mean: the same events, the same effects, the same state. Reads the whole state;
    /// take it at checkpoints, not at each step.
    #[must_use]
    pub fn digest(&self) -> u128 {
        Mix::of(self)
    }

    /// Digest of the events and effects so far, without the state. Cheap.
    #[must_use]
    pub fn running_digest(&self) -> u128 {
        self.running.end_wide()
    }

    /// The whole state as bytes (INV-17).
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("the state is plain data")
    }

    /// # Errors
    /// The bytes are not a snapshot of this version.
    pub fn restore(snapshot: &[u8]) -> Result<Self, postcard::Error> {
        postcard::from_bytes(snapshot)
    }

    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What is sold now. Its epoch tells whether a copy is old.
    #[must_use]
    pub const fn catalog(&self) -> &Catalog {
        &self.config.catalog
    }

    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    #[must_use]
    pub const fn books(&self) -> &Books {
        &self.books
    }

    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    #[must_use]
    pub fn gauges(&self) -> Gauges {
        Gauges {
            providers: self.fleet.count(),
            requests: self.requests.count(),
            queued: self.queues.total(),
            held: self.books.held().0,
        }
    }

    /// Whether more is to come of the request: its end, or the receipt of one that has ended for its
    /// consumer.
    #[must_use]
    pub fn keeps(&self, request: RequestId) -> bool {
        self.requests.find(request).is_some()
    }

    /// What a request that is settled came to, while it is kept: what is to become durable with its
    /// settlement.
    #[must_use]
    pub fn settled(&self, request: RequestId) -> Option<Receipt> {
        let request = self.requests.at(self.requests.find(request)?);
        let account = self.books.account(request.ask().account)?;
        request.is_settled().then(|| request.receipt(account))
    }

    /// How many entities there are for [`Self::digest`] and [`Self::snapshot`] to read.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let fleet = self.fleet.count() + self.fleet.offers_count();
        let work = self.requests.count() + self.attempts.count();
        (fleet + work + self.books.accounts().count()) as u64
    }

    /// Simulations compare; a coordinator keeps [`Policy::Expected`].
    pub const fn set_policy(&mut self, policy: Policy) {
        self.fleet.set_policy(policy);
    }

    /// Plants a bug, for the proof that the oracles notice.
    pub fn dangerous_plant(&mut self, mischief: Mischief) {
        self.mischief = mischief;
    }

    /// What the caller may get wrong is refused before anything changes.
    fn admissible(&self, event: &Event<'_>) -> Result<(), Misuse> {
        let catalog = &self.config.catalog;
        let is_known = |model: &crate::ids::ModelIx| catalog.spec(*model).is_some();
        let refuse_if = |broken: bool, misuse: Misuse| match broken {
            true => Err(misuse),
            false => Ok(()),
        };
        match event {
            Event::AccountOpened { account, .. } => {
                refuse_if(self.books.is_open(*account), Misuse::AccountReopened)
            }
            Event::AccountCredited {
                account, amount, ..
            } => self
                .books
                .admits(*account, *amount)
                .map_err(|error| match error {
                    DepositError::OutOfBounds => Misuse::MoneyOutOfBounds,
                    DepositError::UnknownAccount => Misuse::UnknownAccount,
                }),
            Event::HoldRecovered {
                account, amount, ..
            } => {
                refuse_if(!self.books.is_open(*account), Misuse::UnknownAccount)?;
                let is_admitted = self.books.admits_hold(*amount);
                refuse_if(!is_admitted, Misuse::MoneyOutOfBounds)
            }
            Event::Persisted { up_to } => {
                refuse_if(*up_to > self.books.last_seq(), Misuse::PersistedUnposted)
            }
            Event::ProviderJoined { conn, models, .. } => {
                refuse_if(self.fleet.find(*conn).is_some(), Misuse::ConnReused)?;
                refuse_if(!models.iter().all(is_known), Misuse::UnknownModel)
            }
            Event::ProviderRestocked { models, .. } => {
                refuse_if(!models.iter().all(is_known), Misuse::UnknownModel)
            }
            Event::ProviderReported { slots, .. } => {
                let are_known = slots.iter().all(|slot| is_known(&slot.model));
                refuse_if(!are_known, Misuse::UnknownModel)
            }
            Event::Arrived(Ask { model, .. })
            | Event::ModelLoaded { model, .. }
            | Event::ModelLoadFailed { model, .. } => {
                refuse_if(!is_known(model), Misuse::UnknownModel)
            }
            Event::ModelListed { spec } => self.listable(spec),
            Event::ModelPriced { model, .. }
            | Event::ModelRetired { model }
            | Event::WarmMinChanged { model, .. } => {
                refuse_if(!catalog.is_sold(*model), Misuse::UnknownModel)
            }
            Event::LimitsChanged { limits } => self.tolerable(limits),
            // Whoever is named may be gone by now: that is news that came late, and no misuse.
            Event::ProviderVerified { .. }
            | Event::ProviderAttested { .. }
            | Event::ProviderUnverified { .. }
            | Event::ProviderDistrusted { .. }
            | Event::ProviderLeft { .. }
            | Event::ConsumerLeft { .. }
            | Event::AttemptAccepted { .. }
            | Event::AttemptStarted { .. }
            | Event::AttemptProgressed { .. }
            | Event::AttemptCompleted { .. }
            | Event::AttemptFailed { .. }
            | Event::DrainBegan
            | Event::Woke => Ok(()),
        }
    }

    fn apply(&mut self, now: Tick, event: &Event<'_>, out: &mut Effects) {
        match event {
            Event::AccountOpened { account, balance } => {
                let alarm = match self.books.open(*account, *balance) {
                    Ok(()) => return,
                    Err(OpenError::Full) => Alarm::AccountsFull,
                    Err(OpenError::OutOfBounds) => Alarm::BalanceOutOfBounds,
                    Err(OpenError::Reopened) => unreachable!("refused as misuse above"),
                };
                out.push(Effect::Alarm { alarm, count: 1 });
            }
            Event::AccountCredited {
                account,
                amount,
                reference,
            } => {
                out.post(
                    self.books
                        .deposit(*account, *amount, *reference)
                        .expect("checked before"),
                );
            }
            Event::HoldRecovered {
                account,
                request,
                amount,
            } => {
                let hold = self
                    .books
                    .recover(*account, *request, *amount)
                    .expect("checked before");
                out.post(self.books.void(hold));
            }
            Event::Persisted { up_to } => self.on_persisted(*up_to, out),
            Event::ProviderJoined {
                conn,
                machine,
                owner,
                trust,
                spec,
                models,
            } => {
                let id = fleet::Identity {
                    conn: *conn,
                    machine: *machine,
                    owner: *owner,
                };
                self.on_joined(now, id, *trust, *spec, models, out);
            }
            Event::ProviderRestocked { conn, models } => self.on_restocked(now, *conn, models, out),
            Event::ProviderVerified { conn } => self.on_verified(now, *conn, out),
            Event::ProviderUnverified { conn } => self.on_unverified(*conn),
            Event::ProviderDistrusted { conn } => self.on_distrusted(now, *conn, out),
            Event::ProviderReported {
                conn,
                report,
                slots,
            } => {
                self.on_reported(now, *conn, report, slots, out);
            }
            Event::ProviderLeft { conn, cause } => self.on_left(now, *conn, *cause, out),
            Event::ModelLoaded { conn, model } => {
                self.on_load_ended(now, *conn, *model, LoadEnd::Loaded, out);
            }
            Event::ModelLoadFailed {
                conn,
                model,
                draining,
            } => {
                let end = match draining {
                    true => LoadEnd::Draining,
                    false => LoadEnd::Failed,
                };
                self.on_load_ended(now, *conn, *model, end, out);
            }
            Event::Arrived(ask) => self.on_arrived(now, *ask, out),
            Event::ConsumerLeft { request } => self.on_consumer_left(now, *request, out),
            Event::AttemptAccepted { conn, attempt } => self.on_accepted(now, *conn, *attempt),
            Event::AttemptStarted { conn, attempt } => self.on_started(now, *conn, *attempt, out),
            Event::AttemptProgressed {
                conn,
                attempt,
                shown,
            } => {
                self.on_progressed(now, *conn, *attempt, *shown, out);
            }
            Event::AttemptCompleted {
                conn,
                attempt,
                usage,
                shown,
                ending,
            } => {
                let claim = Claim {
                    usage: *usage,
                    shown: *shown,
                    ending: *ending,
                };
                self.on_completed(now, *conn, *attempt, claim, out);
            }
            Event::AttemptFailed {
                conn,
                attempt,
                fault,
            } => {
                self.on_failed(now, *conn, *attempt, *fault, out);
            }
            Event::DrainBegan => self.on_drain_began(out),
            Event::Woke => self.on_woke(now, out),
            Event::ModelListed { spec } => self.on_listed(spec),
            Event::ModelPriced { model, price } => {
                self.config.catalog.price(*model, *price);
            }
            Event::ModelRetired { model } => self.on_retired(*model, out),
            Event::LimitsChanged { limits } => self.on_limits(limits, out),
            Event::ProviderAttested {
                conn,
                gives,
                valid_for,
            } => self.on_attested(now, *conn, *gives, *valid_for, out),
            Event::WarmMinChanged { model, machines } => {
                self.fleet.set_warm_min(*model, *machines);
            }
        }
    }

    /// Limits that parts of the state have met in this step.
    fn sound_alarms(&mut self, out: &mut Effects) {
        let has_lost_timer = self.timers.take_lost();
        let has_forgotten = self.fleet.take_forgotten();
        for (is_due, alarm) in [
            (has_lost_timer, Alarm::TimersFull),
            (has_forgotten, Alarm::FaultsForgotten),
        ] {
            if is_due {
                out.push(Effect::Alarm { alarm, count: 1 });
            }
        }
    }

    /// INV-07, INV-10: what a machine has shown counts until its time is up, whether somebody was woken
    /// at that moment or not.
    fn close_overdue(&mut self, now: Tick) {
        let mut fired = core::mem::take(&mut self.fired);
        self.timers.expire_closing(now, &mut fired);
        for due in fired.drain(..) {
            match due {
                Due::Challenge(key) => self.on_challenge_expired(key),
                Due::Proof(key) => self.on_proof_expired(now, key),
                Due::Report(key) => self.on_report_aged(now, key),
                Due::Attempt(..) | Due::Bar(_) | Due::Load(_) | Due::Queued(_) | Due::Second(_) => {
                    unreachable!("these wait for a wake")
                }
            }
        }
        self.fired = fired;
    }

    fn on_woke(&mut self, now: Tick, out: &mut Effects) {
        let mut fired = core::mem::take(&mut self.fired);
        self.timers.expire(now, &mut fired);
        for due in fired.drain(..) {
            match due {
                Due::Attempt(key, reason) => self.on_overdue(now, key, reason, out),
                Due::Bar(key) => self.on_bar_lifted(now, key, out),
                Due::Load(key) => self.on_load_overdue(now, key),
                Due::Queued(key) => self.on_queue_overdue(key, out),
                Due::Second(key) => self.on_second_due(now, key, out),
                Due::Challenge(_) | Due::Proof(_) | Due::Report(_) => {
                    unreachable!("these close a machine, which comes first")
                }
            }
        }
        self.fired = fired;
    }
}
