//! Reads the body of a chat completion: what routing and billing need, and nothing more.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::List;
use super::members::{Members, bounded, list, members, object, position, string};
use super::message::message_text;
use super::refusal::{Fault, Place, Refusal};
use crate::config::Catalog;
use crate::denial::Denial;
use crate::event::{Ask, Delivery};
use crate::ids::{AccountId, RequestId};

/// Largest body, in bytes (`spec/wire` 1.2).
pub const BODY_SIZE_MAX: usize = 16 << 20;
/// Deepest nesting of brackets.
pub const NESTING_MAX: usize = 64;
/// Most members of the body.
pub const MEMBERS_MAX: usize = 256;
pub const MESSAGES_MAX: usize = 16_384;
/// Most parts of one message's content.
pub const PARTS_MAX: usize = 4_096;
pub const STOPS_MAX: usize = 4;
/// Longest stop string, in bytes.
pub const STOP_SIZE_MAX: usize = 256;
/// Longest model name, in bytes.
pub const MODEL_SIZE_MAX: usize = 256;

/// What a chat template may add around the messages, for the billing bound.
const TEMPLATE_TOKENS: u64 = 64;

/// What the provider's engine samples with. Passed through; nothing here decides by it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampling {
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub seed: Option<i64>,
    pub stops: Vec<String>,
}

/// A chat completion request that can be served as it stands. Borrows the body.
#[derive(Clone, Debug)]
pub struct ChatRequest<'a> {
    pub(super) members: Members<'a>,
    pub model: Cow<'a, str>,
    pub delivery: Delivery,
    /// Whether a streamed answer ends with a usage chunk.
    pub include_usage: bool,
    /// As asked; `None` leaves it to the model.
    pub output_tokens_max: Option<u32>,
    pub message_count: u32,
    pub sampling: Sampling,
    /// The `messages` array as it was written.
    pub messages: &'a str,
    text_bytes: u64,
    prompt_bytes: u64,
}

impl<'a> ChatRequest<'a> {
    /// Reads a body. On success nothing in it that this API interprets can be wrong.
    pub fn parse(body: &'a [u8]) -> Result<Self, Refusal> {
        let members = members(body)?;
        let request = Raw { members: &members };
        let model = request.model()?;
        let prompt = request.prompt()?;
        request.one_choice()?;
        request.range("frequency_penalty", -2, 2)?;
        request.range("presence_penalty", -2, 2)?;
        let sampling = Sampling {
            temperature: request.range("temperature", 0, 2)?,
            top_p: request.range("top_p", 0, 1)?,
            seed: request.seed()?,
            stops: request.stops()?,
        };
        let delivery = if request.flag("stream")? {
            Delivery::Streamed
        } else {
            Delivery::Whole
        };
        let include_usage = request.include_usage()?;
        let output_tokens_max = request.output_tokens_max()?;
        Ok(Self {
            model,
            delivery,
            include_usage,
            output_tokens_max,
            message_count: prompt.message_count,
            sampling,
            messages: prompt.messages,
            text_bytes: prompt.text_bytes,
            prompt_bytes: prompt.prompt_bytes,
            members,
        })
    }

    /// Estimate for routing: about a token for each four bytes of text.
    #[must_use]
    pub fn prompt_tokens(&self) -> u32 {
        saturated(
            self.text_bytes
                .div_ceil(u64::from(Ask::BYTES_PER_TOKEN))
                .max(1),
        )
    }

    /// Upper bound for billing: no tokenizer makes more tokens than there are bytes in what its
    /// template can show it.
    #[must_use]
    pub fn prompt_tokens_bound(&self) -> u32 {
        saturated(self.prompt_bytes + TEMPLATE_TOKENS)
    }

    /// The request as the coordinator sees it.
    pub fn ask(
        &self,
        request: RequestId,
        account: AccountId,
        catalog: &Catalog,
    ) -> Result<Ask, Denial> {
        let model = catalog.find(&self.model).ok_or(Denial::UnknownModel)?;
        let spec = catalog.spec(model).ok_or(Denial::UnknownModel)?;
        Ok(Ask {
            request,
            account,
            model,
            prompt_tokens: self.prompt_tokens(),
            prompt_tokens_bound: self.prompt_tokens_bound(),
            output_tokens_max: self.output_tokens_max.unwrap_or(spec.output_tokens_default),
            delivery: self.delivery,
        })
    }
}

fn saturated(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

struct Prompt<'a> {
    messages: &'a str,
    message_count: u32,
    text_bytes: u64,
    prompt_bytes: u64,
}

/// The members before any of them was interpreted.
struct Raw<'m, 'a> {
    members: &'m Members<'a>,
}

