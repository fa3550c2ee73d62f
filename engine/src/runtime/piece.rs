//! A delta as a piece of an answer, which both shells have written.

use cereus_core::api::{CallPart, Logprobs, Piece, PieceText, ScoredToken, TokenLogprobs};

use super::event::{CallPiece, Delta, Logprob, TokenLogprob};

impl Delta {
    /// The same in the words of the API.
    #[must_use]
    pub fn as_piece(&self) -> Piece<'_> {
        let is_called = !self.calls.is_empty();
        Piece {
            content: PieceText::unless_empty(&self.content),
            thought: PieceText::unless_empty(&self.reasoning),
            refusal: None,
            calls: is_called.then(|| self.calls.iter().map(CallPiece::as_part).collect()),
            logprobs: match self.logprobs.is_empty() {
                true => Logprobs::Absent,
                false => Logprobs::Plain(self.logprobs.iter().map(scored).collect()),
            },
            finish: None,
        }
    }
}

impl CallPiece {
    fn as_part(&self) -> CallPart<'_> {
        let begun = self.begun.as_ref();
        CallPart {
            index: self.index,
            id: begun.map(|begun| PieceText::Plain(&begun.id)),
            name: begun.map(|begun| PieceText::Plain(&begun.name)),
            arguments: PieceText::Plain(&self.arguments),
        }
    }
}

fn scored(token: &TokenLogprob) -> TokenLogprobs<'_> {
    TokenLogprobs {
        chosen: scored_token(&token.chosen),
        top: token.top.iter().map(scored_token).collect(),
    }
}

fn scored_token(token: &Logprob) -> ScoredToken<'_> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the sampler keeps it above -9999"
    )]
    let logprob_millionths = (f64::from(token.logprob) * 1e6) as i64;
    ScoredToken {
        bytes: &token.bytes,
        logprob_millionths,
    }
}
