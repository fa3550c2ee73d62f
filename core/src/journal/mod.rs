//! The journal: every event that a coordinator handled, so that anyone can replay it.
//!
//! A pure codec. The [`Writer`] appends to a buffer that its caller writes out, the [`Reader`] walks
//! over bytes that its caller read, and [`replay`] feeds them through a coordinator. It never opens
//! anything and never panics on what it reads.
//!
//! A process writes one journal after another, its segments. The first begins with a coordinator
//! fresh from its configuration, each later one with a snapshot, so that every segment replays
//! alone and old ones can go. `records` is the table of what an event looks like, and says
//! how to add to it.
//!
//! Layout, all integers little-endian:
//!
//! ```text
//! header  magic (8)  version u32  content length u32  content checksum u32  head checksum u32  content
//! record  length u32  body checksum u32  head checksum u32  kind u8  content
//! ```
//!
//! Checksums are CRC-32 (IEEE), each begun with the position of its frame, so that a record that was
//! moved, repeated or cut out is found as surely as a flipped byte. The head has its own, so that a
//! damaged length is never mistaken for a tail that a crash tore off. The header's content is JSON,
//! those of records are postcard.
//!
//! | version | what changed |
//! |---|---|
//! | 1 | one journal for each process; the header's content is the configuration in postcard |
//! | 2 | segments with snapshots; the header's content is JSON; a checkpoint may leave the state's digest out |

mod header;
mod layout;
mod reader;
mod records;
mod replay;
mod segments;
mod writer;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

pub use self::header::{Segment, SnapshotHead, Start};
pub use self::reader::{Fault, Hole, Reader, Record};
pub use self::replay::{Divergence, Ending, Replayed, Report, Strayed, replay, replay_observed};
pub use self::segments::SegmentRules;
pub use self::writer::{EffectsDigest, Oversized, Writer};

/// The first bytes of every journal.
pub const MAGIC: [u8; 8] = *b"CEREUSJ\n";

/// Of the layout above. Every earlier one is read too.
pub const VERSION: u32 = 2;

/// Longest content that a header may carry, in bytes (a full catalogue takes about 2 MiB).
pub const HEAD_SIZE_MAX: usize = 16 << 20;

/// Longest record, in bytes, kind included. The largest event lists 64 slots of at most 70 bytes.
pub const RECORD_SIZE_MAX: usize = 64 << 10;

/// Events between two checkpoints.
pub const CHECKPOINT_EVENTS: u32 = 4_096;

const HEADER_SIZE: usize = 24;
const FRAME_SIZE: usize = 12;

/// Events for each entity of the state between two digests of it, at least: a digest reads all of it,
/// and must not cost more than the events themselves.
const STATE_EVENTS_PER_ENTITY: u64 = 16;

/// What a record is. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Event = 1,
    Checkpoint = 2,
    Closed = 3,
    /// A piece of the state with which a segment begins.
    Snapshot = 4,
    /// What one relay was told.
    Trail = 5,
}

/// Where the coordinator stood after `events` events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Events since the segment began.
    pub events: u64,
    /// Effects since the segment began.
    pub effects: u64,
    /// Digest of every effect since the segment began, in order.
    pub effects_digest: u128,
    /// [`crate::coordinator::Coordinator::digest`], where it was taken.
    pub state_digest: Option<u128>,
}

fn checksum(at: u64, bytes: &[u8]) -> u32 {
    let seed = u32::try_from(at & 0xffff_ffff).expect("masked to 32 bits");
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}
