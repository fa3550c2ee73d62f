//! What goes into an engine and what comes out.

use std::time::Duration;

use crate::failure::Failure;
use crate::kv::Scope;
use crate::scheduler::RowId;

/// A request to answer.
pub struct Job {
    /// Chosen by the caller, never used twice while the job lives.
    pub id: RowId,
    /// The chat-completions body in the clear.
    pub body: Vec<u8>,
    /// Whose prompts it may share a past with; nobody's when absent.
    pub scope: Option<Scope>,
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
    /// The answer grew.
    Delta {
        id: RowId,
        delta: Delta,
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
            Self::Delta { id, delta } => write!(f, "Delta({}, {delta:?})", id.0),
            Self::Finished(finished) => finished.fmt(f),
            Self::Failed { id, failure } => write!(f, "Failed({}, {failure})", id.0),
        }
    }
}

/// What one step added to an answer; never all of it empty. Thought comes before what is said, and
/// that before calls.
#[derive(Clone, Default, PartialEq)]
pub struct Delta {
    pub reasoning: String,
    pub content: String,
    /// Each call's first piece names it; later ones carry more of its arguments.
    pub calls: Vec<CallPiece>,
    /// Of the tokens that the text so far came from, when asked for.
    pub logprobs: Vec<TokenLogprob>,
}

impl Delta {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reasoning.is_empty() && self.content.is_empty() && self.calls.is_empty()
    }
}

/// Prints no text of an answer.
impl std::fmt::Debug for Delta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.reasoning.len() + self.content.len();
        write!(f, "{bytes} bytes, {} calls", self.calls.len())
    }
}

/// What one step added to a call of one of the request's functions.
#[derive(Clone, PartialEq, Eq)]
pub struct CallPiece {
    /// Counts the answer's calls from zero.
    pub index: u32,
    /// With its first piece alone.
    pub begun: Option<BegunCall>,
    /// All pieces of a call that was not cut make one JSON object.
    pub arguments: String,
}

/// Which function is called.
#[derive(Clone, PartialEq, Eq)]
pub struct BegunCall {
    /// Unlike that of any other call.
    pub id: String,
    pub name: String,
}

/// Prints no content.
impl std::fmt::Debug for CallPiece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CallPiece({} bytes)", self.arguments.len())
    }
}

/// Prints no content.
impl std::fmt::Debug for BegunCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BegunCall")
    }
}

/// Prints no token.
impl std::fmt::Debug for TokenLogprob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} beside {} others",
            self.chosen.logprob,
            self.top.len()
        )
    }
}

/// Prints no token.
impl std::fmt::Debug for Logprob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} for {} bytes", self.logprob, self.bytes.len())
    }
}

/// The log-probability of one token of an answer, and those of the tokens likeliest there.
#[derive(Clone, PartialEq)]
pub struct TokenLogprob {
    pub chosen: Logprob,
    pub top: Vec<Logprob>,
}

#[derive(Clone, PartialEq)]
pub struct Logprob {
    /// The token's own bytes, which need not be whole characters.
    pub bytes: Vec<u8>,
    pub logprob: f32,
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
    /// An end after at least one call.
    ToolCalls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: u32,
    /// Those of `prompt_tokens` that were not computed, because an earlier prompt began alike.
    pub cached_tokens: u32,
    /// All that were sampled, the end token included.
    pub completion_tokens: u32,
    /// Those of `completion_tokens` that were thought.
    pub reasoning_tokens: u32,
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
