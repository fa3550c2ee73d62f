//! Values as Python writes them.

use super::object::Object;
use super::text::{Text, Writer};
use super::value::{Map, Value};

/// `str(value)` of what is no string: within lists strings stand in quotes.
pub(super) fn write(value: &Value, out: &mut Writer) {
    match value {
        Value::Undefined => out.push_own("Undefined"),
        Value::None => out.push_own("None"),
        Value::Bool(true) => out.push_own("True"),
        Value::Bool(false) => out.push_own("False"),
        Value::Int(it) => out.push_own(&it.to_string()),
        Value::Float(it) => out.push_own(&float(*it)),
        Value::Text(text) => quoted(text, out),
        Value::List(items) => listed("[", items, "]", out),
        Value::Tuple(items) if items.len() == 1 => listed("(", items, ",)", out),
        Value::Tuple(items) => listed("(", items, ")", out),
        Value::Map(map) => entries(map, out),
        Value::Object(object) => match &**object {
            Object::View(kind, items) => {
                out.push_own(kind);
                listed("([", items, "])", out);
            }
            Object::Range(it) => out.push_own(&match it.step {
                1 => format!("range({}, {})", it.start, it.stop),
                step => format!("range({}, {}, {step})", it.start, it.stop),
            }),
            Object::Namespace(map) => {
                out.push_own("<Namespace ");
                entries(&map.borrow(), out);
                out.push_own(">");
            }
            other => out.push_own(&format!("<{}>", other.kind())),
        },
    }
}

fn listed(open: &str, items: &[Value], close: &str, out: &mut Writer) {
    out.push_own(open);
    for (ix, item) in items.iter().enumerate() {
        if ix > 0 {
            out.push_own(", ");
        }
        write(item, out);
    }
    out.push_own(close);
}

fn entries(map: &Map, out: &mut Writer) {
    out.push_own("{");
    for (ix, (key, value)) in map.iter().enumerate() {
        if ix > 0 {
            out.push_own(", ");
        }
        write(key, out);
        out.push_own(": ");
        write(value, out);
    }
    out.push_own("}");
}

fn quoted(text: &Text, out: &mut Writer) {
    let whole = text.as_str();
    let quote = if whole.contains('\'') && !whole.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut mark = [0; 4];
    let mark = quote.encode_utf8(&mut mark);
    out.push_own(mark);
    for (range, origin) in text.parts() {
        let mut escaped = String::new();
        for char in whole[range].chars() {
            match char {
                '\\' => escaped.push_str("\\\\"),
                '\n' => escaped.push_str("\\n"),
                '\r' => escaped.push_str("\\r"),
                '\t' => escaped.push_str("\\t"),
                _ if char == quote => escaped.extend(['\\', char]),
                _ if is_printable(char) => escaped.push(char),
                _ => {
                    let code = u32::from(char);
                    escaped.push_str(&match code {
                        0..=0xff => format!("\\x{code:02x}"),
                        0x100..=0xffff => format!("\\u{code:04x}"),
                        _ => format!("\\U{code:08x}"),
                    });
                }
            }
        }
        out.push(&escaped, origin);
    }
    out.push_own(mark);
}

/// Near to Python's rule, which asks the tables of Unicode: controls, formats, blanks other than the
/// ASCII one and private characters do not print.
pub(super) fn is_printable(char: char) -> bool {
    let is_format = matches!(u32::from(char),
        0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x180e | 0x200b..=0x200f | 0x2028..=0x202e
        | 0x2060..=0x206f | 0xfeff | 0xfff0..=0xfffb | 0xfffe..=0xffff | 0xe000..=0xf8ff
        | 0xe0000..=0xe0fff | 0xf0000..=0x10ffff);
    char == ' ' || !(char.is_control() || char.is_whitespace() || is_format)
}

/// The shortest digits that read back as the number.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let short = format!("{number:e}");
    let (digits, exponent) = short.split_once('e').expect("written with an exponent");
    let exponent: i32 = exponent.parse().expect("a small whole number");
    if (-4..16).contains(&exponent) {
        let plain = format!("{number}");
        return if plain.contains('.') {
            plain
        } else {
            plain + ".0"
        };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}
