use serde_json::Value;

use crate::config::{Catalog, ModelSpec};
use crate::money::Price;

mod answers;
mod fields;
mod forms;
mod requests;

fn catalog() -> Catalog {
    Catalog::new(vec![ModelSpec {
        id: "acme/tiny".into(),
        price: Price::DEFAULT,
        context_tokens: 4_096,
        output_tokens_default: 512,
        weights_bytes: 8_000_000,
    }])
    .expect("one model is a catalogue")
}

fn read(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("what we write is JSON")
}
