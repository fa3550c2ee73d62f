//! Tests of a template, as in `x is defined` or `x is divisibleby 3`.

use super::args::{Argument as _, Given};
use super::ast::Comparison;
use super::error::{Error, Result};
use super::eval::compared;
use super::object::Object;
use super::ops::contains;
use super::value::Value;

const NAMES: [&str; 39] = [
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];

pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

pub(super) fn holds(value: &Value, name: &str, given: Given) -> Result<bool> {
    let against = |comparison: Comparison, given: Given| {
        let [other] = given.bind(["other"])?;
        compared(comparison, value, &other.required()?)
    };
    let number = || {
        let number = value.as_int();
        number.ok_or_else(|| Error::new(format!("an even or odd {}", value.kind())))
    };
    Ok(match name {
        "defined" => !matches!(value, Value::Undefined),
        "undefined" => matches!(value, Value::Undefined),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => matches!(value, Value::Bool(_) | Value::Int(_) | Value::Float(_)),
        "string" => matches!(value, Value::Text(_)),
        "mapping" => matches!(value, Value::Map(_)),
        // Python finds a length and a way to single items, and asks no more.
        "sequence" => match value {
            Value::Undefined
            | Value::Text(_)
            | Value::List(_)
            | Value::Tuple(_)
            | Value::Map(_) => true,
            Value::Object(object) => matches!(**object, Object::Range(_)),
            Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => false,
        },
        "iterable" => match value {
            // Going through it would use it up.
            Value::Object(object) if matches!(**object, Object::Generator(_)) => true,
            other => other.items().is_some(),
        },
        "callable" => match value {
            Value::Object(object) => object.is_callable(),
            // An undefined value can be called, to say that it is undefined.
            Value::Undefined => true,
            _ => false,
        },
        "escaped" => false,
        "lower" | "upper" => {
            let text = value.to_text();
            let is_wanted = super::methods::call(
                &Value::Text(text),
                if name == "lower" {
                    "islower"
                } else {
                    "isupper"
                },
                Given::default(),
            )?;
            is_wanted.is_true()
        }
        "even" => number()?.rem_euclid(2) == 0,
        "odd" => number()?.rem_euclid(2) == 1,
        "divisibleby" => {
            let [by] = given.bind(["num"])?;
            let by = by.int()?;
            if by == 0 {
                return Err(Error::new("a division by zero"));
            }
            number()? % by == 0
        }
        "in" => {
            let [all] = given.bind(["seq"])?;
            contains(&all.required()?, value)?
        }
        "sameas" => {
            let [other] = given.bind(["other"])?;
            let other = other.required()?;
            value.kind() == other.kind() && value.equals(&other)
        }
        "filter" | "test" => {
            let is_known = if name == "filter" {
                super::filters::is_known
            } else {
                is_known
            };
            value.as_text().is_some_and(|it| is_known(it.as_str()))
        }
        "==" | "eq" | "equalto" => against(Comparison::Equal, given)?,
        "!=" | "ne" => against(Comparison::NotEqual, given)?,
        "<" | "lt" | "lessthan" => against(Comparison::Less, given)?,
        "<=" | "le" => against(Comparison::LessOrEqual, given)?,
        ">" | "gt" | "greaterthan" => against(Comparison::Greater, given)?,
        ">=" | "ge" => against(Comparison::GreaterOrEqual, given)?,
        _ => return Err(Error::new(format!("unknown test {name}"))),
    })
}
