//! The methods of Python's strings, dictionaries, lists and tuples that templates may call: all that
//! change nothing, as the sandbox of `transformers` has it.

mod strings;

pub(super) use strings::{Line, is_blank, lines, replace};

use super::args::{Argument as _, Given};
use super::error::{Error, Result};
use super::object::Object;
use super::value::Value;

const OF_DICTS: [&str; 5] = ["copy", "get", "items", "keys", "values"];
const OF_LISTS: [&str; 3] = ["copy", "count", "index"];
const OF_TUPLES: [&str; 2] = ["count", "index"];

/// Whether `value.name` is a method.
pub(super) fn has(value: &Value, name: &str) -> bool {
    match value {
        Value::Text(_) => strings::NAMES.contains(&name),
        Value::Map(_) => OF_DICTS.contains(&name),
        Value::List(_) => OF_LISTS.contains(&name),
        Value::Tuple(_) => OF_TUPLES.contains(&name),
        Value::Float(_) => name == "is_integer",
        Value::Object(object) => match &**object {
            Object::Cycler(..) => matches!(name, "next" | "reset"),
            Object::Loop(_) => matches!(name, "changed" | "cycle"),
            _ => false,
        },
        Value::Undefined | Value::None | Value::Bool(_) | Value::Int(_) => false,
    }
}

pub(super) fn call(value: &Value, name: &str, given: Given) -> Result<Value> {
    match value {
        Value::Text(text) => strings::call(text, name, given),
        Value::Map(map) => {
            let keys = || map.iter().map(|(key, _)| key.clone());
            let values = || map.iter().map(|(_, value)| value.clone());
            match name {
                "get" => {
                    if !given.named.is_empty() {
                        return Err(Error::new("get takes no argument by name"));
                    }
                    let [key, default] = given.bind(["key", "default"])?;
                    let found = map.get(&key.required()?).cloned();
                    Ok(found.or(default).unwrap_or(Value::None))
                }
                "items" => {
                    let pairs = keys().zip(values());
                    let pairs = pairs.map(|(key, value)| Value::tuple(vec![key, value]));
                    Ok(view("dict_items", pairs.collect()))
                }
                "keys" => Ok(view("dict_keys", keys().collect())),
                "values" => Ok(view("dict_values", values().collect())),
                _ => Ok(value.clone()),
            }
        }
        Value::List(items) | Value::Tuple(items) => {
            if name == "copy" {
                return Ok(value.clone());
            }
            let [wanted, start, stop] = given.bind(["value", "start", "stop"])?;
            let wanted = wanted.required()?;
            let same = |it: &&Value| it.equals(&wanted);
            if name == "count" {
                let count = items.iter().filter(same).count();
                return Ok(int(count));
            }
            let (start, stop) = (start.int_or(0)?, stop.int_or(i128::MAX)?);
            let within = |place: usize| {
                let place = i128::try_from(place).unwrap_or(i128::MAX);
                (start..stop).contains(&place)
            };
            let mut places = items.iter().enumerate();
            let found = places.find(|(place, it)| within(*place) && it.equals(&wanted));
            let (place, _) = found.ok_or_else(|| Error::new("index of what is not there"))?;
            Ok(int(place))
        }
        Value::Float(it) => Ok(Value::Bool(it.fract() == 0.0)),
        Value::Object(object) => of_object(object, name, given),
        Value::Undefined | Value::None | Value::Bool(_) | Value::Int(_) => {
            Err(Error::new(format!("{} has no method {name}", value.kind())))
        }
    }
}

fn of_object(object: &Object, name: &str, given: Given) -> Result<Value> {
    let items = given.positional;
    match object {
        Object::Cycler(all, at) => {
            let present = all[at.get()].clone();
            at.set(if name == "next" {
                (at.get() + 1) % all.len()
            } else {
                0
            });
            Ok(if name == "next" { present } else { Value::None })
        }
        Object::Loop(it) if name == "cycle" => {
            let place = it.at.get().checked_rem(items.len());
            let place = place.ok_or_else(|| Error::new("no items to cycle through"))?;
            Ok(items[place].clone())
        }
        Object::Loop(it) => {
            let last = it.last.replace(Some(items.clone()));
            let is_same = last.is_some_and(|last| {
                last.len() == items.len() && last.iter().zip(&items).all(|(a, b)| a.equals(b))
            });
            Ok(Value::Bool(!is_same))
        }
        other => Err(Error::new(format!("{} has no method {name}", other.kind()))),
    }
}

fn view(kind: &'static str, items: Vec<Value>) -> Value {
    Value::object(Object::View(kind, items))
}

pub(super) fn int(count: usize) -> Value {
    Value::Int(i128::try_from(count).unwrap_or(i128::MAX))
}
