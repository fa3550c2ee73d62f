//! A template's source in tokens, with the whitespace control that chat templates are written for:
//! `trim_blocks` and `lstrip_blocks`.

use std::sync::Arc;

use super::error::{Error, Result};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    BlockBegin,
    BlockEnd,
    Data(String),
    End,
    Float(f64),
    Int(i128),
    Name(Arc<str>),
    Op(&'static str),
    Text(String),
    VariableBegin,
    VariableEnd,
}

#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) token: Token,
    pub(super) line: u32,
}

/// Longer ones first.
const OPERATORS: [&str; 27] = [
    "**", "//", "==", "!=", ">=", "<=", "+", "-", "*", "/", "%", "~", "<", ">", "=", "(", ")", "[",
    "]", "{", "}", "|", ",", ".", ":", ";", "!",
];

pub(super) fn tokens(source: &str) -> Result<Vec<Placed>> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer {
        source,
        at: 0,
        line: 1,
        starts_line: true,
        out: vec![],
    };
    lexer.run()?;
    Ok(lexer.out)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: u32,
    /// The last tag ended with a line break, or nothing came yet.
    starts_line: bool,
    out: Vec<Placed>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    Block,
    Comment,
    Variable,
}

impl<'a> Lexer<'a> {
    fn run(&mut self) -> Result<()> {
        while let Some((start, tag)) = self.next_tag() {
            let text = &self.source[self.at..start];
            let sign = self.source[start + 2..].bytes().next();
            let kept = self.before(text, sign, tag);
            self.push_data(kept);
            self.pass(text.len());
            self.pass(2 + usize::from(matches!(sign, Some(b'-' | b'+'))));
            match tag {
                Tag::Comment => self.comment()?,
                Tag::Block => {
                    if !self.raw()? {
                        self.push(Token::BlockBegin);
                        self.inside(Tag::Block)?;
                    }
                }
                Tag::Variable => {
                    self.push(Token::VariableBegin);
                    self.inside(Tag::Variable)?;
                }
            }
        }
        let rest = &self.source[self.at..];
        self.push_data(rest);
        self.pass(rest.len());
        self.push(Token::End);
        Ok(())
    }

    fn next_tag(&self) -> Option<(usize, Tag)> {
        let rest = &self.source[self.at..];
        rest.match_indices('{').find_map(|(at, _)| {
            let tag = match rest.as_bytes().get(at + 1)? {
                b'%' => Tag::Block,
                b'#' => Tag::Comment,
                b'{' => Tag::Variable,
                _ => return None,
            };
            Some((self.at + at, tag))
        })
    }

