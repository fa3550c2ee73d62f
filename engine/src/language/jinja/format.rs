//! Python's two ways of formatting: `'%s' % x` and `'{}'.format(x)`.

use super::args::Given;
use super::error::{Error, Result};
use super::repr;
use super::text::{Text, Writer};
use super::value::Value;

/// Columns that a format may fill.
const WIDTH_MAX: usize = 4_096;

/// How one value is laid out.
#[derive(Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    is_alternate: bool,
    width: usize,
    has_commas: bool,
    precision: Option<usize>,
    kind: Option<char>,
}

pub(super) fn percent(pattern: &Text, values: &Value) -> Result<Value> {
    let source = pattern.as_str();
    let mut out = Writer::default();
    let mut given: std::collections::VecDeque<Value> = match values {
        Value::Tuple(items) => items.iter().cloned().collect(),
        other => [other.clone()].into(),
    };
    let mut is_by_name = false;
    let mut at = 0;
    while let Some(found) = source[at..].find('%') {
        out.push_slice(pattern, at..at + found);
        let mut rest = &source[at + found + 1..];
        let mut named = None;
        if let Some(inner) = rest.strip_prefix('(') {
            let end = inner
                .find(')')
                .ok_or_else(|| Error::new("a format key has no end"))?;
            let Value::Map(map) = values else {
                return Err(Error::new("a format by names needs a dict"));
            };
            let value = map.get_str(&inner[..end]).cloned();
            named = Some(value.ok_or_else(|| Error::new("a format key that is not there"))?);
            is_by_name = true;
            rest = &inner[end + 1..];
        }
        let mut spec = Spec::default();
        let mut is_zero = false;
        while let Some(flag) = rest.chars().next().filter(|it| "-+ #0".contains(*it)) {
            match flag {
                '-' => spec.align = Some('<'),
                '0' => is_zero = true,
                '#' => spec.is_alternate = true,
                other => spec.sign = Some(other),
            }
            rest = &rest[1..];
        }
        rest = width(rest, &mut spec.width)?;
        if let Some(after) = rest.strip_prefix('.') {
            let mut precision = 0;
            rest = width(after, &mut precision)?;
            spec.precision = Some(precision);
        }
        let kind = rest.chars().next();
        let kind = kind.ok_or_else(|| Error::new("a format ends too early"))?;
        rest = &rest[kind.len_utf8()..];
        at = source.len() - rest.len();
        if kind == '%' {
            out.push_own("%");
            continue;
        }
        let next = named.or_else(|| given.pop_front());
        let value = next.ok_or_else(|| Error::new("not enough values for a format"))?;
        spec.align = spec.align.or(Some('>'));
        if is_zero && spec.align == Some('>') && !matches!(kind, 's' | 'r' | 'a' | 'c') {
            (spec.fill, spec.align) = (Some('0'), Some('='));
        }
        spec.kind = match kind {
            's' | 'r' | 'a' => None,
            'i' | 'u' => Some('d'),
            other => Some(other),
        };
        match kind {
            's' => spec.text(&value.to_text(), &mut out),
            'r' | 'a' => {
                let mut quoted = Writer::default();
                repr::write(&value, &mut quoted);
                spec.text(&quoted.finish(), &mut out);
            }
            'c' => match &value {
                Value::Text(text) => spec.text(text, &mut out),
                other => {
                    let code = other.as_int().and_then(|it| u32::try_from(it).ok());
                    let char = code.and_then(char::from_u32);
                    let char = char.ok_or_else(|| Error::new("%c of no character"))?;
                    spec.text(&Text::own(&char.to_string()), &mut out);
                }
            },
            'd' | 'i' | 'u' => {
                let number = match &value {
                    #[expect(clippy::cast_possible_truncation, reason = "as Python cuts them")]
                    Value::Float(it) => Value::Int(*it as i128),
                    other => other.clone(),
                };
                spec.number(&number, &mut out)?;
            }
            'x' | 'X' | 'o' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' => spec.number(&value, &mut out)?,
            _ => return Err(Error::new("an unknown kind of format")),
        }
    }
    out.push_slice(pattern, at..source.len());
    if !given.is_empty() && !is_by_name && !matches!(values, Value::Map(_)) {
        return Err(Error::new("too many values for a format"));
    }
    Ok(Value::Text(out.finish()))
}

fn width<'a>(text: &'a str, out: &mut usize) -> Result<&'a str> {
    let end = text
        .find(|it: char| !it.is_ascii_digit())
        .unwrap_or(text.len());
    if end > 0 {
        let number = text[..end].parse().ok().filter(|it| *it <= WIDTH_MAX);
        *out = number.ok_or_else(|| Error::new("a format that is too wide"))?;
    }
    Ok(&text[end..])
}

