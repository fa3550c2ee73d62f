//! The text side of a model folder: tokenizer, chat template and the tokens that end an answer.

mod check;
mod clock;
mod continuation;
mod contract;
mod jinja;
mod marks;
mod spelling;
mod template;
mod tokenizer;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use crate::chat::{ChatRequest, Defaults, Input};
use crate::failure::{Failure, Reason};
use crate::grammar::{Compiler, Family, Grammars};
use crate::model::{Config, EosIds, ModelError, read_json, read_json_if_any};
use crate::runtime::{Opening, Prompts};
use crate::text::{AnswerParser, Calling, Dialect, Vocabulary};
use template::Template;
use tokenizer::Tokenizer;

pub use check::{TemplateCheck, check_template};

/// See the module.
#[derive(Debug)]
pub struct Language {
    /// Shared with what compiles grammars on other threads.
    tokenizer: Arc<Tokenizer>,
    /// Absent where the folder has none: such a model takes plain texts only.
    template: Option<Template>,
    /// Tokens that the model has numbers for.
    vocab_size: u32,
    context_tokens: u32,
    dialect: Dialect,
    /// The chat template shows the model its tools.
    takes_tools: bool,
    grammars: Arc<Compiler>,
    ends: BTreeSet<u32>,
    defaults: Defaults,
    contract: [u8; 32],
}

#[derive(Default, Deserialize)]
struct TokenizerConfig {
    chat_template: Option<RawTemplate>,
    bos_token: Option<RawToken>,
    eos_token: Option<RawToken>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawTemplate {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

/// A token's text, alone or among its properties.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawToken {
    Text(String),
    Properties { content: String },
}

impl RawToken {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) | Self::Properties { content: text } => text,
        }
    }
}

#[derive(Default, Deserialize)]
struct GenerationConfig {
    eos_token_id: Option<EosIds>,
    /// False says that the model answers best with its likeliest token.
    do_sample: Option<bool>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    /// Written as a float by some; minus one and zero mean all tokens.
    top_k: Option<f64>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
}

/// What `top_k` says, if it says anything.
fn top_k(raw: f64) -> Option<u32> {
    let is_all = raw == -1.0;
    let is_count = raw.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&raw);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number within the bounds of the type"
    )]
    let count = raw as u32;
    match (is_all, is_count) {
        (true, _) => Some(0),
        (false, true) => Some(count),
        (false, false) => None,
    }
}

impl GenerationConfig {
    fn defaults(&self) -> Result<Defaults, ModelError> {
        let api = Defaults::API;
        let temperature = match self.do_sample {
            Some(false) => 0.0,
            None | Some(true) => self.temperature.unwrap_or(api.temperature),
        };
        let top_p = self.top_p.unwrap_or(api.top_p);
        let min_p = self.min_p.unwrap_or(api.min_p);
        let repetition_penalty = self.repetition_penalty.unwrap_or(api.repetition_penalty);
        let top_k = self.top_k.map_or(Some(api.top_k), top_k);
        let is_share = |value: f32| (0.0..=1.0).contains(&value);
        let is_temperature = temperature >= 0.0 && temperature.is_finite();
        let is_penalty = repetition_penalty > 0.0 && repetition_penalty.is_finite();
        let damaged = |cause: String| ModelError::Damaged {
            file: GENERATION_CONFIG.to_owned(),
            cause,
        };
        if !(is_temperature && is_share(top_p) && is_share(min_p) && is_penalty) {
            return Err(damaged(format!(
                "temperature {temperature}, top_p {top_p}, min_p {min_p} or repetition_penalty \
                 {repetition_penalty} is out of range"
            )));
        }
        Ok(Defaults {
            temperature,
            top_p,
            top_k: top_k.ok_or_else(|| {
                let raw = self.top_k.unwrap_or_default();
                damaged(format!(
                    "top_k is {raw}, neither -1, 0 nor a count of tokens"
                ))
            })?,
            min_p,
            repetition_penalty,
        })
    }
}

const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const TEMPLATE_FILE: &str = "chat_template.jinja";
/// The name of the template to use where a folder has several.
const TEMPLATE_NAME: &str = "default";

