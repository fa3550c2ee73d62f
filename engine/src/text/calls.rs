//! The body of a call, as each family writes it, to a name and a JSON object.

mod gemma;
mod json;
mod xml;

use super::dialect::CallFormat;
use crate::chat::Tools;

pub use xml::ParameterTypes;

/// Levels of nesting in arguments.
const DEPTH_MAX: u32 = 32;

/// A call as the model wrote it.
#[derive(Clone, PartialEq, Eq)]
pub struct WrittenCall {
    pub name: String,
    /// A JSON object.
    pub arguments: String,
}

/// Prints no content.
impl std::fmt::Debug for WrittenCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WrittenCall({} bytes)", self.arguments.len())
    }
}

/// Reads what stood between a format's marks. `None` when it is no call: then it is text.
pub(super) fn read(
    format: CallFormat,
    body: &str,
    types: &ParameterTypes,
) -> Option<Vec<WrittenCall>> {
    let calls = match format {
        CallFormat::FunctionGemma => gemma::calls(body, "<escape>")?,
        CallFormat::Gemma => gemma::calls(body, "<|\"|>")?,
        CallFormat::Harmony => return None,
        CallFormat::Llama => json::several(body)?,
        CallFormat::Mistral => json::mistral(body)?,
        CallFormat::Tagged => match xml::call(body, types) {
            Some(call) => vec![call],
            None => json::several(body)?,
        },
    };
    (!calls.is_empty()).then_some(calls)
}

/// An object of its own, as harmony writes arguments.
pub(super) fn object(text: &str) -> Option<String> {
    json::object(text)
}

impl From<&Tools> for ParameterTypes {
    fn from(tools: &Tools) -> Self {
        Self::read(tools)
    }
}
