//! Which names mean what, from the innermost block outwards.

use std::cell::RefCell;
use std::rc::Rc;

use super::ast::Name;
use super::value::Value;

pub(in crate::language) struct Scope {
    /// Few: a search from end to end is the quickest.
    names: RefCell<Vec<(Name, Value)>>,
    outer: Option<Rc<Self>>,
}

impl Scope {
    pub(super) fn root() -> Rc<Self> {
        Rc::new(Self {
            names: RefCell::default(),
            outer: None,
        })
    }

    pub(super) fn within(outer: &Rc<Self>) -> Rc<Self> {
        Rc::new(Self {
            names: RefCell::default(),
            outer: Some(Rc::clone(outer)),
        })
    }

    pub(super) fn get(&self, name: Name) -> Option<Value> {
        let mut scope = self;
        loop {
            let names = scope.names.borrow();
            if let Some((_, value)) = names.iter().find(|(known, _)| *known == name) {
                return Some(value.clone());
            }
            drop(names);
            scope = scope.outer.as_deref()?;
        }
    }

    pub(super) fn set(&self, name: Name, value: Value) {
        let mut names = self.names.borrow_mut();
        match names.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => names.push((name, value)),
        }
    }
}
