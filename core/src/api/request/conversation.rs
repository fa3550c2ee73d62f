//! The turns of a conversation, in the shape of chat completions.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::json::Quoted;
use super::super::members::{object, position, string};
use super::super::refusal::{Fault, Place, Refusal};
use super::raw::{Raw, bounded_list, quoted};
use super::{CALLS_MAX, MESSAGES_MAX, PARTS_MAX};

/// What was said so far, and how the answer goes on from it.
#[derive(Clone, Debug)]
pub struct Conversation<'a> {
    pub messages: Vec<Message<'a>>,
    pub ending: Ending,
}

/// Where a prompt ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// Behind the opening of a new turn of the assistant's.
    #[default]
    NewTurn,
    /// Behind the last turn, which is over.
    NoTurn,
    /// Within the last turn, which is the assistant's and goes on.
    SameTurn,
}

/// One turn.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    pub role: Role,
    pub content: Content<'a>,
    pub name: Option<Quoted<'a>>,
    pub reasoning: Option<Quoted<'a>>,
    pub calls: Vec<PastCall<'a>>,
    /// Which call a tool's turn answers.
    pub call_id: Option<Quoted<'a>>,
    /// Bytes of the calls as they were written.
    calls_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Assistant,
    /// `system`, and what newer clients call `developer`.
    System,
    /// `tool`, and what older clients call `function`.
    Tool,
    User,
}

/// The text of a turn. A turn without content has the empty one.
#[derive(Clone, Debug)]
pub enum Content<'a> {
    None,
    Parts(Vec<Quoted<'a>>),
    Text(Quoted<'a>),
}

/// A call that the assistant made in an earlier turn.
#[derive(Clone, Copy, Debug)]
pub struct PastCall<'a> {
    pub id: Option<Quoted<'a>>,
    pub name: Quoted<'a>,
    /// An object, or a string: of an object, or of whatever a model wrote where one was due.
    pub arguments: Option<&'a RawValue>,
}

impl Role {
    /// As chat templates know it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Assistant => "assistant",
            Self::System => "system",
            Self::Tool => "tool",
            Self::User => "user",
        }
    }
}

impl PastCall<'_> {
    /// The text of an object, as templates want it. What a model left half written, or never meant as
    /// an object, is carried in one of a single member: `{"arguments": text}`.
    #[must_use]
    pub fn arguments(&self) -> String {
        let Some(raw) = self.arguments else {
            return "{}".to_owned();
        };
        let Some(text) = Quoted::of(raw).map(Quoted::text) else {
            return raw.get().to_owned();
        };
        // Some clients send the empty string for none.
        match text.trim() {
            "" => "{}".to_owned(),
            object if is_object(object) => object.to_owned(),
            _ => serde_json::json!({ "arguments": text }).to_string(),
        }
    }
}

impl Content<'_> {
    /// Bytes of the text.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Parts(parts) => parts.iter().map(|part| part.size()).sum(),
            Self::Text(text) => text.size(),
        }
    }

    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Parts(parts) => parts.iter().map(|part| part.text()).collect(),
            Self::Text(text) => text.text().into_owned(),
        }
    }
}

/// Bytes around one message: its role, a name, and what marks its beginning and end.
const MESSAGE_BYTES_MAX: u64 = 96;

impl Conversation<'_> {
    /// Bytes of all that is said.
    pub(super) fn text_bytes(&self) -> u64 {
        let bytes = |message: &Message<'_>| message.content.size() + message.calls_bytes;
        self.messages.iter().map(bytes).sum()
    }

    /// The most bytes that a template makes of it.
    pub(super) fn bytes_max(&self) -> u64 {
        self.text_bytes() + self.messages.len() as u64 * MESSAGE_BYTES_MAX
    }
}

impl<'a> Raw<'_, 'a> {
    pub(super) fn conversation(&self) -> Result<Conversation<'a>, Refusal> {
        let place = Place::field("messages");
        let raw = self
            .text("messages")
            .ok_or(Refusal::field(place, Fault::Missing))?;
        let list = bounded_list::<MESSAGES_MAX>(raw, place)?;
        if list.is_empty() {
            return Err(Refusal::field(place, Fault::Empty));
        }
        let mut messages = Vec::with_capacity(list.len());
        for (ix, item) in list.iter().enumerate() {
            messages.push(message(item, place.item(position(ix)))?);
        }
        let ending = self.ending(&messages)?;
        Ok(Conversation { messages, ending })
    }

    fn ending(&self, messages: &[Message<'_>]) -> Result<Ending, Refusal> {
        let goes_on = self.flag("continue_final_message")?.unwrap_or(false);
        let opens = self.flag("add_generation_prompt")?;
        let place = Place::field("continue_final_message");
        match (goes_on, opens) {
            (false, None | Some(true)) => Ok(Ending::NewTurn),
            (false, Some(false)) => Ok(Ending::NoTurn),
            (true, Some(true)) => {
                let other = "add_generation_prompt";
                Err(Refusal::field(place, Fault::Excludes { other }))
            }
            (true, None | Some(false)) => {
                let last = messages.last();
                let is_open =
                    last.is_some_and(|it| it.role == Role::Assistant && it.calls.is_empty());
                let what = "a last message of the assistant's, without calls";
                if is_open {
                    Ok(Ending::SameTurn)
                } else {
                    Err(Refusal::field(place, Fault::Needs { what }))
                }
            }
        }
    }
}

#[derive(Deserialize)]
struct RawMessage<'a> {
    #[serde(borrow, default)]
    role: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow, default)]
    function_call: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_call_id: Option<&'a RawValue>,
}

