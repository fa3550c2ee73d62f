//! One request, whichever API it came by: what is asked and how it is to be answered.
//!
//! The only reader of bodies: a coordinator routes and bills by it, a local server and a provider
//! hand it to the engine. Texts are borrowed as they were written, so that who needs their sizes alone
//! copies nothing.

mod beginning;
mod conversation;
mod facts;
mod form;
mod prompt;
mod raw;
mod sampling;
mod tools;

use std::borrow::Cow;

pub use self::conversation::{Content, Conversation, Ending, Message, PastCall, Role};
pub use self::form::{Form, UNSUPPORTED_KEYWORDS};
pub use self::prompt::Prompt;
pub use self::sampling::{Ends, Sampling};
pub use self::tools::{Parallel, Tool, ToolChoice, Tools};

use self::raw::Raw;
use super::fields::Api;
use super::members::{Members, members};
use super::refusal::{Fault, Place, Refusal};
use crate::event::Delivery;

/// Largest body, in bytes.
pub const BODY_SIZE_MAX: usize = 16 << 20;
/// Deepest nesting of brackets.
pub const NESTING_MAX: usize = 64;
/// Most members of the body.
pub const MEMBERS_MAX: usize = 256;
pub const MESSAGES_MAX: usize = 16_384;
/// Most parts of one message's content.
pub const PARTS_MAX: usize = 4_096;
/// Most calls in one message.
pub const CALLS_MAX: usize = 128;
pub const STOPS_MAX: usize = 16;
/// Stop strings of an answer that must have a form.
pub const CONSTRAINED_STOPS_MAX: usize = 4;
/// Longest stop string, in bytes.
pub const STOP_SIZE_MAX: usize = 256;
/// Most token numbers in `stop_token_ids`.
pub const STOP_TOKENS_MAX: usize = 64;
/// Longest model name, in bytes.
pub const MODEL_SIZE_MAX: usize = 256;
pub const TOOLS_MAX: usize = 128;
/// Largest JSON schema, of a tool's parameters or of an answer, in bytes.
pub const SCHEMA_SIZE_MAX: usize = 64 << 10;
/// Most answers to one request: prompts times `n`.
pub const CHOICES_MAX: u32 = 128;
/// Most tokens in `logit_bias`.
pub const BIASES_MAX: usize = 1_024;
/// Most of the likeliest tokens that are told for each token of the answer.
pub const TOP_LOGPROBS_MAX: u8 = 20;
/// Most strings of `guided_choice`.
pub const WORDS_MAX: usize = 256;
/// Longest regular expression, in bytes.
pub const REGEX_SIZE_MAX: usize = 2_048;

/// See the module. Nothing in it that this project interprets can be wrong.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    pub(super) members: Members<'a>,
    pub api: Api,
    /// A server with one model may be asked without its name.
    pub model: Option<Cow<'a, str>>,
    pub input: Input<'a>,
    pub delivery: Delivery,
    /// Whether a streamed answer ends with a usage chunk.
    pub include_usage: bool,
    /// Answers to each prompt.
    pub choices: u32,
    /// Whether an answer begins with its prompt.
    pub echo: Echo,
    /// As asked; `None` leaves it to the model.
    pub output_tokens_max: Option<u32>,
    /// The answer does not end before.
    pub output_tokens_min: u32,
    pub ends: Ends,
    /// Tokens that end the answer beside the model's own.
    pub end_tokens: Vec<u32>,
    pub stops: Vec<String>,
    pub sampling: Sampling,
    pub tools: Tools<'a>,
    pub form: Form<'a>,
    pub template: TemplateWishes<'a>,
    text_bytes: u64,
    prompt_bytes: u64,
}

/// What the answer goes on from.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    Conversation(Conversation<'a>),
    /// Each is taken as it is, without a chat template, and answered by itself.
    Prompts(Vec<Prompt<'a>>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Echo {
    Prompt,
    #[default]
    Nothing,
}

/// What the caller says to the chat template.
#[derive(Clone, Debug, Default)]
pub struct TemplateWishes<'a> {
    /// Its own variables by name: a JSON object as it came.
    pub variables: Option<&'a str>,
    /// `enable_thinking`, where the variables lack it.
    pub thinking: Option<bool>,
    /// `reasoning_effort`, where the variables lack it.
    pub effort: Option<&'static str>,
}