    /// What is left of the text before a tag.
    fn before<'t>(&self, text: &'t str, sign: Option<u8>, tag: Tag) -> &'t str {
        match sign {
            Some(b'-') => text.trim_end(),
            Some(b'+') => text,
            _ if tag == Tag::Variable => text,
            _ => {
                let line = text.rfind('\n').map_or(0, |at| at + 1);
                let is_line = line > 0 || self.starts_line;
                if is_line && text[line..].chars().all(char::is_whitespace) {
                    &text[..line]
                } else {
                    text
                }
            }
        }
    }

    fn comment(&mut self) -> Result<()> {
        let rest = &self.source[self.at..];
        let Some(end) = rest.find("#}") else {
            return Err(self.error("a comment has no end"));
        };
        let sign = rest[..end].bytes().last();
        self.pass(end);
        self.close(sign, Tag::Comment);
        Ok(())
    }

    /// Passes the two characters that end a tag, and what goes with them.
    fn close(&mut self, sign: Option<u8>, tag: Tag) {
        self.pass(2);
        let rest = &self.source[self.at..];
        let blank = match (sign, tag) {
            (Some(b'-'), _) => rest.len() - rest.trim_start().len(),
            (Some(b'+'), _) | (_, Tag::Variable) => 0,
            (_, Tag::Block | Tag::Comment) => usize::from(rest.starts_with('\n')),
        };
        self.starts_line = rest[..blank].ends_with('\n');
        self.pass(blank);
    }

    /// Whether the block is `raw`, which is then passed to its end.
    fn raw(&mut self) -> Result<bool> {
        let rest = &self.source[self.at..];
        let Some(after) = rest.trim_start().strip_prefix("raw") else {
            return Ok(false);
        };
        let after = after.trim_start();
        let is_trimmed = after.starts_with("-%}");
        let Some(body) = after
            .strip_prefix("-%}")
            .or_else(|| after.strip_prefix("%}"))
        else {
            return Ok(false);
        };
        let body = if is_trimmed { body.trim_start() } else { body };
        let skipped = rest.len() - body.len();
        for (end, _) in body.match_indices("{%") {
            let inner = &body[end + 2..];
            let sign = inner.bytes().next().filter(|it| matches!(it, b'-' | b'+'));
            let inner = &inner[usize::from(sign.is_some())..];
            let Some(close) = inner.trim_start().strip_prefix("endraw") else {
                continue;
            };
            let close = close.trim_start();
            let close_sign = close.bytes().next().filter(|it| matches!(it, b'-' | b'+'));
            let close = &close[usize::from(close_sign.is_some())..];
            if !close.starts_with("%}") {
                continue;
            }
            self.pass(skipped);
            self.starts_line = false;
            let kept = self.before(&body[..end], sign, Tag::Block);
            self.push_data(kept);
            let to_close = body.len() - close.len();
            self.pass(to_close);
            self.close(close_sign, Tag::Block);
            return Ok(true);
        }
        Err(self.error("raw has no endraw"))
    }

    /// The tokens of a tag, to its end.
    fn inside(&mut self, tag: Tag) -> Result<()> {
        let (end, token) = match tag {
            Tag::Variable => ("}}", Token::VariableEnd),
            Tag::Block | Tag::Comment => ("%}", Token::BlockEnd),
        };
        let mut open = 0_usize;
        loop {
            let rest = &self.source[self.at..];
            let trimmed = rest.trim_start();
            self.pass(rest.len() - trimmed.len());
            if open == 0 {
                let sign = trimmed.bytes().next().filter(|sign| match tag {
                    Tag::Variable => *sign == b'-',
                    Tag::Block | Tag::Comment => matches!(sign, b'-' | b'+'),
                });
                let skipped = usize::from(sign.is_some());
                if trimmed[skipped..].starts_with(end) {
                    self.push(token);
                    self.pass(skipped);
                    self.close(sign, tag);
                    return Ok(());
                }
            }
            let Some(first) = trimmed.chars().next() else {
                return Err(self.error("a tag has no end"));
            };
            match first {
                '\'' | '"' => self.text(trimmed, first)?,
                '0'..='9' => self.number(trimmed)?,
                _ if first == '_' || first.is_alphabetic() => {
                    let is_rest = |it: char| it == '_' || it.is_alphanumeric();
                    let len = trimmed.find(|it| !is_rest(it)).unwrap_or(trimmed.len());
                    self.push(Token::Name(Arc::from(&trimmed[..len])));
                    self.pass(len);
                }
                _ => {
                    let op = OPERATORS.into_iter().find(|op| trimmed.starts_with(op));
                    let Some(op) = op else {
                        return Err(self.error("a character that means nothing here"));
                    };
                    match op {
                        "(" | "[" | "{" => open += 1,
                        ")" | "]" | "}" => open = open.saturating_sub(1),
                        _ => {}
                    }
                    self.push(Token::Op(op));
                    self.pass(op.len());
                }
            }
        }
    }

    fn text(&mut self, rest: &str, quote: char) -> Result<()> {
        let mut is_escaped = false;
        for (at, char) in rest.char_indices().skip(1) {
            if is_escaped {
                is_escaped = false;
            } else if char == '\\' {
                is_escaped = true;
            } else if char == quote {
                let text = unescaped(&rest[1..at]).ok_or_else(|| self.error("a bad escape"))?;
                self.push(Token::Text(text));
                self.pass(at + 1);
                return Ok(());
            }
        }
        Err(self.error("a string has no end"))
    }

    fn number(&mut self, rest: &str) -> Result<()> {
        let digits = |from: usize, is_digit: fn(char) -> bool| {
            let text = &rest[from..];
            from + text
                .find(|it| !is_digit(it) && it != '_')
                .unwrap_or(text.len())
        };
        let is_decimal = |it: char| it.is_ascii_digit();
        let radix = match rest.get(..2) {
            Some("0b" | "0B") => 2,
            Some("0o" | "0O") => 8,
            Some("0x" | "0X") => 16,
            _ => 10,
        };
        if radix != 10 {
            let end = digits(2, |it| it.is_ascii_hexdigit());
            let number = i128::from_str_radix(&rest[2..end].replace('_', ""), radix);
            let number = number.map_err(|_| self.error("a bad number"))?;
            self.push(Token::Int(number));
            self.pass(end);
            return Ok(());
        }
        let mut end = digits(0, |it| it.is_ascii_digit());
        let mut is_float = false;
        let has_digit = |at: usize| rest[at..].starts_with(is_decimal);
        if rest[end..].starts_with('.') && has_digit(end + 1) {
            is_float = true;
            end = digits(end + 1, |it| it.is_ascii_digit());
        }
        if rest[end..].starts_with(['e', 'E']) {
            let signed = usize::from(rest[end + 1..].starts_with(['+', '-']));
            if has_digit(end + 1 + signed) {
                is_float = true;
                end = digits(end + 1 + signed, |it| it.is_ascii_digit());
            }
        }
        let text = rest[..end].replace('_', "");
        let token = if is_float {
            text.parse().ok().map(Token::Float)
        } else {
            text.parse().ok().map(Token::Int)
        };
        let token = token.ok_or_else(|| self.error("a bad number"))?;
        self.push(token);
        self.pass(end);
        Ok(())
    }

    fn push(&mut self, token: Token) {
        self.out.push(Placed {
            token,
            line: self.line,
        });
    }

    fn push_data(&mut self, text: &str) {
        if !text.is_empty() {
            self.push(Token::Data(text.to_owned()));
        }
    }

    fn pass(&mut self, bytes: usize) {
        let passed = &self.source[self.at..self.at + bytes];
        let breaks = passed.bytes().filter(|it| *it == b'\n').count();
        self.line += u32::try_from(breaks).unwrap_or(u32::MAX);
        self.at += bytes;
    }

    fn error(&self, text: &str) -> Error {
        Error::new(text).at(self.line)
    }
}

