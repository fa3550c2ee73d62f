//! The values of a template that are no plain data.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::ast::{ForLoop, MacroDecl};
use super::scope::Scope;
use super::text::Text;
use super::value::{Map, Value};

pub(in crate::language) enum Object {
    /// `cycler(..)`: its items and the place of the present one.
    Cycler(Vec<Value>, Cell<usize>),
    /// A global function by its name.
    Function(&'static str),
    /// What filters such as `map` give: items that can be gone through once.
    Generator(RefCell<Vec<Value>>),
    /// `joiner(..)`: nothing the first time, its text from then on.
    Joiner(Text, Cell<bool>),
    Loop(Loop),
    Macro(Macro),
    /// A method with what it belongs to.
    Method(Value, Arc<str>),
    Namespace(RefCell<Map>),
    Range(Range),
    /// `keys()`, `values()` or `items()` of a dictionary.
    View(&'static str, Vec<Value>),
}

pub(in crate::language) struct Macro {
    pub(super) decl: Arc<MacroDecl>,
    /// Where it was written: it sees what is there when it is called.
    pub(super) scope: Rc<Scope>,
    pub(super) caller: Option<Value>,
}

pub(in crate::language) struct Loop {
    pub(super) items: Rc<Vec<Value>>,
    pub(super) at: Cell<usize>,
    pub(super) depth: usize,
    /// What `changed` was last given.
    pub(super) last: RefCell<Option<Vec<Value>>>,
    /// Absent where the loop is not recursive.
    pub(super) again: Option<(Arc<ForLoop>, Rc<Scope>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::language) struct Range {
    pub(super) start: i128,
    pub(super) stop: i128,
    /// Never zero.
    pub(super) step: i128,
}

impl Range {
    pub(super) fn len(self) -> usize {
        let distance = if self.step > 0 {
            self.stop.saturating_sub(self.start)
        } else {
            self.start.saturating_sub(self.stop)
        };
        let step = self.step.saturating_abs();
        let count = distance.saturating_add(step - 1).div_euclid(step).max(0);
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    fn items(self) -> Vec<Value> {
        let numbers = std::iter::successors(Some(self.start), |at| at.checked_add(self.step));
        numbers.take(self.len()).map(Value::Int).collect()
    }
}

impl Object {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Cycler(..) => "Cycler",
            Self::Function(_) => "function",
            Self::Generator(_) => "generator",
            Self::Joiner(..) => "Joiner",
            Self::Loop(_) => "LoopContext",
            Self::Macro(_) => "Macro",
            Self::Method(..) => "method",
            Self::Namespace(_) => "Namespace",
            Self::Range(_) => "range",
            Self::View(kind, _) => kind,
        }
    }

    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Self::Loop(it) => Some(it.items.len()),
            Self::Range(range) => Some(range.len()),
            Self::View(_, items) => Some(items.len()),
            Self::Cycler(..)
            | Self::Function(_)
            | Self::Generator(_)
            | Self::Joiner(..)
            | Self::Macro(_)
            | Self::Method(..)
            | Self::Namespace(_) => None,
        }
    }

    pub(super) fn items(&self) -> Option<Vec<Value>> {
        match self {
            Self::Generator(items) => Some(items.take()),
            Self::Range(range) => Some(range.items()),
            Self::View(_, items) => Some(items.clone()),
            Self::Cycler(..)
            | Self::Function(_)
            | Self::Joiner(..)
            | Self::Loop(_)
            | Self::Macro(_)
            | Self::Method(..)
            | Self::Namespace(_) => None,
        }
    }

    pub(super) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Range(a), Self::Range(b)) => a == b,
            (Self::View(a, left), Self::View(b, right)) => {
                a == b
                    && *a != "dict_values"
                    && left.len() == right.len()
                    && left
                        .iter()
                        .all(|it| right.iter().any(|other| it.equals(other)))
            }
            _ => false,
        }
    }

    pub(super) const fn is_callable(&self) -> bool {
        match self {
            Self::Function(_)
            | Self::Joiner(..)
            | Self::Loop(_)
            | Self::Macro(_)
            | Self::Method(..) => true,
            Self::Cycler(..)
            | Self::Generator(_)
            | Self::Namespace(_)
            | Self::Range(_)
            | Self::View(..) => false,
        }
    }
}
