//! Filters that go through items.

use std::cmp::Ordering;

use super::super::args::{Argument as _, Given, wrong};
use super::super::ast::Binary;
use super::super::checks;
use super::super::error::{Error, Result};
use super::super::eval::Run;
use super::super::object::Object;
use super::super::ops;
use super::super::text::{Text, Writer};
use super::super::value::Value;

/// A key to sort or group by, of each item.
struct Keyed {
    keys: Vec<Value>,
    item: Value,
}

impl Run<'_> {
    pub(super) fn filtered_items(
        &mut self,
        value: &Value,
        name: &str,
        given: Given,
    ) -> Result<Value> {
        match name {
            "list" => Ok(Value::list(value.try_items()?)),
            "first" => Ok(value
                .try_items()?
                .into_iter()
                .next()
                .unwrap_or(Value::Undefined)),
            "last" => match value {
                Value::Object(object) if matches!(**object, Object::Generator(_)) => {
                    Err(Error::new("the last of a generator"))
                }
                other => Ok(other.try_items()?.pop().unwrap_or(Value::Undefined)),
            },
            "reverse" => {
                let mut items = value.try_items()?;
                items.reverse();
                if matches!(value, Value::Text(_)) {
                    let mut out = Writer::default();
                    items.iter().for_each(|it| it.write(&mut out));
                    return Ok(Value::Text(out.finish()));
                }
                Ok(Value::generator(items))
            }
            "join" => {
                let [separator, attribute] = given.bind(["d", "attribute"])?;
                let separator = separator.map_or_else(|| Text::own(""), |it| it.to_text());
                let mut out = Writer::default();
                for (ix, item) in value.try_items()?.iter().enumerate() {
                    if ix > 0 {
                        out.push_text(&separator);
                    }
                    self.path(item, attribute.as_ref())?.write(&mut out);
                }
                Ok(Value::Text(out.finish()))
            }
            "items" => match value {
                Value::Undefined => Ok(Value::generator(vec![])),
                Value::Map(map) => {
                    let pairs = map
                        .iter()
                        .map(|(key, value)| Value::tuple(vec![key.clone(), value.clone()]));
                    Ok(Value::generator(pairs.collect()))
                }
                other => Err(wrong("dict", other)),
            },
            "map" => self.mapped(value, given),
            "select" | "reject" => self.picked(value, given, None, name == "select"),
            "selectattr" | "rejectattr" => {
                let mut given = given;
                if given.positional.is_empty() {
                    return Err(Error::new("an attribute's name is missing"));
                }
                let attribute = given.positional.remove(0);
                self.picked(value, given, Some(attribute), name == "selectattr")
            }
            "sum" => {
                let [attribute, start] = given.bind(["attribute", "start"])?;
                let mut sum = start.unwrap_or(Value::Int(0));
                for item in value.try_items()? {
                    let item = self.path(&item, attribute.as_ref())?;
                    sum = ops::binary(Binary::Add, &sum, &item)?;
                }
                Ok(sum)
            }
            "min" | "max" => {
                let [cased, attribute] = given.bind(["case_sensitive", "attribute"])?;
                let keyed = self.keyed(value, attribute.as_ref(), cased.flag_or(false))?;
                let wanted = if name == "min" {
                    Ordering::Less
                } else {
                    Ordering::Greater
                };
                let mut best: Option<Keyed> = None;
                for next in keyed {
                    let is_better = match &best {
                        None => true,
                        Some(best) => next.keys[0].compare(&best.keys[0])? == Some(wanted),
                    };
                    if is_better {
                        best = Some(next);
                    }
                }
                Ok(best.map_or(Value::Undefined, |it| it.item))
            }
            "sort" => {
                let names = ["reverse", "case_sensitive", "attribute"];
                let [reverse, cased, attribute] = given.bind(names)?;
                let mut keyed = self.keyed(value, attribute.as_ref(), cased.flag_or(false))?;
                sort(&mut keyed, reverse.flag_or(false))?;
                Ok(Value::list(keyed.into_iter().map(|it| it.item).collect()))
            }
            "unique" => {
                let [cased, attribute] = given.bind(["case_sensitive", "attribute"])?;
                let keyed = self.keyed(value, attribute.as_ref(), cased.flag_or(false))?;
                let mut seen: Vec<Value> = vec![];
                let mut kept = vec![];
                for Keyed { mut keys, item } in keyed {
                    let key = keys.remove(0);
                    if !seen.iter().any(|it| it.equals(&key)) {
                        seen.push(key);
                        kept.push(item);
                    }
                }
                Ok(Value::generator(kept))
            }
            "groupby" => self.grouped(value, given),
            "dictsort" => {
                let [cased, by, reverse] = given.bind(["case_sensitive", "by", "reverse"])?;
                let Value::Map(map) = value else {
                    return Err(wrong("dict", value));
                };
                let by = by.text_if_any()?;
                let is_by_value = match by.as_ref().map_or("key", Text::as_str) {
                    "key" => false,
                    "value" => true,
                    _ => return Err(Error::new("dictsort by key or value")),
                };
                let is_cased = cased.flag_or(false);
                let keyed = map.iter().map(|(key, value)| Keyed {
                    keys: vec![lowered(if is_by_value { value } else { key }, is_cased)],
                    item: Value::tuple(vec![key.clone(), value.clone()]),
                });
                let mut keyed: Vec<Keyed> = keyed.collect();
                sort(&mut keyed, reverse.flag_or(false))?;
                Ok(Value::list(keyed.into_iter().map(|it| it.item).collect()))
            }
            "batch" => {
                let [size, fill] = given.bind(["linecount", "fill_with"])?;
                let size = usize::try_from(size.int()?).unwrap_or(0).max(1);
                let items = value.try_items()?;
                let mut batches: Vec<Vec<Value>> = items.chunks(size).map(<[_]>::to_vec).collect();
                if let (Some(fill), Some(last)) = (
                    fill.filter(|it| !matches!(it, Value::None)),
                    batches.last_mut(),
                ) {
                    last.resize(size, fill);
                }
                Ok(Value::generator(
                    batches.into_iter().map(Value::list).collect(),
                ))
            }
            "slice" => {
                let [count, fill] = given.bind(["slices", "fill_with"])?;
                let count = usize::try_from(count.int()?).unwrap_or(0).clamp(1, 10_000);
                let items = value.try_items()?;
                let (each, more) = (items.len() / count, items.len() % count);
                let fill = fill.filter(|it| !matches!(it, Value::None));
                let mut start = 0;
                let mut slices = vec![];
                for ix in 0..count {
                    let end = start + each + usize::from(ix < more);
                    let mut slice = items[start..end].to_vec();
                    if ix >= more
                        && let Some(fill) = &fill
                    {
                        slice.push(fill.clone());
                    }
                    slices.push(Value::list(slice));
                    start = end;
                }
                Ok(Value::generator(slices))
            }
            _ => Err(Error::new(format!("unknown filter {name}"))),
        }
    }

    fn mapped(&mut self, value: &Value, mut given: Given) -> Result<Value> {
        let items = value.try_items()?;
        let mut mapped = Vec::with_capacity(items.len());
        if given.positional.is_empty() {
            let [attribute, default] = given.bind(["attribute", "default"])?;
            let attribute = Some(attribute.required()?);
            for item in items {
                let found = self.path(&item, attribute.as_ref())?;
                mapped.push(match (&found, &default) {
                    (Value::Undefined, Some(default)) => default.clone(),
                    _ => found,
                });
            }
            return Ok(Value::generator(mapped));
        }
        let name = Some(given.positional.remove(0)).text()?;
        if !super::is_known(name.as_str()) {
            return Err(Error::new("map by an unknown filter"));
        }
        for item in items {
            mapped.push(self.filtered(&item, name.as_str(), given.clone())?);
        }
        Ok(Value::generator(mapped))
    }

    fn picked(
        &mut self,
        value: &Value,
        mut given: Given,
        attribute: Option<Value>,
        wanted: bool,
    ) -> Result<Value> {
        let test = if given.positional.is_empty() {
            None
        } else {
            Some(Some(given.positional.remove(0)).text()?)
        };
        let mut picked = vec![];
        for item in value.try_items()? {
            let tested = self.path(&item, attribute.as_ref())?;
            let holds = match &test {
                None => tested.is_true(),
                Some(test) => checks::holds(&tested, test.as_str(), given.clone())?,
            };
            if holds == wanted {
                picked.push(item);
            }
        }
        Ok(Value::generator(picked))
    }

    fn grouped(&mut self, value: &Value, given: Given) -> Result<Value> {
        let [attribute, default, cased] = given.bind(["attribute", "default", "case_sensitive"])?;
        let is_cased = cased.flag_or(false);
        let attribute = Some(attribute.required()?);
        let mut keyed = vec![];
        for item in value.try_items()? {
            let found = self.path(&item, attribute.as_ref())?;
            let key = match (found, &default) {
                (Value::Undefined, Some(default)) => default.clone(),
                (found, _) => found,
            };
            keyed.push(Keyed {
                keys: vec![lowered(&key, is_cased), key],
                item,
            });
        }
        let by_first = |it: &mut Vec<Keyed>| sort_by(it, 1, false);
        by_first(&mut keyed)?;
        let mut groups: Vec<(Value, Value, Vec<Value>)> = vec![];
        for Keyed { mut keys, item } in keyed {
            let (original, key) = (keys.pop(), keys.pop());
            let key = key.expect("both keys are there");
            match groups.last_mut() {
                Some((last, _, items)) if last.equals(&key) => items.push(item),
                Some(_) | None => {
                    groups.push((key, original.expect("both keys are there"), vec![item]));
                }
            }
        }
        let groups = groups
            .into_iter()
            .map(|(_, key, items)| Value::tuple(vec![key, Value::list(items)]));
        Ok(Value::list(groups.collect()))
    }

    /// `a.b.0` of an item; the item itself without an attribute.
    fn path(&mut self, item: &Value, attribute: Option<&Value>) -> Result<Value> {
        match attribute {
            None | Some(Value::None) => Ok(item.clone()),
            Some(Value::Text(path)) => {
                let mut value = item.clone();
                for part in path.as_str().split('.') {
                    let key = match part.parse::<i128>() {
                        Ok(place) => Value::Int(place),
                        Err(_) => Value::own(part),
                    };
                    value = self.item(&value, &key)?;
                }
                Ok(value)
            }
            Some(place) => self.item(item, place),
        }
    }

    fn keyed(
        &mut self,
        value: &Value,
        attribute: Option<&Value>,
        is_cased: bool,
    ) -> Result<Vec<Keyed>> {
        let several: Vec<Option<Value>> = match attribute {
            Some(Value::Text(path)) => {
                let parts = path.as_str().split(',');
                parts.map(|it| Some(Value::own(it))).collect()
            }
            other => vec![other.cloned()],
        };
        let mut keyed = vec![];
        for item in value.try_items()? {
            let mut keys = vec![];
            for attribute in &several {
                keys.push(lowered(&self.path(&item, attribute.as_ref())?, is_cased));
            }
            keyed.push(Keyed { keys, item });
        }
        Ok(keyed)
    }
}

fn lowered(value: &Value, is_cased: bool) -> Value {
    match value {
        Value::Text(text) if !is_cased => Value::Text(text.map(str::to_lowercase)),
        other => other.clone(),
    }
}

fn sort(keyed: &mut [Keyed], is_reversed: bool) -> Result<()> {
    let depth = keyed.first().map_or(0, |it| it.keys.len());
    sort_by(keyed, depth, is_reversed)
}

/// By the first `depth` keys. Equal ones stay in order, whichever way round it goes.
fn sort_by(keyed: &mut [Keyed], depth: usize, is_reversed: bool) -> Result<()> {
    let mut flaw = None;
    keyed.sort_by(|a, b| {
        for (a, b) in a.keys.iter().zip(&b.keys).take(depth) {
            if a.equals(b) {
                continue;
            }
            match a.compare(b) {
                Ok(order) => {
                    let order = order.unwrap_or(Ordering::Equal);
                    return if is_reversed { order.reverse() } else { order };
                }
                Err(error) => {
                    flaw.get_or_insert(error);
                    return Ordering::Equal;
                }
            }
        }
        Ordering::Equal
    });
    flaw.map_or(Ok(()), Err)
}