impl Language {
    /// Loads a folder's `tokenizer.json`, chat template and end tokens.
    ///
    /// # Errors
    /// A file is absent or damaged, or has more tokens than the model.
    pub fn load(folder: &Path, config: &Config) -> Result<Self, ModelError> {
        let mut tokenizer = Tokenizer::from_json(&read_json(folder, "tokenizer.json")?)?;
        let vocab_size = config.vocab_size.unsigned_abs();
        // An added token beyond the embedding harms nobody who does not use it; some are published so.
        if let Some(id) = tokenizer.greatest_word_id().filter(|&id| id >= vocab_size) {
            return Err(ModelError::Inconsistent(format!(
                "tokenizer.json has token {id}, but vocab_size is {vocab_size}"
            )));
        }
        let texts: TokenizerConfig = parsed_if_any(folder, TOKENIZER_CONFIG)?;
        let generation: GenerationConfig = parsed_if_any(folder, GENERATION_CONFIG)?;
        let eos_token = texts.eos_token.map(RawToken::into_text);

        let defaults = generation.defaults()?;
        let mut ends: BTreeSet<u32> = config.eos_ids.iter().copied().collect();
        ends.extend(
            generation
                .eos_token_id
                .into_iter()
                .flat_map(EosIds::into_vec),
        );
        ends.extend(eos_token.as_deref().and_then(|text| tokenizer.id(text)));
        ends.retain(|&id| id < vocab_size);

        let found = chat_template(folder, texts.chat_template)?;
        let source = found.as_ref().map_or("", |(_, source)| source);
        let dialect = Dialect::of(|token| tokenizer.id(token).is_some(), source);
        tokenizer.show(dialect.marks());
        // Added tokens that the template writes, or that answers are read by, are marks like the
        // special ones. Blanks are not: text is full of them.
        tokenizer.reserve(|token| {
            let is_written = !token.trim().is_empty() && source.contains(token);
            is_written || dialect.marks().any(|mark| mark == token)
        });
        let takes_tools = source.contains("tools");
        let tokenizer = Arc::new(tokenizer);
        let family = Family::new(dialect, source, |mark| tokenizer.id(mark));
        let grammars = {
            let (tokenizer, ends) = (Arc::clone(&tokenizer), ends.iter().copied().collect());
            let marks = family.mark_ids();
            Compiler::new(family, ends, move || tokenizer.spelled(&marks, vocab_size))
        };
        let bos_token = texts.bos_token.map(RawToken::into_text);
        let template = found.as_ref().map(|(file, source)| {
            let damaged = |cause| ModelError::Damaged {
                file: (*file).to_owned(),
                cause,
            };
            Template::new(source, bos_token, eos_token).map_err(damaged)
        });
        Ok(Self {
            tokenizer,
            template: template.transpose()?,
            vocab_size,
            context_tokens: config.context_tokens_max.unsigned_abs(),
            dialect,
            takes_tools,
            grammars: Arc::new(grammars),
            ends,
            defaults,
            contract: contract::contract(folder)?,
        })
    }

    /// Renders the messages and turns the text into tokens.
    ///
    /// # Errors
    /// The template refuses the messages, what it makes of them has no tokens, too many, or one that
    /// the model does not have.
    pub fn prompt(&self, request: &ChatRequest) -> Result<Vec<u32>, Failure> {
        self.opening(request).map(|opening| opening.tokens)
    }

    /// The same, with how the answer is to be read.
    ///
    /// # Errors
    /// As [`Language::prompt`].
    pub fn opening(&self, request: &ChatRequest) -> Result<Opening, Failure> {
        if request.tools.may_be_called() && !request.tools.must_be_called() && !self.takes_tools {
            return Err(Failure::client(
                "the model's chat template takes no tools; send none, or demand a call by tool_choice",
            ));
        }
        request.check_tokens(self.vocab_size)?;
        let (tokens, parser) = match &request.input {
            Input::Conversation(messages) => {
                let template = self.template.as_ref().ok_or_else(|| {
                    Failure::client(
                        "this model has no chat template, so it takes no messages; send a prompt \
                         to /v1/completions",
                    )
                })?;
                let prompt = template.render(request, messages)?;
                self.check_size(prompt.as_str())?;
                let tokens = self.tokenizer.encode_rendered(&prompt);
                (tokens, self.parser(request, prompt.after_content()))
            }
            Input::Text(text) => {
                self.check_size(text)?;
                (self.tokenizer.encode(text), AnswerParser::plain())
            }
            Input::Tokens(tokens) => (Some(tokens.clone()), AnswerParser::plain()),
        };
        let tokens = tokens.ok_or_else(|| {
            Failure::new(
                Reason::ProviderError,
                "the tokenizer failed on the rendered prompt",
            )
        })?;
        if tokens.is_empty() {
            return Err(Failure::client(match &request.input {
                Input::Conversation(_) => "the messages make an empty prompt",
                Input::Text(_) | Input::Tokens(_) => {
                    "the prompt is empty; the model needs something to go on from"
                }
            }));
        }
        if let Some(&id) = tokens.iter().find(|&&id| id >= self.vocab_size) {
            let name = self.tokenizer.name(id).unwrap_or_default();
            return Err(Failure::client(format!(
                "the prompt uses the token {name}, which this model has no numbers for"
            )));
        }
        Ok(Opening { tokens, parser })
    }

