//! Calls in tags: `<function=name>` around `<parameter=key>` around the bare text of a value.

use serde_json::{Map, Value};

use super::super::lark::{Lark, literal};
use super::{Function, member_names, refuse_name};
use crate::failure::Failure;

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

/// A value and the tag after it. Strings stand as they are, all else is JSON; what a schema leaves
/// open is read as a string, unless it is an object or an array.
fn value(schema: &Value, root: &Value, lark: &mut Lark) -> String {
    let close = literal(CLOSE);
    if let Some(words) = words(schema) {
        let words: Vec<String> = words.iter().map(|word| literal(word)).collect();
        return format!("({}) {close}", words.join(" | "));
    }
    if is_json(schema, root) {
        let json = lark.schema(with_definitions(schema, root));
        return format!("{json} {close}");
    }
    "text".to_owned()
}

/// The strings of an `enum` or a `const`, where there is nothing else in it.
fn words(schema: &Value) -> Option<Vec<&str>> {
    if let Some(word) = schema.get("const") {
        return Some(vec![word.as_str()?]);
    }
    let words = schema.get("enum")?.as_array()?;
    words.iter().map(Value::as_str).collect()
}

fn is_json(schema: &Value, root: &Value) -> bool {
    match schema.get("type") {
        Some(Value::String(name)) => name != "string",
        Some(Value::Array(names)) => !names.iter().any(|name| name == "string"),
        Some(_) => false,
        None => {
            let target = schema.get("$ref").and_then(Value::as_str);
            let target = target.and_then(|it| root.pointer(it.strip_prefix('#')?));
            let kind = target.and_then(|it| it.get("type"));
            kind.is_some_and(|kind| kind == "object" || kind == "array")
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
