//! `sim replay`: a recorded journal through a fresh coordinator. What production did, proved by
//! digest.

use core::fmt;

use cereus_core::effect::Effects;
use cereus_core::event::Event;
use cereus_core::journal::{Checkpoint, Ending, Fault, Reader, Report, replay_observed};
use cereus_core::relay::Entry;
use cereus_core::time::Tick;

/// What a replay showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    pub report: Report,
    /// From the first event to the last.
    pub first_at: Tick,
    pub last_at: Tick,
    pub size: u64,
}

/// Reads and replays. Each event is shown to `observe` with its effects.
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
    let report = replay_observed(&mut reader, &mut core, |at, event, effects| {
        span = Some((span.map_or(at, |(first, _)| first), at));
        observe(at, event, effects);
    });
    let (first_at, last_at) = span.unwrap_or_default();
    Ok(Replay {
        report,
        first_at,
        last_at,
        size: bytes.len() as u64,
    })
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
        match report.ending {
            Ending::Closed => f.write_str("ending         closed in order"),
            Ending::Faulty(fault) if fault.is_torn_tail() => {
                write!(f, "ending         torn, as after a crash: {fault}")
            }
            Ending::Faulty(fault) => write!(f, "DAMAGED        {fault}"),
        }
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
}
