//! How a model's family writes, as far as grammars ask.

use std::collections::BTreeMap;

use super::lark::literal;
use crate::text::{CallFormat, Dialect};

/// See the module.
#[derive(Debug)]
pub struct Family {
    dialect: Dialect,
    syntax: Syntax,
    /// Marks that are one token each.
    marks: BTreeMap<&'static str, u32>,
}

/// Which of a format's two ways of writing the chat template shows the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    /// Tagged: JSON. Mistral: an array of calls.
    Json,
    /// Tagged: `<function=name>`. Mistral: `name[ARGS]`.
    Named,
}

impl Family {
    #[must_use]
    pub fn new(dialect: Dialect, template: &str, id: impl Fn(&str) -> Option<u32>) -> Self {
        let marks: BTreeMap<_, _> = dialect
            .marks()
            .filter_map(|mark| Some((mark, id(mark)?)))
            .collect();
        let is_named = match dialect.calls {
            CallFormat::Tagged => template.contains("<function="),
            CallFormat::Mistral => marks.contains_key("[ARGS]"),
            CallFormat::FunctionGemma
            | CallFormat::Gemma
            | CallFormat::Harmony
            | CallFormat::Llama => true,
        };
        Self {
            dialect,
            syntax: if is_named {
                Syntax::Named
            } else {
                Syntax::Json
            },
            marks,
        }
    }

    /// The tokens of marks, which are no text in a grammar.
    #[must_use]
    pub fn mark_ids(&self) -> Vec<u32> {
        self.marks.values().copied().collect()
    }

    pub(super) const fn format(&self) -> CallFormat {
        self.dialect.calls
    }

    pub(super) const fn syntax(&self) -> Syntax {
        self.syntax
    }

    pub(super) const fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(super) fn id(&self, mark: &str) -> Option<u32> {
        self.marks.get(mark).copied()
    }

    /// A mark in a grammar: its token, or its text where it has none.
    pub(super) fn mark(&self, mark: &str) -> String {
        match self.id(mark) {
            Some(id) => format!("<[{id}]>"),
            None => literal(mark),
        }
    }

    /// The token that begins a call, if one does.
    pub(super) fn call_opening(&self) -> Option<u32> {
        self.id(self.dialect.calls.marks()?.open)
    }

    /// The token by which the model may open a thought of its own, if that is one.
    pub(super) fn thought_opening(&self) -> Option<u32> {
        self.id(self.dialect.reasoning?.open)
    }
}
