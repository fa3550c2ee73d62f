//! The functions that a model may call.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::members::{object, position, string};
use super::super::refusal::{Fault, Place, Refusal};
use super::raw::{Raw, bounded_list};
use super::{SCHEMA_SIZE_MAX, TOOLS_MAX};

/// Characters of a function's name.
const NAME_MAX: usize = 64;
const CHOICE: &str = "none, auto, required or {\"type\":\"function\",\"function\":{\"name\":..}}";

/// A request's functions and what it says of their use.
#[derive(Clone, Debug, Default)]
pub struct Tools<'a> {
    /// In the caller's order; names are unique.
    pub list: Vec<Tool<'a>>,
    /// The array, for the chat template; absent when there is none to show.
    pub raw: Option<&'a str>,
    pub choice: ToolChoice,
    /// Whether one answer may hold several calls.
    pub parallel: Parallel,
}

/// A function that the model may call.
#[derive(Clone, Debug)]
pub struct Tool<'a> {
    pub name: String,
    /// The JSON schema of its arguments; absent takes any object.
    pub parameters: Option<&'a str>,
    /// A call of it must fit the schema even where the model decides whether to call.
    pub is_strict: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// At least one call, of this function.
    Named(String),
    /// No call.
    Never,
    /// At least one call.
    Required,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parallel {
    #[default]
    Allowed,
    One,
}

impl Tools<'_> {
    /// Whether the answer may hold calls.
    #[must_use]
    pub fn may_be_called(&self) -> bool {
        !self.list.is_empty() && self.choice != ToolChoice::Never
    }

    /// Whether the chat template shows them to the model.
    pub(super) fn are_shown(&self) -> bool {
        self.may_be_called()
    }

    /// Whether calls that the answer may hold must fit their schemas.
    #[must_use]
    pub fn are_strict(&self) -> bool {
        self.may_be_called() && self.list.iter().any(|tool| tool.is_strict)
    }

    /// Whether the answer must be a call.
    #[must_use]
    pub const fn must_be_called(&self) -> bool {
        self.choice.is_demand()
    }
}

impl ToolChoice {
    /// Whether the answer must be a call.
    #[must_use]
    pub const fn is_demand(&self) -> bool {
        match self {
            Self::Auto | Self::Never => false,
            Self::Named(_) | Self::Required => true,
        }
    }
}

impl<'a> Raw<'_, 'a> {
    pub(super) fn tools(&self) -> Result<Tools<'a>, Refusal> {
        if !self.is_chat() {
            return Ok(Tools::default());
        }
        let raw = self.text("tools");
        let list = raw.map_or(Ok(Vec::new()), tools)?;
        let choice = self.choice(&list)?;
        Ok(Tools {
            raw: raw.filter(|_| !list.is_empty()),
            list,
            choice,
            parallel: match self.flag("parallel_tool_calls")? {
                Some(false) => Parallel::One,
                None | Some(true) => Parallel::Allowed,
            },
        })
    }

    fn choice(&self, list: &[Tool<'_>]) -> Result<ToolChoice, Refusal> {
        let place = Place::field("tool_choice");
        let Some(text) = self.text("tool_choice") else {
            return Ok(ToolChoice::Auto);
        };
        let choice = choice(text, place)?;
        let is_known = |name: &String| list.iter().any(|tool| tool.name == *name);
        match &choice {
            ToolChoice::Required if list.is_empty() => {
                let what = "tools to choose from";
                Err(Refusal::field(place, Fault::Needs { what }))
            }
            ToolChoice::Named(name) if !is_known(name) => {
                let what = "a function of that name in tools";
                Err(Refusal::field(place, Fault::Needs { what }))
            }
            ToolChoice::Auto | ToolChoice::Named(_) | ToolChoice::Never | ToolChoice::Required => {
                Ok(choice)
            }
        }
    }
}

#[derive(Deserialize)]
struct RawFunction<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    parameters: Option<&'a RawValue>,
    #[serde(borrow, default)]
    strict: Option<&'a RawValue>,
}

