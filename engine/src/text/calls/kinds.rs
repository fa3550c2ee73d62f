//! What kinds of JSON a schema lets a value be, as far as bare text needs to be told apart: text that
//! stands in tags says nothing of its type. The reader of calls and their grammars ask here alike.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::object;
use crate::chat::Tools;

/// Schemas within schemas that are looked into.
const DEPTH_MAX: u32 = 8;

/// How the text of a value is read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// The text is JSON.
    Json,
    /// The text is the value; where `null` is allowed, that word is none.
    Text { or_null: bool },
    /// JSON where it is an object, an array or `null`, and else text.
    Unsaid,
    /// One of these.
    Words(Vec<Value>),
}

impl Kind {
    /// `root` is the schema that `schema` is a part of, for what it refers to.
    pub(crate) fn of(schema: &Value, root: &Value) -> Self {
        Found::look(schema, root, 0).into_kind()
    }

    /// The value that a text stands for. What fits nothing is text.
    pub(super) fn read(&self, text: &str) -> Value {
        let read = match self {
            Self::Json => word(text).or_else(|| object::literal(text)),
            Self::Text { or_null } => (*or_null && text == "null").then_some(Value::Null),
            Self::Unsaid => word(text).filter(|it| it.is_object() || it.is_array() || it.is_null()),
            Self::Words(all) => all.iter().find(|it| **it == text).cloned().or_else(|| {
                let said = word(text)?;
                all.iter().find(|it| **it == said).cloned()
            }),
        };
        read.unwrap_or_else(|| Value::from(text))
    }
}

/// JSON, or one of the words that Python prints in its place.
pub(super) fn word(text: &str) -> Option<Value> {
    match text.trim() {
        "True" => Some(Value::Bool(true)),
        "False" => Some(Value::Bool(false)),
        "None" => Some(Value::Null),
        text => serde_json::from_str(text).ok(),
    }
}

/// What a schema allows, so far.
enum Found {
    Anything,
    Kinds {
        string: bool,
        null: bool,
        other: bool,
    },
    Values(Vec<Value>),
}

impl Found {
    fn look(schema: &Value, root: &Value, depth: u32) -> Self {
        let Some(members) = schema.as_object().filter(|_| depth < DEPTH_MAX) else {
            return Self::Anything;
        };
        if let Some(target) = members.get("$ref").and_then(Value::as_str) {
            let found = target.strip_prefix('#').and_then(|it| root.pointer(it));
            return found.map_or(Self::Anything, |it| Self::look(it, root, depth + 1));
        }
        if let Some(one) = members.get("const") {
            return Self::Values(vec![one.clone()]);
        }
        if let Some(Value::Array(all)) = members.get("enum") {
            return Self::Values(all.clone());
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(Value::Array(all)) = members.get(keyword) {
                let all = all.iter().map(|it| Self::look(it, root, depth + 1));
                return all.reduce(Self::or).unwrap_or(Self::Anything);
            }
        }
        match members.get("type") {
            Some(Value::String(name)) => Self::kinds([name.as_str()].into_iter()),
            Some(Value::Array(names)) => Self::kinds(names.iter().filter_map(Value::as_str)),
            Some(_) | None => Self::without_type(members, root, depth),
        }
    }

    fn without_type(members: &Map<String, Value>, root: &Value, depth: u32) -> Self {
        if let Some(Value::Array(all)) = members.get("allOf") {
            let mut all = all.iter().map(|it| Self::look(it, root, depth + 1));
            let said = all.find(|it| !matches!(it, Self::Anything));
            return said.unwrap_or(Self::Anything);
        }
        if ["properties", "items", "prefixItems"]
            .iter()
            .any(|it| members.contains_key(*it))
        {
            return Self::kinds(["object"].into_iter());
        }
        Self::Anything
    }

    fn kinds<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let (mut string, mut null, mut other) = (false, false, false);
        for name in names {
            match name {
                "string" => string = true,
                "null" => null = true,
                _ => other = true,
            }
        }
        Self::Kinds {
            string,
            null,
            other,
        }
    }

    /// The kinds of single values, for where they stand beside others.
    fn widened(self) -> Self {
        let Self::Values(all) = self else {
            return self;
        };
        Self::kinds(all.iter().map(|it| match it {
            Value::String(_) => "string",
            Value::Null => "null",
            Value::Array(_) | Value::Bool(_) | Value::Number(_) | Value::Object(_) => "other",
        }))
    }

    fn or(self, more: Self) -> Self {
        match (self, more) {
            (Self::Values(mut all), Self::Values(more)) => {
                all.extend(more);
                Self::Values(all)
            }
            (one, two) => match (one.widened(), two.widened()) {
                (
                    Self::Kinds {
                        string,
                        null,
                        other,
                    },
                    Self::Kinds {
                        string: second_string,
                        null: second_null,
                        other: second_other,
                    },
                ) => Self::Kinds {
                    string: string || second_string,
                    null: null || second_null,
                    other: other || second_other,
                },
                (_, _) => Self::Anything,
            },
        }
    }

    fn into_kind(self) -> Kind {
        match self {
            Self::Anything => Kind::Unsaid,
            Self::Kinds {
                string: true, null, ..
            } => Kind::Text { or_null: null },
            Self::Kinds { .. } => Kind::Json,
            Self::Values(all) => Kind::Words(all),
        }
    }
}

