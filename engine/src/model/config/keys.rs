//! The keys of `config.json`, each read with its bounds. Every refusal names the key.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::model::error::ModelError;

/// Layers above this are a damaged or hostile file: the deepest public dense model has 126.
const LAYERS_MAX: i32 = 1_024;
/// The same for heads and for the width of one, as engine.md 3.3 clamps them.
const HEADS_MAX: i32 = 1_024;
const HEAD_DIM_MAX: i32 = 2_048;
/// Any width (hidden, vocabulary, feed-forward) above this is a damaged or hostile file.
const WIDTH_MAX: i32 = 16_777_216;

/// One id or several, as the files have it.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum EosIds {
    One(u32),
    Several(Vec<u32>),
}

impl EosIds {
    #[must_use]
    pub fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Several(ids) => ids,
        }
    }
}

/// One object of the file. A model that sees pictures has its text part in `text_config`; what is
/// missing there is looked up around it.
#[derive(Clone, Copy, Debug)]
pub(in crate::model) struct Keys<'a> {
    object: &'a Map<String, Value>,
    around: Option<&'a Map<String, Value>>,
}

impl<'a> Keys<'a> {
    pub(super) fn of_config(root: &'a Value) -> Result<Self, ModelError> {
        let root = root.as_object().ok_or_else(|| ModelError::Json {
            file: "config.json".to_owned(),
            cause: "it is no object".to_owned(),
        })?;
        Ok(match root.get("text_config").and_then(Value::as_object) {
            Some(text) => Self {
                object: text,
                around: Some(root),
            },
            None => Self {
                object: root,
                around: None,
            },
        })
    }

