//! What the core takes of real time: the one thing of a run that differs from run to run. No decision sees
//! it, and no digest depends on it. The clock is its caller's.

use core::fmt;
use std::collections::BTreeMap;

use cereus_core::effect::{Effect, Effects};
use cereus_core::event::Event;
use cereus_core::ids::{AttemptKey, RequestId};

use crate::report::Histogram;

/// Nanoseconds since some moment.
pub type Clock = fn() -> u64;

/// Nanoseconds that steps took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    pub steps: Histogram,
    pub by_event: BTreeMap<&'static str, Histogram>,
    /// Over all steps that a request's own events took, from its arrival to its end.
    pub requests: Histogram,
    open: BTreeMap<RequestId, u64>,
    attempts: BTreeMap<AttemptKey, RequestId>,
}

impl Profile {
    pub(super) fn note(&mut self, event: &Event<'_>, effects: &Effects, took_ns: u64) {
        self.steps.note(took_ns);
        let (name, attempt) = named(event);
        self.by_event.entry(name).or_default().note(took_ns);
        let mut request = attempt.and_then(|attempt| self.attempts.get(&attempt).copied());
        if let Event::Arrived(ask) = event {
            self.open.insert(ask.request, 0);
            request = Some(ask.request);
        }
        if let Event::ConsumerLeft { request: left } = event {
            request = Some(*left);
        }
        if let Some(sum) = request.and_then(|request| self.open.get_mut(&request)) {
            *sum += took_ns;
        }
        for effect in &effects.list {
            match *effect {
                Effect::Dispatch {
                    request, attempt, ..
                } => {
                    self.attempts.insert(attempt, request);
                }
                Effect::Finish { request, .. }
                | Effect::Refuse { request, .. }
                | Effect::Fail { request, .. } => {
                    if let Some(sum) = self.open.remove(&request) {
                        self.requests.note(sum);
                    }
                }
                Effect::Alarm { .. }
                | Effect::CancelAttempt { .. }
                | Effect::Charge { .. }
                | Effect::Disconnect { .. }
                | Effect::Drained
                | Effect::LoadModel { .. }
                | Effect::Post { .. }
                | Effect::Release { .. }
                | Effect::TellContested { .. }
                | Effect::TellLossy { .. } => {}
            }
        }
        let is_over = matches!(
            event,
            Event::AttemptCompleted { .. } | Event::AttemptFailed { .. }
        );
        if let Some(attempt) = attempt.filter(|_| is_over) {
            self.attempts.remove(&attempt);
        }
    }
}

/// An event's name, and the attempt that it is of.
const fn named(event: &Event<'_>) -> (&'static str, Option<AttemptKey>) {
    match event {
        Event::AccountOpened { .. } => ("account opened", None),
        Event::AccountCredited { .. } => ("account credited", None),
        Event::HoldRecovered { .. } => ("hold recovered", None),
        Event::Persisted { .. } => ("persisted", None),
        Event::ProviderJoined { .. } => ("provider joined", None),
        Event::ProviderRestocked { .. } => ("provider restocked", None),
        Event::ProviderVerified { .. } => ("provider verified", None),
        Event::ProviderUnverified { .. } => ("provider unverified", None),
        Event::ProviderDistrusted { .. } => ("provider distrusted", None),
        Event::ProviderReported { .. } => ("provider reported", None),
        Event::ProviderLeft { .. } => ("provider left", None),
        Event::ModelLoaded { .. } => ("model loaded", None),
        Event::ModelLoadFailed { .. } => ("model load failed", None),
        Event::Arrived(_) => ("request arrived", None),
        Event::ConsumerLeft { .. } => ("consumer left", None),
        Event::AttemptAccepted { attempt, .. } => ("attempt accepted", Some(*attempt)),
        Event::AttemptStarted { attempt, .. } => ("attempt started", Some(*attempt)),
        Event::AttemptProgressed { attempt, .. } => ("attempt progressed", Some(*attempt)),
        Event::AttemptCompleted { attempt, .. } => ("attempt completed", Some(*attempt)),
        Event::AttemptFailed { attempt, .. } => ("attempt failed", Some(*attempt)),
        Event::DrainBegan => ("drain began", None),
        Event::Woke => ("woke", None),
        Event::ModelListed { .. } => ("model listed", None),
        Event::ModelPriced { .. } => ("model priced", None),
        Event::ModelRetired { .. } => ("model retired", None),
        Event::LimitsChanged { .. } => ("limits changed", None),
        Event::ProviderAttested { .. } => ("provider attested", None),
        Event::WarmMinChanged { .. } => ("warm min changed", None),
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<22}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "core, microseconds", "count", "mean", "p50", "p99", "p99.9", "most"
        )?;
        let all = [
            ("all steps", &self.steps),
            ("a whole request", &self.requests),
        ];
        let each = self.by_event.iter().map(|(name, one)| (*name, one));
        for (name, one) in all.into_iter().chain(each) {
            writeln!(
                f,
                "{name:<22}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
                one.count(),
                Micros(one.mean()),
                Micros(one.per_mille(500)),
                Micros(one.per_mille(990)),
                Micros(one.per_mille(999)),
                Micros(one.max()),
            )?;
        }
        Ok(())
    }
}

/// Of nanoseconds, with two digits after the point.
struct Micros(u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = (self.0 + 5) / 10;
        f.pad(&format!("{}.{:02}", hundredths / 100, hundredths % 100))
    }
}