fn message(raw: &RawValue, place: Place) -> Result<Message<'_>, Refusal> {
    let raw: RawMessage<'_> = object(raw.get(), place)?;
    let role = role(raw.role, place.member("role"))?;
    let calls_place = place.member("tool_calls");
    let calls = match raw.tool_calls {
        Some(list) => calls(list, calls_place)?,
        None => match raw.function_call {
            Some(one) => vec![called(one, None, place.member("function_call"))?],
            None => Vec::new(),
        },
    };
    if !calls.is_empty() && role != Role::Assistant {
        let what = "a message of the assistant's";
        return Err(Refusal::field(calls_place, Fault::Needs { what }));
    }
    let content_place = place.member("content");
    let content = match raw.content {
        Some(content) => self::content(content, content_place)?,
        // An assistant may have called only, and a tool may have nothing to say.
        None if matches!(role, Role::Assistant | Role::Tool) => Content::None,
        None => return Err(Refusal::field(content_place, Fault::Missing)),
    };
    let written = raw.tool_calls.or(raw.function_call);
    Ok(Message {
        role,
        content,
        name: quoted(raw.name, place.member("name"))?,
        reasoning: match raw.reasoning_content {
            Some(_) => quoted(raw.reasoning_content, place.member("reasoning_content"))?,
            None => quoted(raw.reasoning, place.member("reasoning"))?,
        },
        calls,
        call_id: quoted(raw.tool_call_id, place.member("tool_call_id"))?,
        calls_bytes: written.map_or(0, |raw| raw.get().len() as u64),
    })
}

fn role(raw: Option<&RawValue>, place: Place) -> Result<Role, Refusal> {
    let raw = raw.ok_or(Refusal::field(place, Fault::Missing))?;
    match &*string(raw.get(), place)? {
        "assistant" => Ok(Role::Assistant),
        "developer" | "system" => Ok(Role::System),
        "function" | "tool" => Ok(Role::Tool),
        "user" => Ok(Role::User),
        _ => Err(Refusal::field(place, Fault::UnknownRole)),
    }
}

fn content(raw: &RawValue, place: Place) -> Result<Content<'_>, Refusal> {
    if let Some(text) = Quoted::of(raw) {
        return Ok(Content::Text(text));
    }
    if !raw.get().starts_with('[') {
        return Err(Refusal::field(place, Fault::NotAString));
    }
    let list = bounded_list::<PARTS_MAX>(raw.get(), place)?;
    let parts = list.iter().enumerate();
    let parts = parts.map(|(ix, item)| part(item, place.part(position(ix))));
    parts.collect::<Result<_, _>>().map(Content::Parts)
}

fn part(raw: &RawValue, place: Place) -> Result<Quoted<'_>, Refusal> {
    #[derive(Deserialize)]
    struct Part<'a> {
        #[serde(borrow, default, rename = "type")]
        kind: Option<&'a RawValue>,
        #[serde(borrow, default)]
        text: Option<&'a RawValue>,
        #[serde(borrow, default)]
        refusal: Option<&'a RawValue>,
    }

    let part: Part<'_> = object(raw.get(), place)?;
    let not_text = Refusal::field(place, Fault::NotText);
    let kind = part.kind.ok_or(not_text)?;
    let text = match &*string(kind.get(), place)? {
        "text" => part.text,
        // What an assistant said in place of an answer.
        "refusal" => part.refusal,
        _ => None,
    };
    text.and_then(Quoted::of).ok_or(not_text)
}

fn calls(raw: &RawValue, place: Place) -> Result<Vec<PastCall<'_>>, Refusal> {
    #[derive(Deserialize)]
    struct Call<'a> {
        #[serde(borrow, default)]
        id: Option<&'a RawValue>,
        #[serde(borrow, default)]
        function: Option<&'a RawValue>,
    }

    let list = bounded_list::<CALLS_MAX>(raw.get(), place)?;
    let mut calls = Vec::with_capacity(list.len());
    for (ix, item) in list.iter().enumerate() {
        let place = place.part(position(ix));
        let call: Call<'_> = object(item.get(), place)?;
        let id = quoted(call.id, place.inner("id"))?;
        let place = place.inner("function");
        let function = call.function.ok_or(Refusal::field(place, Fault::Missing))?;
        calls.push(called(function, id, place)?);
    }
    Ok(calls)
}

fn called<'a>(
    raw: &'a RawValue,
    id: Option<Quoted<'a>>,
    place: Place,
) -> Result<PastCall<'a>, Refusal> {
    #[derive(Deserialize)]
    struct Function<'a> {
        #[serde(borrow, default)]
        name: Option<&'a RawValue>,
        #[serde(borrow, default)]
        arguments: Option<&'a RawValue>,
    }

    let what = "a function with a name, and arguments that are a string, or a JSON object";
    let wrong = Refusal::field(place, Fault::Takes { what });
    let function: Function<'_> = object(raw.get(), place)?;
    let name = function.name.and_then(Quoted::of).ok_or(wrong)?;
    if !function.arguments.is_none_or(are_arguments) {
        return Err(wrong);
    }
    Ok(PastCall {
        id,
        name,
        arguments: function.arguments,
    })
}

/// The API carries arguments in a string, and any string does: a call that was cut is history like
/// any other, and nobody who sends it back could mend it.
fn are_arguments(raw: &RawValue) -> bool {
    Quoted::of(raw).is_some() || raw.get().starts_with('{')
}

fn is_object(text: &str) -> bool {
    text.starts_with('{') && serde_json::from_str::<&RawValue>(text).is_ok()
}
