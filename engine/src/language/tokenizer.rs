//! `tokenizer.json`, through Hugging Face's own library.

use std::collections::BTreeSet;

use crate::model::ModelError;

pub(super) struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Special tokens, which have no text for anyone.
    hidden: BTreeSet<u32>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens)", self.inner.get_vocab_size(true))
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
        let added = tokenizer.get_added_tokens_decoder();
        let special = added.into_iter().filter(|(_, token)| token.special);
        let hidden = special.map(|(id, _)| id).collect();
        Ok(Self {
            inner: tokenizer,
            hidden,
        })
    }

    pub(super) fn greatest_id(&self) -> Option<u32> {
        self.inner.get_vocab(true).into_values().max()
    }

    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The template has written the special tokens already, so none is added.
    pub(super) fn encode(&self, text: &str) -> Option<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false).ok()?;
        Some(encoding.get_ids().to_vec())
    }

    /// These have a text even if they are special: parsers look for it.
    pub(super) fn show<'a>(&mut self, tokens: impl Iterator<Item = &'a str>) {
        for id in tokens.filter_map(|token| self.inner.token_to_id(token)) {
            self.hidden.remove(&id);
        }
    }

    pub(super) fn decode(&self, tokens: &[u32]) -> String {
        let is_shown = |id: &&u32| !self.hidden.contains(id);
        let shown: Vec<u32> = tokens.iter().filter(is_shown).copied().collect();
        self.inner.decode(&shown, false).unwrap_or_default()
    }
}
