//! Tokens to a tree, by Jinja's own grammar, without what needs other templates. The expressions are
//! in `parser/expr.rs`.

mod expr;

use std::sync::Arc;

use super::ast::{Block, ForLoop, MacroDecl, Name, Param, Stmt, StmtKind, Target};
use super::error::{Error, Result};
use super::lexer::{Placed, Token, tokens};
use super::text::Text;

/// Blocks and expressions within one another.
const DEPTH_MAX: usize = 100;

pub(super) struct Parsed {
    pub(super) body: Block,
    pub(super) names: Vec<Arc<str>>,
}

pub(super) fn parse(source: &str) -> Result<Parsed> {
    let mut parser = Parser {
        tokens: tokens(source)?,
        at: 0,
        names: vec![],
        depth: 0,
    };
    let body = parser.block(&[])?;
    Ok(Parsed {
        body,
        names: parser.names,
    })
}

struct Parser {
    tokens: Vec<Placed>,
    at: usize,
    names: Vec<Arc<str>>,
    depth: usize,
}

impl Parser {
    /// Statements up to a block that begins with one of `ends`, or to the end of the template. The
    /// word that ends it is next.
    fn block(&mut self, ends: &[&str]) -> Result<Block> {
        self.deeper()?;
        let mut body = vec![];
        loop {
            let line = self.line();
            let kind = match self.peek().clone() {
                Token::Data(text) => {
                    self.at += 1;
                    StmtKind::Text(Text::own(&text))
                }
                Token::VariableBegin => {
                    self.at += 1;
                    let value = self.tuple(Condition::Allowed)?;
                    self.expect(&Token::VariableEnd)?;
                    StmtKind::Print(value)
                }
                Token::BlockBegin => {
                    self.at += 1;
                    let word = self.word()?;
                    if ends.contains(&&*word) {
                        self.at -= 1;
                        break;
                    }
                    match self.statement(&word)? {
                        Some(kind) => kind,
                        None => continue,
                    }
                }
                Token::End if ends.is_empty() => break,
                Token::End => {
                    return Err(self.error(&format!("{} is missing", ends.join(" or "))));
                }
                _ => return Err(self.error("something stands where it has no meaning")),
            };
            body.push(Stmt { line, kind });
        }
        self.depth -= 1;
        Ok(body)
    }

    /// A block up to `end`, that word and the end of its tag.
    fn body(&mut self, end: &str) -> Result<Block> {
        let body = self.block(&[end])?;
        self.word()?;
        // Some write the name again.
        if matches!(self.peek(), Token::Name(_)) {
            self.at += 1;
        }
        self.expect(&Token::BlockEnd)?;
        Ok(body)
    }

    fn statement(&mut self, word: &str) -> Result<Option<StmtKind>> {
        let kind = match word {
            "for" => self.for_loop()?,
            "if" => self.condition()?,
            "set" => self.set()?,
            "macro" => {
                let name = self.word()?;
                let name = self.name(&name);
                let decl = self.macro_rest(Some(name), "endmacro")?;
                StmtKind::Macro(Arc::new(decl))
            }
            "call" => {
                let params = if self.is_op("(") {
                    self.params()?
                } else {
                    vec![]
                };
                let call = self.expr()?;
                self.expect(&Token::BlockEnd)?;
                let body = self.body("endcall")?;
                StmtKind::Call(call, Arc::new(self.decl(None, params, body)))
            }
            "filter" => {
                let mut filters = vec![self.filter_call()?];
                while self.skip_op("|") {
                    filters.push(self.filter_call()?);
                }
                self.expect(&Token::BlockEnd)?;
                StmtKind::Filter(filters, self.body("endfilter")?)
            }
            "with" => {
                let mut names = vec![];
                while *self.peek() != Token::BlockEnd {
                    if !names.is_empty() {
                        self.expect_op(",")?;
                    }
                    let target = self.target()?;
                    self.expect_op("=")?;
                    names.push((target, self.expr()?));
                }
                self.at += 1;
                StmtKind::With(names, self.body("endwith")?)
            }
            // Marks what a model is trained on; to render it does nothing.
            "generation" => {
                self.expect(&Token::BlockEnd)?;
                StmtKind::Scoped(self.body("endgeneration")?)
            }
            "break" => self.bare(StmtKind::Break)?,
            "continue" => self.bare(StmtKind::Continue)?,
            other => return Err(self.error(&format!("unknown tag {other}"))),
        };
        Ok(Some(kind))
    }

    fn bare(&mut self, kind: StmtKind) -> Result<StmtKind> {
        self.expect(&Token::BlockEnd)?;
        Ok(kind)
    }

    fn for_loop(&mut self) -> Result<StmtKind> {
        let target = self.targets()?;
        self.expect_word("in")?;
        let iterable = self.tuple(Condition::Not)?;
        let filter = if self.skip_word("if") {
            Some(self.expr()?)
        } else {
            None
        };
        let is_recursive = self.skip_word("recursive");
        self.expect(&Token::BlockEnd)?;
        let body = self.block(&["endfor", "else"])?;
        let otherwise = if &*self.word()? == "else" {
            self.expect(&Token::BlockEnd)?;
            self.body("endfor")?
        } else {
            self.expect(&Token::BlockEnd)?;
            vec![]
        };
        Ok(StmtKind::For(Arc::new(ForLoop {
            target,
            iterable,
            filter,
            is_recursive,
            body,
            otherwise,
            itself: self.name("loop"),
        })))
    }

