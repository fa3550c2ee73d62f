//! The text of a grammar in llguidance's dialect of Lark, and the JSON schemas that it refers to.

use std::fmt::Write as _;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::kv::Scope;

/// A grammar as it grows. Its first rule is `start`.
#[derive(Default)]
pub(super) struct Lark {
    pub(super) rules: String,
    /// Named `s0`, `s1` and so on.
    pub(super) schemas: Vec<Value>,
}

impl Lark {
    pub(super) fn rule(&mut self, name: &str, body: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.rules, "{name}: {body}");
    }

    /// What refers to any JSON that fits a schema.
    pub(super) fn schema(&mut self, schema: Value) -> String {
        let known = self.schemas.iter().position(|it| *it == schema);
        let ix = known.unwrap_or_else(|| {
            self.schemas.push(schema);
            self.schemas.len() - 1
        });
        format!("@{}", schema_name(ix))
    }

    /// Names the grammar by whose it is and by all that it says.
    pub(super) fn key(&self, scope: &Scope) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(scope.salt().len().to_le_bytes());
        hash.update(scope.salt());
        hash.update(self.rules.len().to_le_bytes());
        hash.update(&self.rules);
        for schema in &self.schemas {
            let text = schema.to_string();
            hash.update(text.len().to_le_bytes());
            hash.update(text);
        }
        hash.finalize().into()
    }

    pub(super) fn bytes(&self) -> usize {
        let schemas = self.schemas.iter().map(|it| it.to_string().len());
        self.rules.len() + schemas.sum::<usize>()
    }
}

pub(super) fn schema_name(ix: usize) -> String {
    format!("s{ix}")
}

/// A text as it stands: Lark's strings are those of JSON, but for the one control character that
/// JSON takes as it is.
pub(super) fn literal(text: &str) -> String {
    Value::from(text).to_string().replace('\x7f', r"\u007f")
}
