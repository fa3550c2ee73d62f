//! The functions that a model may call, and what its answer must look like.

use cereus_core::api::{Parallel, ToolChoice};

use super::Json;

/// A request's functions and what it says of their use.
#[derive(Clone, Debug, Default)]
pub struct Tools {
    /// In the caller's order; names are unique.
    pub list: Vec<Tool>,
    /// The array as it came, for the chat template.
    pub raw: Option<Json>,
    pub choice: ToolChoice,
    /// Whether one answer may hold several calls.
    pub parallel: Parallel,
}

/// A function that the model may call.
#[derive(Clone, Debug)]
pub struct Tool {
    pub name: String,
    /// The JSON schema of its arguments; absent takes any object.
    pub parameters: Option<Json>,
    /// A call of it must fit the schema even where the model decides whether to call.
    pub is_strict: bool,
}

/// What the answer's text must be.
#[derive(Clone, Default)]
pub enum Format {
    /// The text is one of these, to the letter.
    Choice(Vec<String>),
    Json,
    /// The whole text matches this regular expression.
    Regex(String),
    Schema(Json),
    #[default]
    Text,
}

/// Prints no content.
impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Choice(words) => write!(f, "Choice({} words)", words.len()),
            Self::Json => f.write_str("Json"),
            Self::Regex(regex) => write!(f, "Regex({} bytes)", regex.len()),
            Self::Schema(schema) => write!(f, "Schema({schema:?})"),
            Self::Text => f.write_str("Text"),
        }
    }
}

impl Tools {
    /// Whether the answer may hold calls.
    #[must_use]
    pub fn may_be_called(&self) -> bool {
        !self.list.is_empty() && self.choice != ToolChoice::Never
    }

    /// Whether calls that the answer may hold must fit their schemas.
    #[must_use]
    pub fn are_strict(&self) -> bool {
        self.may_be_called() && self.list.iter().any(|tool| tool.is_strict)
    }

    /// Whether the answer must be a call.
    #[must_use]
    pub const fn must_be_called(&self) -> bool {
        self.choice.is_demand()
    }
}
