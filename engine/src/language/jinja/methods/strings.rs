//! `str`: every answer is cut out of the text itself where it can be, so that its parts keep their
//! origin.

use std::ops::Range;

use super::super::args::{Argument as _, Given, wrong};
use super::super::error::{Error, Result};
use super::super::repr::is_printable;
use super::super::text::{Text, Writer};
use super::super::value::Value;
use super::int;

pub(super) const NAMES: [&str; 44] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];
/// Columns that padding may fill.
const WIDTH_MAX: i128 = 4_096;

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Left,
    Right,
}

pub(super) fn call(text: &Text, name: &str, given: Given) -> Result<Value> {
    let whole = text.as_str();
    let all = |is: fn(char) -> bool| Value::Bool(!whole.is_empty() && whole.chars().all(is));
    Ok(match name {
        "capitalize" => Value::Text(capitalize(text)),
        "casefold" | "lower" => Value::Text(text.map(str::to_lowercase)),
        "upper" => Value::Text(text.map(str::to_uppercase)),
        "swapcase" => Value::Text(text.map(swapcase)),
        "title" => Value::Text(title(text)),
        "center" | "ljust" | "rjust" | "zfill" => pad(text, name, given)?,
        "count" | "find" | "index" | "rfind" | "rindex" => search(text, name, given)?,
        "startswith" | "endswith" => Value::Bool(affix(whole, name, given)?),
        "expandtabs" => {
            let [size] = given.bind(["tabsize"])?;
            Value::Text(expand_tabs(text, size.int_or(8)?))
        }
        "isalnum" => all(char::is_alphanumeric),
        "isalpha" => all(char::is_alphabetic),
        "isascii" => Value::Bool(whole.is_ascii()),
        "isdecimal" => all(is_decimal),
        "isdigit" => all(|it| is_decimal(it) || is_superscript(it)),
        "isidentifier" => {
            let is_first = |it: char| it == '_' || it.is_alphabetic();
            let is_next = |it: char| it == '_' || it.is_alphanumeric();
            Value::Bool(whole.starts_with(is_first) && whole.chars().all(is_next))
        }
        "islower" => Value::Bool(is_cased(whole, char::is_lowercase, char::is_uppercase)),
        "isupper" => Value::Bool(is_cased(whole, char::is_uppercase, char::is_lowercase)),
        "isnumeric" => all(char::is_numeric),
        "isprintable" => Value::Bool(whole.chars().all(is_printable)),
        "isspace" => all(is_blank),
        "istitle" => Value::Bool(is_title(whole)),
        "join" => {
            let [items] = given.bind(["iterable"])?;
            join(text, &items.required()?.try_items()?)?
        }
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = given.bind(["chars"])?;
            let chars = chars.text_if_any()?;
            Value::Text(strip(text, name, chars.as_ref().map(Text::as_str)))
        }
        "removeprefix" => {
            let [prefix] = given.bind(["prefix"])?;
            let prefix = prefix.text()?;
            let is_there = whole.starts_with(prefix.as_str());
            let start = if is_there { prefix.as_str().len() } else { 0 };
            Value::Text(text.slice(start..whole.len()))
        }
        "removesuffix" => {
            let [suffix] = given.bind(["suffix"])?;
            let suffix = suffix.text()?;
            let is_there = whole.ends_with(suffix.as_str());
            let cut = if is_there { suffix.as_str().len() } else { 0 };
            Value::Text(text.slice(0..whole.len() - cut))
        }
        "partition" | "rpartition" => partition(text, name, given)?,
        "replace" => {
            let [old, new, count] = given.bind(["old", "new", "count"])?;
            let count = usize::try_from(count.int_or(-1)?).unwrap_or(usize::MAX);
            Value::Text(replace(text, &old.text()?, &new.text()?, count))
        }
        "split" | "rsplit" => {
            let [separator, count] = given.bind(["sep", "maxsplit"])?;
            let separator = separator.text_if_any()?;
            let count = usize::try_from(count.int_or(-1)?).unwrap_or(usize::MAX);
            let end = if name == "split" {
                End::Left
            } else {
                End::Right
            };
            let separator = separator.as_ref().map(Text::as_str);
            pieces(text, split(whole, separator, count, end)?)
        }
        "splitlines" => {
            let [keeps] = given.bind(["keepends"])?;
            let lines = lines(whole).into_iter();
            let kept = lines.map(|line| {
                if keeps.as_ref().is_some_and(Value::is_true) {
                    line.start..line.with_break
                } else {
                    line.start..line.end
                }
            });
            pieces(text, kept.collect())
        }
        _ => return Err(Error::new(format!("str has no method {name}"))),
    })
}

