//! Appends records to a buffer.

use core::num::NonZeroU32;

use postcard::ser_flavors::Flavor;
use serde::Serialize;

use super::header::{Head, Segment, SnapshotHead, Start};
use super::layout::Put as _;
use super::records::{CheckpointLayout, put_event, put_trail};
use super::{
    Checkpoint, FRAME_SIZE, HEAD_SIZE_MAX, HEADER_SIZE, Kind, MAGIC, RECORD_SIZE_MAX,
    STATE_EVENTS_PER_ENTITY, VERSION, checksum,
};
use crate::config::Config;
use crate::coordinator::Coordinator;
use crate::digest::Mix;
use crate::effect::Effects;
use crate::event::Event;
use crate::ids::RequestId;
use crate::relay::Trail;
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

/// Bytes of one snapshot record: its pieces are as long as records may be.
const PIECE_SIZE: usize = RECORD_SIZE_MAX - 1;

/// Writes one segment. Its caller owns the buffer and may write it out and clear it at any time
/// between two calls.
#[derive(Clone, Debug)]
pub struct Writer {
    position: u64,
    segment: u32,
    events_before: u64,
    events: u64,
    checkpoint_every: NonZeroU32,
    since_checkpoint: u32,
    since_state: u64,
    effects: EffectsDigest,
}

impl Writer {
    /// Appends the header of a process's first segment: its coordinator is fresh.
    pub fn begin(
        config: &Config,
        checkpoint_every: NonZeroU32,
        out: &mut Vec<u8>,
    ) -> Result<Self, Oversized> {
        Self::open(config, Segment::FIRST, checkpoint_every, out)
    }

    /// Appends the header of a later segment, and `core` as it stands. `events_before` counts all
    /// events of the process so far, recorded or not.
    pub fn resume(
        core: &Coordinator,
        number: u32,
        events_before: u64,
        checkpoint_every: NonZeroU32,
        out: &mut Vec<u8>,
    ) -> Result<Self, Oversized> {
        let snapshot = core.snapshot();
        let start = Start::Snapshot(SnapshotHead {
            size: snapshot.len() as u64,
            state_digest: format!("{:032x}", core.digest()),
            build: env!("CARGO_PKG_VERSION").to_owned(),
        });
        let segment = Segment {
            number,
            events_before,
            start,
        };
        let mut writer = Self::open(core.config(), segment, checkpoint_every, out)?;
        for piece in snapshot.chunks(PIECE_SIZE) {
            writer
                .frame(Kind::Snapshot, |out| out.extend_from_slice(piece), out)
                .expect("pieces are cut to fit");
        }
        Ok(writer)
    }

    fn open(
        config: &Config,
        segment: Segment,
        checkpoint_every: NonZeroU32,
        out: &mut Vec<u8>,
    ) -> Result<Self, Oversized> {
        let (number, events_before) = (segment.number, segment.events_before);
        let content = serde_json::to_vec(&Head::new(config, segment)).expect("plain data");
        if content.len() > HEAD_SIZE_MAX {
            return Err(Oversized {
                size: content.len(),
                size_max: HEAD_SIZE_MAX,
            });
        }
        let length = u32::try_from(content.len()).expect("bounded by HEAD_SIZE_MAX");
        let mut head = [0; HEADER_SIZE];
        head[..8].copy_from_slice(&MAGIC);
        head[8..12].copy_from_slice(&VERSION.to_le_bytes());
        head[12..16].copy_from_slice(&length.to_le_bytes());
        let content_sum = checksum(HEADER_SIZE as u64, &content);
        head[16..20].copy_from_slice(&content_sum.to_le_bytes());
        let head_sum = checksum(0, &head[..20]);
        head[20..24].copy_from_slice(&head_sum.to_le_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(&content);
        Ok(Self {
            position: (HEADER_SIZE + content.len()) as u64,
            segment: number,
            events_before,
            events: 0,
            checkpoint_every,
            since_checkpoint: 0,
            since_state: 0,
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
        self.frame(Kind::Event, |out| put_event(at, event, out), out)?;
        self.events += 1;
        self.since_checkpoint += 1;
        self.since_state += 1;
        Ok(())
    }

    /// Appends what the relay of a request that has ended was told.
    pub fn trail(
        &mut self,
        request: RequestId,
        trail: &Trail,
        out: &mut Vec<u8>,
    ) -> Result<(), Oversized> {
        self.frame(Kind::Trail, |out| put_trail(request, trail, out), out)
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

    /// Whether the next checkpoint should carry the state's digest, which costs as much as the state
    /// is large. `weight` is [`Coordinator::weight`].
    #[must_use]
    pub fn is_state_due(&self, weight: u64) -> bool {
        self.since_state >= weight.saturating_mul(STATE_EVENTS_PER_ENTITY)
    }

    /// Appends where the coordinator stands after the last event.
    pub fn checkpoint(&mut self, state_digest: Option<u128>, out: &mut Vec<u8>) {
        self.standing(Kind::Checkpoint, state_digest, out);
        self.since_checkpoint = 0;
        if state_digest.is_some() {
            self.since_state = 0;
        }
    }

    /// Appends the last record: what follows it is not of this journal.
    pub fn close(mut self, state_digest: Option<u128>, out: &mut Vec<u8>) {
        self.standing(Kind::Closed, state_digest, out);
    }

    /// The number of this segment, from 1 in each process.
    #[must_use]
    pub const fn segment(&self) -> u32 {
        self.segment
    }

    /// Events of the process up to here.
    #[must_use]
    pub const fn events_so_far(&self) -> u64 {
        self.events_before + self.events
    }

    /// Bytes appended so far, header included.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.position
    }

    fn standing(&mut self, kind: Kind, state_digest: Option<u128>, out: &mut Vec<u8>) {
        let checkpoint = Checkpoint {
            events: self.events,
            effects: self.effects.count(),
            effects_digest: self.effects.digest(),
            state_digest,
        };
        self.frame(kind, |out| CheckpointLayout::put(&checkpoint, out), out)
            .expect("a checkpoint is small");
    }

    fn frame(
        &mut self,
        kind: Kind,
        put: impl FnOnce(&mut Vec<u8>),
        out: &mut Vec<u8>,
    ) -> Result<(), Oversized> {
        let from = out.len();
        out.resize(from + FRAME_SIZE, 0);
        out.push(kind as u8);
        put(out);
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

pub(super) fn append<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    postcard::serialize_with_flavor(value, Tail(out))
        .expect("a vector takes all bytes, and every stored list knows its length");
}
