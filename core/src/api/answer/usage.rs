//! Tokens as the consumer is told.

use crate::event::Usage;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AnswerUsage {
    pub tokens: Usage,
    /// Part of the prompt tokens: those that were not computed anew. Not told when zero.
    pub cached_tokens: u32,
    /// Part of the completion tokens.
    pub reasoning_tokens: u32,
}

impl AnswerUsage {
    /// Appends the `usage` object of chat and plain completions.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let prompt = u64::from(self.tokens.prompt_tokens);
        let completion = u64::from(self.tokens.completion_tokens);
        let total = prompt + completion;
        let text = format!(
            concat!(
                "{{\"prompt_tokens\":{},\"completion_tokens\":{},\"total_tokens\":{},",
                "\"completion_tokens_details\":{{\"reasoning_tokens\":{}}}}}"
            ),
            prompt, completion, total, self.reasoning_tokens
        );
        out.extend_from_slice(text.as_bytes());
        if self.cached_tokens > 0 {
            out.pop();
            let cached = self.cached_tokens;
            let text = format!(",\"prompt_tokens_details\":{{\"cached_tokens\":{cached}}}}}");
            out.extend_from_slice(text.as_bytes());
        }
    }
}
