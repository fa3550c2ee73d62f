//! The members of a body before any of them is interpreted, held against the published list.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::fields::{Api, Verdict, field};
use super::super::json::{List, Quoted};
use super::super::members::{Members, bounded, list, object, position, string};
use super::super::refusal::{Fault, Place, Refusal};
use super::{
    CHOICES_MAX, Echo, Input, MODEL_SIZE_MAX, Prompt, STOP_SIZE_MAX, Sampling, TemplateWishes,
    Tools,
};

/// Bytes of a value that may ask for nothing.
const NEUTRAL_SIZE_MAX: usize = 64;

/// What newer clients set for models that think before they answer.
const EFFORTS: [&str; 6] = ["none", "minimal", "low", "medium", "high", "xhigh"];
const EFFORTS_TEXT: &str = "one of none, minimal, low, medium, high, xhigh";

/// See the module.
pub(super) struct Raw<'m, 'a> {
    api: Api,
    members: &'m Members<'a>,
}

impl<'m, 'a> Raw<'m, 'a> {
    /// # Errors
    /// A field that the list refuses, or one of another API.
    pub(super) fn new(api: Api, members: &'m Members<'a>) -> Result<Self, Refusal> {
        for (name, value) in members {
            let Some(known) = field(name).filter(|_| value.get() != "null") else {
                continue;
            };
            let place = Place::field(known.name);
            match known.verdict {
                Verdict::Ignored => {}
                Verdict::Honoured if known.scope.has(api) => {}
                Verdict::Honoured => return Err(Refusal::field(place, Fault::NoPlace)),
                Verdict::Refused if known.neutral.iter().any(|it| is_same(it, value)) => {}
                Verdict::Refused => {
                    let instead = known.note;
                    return Err(Refusal::field(place, Fault::Unsupported { instead }));
                }
            }
        }
        Ok(Self { api, members })
    }

    /// A member that is there and not null.
    ///
    /// # Panics
    /// In a build that checks itself: the list does not say that the field is honoured, so it would say
    /// something else than is done. Each field is read of each request, so no test can miss it.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        debug_assert!(
            field(name).is_some_and(|it| it.verdict == Verdict::Honoured && it.scope.has(self.api)),
            "a field that is read is honoured by the list"
        );
        let (_, raw) = self.members.iter().find(|(member, _)| member == name)?;
        Some(raw.get()).filter(|text| *text != "null")
    }

    pub(super) const fn is_chat(&self) -> bool {
        matches!(self.api, Api::Chat)
    }

    pub(super) fn model(&self) -> Result<Option<Cow<'a, str>>, Refusal> {
        let place = Place::field("model");
        let Some(text) = self.text("model") else {
            return Ok(None);
        };
        let model = string(text, place)?;
        if model.is_empty() {
            return Err(Refusal::field(place, Fault::Empty));
        }
        bounded(&model, MODEL_SIZE_MAX, place)?;
        Ok(Some(model))
    }

    pub(super) fn flag(&self, name: &'static str) -> Result<Option<bool>, Refusal> {
        let wrong = Refusal::field(Place::field(name), Fault::NotBoolean);
        self.text(name)
            .map(|text| serde_json::from_str(text).map_err(|_| wrong))
            .transpose()
    }

    pub(super) fn number(
        &self,
        name: &'static str,
        least: f64,
        most: f64,
        range: &'static str,
    ) -> Result<Option<f64>, Refusal> {
        let place = Place::field(name);
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let number: f64 =
            serde_json::from_str(text).map_err(|_| Refusal::field(place, Fault::NotANumber))?;
        if !(least..=most).contains(&number) {
            return Err(Refusal::field(place, Fault::OutOfRange { range }));
        }
        Ok(Some(number))
    }

    pub(super) fn whole(&self, name: &'static str, least: u32) -> Result<Option<u32>, Refusal> {
        let wrong = Refusal::field(Place::field(name), Fault::NotWhole { least });
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let number: u64 = serde_json::from_str(text).map_err(|_| wrong)?;
        if number < u64::from(least) {
            return Err(wrong);
        }
        Ok(Some(u32::try_from(number).unwrap_or(u32::MAX)))
    }

    /// A list of token numbers.
    pub(super) fn tokens<const MAX: usize>(&self, name: &'static str) -> Result<Vec<u32>, Refusal> {
        let place = Place::field(name);
        let Some(text) = self.text(name) else {
            return Ok(Vec::new());
        };
        let list = bounded_list::<MAX>(text, place)?;
        let read = |(ix, item): (usize, &&RawValue)| {
            let wrong = Refusal::field(place.item(position(ix)), Fault::NotWhole { least: 0 });
            serde_json::from_str(item.get()).map_err(|_| wrong)
        };
        list.iter().enumerate().map(read).collect()
    }

    pub(super) fn choices(&self) -> Result<u32, Refusal> {
        let choices = self.whole("n", 1)?.unwrap_or(1);
        if choices > CHOICES_MAX {
            let range = "1 and 128";
            let place = Place::field("n");
            return Err(Refusal::field(place, Fault::OutOfRange { range }));
        }
        Ok(choices)
    }

    pub(super) fn echo(&self, input: &Input<'_>, sampling: &Sampling) -> Result<Echo, Refusal> {
        if self.is_chat() || !self.flag("echo")?.unwrap_or(false) {
            return Ok(Echo::Nothing);
        }
        let place = Place::field("echo");
        if sampling.top_logprobs.is_some() {
            let other = "logprobs";
            return Err(Refusal::field(place, Fault::Excludes { other }));
        }
        if matches!(input, Input::Prompts(prompts) if !prompts.iter().all(Prompt::is_text)) {
            let what = "a prompt of text";
            return Err(Refusal::field(place, Fault::Needs { what }));
        }
        Ok(Echo::Prompt)
    }

    pub(super) fn include_usage(&self) -> Result<bool, Refusal> {
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

    pub(super) fn tokens_max(&self) -> Result<Option<u32>, Refusal> {
        let mut found = None;
        // The last name goes before the others: it is OpenAI's present one.
        for name in ["max_output_tokens", "max_tokens", "max_completion_tokens"] {
            found = match self.text(name) {
                None => found,
                // LM Studio's clients say so where they want no bound.
                Some("-1") => None,
                Some(_) => self.whole(name, 1)?,
            };
        }
        Ok(found)
    }

    pub(super) fn tokens_min(&self) -> Result<u32, Refusal> {
        Ok(self.whole("min_tokens", 0)?.unwrap_or(0))
    }

    pub(super) fn stops(&self, count_max: usize) -> Result<Vec<String>, Refusal> {
        let place = Place::field("stop");
        let Some(text) = self.text("stop") else {
            return Ok(Vec::new());
        };
        if text.starts_with('"') {
            return Ok(vec![stop(text, place)?]);
        }
        let list = bounded_list::<{ super::STOPS_MAX }>(text, place)?;
        if list.len() > count_max {
            return Err(Refusal::field(place, Fault::TooMany { count_max }));
        }
        list.iter()
            .enumerate()
            .map(|(ix, item)| stop(item.get(), place.item(position(ix))))
            .collect()
    }

    pub(super) fn template(&self) -> Result<TemplateWishes<'a>, Refusal> {
        if !self.is_chat() {
            return Ok(TemplateWishes::default());
        }
        let place = Place::field("chat_template_kwargs");
        let variables = self.text("chat_template_kwargs");
        if variables.is_some_and(|text| !text.starts_with('{')) {
            return Err(Refusal::field(place, Fault::NotAnObject));
        }
        let reasoning = self.reasoning()?;
        let place = Place::field("reasoning_effort");
        let effort = match self.text("reasoning_effort") {
            None => reasoning.effort,
            Some(text) => Some(effort(text, place)?),
        };
        Ok(TemplateWishes {
            variables,
            thinking: self.flag("enable_thinking")?.or(reasoning.thinking),
            effort,
        })
    }

    /// The two switches of the template, as routers of requests write them.
    fn reasoning(&self) -> Result<TemplateWishes<'a>, Refusal> {
        #[derive(Deserialize)]
        struct Reasoning<'a> {
            #[serde(borrow, default)]
            effort: Option<&'a RawValue>,
            #[serde(borrow, default)]
            enabled: Option<&'a RawValue>,
        }

        let place = Place::field("reasoning");
        let Some(text) = self.text("reasoning") else {
            return Ok(TemplateWishes::default());
        };
        let reasoning: Reasoning<'_> = object(text, place)?;
        let wrong = Refusal::field(place.member("enabled"), Fault::NotBoolean);
        let thinking = reasoning.enabled.map(|raw| serde_json::from_str(raw.get()));
        let effort = reasoning
            .effort
            .map(|raw| effort(raw.get(), place.member("effort")));
        Ok(TemplateWishes {
            variables: None,
            thinking: thinking.transpose().map_err(|_| wrong)?,
            effort: effort.transpose()?,
        })
    }

    /// Bytes beside the messages that a template may show the model: a form bounds the answer and is
    /// not among them, nor are tools that must not be called.
    pub(super) fn shown_bytes(&self, tools: &Tools<'_>) -> u64 {
        let members = self.members.iter();
        let shown = members.filter(|(name, _)| match &**name {
            "tools" => tools.are_shown(),
            name => name == "chat_template_kwargs",
        });
        shown
            .filter(|(_, raw)| raw.get() != "null")
            .map(|(_, raw)| raw.get().len() as u64)
            .sum()
    }
}

