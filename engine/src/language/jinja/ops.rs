//! What operators do to values, by Python's rules.

use std::rc::Rc;

use super::args::wrong;
use super::ast::Binary;
use super::error::{Error, Result};
use super::format;
use super::object::Object;
use super::text::Writer;
use super::value::Value;

/// Bytes of a string, or items of a list, that repetition may make.
const REPEATED_MAX: usize = 16 << 20;

pub(super) fn binary(op: Binary, left: &Value, right: &Value) -> Result<Value> {
    if let (Value::Undefined, _) | (_, Value::Undefined) = (left, right) {
        let is_text = matches!(left, Value::Text(_)) && op == Binary::Modulo;
        if !is_text {
            return Err(Error::new("an undefined value in an expression"));
        }
    }
    match (op, left, right) {
        (Binary::Add, Value::Text(a), Value::Text(b)) => {
            let mut out = Writer::default();
            out.push_text(a);
            out.push_text(b);
            Ok(Value::Text(out.finish()))
        }
        (Binary::Add, Value::List(a), Value::List(b)) => Ok(Value::list([&a[..], b].concat())),
        (Binary::Add, Value::Tuple(a), Value::Tuple(b)) => Ok(Value::tuple([&a[..], b].concat())),
        (Binary::Modulo, Value::Text(pattern), values) => format::percent(pattern, values),
        (Binary::Multiply, Value::Text(_) | Value::List(_) | Value::Tuple(_), count)
            if count.as_int().is_some() =>
        {
            repeated(left, count)
        }
        (Binary::Multiply, count, Value::Text(_) | Value::List(_) | Value::Tuple(_))
            if count.as_int().is_some() =>
        {
            repeated(right, count)
        }
        _ => number(op, left, right),
    }
}

fn repeated(value: &Value, count: &Value) -> Result<Value> {
    let count = usize::try_from(count.as_int().unwrap_or(0).max(0)).unwrap_or(usize::MAX);
    let size = match value {
        Value::Text(text) => text.as_str().len(),
        Value::List(items) | Value::Tuple(items) => items.len(),
        _ => 0,
    };
    if size.saturating_mul(count) > REPEATED_MAX {
        return Err(Error::new("a repetition that is too long"));
    }
    Ok(match value {
        Value::Text(text) => {
            let mut out = Writer::default();
            for _ in 0..count {
                out.push_text(text);
            }
            Value::Text(out.finish())
        }
        Value::List(items) => Value::list(vec![&items[..]; count].concat()),
        Value::Tuple(items) => Value::tuple(vec![&items[..]; count].concat()),
        other => other.clone(),
    })
}

fn number(op: Binary, left: &Value, right: &Value) -> Result<Value> {
    let unfit = || {
        let (a, b) = (left.kind(), right.kind());
        Error::new(format!("an operator between {a} and {b}"))
    };
    if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
        let by_zero = || Error::new("a division by zero");
        let whole = match op {
            Binary::Add => a.checked_add(b),
            Binary::Subtract => a.checked_sub(b),
            Binary::Multiply => a.checked_mul(b),
            Binary::Divide if b == 0 => return Err(by_zero()),
            Binary::FloorDivide | Binary::Modulo if b == 0 => return Err(by_zero()),
            Binary::FloorDivide => a.checked_div_euclid(b).map(|it| {
                // Towards minus infinity, whatever the signs.
                if b < 0 && a.rem_euclid(b) != 0 {
                    it - 1
                } else {
                    it
                }
            }),
            Binary::Modulo => Some(floor_remainder(a, b)),
            Binary::Power if b >= 0 => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
            Binary::Divide | Binary::Power => return float(op, left, right).ok_or_else(unfit),
        };
        return whole
            .map(Value::Int)
            .ok_or_else(|| Error::new("a number that is too large"));
    }
    if matches!(right.as_float(), Some(0.0))
        && matches!(op, Binary::Divide | Binary::FloorDivide | Binary::Modulo)
    {
        return Err(Error::new("a division by zero"));
    }
    float(op, left, right).ok_or_else(unfit)
}

