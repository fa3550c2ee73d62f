//! Jinja as `transformers` renders chat templates, with texts that know where they came from.
//!
//! The language is the part of Jinja2 that stands in one file, by Python's rules for values; what it
//! gives is held against Jinja2 itself (`engine/tests/templates`). It is our own because no crate
//! tells which part of a rendered prompt the template wrote and which a user: without that, text of a
//! user that looks like a mark would be one.

mod args;
mod ast;
mod checks;
mod error;
mod eval;
mod filters;
mod format;
mod json;
mod lexer;
mod methods;
mod object;
mod ops;
mod parser;
mod repr;
mod scope;
#[cfg(test)]
mod tests;
pub(super) mod text;
pub(super) mod value;

use std::sync::Arc;

use error::Result;
pub(super) use error::{Cause, Error};
use text::Text;
use value::Value;

use super::clock::Moment;

/// A template that was read.
pub(super) struct Program {
    body: ast::Block,
    names: Vec<Arc<str>>,
}

impl Program {
    /// # Errors
    /// It does not parse.
    pub(super) fn parse(source: &str) -> Result<Self> {
        let parser::Parsed { body, names } = parser::parse(source)?;
        Ok(Self { body, names })
    }

    /// # Errors
    /// It breaks over these variables, or says no to them.
    pub(super) fn render(&self, variables: Vec<(&str, Value)>, now: Moment) -> Result<Text> {
        eval::render(&self.body, &self.names, variables, now)
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Program({} statements)", self.body.len())
    }
}
