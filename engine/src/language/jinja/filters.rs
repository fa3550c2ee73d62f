//! Jinja's filters, and `tojson` as `transformers` has it. Those that make HTML, or draw at random,
//! are left out: no prompt needs them. What goes through lists is in `filters/sequences.rs`.

mod sequences;

use super::args::{Argument as _, Given, wrong};
use super::error::{Error, Result};
use super::eval::Run;
use super::format;
use super::json;
use super::methods::{self, int};
use super::text::{Text, Writer};
use super::value::Value;

const NAMES: [&str; 49] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "wordcount",
    "pprint",
    "striptags",
];
/// Columns of an indentation.
const INDENT_MAX: i128 = 256;

pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

impl Run<'_> {
    pub(super) fn filtered(&mut self, value: &Value, name: &str, given: Given) -> Result<Value> {
        let method =
            |name: &str, given: Given| methods::call(&Value::Text(value.to_text()), name, given);
        match name {
            "tojson" => json::to_json(value, given),
            "default" | "d" => {
                let [default, boolean] = given.bind(["default_value", "boolean"])?;
                let is_absent = matches!(value, Value::Undefined)
                    || (boolean.flag_or(false) && !value.is_true());
                Ok(if is_absent {
                    default.unwrap_or_else(|| Value::own(""))
                } else {
                    value.clone()
                })
            }
            "length" | "count" => Ok(int(value.len()?)),
            "upper" | "lower" | "capitalize" => method(name, given),
            "trim" => method("strip", given),
            "string" | "safe" => Ok(Value::Text(value.to_text())),
            "title" => Ok(Value::Text(title(&value.to_text()))),
            "replace" => {
                let [old, new, count] = given.bind(["old", "new", "count"])?;
                let count = usize::try_from(count.int_or(-1)?).unwrap_or(usize::MAX);
                let (old, new) = (old.required()?.to_text(), new.required()?.to_text());
                let text = value.to_text();
                Ok(Value::Text(methods::replace(&text, &old, &new, count)))
            }
            "center" => {
                let [width] = given.bind(["width"])?;
                let positional = vec![Value::Int(width.int_or(80)?)];
                method(
                    "center",
                    Given {
                        positional,
                        named: vec![],
                    },
                )
            }
            "format" => {
                let values = if given.named.is_empty() {
                    Value::tuple(given.positional)
                } else {
                    let mut map = super::value::Map::default();
                    for (name, value) in &given.named {
                        map.set(name, value.clone());
                    }
                    Value::map(map)
                };
                format::percent(&value.to_text(), &values)
            }
            "indent" => indent(&value.to_text(), given),
            "truncate" => truncate(&value.to_text(), given),
            "wordcount" => {
                let text = value.to_text();
                let words = text
                    .as_str()
                    .split(|it: char| !(it == '_' || it.is_alphanumeric()));
                Ok(int(words.filter(|word| !word.is_empty()).count()))
            }
            "e" | "escape" | "forceescape" => Ok(Value::Text(value.to_text().map(escaped))),
            "urlencode" => urlencode(value),
            "pprint" => {
                let mut out = Writer::default();
                super::repr::write(value, &mut out);
                Ok(Value::Text(out.finish()))
            }
            "striptags" => Ok(Value::Text(strip_tags(&value.to_text()))),
            "abs" => match value {
                Value::Float(it) => Ok(Value::Float(it.abs())),
                other => {
                    let number = other.as_int().and_then(i128::checked_abs);
                    number.map(Value::Int).ok_or_else(|| wrong("number", other))
                }
            },
            "int" => to_int(value, given),
            "float" => {
                let [default] = given.bind(["default"])?;
                let number = match value {
                    Value::Text(text) => parse_float(text.as_str()),
                    Value::Undefined => return Err(Error::new("float of an undefined value")),
                    other => other.as_float(),
                };
                Ok(number.map_or_else(|| default.unwrap_or(Value::Float(0.0)), Value::Float))
            }
            "round" => round(value, given),
            "attr" => {
                let [attribute] = given.bind(["name"])?;
                self.attribute_only(value, attribute.text()?.as_str())
            }
            _ => self.filtered_items(value, name, given),
        }
    }
}

