//! Calls in a template: of macros, of methods and of the functions that every template has.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::super::args::{Argument as _, Given};
use super::super::error::{Error, Result};
use super::super::format;
use super::super::methods::{self, int};
use super::super::object::{Macro, Object, Range};
use super::super::scope::Scope;
use super::super::text::Text;
use super::super::value::{Map, Value};
use super::{DEPTH_MAX, Run};

/// Numbers of one `range`, as in the sandbox of Jinja.
const RANGE_MAX: usize = 100_000;
/// The functions that every template has.
const FUNCTIONS: [&str; 7] = [
    "cycler",
    "dict",
    "joiner",
    "namespace",
    "raise_exception",
    "range",
    "strftime_now",
];

/// What a name means that nobody has set.
pub(super) fn global(word: &str) -> Value {
    let found = FUNCTIONS.into_iter().find(|it| *it == word);
    found.map_or(Value::Undefined, |it| Value::object(Object::Function(it)))
}

pub(super) fn attribute_of(object: &Object, name: &str, names: &[Arc<str>]) -> Value {
    match object {
        Object::Namespace(map) => map
            .borrow()
            .get_str(name)
            .cloned()
            .unwrap_or(Value::Undefined),
        Object::Cycler(items, at) if name == "current" => items[at.get()].clone(),
        Object::Macro(it) if name == "name" => {
            let word = it.decl.name.and_then(|name| names.get(name.0 as usize));
            word.map_or(Value::None, |word| Value::own(word))
        }
        Object::Range(range) => match name {
            "start" => Value::Int(range.start),
            "stop" => Value::Int(range.stop),
            "step" => Value::Int(range.step),
            _ => Value::Undefined,
        },
        Object::Loop(it) => {
            let (at, len) = (it.at.get(), it.items.len());
            let nearby = |place: Option<usize>| {
                let found = place.and_then(|place| it.items.get(place));
                found.cloned().unwrap_or(Value::Undefined)
            };
            match name {
                "index" => int(at + 1),
                "index0" => int(at),
                "revindex" => int(len - at),
                "revindex0" => int(len - at - 1),
                "first" => Value::Bool(at == 0),
                "last" => Value::Bool(at + 1 == len),
                "length" => int(len),
                "depth" => int(it.depth),
                "depth0" => int(it.depth - 1),
                "previtem" => nearby(at.checked_sub(1)),
                "nextitem" => nearby(Some(at + 1)),
                _ => Value::Undefined,
            }
        }
        Object::Cycler(..)
        | Object::Function(_)
        | Object::Generator(_)
        | Object::Joiner(..)
        | Object::Macro(_)
        | Object::Method(..)
        | Object::View(..) => Value::Undefined,
    }
}

