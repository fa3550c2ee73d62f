//! Calls in tags: `<function=name><parameter=key>text</parameter></function>`. The text of a
//! parameter says nothing of its type, so the tool's schema does.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;

use super::WrittenCall;
use crate::chat::Tools;

/// What the schemas say of each function's parameters.
#[derive(Clone, Debug, Default)]
pub struct ParameterTypes {
    by_function: BTreeMap<String, BTreeMap<String, Kind>>,
}

/// How the text of a parameter is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The text is JSON.
    Json,
    /// The text is the value.
    Text,
    /// JSON where it is an object or an array.
    Unsaid,
}

#[derive(Deserialize)]
struct RawSchema {
    #[serde(default)]
    properties: BTreeMap<String, RawProperty>,
}

#[derive(Deserialize)]
struct RawProperty {
    #[serde(rename = "type")]
    kind: Option<RawKind>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawKind {
    One(String),
    Several(Vec<String>),
}

impl ParameterTypes {
    /// A schema that cannot be read says nothing.
    pub(super) fn read(tools: &Tools) -> Self {
        let functions = tools.list.iter().filter_map(|tool| {
            let schema: RawSchema =
                serde_json::from_str(tool.parameters.as_ref()?.as_str()).ok()?;
            let kinds = schema.properties.into_iter().map(|(name, property)| {
                let kind = property.kind.map_or(Kind::Unsaid, RawKind::into_kind);
                (name, kind)
            });
            Some((tool.name.clone(), kinds.collect()))
        });
        Self {
            by_function: functions.collect(),
        }
    }

    fn kind(&self, function: &str, parameter: &str) -> Kind {
        let kinds = self.by_function.get(function);
        let kind = kinds.and_then(|kinds| kinds.get(parameter));
        kind.copied().unwrap_or(Kind::Text)
    }
}

impl RawKind {
    fn into_kind(self) -> Kind {
        let names = match self {
            Self::One(name) => vec![name],
            Self::Several(names) => names,
        };
        if names.iter().any(|name| name == "string") {
            Kind::Text
        } else {
            Kind::Json
        }
    }
}

pub(super) fn call(body: &str, types: &ParameterTypes) -> Option<WrittenCall> {
    let (_, rest) = body.split_once("<function=")?;
    let (name, rest) = rest.split_once('>')?;
    let (name, inner) = (name.trim(), rest.split_once("</function>")?.0);
    if name.is_empty() {
        return None;
    }
    // Written by hand to keep the model's order.
    let mut arguments = String::from("{");
    let mut rest = inner;
    while let Some((_, after)) = rest.split_once("<parameter=") {
        let (parameter, after) = after.split_once('>')?;
        let (text, after) = after.split_once("</parameter>")?;
        let text = text.strip_prefix('\n').unwrap_or(text);
        let text = text.strip_suffix('\n').unwrap_or(text);
        let parameter = parameter.trim();
        if arguments.len() > 1 {
            arguments.push(',');
        }
        let value = value(text, types.kind(name, parameter));
        // Writing to a string cannot fail.
        let _ = write!(arguments, "{}:{value}", Value::from(parameter));
        rest = after;
    }
    arguments.push('}');
    Some(WrittenCall {
        name: name.to_owned(),
        arguments,
    })
}

fn value(text: &str, kind: Kind) -> Value {
    let parsed = || serde_json::from_str::<Value>(text.trim()).ok();
    let read = match kind {
        Kind::Text => None,
        Kind::Unsaid => parsed().filter(|value| value.is_object() || value.is_array()),
        // As Python prints them.
        Kind::Json => match text.trim() {
            "True" => Some(Value::Bool(true)),
            "False" => Some(Value::Bool(false)),
            "None" => Some(Value::Null),
            _ => parsed(),
        },
    };
    read.unwrap_or_else(|| {
        if text == "null" {
            Value::Null
        } else {
            Value::from(text)
        }
    })
}
