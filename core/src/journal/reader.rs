//! Walks over the records of a journal.

use super::{
    CONFIG_SIZE_MAX, Checkpoint, FRAME_SIZE, HEADER_SIZE, Kind, MAGIC, RECORD_SIZE_MAX, VERSION,
    checksum,
};
use crate::config::Config;
use crate::event::Stamped;

/// What is wrong with a journal, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The frame that begins at `at` does not match its checksum: something changed it.
    BadChecksum { at: u64 },
    /// The header's checksum is right and its configuration cannot be read.
    BadConfig { at: u64 },
    /// The frame that begins at `at` matches its checksum and cannot be read.
    BadRecord { at: u64 },
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
}

impl Fault {
    /// The position of the first byte of the damaged part.
    #[must_use]
    pub const fn at(self) -> u64 {
        match self {
            Self::BadChecksum { at }
            | Self::BadConfig { at }
            | Self::BadRecord { at }
            | Self::Oversized { at, .. }
            | Self::TrailingBytes { at }
            | Self::Truncated { at }
            | Self::UnsupportedVersion { at, .. }
            | Self::WrongMagic { at } => at,
        }
    }

    /// Whether a crash explains it: everything before is sound.
    #[must_use]
    pub const fn is_torn_tail(self) -> bool {
        matches!(self, Self::Truncated { .. })
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
            Self::Oversized { at, size } => {
                write!(f, "byte {at}: a configuration of {size} bytes is too long")
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
                "byte {at}: format version {version}; this program reads version {VERSION}"
            ),
            Self::WrongMagic { at } => write!(f, "byte {at}: not a Cereus journal"),
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
    Event(Stamped<'a>),
}

/// Reads one journal from bytes. Stops for good at the first fault.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    config: Config,
    state: State,
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
        if version != VERSION {
            return Err(Fault::UnsupportedVersion { at: 8, version });
        }
        if checksum(0, &head[..20]) != word(head, 20) {
            return Err(Fault::BadChecksum { at: 0 });
        }
        let size = usize::try_from(word(head, 12)).unwrap_or(usize::MAX);
        if size > CONFIG_SIZE_MAX {
            return Err(Fault::Oversized {
                at: 12,
                size: size as u64,
            });
        }
        let Some(config) = bytes.get(HEADER_SIZE..HEADER_SIZE + size) else {
            return Err(Fault::Truncated { at: 0 });
        };
        let config_at = HEADER_SIZE as u64;
        if checksum(config_at, config) != word(head, 16) {
            return Err(Fault::BadChecksum { at: config_at });
        }
        let bad_config = Fault::BadConfig { at: config_at };
        let (config, rest) = postcard::take_from_bytes::<Config>(config).map_err(|_| bad_config)?;
        if !rest.is_empty() {
            return Err(bad_config);
        }
        Ok(Self {
            bytes,
            position: HEADER_SIZE + size,
            config,
            state: State::Open,
        })
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

    fn read(&mut self) -> Result<Record<'a>, Fault> {
        let at = self.position as u64;
        let rest = &self.bytes[self.position..];
        let Some(head) = rest.get(..FRAME_SIZE) else {
            return Err(Fault::Truncated { at });
        };
        if checksum(at, &head[..8]) != word(head, 8) {
            return Err(Fault::BadChecksum { at });
        }
        let size = usize::try_from(word(head, 0)).unwrap_or(usize::MAX);
        if size == 0 || size > RECORD_SIZE_MAX {
            return Err(Fault::BadRecord { at });
        }
        let Some(body) = rest.get(FRAME_SIZE..FRAME_SIZE + size) else {
            return Err(Fault::Truncated { at });
        };
        if checksum(at, body) != word(head, 4) {
            return Err(Fault::BadChecksum { at });
        }
        let record = parse(body).ok_or(Fault::BadRecord { at })?;
        self.position += FRAME_SIZE + size;
        Ok(record)
    }
}

fn parse(body: &[u8]) -> Option<Record<'_>> {
    let (&kind, content) = body.split_first()?;
    let (record, rest) = if kind == Kind::Event as u8 {
        let (stamped, rest) = postcard::take_from_bytes(content).ok()?;
        (Record::Event(stamped), rest)
    } else if kind == Kind::Checkpoint as u8 {
        let (checkpoint, rest) = postcard::take_from_bytes(content).ok()?;
        (Record::Checkpoint(checkpoint), rest)
    } else if kind == Kind::Closed as u8 {
        let (checkpoint, rest) = postcard::take_from_bytes(content).ok()?;
        (Record::Closed(checkpoint), rest)
    } else {
        return None;
    };
    rest.is_empty().then_some(record)
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
                    Ok(Record::Checkpoint(_) | Record::Event(_)) => {}
                    Err(_) => self.state = State::Over,
                }
                Some(record)
            }
        }
    }
}
