//! Runs a template's tree. What a call of a macro, method or function does is in `eval/call.rs`.

mod call;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::args::Given;
use super::ast::{
    Args, Block, Comparison, Expr, ExprKind, FilterCall, ForLoop, Name, Stmt, StmtKind, Target,
};
use super::checks;
use super::error::{Error, Result};
use super::methods;
use super::object::{Loop, Macro, Object};
use super::ops;
use super::scope::Scope;
use super::text::{Text, Writer};
use super::value::{Map, Value};
use crate::language::clock::Moment;

/// Statements and expressions that one rendering may take: seconds.
const STEPS_MAX: u64 = 100_000_000;
/// Calls of macros and of loops within one another.
const DEPTH_MAX: usize = 60;
/// Bytes of one text, or items of one list.
const SIZE_MAX: usize = 64 << 20;
/// Bytes of text that one rendering may write, what it throws away included.
const WRITTEN_BYTES_MAX: usize = 256 << 20;

/// One rendering.
pub(super) struct Run<'a> {
    names: &'a [Arc<str>],
    now: Moment,
    out: Writer,
    /// Bytes of texts that were written and taken away.
    taken_bytes: usize,
    steps: u64,
    depth: usize,
}

/// How a block ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Break,
    Continue,
    Next,
}

pub(super) fn render(
    body: &Block,
    names: &[Arc<str>],
    variables: Vec<(&str, Value)>,
    now: Moment,
) -> Result<Text> {
    let scope = Scope::root();
    for (word, value) in variables {
        if let Some(place) = names.iter().position(|it| **it == *word) {
            scope.set(Name(u32::try_from(place).expect("few names")), value);
        }
    }
    let mut run = Run {
        names,
        now,
        out: Writer::default(),
        taken_bytes: 0,
        steps: 0,
        depth: 0,
    };
    run.block(body, &scope)?;
    Ok(run.out.finish())
}

/// # Errors
/// The two have no order, or the right one holds nothing.
pub(super) fn compared(comparison: Comparison, left: &Value, right: &Value) -> Result<bool> {
    use std::cmp::Ordering::{Greater, Less};
    let order = || left.compare(right);
    Ok(match comparison {
        Comparison::Equal => left.equals(right),
        Comparison::NotEqual => !left.equals(right),
        Comparison::In => ops::contains(right, left)?,
        Comparison::NotIn => !ops::contains(right, left)?,
        Comparison::Less => order()? == Some(Less),
        Comparison::LessOrEqual => order()?.is_some_and(|it| it != Greater),
        Comparison::Greater => order()? == Some(Greater),
        Comparison::GreaterOrEqual => order()?.is_some_and(|it| it != Less),
    })
}