fn effort(text: &str, place: Place) -> Result<&'static str, Refusal> {
    let asked = string(text, place)?;
    let known = EFFORTS.iter().find(|effort| **effort == asked);
    let what = EFFORTS_TEXT;
    known
        .copied()
        .ok_or(Refusal::field(place, Fault::Takes { what }))
}

fn stop(text: &str, place: Place) -> Result<String, Refusal> {
    let stop = string(text, place)?;
    if stop.is_empty() {
        return Err(Refusal::field(place, Fault::Empty));
    }
    bounded(&stop, STOP_SIZE_MAX, place)?;
    Ok(stop.into_owned())
}

/// The elements of a list of at most `MAX`.
pub(super) fn bounded_list<const MAX: usize>(
    text: &str,
    place: Place,
) -> Result<Vec<&RawValue>, Refusal> {
    let list: List<'_, MAX> = list(text, place)?;
    if list.is_cut {
        return Err(Refusal::field(place, Fault::TooMany { count_max: MAX }));
    }
    Ok(list.items)
}

/// A member of an object that is a string.
pub(super) fn quoted<'a>(
    raw: Option<&'a RawValue>,
    place: Place,
) -> Result<Option<Quoted<'a>>, Refusal> {
    let wrong = Refusal::field(place, Fault::NotAString);
    raw.map(|raw| Quoted::of(raw).ok_or(wrong)).transpose()
}

/// Whether a value says what a short text of JSON says; numbers by their value.
fn is_same(neutral: &str, value: &RawValue) -> bool {
    if value.get().len() > NEUTRAL_SIZE_MAX {
        return false;
    }
    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
    let (Some(neutral), Some(value)) = (read(neutral), read(value.get())) else {
        return false;
    };
    match (neutral.as_f64(), value.as_f64()) {
        (Some(one), Some(two)) => one.total_cmp(&two).is_eq(),
        (_, _) => neutral == value,
    }
}