    /// What the whole file says it is, pictures included.
    pub(in crate::model) fn model_type(&self) -> Result<&'a str, ModelError> {
        let value = self.around.unwrap_or(self.object).get("model_type");
        let value = value.ok_or_else(|| missing("model_type"))?;
        value
            .as_str()
            .ok_or_else(|| wrong("model_type", value, "a text"))
    }

    fn value(&self, key: &str) -> Option<&'a Value> {
        let inside = |object: &'a Map<String, Value>| object.get(key).filter(|v| !v.is_null());
        inside(self.object).or_else(|| self.around.and_then(inside))
    }

    /// An object under a key.
    pub(in crate::model) fn section(&self, key: &str) -> Result<Option<Self>, ModelError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let object = value.as_object();
        let object = object.ok_or_else(|| wrong(key, value, "an object"))?;
        Ok(Some(Self {
            object,
            around: None,
        }))
    }

    pub(in crate::model) fn text(&self, key: &str) -> Result<Option<&'a str>, ModelError> {
        let of = |value: &'a Value| value.as_str().ok_or_else(|| wrong(key, value, "a text"));
        self.value(key).map(of).transpose()
    }

    pub(in crate::model) fn flag(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        let of = |value: &Value| {
            value
                .as_bool()
                .ok_or_else(|| wrong(key, value, "true or false"))
        };
        self.value(key).map_or(Ok(default), of)
    }

    /// A finite number above zero, in the precision that the tensors use.
    pub(in crate::model) fn positive(&self, key: &str) -> Result<Option<f32>, ModelError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        positive(value).map_or_else(
            || Err(wrong(key, value, "a positive number")),
            |number| Ok(Some(number)),
        )
    }

    /// The same, where zero means none.
    pub(in crate::model) fn at_least_zero(&self, key: &str) -> Result<Option<f32>, ModelError> {
        match self.value(key).and_then(Value::as_f64) {
            Some(0.0) => Ok(None),
            Some(_) | None => self.positive(key),
        }
    }

    /// A number above zero and not above one.
    pub(in crate::model) fn share(&self, key: &str) -> Result<Option<f64>, ModelError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let share = value.as_f64().filter(|share| *share > 0.0 && *share <= 1.0);
        share
            .map(Some)
            .ok_or_else(|| wrong(key, value, "a share of one"))
    }

    pub(in crate::model) fn demand(&self, key: &str) -> Result<f32, ModelError> {
        self.positive(key)?.ok_or_else(|| missing(key))
    }

    fn sized(&self, key: &str, max: i32) -> Result<Option<i32>, ModelError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let size = value.as_i64().and_then(|wide| i32::try_from(wide).ok());
        size.filter(|size| (1..=max).contains(size)).map_or_else(
            || Err(wrong(key, value, &format!("within 1..={max}"))),
            |size| Ok(Some(size)),
        )
    }

    pub(in crate::model) fn width(&self, key: &str) -> Result<i32, ModelError> {
        self.sized(key, WIDTH_MAX)?.ok_or_else(|| missing(key))
    }

    pub(in crate::model) fn width_if_any(&self, key: &str) -> Result<Option<i32>, ModelError> {
        self.sized(key, WIDTH_MAX)
    }

    pub(in crate::model) fn layers(&self, key: &str) -> Result<i32, ModelError> {
        self.sized(key, LAYERS_MAX)?.ok_or_else(|| missing(key))
    }

    pub(in crate::model) fn heads(&self, key: &str) -> Result<Option<i32>, ModelError> {
        self.sized(key, HEADS_MAX)
    }

    pub(in crate::model) fn head_dim(&self, key: &str) -> Result<Option<i32>, ModelError> {
        self.sized(key, HEAD_DIM_MAX)
    }

    /// A number of things, possibly none.
    pub(in crate::model) fn count(&self, key: &str) -> Result<Option<i32>, ModelError> {
        match self.value(key).and_then(Value::as_i64) {
            Some(0) => Ok(Some(0)),
            Some(_) | None => self.sized(key, WIDTH_MAX),
        }
    }

    /// Whether the file says of a key that it has no value, rather than nothing.
    pub(in crate::model) fn is_null(&self, key: &str) -> bool {
        self.object.get(key).is_some_and(Value::is_null)
    }

    /// A list of texts, which must be of one length.
    pub(in crate::model) fn texts(
        &self,
        key: &str,
        length: usize,
    ) -> Result<Option<Vec<&'a str>>, ModelError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let texts: Option<Vec<&str>> = value
            .as_array()
            .and_then(|list| list.iter().map(Value::as_str).collect());
        let texts = texts.filter(|texts| texts.len() == length);
        texts
            .map(Some)
            .ok_or_else(|| wrong(key, value, &format!("{length} texts")))
    }

    /// A list of indices, empty when the key is absent.
    pub(in crate::model) fn indices(&self, key: &str) -> Result<Vec<usize>, ModelError> {
        let Some(value) = self.value(key) else {
            return Ok(vec![]);
        };
        let index = |value: &Value| value.as_u64().and_then(|wide| usize::try_from(wide).ok());
        let indices: Option<Vec<usize>> = value
            .as_array()
            .and_then(|list| list.iter().map(index).collect());
        indices.ok_or_else(|| wrong(key, value, "a list of layer numbers"))
    }

    /// A list of numbers as of [`Self::positive`], which must be of one length.
    pub(in crate::model) fn positives(
        &self,
        key: &str,
        length: usize,
    ) -> Result<Option<Vec<f32>>, ModelError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let numbers: Option<Vec<f32>> = value
            .as_array()
            .and_then(|list| list.iter().map(positive).collect());
        let numbers = numbers.filter(|numbers| numbers.len() == length);
        numbers
            .map(Some)
            .ok_or_else(|| wrong(key, value, &format!("{length} positive numbers")))
    }

    /// The end tokens, none when the key is absent.
    pub(in crate::model) fn eos_ids(&self) -> Result<Vec<u32>, ModelError> {
        const KEY: &str = "eos_token_id";
        let Some(value) = self.value(KEY) else {
            return Ok(vec![]);
        };
        let ids = EosIds::deserialize(value).map_err(|_| wrong(KEY, value, "one id or several"))?;
        Ok(ids.into_vec())
    }

    /// Refuses a feature that the network does not have.
    pub(in crate::model) fn refuse(&self, key: &str) -> Result<(), ModelError> {
        match self.value(key) {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(_) => Err(ModelError::Unsupported(key.to_owned())),
        }
    }
}

fn positive(value: &Value) -> Option<f32> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a config's numbers fit f32 by design"
    )]
    let narrow = value.as_f64().map(|wide| wide as f32);
    narrow.filter(|number| number.is_finite() && *number > 0.0)
}

pub(in crate::model) fn missing(key: &str) -> ModelError {
    ModelError::Inconsistent(format!("{key} is missing"))
}

/// What a hostile file holds there may be long.
const SHOWN_CHARS_MAX: usize = 64;

fn wrong(key: &str, value: &Value, expected: &str) -> ModelError {
    let found: String = value.to_string().chars().take(SHOWN_CHARS_MAX).collect();
    ModelError::Inconsistent(format!("{key} is {found}, not {expected}"))
}
