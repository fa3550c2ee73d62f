//! The consumers of a swarm world: what each asked, read and concluded.

use std::collections::BTreeSet;

use cereus_core::denial::Denial;
use cereus_core::ids::RequestId;
use cereus_core::time::Tick;

use super::plan::PlannedAsk;
use super::text::{Seen, seen, tokens};
use crate::oracle::{Violation, require};

/// How it ended for the consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Answered,
    Broken,
    Left,
    /// The coordinator died; the connection was reset.
    Reset,
    Refused,
}

/// What can be said of an answer that is called finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fidelity {
    /// It is what the model said.
    Exact,
    /// It has no word that the model did not say: its machine may have garbled it.
    Garbled,
}

#[derive(Clone, Debug)]
pub(super) struct Person {
    pub(super) number: u32,
    pub(super) ask: PlannedAsk,
    pub(super) request: RequestId,
    pub(super) is_sent: bool,
    fidelity: Fidelity,
    pub(super) ended: Option<Outcome>,
    pub(super) denial: Option<Denial>,
    got: Vec<u8>,
    finished_tokens: Option<u32>,
}

impl Person {
    pub(super) fn new(number: u32, ask: PlannedAsk, fidelity: Fidelity) -> Self {
        Self {
            number,
            ask,
            request: RequestId(u128::from(number) + 1),
            is_sent: false,
            fidelity,
            ended: None,
            denial: None,
            got: Vec::new(),
            finished_tokens: None,
        }
    }

    /// Whether its world is not one that does without it.
    pub(super) fn is_coming(&self) -> bool {
        self.ask.at != Tick::NEVER
    }

    pub(super) fn is_done(&self) -> bool {
        self.ended.is_some() || !self.is_coming()
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.is_sent && self.ended.is_none()
    }

    pub(super) fn read(&mut self, bytes: &[u8]) {
        self.got.extend_from_slice(bytes);
    }

    /// The coordinator says that everything went well; the last bytes follow.
    pub(super) fn finish(&mut self, completion_tokens: u32) {
        self.finished_tokens = Some(completion_tokens);
    }

    pub(super) fn refuse(&mut self, denial: Denial) -> Result<(), Violation> {
        require(self.got.is_empty(), "INV-02", || {
            format!("{} is refused after its first byte", self.request)
        })?;
        self.denial = Some(denial);
        self.end(Outcome::Refused)
    }

    /// Nothing follows. INV-21: what was finished is whole; INV-06: and not overcharged.
    pub(super) fn close(&mut self) -> Result<(), Violation> {
        let seen = seen(&self.got, self.ask.is_streamed);
        let Some(charged_tokens) = self.finished_tokens else {
            require(seen == Seen::Broken, "INV-02", || {
                format!(
                    "{} ends with neither answer nor error: {seen:?}",
                    self.request
                )
            })?;
            return self.end(Outcome::Broken);
        };
        let count = self.ask.output_tokens_true.min(self.ask.output_tokens_max);
        let expected = tokens(self.number, 0, count);
        let size = match &seen {
            Seen::Whole(text) => text.len(),
            Seen::Broken | Seen::Torn => 0,
        };
        let is_whole = match &seen {
            Seen::Whole(text) if self.fidelity == Fidelity::Garbled => is_made_of(text, &expected),
            Seen::Whole(text) => *text == expected,
            Seen::Broken | Seen::Torn => false,
        };
        require(is_whole, "INV-21", || {
            format!(
                "{} is called finished and is not whole: {seen:?}",
                self.request
            )
        })?;
        require(charged_tokens as usize <= size + 1, "INV-06", || {
            format!(
                "{} pays for {charged_tokens} tokens in {size} bytes",
                self.request
            )
        })?;
        self.end(Outcome::Answered)
    }

    pub(super) fn end(&mut self, outcome: Outcome) -> Result<(), Violation> {
        require(self.ended.is_none(), "INV-02", || {
            format!("{} ended as {:?} and ends again", self.request, self.ended)
        })?;
        self.ended = Some(outcome);
        Ok(())
    }
}

/// Whether a text has no word that the other has not.
fn is_made_of(text: &str, expected: &str) -> bool {
    let words: BTreeSet<&str> = expected.split(' ').collect();
    text.split(' ').all(|word| words.contains(word))
}