impl Run<'_> {
    /// `caller` is the body of a `call` block.
    pub(super) fn call_with(
        &mut self,
        callee: &Value,
        given: Given,
        caller: Option<Value>,
    ) -> Result<Value> {
        let Value::Object(object) = callee else {
            return Err(match callee {
                Value::Undefined => Error::new("a call of what is undefined"),
                other => Error::new(format!("a call of a value of type {}", other.kind())),
            });
        };
        match &**object {
            Object::Function(name) => self.function(name, given),
            Object::Method(value, name) => self.method(value, name, given),
            Object::Macro(it) => self.macro_call(it, given, caller),
            Object::Joiner(separator, was_called) => Ok(if was_called.replace(true) {
                Value::Text(separator.clone())
            } else {
                Value::own("")
            }),
            Object::Loop(it) => {
                let again = it.again.as_ref();
                let (decl, scope) =
                    again.ok_or_else(|| Error::new("a loop that is not recursive"))?;
                let [items] = given.bind(["iterable"])?;
                let items = items.required()?;
                self.deeper()?;
                let before = std::mem::take(&mut self.out);
                let ended = self.for_loop(decl, &items, scope, it.depth + 1);
                let inner = std::mem::replace(&mut self.out, before);
                self.depth -= 1;
                ended?;
                Ok(Value::Text(inner.finish()))
            }
            Object::Cycler(..)
            | Object::Generator(_)
            | Object::Namespace(_)
            | Object::Range(_)
            | Object::View(..) => Err(Error::new(format!(
                "a call of a value of type {}",
                callee.kind()
            ))),
        }
    }

    fn deeper(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Error::new("calls within one another without an end"));
        }
        Ok(())
    }

    fn method(&mut self, value: &Value, name: &str, mut given: Given) -> Result<Value> {
        let text = match value {
            Value::Text(text) if name == "format" => text,
            Value::Text(text) if name == "format_map" => {
                let [map] = given.bind(["mapping"])?;
                let Value::Map(map) = map.required()? else {
                    return Err(Error::new("format_map without a dict"));
                };
                let named = map
                    .iter()
                    .map(|(key, value)| (Arc::from(key.to_text().as_str()), value.clone()));
                given = Given {
                    positional: vec![],
                    named: named.collect(),
                };
                text
            }
            other => return methods::call(other, name, given),
        };
        let run = RefCell::new(self);
        format::braces(
            text,
            &given,
            &|value, name| run.borrow_mut().attribute(value, name),
            &|value, key| run.borrow_mut().item(value, key),
        )
    }

    fn macro_call(&mut self, it: &Macro, given: Given, caller: Option<Value>) -> Result<Value> {
        self.deeper()?;
        let scope = Scope::within(&it.scope);
        let decl = &it.decl;
        let mut positional = given.positional.into_iter();
        let mut named = given.named;
        if let Some(place) = named.iter().position(|(name, _)| **name == *"caller") {
            scope.set(decl.caller, named.remove(place).1);
        } else {
            let caller = caller.or_else(|| it.caller.clone());
            scope.set(decl.caller, caller.unwrap_or(Value::Undefined));
        }
        for param in &decl.params {
            let by_name = named.iter().position(|(name, _)| *name == param.text);
            let value = match (positional.next(), by_name, &param.default) {
                (Some(_), Some(_), _) => return Err(Error::new("an argument comes twice")),
                (Some(value), None, _) => value,
                (None, Some(place), _) => named.remove(place).1,
                (None, None, Some(default)) => self.eval(default, &scope)?,
                (None, None, None) => Value::Undefined,
            };
            scope.set(param.name, value);
        }
        let more: Vec<Value> = positional.collect();
        if !more.is_empty() && !decl.takes_more {
            return Err(Error::new("a macro gets too many arguments"));
        }
        if !named.is_empty() && !decl.takes_named {
            return Err(Error::new("a macro gets an argument that it does not know"));
        }
        let mut rest = Map::default();
        for (name, value) in named {
            rest.set(&name, value);
        }
        scope.set(decl.varargs, Value::tuple(more));
        scope.set(decl.kwargs, Value::map(rest));
        let text = self.captured(&decl.body, &scope)?;
        self.depth -= 1;
        Ok(Value::Text(text))
    }

    fn function(&mut self, name: &str, given: Given) -> Result<Value> {
        match name {
            "raise_exception" => {
                let [message] = given.bind(["message"])?;
                Err(Error::raised(message.required()?.to_text()))
            }
            "strftime_now" => {
                let [pattern] = given.bind(["format"])?;
                let pattern = pattern.text()?;
                Ok(Value::own(&self.now.format(pattern.as_str())))
            }
            "range" => range(&given),
            "cycler" => {
                if given.positional.is_empty() {
                    return Err(Error::new("no items to cycle through"));
                }
                Ok(Value::object(Object::Cycler(
                    given.positional,
                    Cell::new(0),
                )))
            }
            "joiner" => {
                let [separator] = given.bind(["sep"])?;
                let separator = separator.text_if_any()?.unwrap_or_else(|| Text::own(", "));
                Ok(Value::object(Object::Joiner(separator, Cell::new(false))))
            }
            _ => {
                let map = dict(given)?;
                Ok(if name == "namespace" {
                    Value::object(Object::Namespace(RefCell::new(map)))
                } else {
                    Value::map(map)
                })
            }
        }
    }
}

fn dict(given: Given) -> Result<Map> {
    let mut map = match given.positional.first() {
        None => Map::default(),
        Some(Value::Map(map)) => Rc::unwrap_or_clone(Rc::clone(map)),
        Some(pairs) => {
            let mut map = Map::default();
            for pair in pairs.try_items()? {
                let pair = <[Value; 2]>::try_from(pair.try_items()?);
                let [key, value] = pair.map_err(|_| Error::new("a dict of no pairs"))?;
                map.insert(key, value);
            }
            map
        }
    };
    for (name, value) in given.named {
        map.set(&name, value);
    }
    Ok(map)
}

fn range(given: &Given) -> Result<Value> {
    let number = |place: usize| given.positional.get(place).cloned().int();
    let (start, stop, step) = match given.positional.len() {
        1 => (0, number(0)?, 1),
        2 => (number(0)?, number(1)?, 1),
        3 => (number(0)?, number(1)?, number(2)?),
        _ => return Err(Error::new("range takes one to three numbers")),
    };
    if step == 0 {
        return Err(Error::new("a range with a step of zero"));
    }
    let range = Range { start, stop, step };
    if range.len() > RANGE_MAX {
        return Err(Error::new(format!(
            "a range of more than {RANGE_MAX} numbers"
        )));
    }
    Ok(Value::object(Object::Range(range)))
}
