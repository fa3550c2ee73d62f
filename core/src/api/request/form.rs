//! What the answer's text must be: the several ways in which clients ask for a form, as one.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::members::{bounded, object, position, string};
use super::super::refusal::{Fault, Place, Refusal};
use super::raw::{Raw, bounded_list};
use super::{REGEX_SIZE_MAX, SCHEMA_SIZE_MAX, WORDS_MAX};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Form<'a> {
    /// One of these.
    Choice(Vec<String>),
    /// Any JSON object.
    Json,
    /// What matches this regular expression as a whole.
    Regex(String),
    /// JSON that fits this schema, an object.
    Schema { place: Place, schema: Cow<'a, str> },
    #[default]
    Text,
}

/// Keywords of JSON Schema that no answer can be held to, sorted. The engine compiles none of them; to
/// ignore one would let answers through that the schema forbids.
pub const UNSUPPORTED_KEYWORDS: [&str; 18] = [
    "$dynamicAnchor",
    "$dynamicRef",
    "$recursiveAnchor",
    "$recursiveRef",
    "contains",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "else",
    "if",
    "maxContains",
    "minContains",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
];

impl<'a> Raw<'_, 'a> {
    /// The one form that is asked for.
    pub(super) fn form(&self) -> Result<Form<'a>, Refusal> {
        let mut found: Option<(&'static str, Form<'a>)> = None;
        let all = [
            ("response_format", self.response_format()?),
            ("structured_outputs", self.structured_outputs()?),
            ("json_schema", self.schema("json_schema")?),
            ("guided_json", self.schema("guided_json")?),
            (
                "guided_choice",
                self.text("guided_choice")
                    .map(|text| words(text, Place::field("guided_choice")))
                    .transpose()?,
            ),
            (
                "guided_regex",
                self.text("guided_regex")
                    .map(|text| regex(text, Place::field("guided_regex")))
                    .transpose()?,
            ),
        ];
        for (field, form) in all {
            match (form, &found) {
                (None | Some(Form::Text), _) => {}
                (Some(_), Some((other, _))) => {
                    let place = Place::field(field);
                    return Err(Refusal::field(place, Fault::Excludes { other }));
                }
                (Some(form), None) => found = Some((field, form)),
            }
        }
        Ok(found.map_or(Form::Text, |(_, form)| form))
    }

    fn schema(&self, name: &'static str) -> Result<Option<Form<'a>>, Refusal> {
        let text = self.text(name);
        text.map(|text| schema(text, Place::field(name)))
            .transpose()
    }

    fn response_format(&self) -> Result<Option<Form<'a>>, Refusal> {
        #[derive(Deserialize)]
        struct Format<'a> {
            #[serde(borrow, default, rename = "type")]
            kind: Option<&'a RawValue>,
            #[serde(borrow, default)]
            json_schema: Option<&'a RawValue>,
            #[serde(borrow, default)]
            schema: Option<&'a RawValue>,
        }

        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(borrow, default)]
            schema: Option<&'a RawValue>,
        }

        let place = Place::field("response_format");
        let Some(text) = self.text("response_format") else {
            return Ok(None);
        };
        let format: Format<'_> = object(text, place)?;
        let what = "of type text, json_object or json_schema";
        let wrong = Refusal::field(place, Fault::Takes { what });
        let kind = format.kind.ok_or(wrong)?;
        match &*string(kind.get(), place.member("type"))? {
            "text" => Ok(Some(Form::Text)),
            "json_object" => match format.schema {
                None => Ok(Some(Form::Json)),
                Some(raw) => schema(raw.get(), place.member("schema")).map(Some),
            },
            "json_schema" => {
                let place = place.member("json_schema.schema");
                let named: Option<Named<'_>> = match format.json_schema {
                    Some(raw) => Some(object(raw.get(), Place::field("response_format"))?),
                    None => None,
                };
                // Some clients leave the name, and with it the object around the schema, out.
                let raw = named.and_then(|named| named.schema).or(format.schema);
                let raw = raw.ok_or(Refusal::field(place, Fault::Missing))?;
                schema(raw.get(), place).map(Some)
            }
            _ => Err(wrong),
        }
    }

    fn structured_outputs(&self) -> Result<Option<Form<'a>>, Refusal> {
        #[derive(Deserialize)]
        struct Outputs<'a> {
            #[serde(borrow, default)]
            json: Option<&'a RawValue>,
            #[serde(borrow, default)]
            choice: Option<&'a RawValue>,
            #[serde(borrow, default)]
            regex: Option<&'a RawValue>,
            #[serde(borrow, default)]
            json_object: Option<&'a RawValue>,
        }

        let place = Place::field("structured_outputs");
        let Some(text) = self.text("structured_outputs") else {
            return Ok(None);
        };
        let outputs: Outputs<'_> = object(text, place)?;
        let what = "an object with one of json, choice, regex, json_object";
        let wrong = Refusal::field(place, Fault::Takes { what });
        let (json, choice, regex) = (outputs.json, outputs.choice, outputs.regex);
        let object = outputs.json_object.map(RawValue::get);
        match (json, choice, regex, object) {
            (Some(raw), None, None, None) => schema(raw.get(), place.member("json")).map(Some),
            (None, Some(raw), None, None) => words(raw.get(), place.member("choice")).map(Some),
            (None, None, Some(raw), None) => {
                self::regex(raw.get(), place.member("regex")).map(Some)
            }
            (None, None, None, Some("true")) => Ok(Some(Form::Json)),
            (_, _, _, _) => Err(wrong),
        }
    }
}

