//! Log-probabilities of the tokens that an answer came from.
//!
//! What a provider sends is written anew from the members that are known.

use core::fmt;
use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Malformed;
use crate::api::json::{Object, Quoted, quote};
use crate::api::request::TOP_LOGPROBS_MAX;

/// Tokens of one piece.
const TOKENS_MAX: usize = 4_096;
/// Bytes of one token.
const BYTES_MAX: usize = 1_024;

/// Those of one piece, in the form in which they came.
#[derive(Clone, Default)]
pub enum Logprobs<'a> {
    #[default]
    Absent,
    /// The `logprobs` object of OpenAI's chunks. Looked into when it is written, and not before.
    Escaped(&'a RawValue),
    Plain(Vec<TokenLogprobs<'a>>),
}

/// Prints no token.
impl fmt::Debug for Logprobs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("no log-probabilities"),
            Self::Escaped(raw) => write!(f, "log-probabilities of {} bytes", raw.get().len()),
            Self::Plain(tokens) => write!(f, "log-probabilities of {} tokens", tokens.len()),
        }
    }
}

/// A token of an answer, and those likeliest in its place.
#[derive(Clone)]
pub struct TokenLogprobs<'a> {
    pub chosen: ScoredToken<'a>,
    pub top: Vec<ScoredToken<'a>>,
}

/// A token as its bytes, with its log-probability in millionths.
#[derive(Clone, Copy)]
pub struct ScoredToken<'a> {
    pub bytes: &'a [u8],
    pub logprob_millionths: i64,
}

/// A token and those likeliest in its place, as they can be written in another form.
pub(super) struct ReadToken<'a> {
    pub(super) chosen: ReadLogprob<'a>,
    pub(super) top: Vec<ReadLogprob<'a>>,
}

pub(super) struct ReadLogprob<'a> {
    pub(super) bytes: Cow<'a, [u8]>,
    pub(super) logprob: f64,
}

impl<'a> Logprobs<'a> {
    /// Appends the elements of `logprobs.content`, each after a comma where something stands in `out`
    /// before it. Nothing is appended where there are none.
    pub(super) fn write_elements(&self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        match self {
            Self::Absent => Ok(()),
            Self::Escaped(raw) => write_known(&known(raw)?, out),
            Self::Plain(tokens) => {
                for token in tokens {
                    write_plain(token, out);
                }
                Ok(())
            }
        }
    }

    pub(super) fn read(&self) -> Result<Vec<ReadToken<'_>>, Malformed> {
        match self {
            Self::Absent => Ok(vec![]),
            Self::Escaped(raw) => read_known(&known(raw)?),
            Self::Plain(tokens) => Ok(tokens.iter().map(TokenLogprobs::read).collect()),
        }
    }
}

/// Reads what [`Logprobs::write_elements`] has written.
pub(super) fn read_elements(elements: &[u8]) -> Vec<ReadToken<'static>> {
    let list = [b"[", elements, b"]"].concat();
    let tokens: Vec<Object<Token<'_>>> =
        serde_json::from_slice(&list).expect("elements that we wrote");
    let tokens = read_known(&tokens).expect("elements that we wrote");
    tokens.into_iter().map(ReadToken::into_owned).collect()
}

impl TokenLogprobs<'_> {
    fn read(&self) -> ReadToken<'_> {
        ReadToken {
            chosen: self.chosen.read(),
            top: self.top.iter().map(ScoredToken::read).collect(),
        }
    }
}

impl ScoredToken<'_> {
    fn read(&self) -> ReadLogprob<'_> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a double holds ten thousand millions exactly"
        )]
        let millionths = self.logprob_millionths as f64;
        ReadLogprob {
            bytes: Cow::Borrowed(self.bytes),
            logprob: millionths / 1e6,
        }
    }
}