impl Run<'_> {
    fn block(&mut self, block: &Block, scope: &Rc<Scope>) -> Result<Flow> {
        for stmt in block {
            let flow = self
                .stmt(stmt, scope)
                .map_err(|error| error.at(stmt.line))?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn stmt(&mut self, stmt: &Stmt, scope: &Rc<Scope>) -> Result<Flow> {
        self.spend()?;
        match &stmt.kind {
            StmtKind::Text(text) => self.out.push_text(text),
            StmtKind::Print(expr) => {
                let value = self.eval(expr, scope)?;
                value.write(&mut self.out);
            }
            StmtKind::If(branches, otherwise) => {
                for (condition, body) in branches {
                    if self.eval(condition, scope)?.is_true() {
                        return self.block(body, scope);
                    }
                }
                return self.block(otherwise, scope);
            }
            StmtKind::For(it) => {
                let items = self.eval(&it.iterable, scope)?;
                self.for_loop(it, &items, scope, 1)?;
            }
            StmtKind::Set(target, expr) => {
                let value = self.eval(expr, scope)?;
                assign(target, value, scope)?;
            }
            StmtKind::SetBlock(target, filters, body) => {
                let text = self.captured(body, &Scope::within(scope))?;
                let value = self.through(Value::Text(text), filters, scope)?;
                assign(target, value, scope)?;
            }
            StmtKind::Filter(filters, body) => {
                let text = self.captured(body, &Scope::within(scope))?;
                let value = self.through(Value::Text(text), filters, scope)?;
                value.write(&mut self.out);
            }
            StmtKind::Scoped(body) => return self.block(body, &Scope::within(scope)),
            StmtKind::With(names, body) => {
                let inner = Scope::within(scope);
                for (target, expr) in names {
                    let value = self.eval(expr, &inner)?;
                    assign(target, value, &inner)?;
                }
                return self.block(body, &inner);
            }
            StmtKind::Macro(decl) => {
                let name = decl.name.expect("a macro statement has a name");
                let itself = Macro {
                    decl: Arc::clone(decl),
                    scope: Rc::clone(scope),
                    caller: None,
                };
                scope.set(name, Value::object(Object::Macro(itself)));
            }
            StmtKind::Call(expr, decl) => {
                let ExprKind::Call(callee, args) = &expr.kind else {
                    return Err(Error::new("call without a call"));
                };
                let callee = self.eval(callee, scope)?;
                let given = self.given(args, scope)?;
                let caller = Value::object(Object::Macro(Macro {
                    decl: Arc::clone(decl),
                    scope: Rc::clone(scope),
                    caller: None,
                }));
                let text = self.call_with(&callee, given, Some(caller))?;
                text.write(&mut self.out);
            }
            StmtKind::Break => return Ok(Flow::Break),
            StmtKind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn for_loop(
        &mut self,
        it: &Arc<ForLoop>,
        iterable: &Value,
        scope: &Rc<Scope>,
        depth: usize,
    ) -> Result<()> {
        let mut items = iterable.try_items()?;
        if let Some(filter) = &it.filter {
            let mut kept = vec![];
            for item in items {
                let inner = Scope::within(scope);
                assign(&it.target, item.clone(), &inner)?;
                if self.eval(filter, &inner)?.is_true() {
                    kept.push(item);
                }
            }
            items = kept;
        }
        if items.is_empty() {
            self.block(&it.otherwise, &Scope::within(scope))?;
            return Ok(());
        }
        let items = Rc::new(items);
        let again = it.is_recursive.then(|| (Arc::clone(it), Rc::clone(scope)));
        let itself = Value::object(Object::Loop(Loop {
            items: Rc::clone(&items),
            at: Cell::new(0),
            depth,
            last: RefCell::new(None),
            again,
        }));
        let Value::Object(object) = &itself else {
            unreachable!("made above");
        };
        let Object::Loop(state) = &**object else {
            unreachable!("made above");
        };
        for (place, item) in items.iter().enumerate() {
            state.at.set(place);
            let inner = Scope::within(scope);
            inner.set(it.itself, itself.clone());
            assign(&it.target, item.clone(), &inner)?;
            match self.block(&it.body, &inner)? {
                Flow::Break => break,
                Flow::Continue | Flow::Next => {}
            }
        }
        Ok(())
    }

    /// What a block writes, taken away from the output.
    fn captured(&mut self, body: &Block, scope: &Rc<Scope>) -> Result<Text> {
        let before = std::mem::take(&mut self.out);
        let ended = self.block(body, scope);
        let inner = std::mem::replace(&mut self.out, before);
        self.taken_bytes = self.taken_bytes.saturating_add(inner.len());
        ended.map(|_| inner.finish())
    }

    fn through(
        &mut self,
        mut value: Value,
        filters: &[FilterCall],
        scope: &Rc<Scope>,
    ) -> Result<Value> {
        for filter in filters {
            let given = self.given(&filter.args, scope)?;
            value = self
                .filtered(&value, &filter.name, given)
                .map_err(|error| error.at(filter.line))?;
        }
        Ok(value)
    }

    fn spend(&mut self) -> Result<()> {
        self.steps += 1;
        let written = self.taken_bytes.saturating_add(self.out.len());
        if self.steps > STEPS_MAX || written > WRITTEN_BYTES_MAX {
            return Err(Error::new("it takes too long or writes too much"));
        }
        Ok(())
    }

    fn eval(&mut self, expr: &Expr, scope: &Rc<Scope>) -> Result<Value> {
        self.spend()?;
        let value = self.value(expr, scope);
        let size = match &value {
            Ok(Value::Text(text)) => text.as_str().len(),
            Ok(Value::List(items) | Value::Tuple(items)) => items.len(),
            Ok(_) | Err(_) => 0,
        };
        let value = if size > SIZE_MAX {
            Err(Error::new("a value that grows too large"))
        } else {
            value
        };
        value.map_err(|error| error.at(expr.line))
    }

    fn value(&mut self, expr: &Expr, scope: &Rc<Scope>) -> Result<Value> {
        Ok(match &expr.kind {
            ExprKind::None => Value::None,
            ExprKind::Bool(it) => Value::Bool(*it),
            ExprKind::Int(it) => Value::Int(*it),
            ExprKind::Float(it) => Value::Float(*it),
            ExprKind::Text(text) => Value::Text(text.clone()),
            ExprKind::Name(name, word) => match scope.get(*name) {
                Some(value) => value,
                None => call::global(word),
            },
            ExprKind::List(items) => Value::list(self.all(items, scope)?),
            ExprKind::Tuple(items) => Value::tuple(self.all(items, scope)?),
            ExprKind::Dict(entries) => {
                let mut map = Map::default();
                for (key, value) in entries {
                    let key = self.eval(key, scope)?;
                    if matches!(key, Value::List(_) | Value::Map(_)) {
                        return Err(Error::new("a list or dict as a key"));
                    }
                    map.insert(key, self.eval(value, scope)?);
                }
                Value::map(map)
            }
            ExprKind::And(left, right) => {
                let left = self.eval(left, scope)?;
                if left.is_true() {
                    self.eval(right, scope)?
                } else {
                    left
                }
            }
            ExprKind::Or(left, right) => {
                let left = self.eval(left, scope)?;
                if left.is_true() {
                    left
                } else {
                    self.eval(right, scope)?
                }
            }
            ExprKind::Not(inner) => Value::Bool(!self.eval(inner, scope)?.is_true()),
            ExprKind::If(condition, yes, no) => {
                if self.eval(condition, scope)?.is_true() {
                    self.eval(yes, scope)?
                } else {
                    match no {
                        Some(no) => self.eval(no, scope)?,
                        None => Value::Undefined,
                    }
                }
            }
            ExprKind::Compare(first, others) => self.chain(first, others, scope)?,
            ExprKind::Concat(items) => {
                let mut out = Writer::default();
                for item in items {
                    self.eval(item, scope)?.write(&mut out);
                }
                Value::Text(out.finish())
            }
            ExprKind::Binary(op, left, right) => {
                let left = self.eval(left, scope)?;
                let right = self.eval(right, scope)?;
                ops::binary(*op, &left, &right)?
            }
            ExprKind::Negative(inner) => match self.eval(inner, scope)? {
                Value::Float(it) => Value::Float(-it),
                other => {
                    let number = other.as_int().and_then(i128::checked_neg);
                    number
                        .map(Value::Int)
                        .ok_or_else(|| super::args::wrong("number", &other))?
                }
            },
            ExprKind::Positive(inner) => match self.eval(inner, scope)? {
                Value::Float(it) => Value::Float(it),
                other => {
                    let number = other.as_int();
                    number
                        .map(Value::Int)
                        .ok_or_else(|| super::args::wrong("number", &other))?
                }
            },
            ExprKind::Attribute(inner, name) => {
                let inner = self.eval(inner, scope)?;
                self.attribute(&inner, name)?
            }
            ExprKind::Item(inner, key) => {
                let inner = self.eval(inner, scope)?;
                let key = self.eval(key, scope)?;
                self.item(&inner, &key)?
            }
            ExprKind::Slice(inner, bounds) => {
                let inner = self.eval(inner, scope)?;
                let mut given = [const { Value::None }; 3];
                for (bound, given) in bounds.iter().zip(&mut given) {
                    if let Some(bound) = bound {
                        *given = self.eval(bound, scope)?;
                    }
                }
                ops::slice(&inner, given.each_ref())?
            }
            ExprKind::Filter(inner, filter) => {
                let inner = self.eval(inner, scope)?;
                self.through(inner, std::slice::from_ref(filter), scope)?
            }
            ExprKind::Test(inner, name, args) => {
                let inner = self.eval(inner, scope)?;
                let given = self.given(args, scope)?;
                Value::Bool(checks::holds(&inner, name, given)?)
            }
            ExprKind::Call(callee, args) => {
                let callee = self.eval(callee, scope)?;
                let given = self.given(args, scope)?;
                self.call_with(&callee, given, None)?
            }
        })
    }

    fn chain(
        &mut self,
        first: &Expr,
        others: &[(Comparison, Expr)],
        scope: &Rc<Scope>,
    ) -> Result<Value> {
        let mut left = self.eval(first, scope)?;
        for (comparison, right) in others {
            let right = self.eval(right, scope)?;
            if !compared(*comparison, &left, &right)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    fn all(&mut self, items: &[Expr], scope: &Rc<Scope>) -> Result<Vec<Value>> {
        items.iter().map(|item| self.eval(item, scope)).collect()
    }

    fn given(&mut self, args: &Args, scope: &Rc<Scope>) -> Result<Given> {
        let mut positional = self.all(&args.positional, scope)?;
        let mut named = Vec::with_capacity(args.named.len());
        for (name, value) in &args.named {
            named.push((Arc::clone(name), self.eval(value, scope)?));
        }
        if let Some(more) = &args.more {
            positional.extend(self.eval(more, scope)?.try_items()?);
        }
        if let Some(more) = &args.more_named {
            let Value::Map(map) = self.eval(more, scope)? else {
                return Err(Error::new("arguments by name that are no dict"));
            };
            for (key, value) in map.iter() {
                named.push((Arc::from(key.to_text().as_str()), value.clone()));
            }
        }
        Ok(Given { positional, named })
    }

    /// `value.name`: a method goes before an entry.
    pub(super) fn attribute(&mut self, value: &Value, name: &str) -> Result<Value> {
        match self.attribute_only(value, name)? {
            Value::Undefined => Ok(match value {
                Value::Map(map) => map.get_str(name).cloned().unwrap_or(Value::Undefined),
                _ => Value::Undefined,
            }),
            found => Ok(found),
        }
    }

    /// The same without entries.
    pub(super) fn attribute_only(&mut self, value: &Value, name: &str) -> Result<Value> {
        if methods::has(value, name) {
            return Ok(Value::object(Object::Method(
                value.clone(),
                Arc::from(name),
            )));
        }
        match value {
            Value::Undefined => Err(Error::new(format!("{name} of an undefined value"))),
            Value::Object(object) => Ok(call::attribute_of(object, name, self.names)),
            _ => Ok(Value::Undefined),
        }
    }

    /// `value[key]`: an entry goes before a method.
    pub(super) fn item(&mut self, value: &Value, key: &Value) -> Result<Value> {
        let found = match (value, key) {
            (Value::Undefined, _) => return Err(Error::new("an item of an undefined value")),
            (Value::Map(map), key) => map.get(key).cloned(),
            (Value::List(items) | Value::Tuple(items), key) => {
                key.as_int().and_then(|at| nth(items, at))
            }
            (Value::Text(_), key) => match key.as_int() {
                Some(at) => nth(&value.try_items()?, at),
                None => None,
            },
            (Value::Object(object), key) if matches!(**object, Object::Range(_)) => {
                let items = value.try_items()?;
                key.as_int().and_then(|at| nth(&items, at))
            }
            _ => None,
        };
        match (found, key) {
            (Some(found), _) => Ok(found),
            (None, Value::Text(name)) => self.attribute_only(value, name.as_str()),
            (None, _) => Ok(Value::Undefined),
        }
    }
}

fn nth(items: &[Value], at: i128) -> Option<Value> {
    let count = i128::try_from(items.len()).ok()?;
    let at = if at < 0 { at + count } else { at };
    items.get(usize::try_from(at).ok()?).cloned()
}

fn assign(target: &Target, value: Value, scope: &Rc<Scope>) -> Result<()> {
    match target {
        Target::Name(name) => scope.set(*name, value),
        Target::Tuple(targets) => {
            let items = value.try_items()?;
            if items.len() != targets.len() {
                return Err(Error::new("another number of values than of names"));
            }
            for (target, item) in targets.iter().zip(items) {
                assign(target, item, scope)?;
            }
        }
        Target::Attribute(name, attribute) => {
            let found = scope.get(*name);
            let Some(Value::Object(object)) = &found else {
                return Err(Error::new("an attribute of what is no namespace"));
            };
            let Object::Namespace(map) = &**object else {
                return Err(Error::new("an attribute of what is no namespace"));
            };
            map.borrow_mut().set(attribute, value);
        }
    }
    Ok(())
}
