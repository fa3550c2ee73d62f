//! What a template says, as a tree.

use std::sync::Arc;

use super::text::Text;

/// A variable's name by its place in the template's list of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::language) struct Name(pub(super) u32);

#[derive(Debug)]
pub(super) struct Stmt {
    pub(super) line: u32,
    pub(super) kind: StmtKind,
}

pub(super) type Block = Vec<Stmt>;

#[derive(Debug)]
pub(super) enum StmtKind {
    Break,
    /// `{% call(args) f(..) %}`: a macro's call with a body.
    Call(Expr, Arc<MacroDecl>),
    Continue,
    Filter(Vec<FilterCall>, Block),
    For(Arc<ForLoop>),
    If(Vec<(Expr, Block)>, Block),
    Macro(Arc<MacroDecl>),
    Print(Expr),
    /// A block with names of its own that writes what it holds.
    Scoped(Block),
    Set(Target, Expr),
    SetBlock(Target, Vec<FilterCall>, Block),
    Text(Text),
    With(Vec<(Target, Expr)>, Block),
}

#[derive(Debug)]
pub(in crate::language) struct ForLoop {
    pub(super) target: Target,
    pub(super) iterable: Expr,
    pub(super) filter: Option<Expr>,
    pub(super) is_recursive: bool,
    pub(super) body: Block,
    pub(super) otherwise: Block,
    /// The name `loop`.
    pub(super) itself: Name,
}

#[derive(Debug)]
pub(in crate::language) struct MacroDecl {
    pub(super) name: Option<Name>,
    pub(super) params: Vec<Param>,
    pub(super) body: Block,
    /// The names `caller`, `varargs` and `kwargs`.
    pub(super) caller: Name,
    pub(super) varargs: Name,
    pub(super) kwargs: Name,
    /// Whether the body asks for these two: who does not gets no further arguments.
    pub(super) takes_more: bool,
    pub(super) takes_named: bool,
}

#[derive(Debug)]
pub(super) struct Param {
    pub(super) name: Name,
    pub(super) text: Arc<str>,
    pub(super) default: Option<Expr>,
}

#[derive(Clone, Debug)]
pub(super) enum Target {
    Attribute(Name, Arc<str>),
    Name(Name),
    Tuple(Vec<Self>),
}

#[derive(Debug)]
pub(super) struct Expr {
    pub(super) line: u32,
    pub(super) kind: ExprKind,
}

#[derive(Debug)]
pub(super) enum ExprKind {
    And(Box<Expr>, Box<Expr>),
    Attribute(Box<Expr>, Arc<str>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    Bool(bool),
    Call(Box<Expr>, Args),
    /// Each operand is held against the one before.
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    Concat(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Filter(Box<Expr>, FilterCall),
    Float(f64),
    /// `a if b else c`.
    If(Box<Expr>, Box<Expr>, Option<Box<Expr>>),
    Int(i128),
    Item(Box<Expr>, Box<Expr>),
    List(Vec<Expr>),
    Name(Name, Arc<str>),
    Negative(Box<Expr>),
    None,
    Not(Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Positive(Box<Expr>),
    Slice(Box<Expr>, [Option<Box<Expr>>; 3]),
    Test(Box<Expr>, Arc<str>, Args),
    Text(Text),
    Tuple(Vec<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Divide,
    FloorDivide,
    Modulo,
    Multiply,
    Power,
    Subtract,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Greater,
    GreaterOrEqual,
    In,
    Less,
    LessOrEqual,
    NotEqual,
    NotIn,
}

#[derive(Debug, Default)]
pub(super) struct Args {
    pub(super) positional: Vec<Expr>,
    pub(super) named: Vec<(Arc<str>, Expr)>,
    /// `*args` and `**kwargs`.
    pub(super) more: Option<Box<Expr>>,
    pub(super) more_named: Option<Box<Expr>>,
}

#[derive(Debug)]
pub(super) struct FilterCall {
    pub(super) line: u32,
    pub(super) name: Arc<str>,
    pub(super) args: Args,
}
