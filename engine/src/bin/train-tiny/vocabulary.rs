//! The byte-pair tokenizer: learnt from a sample of the corpus, written as a Hugging Face folder
//! expects it, and used through the very file that was written.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde_json::json;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer, TokenizerBuilder};

use crate::corpus::{Corpus, Message, Reach};
use crate::dice::Dice;
use crate::sums::Sum;

pub(crate) const VOCABULARY: usize = 640;
pub(crate) const END_OF_TEXT: &str = "<|endoftext|>";
pub(crate) const TURN_START: &str = "<|im_start|>";
pub(crate) const TURN_END: &str = "<|im_end|>";

/// How Qwen3 cuts text before it merges bytes: each digit alone, so that sums can be learnt.
const PIECES: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SAMPLE_CONVERSATIONS: usize = 12_000;

const CHAT_TEMPLATE: &str = "{%- for message in messages %}\
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\
{%- endfor %}\
{%- if add_generation_prompt %}\
{{- '<|im_start|>assistant\\n' }}\
{%- endif %}";

/// A tokenizer with the ids of its special tokens at hand.
pub(crate) struct Vocabulary {
    tokenizer: Tokenizer,
    pub(crate) end_of_text: u32,
    pub(crate) turn_end: u32,
}

/// One conversation as the model reads it.
pub(crate) struct Tokens {
    pub(crate) ids: Vec<u32>,
    /// Whether the model is to learn to say the token at the same index.
    pub(crate) is_said: Vec<bool>,
}

impl Vocabulary {
    /// Learns the merges from the corpus and writes `tokenizer.json` and its configuration.
    pub(crate) fn learn(corpus: &Corpus, seed: u64, folder: &Path) -> Result<Self> {
        let mut dice = Dice::new(seed);
        let sample = (0..SAMPLE_CONVERSATIONS).map(|_| {
            let messages = corpus.conversation(&mut dice, Reach::Short);
            messages
                .into_iter()
                .map(|message| message.text)
                .collect::<Vec<_>>()
                .join("\n")
        });
        let pieces = Split::new(
            SplitPattern::Regex(PIECES.to_owned()),
            SplitDelimiterBehavior::Isolated,
            false,
        )
        .map_err(|error| anyhow!("the pattern of the pieces: {error}"))?;
        let bytes = ByteLevel::new(false, false, false);
        let mut tokenizer = TokenizerBuilder::new()
            .with_model(BPE::default())
            .with_normalizer(Some(NFC))
            .with_pre_tokenizer(Some(Sequence::new(vec![
                PreTokenizerWrapper::Split(pieces),
                PreTokenizerWrapper::ByteLevel(bytes),
            ])))
            .with_post_processor(Some(bytes))
            .with_decoder(Some(bytes))
            .build()
            .map_err(|error| anyhow!("the tokenizer's parts: {error}"))?;
        let mut trainer = BpeTrainerBuilder::new()
            .show_progress(false)
            .vocab_size(VOCABULARY)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(
                [END_OF_TEXT, TURN_START, TURN_END]
                    .map(|text| AddedToken::from(text, true))
                    .to_vec(),
            )
            .build();
        tokenizer
            .train(&mut trainer, sample)
            .and_then(|tokenizer| tokenizer.save(folder.join("tokenizer.json"), false))
            .map_err(|error| anyhow!("learning the tokenizer: {error}"))?;
        let configuration = json!({
            "add_bos_token": false,
            "add_prefix_space": false,
            "bos_token": null,
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": false,
            "eos_token": TURN_END,
            "model_max_length": crate::shape::POSITIONS_MAX,
            "pad_token": END_OF_TEXT,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": null,
        });
        std::fs::write(
            folder.join("tokenizer_config.json"),
            serde_json::to_string_pretty(&configuration)? + "\n",
        )?;
        Self::load(folder)
    }

    pub(crate) fn load(folder: &Path) -> Result<Self> {
        let tokenizer = Tokenizer::from_file(folder.join("tokenizer.json"))
            .map_err(|error| anyhow!("reading tokenizer.json: {error}"))?;
        let id = |text: &str| {
            tokenizer
                .token_to_id(text)
                .with_context(|| format!("{text} has no id"))
        };
        let (end_of_text, turn_end) = (id(END_OF_TEXT)?, id(TURN_END)?);
        Ok(Self {
            tokenizer,
            end_of_text,
            turn_end,
        })
    }

    pub(crate) fn encode(&self, text: &str) -> Vec<u32> {
        let encoding = self.tokenizer.encode_fast(text, false);
        encoding
            .expect("byte pairs cover every text")
            .get_ids()
            .to_vec()
    }

    pub(crate) fn decode(&self, ids: &[u32]) -> String {
        self.tokenizer
            .decode(ids, true)
            .expect("the ids come from this vocabulary")
    }

    /// The conversation as the chat template renders it. Only what the assistant says is learnt.
    pub(crate) fn conversation(&self, messages: &[Message]) -> Tokens {
        let mut tokens = Tokens {
            ids: Vec::new(),
            is_said: Vec::new(),
        };
        for Message { role, text } in messages {
            let (before, said) = if *role == "assistant" {
                (format!("{TURN_START}{role}\n"), format!("{text}{TURN_END}"))
            } else {
                (
                    format!("{TURN_START}{role}\n{text}{TURN_END}"),
                    String::new(),
                )
            };
            tokens.push(&self.encode(&before), false);
            tokens.push(&self.encode(&said), true);
            tokens.push(&self.encode("\n"), false);
        }
        tokens.push(&[self.end_of_text], false);
        tokens
    }

    /// A bare sum. Only its result is learnt: what comes before is known only when asked for.
    pub(crate) fn drill(&self, sum: Sum) -> Tokens {
        let answer = sum.answer();
        let (before, result) = answer.split_at(answer.find('=').map_or(0, |at| at + "= ".len()));
        let mut tokens = Tokens {
            ids: Vec::new(),
            is_said: Vec::new(),
        };
        tokens.push(&self.encode(before), false);
        tokens.push(&self.encode(&format!("{result}{TURN_END}")), true);
        tokens
    }

    /// What the model reads before it answers a single question.
    pub(crate) fn question(&self, text: &str) -> Vec<u32> {
        self.encode(&format!(
            "{TURN_START}user\n{text}{TURN_END}\n{TURN_START}assistant\n"
        ))
    }
}

impl Tokens {
    fn push(&mut self, ids: &[u32], is_said: bool) {
        self.ids.extend_from_slice(ids);
        self.is_said.resize(self.ids.len(), is_said);
    }
}
