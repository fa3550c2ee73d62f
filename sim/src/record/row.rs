//! One request as a row of a table.

use cereus_core::time::Tick;

use crate::world::crowd::Asked;

/// How a request ended for its consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// After the first token; the code says why.
    Failed(&'static str),
    /// A whole answer within the objective.
    Good,
    /// A whole answer, too late or too slow.
    Late,
    /// The code says why.
    Refused(&'static str),
}

impl Outcome {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failed(_) => "failed",
            Self::Good => "good",
            Self::Late => "late",
            Self::Refused(_) => "refused",
        }
    }

    /// The API's code; empty where there was an answer.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Failed(code) | Self::Refused(code) => code,
            Self::Good | Self::Late => "",
        }
    }
}

/// See the module. Times are of the consumer's clock but for the dispatch, which is the coordinator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// From 0, in the order of the trace.
    pub number: u64,
    pub account: u64,
    pub sent_at: Tick,
    /// The last attempt's.
    pub dispatched_at: Option<Tick>,
    pub first_at: Option<Tick>,
    pub ended_at: Tick,
    /// The one that answered, or had the last attempt.
    pub machine: Option<u32>,
    pub attempts: u32,
    pub prompt_tokens: u32,
    /// What the trace says; once it is finished, what was said.
    pub output_tokens: u32,
    /// Of the prompt, found in the machine's cache.
    pub cached_tokens: u32,
    pub outcome: Outcome,
}

/// The heads of [`Row::cells`].
pub const COLUMNS: [&str; 13] = [
    "request",
    "account",
    "arrival_us",
    "sent_us",
    "first_token_us",
    "end_us",
    "machine",
    "attempts",
    "prompt_tokens",
    "output_tokens",
    "cached_tokens",
    "end",
    "reason",
];

impl Row {
    pub(super) const fn of(number: u64, asked: &Asked) -> Self {
        Self {
            number,
            account: 0,
            sent_at: asked.sent_at,
            dispatched_at: None,
            first_at: None,
            ended_at: asked.sent_at,
            machine: None,
            attempts: 0,
            prompt_tokens: asked.prompt_tokens,
            output_tokens: asked.output_tokens_true,
            cached_tokens: 0,
            outcome: Outcome::Refused(""),
        }
    }

    /// For a table; a cell is empty where there is nothing to say. Machines are numbered from 0.
    #[must_use]
    pub fn cells(&self) -> [String; COLUMNS.len()] {
        let at = |tick: Option<Tick>| tick.map_or_else(String::new, |tick| tick.0.to_string());
        [
            self.number.to_string(),
            self.account.to_string(),
            at(Some(self.sent_at)),
            at(self.dispatched_at),
            at(self.first_at),
            at(Some(self.ended_at)),
            self.machine.map_or_else(String::new, |ix| ix.to_string()),
            self.attempts.to_string(),
            self.prompt_tokens.to_string(),
            self.output_tokens.to_string(),
            self.cached_tokens.to_string(),
            self.outcome.name().to_owned(),
            self.outcome.reason().to_owned(),
        ]
    }
}
