//! Calls in tags that do not stream: `<function=name><parameter=key>text</parameter></function>`
//! behind other text.

use super::tags::TagStream;
use super::{Called, ParameterTypes, WrittenCall};

pub(super) fn call(body: &str, types: &ParameterTypes) -> Option<WrittenCall> {
    let (_, rest) = body.split_once("<function=")?;
    let (name, rest) = rest.split_once('>')?;
    let name = name.trim().to_owned();
    if name.is_empty() {
        return None;
    }
    let mut out = vec![Called::Begun { name: name.clone() }];
    let mut stream = TagStream::new(name);
    stream.push(rest, types, &mut out);
    stream.is_over().then(|| Called::gathered(&out).remove(0))
}
