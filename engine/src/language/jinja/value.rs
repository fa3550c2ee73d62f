//! What variables of a template hold, with the truth, order and equality that Python gives them.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

use super::error::{Error, Result};
use super::object::Object;
use super::text::{Origin, Text, Writer};

#[derive(Clone)]
pub(in crate::language) enum Value {
    /// A name, key or attribute that is not there.
    Undefined,
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Text),
    List(Rc<Vec<Self>>),
    Tuple(Rc<Vec<Self>>),
    Map(Rc<Map>),
    Object(Rc<Object>),
}

/// Keys in the order in which they came.
#[derive(Clone, Default)]
pub(in crate::language) struct Map {
    entries: Vec<(Value, Value)>,
    /// Places of keys that are texts.
    places: BTreeMap<Arc<str>, usize>,
}

impl Map {
    /// A key that is there keeps its place.
    pub(in crate::language) fn insert(&mut self, key: Value, value: Value) {
        match self.place(&key) {
            Some(place) => self.entries[place].1 = value,
            None => {
                if let Value::Text(text) = &key {
                    self.places
                        .insert(Arc::from(text.as_str()), self.entries.len());
                }
                self.entries.push((key, value));
            }
        }
    }

    /// Under a key of our own.
    pub(in crate::language) fn set(&mut self, key: &str, value: Value) {
        self.insert(Value::Text(Text::own(key)), value);
    }

    fn place(&self, key: &Value) -> Option<usize> {
        match key {
            Value::Text(text) => self.places.get(text.as_str()).copied(),
            other => self.entries.iter().position(|(key, _)| key.equals(other)),
        }
    }

    pub(in crate::language) fn get(&self, key: &Value) -> Option<&Value> {
        self.place(key).map(|place| &self.entries[place].1)
    }

    pub(in crate::language) fn get_str(&self, key: &str) -> Option<&Value> {
        self.places.get(key).map(|&place| &self.entries[place].1)
    }

    pub(in crate::language) fn iter(&self) -> impl Iterator<Item = &(Value, Value)> {
        self.entries.iter()
    }