impl ReadToken<'_> {
    fn into_owned(self) -> ReadToken<'static> {
        ReadToken {
            chosen: self.chosen.into_owned(),
            top: self.top.into_iter().map(ReadLogprob::into_owned).collect(),
        }
    }
}

impl ReadLogprob<'_> {
    fn into_owned(self) -> ReadLogprob<'static> {
        ReadLogprob {
            bytes: Cow::Owned(self.bytes.into_owned()),
            logprob: self.logprob,
        }
    }
}

#[derive(Deserialize)]
struct Known<'a> {
    #[serde(borrow, default)]
    content: Option<Vec<Object<Token<'a>>>>,
}

#[derive(Deserialize)]
struct Token<'a> {
    #[serde(borrow)]
    token: &'a RawValue,
    #[serde(borrow)]
    logprob: &'a RawValue,
    #[serde(default)]
    bytes: Option<Vec<u8>>,
    #[serde(borrow, default)]
    top_logprobs: Vec<Object<Likely<'a>>>,
}

#[derive(Deserialize)]
struct Likely<'a> {
    #[serde(borrow)]
    token: &'a RawValue,
    #[serde(borrow)]
    logprob: &'a RawValue,
    #[serde(default)]
    bytes: Option<Vec<u8>>,
}

/// The tokens that a provider sent.
fn known(raw: &RawValue) -> Result<Vec<Object<Token<'_>>>, Malformed> {
    if raw.get() == "null" {
        return Ok(vec![]);
    }
    let Object(known): Object<Known<'_>> =
        serde_json::from_str(raw.get()).map_err(|_| Malformed)?;
    let tokens = known.content.unwrap_or_default();
    if tokens.len() > TOKENS_MAX {
        return Err(Malformed);
    }
    // The token that was drawn stands behind the likeliest where it is not one of them.
    let top_max = usize::from(TOP_LOGPROBS_MAX) + 1;
    let is_long = |Object(token): &Object<Token<'_>>| token.top_logprobs.len() > top_max;
    if tokens.iter().any(is_long) {
        return Err(Malformed);
    }
    Ok(tokens)
}

fn read_known<'a>(tokens: &[Object<Token<'a>>]) -> Result<Vec<ReadToken<'a>>, Malformed> {
    let read = |Object(token): &Object<Token<'a>>| {
        let top = token.top_logprobs.iter().map(|Object(likely)| {
            read_logprob(likely.token, likely.logprob, likely.bytes.as_deref())
        });
        Ok(ReadToken {
            top: top.collect::<Result<_, _>>()?,
            chosen: read_logprob(token.token, token.logprob, token.bytes.as_deref())?,
        })
    };
    tokens.iter().map(read).collect()
}

fn read_logprob<'a>(
    token: &'a RawValue,
    logprob: &RawValue,
    bytes: Option<&[u8]>,
) -> Result<ReadLogprob<'a>, Malformed> {
    let (text, logprob) = checked(token, logprob, bytes)?;
    let bytes = match (bytes, text.text()) {
        (Some(bytes), _) => Cow::Owned(bytes.to_vec()),
        (None, Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
        (None, Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
    };
    Ok(ReadLogprob { bytes, logprob })
}

fn checked<'a>(
    token: &'a RawValue,
    logprob: &RawValue,
    bytes: Option<&[u8]>,
) -> Result<(Quoted<'a>, f64), Malformed> {
    let text = Quoted::of(token).ok_or(Malformed)?;
    // A number, and nothing that only a double cannot hold.
    let number: f64 = serde_json::from_str(logprob.get()).map_err(|_| Malformed)?;
    if !number.is_finite() || bytes.is_some_and(|bytes| bytes.len() > BYTES_MAX) {
        return Err(Malformed);
    }
    Ok((text, number))
}

