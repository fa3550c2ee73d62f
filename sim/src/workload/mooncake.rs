//! Mooncake's traces: a JSON object a line.

use serde::Deserialize;

use super::delimited::Row;
use super::{BLOCK_TOKENS, Trouble};

/// Unknown keys are passed over.
#[derive(Deserialize)]
struct Line {
    /// Milliseconds from the start.
    timestamp: u64,
    input_length: u32,
    output_length: u32,
    #[serde(default)]
    hash_ids: Vec<u64>,
}

pub(super) fn row(line: &str) -> Result<Row, Trouble> {
    let line: Line =
        serde_json::from_str(line).map_err(|error| Trouble::Json(error.to_string()))?;
    if line.hash_ids.len() > line.input_length.div_ceil(BLOCK_TOKENS) as usize {
        return Err(Trouble::Field("hash_ids"));
    }
    Ok(Row {
        at_us: line
            .timestamp
            .checked_mul(1_000)
            .ok_or(Trouble::TooLarge("timestamp"))?,
        prompt_tokens: line.input_length,
        output_tokens: line.output_length,
        blocks: line.hash_ids,
    })
}
