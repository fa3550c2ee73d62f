//! `tokenizer.json`, through Hugging Face's own library.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use tokenizers::NormalizerWrapper;

use super::jinja::text::Text;
use super::marks::Marks;
use super::spelling::Spelling;
use crate::model::ModelError;

/// Tokens whose spelling is held against what the decoder says.
const SPELLED_PROBES: usize = 1_000;

pub(super) struct Tokenizer {
    inner: tokenizers::Tokenizer,
    spelling: Spelling,
    /// Tokens beside the vocabulary proper, which are written as they are.
    added: BTreeMap<u32, String>,
    /// Special tokens, which have no text for anyone.
    hidden: BTreeSet<u32>,
    marks: Marks,
    /// What the post-processor puts before a text.
    opening: Vec<u32>,
    /// Bytes of the longest token, once it was asked for.
    longest_bytes: OnceLock<usize>,
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
        // The words that it has cut would be quicker the next time, whoever sends them: one tenant
        // could tell from the time what words another used.
        let mut model = tokenizer.get_model().clone();
        model.resize_cache(0);
        tokenizer.with_model(model);
        let added = tokenizer.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special);
        let hidden = special.map(|(id, _)| *id).collect();
        let added = added.into_iter().map(|(id, token)| (id, token.content));
        Ok(Self {
            spelling: Spelling::of(tokenizer.get_decoder()),
            added: added.collect(),
            marks: Marks::of(&tokenizer, |_| false),
            opening: opening(&tokenizer),
            longest_bytes: OnceLock::new(),
            inner: tokenizer,
            hidden,
        })
    }

    /// Of the vocabulary proper; added tokens may be beyond it.
    pub(super) fn greatest_word_id(&self) -> Option<u32> {
        let mut words = self.inner.get_vocab(false);
        words.retain(|_, id| !self.added.contains_key(id));
        words.into_values().max()
    }

    fn greatest_id(&self) -> Option<u32> {
        self.inner.get_vocab(true).into_values().max()
    }

    /// A token as the vocabulary writes it.
    pub(super) fn name(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// A prompt that the template rendered. It has written the special tokens already, so none is
    /// added; and nobody else may write one.
    pub(super) fn encode_rendered(&self, prompt: &Text) -> Option<Vec<u32>> {
        self.marks.encode(&self.inner, prompt)
    }

    /// A text as it is: its special tokens are heeded, and what the post-processor puts before a
    /// text stands there once. What it would put behind is left out, because the text goes on.
    pub(super) fn encode(&self, text: &str) -> Option<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false).ok()?;
        let ids = encoding.get_ids();
        if ids.starts_with(&self.opening) {
            return Some(ids.to_vec());
        }
        Some([&self.opening, ids].concat())
    }

    /// The least number of tokens that so many bytes of text make, as far as that can be told
    /// without cutting them.
    pub(super) fn tokens_least(&self, bytes: usize) -> usize {
        /// Three letters of Hangul become one syllable when a text is composed.
        const COMPOSED_BYTES: usize = 3;
        let factor = match self.inner.get_normalizer() {
            None => 1,
            Some(NormalizerWrapper::NFC(_)) => COMPOSED_BYTES,
            // Others may leave out as much as they like.
            Some(_) => return 0,
        };
        let added = self.inner.get_added_tokens_decoder();
        let swallows = |token: &tokenizers::AddedToken| token.lstrip || token.rstrip;
        if self.spelling == Spelling::Unknown || added.values().any(swallows) {
            return 0;
        }
        let longest = *self.longest_bytes.get_or_init(|| {
            let spelled = |id| self.inner.id_to_token(id).map_or(0, |it| it.len());
            let ids = 0..self.greatest_id().map_or(0, |it| it.saturating_add(1));
            // A byte takes one character or more where it is spelled.
            ids.map(spelled).max().unwrap_or(0).max(1)
        });
        bytes / longest.saturating_mul(factor)
    }

    /// Only the template may write these, beside the special tokens.
    pub(super) fn reserve(&mut self, is_mark: impl Fn(&str) -> bool) {
        self.marks = Marks::of(&self.inner, is_mark);
    }

    /// These have a text even if they are special: parsers look for it.
    pub(super) fn show<'a>(&mut self, tokens: impl Iterator<Item = &'a str>) {
        for id in tokens.filter_map(|token| self.inner.token_to_id(token)) {
            self.hidden.remove(&id);
        }
    }

    /// The bytes of a token, whole characters or not; none where nobody sees it.
    pub(super) fn bytes(&self, id: u32) -> Option<Vec<u8>> {
        if self.hidden.contains(&id) {
            return Some(vec![]);
        }
        match self.added.get(&id) {
            Some(text) => Some(text.clone().into_bytes()),
            None => self.spelling.bytes(&self.inner.id_to_token(id)?),
        }
    }

    /// The bytes of every token by its number, empty for those that are no text: special ones, those
    /// of `marks`, and numbers without a token. No token from `limit` on is among them. `None` when
    /// this vocabulary is spelled in a way that is not known here.
    pub(super) fn spelled(&self, marks: &[u32], limit: u32) -> Option<Vec<Vec<u8>>> {
        let count = self.greatest_id()?.checked_add(1)?.min(limit);
        let mut words = Vec::with_capacity(usize::try_from(count).ok()?);
        for id in 0..count {
            let bytes = if marks.contains(&id) {
                None
            } else {
                self.bytes(id)
            };
            words.push(bytes.unwrap_or_default());
        }
        // A decoder may do more than its kind tells: then what is spelled here is not what is said.
        let step = words.len().div_ceil(SPELLED_PROBES).max(1);
        let probes = (0..count).zip(&words).step_by(step);
        let mut spoken = probes.filter(|(_, word)| !word.is_empty());
        let is_right = |(id, word): (u32, &Vec<u8>)| {
            let said = self.decode(&[id]);
            // Some decoders take the blank before a first word away.
            said.trim_start() == String::from_utf8_lossy(word).trim_start()
        };
        (self.spelling != Spelling::Unknown && spoken.all(is_right)).then_some(words)
    }

    pub(super) fn decode(&self, tokens: &[u32]) -> String {
        let is_shown = |id: &&u32| !self.hidden.contains(id);
        let shown: Vec<u32> = tokens.iter().filter(is_shown).copied().collect();
        self.inner.decode(&shown, false).unwrap_or_default()
    }
}

