//! The body's own shape, and what is made of it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::message::RawMessage;
use super::tools::{Format, RawChoice, RawFormat, Tools};
use super::wishes::{RawLogprobs, RawWishes};
use super::{
    CONSTRAINED_STOPS_MAX, ChatRequest, Ends, Input, Json, MESSAGES_MAX, Message, STOP_BYTES_MAX,
    STOPS_MAX, TemplateWishes,
};
use crate::failure::Failure;

pub(super) fn read(body: &[u8]) -> Result<ChatRequest, Failure> {
    // serde's own message may quote a value, and a value may be a prompt.
    let raw: RawBody = serde_json::from_slice(body).map_err(|cause| {
        let kind = match cause.classify() {
            serde_json::error::Category::Data => "is not a chat-completions request",
            serde_json::error::Category::Eof => "ends before its JSON does",
            serde_json::error::Category::Io | serde_json::error::Category::Syntax => "is not JSON",
        };
        let (line, column) = (cause.line(), cause.column());
        Failure::client(format!("the body {kind}, at line {line} column {column}"))
    })?;
    raw.into_request()
}

#[derive(Deserialize)]
struct RawBody {
    messages: Option<Vec<RawMessage>>,
    prompt: Option<RawPrompt>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
    repetition_context_size: Option<u64>,
    frequency_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    logit_bias: Option<BTreeMap<String, f64>>,
    seed: Option<i64>,
    logprobs: Option<RawLogprobs>,
    top_logprobs: Option<i64>,
    stop: Option<RawStop>,
    ignore_eos: Option<bool>,
    n: Option<u64>,
    tools: Option<Json>,
    tool_choice: Option<RawChoice>,
    parallel_tool_calls: Option<bool>,
    response_format: Option<RawFormat>,
    enable_thinking: Option<bool>,
    reasoning_effort: Option<String>,
    chat_template_kwargs: Option<Json>,
    echo: Option<bool>,
    suffix: Option<String>,
    best_of: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawStop {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawPrompt {
    One(String),
    Several(Vec<String>),
}

/// What newer clients set for models that think before they answer.
const EFFORTS: [&str; 6] = ["none", "minimal", "low", "medium", "high", "xhigh"];

impl RawBody {
    fn into_request(mut self) -> Result<ChatRequest, Failure> {
        self.refuse_unsupported()?;
        let input = match (self.messages.take(), self.prompt.take()) {
            (Some(messages), None) => Input::Conversation(conversation(messages)?),
            (None, Some(prompt)) => Input::Text(plain(prompt)?),
            (None, None) => return Err(Failure::client("messages or prompt is required")),
            (Some(_), Some(_)) => {
                return Err(Failure::client("messages and prompt exclude each other"));
            }
        };
        let max_tokens = self.max_completion_tokens.or(self.max_tokens);
        if max_tokens == Some(0) {
            return Err(Failure::client("max_tokens must be at least 1"));
        }
        let tools = Tools::read(
            self.tools.take(),
            self.tool_choice.take(),
            self.parallel_tool_calls,
        )?;
        let format = Format::read(self.response_format.take())?;
        let is_constrained = tools.must_be_called() || !matches!(format, Format::Text);
        let stops_max = if is_constrained {
            CONSTRAINED_STOPS_MAX
        } else {
            STOPS_MAX
        };
        let template = TemplateWishes {
            variables: self.chat_template_kwargs.take(),
            thinking: self.enable_thinking,
            effort: self.reasoning_effort.take(),
        };
        Ok(ChatRequest {
            input,
            max_tokens: max_tokens.map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
            stops: stops(self.stop.take(), stops_max)?,
            ends: match self.ignore_eos {
                Some(true) => Ends::Ignored,
                None | Some(false) => Ends::Heeded,
            },
            tools,
            format,
            template,
            wishes: self.into_raw_wishes().into_wishes()?,
        })
    }

    fn refuse_unsupported(&self) -> Result<(), Failure> {
        let is_other = |count: Option<u64>| count.is_some_and(|count| count != 1);
        let is_odd = |effort: &String| !EFFORTS.contains(&effort.as_str());
        let table = [
            (is_other(self.n), "n other than 1"),
            (is_other(self.best_of), "best_of other than 1"),
            (self.echo == Some(true), "echo"),
            (
                self.suffix.as_ref().is_some_and(|it| !it.is_empty()),
                "suffix",
            ),
            (
                self.reasoning_effort.as_ref().is_some_and(is_odd),
                "this reasoning_effort",
            ),
        ];
        let refused = table.into_iter().find(|(is_asked, _)| *is_asked);
        refused.map_or(Ok(()), |(_, what)| {
            Err(Failure::client(format!(
                "this engine does not support {what}"
            )))
        })
    }

    fn into_raw_wishes(self) -> RawWishes {
        RawWishes {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            repetition_context_size: self.repetition_context_size,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            logit_bias: self.logit_bias,
            seed: self.seed,
            logprobs: self.logprobs,
            top_logprobs: self.top_logprobs,
        }
    }
}

fn conversation(messages: Vec<RawMessage>) -> Result<Vec<Message>, Failure> {
    if messages.is_empty() || messages.len() > MESSAGES_MAX {
        return Err(Failure::client(format!(
            "messages must hold 1 to {MESSAGES_MAX} messages"
        )));
    }
    messages.into_iter().map(RawMessage::into_message).collect()
}

fn plain(prompt: RawPrompt) -> Result<String, Failure> {
    match prompt {
        RawPrompt::One(text) => Ok(text),
        RawPrompt::Several(texts) => match <[String; 1]>::try_from(texts) {
            Ok([text]) => Ok(text),
            Err(_) => Err(Failure::client("prompt must be one string")),
        },
    }
}

fn stops(raw: Option<RawStop>, count_max: usize) -> Result<Vec<String>, Failure> {
    let stops = match raw {
        None => vec![],
        Some(RawStop::One(stop)) => vec![stop],
        Some(RawStop::Several(stops)) => stops,
    };
    let is_bad = |stop: &String| stop.is_empty() || stop.len() > STOP_BYTES_MAX;
    if stops.len() > count_max || stops.iter().any(is_bad) {
        return Err(Failure::client(format!(
            "stop must hold at most {count_max} strings of 1 to {STOP_BYTES_MAX} bytes"
        )));
    }
    Ok(stops)
}