impl<'a> Request<'a> {
    /// Reads a body of one API.
    ///
    /// # Errors
    /// The field at fault, and what it takes.
    pub fn read(api: Api, body: &'a [u8]) -> Result<Self, Refusal> {
        Self::of(api, members(body)?)
    }

    fn of(api: Api, members: Members<'a>) -> Result<Self, Refusal> {
        let raw = Raw::new(api, &members)?;
        let model = raw.model()?;
        let input = match api {
            Api::Chat => Input::Conversation(raw.conversation()?),
            Api::Completions => Input::Prompts(raw.prompts()?),
        };
        let tools = raw.tools()?;
        let form = raw.form()?;
        let is_constrained = tools.must_be_called() || !matches!(form, Form::Text);
        let (output_tokens_max, output_tokens_min) = (raw.tokens_max()?, raw.tokens_min()?);
        if output_tokens_max.is_some_and(|most| output_tokens_min > most) {
            let what = "at most max_tokens";
            return Err(Refusal::field(
                Place::field("min_tokens"),
                Fault::Takes { what },
            ));
        }
        let delivery = if raw.flag("stream")?.unwrap_or(false) {
            Delivery::Streamed
        } else {
            Delivery::Whole
        };
        let sampling = raw.sampling()?;
        let shown = raw.shown_bytes(&tools);
        let (text_bytes, prompt_bytes) = match &input {
            Input::Conversation(conversation) => {
                (conversation.text_bytes(), conversation.bytes_max())
            }
            Input::Prompts(prompts) => prompt::sizes(prompts),
        };
        let request = Self {
            api,
            model,
            delivery,
            include_usage: raw.include_usage()?,
            choices: raw.choices()?,
            echo: raw.echo(&input, &sampling)?,
            output_tokens_max,
            output_tokens_min,
            ends: raw.ends()?,
            end_tokens: raw.end_tokens()?,
            stops: raw.stops(if is_constrained {
                CONSTRAINED_STOPS_MAX
            } else {
                STOPS_MAX
            })?,
            sampling,
            template: raw.template()?,
            tools,
            form,
            input,
            text_bytes: text_bytes + shown,
            prompt_bytes: prompt_bytes + shown,
            members,
        };
        request.check_count()?;
        request.check_schemas()?;
        Ok(request)
    }

    /// Reads a body whose API its own fields tell: a provider gets the body alone.
    ///
    /// # Errors
    /// As [`Request::read`].
    pub fn read_any(body: &'a [u8]) -> Result<Self, Refusal> {
        let members = members(body)?;
        let has = |name: &str| members.iter().any(|(member, _)| member == name);
        let api = match (has("messages"), has("prompt")) {
            (false, true) => Api::Completions,
            (true, true | false) | (false, false) => Api::Chat,
        };
        Self::of(api, members)
    }

    /// Whether the answer must have a form as a whole.
    #[must_use]
    pub fn must_have_form(&self) -> bool {
        self.tools.must_be_called() || !matches!(self.form, Form::Text)
    }

    fn check_count(&self) -> Result<(), Refusal> {
        let (prompts, place) = match &self.input {
            Input::Conversation(_) => (1, "n"),
            Input::Prompts(prompts) => (prompts.len(), "prompt"),
        };
        let answers = u32::try_from(prompts)
            .unwrap_or(u32::MAX)
            .saturating_mul(self.choices);
        if answers > CHOICES_MAX {
            let what = "few enough: prompts times n are at most 128";
            return Err(Refusal::field(Place::field(place), Fault::Takes { what }));
        }
        Ok(())
    }

    /// Answers can be held to most of JSON Schema; the rest is refused here by its name, before any
    /// machine is asked.
    fn check_schemas(&self) -> Result<(), Refusal> {
        if let Form::Schema { place, schema } = &self.form {
            form::check_keywords(schema, *place)?;
        }
        let is_held = self.tools.must_be_called() || self.tools.are_strict();
        for (tool, ix) in self.tools.list.iter().zip(0..).filter(|_| is_held) {
            if let Some(schema) = tool.parameters {
                let place = Place::field("tools").item(ix).member("function.parameters");
                form::check_keywords(schema, place)?;
            }
        }
        Ok(())
    }
}