fn pieces(text: &Text, ranges: Vec<Range<usize>>) -> Value {
    let pieces = ranges
        .into_iter()
        .map(|range| Value::Text(text.slice(range)));
    Value::list(pieces.collect())
}

/// Python's blanks: four separators of ASCII are among them.
pub(in super::super) fn is_blank(char: char) -> bool {
    char.is_whitespace() || matches!(char, '\u{1c}'..='\u{1f}')
}

fn is_decimal(char: char) -> bool {
    char.is_ascii_digit() || (!char.is_ascii() && char.is_numeric() && !is_other_number(char))
}

const fn is_superscript(char: char) -> bool {
    matches!(
        char,
        '\u{b2}' | '\u{b3}' | '\u{b9}' | '\u{2070}'..='\u{2089}'
    )
}

/// Numbers that are no decimal digits: fractions, Roman and circled ones, ideographs.
const fn is_other_number(char: char) -> bool {
    matches!(char, '\u{b2}' | '\u{b3}' | '\u{b9}' | '\u{bc}'..='\u{be}' | '\u{2070}'..='\u{218b}'
        | '\u{2460}'..='\u{24ff}' | '\u{2776}'..='\u{2793}' | '\u{3007}'..='\u{a8ff}'
        | '\u{f900}'..='\u{fbff}')
}

fn is_cased(text: &str, wanted: fn(char) -> bool, other: fn(char) -> bool) -> bool {
    text.chars().any(wanted) && !text.chars().any(other)
}

fn is_title(text: &str) -> bool {
    let mut follows = false;
    let mut has_any = false;
    for char in text.chars() {
        if char.is_uppercase() {
            if follows {
                return false;
            }
            (follows, has_any) = (true, true);
        } else if char.is_lowercase() {
            if !follows {
                return false;
            }
            has_any = true;
        } else {
            follows = false;
        }
    }
    has_any
}

fn swapcase(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        if char.is_uppercase() {
            out.extend(char.to_lowercase());
        } else {
            out.extend(char.to_uppercase());
        }
    }
    out
}

/// Each character by whether a letter stands before it.
fn recased(text: &Text, rewrite: impl Fn(char, Option<char>) -> String) -> Text {
    let mut out = Writer::default();
    let mut before = None;
    for (range, origin) in text.parts() {
        for char in text.as_str()[range].chars() {
            out.push(&rewrite(char, before), origin);
            before = Some(char);
        }
    }
    out.finish()
}

pub(in super::super) fn capitalize(text: &Text) -> Text {
    recased(text, |char, before| match before {
        None => char.to_uppercase().collect(),
        Some(_) => char.to_lowercase().collect(),
    })
}

fn title(text: &Text) -> Text {
    recased(text, |char, before| match before {
        Some(before) if before.is_alphabetic() => char.to_lowercase().collect(),
        Some(_) | None => char.to_uppercase().collect(),
    })
}

fn pad(text: &Text, name: &str, given: Given) -> Result<Value> {
    let [width, fill] = given.bind(["width", "fillchar"])?;
    let width = usize::try_from(width.int()?.clamp(0, WIDTH_MAX)).unwrap_or(0);
    let fill = fill.text_if_any()?.unwrap_or_else(|| Text::own(" "));
    if fill.as_str().chars().count() != 1 {
        return Err(Error::new("one character fills up"));
    }
    let missing = width.saturating_sub(text.as_str().chars().count());
    let left = match name {
        "ljust" => 0,
        "rjust" => missing,
        "zfill" => return Ok(Value::Text(zero_filled(text, missing))),
        // The odd one goes where Python puts it.
        _ => missing / 2 + (missing & width & 1),
    };
    let mut out = Writer::default();
    (0..left).for_each(|_| out.push_text(&fill));
    out.push_text(text);
    (left..missing).for_each(|_| out.push_text(&fill));
    Ok(Value::Text(out.finish()))
}

