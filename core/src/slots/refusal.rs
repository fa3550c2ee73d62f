//! Why a request or an order to load came to nothing.

use core::fmt;

use crate::memory::{GIB, KV_BYTES_MIN, Rule, Shortage};

use super::LoadFault;

/// See the module. The text names amounts and what the reader can do; it holds nothing of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It did not come into memory.
    Fault(LoadFault),
    /// Its chat template fails, so that no request could be answered.
    Fenced,
    /// Some model would get less for keys and values than is worth serving with.
    GrantTooSmall {
        grant_bytes: u64,
    },
    /// Loaded, measured, and dropped again.
    NoHeadroom {
        headroom_bytes: u64,
    },
    NoMemory {
        shortage: Shortage,
        others: Others,
    },
    /// The machine swaps or stalls on memory.
    Pressed,
    QueueFull,
    SlotsBusy {
        slots: u8,
    },
    /// The model's engine does not answer.
    Stuck,
    /// It waited too long for its model.
    TurnOverdue,
    /// No such model here.
    Unknown,
}

/// Who holds the memory that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Others {
    /// No other model: this one is too large for the machine as it is.
    Absent,
    /// Nothing is evicted for this load.
    Kept,
    Serving,
}

impl Refusal {
    /// Of a model for which an otherwise empty machine has no room.
    #[must_use]
    pub const fn too_large(shortage: Shortage) -> Self {
        Self::NoMemory {
            shortage,
            others: Others::Absent,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Fault(LoadFault::Changed) => f.write_str(
                "the model's files are not those that were announced; restart the provider to \
                 announce them anew",
            ),
            Self::Fault(LoadFault::Failed) => f.write_str("the model could not be loaded"),
            Self::Fenced => f.write_str(
                "the model's chat template failed its self-check; `cereus doctor` shows where",
            ),
            Self::GrantTooSmall { grant_bytes } => write!(
                f,
                "a model would get {} GB for keys and values, and {} GB is the least; serve fewer \
                 models at once",
                floored(grant_bytes),
                floored(KV_BYTES_MIN)
            ),
            Self::NoHeadroom { headroom_bytes } => write!(
                f,
                "loaded but has insufficient KV headroom ({} GB, need {} GB); free memory on this \
                 machine",
                floored(headroom_bytes),
                floored(KV_BYTES_MIN)
            ),
            Self::NoMemory { shortage, others } => no_memory(shortage, others, f),
            Self::Pressed => f.write_str("the machine is short of memory and swaps; try another"),
            Self::QueueFull => f.write_str("every place for a request is taken"),
            Self::SlotsBusy { slots } => write!(f, "all {slots} model slot(s) are active"),
            Self::Stuck => f.write_str("the model's engine does not answer; it is being restarted"),
            Self::TurnOverdue => f.write_str("the request waited too long for its model"),
            Self::Unknown => f.write_str("this model is not served here"),
        }
    }
}

fn no_memory(shortage: Shortage, others: Others, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (free, needed) = (floored(shortage.free_bytes), ceiled(shortage.needed_bytes));
    match shortage.rule {
        Rule::Cap => write!(
            f,
            "insufficient memory (a cap of {free} GB, need {needed} GB with the reserves)"
        )?,
        Rule::Free => write!(f, "insufficient memory ({free} GB free, need {needed} GB)")?,
    }
    f.write_str(match others {
        Others::Absent => "; `cereus doctor --explain-memory` shows each term",
        Others::Kept => " beside the models that are loaded",
        Others::Serving => " and all loaded models are actively serving",
    })
}

/// Tenths of a GiB, rounded against the machine: what is free down, what is needed up.
struct Tenths(u64);

fn floored(bytes: u64) -> Tenths {
    Tenths(tenths(bytes, 0))
}

fn ceiled(bytes: u64) -> Tenths {
    Tenths(tenths(bytes, u128::from(GIB) - 1))
}

fn tenths(bytes: u64, round_up: u128) -> u64 {
    let tenths = (u128::from(bytes) * 10 + round_up) / u128::from(GIB);
    u64::try_from(tenths).expect("fewer tenths of a GiB than bytes")
}

impl fmt::Display for Tenths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 10, self.0 % 10)
    }
}
