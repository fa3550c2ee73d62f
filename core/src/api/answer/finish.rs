//! Why a model stopped.

/// `finish_reason` of chat and plain completions, to providers and to consumers alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    ContentFilter,
    FunctionCall,
    Length,
    Stop,
    ToolCalls,
}

impl FinishReason {
    /// An unknown reason is still an end.
    #[must_use]
    pub fn from_wire(text: &str) -> Self {
        match text {
            "content_filter" => Self::ContentFilter,
            "function_call" => Self::FunctionCall,
            "length" => Self::Length,
            "tool_calls" => Self::ToolCalls,
            _ => Self::Stop,
        }
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ContentFilter => "content_filter",
            Self::FunctionCall => "function_call",
            Self::Length => "length",
            Self::Stop => "stop",
            Self::ToolCalls => "tool_calls",
        }
    }
}
