//! A delta in the words of the API, which both shells write.

use cereus_core::api::{Answer, Said, SaidBegun, SaidCall, SaidToken, write_call, write_token};

use super::event::{CallPiece, Delta, Logprob};

/// Room for what a delta is written into; reused by every one.
#[derive(Debug, Default)]
pub struct SaidBuffers {
    calls: Vec<u8>,
    logprobs: Vec<u8>,
}

impl SaidBuffers {
    pub fn said<'a>(&'a mut self, delta: &'a Delta) -> Said<'a> {
        self.calls.clear();
        self.logprobs.clear();
        for call in &delta.calls {
            write_call(&said_call(call), &mut self.calls);
        }
        for token in &delta.logprobs {
            let top = token.top.iter().map(said_token);
            write_token(said_token(&token.chosen), top, &mut self.logprobs);
        }
        Said {
            reasoning: &delta.reasoning,
            content: &delta.content,
            calls: &self.calls,
            logprobs: &self.logprobs,
        }
    }
}

/// Adds what a delta says to a whole answer.
pub fn gather(delta: &Delta, answer: &mut Answer) {
    let mut buffers = SaidBuffers::default();
    let said = buffers.said(delta);
    let calls: Vec<SaidCall<'_>> = delta.calls.iter().map(said_call).collect();
    answer.say(&said, &calls);
}

fn said_call(call: &CallPiece) -> SaidCall<'_> {
    SaidCall {
        index: call.index,
        begun: call.begun.as_ref().map(|begun| SaidBegun {
            id: &begun.id,
            name: &begun.name,
        }),
        arguments: &call.arguments,
    }
}

/// A token in the words of the API.
#[must_use]
pub fn said_token(token: &Logprob) -> SaidToken<'_> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the sampler keeps it above -9999"
    )]
    let logprob_millionths = (f64::from(token.logprob) * 1e6) as i64;
    SaidToken {
        bytes: &token.bytes,
        logprob_millionths,
    }
}
