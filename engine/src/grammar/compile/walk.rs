//! One answer's way through a grammar.

use std::fmt;
use std::sync::Arc;

use llguidance::Matcher;
use llguidance::toktrie::SimpleVob;

use super::super::{Constraint, Place};
use crate::sampling::TokenMask;

/// See the module.
pub(super) struct Walk {
    matcher: Matcher,
    /// What may come next in the answer.
    mask: SimpleVob,
    /// What may come next in a thought.
    thought: Arc<SimpleVob>,
    thoughts: Thoughts,
    is_lost: bool,
}

/// How the model's thoughts are told from its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thoughts {
    /// They come first and have no form. The model may open one itself where there is a token for
    /// it, before all else.
    Apart {
        opening: Option<u32>,
        /// The token that begins a call, which ends a thought as well.
        call: Option<u32>,
    },
    /// The grammar itself describes the thought before the answer.
    InGrammar,
    /// The model writes no thoughts.
    None,
}

/// Prints no text.
impl fmt::Debug for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Walk({} tokens may come)", self.mask.num_set())
    }
}

impl Walk {
    /// `mask` is what the grammar begins with.
    pub(super) fn new(
        matcher: Matcher,
        mut mask: SimpleVob,
        thought: Arc<SimpleVob>,
        thoughts: Thoughts,
    ) -> Self {
        if let Thoughts::Apart {
            opening: Some(id), ..
        } = thoughts
        {
            mask.allow_token(id);
        }
        Self {
            matcher,
            mask,
            thought,
            thoughts,
            is_lost: false,
        }
    }

    /// From now on there is no thought to open. Whether this token opened one.
    fn begin(&mut self, token: u32) -> bool {
        let Thoughts::Apart {
            opening: Some(id),
            call,
        } = self.thoughts
        else {
            return false;
        };
        let opening = None;
        self.thoughts = Thoughts::Apart { opening, call };
        self.mask.disallow_token(id);
        token == id
    }

    fn go_on(&mut self, token: u32) {
        // Once the grammar has ended only ends may follow, and they change nothing.
        if self.matcher.is_stopped() {
            return;
        }
        let next = self.matcher.consume_token(token);
        match next.and_then(|()| self.matcher.compute_mask_or_eos()) {
            Ok(mask) => self.mask = mask,
            Err(_) => {
                self.is_lost = true;
                self.mask.set_all(false);
            }
        }
    }
}

impl Constraint for Walk {
    fn allowed(&self, place: Place) -> TokenMask<'_> {
        let mask = match (place, self.thoughts) {
            (Place::Thought, Thoughts::Apart { .. }) => &*self.thought,
            (Place::Thought, Thoughts::InGrammar | Thoughts::None) | (Place::Answer, _) => {
                &self.mask
            }
        };
        TokenMask(mask.as_slice())
    }

    fn push(&mut self, token: u32, place: Place) {
        let is_opening = self.begin(token);
        let is_apart = match self.thoughts {
            Thoughts::Apart { call, .. } => place == Place::Thought && call != Some(token),
            Thoughts::InGrammar | Thoughts::None => false,
        };
        if !is_opening && !is_apart && !self.is_lost {
            self.go_on(token);
        }
    }

    fn is_lost(&self) -> bool {
        self.is_lost
    }
}