fn floor_remainder(a: i128, b: i128) -> i128 {
    let rest = a.wrapping_rem(b);
    if rest != 0 && (rest < 0) != (b < 0) {
        rest + b
    } else {
        rest
    }
}

fn float(op: Binary, left: &Value, right: &Value) -> Option<Value> {
    let (a, b) = (left.as_float()?, right.as_float()?);
    Some(Value::Float(match op {
        Binary::Add => a + b,
        Binary::Subtract => a - b,
        Binary::Multiply => a * b,
        Binary::Divide => a / b,
        Binary::FloorDivide => (a / b).floor(),
        Binary::Modulo => {
            let rest = a % b;
            if rest != 0.0 && (rest < 0.0) != (b < 0.0) {
                rest + b
            } else {
                rest
            }
        }
        Binary::Power => a.powf(b),
    }))
}

/// Whether `item` is in `all`.
pub(super) fn contains(all: &Value, item: &Value) -> Result<bool> {
    match all {
        Value::Text(text) => match item {
            Value::Text(part) => Ok(text.as_str().contains(part.as_str())),
            other => Err(wrong("str", other)),
        },
        Value::Map(map) => Ok(map.get(item).is_some()),
        Value::Object(object) if matches!(**object, Object::Namespace(_)) => {
            Err(Error::new("a namespace cannot be searched"))
        }
        other => Ok(other.try_items()?.iter().any(|it| it.equals(item))),
    }
}

/// `value[start:stop:step]`.
pub(super) fn slice(value: &Value, bounds: [&Value; 3]) -> Result<Value> {
    let int = |bound: &Value| match bound {
        Value::None => Ok(None),
        other => other.as_int().map(Some).ok_or_else(|| wrong("int", other)),
    };
    let [start, stop, step] = [int(bounds[0])?, int(bounds[1])?, int(bounds[2])?];
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(Error::new("a slice with a step of zero"));
    }
    if let Value::Text(text) = value
        && step == 1
    {
        // The common case: no list of characters.
        let count = text.as_str().chars().count();
        let (from, to) = ends(start, stop, step, count);
        let at = |place: i128| {
            let place = usize::try_from(place).unwrap_or(0);
            let mut chars = text.as_str().char_indices();
            chars.nth(place).map_or(text.as_str().len(), |(at, _)| at)
        };
        return Ok(Value::Text(text.slice(at(from)..at(to.max(from)))));
    }
    let items = match value {
        Value::Text(_) | Value::List(_) | Value::Tuple(_) => value.try_items()?,
        Value::Object(object) if matches!(**object, Object::Range(_)) => value.try_items()?,
        other => {
            return Err(Error::new(format!(
                "a slice of a value of type {}",
                other.kind()
            )));
        }
    };
    let (mut at, to) = ends(start, stop, step, items.len());
    let mut picked = vec![];
    while if step > 0 { at < to } else { at > to } {
        let place = usize::try_from(at).expect("within the items");
        picked.push(items[place].clone());
        at += step;
    }
    Ok(match value {
        Value::Text(_) => {
            let mut out = Writer::default();
            picked.iter().for_each(|it| it.write(&mut out));
            Value::Text(out.finish())
        }
        Value::Tuple(_) => Value::Tuple(Rc::new(picked)),
        _ => Value::list(picked),
    })
}

fn ends(start: Option<i128>, stop: Option<i128>, step: i128, count: usize) -> (i128, i128) {
    let count = i128::try_from(count).unwrap_or(i128::MAX);
    let (least, most) = if step > 0 {
        (0, count)
    } else {
        (-1, count - 1)
    };
    let bound = |given: Option<i128>, default: i128| match given {
        None => default,
        Some(it) if it < 0 => it.saturating_add(count).clamp(least, most),
        Some(it) => it.clamp(least, most),
    };
    if step > 0 {
        (bound(start, least), bound(stop, most))
    } else {
        (bound(start, most), bound(stop, least))
    }
}
