//! What is asked of a JSON schema before anything is built from it, and how a refusal is told: by
//! the keyword at fault, never by what the schema says.

use serde_json::Value;

use crate::chat::Json;
use crate::failure::Failure;

/// Members of all `properties` of one request. Objects of many optional members cost more than in
/// proportion.
pub(super) const PROPERTIES_MAX: usize = 1_000;
/// Bytes of one regular expression.
pub(super) const PATTERN_BYTES_MAX: usize = 2_048;
/// A member of schemas by which llguidance takes options, which are not the caller's to choose.
const OPTIONS: &str = "x-guidance";

/// Keywords that a refusal may name, the longer of two that overlap first.
const KEYWORDS: [&str; 46] = [
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "contains",
    "contentSchema",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "$dynamicAnchor",
    "$dynamicRef",
    "else",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "if",
    "items",
    "maxContains",
    "maximum",
    "maxItems",
    "maxLength",
    "maxProperties",
    "minContains",
    "minimum",
    "minItems",
    "minLength",
    "minProperties",
    "multipleOf",
    "not",
    "oneOf",
    "patternProperties",
    "pattern",
    "prefixItems",
    "properties",
    "propertyNames",
    "$recursiveAnchor",
    "$recursiveRef",
    "$ref",
    "required",
    "then",
    "type",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
];

/// How much of what a request may spend on its schemas is left.
#[derive(Debug)]
pub(super) struct Allowance {
    properties: usize,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            properties: PROPERTIES_MAX,
        }
    }
}

impl Allowance {
    /// Reads a schema of the request's `field`.
    ///
    /// # Errors
    /// It is no JSON, or asks for more than is left.
    pub(super) fn read(&mut self, field: &str, raw: &Json) -> Result<Value, Failure> {
        let mut schema: Value = serde_json::from_str(raw.as_str())
            .map_err(|_| Failure::client(format!("{field} holds a schema nested too deeply")))?;
        if let Some(members) = schema.as_object_mut() {
            members.remove(OPTIONS);
        }
        self.spend(field, &schema)?;
        Ok(schema)
    }

    /// As deep as JSON may be, which its reader bounds.
    fn spend(&mut self, field: &str, schema: &Value) -> Result<(), Failure> {
        match schema {
            Value::Array(items) => items.iter().try_for_each(|item| self.spend(field, item)),
            Value::Object(members) => {
                for (name, member) in members {
                    self.spend(field, member)?;
                    match (name.as_str(), member) {
                        ("properties", Value::Object(properties)) => {
                            let left = self.properties.checked_sub(properties.len());
                            self.properties = left.ok_or_else(|| too_many(field))?;
                        }
                        ("pattern", Value::String(text)) if text.len() > PATTERN_BYTES_MAX => {
                            return Err(Failure::client(format!(
                                "{field} holds a `pattern` of more than {PATTERN_BYTES_MAX} bytes"
                            )));
                        }
                        (_, _) => {}
                    }
                }
                Ok(())
            }
            Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => Ok(()),
        }
    }
}

fn too_many(field: &str) -> Failure {
    Failure::client(format!(
        "{field} holds schemas of more than {PROPERTIES_MAX} properties together"
    ))
}

/// What llguidance says against a grammar, without the parts of the schema that it quotes.
pub(super) fn refusal(field: &str, message: &str) -> Failure {
    // Only the first line is looked at: what follows quotes the schema or is a trace.
    let line = message.lines().next().unwrap_or_default();
    let has = |words: &[&str]| words.iter().any(|word| line.contains(word));
    let text = if has(&["Unsatisfiable", "NoExtension"]) {
        format!("{field} holds a schema that no value fits")
    } else if has(&["float range", "integer range"]) {
        format!("{field} holds a `minimum` or `maximum` that is not supported")
    } else if has(&["regex parse", "regex:", "invalid regex"]) {
        format!("{field} holds a `pattern` that is not supported")
    } else if has(&["$ref", "ref '", "circular references", "not found"]) {
        format!("{field} holds a `$ref` that is not supported; refer to `#/$defs/NAME`")
    } else if let Some(keyword) = keyword_in(line) {
        format!("{field} uses `{keyword}` in a way that is not supported; leave it out")
    } else if has(&["too large", "too big", "too many", "stack level", "limit"]) {
        format!("{field} holds schemas that are too large together")
    } else {
        format!("{field} holds a schema that is not supported")
    };
    Failure::client(text)
}