impl<'a> Raw<'_, 'a> {
    /// A member that is there and not null.
    fn text(&self, name: &str) -> Option<&'a str> {
        let (_, raw) = self.members.iter().find(|(member, _)| member == name)?;
        Some(raw.get()).filter(|text| *text != "null")
    }

    fn model(&self) -> Result<Cow<'a, str>, Refusal> {
        let place = Place::field("model");
        let text = self
            .text("model")
            .ok_or(Refusal::field(place, Fault::Missing))?;
        let model = string(text, place)?;
        if model.is_empty() {
            return Err(Refusal::field(place, Fault::Empty));
        }
        bounded(&model, MODEL_SIZE_MAX, place)?;
        Ok(model)
    }

    fn prompt(&self) -> Result<Prompt<'a>, Refusal> {
        let place = Place::field("messages");
        let messages = self
            .text("messages")
            .ok_or(Refusal::field(place, Fault::Missing))?;
        let list: List<'a, MESSAGES_MAX> = list(messages, place)?;
        if list.is_cut {
            return Err(Refusal::field(
                place,
                Fault::TooMany {
                    count_max: MESSAGES_MAX,
                },
            ));
        }
        if list.items.is_empty() {
            return Err(Refusal::field(place, Fault::Empty));
        }
        let mut text_bytes = 0;
        for (ix, message) in list.items.iter().enumerate() {
            text_bytes += message_text(message, place.item(position(ix)))?;
        }
        // A template may show the model any of these.
        let shown: u64 = [
            "tools",
            "functions",
            "response_format",
            "chat_template_kwargs",
        ]
        .iter()
        .filter_map(|name| self.text(name))
        .map(|text| text.len() as u64)
        .sum();
        Ok(Prompt {
            messages,
            message_count: position(list.items.len()),
            text_bytes: text_bytes + shown,
            prompt_bytes: messages.len() as u64 + shown,
        })
    }

    fn one_choice(&self) -> Result<(), Refusal> {
        let place = Place::field("n");
        match self.text("n").map(serde_json::from_str::<u64>) {
            None | Some(Ok(1)) => Ok(()),
            Some(Ok(0) | Err(_)) => Err(Refusal::field(place, Fault::NotWhole { least: 1 })),
            Some(Ok(_)) => Err(Refusal::field(place, Fault::ManyChoices)),
        }
    }

    fn range(&self, name: &'static str, least: i32, most: i32) -> Result<Option<f64>, Refusal> {
        let place = Place::field(name);
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let number: f64 =
            serde_json::from_str(text).map_err(|_| Refusal::field(place, Fault::NotANumber))?;
        if number < f64::from(least) || number > f64::from(most) {
            return Err(Refusal::field(place, Fault::OutOfRange { least, most }));
        }
        Ok(Some(number))
    }

    fn seed(&self) -> Result<Option<i64>, Refusal> {
        let wrong = Refusal::field(Place::field("seed"), Fault::NotANumber);
        self.text("seed")
            .map(|text| serde_json::from_str(text).map_err(|_| wrong))
            .transpose()
    }

    fn stops(&self) -> Result<Vec<String>, Refusal> {
        let place = Place::field("stop");
        let Some(text) = self.text("stop") else {
            return Ok(Vec::new());
        };
        if text.starts_with('"') {
            return Ok(vec![stop(text, place)?]);
        }
        let list: List<'a, STOPS_MAX> = list(text, place)?;
        if list.is_cut {
            return Err(Refusal::field(
                place,
                Fault::TooMany {
                    count_max: STOPS_MAX,
                },
            ));
        }
        list.items
            .iter()
            .enumerate()
            .map(|(ix, item)| stop(item.get(), place.item(position(ix))))
            .collect()
    }

    fn flag(&self, name: &'static str) -> Result<bool, Refusal> {
        let wrong = Refusal::field(Place::field(name), Fault::NotBoolean);
        self.text(name).map_or(Ok(false), |text| {
            serde_json::from_str(text).map_err(|_| wrong)
        })
    }

    fn include_usage(&self) -> Result<bool, Refusal> {
        #[derive(Deserialize)]
        struct Options<'a> {
            #[serde(borrow, default)]
            include_usage: Option<&'a RawValue>,
        }

        let place = Place::field("stream_options");
        let Some(text) = self.text("stream_options") else {
            return Ok(false);
        };
        let options: Options<'_> = object(text, place)?;
        options.include_usage.map_or(Ok(false), |raw| {
            serde_json::from_str(raw.get())
                .map_err(|_| Refusal::field(place.member("include_usage"), Fault::NotBoolean))
        })
    }

    fn output_tokens_max(&self) -> Result<Option<u32>, Refusal> {
        let mut found = None;
        // The last name wins: it is OpenAI's present one.
        for name in ["max_output_tokens", "max_tokens", "max_completion_tokens"] {
            let wrong = Refusal::field(Place::field(name), Fault::NotWhole { least: 1 });
            let Some(text) = self.text(name) else {
                continue;
            };
            let tokens: u64 = serde_json::from_str(text).map_err(|_| wrong)?;
            if tokens == 0 {
                return Err(wrong);
            }
            found = Some(saturated(tokens));
        }
        Ok(found)
    }
}

fn stop(text: &str, place: Place) -> Result<String, Refusal> {
    let stop = string(text, place)?;
    if stop.is_empty() {
        return Err(Refusal::field(place, Fault::Empty));
    }
    bounded(&stop, STOP_SIZE_MAX, place)?;
    Ok(stop.into_owned())
}
