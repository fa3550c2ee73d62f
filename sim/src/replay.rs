//! `sim replay`: a recorded journal through a fresh coordinator. What production did, proved by
//! digest.

use core::fmt;

use cereus_core::coordinator::Coordinator;
use cereus_core::effect::Effects;
use cereus_core::event::Event;
use cereus_core::ids::RequestId;
use cereus_core::journal::{
    Checkpoint, Ending, Fault, Hole, Reader, Record, Report, replay_observed,
};
use cereus_core::relay::{Entry, TrailReplayer};
use cereus_core::time::Tick;

/// What a replay showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Up to the first fault.
    pub report: Report,
    /// Behind it, where records can be read there.
    pub behind: Behind,
    /// From the first event to the last.
    pub first_at: Tick,
    pub last_at: Tick,
    pub size: u64,
}

/// What stands behind damage. It is read, and replayed as long as it may be that no event is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    pub holes: Vec<Hole>,
    pub events: u64,
    /// Of these: up to the last checkpoint whose state agreed.
    pub verified: u64,
    /// Events that the damage took, as far as a checkpoint behind it tells.
    pub lost: Option<u64>,
    pub trails: u64,
    pub strayed: Option<RequestId>,
    /// How it ends behind the last hole.
    pub ending: Option<Ending>,
}

/// What a replay comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Something was reproduced otherwise than it was recorded.
    Differs,
    /// Nothing differs, and something is missing or could not be compared.
    Partly,
    /// Every event, and the journal was closed in order.
    Verified,
}

impl Replay {
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let report = &self.report;
        if report.diverged.is_some() || report.strayed.is_some() || self.behind.strayed.is_some() {
            return Verdict::Differs;
        }
        let is_whole = report.ending == Ending::Closed && report.verified == report.events;
        match is_whole {
            true => Verdict::Verified,
            false => Verdict::Partly,
        }
    }

    /// Events that were read and agree with nothing.
    #[must_use]
    pub fn unverified(&self) -> u64 {
        let behind = self.behind.events - self.behind.verified;
        self.report.events - self.report.verified + behind
    }
}

/// Reads and replays. Each event is shown to `observe` with its effects; behind a hole that took events
/// it has none.
///
/// # Errors
/// The header is damaged, or the snapshot is of another build; later damage is in the report.
pub fn replay(
    bytes: &[u8],
    mut observe: impl FnMut(Tick, &Event<'_>, &Effects),
) -> Result<Replay, Fault> {
    let mut reader = Reader::open(bytes)?;
    let mut core = reader.coordinator()?;
    let mut span: Option<(Tick, Tick)> = None;
    let mut look = |at: Tick, event: &Event<'_>, effects: &Effects| {
        span = Some((span.map_or(at, |(first, _)| first), at));
        observe(at, event, effects);
    };
    let report = replay_observed(&mut reader, &mut core, &mut look);
    let mut behind = Behind::default();
    while let Some(hole) = reader.skip_hole() {
        behind.holes.push(hole);
        read_on(&mut reader, &mut core, &report, &mut behind, &mut look);
    }
    let (first_at, last_at) = span.unwrap_or_default();
    Ok(Replay {
        report,
        behind,
        first_at,
        last_at,
        size: bytes.len() as u64,
    })
}