/// A string's text as Python reads it: unknown escapes stand as they are.
fn unescaped(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = rest[at + 1..].chars().next()?;
        rest = &rest[at + 1 + escape.len_utf8()..];
        let hex = |digits: usize| {
            let code = u32::from_str_radix(rest.get(..digits)?, 16).ok()?;
            char::from_u32(code).map(|it| (it, digits))
        };
        let (char, used) = match escape {
            '\n' => continue,
            '\\' | '\'' | '"' => (escape, 0),
            'a' => ('\u{7}', 0),
            'b' => ('\u{8}', 0),
            'f' => ('\u{c}', 0),
            'n' => ('\n', 0),
            'r' => ('\r', 0),
            't' => ('\t', 0),
            'v' => ('\u{b}', 0),
            'x' => hex(2)?,
            'u' => hex(4)?,
            'U' => hex(8)?,
            '0'..='7' => {
                let more = rest
                    .bytes()
                    .take(2)
                    .take_while(|it| (b'0'..=b'7').contains(it));
                let used = more.count();
                let digits = format!("{escape}{}", &rest[..used]);
                (char::from_u32(u32::from_str_radix(&digits, 8).ok()?)?, used)
            }
            other => {
                out.push('\\');
                (other, 0)
            }
        };
        out.push(char);
        rest = &rest[used..];
    }
    out.push_str(rest);
    Some(out)
}
