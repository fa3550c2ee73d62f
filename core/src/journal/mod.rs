//! The journal: every event that a coordinator handled, so that anyone can replay it.
//!
//! A pure codec. The [`Writer`] appends to a buffer that its caller writes out, the [`Reader`] walks
//! over bytes that its caller read, and [`replay`] feeds them through a fresh coordinator. It never
//! opens anything and never panics on what it reads.
//!
//! Layout, all integers little-endian:
//!
//! ```text
//! header  magic (8)  version u32  config length u32  config checksum u32  head checksum u32  config
//! record  length u32  body checksum u32  head checksum u32  kind u8  content
//! ```
//!
//! Checksums are CRC-32 (IEEE), each begun with the position of its frame, so that a record that was
//! moved, repeated or cut out is found as surely as a flipped byte. The head has its own, so that a
//! damaged length is never mistaken for a tail that a crash tore off. Contents are postcard.

mod reader;
mod replay;
mod writer;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::reader::{Fault, Reader, Record};
pub use self::replay::{Divergence, Ending, Replayed, Report, replay, replay_observed};
pub use self::writer::{EffectsDigest, Oversized, Writer};

/// The first bytes of every journal.
pub const MAGIC: [u8; 8] = *b"CEREUSJ\n";

/// Of the layout above and of every type that is stored. Raised by any change to either.
pub const VERSION: u32 = 1;

/// Longest configuration that a header may carry, in bytes (a full catalogue takes about 1 MiB).
pub const CONFIG_SIZE_MAX: usize = 4 << 20;

/// Longest record, in bytes, kind included. The largest event lists 64 slots of at most 70 bytes.
pub const RECORD_SIZE_MAX: usize = 64 << 10;

/// Events between two checkpoints (`style` D10).
pub const CHECKPOINT_EVENTS: u32 = 4_096;

const HEADER_SIZE: usize = 24;
const FRAME_SIZE: usize = 12;

/// What a record is. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Event = 1,
    Checkpoint = 2,
    Closed = 3,
}

/// Where the coordinator stood after `events` events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Events since the journal began.
    pub events: u64,
    /// Effects since the journal began.
    pub effects: u64,
    /// Digest of every effect since the journal began, in order.
    pub effects_digest: u128,
    /// [`crate::coordinator::Coordinator::digest`].
    pub state_digest: u128,
}

fn checksum(at: u64, bytes: &[u8]) -> u32 {
    let seed = u32::try_from(at & 0xffff_ffff).expect("masked to 32 bits");
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}