    pub(in crate::language) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Value {
    pub(in crate::language) fn own(text: &str) -> Self {
        Self::Text(Text::own(text))
    }

    pub(in crate::language) fn list(items: Vec<Self>) -> Self {
        Self::List(Rc::new(items))
    }

    pub(in crate::language) fn tuple(items: Vec<Self>) -> Self {
        Self::Tuple(Rc::new(items))
    }

    pub(in crate::language) fn map(map: Map) -> Self {
        Self::Map(Rc::new(map))
    }

    pub(super) fn object(object: Object) -> Self {
        Self::Object(Rc::new(object))
    }

    /// Values that can be used up are read once.
    pub(super) fn generator(items: Vec<Self>) -> Self {
        Self::object(Object::Generator(RefCell::new(items)))
    }

    /// Reads JSON as it came; all its texts are of `origin`.
    ///
    /// # Errors
    /// It is no JSON, or nested too deeply.
    pub(in crate::language) fn from_json(json: &str, origin: Origin) -> serde_json::Result<Self> {
        let mut reader = serde_json::Deserializer::from_str(json);
        let value = Json(origin).deserialize(&mut reader)?;
        reader.end()?;
        Ok(value)
    }

    /// The name of its type, as Python says it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Undefined => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Map(_) => "dict",
            Self::Object(object) => object.kind(),
        }
    }

    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Undefined | Self::None => false,
            Self::Bool(it) => *it,
            Self::Int(it) => *it != 0,
            Self::Float(it) => *it != 0.0,
            Self::Text(text) => !text.as_str().is_empty(),
            Self::List(items) | Self::Tuple(items) => !items.is_empty(),
            Self::Map(map) => map.len() > 0,
            Self::Object(object) => object.len().is_none_or(|len| len > 0),
        }
    }

    pub(super) fn len(&self) -> Result<usize> {
        let len = match self {
            Self::Undefined => Some(0),
            Self::None | Self::Bool(_) | Self::Int(_) | Self::Float(_) => None,
            Self::Text(text) => Some(text.as_str().chars().count()),
            Self::List(items) | Self::Tuple(items) => Some(items.len()),
            Self::Map(map) => Some(map.len()),
            Self::Object(object) => object.len(),
        };
        len.ok_or_else(|| Error::new(format!("object of type '{}' has no len()", self.kind())))
    }

    /// The items that a loop goes through; `None` where there are none to go through.
    pub(super) fn items(&self) -> Option<Vec<Self>> {
        match self {
            Self::None | Self::Bool(_) | Self::Int(_) | Self::Float(_) => None,
            Self::Undefined => Some(vec![]),
            Self::Text(text) => {
                let places = text.as_str().char_indices();
                let one = |(at, char): (usize, char)| text.slice(at..at + char.len_utf8());
                Some(places.map(|place| Self::Text(one(place))).collect())
            }
            Self::List(items) | Self::Tuple(items) => Some(items.to_vec()),
            Self::Map(map) => Some(map.iter().map(|(key, _)| key.clone()).collect()),
            Self::Object(object) => object.items(),
        }
    }

    pub(super) fn try_items(&self) -> Result<Vec<Self>> {
        let none = || Error::new(format!("'{}' object is not iterable", self.kind()));
        self.items().ok_or_else(none)
    }

    pub(super) fn as_text(&self) -> Option<&Text> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whole numbers, truth values among them.
    pub(super) fn as_int(&self) -> Option<i128> {
        match self {
            Self::Bool(it) => Some(i128::from(*it)),
            Self::Int(it) => Some(*it),
            _ => None,
        }
    }

    pub(super) fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(it) => Some(*it),
            #[expect(clippy::cast_precision_loss, reason = "as Python rounds them")]
            other => other.as_int().map(|it| it as f64),
        }
    }

    pub(super) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Undefined, Self::Undefined) | (Self::None, Self::None) => true,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => {
                a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.equals(b))
            }
            (Self::Map(a), Self::Map(b)) => {
                let same =
                    |(key, value): &(Self, Self)| b.get(key).is_some_and(|it| it.equals(value));
                a.len() == b.len() && a.iter().all(same)
            }
            (Self::Object(a), Self::Object(b)) => Rc::ptr_eq(a, b) || a.equals(b),
            (a, b) => match (a.as_int(), b.as_int()) {
                (Some(a), Some(b)) => a == b,
                _ => a.as_float().zip(b.as_float()).is_some_and(|(a, b)| a == b),
            },
        }
    }

    /// # Errors
    /// Values of such types have no order.
    pub(super) fn compare(&self, other: &Self) -> Result<Option<Ordering>> {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => Ok(Some(a.as_str().cmp(b.as_str()))),
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => {
                for (a, b) in a.iter().zip(b.iter()) {
                    if !a.equals(b) {
                        return a.compare(b);
                    }
                }
                Ok(Some(a.len().cmp(&b.len())))
            }
            (a, b) => match (a.as_int(), b.as_int()) {
                (Some(a), Some(b)) => Ok(Some(a.cmp(&b))),
                _ => match a.as_float().zip(b.as_float()) {
                    Some((a, b)) => Ok(a.partial_cmp(&b)),
                    None => Err(Error::new(format!(
                        "'{}' and '{}' have no order",
                        a.kind(),
                        b.kind()
                    ))),
                },
            },
        }
    }

    /// What `{{ }}` writes.
    pub(super) fn write(&self, out: &mut Writer) {
        match self {
            Self::Undefined => {}
            Self::Text(text) => out.push_text(text),
            other => super::repr::write(other, out),
        }
    }

    pub(in crate::language) fn to_text(&self) -> Text {
        match self {
            Self::Text(text) => text.clone(),
            other => {
                let mut out = Writer::default();
                other.write(&mut out);
                out.finish()
            }
        }
    }
}

/// Reads a value with texts of one origin.
struct Json(Origin);

impl<'de> DeserializeSeed<'de> for Json {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(
        self,
        reader: D,
    ) -> std::result::Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Json {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::None)
    }

    fn visit_bool<E>(self, it: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(it))
    }

    fn visit_i64<E>(self, it: i64) -> std::result::Result<Value, E> {
        Ok(Value::Int(it.into()))
    }

    fn visit_u64<E>(self, it: u64) -> std::result::Result<Value, E> {
        Ok(Value::Int(it.into()))
    }

    fn visit_f64<E>(self, it: f64) -> std::result::Result<Value, E> {
        Ok(Value::Float(it))
    }

    fn visit_str<E>(self, it: &str) -> std::result::Result<Value, E> {
        Ok(Value::Text(Text::new(it, self.0)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Value, A::Error> {
        let mut items = vec![];
        while let Some(item) = seq.next_element_seed(Json(self.0))? {
            items.push(item);
        }
        Ok(Value::list(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Value, A::Error> {
        let mut map = Map::default();
        while let Some((key, value)) = entries.next_entry_seed(Json(self.0), Json(self.0))? {
            map.insert(key, value);
        }
        Ok(Value::map(map))
    }
}
