//! Calls in tags: `<function=name><parameter=key>text</parameter></function>`. The text of a
//! parameter says nothing of its type, so the tool's schema does.

use std::fmt::Write as _;

use serde_json::Value;

use super::{ParameterTypes, WrittenCall};

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
        let value = types.kind(name, parameter).read(text);
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
