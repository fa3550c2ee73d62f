//! The body of a call, as each family writes it, to a name and a JSON object.

mod head;
mod json;
mod kinds;
mod object;
mod reader;
mod tags;
mod xml;

use super::dialect::CallFormat;

pub(crate) use kinds::Kind;
pub use kinds::ParameterTypes;
pub(super) use object::ObjectStream;
pub(super) use reader::{Beginning, CallReader, SectionEnd};

/// Levels of nesting in arguments; readers of JSON seldom follow more than 128.
const DEPTH_MAX: usize = 100;

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

/// A call on its way: what comes after another belongs to the call that began last.
#[derive(Clone, PartialEq, Eq)]
pub enum Called {
    /// More of the JSON object.
    Arguments(String),
    Begun {
        name: String,
    },
}

/// Prints no content.
impl std::fmt::Debug for Called {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Arguments(text) => write!(f, "Arguments({} bytes)", text.len()),
            Self::Begun { .. } => f.write_str("Begun"),
        }
    }
}

impl Called {
    /// What the pieces of an answer add up to.
    #[must_use]
    pub fn gathered(pieces: &[Self]) -> Vec<WrittenCall> {
        let mut calls: Vec<WrittenCall> = vec![];
        for piece in pieces {
            match piece {
                Self::Begun { name } => calls.push(WrittenCall {
                    name: name.clone(),
                    arguments: String::new(),
                }),
                Self::Arguments(text) => {
                    if let Some(call) = calls.last_mut() {
                        call.arguments.push_str(text);
                    }
                }
            }
        }
        calls
    }
}

/// Reads what stood between a format's marks, as a whole. `None` when it is no call: then it is text.
fn read(format: CallFormat, body: &str, types: &ParameterTypes) -> Option<Vec<WrittenCall>> {
    let calls = match format {
        // Theirs stream from their first bracket on; without one there is no call.
        CallFormat::FunctionGemma | CallFormat::Gemma | CallFormat::Harmony => return None,
        CallFormat::Llama => json::several(body)?,
        CallFormat::Mistral => json::mistral(body)?,
        CallFormat::Tagged => match xml::call(body, types) {
            Some(call) => vec![call],
            None => json::several(body)?,
        },
    };
    (!calls.is_empty()).then_some(calls)
}
