//! One turn of a conversation, as chat templates see it.

use serde::{Deserialize, Serialize};

use super::Json;
use crate::failure::Failure;

/// Calls in one turn.
pub const CALLS_MAX: usize = 128;

/// See the module. A turn without content has the empty one: templates join it to strings.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    pub role: Role,
    pub content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<Call>,
    /// Which call a tool's turn answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl Message {
    #[must_use]
    pub const fn new(role: Role, content: String) -> Self {
        Self {
            role,
            content,
            name: None,
            reasoning_content: None,
            tool_calls: vec![],
            tool_call_id: None,
        }
    }
}

/// Prints no content.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message({:?}, {} bytes)", self.role, self.content.len())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Assistant,
    System,
    Tool,
    User,
}

/// A call that the assistant made in an earlier turn.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Call {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    pub function: CalledFunction,
}

#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct CalledFunction {
    pub name: String,
    /// An object. Templates write it as it is; the API carries it in a string.
    pub arguments: Json,
}

#[derive(Deserialize)]
pub(super) struct RawMessage {
    role: String,
    content: Option<RawContent>,
    name: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    tool_calls: Option<Vec<RawCall>>,
    tool_call_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawContent {
    Text(String),
    Parts(Vec<RawPart>),
}

#[derive(Deserialize)]
struct RawPart {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

#[derive(Deserialize)]
struct RawCall {
    id: Option<String>,
    function: RawCalled,
}

#[derive(Deserialize)]
struct RawCalled {
    name: String,
    arguments: Option<Json>,
}

impl RawMessage {
    pub(super) fn into_message(self) -> Result<Message, Failure> {
        let role = match self.role.as_str() {
            "assistant" => Role::Assistant,
            // What newer clients call the system's messages.
            "developer" | "system" => Role::System,
            "tool" => Role::Tool,
            "user" => Role::User,
            _ => {
                return Err(Failure::client(
                    "a message's role must be system, user, assistant or tool",
                ));
            }
        };
        let calls = self.tool_calls.unwrap_or_default();
        if !calls.is_empty() && role != Role::Assistant {
            return Err(Failure::client(
                "tool_calls stand in the assistant's messages only",
            ));
        }
        if calls.len() > CALLS_MAX {
            return Err(Failure::client(format!(
                "a message must hold at most {CALLS_MAX} tool_calls"
            )));
        }
        let content = match self.content {
            None => String::new(),
            Some(RawContent::Text(text)) => text,
            Some(RawContent::Parts(parts)) => joined(parts)?,
        };
        Ok(Message {
            role,
            content,
            name: self.name,
            reasoning_content: self.reasoning_content.or(self.reasoning),
            tool_calls: calls
                .into_iter()
                .map(RawCall::into_call)
                .collect::<Result<_, _>>()?,
            tool_call_id: self.tool_call_id,
        })
    }
}

impl RawCall {
    fn into_call(self) -> Result<Call, Failure> {
        let arguments = match self.function.arguments {
            None => Json::from_text("{}".to_owned()).ok(),
            Some(given) if given.as_str().starts_with('"') => {
                let text: Option<String> = serde_json::from_str(given.as_str()).ok();
                // Some clients send nothing for a call without arguments.
                text.and_then(|text| match text.trim() {
                    "" => Json::from_text("{}".to_owned()).ok(),
                    json => Json::from_text(json.to_owned()).ok(),
                })
            }
            Some(given) => Some(given),
        };
        let arguments = arguments.filter(Json::is_object).ok_or_else(|| {
            Failure::client("the arguments of tool_calls must be JSON objects in a string")
        })?;
        Ok(Call {
            id: self.id,
            kind: "function",
            function: CalledFunction {
                name: self.function.name,
                arguments,
            },
        })
    }
}

fn joined(parts: Vec<RawPart>) -> Result<String, Failure> {
    let mut content = String::new();
    for part in parts {
        match part.text {
            Some(text) if part.kind == "text" => content.push_str(&text),
            Some(_) | None => {
                return Err(Failure::client(
                    "this engine takes content parts of type text only",
                ));
            }
        }
    }
    Ok(content)
}