/// Upper case after blanks and opening brackets, lower case otherwise.
fn title(text: &Text) -> Text {
    let mut out = Writer::default();
    let mut is_first = true;
    for (range, origin) in text.parts() {
        for char in text.as_str()[range].chars() {
            let starts = matches!(char, '-' | '(' | '{' | '[' | '<') || methods::is_blank(char);
            let cased: String = if is_first {
                char.to_uppercase().collect()
            } else {
                char.to_lowercase().collect()
            };
            out.push(&cased, origin);
            is_first = starts;
        }
    }
    out.finish()
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            other => out.push(other),
        }
    }
    out
}

fn indent(text: &Text, given: Given) -> Result<Value> {
    let [width, first, blank] = given.bind(["width", "first", "blank"])?;
    let indent = match width {
        Some(Value::Text(text)) => text,
        given => {
            let width = given.int_or(4)?.clamp(0, INDENT_MAX);
            Text::own(&" ".repeat(usize::try_from(width).unwrap_or(0)))
        }
    };
    let (is_first, is_blank) = (first.flag_or(false), blank.flag_or(false));
    let mut out = Writer::default();
    // A line break at the end is a line of its own here.
    let mut lines = methods::lines(text.as_str());
    let ends_open =
        text.as_str().is_empty() || lines.last().is_some_and(|it| it.end < it.with_break);
    if ends_open {
        let end = text.as_str().len();
        lines.push(methods::Line {
            start: end,
            end,
            with_break: end,
        });
    }
    for (ix, line) in lines.into_iter().enumerate() {
        let is_indented = match ix {
            0 => is_first,
            _ => is_blank || line.start < line.end,
        };
        if ix > 0 {
            out.push_own("\n");
        }
        if is_indented {
            out.push_text(&indent);
        }
        out.push_slice(text, line.start..line.end);
    }
    Ok(Value::Text(out.finish()))
}

fn truncate(text: &Text, given: Given) -> Result<Value> {
    let [length, kill, end, leeway] = given.bind(["length", "killwords", "end", "leeway"])?;
    let size = |it: i128| usize::try_from(it).unwrap_or(0);
    let (length, leeway) = (size(length.int_or(255)?), size(leeway.int_or(5)?));
    let end = end.text_if_any()?.unwrap_or_else(|| Text::own("..."));
    let end_length = end.as_str().chars().count();
    if length < end_length {
        return Err(Error::new("truncate to less than its end takes"));
    }
    let whole = text.as_str();
    if whole.chars().count() <= length.saturating_add(leeway) {
        return Ok(Value::Text(text.clone()));
    }
    let cut = whole.char_indices().nth(length - end_length);
    let mut cut = cut.map_or(whole.len(), |(at, _)| at);
    if !kill.flag_or(false) {
        cut = whole[..cut].rfind(' ').unwrap_or(cut);
    }
    let mut out = Writer::default();
    out.push_slice(text, 0..cut);
    out.push_text(&end);
    Ok(Value::Text(out.finish()))
}

fn urlencode(value: &Value) -> Result<Value> {
    // A path keeps its slashes; a pair's blanks are pluses.
    let quoted = |value: &Value, is_path: bool| {
        value.to_text().map(|text| {
            let mut out = String::new();
            for byte in text.bytes() {
                let is_plain = byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte);
                if is_plain || (is_path && byte == b'/') {
                    out.push(char::from(byte));
                } else if byte == b' ' && !is_path {
                    out.push('+');
                } else {
                    out.push_str(&format!("%{byte:02X}"));
                }
            }
            out
        })
    };
    let pairs = match value {
        Value::Text(_) => return Ok(Value::Text(quoted(value, true))),
        Value::Map(map) => map.iter().cloned().collect(),
        other => {
            let mut pairs = vec![];
            for pair in other.try_items()? {
                let pair = <[Value; 2]>::try_from(pair.try_items()?);
                let [key, value] = pair.map_err(|_| Error::new("urlencode of no pairs"))?;
                pairs.push((key, value));
            }
            pairs
        }
    };
    let mut out = Writer::default();
    for (ix, (key, value)) in pairs.iter().enumerate() {
        if ix > 0 {
            out.push_own("&");
        }
        out.push_text(&quoted(key, false));
        out.push_own("=");
        out.push_text(&quoted(value, false));
    }
    Ok(Value::Text(out.finish()))
}