    /// Refuses by its size alone what would take seconds to cut into tokens.
    fn check_size(&self, text: &str) -> Result<(), Failure> {
        let context = self.context_tokens as usize;
        // No text of so few bytes is too long.
        if text.len() <= context {
            return Ok(());
        }
        let least = self.tokenizer.tokens_least(text.len());
        if least < context {
            return Ok(());
        }
        Err(Failure::new(
            Reason::RequestExceedsContext,
            format!(
                "the prompt has at least {least} tokens; the model takes {context} with the answer"
            ),
        ))
    }

    /// How the answer is to be read, given what the template wrote last.
    fn parser(&self, request: &ChatRequest, tail: &str) -> AnswerParser {
        AnswerParser::new(self.dialect, Calling::of(&request.tools), tail)
    }

    /// What holds answers to their forms.
    #[must_use]
    pub fn grammars(&self) -> Arc<dyn Grammars> {
        Arc::clone(&self.grammars) as Arc<dyn Grammars>
    }

    /// Names all that turns a request into tokens.
    #[must_use]
    pub const fn contract(&self) -> [u8; 32] {
        self.contract
    }

    /// How the model samples where a request does not say.
    #[must_use]
    pub const fn defaults(&self) -> Defaults {
        self.defaults
    }

    /// The tokens that end an answer.
    pub fn ends(&self) -> impl Iterator<Item = u32> + '_ {
        self.ends.iter().copied()
    }

    #[must_use]
    pub fn is_end(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }
}

impl Prompts for Language {
    fn opening(&self, request: &ChatRequest) -> Result<Opening, Failure> {
        Self::opening(self, request)
    }
}

impl Vocabulary for Language {
    fn decode(&self, tokens: &[u32]) -> String {
        self.tokenizer.decode(tokens)
    }

    fn token_bytes(&self, token: u32) -> Vec<u8> {
        let spelled = self.tokenizer.bytes(token);
        spelled.unwrap_or_else(|| self.decode(&[token]).into_bytes())
    }
}

/// The file that the chat template stands in, and its source, if there is one: a file of its own
/// goes first.
fn chat_template(
    folder: &Path,
    in_config: Option<RawTemplate>,
) -> Result<Option<(&'static str, String)>, ModelError> {
    if let Some(bytes) = read_json_if_any(folder, TEMPLATE_FILE)? {
        let source = String::from_utf8(bytes).map_err(|cause| ModelError::Damaged {
            file: TEMPLATE_FILE.to_owned(),
            cause: cause.to_string(),
        })?;
        return Ok(Some((TEMPLATE_FILE, source)));
    }
    let source = match in_config {
        Some(RawTemplate::One(source)) => Some(source),
        Some(RawTemplate::Named(list)) => {
            let named = list.into_iter().find(|it| it.name == TEMPLATE_NAME);
            named.map(|it| it.template)
        }
        None => None,
    };
    Ok(source.map(|source| (TOKENIZER_CONFIG, source)))
}

/// Reads a JSON file that a folder need not have.
fn parsed_if_any<T: Default + for<'de> Deserialize<'de>>(
    folder: &Path,
    name: &str,
) -> Result<T, ModelError> {
    let Some(bytes) = read_json_if_any(folder, name)? else {
        return Ok(T::default());
    };
    serde_json::from_slice(&bytes).map_err(|cause| ModelError::Json {
        file: name.to_owned(),
        cause: cause.to_string(),
    })
}
