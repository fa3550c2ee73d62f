//! Arguments of filters, tests, methods and functions.

use std::sync::Arc;

use super::error::{Error, Result};
use super::text::Text;
use super::value::Value;

#[derive(Clone, Default)]
pub(super) struct Given {
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(Arc<str>, Value)>,
}

impl Given {
    /// By the names of the parameters, in their order.
    pub(super) fn bind<const N: usize>(self, names: [&str; N]) -> Result<[Option<Value>; N]> {
        if self.positional.len() > N {
            return Err(Error::new("too many arguments"));
        }
        let mut bound = [const { None }; N];
        for (place, value) in self.positional.into_iter().enumerate() {
            bound[place] = Some(value);
        }
        for (name, value) in self.named {
            let place = names.iter().position(|it| **it == *name);
            let place = place.ok_or_else(|| Error::new(format!("unknown argument {name}")))?;
            if bound[place].replace(value).is_some() {
                return Err(Error::new(format!("argument {name} comes twice")));
            }
        }
        Ok(bound)
    }
}

/// What an argument must be; who gives something else hears so.
pub(super) trait Argument: Sized {
    fn required(self) -> Result<Value>;
    fn text(self) -> Result<Text>;
    fn text_if_any(self) -> Result<Option<Text>>;
    fn int(self) -> Result<i128>;
    fn int_or(self, default: i128) -> Result<i128>;
    fn flag_or(self, default: bool) -> bool;
}

impl Argument for Option<Value> {
    fn required(self) -> Result<Value> {
        self.ok_or_else(|| Error::new("an argument is missing"))
    }

    fn text(self) -> Result<Text> {
        match self.required()? {
            Value::Text(text) => Ok(text),
            other => Err(wrong("str", &other)),
        }
    }

    /// `None` counts as absent.
    fn text_if_any(self) -> Result<Option<Text>> {
        match self {
            None | Some(Value::None) => Ok(None),
            given => given.text().map(Some),
        }
    }

    fn int(self) -> Result<i128> {
        let given = self.required()?;
        given.as_int().ok_or_else(|| wrong("int", &given))
    }

    fn int_or(self, default: i128) -> Result<i128> {
        match self {
            None | Some(Value::None) => Ok(default),
            given => given.int(),
        }
    }

    fn flag_or(self, default: bool) -> bool {
        self.map_or(default, |it| it.is_true())
    }
}

pub(super) fn wrong(wanted: &str, given: &Value) -> Error {
    Error::new(format!("{wanted} was expected, not {}", given.kind()))
}