/// The functions of a request, and what their schemas say of each parameter.
#[derive(Clone, Debug, Default)]
pub struct ParameterTypes {
    by_function: BTreeMap<String, BTreeMap<String, Kind>>,
}

impl From<&Tools> for ParameterTypes {
    /// A schema that cannot be read says nothing.
    fn from(tools: &Tools) -> Self {
        let functions = tools.list.iter().map(|tool| {
            let root = tool.parameters.as_ref();
            let root = root.and_then(|root| serde_json::from_str(root.as_str()).ok());
            let root: Value = root.unwrap_or_default();
            let properties = root.get("properties").and_then(Value::as_object);
            let kinds = properties
                .into_iter()
                .flatten()
                .map(|(name, schema)| (name.clone(), Kind::of(schema, &root)));
            (tool.name.clone(), kinds.collect())
        });
        Self {
            by_function: functions.collect(),
        }
    }
}

impl ParameterTypes {
    pub(super) fn has(&self, function: &str) -> bool {
        self.by_function.contains_key(function)
    }

    /// A parameter that no schema knows is text.
    pub(super) fn kind(&self, function: &str, parameter: &str) -> Kind {
        let kinds = self.by_function.get(function);
        let kind = kinds.and_then(|kinds| kinds.get(parameter));
        kind.cloned().unwrap_or(Kind::Text { or_null: true })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_text_of_a_parameter_is_typed_by_its_schema() {
        let root = json!({"$defs": {"n": {"type": "integer"}, "loop": {"$ref": "#/$defs/loop"}}});
        let table = [
            (
                json!({"anyOf": [{"type": "integer"}, {"type": "null"}]}),
                "5",
                json!(5),
            ),
            (
                json!({"anyOf": [{"type": "integer"}, {"type": "null"}]}),
                "null",
                json!(null),
            ),
            (
                json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
                "[1, 2]",
                json!("[1, 2]"),
            ),
            (
                json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
                "null",
                json!(null),
            ),
            (json!({"type": ["string", "null"]}), "5", json!("5")),
            (json!({"enum": [5, 6]}), "5", json!(5)),
            (json!({"enum": ["5", 5]}), "5", json!("5")),
            (json!({"enum": [true, "x"]}), "True", json!(true)),
            (json!({"enum": [5, 6]}), "seven", json!("seven")),
            (json!({"const": null}), "null", json!(null)),
            (
                json!({"anyOf": [{"enum": [1]}, {"const": "a"}]}),
                "1",
                json!(1),
            ),
            (
                json!({"anyOf": [{"enum": [1]}, {"type": "string"}]}),
                "1",
                json!("1"),
            ),
            (json!({"type": "string"}), "null", json!("null")),
            (json!({"type": "boolean"}), "False", json!(false)),
            (json!({"type": "number"}), "many", json!("many")),
            (
                json!({"type": "array"}),
                " ['a', \"it's\", True, None, {'b': 1.5,},] ",
                json!(["a", "it's", true, null, {"b": 1.5}]),
            ),
            (json!({"type": "array"}), "['a'] or", json!("['a'] or")),
            (json!({"type": "object"}), "{'a'", json!("{'a'")),
            (json!({}), "['a']", json!("['a']")),
            (json!({"$ref": "#/$defs/n"}), "7", json!(7)),
            (json!({"allOf": [{}, {"$ref": "#/$defs/n"}]}), "7", json!(7)),
            (json!({"$ref": "#/$defs/loop"}), "7", json!("7")),
            (json!({"properties": {}}), "{\"a\": 1}", json!({"a": 1})),
            (json!({}), "{\"a\": 1}", json!({"a": 1})),
            (json!({}), "5", json!("5")),
            (json!(true), "null", json!(null)),
        ];
        for (schema, text, value) in table {
            assert_eq!(
                Kind::of(&schema, &root).read(text),
                value,
                "{schema} of {text}"
            );
        }
    }
}
