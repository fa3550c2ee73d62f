//! Calls in tags: `<function=name>` around `<parameter=key>` around the bare text of a value.

use serde_json::{Map, Value};

use super::super::lark::{Lark, literal};
use super::{Function, member_names, refuse_name};
use crate::failure::Failure;
use crate::text::Kind;

const CLOSE: &str = "\n</parameter>\n";

/// Writes the rule `body`.
pub(super) fn write(functions: &[Function<'_>], lark: &mut Lark) -> Result<(), Failure> {
    lark.rule(&format!("text[suffix={}]", literal(CLOSE)), "/(?s:.*)/");
    let mut bodies = vec![];
    for (ix, function) in functions.iter().enumerate() {
        let mut body = literal(&format!("<function={}>\n", function.tool.name));
        for (member_ix, (name, schema, is_required)) in member_names(&function.schema).enumerate() {
            if name.contains(['<', '>', '\n']) || name.trim() != name {
                refuse_name(is_required)?;
                continue;
            }
            let rule = format!("p{ix}_{member_ix}");
            let open = literal(&format!("<parameter={name}>\n"));
            let value = value(schema, &function.schema, lark);
            lark.rule(&rule, &format!("{open} {value}"));
            let mark = if is_required { "" } else { "?" };
            body += &format!(" {rule}{mark}");
        }
        bodies.push(format!("{body} \"</function>\""));
    }
    lark.rule("body", &bodies.join(" | "));
    Ok(())
}

/// A value and the tag after it. Strings stand as they are, all else is JSON: the reader of calls asks
/// the same of the schema.
fn value(schema: &Value, root: &Value, lark: &mut Lark) -> String {
    let close = literal(CLOSE);
    match Kind::of(schema, root) {
        Kind::Json => {
            let json = lark.schema(with_definitions(schema, root));
            format!("{json} {close}")
        }
        Kind::Text { .. } | Kind::Unsaid => "text".to_owned(),
        Kind::Words(words) => {
            let words = words.iter().map(|word| match word {
                Value::String(text) => literal(text),
                Value::Array(_)
                | Value::Bool(_)
                | Value::Null
                | Value::Number(_)
                | Value::Object(_) => literal(&word.to_string()),
            });
            let words: Vec<String> = words.collect();
            format!("({}) {close}", words.join(" | "))
        }
    }
}

/// A part of a schema as a schema of its own, with all that it may refer to.
fn with_definitions(schema: &Value, root: &Value) -> Value {
    let mut alone = schema.clone();
    let Some(members) = alone.as_object_mut() else {
        return alone;
    };
    for name in ["$defs", "definitions"] {
        if let Some(definitions) = root.get(name).and_then(Value::as_object)
            && !definitions.is_empty()
            && !members.contains_key(name)
        {
            members.insert(name.to_owned(), Value::Object(Map::clone(definitions)));
        }
    }
    alone
}