fn tools(raw: &str) -> Result<Vec<Tool<'_>>, Refusal> {
    #[derive(Deserialize)]
    struct RawTool<'a> {
        #[serde(borrow, default, rename = "type")]
        kind: Option<&'a RawValue>,
        #[serde(borrow, default)]
        function: Option<&'a RawValue>,
    }

    let place = Place::field("tools");
    let mut tools = Vec::new();
    for (ix, item) in bounded_list::<TOOLS_MAX>(raw, place)?.iter().enumerate() {
        let place = place.item(position(ix));
        let tool: RawTool<'_> = object(item.get(), place)?;
        let what = "{\"type\":\"function\",\"function\":{..}}";
        let wrong = Refusal::field(place, Fault::Takes { what });
        let kind = tool.kind.ok_or(wrong)?;
        if string(kind.get(), place.member("type"))? != "function" {
            return Err(wrong);
        }
        let function = tool.function.ok_or(wrong)?;
        tools.push(read_function(function, place.member("function"))?);
    }
    check_names(&tools, place)?;
    Ok(tools)
}

fn read_function(raw: &RawValue, place: Place) -> Result<Tool<'_>, Refusal> {
    let function: RawFunction<'_> = object(raw.get(), place)?;
    let what = "a function with a name of 1 to 64 letters, digits, _ and -";
    let wrong = Refusal::field(place, Fault::Takes { what });
    let name = string(function.name.ok_or(wrong)?.get(), place)?;
    if !is_name(&name) {
        return Err(wrong);
    }
    let what = "a function whose parameters are a JSON schema, of at most 65536 bytes";
    let no_schema = Refusal::field(place, Fault::Takes { what });
    let parameters = function.parameters.map(RawValue::get);
    let is_schema = |text: &str| text.starts_with('{') && text.len() <= SCHEMA_SIZE_MAX;
    if !parameters.is_none_or(is_schema) {
        return Err(no_schema);
    }
    let what = "a function whose strict is true or false";
    let not_boolean = Refusal::field(place, Fault::Takes { what });
    let strict = function.strict.map(|raw| serde_json::from_str(raw.get()));
    Ok(Tool {
        name: name.into_owned(),
        parameters,
        is_strict: strict
            .transpose()
            .map_err(|_| not_boolean)?
            .unwrap_or(false),
    })
}

fn check_names(tools: &[Tool<'_>], place: Place) -> Result<(), Refusal> {
    let mut names = BTreeSet::new();
    for (ix, tool) in tools.iter().enumerate() {
        if !names.insert(tool.name.as_str()) {
            let place = place.item(position(ix));
            let what = "a function whose name no other has";
            return Err(Refusal::field(place, Fault::Takes { what }));
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(is_letter)
}

/// A word, or a function's name within one of three shapes.
fn choice(text: &str, place: Place) -> Result<ToolChoice, Refusal> {
    #[derive(Deserialize)]
    struct Shape<'a> {
        #[serde(borrow, default, rename = "type")]
        kind: Option<&'a RawValue>,
        #[serde(borrow, default)]
        function: Option<&'a RawValue>,
        #[serde(borrow, default)]
        name: Option<&'a RawValue>,
    }

    let wrong = Refusal::field(place, Fault::Takes { what: CHOICE });
    if text.starts_with('"') {
        return word(&string(text, place)?).ok_or(wrong);
    }
    if !text.starts_with('{') {
        return Err(wrong);
    }
    let shape: Shape<'_> = object(text, place)?;
    let text_of = |raw: Option<&RawValue>| {
        raw.map(|raw| string(raw.get(), place).map(Cow::into_owned))
            .transpose()
            .map_err(|_| wrong)
    };
    let within = match shape.function {
        Some(raw) => {
            let inner: Shape<'_> = object(raw.get(), place)?;
            text_of(inner.name)?
        }
        None => None,
    };
    let (kind, outer) = (text_of(shape.kind)?, text_of(shape.name)?);
    match (kind.as_deref(), within, outer) {
        (_, Some(inner), Some(outer)) if inner != outer => Err(wrong),
        (None | Some("function"), Some(name), _) | (None | Some("function"), None, Some(name)) => {
            Ok(ToolChoice::Named(name))
        }
        (Some(kind), None, None) => word(kind).ok_or(wrong),
        (_, _, _) => Err(wrong),
    }
}

fn word(word: &str) -> Option<ToolChoice> {
    match word {
        "auto" => Some(ToolChoice::Auto),
        "none" => Some(ToolChoice::Never),
        "required" => Some(ToolChoice::Required),
        _ => None,
    }
}