pub(super) fn braces(
    pattern: &Text,
    given: &Given,
    attribute: &dyn Fn(&Value, &str) -> Result<Value>,
    item: &dyn Fn(&Value, &Value) -> Result<Value>,
) -> Result<Value> {
    let source = pattern.as_str();
    let mut out = Writer::default();
    let mut next = 0;
    let mut at = 0;
    while let Some(found) = source[at..].find(['{', '}']) {
        let here = at + found;
        out.push_slice(pattern, at..here);
        let rest = &source[here..];
        if rest.starts_with("{{") || rest.starts_with("}}") {
            out.push_slice(pattern, here..here + 1);
            at = here + 2;
            continue;
        }
        let end = rest.find('}').filter(|_| rest.starts_with('{'));
        let end = end.ok_or_else(|| Error::new("a single brace in a format"))?;
        let field = &rest[1..end];
        at = here + end + 1;
        let (field, spec) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) = field.split_once('!').unwrap_or((field, ""));
        let first = name.find(['.', '[']).unwrap_or(name.len());
        let mut value = match &name[..first] {
            "" => {
                next += 1;
                given.positional.get(next - 1).cloned()
            }
            word => match word.parse::<usize>() {
                Ok(place) => given.positional.get(place).cloned(),
                Err(_) => {
                    let mut named = given.named.iter();
                    named
                        .find(|(it, _)| **it == *word)
                        .map(|(_, it)| it.clone())
                }
            },
        }
        .ok_or_else(|| Error::new("a format asks for a value that is not given"))?;
        let mut path = &name[first..];
        while !path.is_empty() {
            if let Some(inner) = path.strip_prefix('[') {
                let end = inner
                    .find(']')
                    .ok_or_else(|| Error::new("a bad format field"))?;
                let key = match inner[..end].parse::<i128>() {
                    Ok(place) => Value::Int(place),
                    Err(_) => Value::own(&inner[..end]),
                };
                value = item(&value, &key)?;
                path = &inner[end + 1..];
            } else {
                let inner = &path[1..];
                let end = inner.find(['.', '[']).unwrap_or(inner.len());
                value = attribute(&value, &inner[..end])?;
                path = &inner[end..];
            }
        }
        let value = match conversion {
            "" => value,
            "s" => Value::Text(value.to_text()),
            "r" | "a" => {
                let mut quoted = Writer::default();
                repr::write(&value, &mut quoted);
                Value::Text(quoted.finish())
            }
            _ => return Err(Error::new("an unknown conversion in a format")),
        };
        let spec = Spec::parse(spec)?;
        match &value {
            Value::Int(_) | Value::Float(_) => spec.number(&value, &mut out)?,
            Value::Bool(_) if spec.kind.is_some_and(|it| it != 's') => {
                spec.number(&value, &mut out)?;
            }
            other if spec.kind.is_none_or(|it| it == 's') => spec.text(&other.to_text(), &mut out),
            other => {
                return Err(Error::new(format!(
                    "a number's format for {}",
                    other.kind()
                )));
            }
        }
    }
    out.push_slice(pattern, at..source.len());
    Ok(Value::Text(out.finish()))
}

impl Spec {
    fn parse(text: &str) -> Result<Self> {
        let mut spec = Self::default();
        let mut rest = text;
        let is_align = |it: char| "<>=^".contains(it);
        let mut chars = rest.chars();
        match (chars.next(), chars.next()) {
            (Some(fill), Some(align)) if is_align(align) => {
                (spec.fill, spec.align) = (Some(fill), Some(align));
                rest = chars.as_str();
            }
            (Some(align), _) if is_align(align) => {
                spec.align = Some(align);
                rest = &rest[1..];
            }
            _ => {}
        }
        if let Some(sign) = rest.chars().next().filter(|it| "+- ".contains(*it)) {
            spec.sign = Some(sign).filter(|it| *it != '-');
            rest = &rest[1..];
        }
        if let Some(after) = rest.strip_prefix('#') {
            spec.is_alternate = true;
            rest = after;
        }
        if rest.starts_with('0') {
            spec.fill = spec.fill.or(Some('0'));
            spec.align = spec.align.or(Some('='));
        }
        rest = width(rest, &mut spec.width)?;
        if let Some(after) = rest.strip_prefix([',', '_']) {
            spec.has_commas = true;
            rest = after;
        }
        if let Some(after) = rest.strip_prefix('.') {
            let mut precision = 0;
            rest = width(after, &mut precision)?;
            spec.precision = Some(precision);
        }
        let mut chars = rest.chars();
        spec.kind = chars.next();
        if chars.next().is_some() {
            return Err(Error::new("a bad format"));
        }
        Ok(spec)
    }

