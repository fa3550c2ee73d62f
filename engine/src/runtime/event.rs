//! What goes into an engine and what comes out.

use std::time::Duration;

use crate::failure::Failure;
use crate::scheduler::RowId;

/// A request to answer.
pub struct Job {
    /// Chosen by the caller, never used twice while the job lives.
    pub id: RowId,
    /// The chat-completions body in the clear.
    pub body: Vec<u8>,
}

/// Prints no body.
impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Job({}, {} bytes)", self.id.0, self.body.len())
    }
}

/// What came of a job. `Accepted` comes at most once and first; exactly one of `Finished` and
/// `Failed` comes last.
#[derive(Clone, PartialEq)]
pub enum Event {
    /// Parsed, and taken into the queue.
    Accepted {
        id: RowId,
        prompt_tokens: u32,
    },
    Text {
        id: RowId,
        text: String,
    },
    Finished(Finished),
    Failed {
        id: RowId,
        failure: Failure,
    },
}

/// Prints no text of an answer.
impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Accepted { id, prompt_tokens } => {
                write!(f, "Accepted({}, {prompt_tokens} tokens)", id.0)
            }
            Self::Text { id, text } => write!(f, "Text({}, {} bytes)", id.0, text.len()),
            Self::Finished(finished) => finished.fmt(f),
            Self::Failed { id, failure } => write!(f, "Failed({}, {failure})", id.0),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finished {
    pub id: RowId,
    pub reason: FinishReason,
    pub usage: Usage,
    pub timing: Timing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// By the caller, after some text.
    Cancelled,
    Length,
    /// An end token or a stop string.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: u32,
    /// All that were sampled, the end token included.
    pub completion_tokens: u32,
}

/// Where a job's time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// From its submission to the step that began its prompt.
    pub queued: Duration,
    /// From there to its first token.
    pub prefill: Duration,
    /// From there to its last.
    pub decode: Duration,
}
