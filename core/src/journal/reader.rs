//! Walks over the records of a journal.

use super::header::{Head, Segment, SnapshotHead, Start};
use super::layout::Take as _;
use super::records::{
    CheckpointLayout, config_of_version_1, take_event, take_first_checkpoint, take_trail,
};
use super::{
    Checkpoint, FRAME_SIZE, HEAD_SIZE_MAX, HEADER_SIZE, Kind, MAGIC, RECORD_SIZE_MAX, VERSION,
    checksum,
};
use crate::config::Config;
use crate::coordinator::Coordinator;
use crate::event::Stamped;
use crate::ids::RequestId;
use crate::relay::Trail;

/// What is wrong with a journal, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The frame that begins at `at` does not match its checksum: something changed it.
    BadChecksum { at: u64 },
    /// The header's checksum is right and its configuration cannot be read.
    BadConfig { at: u64 },
    /// The frame that begins at `at` matches its checksum and cannot be read: it is damaged, or of a
    /// later build of the same version.
    BadRecord { at: u64 },
    /// The snapshot that begins at `at` is sound, and this build lays the state out differently.
    ForeignSnapshot { at: u64 },
    /// The length in the header is more than a configuration may have.
    Oversized { at: u64, size: u64 },
    /// There are bytes after the closing record.
    TrailingBytes { at: u64 },
    /// The bytes end in the middle of what begins at `at`, or without a closing record. A process
    /// that was killed leaves such a tail.
    Truncated { at: u64 },
    /// Written by a version that this one cannot read.
    UnsupportedVersion { at: u64, version: u32 },
    /// Not a journal.
    WrongMagic { at: u64 },
    /// What begins at `at` is zeros, or becomes zeros before its end, and so does all that follows: room
    /// that a file system gave and that was never written.
    ZeroTail { at: u64 },
}

/// Bytes that cannot be read, between records that can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    pub from: u64,
    /// Where the next sound record begins.
    pub to: u64,
}

impl Fault {
    /// The position of the first byte of the damaged part.
    #[must_use]
    pub const fn at(self) -> u64 {
        match self {
            Self::BadChecksum { at }
            | Self::BadConfig { at }
            | Self::BadRecord { at }
            | Self::ForeignSnapshot { at }
            | Self::Oversized { at, .. }
            | Self::TrailingBytes { at }
            | Self::Truncated { at }
            | Self::UnsupportedVersion { at, .. }
            | Self::WrongMagic { at }
            | Self::ZeroTail { at } => at,
        }
    }

    /// Whether a crash explains it: everything before is sound.
    #[must_use]
    pub const fn is_torn_tail(self) -> bool {
        matches!(self, Self::Truncated { .. } | Self::ZeroTail { .. })
    }
}

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::BadChecksum { at } => {
                write!(f, "byte {at}: the record does not match its checksum")
            }
            Self::BadConfig { at } => write!(f, "byte {at}: the configuration cannot be read"),
            Self::BadRecord { at } => write!(f, "byte {at}: the record cannot be read"),
            Self::ForeignSnapshot { at } => write!(
                f,
                "byte {at}: the snapshot is of another build; replay this segment with the build \
                 that wrote it"
            ),
            Self::Oversized { at, size } => {
                write!(f, "byte {at}: a header of {size} bytes is too long")
            }
            Self::TrailingBytes { at } => {
                write!(f, "byte {at}: bytes follow the closing record")
            }
            Self::Truncated { at } => {
                write!(
                    f,
                    "byte {at}: the journal ends without its closing record, as after a crash"
                )
            }
            Self::UnsupportedVersion { at, version } => write!(
                f,
                "byte {at}: format version {version}; this program reads versions 1 to {VERSION}"
            ),
            Self::WrongMagic { at } => write!(f, "byte {at}: not a Cereus journal"),
            Self::ZeroTail { at } => write!(
                f,
                "byte {at}: nothing but zeros until the end, as after a crash"
            ),
        }
    }
}