    fn text(&self, text: &Text, out: &mut Writer) {
        let whole = text.as_str();
        let most = self.precision.unwrap_or(usize::MAX);
        let end = whole
            .char_indices()
            .nth(most)
            .map_or(whole.len(), |(at, _)| at);
        let cut = text.slice(0..end);
        let (before, after) = self.padding(cut.as_str().chars().count(), '<');
        out.push_own(&before);
        out.push_text(&cut);
        out.push_own(&after);
    }

    fn padding(&self, len: usize, default: char) -> (String, String) {
        let missing = self.width.saturating_sub(len);
        let fill = self.fill.unwrap_or(' ').to_string();
        let before = match self.align.unwrap_or(default) {
            '<' => 0,
            '^' => missing / 2,
            _ => missing,
        };
        (fill.repeat(before), fill.repeat(missing - before))
    }

    fn number(&self, value: &Value, out: &mut Writer) -> Result<()> {
        let (is_negative, digits) = self.digits(value)?;
        let sign = match self.sign {
            _ if is_negative => "-".to_owned(),
            Some(sign) => sign.to_string(),
            None => String::new(),
        };
        let prefix = match self.kind {
            Some('x' | 'X') if self.is_alternate => "0x",
            Some('o') if self.is_alternate => "0o",
            Some('b') if self.is_alternate => "0b",
            _ => "",
        };
        let digits = if self.has_commas {
            with_commas(&digits)
        } else {
            digits
        };
        let len = sign.len() + prefix.len() + digits.chars().count();
        if self.align == Some('=') {
            let fill = self.fill.unwrap_or(' ').to_string();
            let padding = fill.repeat(self.width.saturating_sub(len));
            out.push_own(&format!("{sign}{prefix}{padding}{digits}"));
        } else {
            let (before, after) = self.padding(len, '>');
            out.push_own(&format!("{before}{sign}{prefix}{digits}{after}"));
        }
        Ok(())
    }

    fn digits(&self, value: &Value) -> Result<(bool, String)> {
        let unfit = || Error::new(format!("a number's format for {}", value.kind()));
        let whole = value.as_int();
        let kind = self.kind.unwrap_or(if whole.is_some() { 'd' } else { 'r' });
        if let Some(number) = whole {
            let digits = number.unsigned_abs();
            let digits = match kind {
                'd' | 'n' => Some(digits.to_string()),
                'x' => Some(format!("{digits:x}")),
                'X' => Some(format!("{digits:X}")),
                'o' => Some(format!("{digits:o}")),
                'b' => Some(format!("{digits:b}")),
                _ => None,
            };
            if let Some(digits) = digits {
                return Ok((number < 0, digits));
            }
        }
        let number = value.as_float().ok_or_else(unfit)?;
        let is_negative = number.is_sign_negative() && !number.is_nan();
        let size = number.abs();
        let digits = match kind {
            'f' | 'F' => format!("{size:.*}", self.precision.unwrap_or(6)),
            'e' | 'E' => scientific(size, self.precision.unwrap_or(6)),
            '%' => format!("{:.*}%", self.precision.unwrap_or(6), size * 100.0),
            'g' | 'G' => general(size, self.precision.unwrap_or(6).max(1)),
            'r' => match self.precision {
                Some(precision) => general(size, precision.max(1)),
                None => repr::float(size),
            },
            _ => return Err(unfit()),
        };
        let is_upper = matches!(kind, 'E' | 'F' | 'G');
        Ok((
            is_negative,
            if is_upper {
                digits.to_uppercase()
            } else {
                digits
            },
        ))
    }
}

fn scientific(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    let (digits, exponent) = text.split_once('e').expect("written with an exponent");
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(rest) => ('-', rest),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

fn general(number: f64, precision: usize) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    let text = format!("{number:.*e}", precision - 1);
    let exponent = text
        .split_once('e')
        .and_then(|(_, it)| it.parse::<i64>().ok());
    let exponent = exponent.unwrap_or(0);
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    let places = i64::try_from(precision).unwrap_or(i64::MAX);
    if (-4..places).contains(&exponent) {
        let after = usize::try_from(places - 1 - exponent).unwrap_or(0);
        return trimmed(&format!("{number:.after$}"));
    }
    let text = scientific(number, precision - 1);
    let (digits, exponent) = text.split_once('e').expect("written with an exponent");
    format!("{}e{exponent}", trimmed(digits))
}

fn with_commas(digits: &str) -> String {
    let end = digits.find('.').unwrap_or(digits.len());
    let mut out = String::new();
    for (ix, char) in digits[..end].chars().enumerate() {
        if ix > 0 && (end - ix).is_multiple_of(3) {
            out.push(',');
        }
        out.push(char);
    }
    out + &digits[end..]
}
