//! One turn of a conversation, as chat templates see it.

use cereus_core::api::Role;
use serde::{Serialize, Serializer};

use super::Json;

/// See the module. A turn without content has the empty one: templates join it to strings.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    #[serde(serialize_with = "word")]
    pub role: Role,
    pub content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<Call>,
    /// The id of the call that this turn answers, if a tool speaks.
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn word<S: Serializer>(role: &Role, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(role.as_str())
}

/// A call that the assistant made in an earlier turn.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Call {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub function: CalledFunction,
}

#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct CalledFunction {
    pub name: String,
    /// An object. Templates write it as it is; the API carries it in a string.
    pub arguments: Json,
}