/// Reads from behind a hole to the next fault, or to the end.
fn read_on(
    reader: &mut Reader<'_>,
    core: &mut Coordinator,
    before: &Report,
    behind: &mut Behind,
    observe: &mut impl FnMut(Tick, &Event<'_>, &Effects),
) {
    let mut relays = TrailReplayer::new();
    let mut effects = Effects::default();
    behind.ending = Some(Ending::Closed);
    for record in reader {
        match record {
            Ok(Record::Event(stamped)) => {
                effects.clear();
                if behind.lost.unwrap_or(0) == 0 {
                    // A misuse shows that events are missing, which the next checkpoint tells.
                    let _ = core.step(stamped.at, &stamped.event, &mut effects);
                }
                behind.events += 1;
                observe(stamped.at, &stamped.event, &effects);
            }
            Ok(Record::Snapshot(_)) => {}
            Ok(Record::Trail(request, trail)) => {
                let has_strayed = relays.replayed(&trail) != trail;
                behind.strayed = behind.strayed.or(has_strayed.then_some(request));
                behind.trails += 1;
            }
            Ok(Record::Checkpoint(recorded) | Record::Closed(recorded)) => {
                let read = before.events + behind.events;
                let lost = recorded.events.saturating_sub(read);
                behind.lost = Some(lost);
                let agrees = recorded.state_digest == Some(core.digest());
                if lost == 0 && agrees && before.diverged.is_none() {
                    behind.verified = behind.events;
                }
            }
            Err(fault) => behind.ending = Some(Ending::Faulty(fault)),
        }
    }
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = &self.report;
        let span_ms = self.last_at.since(self.first_at).as_millis_floor();
        writeln!(
            f,
            "journal        {} bytes, {} events over {}.{:03} s",
            self.size,
            report.events,
            span_ms / 1_000,
            span_ms % 1_000
        )?;
        writeln!(
            f,
            "effects        {}, digest {:032x}",
            report.effects, report.effects_digest
        )?;
        writeln!(f, "state          digest {:032x}", report.state_digest)?;
        if report.misuses > 0 {
            writeln!(f, "misuses        {}", report.misuses)?;
        }
        match report.diverged {
            None => writeln!(f, "checkpoints    {} agree", report.checkpoints)?,
            Some(divergence) => writeln!(
                f,
                "DIVERGED       at byte {}, after {} checkpoints that agree: \
                 recorded {}, replayed {}",
                divergence.at,
                divergence.agreed,
                standing(&divergence.recorded),
                standing(&divergence.replayed),
            )?,
        }
        writeln!(
            f,
            "verified       {} events; {} were read, and no checkpoint behind them agrees or is left",
            report.verified + self.behind.verified,
            self.unverified()
        )?;
        match report.strayed {
            None => writeln!(
                f,
                "relays         {} stepped again, as recorded",
                report.trails
            )?,
            Some(strayed) => writeln!(
                f,
                "STRAYED        the relay of {}, at byte {}: recorded {}, replayed {}",
                strayed.request,
                strayed.at,
                told(strayed.recorded),
                told(strayed.replayed),
            )?,
        }
        write_ending(report.ending, f)?;
        if !self.behind.holes.is_empty() {
            write!(f, "\n{}", self.behind)?;
        }
        Ok(())
    }
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for hole in &self.holes {
            let size = hole.to - hole.from;
            writeln!(f, "hole           {size} bytes from byte {}", hole.from)?;
        }
        write!(f, "behind it      {} events, ", self.events)?;
        match self.lost {
            None => writeln!(f, "and no checkpoint that says how many are missing")?,
            Some(0) => writeln!(f, "none is missing")?,
            Some(lost) => writeln!(
                f,
                "{lost} are missing before them: they were read and not replayed"
            )?,
        }
        match self.strayed {
            None => writeln!(
                f,
                "               {} relays stepped again, as recorded",
                self.trails
            )?,
            Some(request) => writeln!(f, "STRAYED        the relay of {request}, behind the hole")?,
        }
        self.ending.map_or(Ok(()), |ending| write_ending(ending, f))
    }
}

fn write_ending(ending: Ending, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match ending {
        Ending::Closed => f.write_str("ending         closed in order"),
        Ending::Faulty(fault) if fault.is_torn_tail() => {
            write!(f, "ending         torn, as after a crash: {fault}")
        }
        Ending::Faulty(fault) => write!(f, "DAMAGED        {fault}"),
    }
}

fn told(entry: Option<Entry>) -> String {
    entry.map_or_else(
        || "nothing".to_owned(),
        |Entry { at, attempt, told }| {
            let attempt = attempt.map_or_else(String::new, |it| {
                format!(" of attempt {}.{}", it.slot, it.generation)
            });
            format!("{told:?}{attempt} at {} us", at.0)
        },
    )
}

fn standing(checkpoint: &Checkpoint) -> String {
    let state = checkpoint
        .state_digest
        .map_or_else(String::new, |digest| format!(", state {digest:032x}"));
    format!(
        "{} events, {} effects {:032x}{state}",
        checkpoint.events, checkpoint.effects, checkpoint.effects_digest
    )
}

#[cfg(test)]
mod tests {
    use core::num::NonZeroU32;

    use cereus_core::coordinator::Coordinator;
    use cereus_core::journal::Writer;

    use super::*;
    use crate::world::config::RunConfig;

    fn recorded() -> Vec<u8> {
        let config = RunConfig::reference(1).core();
        let mut bytes = Vec::new();
        let every = NonZeroU32::new(2).unwrap();
        let mut writer = Writer::begin(&config, every, &mut bytes).unwrap();
        let mut core = Coordinator::new(config);
        let mut effects = Effects::default();
        for second in 0..9 {
            let event = Event::Woke;
            let at = Tick(second * 1_000_000);
            writer.event(at, &event, &mut bytes).unwrap();
            effects.clear();
            core.step(at, &event, &mut effects).unwrap();
            writer.effects(&effects, 0);
            if writer.is_checkpoint_due() {
                writer.checkpoint(Some(core.digest()), &mut bytes);
            }
        }
        writer.close(Some(core.digest()), &mut bytes);
        bytes
    }

    #[test]
    fn a_sound_journal_replays_to_its_own_digests() {
        let replay = replay(&recorded(), |_, _, _| {}).unwrap();
        assert!(replay.report.is_faithful());
        assert_eq!(replay.report.events, 9);
        assert_eq!(replay.last_at, Tick(8_000_000));
        assert!(replay.to_string().contains("closed in order"));
    }

