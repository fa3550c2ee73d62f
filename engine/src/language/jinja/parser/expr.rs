//! Expressions, loosest first.

use std::sync::Arc;

use super::super::ast::{Args, Binary, Comparison, Expr, ExprKind, FilterCall};
use super::super::error::Result;
use super::super::lexer::Token;
use super::super::text::Text;
use super::{Condition, Parser};

/// Whether filters and tests that follow belong to the expression.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filters {
    Own,
    Others,
}

impl Parser {
    /// One expression, or several with commas between them, which are a tuple.
    pub(super) fn tuple(&mut self, condition: Condition) -> Result<Expr> {
        let line = self.line();
        let one = |parser: &mut Self| match condition {
            Condition::Allowed => parser.expr(),
            Condition::Not => parser.or(),
        };
        let first = one(self)?;
        if !self.is_op(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_op(",") {
            if self.is_tuple_end() {
                break;
            }
            items.push(one(self)?);
        }
        Ok(Expr {
            line,
            kind: ExprKind::Tuple(items),
        })
    }

    fn is_tuple_end(&self) -> bool {
        matches!(self.peek(), Token::VariableEnd | Token::BlockEnd)
            || self.is_op(")")
            || self.is_op("]")
    }

    pub(super) fn expr(&mut self) -> Result<Expr> {
        self.deeper()?;
        let line = self.line();
        let mut value = self.or()?;
        while self.skip_word("if") {
            let condition = self.or()?;
            let otherwise = if self.skip_word("else") {
                Some(Box::new(self.expr()?))
            } else {
                None
            };
            let kind = ExprKind::If(Box::new(condition), Box::new(value), otherwise);
            value = Expr { line, kind };
        }
        self.depth -= 1;
        Ok(value)
    }

    pub(super) fn or(&mut self) -> Result<Expr> {
        let line = self.line();
        let mut left = self.and()?;
        while self.skip_word("or") {
            let kind = ExprKind::Or(Box::new(left), Box::new(self.and()?));
            left = Expr { line, kind };
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr> {
        let line = self.line();
        let mut left = self.not()?;
        while self.skip_word("and") {
            let kind = ExprKind::And(Box::new(left), Box::new(self.not()?));
            left = Expr { line, kind };
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr> {
        let line = self.line();
        if !self.skip_word("not") {
            return self.compare();
        }
        self.deeper()?;
        let kind = ExprKind::Not(Box::new(self.not()?));
        self.depth -= 1;
        Ok(Expr { line, kind })
    }

    fn compare(&mut self) -> Result<Expr> {
        let line = self.line();
        let first = self.sum()?;
        let mut others = vec![];
        while let Some(comparison) = self.comparison() {
            others.push((comparison, self.sum()?));
        }
        if others.is_empty() {
            return Ok(first);
        }
        let kind = ExprKind::Compare(Box::new(first), others);
        Ok(Expr { line, kind })
    }

    fn comparison(&mut self) -> Option<Comparison> {
        const OPERATORS: [(&str, Comparison); 6] = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            (">", Comparison::Greater),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            ("<=", Comparison::LessOrEqual),
        ];
        if self.skip_word("in") {
            return Some(Comparison::In);
        }
        let is_in = |token: &Token| matches!(token, Token::Name(word) if &**word == "in");
        if self.is_word("not") && is_in(self.peek_after()) {
            self.at += 2;
            return Some(Comparison::NotIn);
        }
        let mut known = OPERATORS.into_iter();
        let found = known.find(|(op, _)| self.skip_op(op));
        found.map(|(_, comparison)| comparison)
    }

    fn sum(&mut self) -> Result<Expr> {
        let line = self.line();
        let mut left = self.concat()?;
        loop {
            let op = if self.skip_op("+") {
                Binary::Add
            } else if self.skip_op("-") {
                Binary::Subtract
            } else {
                return Ok(left);
            };
            let kind = ExprKind::Binary(op, Box::new(left), Box::new(self.concat()?));
            left = Expr { line, kind };
        }
    }

    fn concat(&mut self) -> Result<Expr> {
        let line = self.line();
        let first = self.product()?;
        if !self.is_op("~") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_op("~") {
            items.push(self.product()?);
        }
        let kind = ExprKind::Concat(items);
        Ok(Expr { line, kind })
    }

    fn product(&mut self) -> Result<Expr> {
        const OPERATORS: [(&str, Binary); 4] = [
            ("*", Binary::Multiply),
            ("/", Binary::Divide),
            ("//", Binary::FloorDivide),
            ("%", Binary::Modulo),
        ];
        let line = self.line();
        let mut left = self.power()?;
        loop {
            let mut known = OPERATORS.into_iter();
            let Some((_, op)) = known.find(|(op, _)| self.skip_op(op)) else {
                return Ok(left);
            };
            let kind = ExprKind::Binary(op, Box::new(left), Box::new(self.power()?));
            left = Expr { line, kind };
        }
    }

    fn power(&mut self) -> Result<Expr> {
        let line = self.line();
        let mut left = self.unary(Filters::Own)?;
        while self.skip_op("**") {
            let right = self.unary(Filters::Own)?;
            let kind = ExprKind::Binary(Binary::Power, Box::new(left), Box::new(right));
            left = Expr { line, kind };
        }
        Ok(left)
    }

    fn unary(&mut self, filters: Filters) -> Result<Expr> {
        self.deeper()?;
        let line = self.line();
        let value = if self.skip_op("-") {
            let kind = ExprKind::Negative(Box::new(self.unary(Filters::Others)?));
            Expr { line, kind }
        } else if self.skip_op("+") {
            let kind = ExprKind::Positive(Box::new(self.unary(Filters::Others)?));
            Expr { line, kind }
        } else {
            self.primary()?
        };
        let value = self.postfix(value)?;
        self.depth -= 1;
        match filters {
            Filters::Own => self.filters(value),
            Filters::Others => Ok(value),
        }
    }

    fn primary(&mut self) -> Result<Expr> {
        let line = self.line();
        let token = self.peek().clone();
        self.at += 1;
        let kind = match token {
            Token::Name(word) => match &*word {
                "true" | "True" => ExprKind::Bool(true),
                "false" | "False" => ExprKind::Bool(false),
                "none" | "None" => ExprKind::None,
                _ => ExprKind::Name(self.name(&word), word),
            },
            Token::Text(mut text) => {
                // Strings side by side are one.
                while let Token::Text(more) = self.peek() {
                    text.push_str(more);
                    self.at += 1;
                }
                ExprKind::Text(Text::own(&text))
            }
            Token::Int(number) => ExprKind::Int(number),
            Token::Float(number) => ExprKind::Float(number),
            Token::Op("(") => {
                if self.skip_op(")") {
                    ExprKind::Tuple(vec![])
                } else {
                    let inner = self.tuple(Condition::Allowed)?;
                    self.expect_op(")")?;
                    return Ok(inner);
                }
            }
            Token::Op("[") => ExprKind::List(self.listed("]")?),
            Token::Op("{") => {
                let mut entries = vec![];
                while !self.skip_op("}") {
                    if !entries.is_empty() {
                        self.expect_op(",")?;
                        if self.skip_op("}") {
                            break;
                        }
                    }
                    let key = self.expr()?;
                    self.expect_op(":")?;
                    entries.push((key, self.expr()?));
                }
                ExprKind::Dict(entries)
            }
            _ => {
                self.at -= 1;
                return Err(self.error("an expression is missing"));
            }
        };
        Ok(Expr { line, kind })
    }

    fn listed(&mut self, end: &str) -> Result<Vec<Expr>> {
        let mut items = vec![];
        while !self.skip_op(end) {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.skip_op(end) {
                    break;
                }
            }
            items.push(self.expr()?);
        }
        Ok(items)
    }

    fn postfix(&mut self, mut value: Expr) -> Result<Expr> {
        loop {
            let line = self.line();
            let kind = if self.skip_op(".") {
                match self.peek().clone() {
                    Token::Name(word) => {
                        self.at += 1;
                        ExprKind::Attribute(Box::new(value), word)
                    }
                    Token::Int(number) => {
                        self.at += 1;
                        let kind = ExprKind::Int(number);
                        ExprKind::Item(Box::new(value), Box::new(Expr { line, kind }))
                    }
                    _ => return Err(self.error("a name is missing after a dot")),
                }
            } else if self.skip_op("[") {
                self.subscript(value)?
            } else if self.is_op("(") {
                ExprKind::Call(Box::new(value), self.args()?)
            } else {
                return Ok(value);
            };
            value = Expr { line, kind };
        }
    }

    fn subscript(&mut self, value: Expr) -> Result<ExprKind> {
        let value = Box::new(value);
        let start = if self.is_op(":") {
            None
        } else {
            Some(Box::new(self.tuple(Condition::Allowed)?))
        };
        match start {
            Some(item) if self.skip_op("]") => Ok(ExprKind::Item(value, item)),
            start => {
                self.expect_op(":")?;
                let mut bounds = [start, None, None];
                let mut place = 1;
                while !self.skip_op("]") {
                    if self.skip_op(":") {
                        place += 1;
                    } else if place < bounds.len() && bounds[place].is_none() {
                        bounds[place] = Some(Box::new(self.expr()?));
                    } else {
                        return Err(self.error("a slice has three parts"));
                    }
                }
                Ok(ExprKind::Slice(value, bounds))
            }
        }
    }

    fn args(&mut self) -> Result<Args> {
        self.expect_op("(")?;
        let mut args = Args::default();
        let mut is_first = true;
        while !self.skip_op(")") {
            if !is_first {
                self.expect_op(",")?;
                if self.skip_op(")") {
                    break;
                }
            }
            is_first = false;
            let is_named = matches!(self.peek_after(), Token::Op("="));
            if self.skip_op("**") {
                args.more_named = Some(Box::new(self.expr()?));
            } else if self.skip_op("*") {
                args.more = Some(Box::new(self.expr()?));
            } else if is_named && matches!(self.peek(), Token::Name(_)) {
                let word = self.word()?;
                self.expect_op("=")?;
                args.named.push((word, self.expr()?));
            } else if args.named.is_empty() {
                args.positional.push(self.expr()?);
            } else {
                return Err(self.error("an argument without a name follows one with a name"));
            }
        }
        Ok(args)
    }

    /// Filters, tests and calls of what they give.
    fn filters(&mut self, mut value: Expr) -> Result<Expr> {
        loop {
            let line = self.line();
            let kind = if self.skip_op("|") {
                let call = self.filter_call()?;
                ExprKind::Filter(Box::new(value), call)
            } else if self.skip_word("is") {
                self.test(value)?
            } else if self.is_op("(") {
                ExprKind::Call(Box::new(value), self.args()?)
            } else {
                return Ok(value);
            };
            value = Expr { line, kind };
        }
    }

    pub(super) fn filter_call(&mut self) -> Result<FilterCall> {
        let line = self.line();
        let name = self.dotted()?;
        let args = if self.is_op("(") {
            self.args()?
        } else {
            Args::default()
        };
        if !super::super::filters::is_known(&name) {
            return Err(self.error(&format!("unknown filter {name}")));
        }
        Ok(FilterCall { line, name, args })
    }

    fn dotted(&mut self) -> Result<Arc<str>> {
        let mut name = self.word()?.to_string();
        while self.skip_op(".") {
            name.push('.');
            name.push_str(&self.word()?);
        }
        Ok(Arc::from(name))
    }

    fn test(&mut self, value: Expr) -> Result<ExprKind> {
        let line = self.line();
        let is_negated = self.skip_word("not");
        let name = self.dotted()?;
        let args = if self.is_op("(") {
            self.args()?
        } else if self.is_test_argument() {
            let argument = self.primary()?;
            let argument = self.postfix(argument)?;
            Args {
                positional: vec![argument],
                ..Args::default()
            }
        } else {
            Args::default()
        };
        if !super::super::checks::is_known(&name) {
            return Err(self.error(&format!("unknown test {name}")));
        }
        let test = ExprKind::Test(Box::new(value), name, args);
        if !is_negated {
            return Ok(test);
        }
        Ok(ExprKind::Not(Box::new(Expr { line, kind: test })))
    }

    fn is_test_argument(&self) -> bool {
        const OTHERS: [&str; 6] = ["else", "or", "and", "is", "if", "in"];
        match self.peek() {
            Token::Name(word) => !OTHERS.contains(&&**word) && &**word != "not",
            Token::Text(_) | Token::Int(_) | Token::Float(_) => true,
            Token::Op(op) => matches!(*op, "[" | "{"),
            Token::BlockBegin
            | Token::BlockEnd
            | Token::Data(_)
            | Token::End
            | Token::VariableBegin
            | Token::VariableEnd => false,
        }
    }
}
