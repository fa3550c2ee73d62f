//! Answers that must have a form: JSON, a schema, calls of the request's functions.
//!
//! A grammar is compiled once for each form and tenant, on a thread beside the engine's; from then on
//! each answer walks through its own copy, and hears before each token which ones may come.

#[cfg(feature = "mlx")]
mod compile;

use std::fmt;

use crate::chat::ChatRequest;
use crate::failure::Failure;
use crate::kv::Scope;
use crate::sampling::TokenMask;

#[cfg(feature = "mlx")]
pub use compile::{Compiler, Family};

/// Compiles what requests ask for; shared by all who hand them in.
pub trait Grammars: fmt::Debug + Send + Sync {
    /// May take milliseconds, and never more than its own bounds allow. What is compiled is kept for
    /// the scope that asked, and not at all without one: else the time would tell what others ask for.
    ///
    /// # Errors
    /// 400: no answer can be held to this form, with the keyword that is at fault.
    fn compile(
        &self,
        request: &ChatRequest,
        scope: Option<&Scope>,
    ) -> Result<Box<dyn Constraint>, Failure>;
}

/// One answer on its way through its grammar.
pub trait Constraint: fmt::Debug + Send {
    /// The tokens that may come next. None at all when the way is lost.
    fn allowed(&self, place: Place) -> TokenMask<'_>;

    /// The answer grew by this token.
    fn push(&mut self, token: u32, place: Place);

    /// Whether following the form any further costs more than a request may.
    fn is_lost(&self) -> bool;
}

/// Where a token belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Answer,
    /// Thought, which has no form, as far as the family of models keeps it apart.
    Thought,
}