    fn condition(&mut self) -> Result<StmtKind> {
        let mut branches = vec![];
        loop {
            let condition = self.tuple(Condition::Not)?;
            self.expect(&Token::BlockEnd)?;
            let body = self.block(&["elif", "else", "endif"])?;
            branches.push((condition, body));
            match &*self.word()? {
                "elif" => {}
                "else" => {
                    self.expect(&Token::BlockEnd)?;
                    return Ok(StmtKind::If(branches, self.body("endif")?));
                }
                _ => {
                    self.expect(&Token::BlockEnd)?;
                    return Ok(StmtKind::If(branches, vec![]));
                }
            }
        }
    }

    fn set(&mut self) -> Result<StmtKind> {
        let target = self.targets()?;
        if self.skip_op("=") {
            let value = self.tuple(Condition::Allowed)?;
            return self.bare(StmtKind::Set(target, value));
        }
        let mut filters = vec![];
        while self.skip_op("|") {
            filters.push(self.filter_call()?);
        }
        self.expect(&Token::BlockEnd)?;
        Ok(StmtKind::SetBlock(target, filters, self.body("endset")?))
    }

    fn macro_rest(&mut self, name: Option<Name>, end: &str) -> Result<MacroDecl> {
        let params = self.params()?;
        self.expect(&Token::BlockEnd)?;
        let body = self.body(end)?;
        Ok(self.decl(name, params, body))
    }

    fn decl(&mut self, name: Option<Name>, params: Vec<Param>, body: Block) -> MacroDecl {
        let known = |parser: &Self, word: &str| parser.names.iter().any(|it| &**it == word);
        let (takes_more, takes_named) = (known(self, "varargs"), known(self, "kwargs"));
        MacroDecl {
            name,
            params,
            body,
            caller: self.name("caller"),
            varargs: self.name("varargs"),
            kwargs: self.name("kwargs"),
            takes_more,
            takes_named,
        }
    }

    fn params(&mut self) -> Result<Vec<Param>> {
        self.expect_op("(")?;
        let mut params = vec![];
        while !self.skip_op(")") {
            if !params.is_empty() {
                self.expect_op(",")?;
                if self.skip_op(")") {
                    break;
                }
            }
            let text = self.word()?;
            let default = if self.skip_op("=") {
                Some(self.expr()?)
            } else {
                None
            };
            params.push(Param {
                name: self.name(&text),
                text,
                default,
            });
        }
        Ok(params)
    }

    /// What an assignment gives values to.
    fn targets(&mut self) -> Result<Target> {
        let first = self.target()?;
        if !self.is_op(",") {
            return Ok(first);
        }
        let mut targets = vec![first];
        while self.skip_op(",") {
            if !matches!(self.peek(), Token::Name(_)) && !self.is_op("(") {
                break;
            }
            if matches!(self.peek(), Token::Name(word) if &**word == "in") {
                break;
            }
            targets.push(self.target()?);
        }
        Ok(Target::Tuple(targets))
    }

    fn target(&mut self) -> Result<Target> {
        if self.skip_op("(") {
            let inner = self.targets()?;
            self.expect_op(")")?;
            return Ok(inner);
        }
        let word = self.word()?;
        let name = self.name(&word);
        if self.skip_op(".") {
            return Ok(Target::Attribute(name, self.word()?));
        }
        Ok(Target::Name(name))
    }

    fn name(&mut self, word: &str) -> Name {
        let known = self.names.iter().position(|it| &**it == word);
        let place = known.unwrap_or_else(|| {
            self.names.push(Arc::from(word));
            self.names.len() - 1
        });
        Name(u32::try_from(place).expect("a source has fewer names than bytes"))
    }

    fn deeper(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error("it is nested too deeply"));
        }
        Ok(())
    }

    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |it| &it.token)
    }

    fn peek_after(&self) -> &Token {
        let next = self.tokens.get(self.at + 1);
        next.map_or(&Token::End, |it| &it.token)
    }

    fn line(&self) -> u32 {
        let last = self.tokens.len() - 1;
        self.tokens[self.at.min(last)].line
    }

    fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Token::Op(it) if *it == op)
    }

    fn skip_op(&mut self, op: &str) -> bool {
        let is_there = self.is_op(op);
        self.at += usize::from(is_there);
        is_there
    }

    fn expect_op(&mut self, op: &str) -> Result<()> {
        if self.skip_op(op) {
            return Ok(());
        }
        Err(self.error(&format!("{op} is missing")))
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Name(it) if &**it == word)
    }

    fn skip_word(&mut self, word: &str) -> bool {
        let is_there = self.is_word(word);
        self.at += usize::from(is_there);
        is_there
    }

    fn expect_word(&mut self, word: &str) -> Result<()> {
        if self.skip_word(word) {
            return Ok(());
        }
        Err(self.error(&format!("{word} is missing")))
    }

    fn word(&mut self) -> Result<Arc<str>> {
        if let Token::Name(word) = self.peek() {
            let word = Arc::clone(word);
            self.at += 1;
            return Ok(word);
        }
        Err(self.error("a name is missing"))
    }

    fn expect(&mut self, token: &Token) -> Result<()> {
        if self.peek() == token {
            self.at += 1;
            return Ok(());
        }
        Err(self.error("a tag ends too late or too early"))
    }

    fn error(&self, text: &str) -> Error {
        Error::new(text).at(self.line())
    }
}

/// Whether `a if b else c` may stand without brackets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Allowed,
    Not,
}