/// A schema is an object; some clients send it in a string.
fn schema(text: &str, place: Place) -> Result<Form<'_>, Refusal> {
    let what = "a JSON schema that is an object";
    let wrong = Refusal::field(place, Fault::Takes { what });
    let schema = if text.starts_with('"') {
        let inner = string(text, place)?.trim().to_owned();
        serde_json::from_str::<&RawValue>(&inner).map_err(|_| wrong)?;
        Cow::Owned(inner)
    } else {
        Cow::Borrowed(text)
    };
    if !schema.starts_with('{') {
        return Err(wrong);
    }
    bounded(&schema, SCHEMA_SIZE_MAX, place)?;
    Ok(Form::Schema { place, schema })
}

fn words(text: &str, place: Place) -> Result<Form<'static>, Refusal> {
    let list = bounded_list::<WORDS_MAX>(text, place)?;
    if list.is_empty() {
        return Err(Refusal::field(place, Fault::Empty));
    }
    let mut words = Vec::with_capacity(list.len());
    let mut size = 0;
    for (ix, item) in list.iter().enumerate() {
        let place = if place.member.is_empty() {
            place.item(position(ix))
        } else {
            place.part(position(ix))
        };
        let word = string(item.get(), place)?.into_owned();
        if word.is_empty() {
            return Err(Refusal::field(place, Fault::Empty));
        }
        size += word.len();
        words.push(word);
    }
    if size > SCHEMA_SIZE_MAX {
        let bytes_max = SCHEMA_SIZE_MAX;
        return Err(Refusal::field(place, Fault::TooLong { bytes_max }));
    }
    Ok(Form::Choice(words))
}

fn regex(text: &str, place: Place) -> Result<Form<'static>, Refusal> {
    let regex = string(text, place)?;
    if regex.is_empty() {
        return Err(Refusal::field(place, Fault::Empty));
    }
    bounded(&regex, REGEX_SIZE_MAX, place)?;
    Ok(Form::Regex(regex.into_owned()))
}

/// That a schema has no keyword that answers cannot be held to, wherever one would count. What is only
/// defined is left to whoever compiles it: it may never be referred to.
pub(super) fn check_keywords(schema: &str, place: Place) -> Result<(), Refusal> {
    let Ok(schema) = serde_json::from_str::<Value>(schema) else {
        return Ok(());
    };
    match keyword(&schema) {
        Some(keyword) => Err(Refusal::field(place, Fault::Keyword { keyword })),
        None => Ok(()),
    }
}

/// Nesting is bounded with that of the body.
fn keyword(schema: &Value) -> Option<&'static str> {
    let members = schema.as_object()?;
    let unsupported = |name: &str| UNSUPPORTED_KEYWORDS.into_iter().find(|it| *it == name);
    if let Some(found) = members.keys().find_map(|name| unsupported(name)) {
        return Some(found);
    }
    members
        .iter()
        .find_map(|(name, value)| match name.as_str() {
            "patternProperties" | "properties" => {
                let all = value.as_object()?;
                all.values().find_map(keyword)
            }
            "additionalItems" | "additionalProperties" | "items" => match value {
                Value::Array(all) => all.iter().find_map(keyword),
                Value::Bool(_)
                | Value::Null
                | Value::Number(_)
                | Value::Object(_)
                | Value::String(_) => keyword(value),
            },
            "allOf" | "anyOf" | "oneOf" | "prefixItems" => {
                value.as_array()?.iter().find_map(keyword)
            }
            _ => None,
        })
}
