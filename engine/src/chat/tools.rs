//! The functions that a model may call, and what its answer must look like.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::Json;
use crate::failure::Failure;

pub const TOOLS_MAX: usize = 128;
/// Bytes of one JSON schema, of a tool's parameters or of an answer.
pub const SCHEMA_BYTES_MAX: usize = 64 << 10;
/// Characters of a function's name.
const NAME_MAX: usize = 64;

/// A request's functions and what it says of their use.
#[derive(Debug, Default)]
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
#[derive(Debug)]
pub struct Tool {
    pub name: String,
    /// The JSON schema of its arguments; absent takes any object.
    pub parameters: Option<Json>,
    /// A call of it must fit the schema even where the model decides whether to call.
    pub is_strict: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// No call.
    Never,
    /// At least one call, of this function.
    Named(String),
    /// At least one call.
    Required,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parallel {
    #[default]
    Allowed,
    One,
}

/// What the answer's text must be.
#[derive(Debug, Default)]
pub enum Format {
    Json,
    Schema(Json),
    #[default]
    Text,
}

#[derive(Deserialize)]
struct RawTool {
    #[serde(rename = "type")]
    kind: String,
    function: Option<RawFunction>,
}

#[derive(Deserialize)]
struct RawFunction {
    name: String,
    parameters: Option<Json>,
    strict: Option<bool>,
}

#[derive(Deserialize)]
pub(super) struct RawNamed {
    name: String,
}

/// `tool_choice`: a word, or a function's name within one of two shapes.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum RawChoice {
    Word(String),
    Shape {
        #[serde(rename = "type")]
        kind: String,
        function: Option<RawNamed>,
        name: Option<String>,
    },
}

#[derive(Deserialize)]
pub(super) struct RawFormat {
    #[serde(rename = "type")]
    kind: String,
    json_schema: Option<RawSchema>,
}

#[derive(Deserialize)]
struct RawSchema {
    schema: Option<Json>,
}

impl Tools {
    pub(super) fn read(
        raw: Option<Json>,
        choice: Option<RawChoice>,
        parallel: Option<bool>,
    ) -> Result<Self, Failure> {
        let list = match &raw {
            None => vec![],
            Some(raw) => tools(raw)?,
        };
        let choice = choice.map_or(Ok(ToolChoice::Auto), RawChoice::into_choice)?;
        match &choice {
            ToolChoice::Auto | ToolChoice::Never => {}
            ToolChoice::Required if list.is_empty() => {
                return Err(Failure::client("tool_choice needs tools to choose from"));
            }
            ToolChoice::Named(name) if !list.iter().any(|tool| tool.name == *name) => {
                return Err(Failure::client(
                    "tool_choice names a function that tools lacks",
                ));
            }
            ToolChoice::Named(_) | ToolChoice::Required => {}
        }
        Ok(Self {
            raw: raw.filter(|_| !list.is_empty()),
            list,
            choice,
            parallel: match parallel {
                Some(false) => Parallel::One,
                None | Some(true) => Parallel::Allowed,
            },
        })
    }

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
    pub fn must_be_called(&self) -> bool {
        matches!(self.choice, ToolChoice::Named(_) | ToolChoice::Required)
    }
}

fn tools(raw: &Json) -> Result<Vec<Tool>, Failure> {
    let list: Vec<RawTool> = serde_json::from_str(raw.as_str()).map_err(|_| {
        Failure::client("tools must be an array of {\"type\":\"function\",\"function\":{..}}")
    })?;
    if list.len() > TOOLS_MAX {
        return Err(Failure::client(format!(
            "tools must hold at most {TOOLS_MAX} functions"
        )));
    }
    let mut names = BTreeSet::new();
    let mut tools = Vec::with_capacity(list.len());
    for tool in list {
        let Some(function) = tool.function.filter(|_| tool.kind == "function") else {
            return Err(Failure::client("tools must be of type function"));
        };
        if !is_name(&function.name) {
            return Err(Failure::client(format!(
                "tools must have names of 1 to {NAME_MAX} letters, digits, _ and -"
            )));
        }
        if !names.insert(function.name.clone()) {
            return Err(Failure::client("tools must not name a function twice"));
        }
        let parameters = function
            .parameters
            .map(|raw| schema("tools", raw))
            .transpose()?;
        tools.push(Tool {
            name: function.name,
            parameters,
            is_strict: function.strict == Some(true),
        });
    }
    Ok(tools)
}

fn is_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(is_letter)
}

fn schema(field: &str, raw: Json) -> Result<Json, Failure> {
    if !raw.is_object() {
        return Err(Failure::client(format!(
            "{field} must hold JSON schemas that are objects"
        )));
    }
    if raw.as_str().len() > SCHEMA_BYTES_MAX {
        return Err(Failure::client(format!(
            "{field} must hold JSON schemas of at most {SCHEMA_BYTES_MAX} bytes"
        )));
    }
    Ok(raw)
}

impl RawChoice {
    fn into_choice(self) -> Result<ToolChoice, Failure> {
        let refused = || {
            Failure::client(
                "tool_choice must be auto, none, required or {\"type\":\"function\",\
                 \"function\":{\"name\":..}}",
            )
        };
        let word = match self {
            Self::Word(word) => word,
            Self::Shape {
                kind,
                function,
                name,
            } => match (kind.as_str(), function.map(|it| it.name), name) {
                ("function", Some(inner), Some(outer)) if inner != outer => return Err(refused()),
                ("function", Some(name), _) | ("function", None, Some(name)) => {
                    return Ok(ToolChoice::Named(name));
                }
                (_, None, None) => kind,
                (_, _, _) => return Err(refused()),
            },
        };
        match word.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::Never),
            "required" => Ok(ToolChoice::Required),
            _ => Err(refused()),
        }
    }
}

impl Format {
    pub(super) fn read(raw: Option<RawFormat>) -> Result<Self, Failure> {
        let Some(raw) = raw else {
            return Ok(Self::Text);
        };
        match (raw.kind.as_str(), raw.json_schema) {
            ("text", _) => Ok(Self::Text),
            ("json_object", _) => Ok(Self::Json),
            ("json_schema", Some(RawSchema { schema: Some(raw) })) => {
                Ok(Self::Schema(schema("response_format", raw)?))
            }
            ("json_schema", _) => Err(Failure::client("response_format lacks json_schema.schema")),
            (_, _) => Err(Failure::client(
                "response_format must be of type text, json_object or json_schema",
            )),
        }
    }
}