fn strip_tags(text: &Text) -> Text {
    let whole = text.as_str();
    let mut kept = Writer::default();
    let mut at = 0;
    while let Some(start) = whole[at..].find('<').map(|it| at + it) {
        let Some(end) = whole[start..].find('>').map(|it| start + it + 1) else {
            break;
        };
        kept.push_slice(text, at..start);
        at = end;
    }
    kept.push_slice(text, at..whole.len());
    let kept = kept.finish();
    let mut out = Writer::default();
    for (ix, word) in kept.as_str().split_whitespace().enumerate() {
        let start = word.as_ptr().addr() - kept.as_str().as_ptr().addr();
        if ix > 0 {
            out.push_own(" ");
        }
        out.push_slice(&kept, start..start + word.len());
    }
    out.finish()
}

fn to_int(value: &Value, given: Given) -> Result<Value> {
    let [default, base] = given.bind(["default", "base"])?;
    let base = u32::try_from(base.int_or(10)?).unwrap_or(10);
    let whole = |number: f64| {
        #[expect(clippy::cast_possible_truncation, reason = "as Python cuts them")]
        number.is_finite().then_some(number as i128)
    };
    let number = match value {
        Value::Undefined => return Err(Error::new("int of an undefined value")),
        Value::Text(text) => {
            let parsed = parse_int(text.as_str(), base);
            parsed.or_else(|| parse_float(text.as_str()).and_then(whole))
        }
        Value::Float(it) => whole(*it),
        other => other.as_int(),
    };
    Ok(number.map_or_else(|| default.unwrap_or(Value::Int(0)), Value::Int))
}

fn parse_int(text: &str, base: u32) -> Option<i128> {
    let text = text.trim_matches(methods::is_blank);
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let prefixes: &[&str] = match base {
        2 => &["0b", "0B"],
        8 => &["0o", "0O"],
        16 => &["0x", "0X"],
        _ => &[],
    };
    let cut = prefixes
        .iter()
        .find_map(|prefix| digits.strip_prefix(prefix));
    let digits = cut.unwrap_or(digits);
    let is_spaced_well =
        !digits.starts_with('_') && !digits.ends_with('_') && !digits.contains("__");
    let first = digits.chars().next()?;
    if !is_spaced_well || !(2..=36).contains(&base) || !first.is_digit(base) {
        return None;
    }
    let number = i128::from_str_radix(&digits.replace('_', ""), base).ok()?;
    Some(if is_negative { -number } else { number })
}

fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(methods::is_blank);
    let is_spaced_well = !text.starts_with('_') && !text.ends_with('_') && !text.contains("__");
    let number = text.replace('_', "").parse().ok();
    number.filter(|_| is_spaced_well)
}

fn round(value: &Value, given: Given) -> Result<Value> {
    let [precision, method] = given.bind(["precision", "method"])?;
    let precision = i32::try_from(precision.int_or(0)?.clamp(-64, 64)).unwrap_or(0);
    let method = method.text_if_any()?;
    let number = value.as_float().ok_or_else(|| wrong("number", value))?;
    let scale = 10_f64.powi(precision);
    Ok(match method.as_ref().map_or("common", Text::as_str) {
        "common" => match value.as_int() {
            Some(whole) if precision >= 0 => Value::Int(whole),
            Some(_) => {
                #[expect(clippy::cast_possible_truncation, reason = "whole already")]
                let whole = ((number * scale).round_ties_even() / scale).round() as i128;
                Value::Int(whole)
            }
            None if precision >= 0 => {
                let places = usize::try_from(precision).unwrap_or(0);
                // Decimal digits are exact here, and ties go to the even one, as Python has it.
                Value::Float(format!("{number:.places$}").parse().unwrap_or(number))
            }
            None => Value::Float((number * scale).round_ties_even() / scale),
        },
        "ceil" => Value::Float((number * scale).ceil() / scale),
        "floor" => Value::Float((number * scale).floor() / scale),
        _ => return Err(Error::new("round by common, ceil or floor")),
    })
}
