//! Log-probabilities as a provider sends them, written anew from the members that are known.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::delta::{Malformed, inside};
use super::json::Object;
use super::request::TOP_LOGPROBS_MAX;

/// Tokens of one piece.
const TOKENS_MAX: usize = 4_096;
/// Bytes of one token.
const BYTES_MAX: usize = 1_024;

#[derive(Deserialize)]
struct Logprobs<'a> {
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

/// Appends the elements of `content`, each after a comma where something stands in `out` before it.
/// Nothing is appended where there are none.
pub(super) fn write_tokens(raw: &RawValue, out: &mut Vec<u8>) -> Result<(), Malformed> {
    if raw.get() == "null" {
        return Ok(());
    }
    let Object(logprobs): Object<Logprobs<'_>> =
        serde_json::from_str(raw.get()).map_err(|_| Malformed)?;
    let tokens = logprobs.content.unwrap_or_default();
    if tokens.len() > TOKENS_MAX {
        return Err(Malformed);
    }
    for Object(token) in &tokens {
        if !out.is_empty() {
            out.push(b',');
        }
        write_token(token.token, token.logprob, token.bytes.as_deref(), out)?;
        out.extend_from_slice(b",\"top_logprobs\":[");
        if token.top_logprobs.len() > usize::from(TOP_LOGPROBS_MAX) {
            return Err(Malformed);
        }
        for (ix, Object(likely)) in token.top_logprobs.iter().enumerate() {
            if ix > 0 {
                out.push(b',');
            }
            write_token(likely.token, likely.logprob, likely.bytes.as_deref(), out)?;
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
    }
    Ok(())
}

fn write_token(
    token: &RawValue,
    logprob: &RawValue,
    bytes: Option<&[u8]>,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    inside(token)?;
    // A number, and nothing that only a double cannot hold.
    let number: f64 = serde_json::from_str(logprob.get()).map_err(|_| Malformed)?;
    if !number.is_finite() || bytes.is_some_and(|bytes| bytes.len() > BYTES_MAX) {
        return Err(Malformed);
    }
    out.extend_from_slice(b"{\"token\":");
    out.extend_from_slice(token.get().as_bytes());
    out.extend_from_slice(b",\"logprob\":");
    out.extend_from_slice(logprob.get().as_bytes());
    out.extend_from_slice(b",\"bytes\":");
    serde_json::to_writer(&mut *out, &bytes).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn written(text: &str) -> Result<Value, Malformed> {
        let raw: &RawValue = serde_json::from_str(text).expect("it is JSON");
        let mut out = vec![];
        write_tokens(raw, &mut out)?;
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
