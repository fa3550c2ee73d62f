//! Feeds a journal through a fresh coordinator and compares.

use super::{Checkpoint, EffectsDigest, Fault, Reader, Record};
use crate::coordinator::{Coordinator, Misuse};
use crate::effect::Effects;
use crate::event::Event;
use crate::ids::RequestId;
use crate::relay::{Entry, Trail, TrailReplayer};
use crate::time::Tick;

/// What can be replayed: the two doors of a coordinator that a journal needs.
pub trait Replayed {
    fn step(&mut self, now: Tick, event: &Event<'_>, out: &mut Effects) -> Result<(), Misuse>;

    fn digest(&self) -> u128;
}

impl Replayed for Coordinator {
    fn step(&mut self, now: Tick, event: &Event<'_>, out: &mut Effects) -> Result<(), Misuse> {
        Self::step(self, now, event, out)
    }

    fn digest(&self) -> u128 {
        Self::digest(self)
    }
}

/// A checkpoint that the replay did not reproduce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// Where its record begins.
    pub at: u64,
    /// How many checkpoints before it agreed.
    pub agreed: u64,
    pub recorded: Checkpoint,
    pub replayed: Checkpoint,
}

/// A relay that does otherwise than the recorded one did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strayed {
    /// Where its record begins.
    pub at: u64,
    pub request: RequestId,
    /// The first entry that differs, as it was recorded and as it is now.
    pub recorded: Option<Entry>,
    pub replayed: Option<Entry>,
}

impl Strayed {
    fn between(at: u64, request: RequestId, recorded: &Trail, replayed: &Trail) -> Option<Self> {
        let (old, new) = (recorded.entries(), replayed.entries());
        let ix = (0..old.len().max(new.len())).find(|&ix| old.get(ix) != new.get(ix))?;
        Some(Self {
            at,
            request,
            recorded: old.get(ix).copied(),
            replayed: new.get(ix).copied(),
        })
    }
}

/// How the journal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With its closing record.
    Closed,
    /// At a fault. Everything before it was replayed.
    Faulty(Fault),
}

/// What a replay found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    pub events: u64,
    /// Events up to the last checkpoint that agreed, before any that did not.
    pub verified: u64,
    pub effects: u64,
    /// Checkpoints compared, the closing record included.
    pub checkpoints: u64,
    /// Events that the coordinator refused as misuse of its doors.
    pub misuses: u64,
    pub diverged: Option<Divergence>,
    /// Relays whose trail was stepped again.
    pub trails: u64,
    /// The first that did otherwise than it was recorded.
    pub strayed: Option<Strayed>,
    pub ending: Ending,
    pub effects_digest: u128,
    pub state_digest: u128,
}

impl Report {
    /// Everything that was recorded was reproduced. A tail that a crash tore off counts as
    /// recorded up to the tear.
    #[must_use]
    pub const fn is_faithful(&self) -> bool {
        let is_sound = match self.ending {
            Ending::Closed => true,
            Ending::Faulty(fault) => fault.is_torn_tail(),
        };
        is_sound && self.diverged.is_none() && self.strayed.is_none()
    }
}

/// Feeds every event to `coordinator`, which must be as [`Reader::coordinator`] gives it, and compares
/// each checkpoint. Goes on after a divergence, so that the report counts
/// the whole journal.
pub fn replay<C: Replayed>(reader: &mut Reader<'_>, coordinator: &mut C) -> Report {
    replay_observed(reader, coordinator, |_, _, _| {})
}

/// As [`replay`], and shows each event with the effects that it had.
pub fn replay_observed<C: Replayed>(
    reader: &mut Reader<'_>,
    coordinator: &mut C,
    mut observe: impl FnMut(Tick, &Event<'_>, &Effects),
) -> Report {
    let mut out = Effects::with_capacity(64);
    let mut digest = EffectsDigest::default();
    let mut relays = TrailReplayer::new();
    let mut report = Report {
        events: 0,
        verified: 0,
        effects: 0,
        checkpoints: 0,
        misuses: 0,
        diverged: None,
        trails: 0,
        strayed: None,
        ending: Ending::Closed,
        effects_digest: 0,
        state_digest: 0,
    };
    loop {
        let at = reader.offset();
        let recorded = match reader.next() {
            None => break,
            Some(Err(fault)) => {
                report.ending = Ending::Faulty(fault);
                break;
            }
            Some(Ok(Record::Event(stamped))) => {
                out.clear();
                if coordinator
                    .step(stamped.at, &stamped.event, &mut out)
                    .is_err()
                {
                    report.misuses += 1;
                }
                digest.fold(&out, 0);
                report.events += 1;
                observe(stamped.at, &stamped.event, &out);
                continue;
            }
            Some(Ok(Record::Snapshot(_))) => continue,
            Some(Ok(Record::Trail(request, trail))) => {
                let replayed = relays.replayed(&trail);
                let strayed = Strayed::between(at, request, &trail, &replayed);
                report.strayed = report.strayed.or(strayed);
                report.trails += 1;
                continue;
            }
            Some(Ok(Record::Checkpoint(recorded) | Record::Closed(recorded))) => recorded,
        };
        let replayed = Checkpoint {
            events: report.events,
            effects: digest.count(),
            effects_digest: digest.digest(),
            // Only what was recorded is worth its cost.
            state_digest: recorded.state_digest.map(|_| coordinator.digest()),
        };
        if replayed != recorded && report.diverged.is_none() {
            report.diverged = Some(Divergence {
                at,
                agreed: report.checkpoints,
                recorded,
                replayed,
            });
        }
        if report.diverged.is_none() {
            report.verified = report.events;
        }
        report.checkpoints += 1;
    }
    report.effects = digest.count();
    report.effects_digest = digest.digest();
    report.state_digest = coordinator.digest();
    report
}