fn write_known(tokens: &[Object<Token<'_>>], out: &mut Vec<u8>) -> Result<(), Malformed> {
    for Object(token) in tokens {
        if !out.is_empty() {
            out.push(b',');
        }
        open_known(token.token, token.logprob, token.bytes.as_deref(), out)?;
        out.extend_from_slice(b",\"top_logprobs\":[");
        for (ix, Object(likely)) in token.top_logprobs.iter().enumerate() {
            if ix > 0 {
                out.push(b',');
            }
            open_known(likely.token, likely.logprob, likely.bytes.as_deref(), out)?;
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
    }
    Ok(())
}

fn open_known(
    token: &RawValue,
    logprob: &RawValue,
    bytes: Option<&[u8]>,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    checked(token, logprob, bytes)?;
    out.extend_from_slice(b"{\"token\":");
    out.extend_from_slice(token.get().as_bytes());
    out.extend_from_slice(b",\"logprob\":");
    out.extend_from_slice(logprob.get().as_bytes());
    out.extend_from_slice(b",\"bytes\":");
    serde_json::to_writer(&mut *out, &bytes).map_err(|_| Malformed)
}

fn write_plain(token: &TokenLogprobs<'_>, out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.push(b',');
    }
    open_plain(token.chosen, out);
    out.extend_from_slice(b",\"top_logprobs\":[");
    for (ix, token) in token.top.iter().enumerate() {
        if ix > 0 {
            out.push(b',');
        }
        open_plain(*token, out);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
}

fn open_plain(token: ScoredToken<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"token\":");
    // Bytes that are no whole character show as U+FFFD here and as they are below.
    quote(&String::from_utf8_lossy(token.bytes), out);
    let sign = if token.logprob_millionths < 0 {
        "-"
    } else {
        ""
    };
    let size = token.logprob_millionths.unsigned_abs();
    let (whole, part) = (size / 1_000_000, size % 1_000_000);
    out.extend_from_slice(format!(",\"logprob\":{sign}{whole}.{part:06},\"bytes\":[").as_bytes());
    for (ix, byte) in token.bytes.iter().enumerate() {
        if ix > 0 {
            out.push(b',');
        }
        out.extend_from_slice(byte.to_string().as_bytes());
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn written(text: &str) -> Result<Value, Malformed> {
        let raw: &RawValue = serde_json::from_str(text).expect("it is JSON");
        let mut out = vec![];
        Logprobs::Escaped(raw).write_elements(&mut out)?;
        let list = format!("[{}]", String::from_utf8(out).expect("it is text"));
        Ok(serde_json::from_str(&list).expect("it is JSON"))
    }

    #[test]
    fn tokens_keep_their_known_members_and_lose_all_others() {
        let list = written(
            r#"{"content":[{"token":"a","logprob":-0.5,"bytes":[97],"evil":1,"top_logprobs":[
                {"token":"b","logprob":-1,"bytes":null,"evil":{}}]},{"token":"c","logprob":-2e0}],
                "refusal":"x","evil":[]}"#,
        );
        assert_eq!(
            list,
            Ok(json!([
                {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [
                    {"token": "b", "logprob": -1, "bytes": null}]},
                {"token": "c", "logprob": -2.0, "bytes": null, "top_logprobs": []}
            ]))
        );
        for nothing in ["null", "{}", r#"{"content":null}"#, r#"{"content":[]}"#] {
            assert_eq!(written(nothing), Ok(json!([])), "{nothing}");
        }
    }

    #[test]
    fn what_is_no_list_of_tokens_is_malformed() {
        for wrong in [
            "[]",
            r#"{"content":[7]}"#,
            r#"{"content":[{"token":7,"logprob":0}]}"#,
            r#"{"content":[{"token":"a","logprob":"0"}]}"#,
            r#"{"content":[{"token":"a","logprob":{}}]}"#,
            r#"{"content":[{"token":"a","logprob":0,"bytes":[256]}]}"#,
            r#"{"content":[{"token":"a","logprob":0,"top_logprobs":[[]]}]}"#,
        ] {
            assert_eq!(written(wrong), Err(Malformed), "{wrong}");
        }
    }
}