impl core::error::Error for Fault {}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    Checkpoint(Checkpoint),
    /// The last record of a journal that was closed in order.
    Closed(Checkpoint),
    Event(Stamped<'static>),
    /// A piece of the snapshot with which a segment begins; [`Reader::coordinator`] reads them all.
    Snapshot(&'a [u8]),
    /// What the relay of a request was told.
    Trail(RequestId, Trail),
}

/// Reads one journal from bytes. Stops for good at the first fault.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    version: Version,
    config: Config,
    segment: Segment,
    state: State,
}

/// A version that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Closed,
    Over,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes[at..at + 4].try_into().expect("four bytes");
    u32::from_le_bytes(word)
}

impl<'a> Reader<'a> {
    /// Checks and reads the header.
    pub fn open(bytes: &'a [u8]) -> Result<Self, Fault> {
        let common = bytes.len().min(MAGIC.len());
        if let Some(at) = (0..common).find(|&ix| bytes[ix] != MAGIC[ix]) {
            return Err(Fault::WrongMagic { at: at as u64 });
        }
        let Some(head) = bytes.get(..HEADER_SIZE) else {
            return Err(Fault::Truncated { at: 0 });
        };
        let version = word(head, 8);
        let version = match version {
            1 => Version::One,
            2 => Version::Two,
            version => return Err(Fault::UnsupportedVersion { at: 8, version }),
        };
        if checksum(0, &head[..20]) != word(head, 20) {
            return Err(Fault::BadChecksum { at: 0 });
        }
        let size = usize::try_from(word(head, 12)).unwrap_or(usize::MAX);
        if size > HEAD_SIZE_MAX {
            return Err(Fault::Oversized {
                at: 12,
                size: size as u64,
            });
        }
        let Some(content) = bytes.get(HEADER_SIZE..HEADER_SIZE + size) else {
            return Err(Fault::Truncated { at: 0 });
        };
        let at = HEADER_SIZE as u64;
        if checksum(at, content) != word(head, 16) {
            return Err(Fault::BadChecksum { at });
        }
        let (config, segment) = match version {
            Version::One => (config_of_version_1(content), Segment::FIRST),
            Version::Two => {
                let head: Head =
                    serde_json::from_slice(content).map_err(|_| Fault::BadConfig { at })?;
                let segment = head.segment.clone();
                (head.config(), segment)
            }
        };
        Ok(Self {
            bytes,
            position: HEADER_SIZE + size,
            version,
            config: config.ok_or(Fault::BadConfig { at })?,
            segment,
            state: State::Open,
        })
    }

    /// Which part of a process's journal this is.
    #[must_use]
    pub const fn segment(&self) -> &Segment {
        &self.segment
    }

    /// The coordinator that the first event meets. For a reader that has not been walked yet.
    pub fn coordinator(&self) -> Result<Coordinator, Fault> {
        match &self.segment.start {
            Start::Fresh => Ok(Coordinator::new(self.config.clone())),
            Start::Snapshot(head) => self.restored(head),
        }
    }

