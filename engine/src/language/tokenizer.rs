//! `tokenizer.json`, through Hugging Face's own library.

use crate::model::ModelError;

pub(super) struct Tokenizer(tokenizers::Tokenizer);

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens)", self.0.get_vocab_size(true))
    }
}

impl Tokenizer {
    pub(super) fn from_json(json: &[u8]) -> Result<Self, ModelError> {
        let damaged = |cause: String| ModelError::Damaged {
            file: "tokenizer.json".to_owned(),
            cause,
        };
        let mut tokenizer =
            tokenizers::Tokenizer::from_bytes(json).map_err(|cause| damaged(cause.to_string()))?;
        // Some files are saved with the limits of training; a prompt is neither cut nor padded.
        tokenizer
            .with_truncation(None)
            .map_err(|cause| damaged(cause.to_string()))?;
        tokenizer.with_padding(None);
        Ok(Self(tokenizer))
    }

    pub(super) fn greatest_id(&self) -> Option<u32> {
        self.0.get_vocab(true).into_values().max()
    }

    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.0.token_to_id(token)
    }

    /// The template has written the special tokens already, so none is added.
    pub(super) fn encode(&self, text: &str) -> Option<Vec<u32>> {
        let encoding = self.0.encode_fast(text, false).ok()?;
        Some(encoding.get_ids().to_vec())
    }

    /// Special tokens have no text for the reader.
    pub(super) fn decode(&self, tokens: &[u32]) -> String {
        self.0.decode(tokens, true).unwrap_or_default()
    }
}
