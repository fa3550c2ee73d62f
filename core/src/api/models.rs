//! `GET /v1/models`.

use super::fields::{Api, FIELDS, Verdict};
use super::json::quote;
use crate::config::{Catalog, ModelSpec};
use crate::money::MicroUsd;

/// Who lists the models.
const OWNER: &str = "cereus";

/// Honoured fields that say what is asked and how the answer travels; of answers there is one here.
const OTHER_FIELDS: [&str; 5] = ["messages", "model", "n", "stream", "stream_options"];

/// Appends the list of every model of the catalogue.
pub fn write_models(catalog: &Catalog, created_unix_s: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"object\":\"list\",\"data\":[");
    for (ix, (_, spec)) in catalog.iter().enumerate() {
        if ix > 0 {
            out.push(b',');
        }
        write_model(spec, created_unix_s, out);
    }
    out.extend_from_slice(b"]}");
}

/// Appends one entry: OpenAI's four members, and what the model takes and costs.
pub fn write_model(spec: &ModelSpec, created_unix_s: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"id\":");
    quote(&spec.id, out);
    let facts = format!(
        concat!(
            ",\"object\":\"model\",\"created\":{},\"owned_by\":\"{}\",",
            "\"input_modalities\":[\"text\"],\"output_modalities\":[\"text\"],",
            "\"context_length\":{},\"max_output_length\":{},",
            "\"pricing\":{{\"prompt\":\"{}\",\"completion\":\"{}\"}},",
            "\"supported_sampling_parameters\":["
        ),
        created_unix_s,
        OWNER,
        spec.context_tokens,
        spec.context_tokens,
        usd_per_token(spec.price.input_per_mtok),
        usd_per_token(spec.price.output_per_mtok),
    );
    out.extend_from_slice(facts.as_bytes());
    for (ix, name) in parameters().enumerate() {
        if ix > 0 {
            out.push(b',');
        }
        quote(name, out);
    }
    out.extend_from_slice(b"]}");
}

/// What a request may say of how its answer is made.
fn parameters() -> impl Iterator<Item = &'static str> {
    let honoured = FIELDS.iter().filter(|field| {
        field.verdict == Verdict::Honoured
            && field.scope.has(Api::Chat)
            && !OTHER_FIELDS.contains(&field.name)
    });
    honoured.map(|field| field.name)
}

/// A price for a million tokens as dollars for one, in full: micro-dollars of a million are
/// millionths of millionths.
fn usd_per_token(per_mtok: MicroUsd) -> String {
    const PARTS: i64 = 1_000_000_000_000;
    let parts = per_mtok.0.max(0);
    let text = format!("{}.{:012}", parts / PARTS, parts % PARTS);
    let trimmed = text.trim_end_matches('0').trim_end_matches('.');
    trimmed.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_are_those_fields_that_are_honoured() {
        let names: Vec<&str> = parameters().collect();
        for name in [
            "logit_bias",
            "max_tokens",
            "min_p",
            "seed",
            "stop",
            "tools",
            "top_k",
        ] {
            assert!(names.contains(&name), "{name} is missing in {names:?}");
        }
        for name in ["best_of", "echo", "messages", "n", "prompt", "user"] {
            assert!(!names.contains(&name), "{name} is in {names:?}");
        }
        for name in OTHER_FIELDS {
            assert!(super::super::fields::field(name).is_some(), "{name}");
        }
    }

    #[test]
    fn prices_are_dollars_for_one_token_without_rounding() {
        let cases = [
            (50_000, "0.00000005"),
            (200_000, "0.0000002"),
            (1, "0.000000000001"),
            (0, "0"),
            (1_000_000_000_000, "1"),
        ];
        for (per_mtok, text) in cases {
            assert_eq!(usd_per_token(MicroUsd(per_mtok)), text);
        }
    }
}