fn zero_filled(text: &Text, missing: usize) -> Text {
    let sign = usize::from(text.as_str().starts_with(['+', '-']));
    let mut out = Writer::default();
    out.push_slice(text, 0..sign);
    out.push_own(&"0".repeat(missing));
    out.push_slice(text, sign..text.as_str().len());
    out.finish()
}

fn search(text: &Text, name: &str, given: Given) -> Result<Value> {
    let [part, start, stop] = given.bind(["sub", "start", "end"])?;
    let (part, whole) = (part.text()?, text.as_str());
    let count = i128::try_from(whole.chars().count()).unwrap_or(i128::MAX);
    let place = |given: i128| {
        let given = if given < 0 { given + count } else { given };
        let given = usize::try_from(given.clamp(0, count)).unwrap_or(0);
        whole
            .char_indices()
            .nth(given)
            .map_or(whole.len(), |(at, _)| at)
    };
    let (start, stop) = (start.int_or(0)?, stop.int_or(count)?);
    let is_outside = start > count;
    let (start, stop) = (place(start), place(stop));
    let window = if is_outside {
        None
    } else {
        whole.get(start..stop)
    };
    if name == "count" {
        let found = window.map_or(0, |it| it.matches(part.as_str()).count());
        return Ok(int(found));
    }
    let found = window.and_then(|it| match name {
        "find" | "index" => it.find(part.as_str()),
        _ => it.rfind(part.as_str()),
    });
    match found {
        Some(at) => Ok(int(whole[..start + at].chars().count())),
        None if name.ends_with("find") => Ok(Value::Int(-1)),
        None => Err(Error::new("index of what is not there")),
    }
}

