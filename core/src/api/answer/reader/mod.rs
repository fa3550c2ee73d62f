//! What stands inside a provider's chunk: server-sent events, in words that depend on its protocol.

mod chat;

use super::{Malformed, Piece};

/// How a provider says what it streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Chunks of OpenAI's chat completions, one JSON object for each event.
    ChatChunks,
}

impl Dialect {
    /// Gives the pieces of a chunk in their order, up to the first that is refused.
    ///
    /// # Errors
    /// What comes next in the chunk is not what the dialect says, or `take` refuses a piece.
    pub fn read<E: From<Malformed>>(
        self,
        chunk: &str,
        mut take: impl FnMut(&Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for payload in payloads(chunk) {
            let piece = match self {
                Self::ChatChunks => chat::piece(payload?)?,
            };
            if let Some(piece) = piece {
                take(&piece)?;
            }
        }
        Ok(())
    }
}

/// The payloads of a chunk, in order. A closing `[DONE]` is the coordinator's to say.
fn payloads(chunk: &str) -> impl Iterator<Item = Result<&str, Malformed>> {
    chunk.split('\n').filter_map(|line| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if let Some(payload) = line.strip_prefix("data:") {
            let payload = payload.trim();
            // JSON takes a carriage return for a space, a consumer for the end of the line.
            if memchr::memchr(b'\r', payload.as_bytes()).is_some() {
                return Some(Err(Malformed));
            }
            return (payload != "[DONE]" && !payload.is_empty()).then_some(Ok(payload));
        }
        let is_passed_over = line.is_empty()
            || line.starts_with(':')
            || ["event:", "id:", "retry:"]
                .iter()
                .any(|field| line.starts_with(field));
        (!is_passed_over).then_some(Err(Malformed))
    })
}
