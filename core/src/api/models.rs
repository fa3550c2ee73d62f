//! `GET /v1/models`.

use super::json::quote;
use crate::config::{Catalog, ModelSpec};
use crate::money::MicroUsd;

/// Who lists the models.
const OWNER: &str = "cereus";

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

/// Appends one entry (`spec/api` 11.1).
pub fn write_model(spec: &ModelSpec, created_unix_s: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"id\":");
    quote(&spec.id, out);
    let facts = format!(
        concat!(
            ",\"object\":\"model\",\"created\":{},\"owned_by\":\"{}\",",
            "\"input_modalities\":[\"text\"],\"output_modalities\":[\"text\"],",
            "\"context_length\":{},\"max_output_length\":{},",
            "\"pricing\":{{\"prompt\":\"{}\",\"completion\":\"{}\"}},",
            "\"supported_sampling_parameters\":",
            "[\"temperature\",\"top_p\",\"stop\",\"seed\",\"max_tokens\"]}}"
        ),
        created_unix_s,
        OWNER,
        spec.context_tokens,
        spec.output_tokens_default,
        usd_per_token(spec.price.input_per_mtok),
        usd_per_token(spec.price.output_per_mtok),
    );
    out.extend_from_slice(facts.as_bytes());
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