/// What the post-processor puts before a text.
fn opening(tokenizer: &tokenizers::Tokenizer) -> Vec<u32> {
    const PROBE: &str = "a";
    let ids = |adds: bool| {
        let encoding = tokenizer.encode_fast(PROBE, adds);
        encoding.map_or_else(|_| vec![], |it| it.get_ids().to_vec())
    };
    let (bare, all) = (ids(false), ids(true));
    let start = all.windows(bare.len().max(1)).position(|it| it == bare);
    start.map_or_else(Vec::new, |start| all[..start].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(decoder: &str) -> Tokenizer {
        let json = format!(
            r#"{{"version":"1.0","truncation":null,"padding":null,"normalizer":null,
                "pre_tokenizer":null,"post_processor":null,"decoder":{decoder},
                "added_tokens":[{{"id":4,"content":"<s>","single_word":false,"lstrip":false,
                    "rstrip":false,"normalized":false,"special":true}},
                    {{"id":5,"content":"<tool>","single_word":false,"lstrip":false,
                    "rstrip":false,"normalized":false,"special":false}}],
                "model":{{"type":"BPE","vocab":{{"<unk>":0,"▁two":1,"s":2,"<0x0A>":3}},"merges":[],
                    "unk_token":"<unk>","byte_fallback":true}}}}"#
        );
        Tokenizer::from_json(json.as_bytes()).unwrap()
    }

    #[test]
    fn pieces_are_spelled_as_they_are_said() {
        let tokenizer = of(r#"{"type":"Sequence","decoders":[
            {"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},
            {"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}"#);
        let words: Vec<&[u8]> = vec![b"<unk>", b" two", b"s", b"\n", b"", b"<tool>"];
        assert_eq!(tokenizer.spelled(&[], u32::MAX).unwrap(), words);
        assert_eq!(tokenizer.spelled(&[5], u32::MAX).unwrap()[5], b"");
    }

    #[test]
    fn a_decoder_that_does_something_else_is_not_trusted() {
        assert_eq!(
            of(r#"{"type":"WordPiece","prefix":"s","cleanup":true}"#).spelled(&[], u32::MAX),
            None
        );
        let decoder = r#"{"type":"Sequence","decoders":[{"type":"ByteFallback"},
            {"type":"Replace","pattern":{"String":"s"},"content":"z"}]}"#;
        assert_eq!(of(decoder).spelled(&[], u32::MAX), None);
    }

    #[test]
    fn bytes_of_tokens_join_to_the_text_that_was_cut() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny/tokenizer.json");
        let tokenizer = Tokenizer::from_json(&std::fs::read(path).unwrap()).unwrap();
        let words = tokenizer.spelled(&[], u32::MAX).unwrap();
        let text = "Grüße,  {\"a\": [1, 2]}\n\t🐕 of 3 + 4?";
        let ids = tokenizer.encode(text).unwrap();
        let bytes: Vec<u8> = ids
            .iter()
            .flat_map(|&id| words[id as usize].clone())
            .collect();
        assert_eq!(String::from_utf8(bytes).unwrap(), text);
    }
}