/// Many keywords are plain words: those count in quotation marks, or where they begin the line.
fn keyword_in(line: &str) -> Option<&'static str> {
    // llguidance's own words for three of them.
    for (words, keyword) in [
        ("patternProperty", "patternProperties"),
        ("Unknown format", "format"),
        ("Invalid type", "type"),
    ] {
        if line.contains(words) {
            return Some(keyword);
        }
    }
    let known = |word: &str| KEYWORDS.iter().find(|it| **it == word).copied();
    let quoted = line.split(['\'', '"']).skip(1).step_by(2);
    let is_end = |char: char| !(char.is_ascii_alphanumeric() || char == '$');
    let words = line.split(is_end);
    let is_plain = |word: &str| word.bytes().all(|byte| byte.is_ascii_lowercase());
    let first = words.clone().take(1);
    let found = quoted.chain(first).find_map(known);
    found.or_else(|| words.filter(|word| !is_plain(word)).find_map(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        Json::from_text(text.to_owned()).unwrap()
    }

    #[test]
    fn a_refusal_names_a_keyword_and_nothing_of_the_schema() {
        let table = [
            (r#"Unimplemented keys: ["not"]"#, "`not`"),
            (
                r#"Unimplemented keys: ["secret", "uniqueItems"]"#,
                "`uniqueItems`",
            ),
            ("Unknown format: secret", "`format`"),
            ("oneOf constraints are not supported. Enable", "`oneOf`"),
            (
                "patternProperty regexes /secret/ and /b$/ are not",
                "`patternProperties`",
            ),
            (
                "Only absolute $ref's (#/...) are supported; ref 'secret'",
                "`$ref`",
            ),
            ("regex parse error:\n    (secret", "`pattern`"),
            (
                "Unsatisfiable schema: required property 'secret'",
                "no value fits",
            ),
            ("schema too large", "too large"),
            ("min/maxProperties only supported when", "`maxProperties`"),
            (
                "Value for 'multipleOf' has too many digits: 12",
                "`multipleOf`",
            ),
            (
                "Failed to generate regex for float range: min=1",
                "`minimum`",
            ),
            ("enum must be an array", "`enum`"),
            (
                "panic: if secret then not",
                "a schema that is not supported",
            ),
        ];
        for (message, part) in table {
            let text = refusal("tools", message).text;
            assert!(text.contains(part) && text.starts_with("tools"), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn properties_and_patterns_are_counted_over_all_schemas() {
        let many = |count: usize| {
            let members: Vec<String> = (0..count).map(|ix| format!("\"p{ix}\":{{}}")).collect();
            json(&format!(
                r#"{{"anyOf":[{{"properties":{{{}}}}}]}}"#,
                members.join(",")
            ))
        };
        let mut allowance = Allowance::default();
        assert!(allowance.read("tools", &many(PROPERTIES_MAX - 1)).is_ok());
        assert!(allowance.read("tools", &many(1)).is_ok());
        let failure = allowance.read("tools", &many(1)).unwrap_err();
        assert!(failure.text.contains("1000 properties"), "{failure}");
        let long = format!(r#"{{"pattern":"{}"}}"#, "a".repeat(PATTERN_BYTES_MAX + 1));
        let failure = Allowance::default()
            .read("tools", &json(&long))
            .unwrap_err();
        assert!(failure.text.contains("`pattern`"), "{failure}");
    }

    #[test]
    fn options_of_the_grammar_are_not_the_callers() {
        let raw = json(r#"{"x-guidance":{"lenient":true},"type":"object"}"#);
        let schema = Allowance::default().read("tools", &raw).unwrap();
        assert_eq!(schema, serde_json::json!({"type": "object"}));
    }
}