    fn restored(&self, head: &SnapshotHead) -> Result<Coordinator, Fault> {
        let at = self.offset();
        let size = usize::try_from(head.size).unwrap_or(usize::MAX);
        let mut snapshot = Vec::new();
        let mut pieces = self.clone();
        while snapshot.len() < size {
            match pieces.read()? {
                Record::Snapshot(piece) => snapshot.extend_from_slice(piece),
                Record::Checkpoint(_)
                | Record::Closed(_)
                | Record::Event(_)
                | Record::Trail(..) => {
                    return Err(Fault::BadRecord { at });
                }
            }
        }
        let foreign = Fault::ForeignSnapshot { at };
        let coordinator = Coordinator::restore(&snapshot).map_err(|_| foreign)?;
        // Another build may read the bytes and make something else of them.
        if format!("{:032x}", coordinator.digest()) == head.state_digest {
            Ok(coordinator)
        } else {
            Err(foreign)
        }
    }

    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Where the next record begins.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.position as u64
    }

    /// After a fault: goes on at the next sound record. Checksums hold positions, so none of another
    /// place is taken for one. Where the snapshot is damaged there is nothing to go on with.
    pub fn skip_hole(&mut self) -> Option<Hole> {
        if self.state != State::Over {
            return None;
        }
        let from = self.position;
        let to = (from + 1..self.bytes.len()).find(|&at| self.is_sound(at))?;
        self.position = to;
        self.state = State::Open;
        Some(Hole {
            from: from as u64,
            to: to as u64,
        })
    }

    fn is_sound(&self, at: usize) -> bool {
        let head = self.bytes.get(at..at + FRAME_SIZE);
        // The cheap half first: there is one position for each byte of the hole.
        head.is_some_and(|head| checksum(at as u64, &head[..8]) == word(head, 8))
            && Self {
                position: at,
                ..self.clone()
            }
            .read()
            .is_ok()
    }

    /// Whether the damaged frame that begins here and claims to end there is zeros from somewhere inside
    /// it, and all behind it too.
    fn is_zero_tail(&self, end: usize) -> bool {
        let zeros = self.bytes.iter().rev().take_while(|byte| **byte == 0);
        let written = self.bytes.len() - zeros.count();
        written < end && end < self.bytes.len()
    }

    fn read(&mut self) -> Result<Record<'a>, Fault> {
        let at = self.position as u64;
        let rest = &self.bytes[self.position..];
        let Some(head) = rest.get(..FRAME_SIZE) else {
            return Err(Fault::Truncated { at });
        };
        if checksum(at, &head[..8]) != word(head, 8) {
            return Err(match self.is_zero_tail(self.position + FRAME_SIZE) {
                true => Fault::ZeroTail { at },
                false => Fault::BadChecksum { at },
            });
        }
        let size = usize::try_from(word(head, 0)).unwrap_or(usize::MAX);
        if size == 0 || size > RECORD_SIZE_MAX {
            return Err(Fault::BadRecord { at });
        }
        let Some(body) = rest.get(FRAME_SIZE..FRAME_SIZE + size) else {
            return Err(Fault::Truncated { at });
        };
        if checksum(at, body) != word(head, 4) {
            return Err(match self.is_zero_tail(self.position + FRAME_SIZE + size) {
                true => Fault::ZeroTail { at },
                false => Fault::BadChecksum { at },
            });
        }
        let record = parse(self.version, body).ok_or(Fault::BadRecord { at })?;
        self.position += FRAME_SIZE + size;
        Ok(record)
    }
}

fn parse(version: Version, body: &[u8]) -> Option<Record<'_>> {
    let (&kind, mut content) = body.split_first()?;
    let bytes = &mut content;
    let checkpoint = |bytes: &mut &[u8]| match version {
        Version::One => take_first_checkpoint(bytes),
        Version::Two => CheckpointLayout::take(bytes),
    };
    let record = if kind == Kind::Event as u8 {
        Record::Event(take_event(bytes)?)
    } else if kind == Kind::Checkpoint as u8 {
        Record::Checkpoint(checkpoint(bytes)?)
    } else if kind == Kind::Closed as u8 {
        Record::Closed(checkpoint(bytes)?)
    } else if kind == Kind::Snapshot as u8 && version != Version::One {
        Record::Snapshot(core::mem::take(bytes))
    } else if kind == Kind::Trail as u8 && version != Version::One {
        let (request, trail) = take_trail(bytes)?;
        Record::Trail(request, trail)
    } else {
        return None;
    };
    content.is_empty().then_some(record)
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Record<'a>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.state {
            State::Over => None,
            State::Closed => {
                self.state = State::Over;
                let at = self.position as u64;
                (self.position < self.bytes.len()).then_some(Err(Fault::TrailingBytes { at }))
            }
            State::Open => {
                let record = self.read();
                match &record {
                    Ok(Record::Closed(_)) => self.state = State::Closed,
                    Ok(
                        Record::Checkpoint(_)
                        | Record::Event(_)
                        | Record::Snapshot(_)
                        | Record::Trail(..),
                    ) => {}
                    Err(_) => self.state = State::Over,
                }
                Some(record)
            }
        }
    }
}
