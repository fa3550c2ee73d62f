//! Appends records to a buffer.

use core::num::NonZeroU32;

use postcard::ser_flavors::Flavor;
use serde::Serialize;

use super::{
    CONFIG_SIZE_MAX, Checkpoint, FRAME_SIZE, HEADER_SIZE, Kind, MAGIC, RECORD_SIZE_MAX, VERSION,
    checksum,
};
use crate::config::Config;
use crate::digest::Mix;
use crate::effect::Effects;
use crate::event::Event;
use crate::time::Tick;

/// A value longer than the format allows. Nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oversized {
    pub size: usize,
    pub size_max: usize,
}

impl core::fmt::Display for Oversized {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "a journal record of {} bytes; at most {} fit",
            self.size, self.size_max
        )
    }
}

impl core::error::Error for Oversized {}

/// Running digest over effects, however they were batched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EffectsDigest {
    mix: Mix,
    count: u64,
}

impl EffectsDigest {
    /// Folds in the effects from position `from` of the list.
    pub fn fold(&mut self, effects: &Effects, from: usize) {
        self.count += effects.list.len().saturating_sub(from) as u64;
        effects.digest_from(from, &mut self.mix);
    }

    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    #[must_use]
    pub const fn digest(&self) -> u128 {
        self.mix.end_wide()
    }
}

/// Writes one journal. Its caller owns the buffer and may write it out and clear it at any time
/// between two calls.
#[derive(Clone, Debug)]
pub struct Writer {
    position: u64,
    events: u64,
    checkpoint_every: NonZeroU32,
    since_checkpoint: u32,
    effects: EffectsDigest,
}

impl Writer {
    /// Appends the header.
    pub fn begin(
        config: &Config,
        checkpoint_every: NonZeroU32,
        out: &mut Vec<u8>,
    ) -> Result<Self, Oversized> {
        let from = out.len();
        out.resize(from + HEADER_SIZE, 0);
        append(config, out);
        let size = out.len() - from - HEADER_SIZE;
        if size > CONFIG_SIZE_MAX {
            out.truncate(from);
            return Err(Oversized {
                size,
                size_max: CONFIG_SIZE_MAX,
            });
        }
        let length = u32::try_from(size).expect("bounded by CONFIG_SIZE_MAX");
        let header = &mut out[from..];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&length.to_le_bytes());
        let config_sum = checksum(HEADER_SIZE as u64, &header[HEADER_SIZE..]);
        header[16..20].copy_from_slice(&config_sum.to_le_bytes());
        let head_sum = checksum(0, &header[..20]);
        header[20..24].copy_from_slice(&head_sum.to_le_bytes());
        Ok(Self {
            position: (HEADER_SIZE + size) as u64,
            events: 0,
            checkpoint_every,
            since_checkpoint: 0,
            effects: EffectsDigest::default(),
        })
    }

    /// Appends one event. Call it before the coordinator's step, so that an event on which the
    /// coordinator stops for good is in the journal too.
    pub fn event(
        &mut self,
        at: Tick,
        event: &Event<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Oversized> {
        // The fields of `Stamped`, without taking the event by value.
        self.frame(Kind::Event, &(at, event), out)?;
        self.events += 1;
        self.since_checkpoint += 1;
        Ok(())
    }

    /// Folds in what the step that followed [`Self::event`] asked for: the effects from position
    /// `from` of the list.
    pub fn effects(&mut self, effects: &Effects, from: usize) {
        self.effects.fold(effects, from);
    }

    /// Whether enough events have passed for [`Self::checkpoint`].
    #[must_use]
    pub const fn is_checkpoint_due(&self) -> bool {
        self.since_checkpoint >= self.checkpoint_every.get()
    }

    /// Appends where the coordinator stands after the last event.
    pub fn checkpoint(&mut self, state_digest: u128, out: &mut Vec<u8>) {
        let checkpoint = self.standing(state_digest);
        self.frame(Kind::Checkpoint, &checkpoint, out)
            .expect("a checkpoint is small");
        self.since_checkpoint = 0;
    }

    /// Appends the last record: what follows it is not of this journal.
    pub fn close(mut self, state_digest: u128, out: &mut Vec<u8>) {
        let checkpoint = self.standing(state_digest);
        self.frame(Kind::Closed, &checkpoint, out)
            .expect("a checkpoint is small");
    }

    /// Bytes appended so far, header included.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.position
    }

    const fn standing(&self, state_digest: u128) -> Checkpoint {
        Checkpoint {
            events: self.events,
            effects: self.effects.count(),
            effects_digest: self.effects.digest(),
            state_digest,
        }
    }

    fn frame<T: Serialize>(
        &mut self,
        kind: Kind,
        content: &T,
        out: &mut Vec<u8>,
    ) -> Result<(), Oversized> {
        let from = out.len();
        out.resize(from + FRAME_SIZE, 0);
        out.push(kind as u8);
        append(content, out);
        let size = out.len() - from - FRAME_SIZE;
        if size > RECORD_SIZE_MAX {
            out.truncate(from);
            return Err(Oversized {
                size,
                size_max: RECORD_SIZE_MAX,
            });
        }
        let length = u32::try_from(size).expect("bounded by RECORD_SIZE_MAX");
        let frame = &mut out[from..];
        let body_sum = checksum(self.position, &frame[FRAME_SIZE..]);
        frame[..4].copy_from_slice(&length.to_le_bytes());
        frame[4..8].copy_from_slice(&body_sum.to_le_bytes());
        let head_sum = checksum(self.position, &frame[..8]);
        frame[8..12].copy_from_slice(&head_sum.to_le_bytes());
        self.position += frame.len() as u64;
        Ok(())
    }
}

/// Lets postcard write to the end of a vector.
struct Tail<'a>(&'a mut Vec<u8>);

impl Flavor for Tail<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

fn append<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    postcard::serialize_with_flavor(value, Tail(out))
        .expect("a vector takes all bytes, and every stored list knows its length");
}
