//! The filter `tojson` as `transformers` has it: Python's `json.dumps`, byte for byte.

use super::args::{Argument as _, Given};
use super::error::{Error, Result};
use super::repr;
use super::text::{Text, Writer};
use super::value::{Map, Value};

/// Values within one another.
const DEPTH_MAX: usize = 256;

struct Style {
    is_ascii: bool,
    indent: Option<Text>,
    item: Text,
    key: Text,
    is_sorted: bool,
}

pub(super) fn to_json(value: &Value, given: Given) -> Result<Value> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ascii, indent, separators, sorted] = given.bind(names)?;
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Text(text)) => Some(text),
        given => {
            let width = given.int()?.clamp(0, 64);
            Some(Text::own(&" ".repeat(usize::try_from(width).unwrap_or(0))))
        }
    };
    let (item, key) = match separators {
        None | Some(Value::None) if indent.is_some() => (Text::own(","), Text::own(": ")),
        None | Some(Value::None) => (Text::own(", "), Text::own(": ")),
        Some(pair) => {
            let [item, key] = <[Value; 2]>::try_from(pair.try_items()?)
                .map_err(|_| Error::new("separators are two strings"))?;
            (Some(item).text()?, Some(key).text()?)
        }
    };
    let style = Style {
        is_ascii: ascii.flag_or(false),
        indent,
        item,
        key,
        is_sorted: sorted.flag_or(false),
    };
    let mut out = Writer::default();
    style.write(value, 0, &mut out)?;
    Ok(Value::Text(out.finish()))
}

impl Style {
    fn write(&self, value: &Value, depth: usize, out: &mut Writer) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(Error::new("tojson of something nested too deeply"));
        }
        match value {
            Value::None => out.push_own("null"),
            Value::Bool(true) => out.push_own("true"),
            Value::Bool(false) => out.push_own("false"),
            Value::Int(it) => out.push_own(&it.to_string()),
            Value::Float(it) => out.push_own(&float(*it)),
            Value::Text(text) => self.text(text, out),
            Value::List(items) | Value::Tuple(items) => self.list(items, depth, out)?,
            Value::Map(map) => self.map(map, depth, out)?,
            Value::Undefined | Value::Object(_) => {
                return Err(Error::new(format!(
                    "tojson of a value of type {}",
                    value.kind()
                )));
            }
        }
        Ok(())
    }

    fn list(&self, items: &[Value], depth: usize, out: &mut Writer) -> Result<()> {
        if items.is_empty() {
            out.push_own("[]");
            return Ok(());
        }
        out.push_own("[");
        for (ix, item) in items.iter().enumerate() {
            if ix > 0 {
                out.push_text(&self.item);
            }
            self.line(depth + 1, out);
            self.write(item, depth + 1, out)?;
        }
        self.line(depth, out);
        out.push_own("]");
        Ok(())
    }

    fn map(&self, map: &Map, depth: usize, out: &mut Writer) -> Result<()> {
        if map.len() == 0 {
            out.push_own("{}");
            return Ok(());
        }
        let mut entries: Vec<&(Value, Value)> = map.iter().collect();
        if self.is_sorted {
            let mut flaw = None;
            entries.sort_by(|a, b| {
                let order = a.0.compare(&b.0);
                order
                    .map_err(|error| flaw = Some(error))
                    .ok()
                    .flatten()
                    .unwrap_or(std::cmp::Ordering::Equal)
            });
            if let Some(error) = flaw {
                return Err(error);
            }
        }
        out.push_own("{");
        for (ix, (key, value)) in entries.into_iter().enumerate() {
            if ix > 0 {
                out.push_text(&self.item);
            }
            self.line(depth + 1, out);
            self.key(key, out)?;
            out.push_text(&self.key);
            self.write(value, depth + 1, out)?;
        }
        self.line(depth, out);
        out.push_own("}");
        Ok(())
    }

    fn key(&self, key: &Value, out: &mut Writer) -> Result<()> {
        let word = match key {
            Value::Text(text) => {
                self.text(text, out);
                return Ok(());
            }
            Value::None => "null".to_owned(),
            Value::Bool(it) => it.to_string(),
            Value::Int(it) => it.to_string(),
            Value::Float(it) => float(*it),
            other => {
                return Err(Error::new(format!(
                    "tojson of a key of type {}",
                    other.kind()
                )));
            }
        };
        out.push_own(&format!("\"{word}\""));
        Ok(())
    }

    fn line(&self, depth: usize, out: &mut Writer) {
        if let Some(indent) = &self.indent {
            out.push_own("\n");
            for _ in 0..depth {
                out.push_text(indent);
            }
        }
    }

    fn text(&self, text: &Text, out: &mut Writer) {
        out.push_own("\"");
        for (range, origin) in text.parts() {
            let mut escaped = String::with_capacity(range.len());
            for char in text.as_str()[range].chars() {
                match char {
                    '"' => escaped.push_str("\\\""),
                    '\\' => escaped.push_str("\\\\"),
                    '\n' => escaped.push_str("\\n"),
                    '\r' => escaped.push_str("\\r"),
                    '\t' => escaped.push_str("\\t"),
                    '\u{8}' => escaped.push_str("\\b"),
                    '\u{c}' => escaped.push_str("\\f"),
                    '\0'..='\u{1f}' => escaped.push_str(&format!("\\u{:04x}", u32::from(char))),
                    _ if self.is_ascii && !char.is_ascii() => {
                        for unit in char.encode_utf16(&mut [0; 2]) {
                            escaped.push_str(&format!("\\u{unit:04x}"));
                        }
                    }
                    _ => escaped.push(char),
                }
            }
            out.push(&escaped, origin);
        }
        out.push_own("\"");
    }
}

fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
        .to_owned();
    }
    repr::float(number)
}