fn affix(whole: &str, name: &str, given: Given) -> Result<bool> {
    let [wanted, start, stop] = given.bind(["prefix", "start", "end"])?;
    let bounds = [start.unwrap_or(Value::None), stop.unwrap_or(Value::None)];
    let window =
        super::super::ops::slice(&Value::own(whole), [&bounds[0], &bounds[1], &Value::None])?;
    let window = window.to_text();
    let is_one = |it: &Value| match it {
        Value::Text(it) if name == "startswith" => Ok(window.as_str().starts_with(it.as_str())),
        Value::Text(it) => Ok(window.as_str().ends_with(it.as_str())),
        other => Err(wrong("str", other)),
    };
    match wanted.required()? {
        Value::Tuple(several) => {
            for it in several.iter() {
                if is_one(it)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        one => is_one(&one),
    }
}

fn expand_tabs(text: &Text, size: i128) -> Text {
    let size = usize::try_from(size.clamp(0, WIDTH_MAX)).unwrap_or(0);
    let mut column = 0;
    let mut out = Writer::default();
    for (range, origin) in text.parts() {
        let mut expanded = String::new();
        for char in text.as_str()[range].chars() {
            match char {
                '\t' => {
                    let blanks = if size == 0 { 0 } else { size - column % size };
                    expanded.push_str(&" ".repeat(blanks));
                    column += blanks;
                }
                '\n' | '\r' => {
                    expanded.push(char);
                    column = 0;
                }
                _ => {
                    expanded.push(char);
                    column += 1;
                }
            }
        }
        out.push(&expanded, origin);
    }
    out.finish()
}

fn join(separator: &Text, items: &[Value]) -> Result<Value> {
    let mut out = Writer::default();
    for (ix, item) in items.iter().enumerate() {
        if ix > 0 {
            out.push_text(separator);
        }
        out.push_text(item.as_text().ok_or_else(|| wrong("str", item))?);
    }
    Ok(Value::Text(out.finish()))
}

pub(in super::super) fn strip(text: &Text, name: &str, chars: Option<&str>) -> Text {
    let whole = text.as_str();
    let is_out = |char: char| chars.map_or_else(|| is_blank(char), |chars| chars.contains(char));
    let start = match name {
        "rstrip" => 0,
        _ => whole.len() - whole.trim_start_matches(is_out).len(),
    };
    let end = match name {
        "lstrip" => whole.len(),
        _ => whole.trim_end_matches(is_out).len(),
    };
    text.slice(start..end.max(start))
}

fn partition(text: &Text, name: &str, given: Given) -> Result<Value> {
    let [separator] = given.bind(["sep"])?;
    let (separator, whole) = (separator.text()?, text.as_str());
    let separator = separator.as_str();
    if separator.is_empty() {
        return Err(Error::new("an empty separator"));
    }
    let found = match name {
        "partition" => whole.find(separator),
        _ => whole.rfind(separator),
    };
    let ends = match (found, name) {
        (Some(at), _) => [at, at + separator.len()],
        (None, "partition") => [whole.len(), whole.len()],
        (None, _) => [0, 0],
    };
    let [start, end] = ends;
    let three = [0..start, start..end, end..whole.len()];
    let three = three.map(|range| Value::Text(text.slice(range)));
    Ok(Value::tuple(three.to_vec()))
}

pub(in super::super) fn replace(text: &Text, old: &Text, new: &Text, count: usize) -> Text {
    let mut out = Writer::default();
    let mut at = 0;
    for (start, found) in text.as_str().match_indices(old.as_str()).take(count) {
        out.push_slice(text, at..start);
        out.push_text(new);
        at = start + found.len();
    }
    out.push_slice(text, at..text.as_str().len());
    out.finish()
}

fn split(
    whole: &str,
    separator: Option<&str>,
    count: usize,
    from: End,
) -> Result<Vec<Range<usize>>> {
    let Some(separator) = separator else {
        return Ok(split_blanks(whole, count, from));
    };
    if separator.is_empty() {
        return Err(Error::new("an empty separator"));
    }
    let mut cuts: Vec<usize> = match from {
        End::Left => whole
            .match_indices(separator)
            .take(count)
            .map(|it| it.0)
            .collect(),
        End::Right => whole
            .rmatch_indices(separator)
            .take(count)
            .map(|it| it.0)
            .collect(),
    };
    cuts.sort_unstable();
    let mut ranges = vec![];
    let mut start = 0;
    for cut in cuts {
        ranges.push(start..cut);
        start = cut + separator.len();
    }
    ranges.push(start..whole.len());
    Ok(ranges)
}

fn split_blanks(whole: &str, count: usize, from: End) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = vec![];
    let mut start = None;
    for (at, char) in whole.char_indices() {
        match (start, is_blank(char)) {
            (None, false) => start = Some(at),
            (Some(begun), true) => {
                words.push(begun..at);
                start = None;
            }
            (None, true) | (Some(_), false) => {}
        }
    }
    words.extend(start.map(|begun| begun..whole.len()));
    if count >= words.len() {
        return words;
    }
    // What is not split any more keeps its blanks, but for those at the cut.
    match from {
        End::Left => {
            let rest = words[count].start..whole.len();
            words.truncate(count);
            words.push(rest);
        }
        End::Right => {
            let kept = words.split_off(words.len() - count);
            let end = words.last().map_or(0, |it| it.end);
            words.clear();
            words.push(0..end);
            words.extend(kept);
        }
    }
    words
}

pub(in super::super) struct Line {
    pub(in super::super) start: usize,
    pub(in super::super) end: usize,
    pub(in super::super) with_break: usize,
}

pub(in super::super) fn lines(whole: &str) -> Vec<Line> {
    let is_break = |it: char| {
        matches!(
            it,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'
                ..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut lines = vec![];
    let mut start = 0;
    while start < whole.len() {
        let rest = &whole[start..];
        let Some(found) = rest.find(is_break) else {
            let end = whole.len();
            lines.push(Line {
                start,
                end,
                with_break: end,
            });
            break;
        };
        let end = start + found;
        let tail = &whole[end..];
        let first = tail.chars().next().map_or(0, char::len_utf8);
        let len = if tail.starts_with("\r\n") { 2 } else { first };
        lines.push(Line {
            start,
            end,
            with_break: end + len,
        });
        start = end + len;
    }
    lines
}