    #[test]
    fn any_flipped_byte_is_told_with_a_position_before_it() {
        let sound = recorded();
        for ix in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[ix] ^= 0x10;
            let fault = match replay(&damaged, |_, _, _| {}) {
                Err(fault) => fault,
                Ok(replay) => match replay.report.ending {
                    Ending::Faulty(fault) => fault,
                    Ending::Closed => panic!("byte {ix} was flipped and nobody noticed"),
                },
            };
            assert!(fault.at() <= ix as u64, "{fault:?} for byte {ix}");
        }
    }

    /// Where each frame begins, the end of the last included.
    fn frames(bytes: &[u8]) -> Vec<usize> {
        let mut reader = Reader::open(bytes).unwrap();
        let mut starts = vec![usize::try_from(reader.offset()).unwrap()];
        while let Some(Ok(_)) = reader.next() {
            starts.push(usize::try_from(reader.offset()).unwrap());
        }
        starts
    }

    fn shown(bytes: &[u8]) -> Replay {
        replay(bytes, |_, _, _| {}).expect("the header is whole")
    }

    #[test]
    fn a_whole_journal_is_verified_and_says_so() {
        let replay = shown(&recorded());
        assert_eq!(replay.verdict(), Verdict::Verified);
        assert_eq!((replay.report.verified, replay.unverified()), (9, 0));
    }

    #[test]
    fn a_journal_that_is_torn_before_its_first_checkpoint_verifies_nothing_and_says_so() {
        let bytes = recorded();
        // Two events and then a checkpoint: the tear is in the second event.
        let torn = &bytes[..frames(&bytes)[2] - 3];
        let replay = shown(torn);
        assert_eq!(replay.verdict(), Verdict::Partly);
        assert_eq!((replay.report.verified, replay.unverified()), (0, 1));
        let text = replay.to_string();
        assert!(
            text.contains("verified       0 events; 1 were read"),
            "{text}"
        );
        assert!(text.contains("torn, as after a crash"), "{text}");
    }

    #[test]
    fn every_tear_is_told_whatever_it_leaves() {
        let bytes = recorded();
        let starts = frames(&bytes);
        for size in starts[0]..bytes.len() {
            let replay = shown(&bytes[..size]);
            assert_eq!(replay.verdict(), Verdict::Partly, "{size} bytes");
            assert!(replay.behind.holes.is_empty(), "{size} bytes");
        }
    }

    #[test]
    fn a_tail_of_zeros_is_a_torn_end_and_no_damage() {
        let bytes = recorded();
        let starts = frames(&bytes);
        // From the beginning of a record, from its head and from its body.
        for from in [starts[4], starts[4] + 5, starts[4] + 13] {
            let mut zeroed = bytes.clone();
            zeroed[from..].fill(0);
            zeroed.extend([0; 4_096]);
            let replay = shown(&zeroed);
            assert_eq!(replay.verdict(), Verdict::Partly);
            assert_eq!(replay.report.verified, 2);
            let Ending::Faulty(fault) = replay.report.ending else {
                panic!("it has no end");
            };
            assert!(
                fault.is_torn_tail() && fault.at() == starts[4] as u64,
                "{fault}"
            );
            assert!(replay.to_string().contains("nothing but zeros"), "{replay}");
        }
    }

    #[test]
    fn what_stands_behind_a_hole_that_took_events_is_read_and_not_called_verified() {
        let mut bytes = recorded();
        let starts = frames(&bytes);
        // The third event, which stands behind the first checkpoint.
        bytes[starts[3]..starts[4]].fill(0xee);
        let mut seen = 0;
        let replay = replay(&bytes, |_, _, _| seen += 1).unwrap();
        assert_eq!(replay.verdict(), Verdict::Partly);
        assert_eq!(replay.report.verified, 2);
        assert_eq!((replay.behind.events, replay.behind.lost), (6, Some(1)));
        assert_eq!((replay.behind.verified, seen), (0, 8));
        assert_eq!(replay.behind.ending, Some(Ending::Closed));
        let hole = replay.behind.holes[0];
        assert_eq!((hole.from, hole.to), (starts[3] as u64, starts[4] as u64));
        let text = replay.to_string();
        assert!(text.contains("1 are missing before them"), "{text}");
    }

    #[test]
    fn what_stands_behind_a_hole_that_took_no_event_is_verified() {
        let mut bytes = recorded();
        let starts = frames(&bytes);
        // The first checkpoint.
        bytes[starts[2] + 4] ^= 1;
        let replay = shown(&bytes);
        assert_eq!(replay.verdict(), Verdict::Partly);
        assert_eq!((replay.report.events, replay.report.verified), (2, 0));
        assert_eq!((replay.behind.events, replay.behind.lost), (7, Some(0)));
        assert_eq!(replay.behind.verified, 7, "{replay}");
    }

    #[test]
    fn several_holes_are_all_told() {
        let mut bytes = recorded();
        let starts = frames(&bytes);
        for ix in [1, 6, 9] {
            bytes[starts[ix] + 13] ^= 0x40;
        }
        let replay = shown(&bytes);
        let from: Vec<u64> = replay.behind.holes.iter().map(|hole| hole.from).collect();
        assert_eq!(from, [starts[1] as u64, starts[6] as u64, starts[9] as u64]);
        assert_eq!(replay.behind.lost, Some(3));
    }
}
