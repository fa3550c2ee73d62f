//! A delta in the words of the API, which both shells write.

use cereus_core::api::{Said, SaidCall, SaidToken, write_call, write_token};

use super::event::{Delta, Logprob};

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
            let call = SaidCall {
                index: call.index,
                id: &call.id,
                name: &call.name,
                arguments: &call.arguments,
            };
            write_call(&call, &mut self.calls);
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

fn said_token(token: &Logprob) -> SaidToken<'_> {
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
