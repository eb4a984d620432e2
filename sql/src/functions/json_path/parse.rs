//! From a path's text to its tree.

use amphora_storage::Numeric;

use super::token::{Token, syntax_error, tokens};
use crate::error::{Result, SqlError};

/// How deep a path may nest.
const MAX_DEPTH: usize = 256;

/// A whole path.
#[derive(Debug)]
pub(super) struct Path {
    /// Structure that is missing is an error, and arrays are not unwrapped
    pub(super) strict: bool,
    pub(super) expr: Expr,
}

/// An expression: of values, or a predicate.
#[derive(Debug)]
pub(super) enum Expr {
    /// `$`
    Root,
    /// `@`
    Current,
    /// `last`
    Last,
    /// `$name`
    Variable(String),
    Null,
    Bool(bool),
    Text(String),
    Number(String),
    /// `expr.key[0] ? (…)`
    Steps(Box<Expr>, Vec<Step>),
    Arithmetic(Operator, Box<Expr>, Box<Expr>),
    Sign(bool, Box<Expr>),
    Compare(Comparison, Box<Expr>, Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    IsUnknown(Box<Expr>),
    Exists(Box<Expr>),
    StartsWith(Box<Expr>, Box<Expr>),
    /// Its operand and the compiled expression
    LikeRegex(Box<Expr>, regex::Regex),
}

/// One step of a path.
#[derive(Debug)]
pub(super) enum Step {
    /// `.key`
    Key(String),
    /// `.*`
    AnyKey,
    /// `.**`, with its least and greatest level
    Descend(u32, u32),
    /// `[*]`
    AnyElement,
    /// `[1, 3 to last]`
    Elements(Vec<(Expr, Option<Expr>)>),
    /// `? (…)`
    Filter(Expr),
    /// `.size()`
    Method(Method),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Method {
    Abs,
    Ceiling,
    Double,
    Floor,
    Keyvalue,
    Size,
    Type,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

impl Operator {
    pub(super) fn symbol(self) -> char {
        match self {
            Operator::Add => '+',
            Operator::Subtract => '-',
            Operator::Multiply => '*',
            Operator::Divide => '/',
            Operator::Modulo => '%',
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Expr {
    /// True of what gives a truth value.
    fn is_predicate(&self) -> bool {
        matches!(
            self,
            Expr::Compare(..)
                | Expr::And(..)
                | Expr::Or(..)
                | Expr::Not(_)
                | Expr::IsUnknown(_)
                | Expr::Exists(_)
                | Expr::StartsWith(..)
                | Expr::LikeRegex(..)
        )
    }
}

/// Parses a path. 42601
pub(super) fn parse(text: &str) -> Result<Path> {
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0, in_filter: 0, in_subscript: 0 };
    let strict = match parser.peek() {
        Some(Token::Word(w)) if w == "strict" || w == "lax" => {
            let strict = w == "strict";
            parser.next += 1;
            strict
        }
        _ => false,
    };
    if parser.tokens.is_empty() {
        return Err(SqlError::invalid_text_representation(format!(
            "invalid input syntax for type jsonpath: \"{text}\""
        )));
    }
    let expr = parser.or()?;
    match parser.peek() {
        None => Ok(Path { strict, expr }),
        Some(_) => Err(parser.wrong()),
    }
}

struct Parser<'a> {
    tokens: Vec<(Token, &'a str)>,
    next: usize,
    depth: usize,
    in_filter: usize,
    in_subscript: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|t| &t.0)
    }

    fn wrong(&self) -> SqlError {
        syntax_error(self.tokens.get(self.next).map_or("", |t| t.1))
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Symbol(s)) if *s == symbol);
        self.next += usize::from(found);
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(w)) if w == word);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<()> {
        if self.take(symbol) { Ok(()) } else { Err(self.wrong()) }
    }

    /// One level further in.
    fn nested<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(SqlError::statement_too_complex("a jsonpath is nested too deeply"));
        }
        let result = f(self);
        self.depth -= 1;
        result
    }

    /// A predicate where one must stand.
    fn predicate(&self, e: Expr) -> Result<Expr> {
        if e.is_predicate() { Ok(e) } else { Err(self.wrong()) }
    }

    fn or(&mut self) -> Result<Expr> {
        let mut left = self.and()?;
        while matches!(self.peek(), Some(Token::Symbol("||"))) {
            left = self.predicate(left)?;
            self.next += 1;
            let right = self.and()?;
            let right = self.predicate(right)?;
            left = Expr::Or(Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr> {
        let mut left = self.comparison()?;
        while matches!(self.peek(), Some(Token::Symbol("&&"))) {
            left = self.predicate(left)?;
            self.next += 1;
            let right = self.comparison()?;
            let right = self.predicate(right)?;
            left = Expr::And(Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Result<Expr> {
        if self.take("!") {
            self.expect("(")?;
            let inner = self.nested(Self::or)?;
            let inner = self.predicate(inner)?;
            self.expect(")")?;
            return Ok(Expr::Not(Box::new(inner)));
        }
        let left = self.sum()?;
        if left.is_predicate() {
            return Ok(left);
        }
        let comparison = match self.peek() {
            Some(Token::Symbol("==")) => Comparison::Equal,
            Some(Token::Symbol("!=" | "<>")) => Comparison::NotEqual,
            Some(Token::Symbol("<")) => Comparison::Less,
            Some(Token::Symbol("<=")) => Comparison::LessOrEqual,
            Some(Token::Symbol(">")) => Comparison::Greater,
            Some(Token::Symbol(">=")) => Comparison::GreaterOrEqual,
            Some(Token::Word(w)) if w == "starts" => {
                self.next += 1;
                if !self.take_word("with") {
                    return Err(self.wrong());
                }
                let initial = match self.peek().cloned() {
                    Some(Token::Text(s)) => Expr::Text(s),
                    Some(Token::Variable(name)) => Expr::Variable(name),
                    _ => return Err(self.wrong()),
                };
                self.next += 1;
                return Ok(Expr::StartsWith(Box::new(left), Box::new(initial)));
            }
            Some(Token::Word(w)) if w == "like_regex" => {
                self.next += 1;
                return self.like_regex(left);
            }
            _ => return Ok(left),
        };
        self.next += 1;
        let right = self.sum()?;
        Ok(Expr::Compare(comparison, Box::new(left), Box::new(right)))
    }

    fn like_regex(&mut self, left: Expr) -> Result<Expr> {
        let Some(Token::Text(pattern)) = self.peek().cloned() else { return Err(self.wrong()) };
        self.next += 1;
        let mut flags = String::new();
        if self.take_word("flag") {
            let Some(Token::Text(text)) = self.peek().cloned() else { return Err(self.wrong()) };
            self.next += 1;
            flags = text;
        }
        if let Some(unknown) = flags.chars().find(|c| !"imsxq".contains(*c)) {
            return Err(SqlError::syntax_error("invalid input syntax for type jsonpath")
                .with_detail(format!("Unrecognized flag character \"{unknown}\" in LIKE_REGEX predicate.")));
        }
        let pattern = if flags.contains('q') { regex::escape(&pattern) } else { pattern };
        let letters: String = flags.chars().filter(|c| "ims".contains(*c)).collect();
        let pattern = if letters.is_empty() { pattern } else { format!("(?{letters}){pattern}") };
        let regex = super::super::compile_regex(&pattern, false)?;
        Ok(Expr::LikeRegex(Box::new(left), regex))
    }

    fn sum(&mut self) -> Result<Expr> {
        let mut left = self.product()?;
        loop {
            let operator = match self.peek() {
                Some(Token::Symbol("+")) => Operator::Add,
                Some(Token::Symbol("-")) => Operator::Subtract,
                _ => return Ok(left),
            };
            self.next += 1;
            let right = self.product()?;
            left = Expr::Arithmetic(operator, Box::new(left), Box::new(right));
        }
    }

    fn product(&mut self) -> Result<Expr> {
        let mut left = self.signed()?;
        loop {
            let operator = match self.peek() {
                Some(Token::Symbol("*")) => Operator::Multiply,
                Some(Token::Symbol("/")) => Operator::Divide,
                Some(Token::Symbol("%")) => Operator::Modulo,
                _ => return Ok(left),
            };
            self.next += 1;
            let right = self.signed()?;
            left = Expr::Arithmetic(operator, Box::new(left), Box::new(right));
        }
    }

    fn signed(&mut self) -> Result<Expr> {
        for (symbol, minus) in [("-", true), ("+", false)] {
            if self.take(symbol) {
                let inner = self.nested(Self::signed)?;
                return Ok(Expr::Sign(minus, Box::new(inner)));
            }
        }
        self.steps()
    }

    fn primary(&mut self) -> Result<Expr> {
        let Some(token) = self.peek().cloned() else { return Err(self.wrong()) };
        let e = match token {
            Token::Symbol("$") => Expr::Root,
            Token::Symbol("@") if self.in_filter > 0 => Expr::Current,
            Token::Symbol("@") => {
                return Err(SqlError::syntax_error("@ is not allowed in root expressions"));
            }
            Token::Symbol("(") => {
                self.next += 1;
                let inner = self.nested(Self::or)?;
                self.expect(")")?;
                if inner.is_predicate() && self.take_word("is") {
                    return match self.take_word("unknown") {
                        true => Ok(Expr::IsUnknown(Box::new(inner))),
                        false => Err(self.wrong()),
                    };
                }
                return Ok(inner);
            }
            Token::Variable(name) => Expr::Variable(name),
            Token::Text(text) => Expr::Text(text),
            Token::Number(number) => {
                if number.parse::<bigdecimal::BigDecimal>().map(Numeric::finite).is_err() {
                    return Err(self.wrong());
                }
                Expr::Number(number)
            }
            Token::Word(word) => match word.as_str() {
                "null" => Expr::Null,
                "true" => Expr::Bool(true),
                "false" => Expr::Bool(false),
                "last" if self.in_subscript > 0 => Expr::Last,
                "last" => {
                    return Err(SqlError::syntax_error("LAST is allowed only in array subscripts"));
                }
                "exists" => {
                    self.next += 1;
                    self.expect("(")?;
                    let inner = self.nested(Self::or)?;
                    self.expect(")")?;
                    return Ok(Expr::Exists(Box::new(inner)));
                }
                _ => return Err(self.wrong()),
            },
            Token::Symbol(_) => return Err(self.wrong()),
        };
        self.next += 1;
        Ok(e)
    }

    fn steps(&mut self) -> Result<Expr> {
        let start = self.primary()?;
        let mut steps = Vec::new();
        loop {
            if self.take(".") {
                steps.push(self.member()?);
            } else if self.take("[") {
                steps.push(self.subscripts()?);
            } else if self.take("?") {
                self.expect("(")?;
                self.in_filter += 1;
                let condition = self.nested(Self::or)?;
                let condition = self.predicate(condition)?;
                self.in_filter -= 1;
                self.expect(")")?;
                steps.push(Step::Filter(condition));
            } else {
                break;
            }
        }
        Ok(if steps.is_empty() { start } else { Expr::Steps(Box::new(start), steps) })
    }

    fn member(&mut self) -> Result<Step> {
        if self.take("**") {
            return self.levels();
        }
        if self.take("*") {
            return Ok(Step::AnyKey);
        }
        let step = match self.peek().cloned() {
            Some(Token::Text(key)) => Step::Key(key),
            Some(Token::Word(word)) => {
                self.next += 1;
                if self.take("(") {
                    let method = match word.as_str() {
                        "abs" => Method::Abs,
                        "ceiling" => Method::Ceiling,
                        "double" => Method::Double,
                        "floor" => Method::Floor,
                        "keyvalue" => Method::Keyvalue,
                        "size" => Method::Size,
                        "type" => Method::Type,
                        "datetime" => {
                            return Err(SqlError::feature_not_supported(
                                "the jsonpath method .datetime() is not supported",
                            )
                            .with_hint("Cast the extracted text to a timestamp."));
                        }
                        _ => {
                            self.next -= 1;
                            return Err(self.wrong());
                        }
                    };
                    self.expect(")")?;
                    return Ok(Step::Method(method));
                }
                return Ok(Step::Key(word));
            }
            _ => return Err(self.wrong()),
        };
        self.next += 1;
        Ok(step)
    }

    /// `.**`, `.**{2}`, `.**{1 to last}`
    fn levels(&mut self) -> Result<Step> {
        if !self.take("{") {
            return Ok(Step::Descend(0, u32::MAX));
        }
        let level = |p: &mut Self| {
            if p.take_word("last") {
                return Ok(u32::MAX);
            }
            let Some(Token::Number(n)) = p.peek().cloned() else { return Err(p.wrong()) };
            let level = n.parse().map_err(|_| p.wrong())?;
            p.next += 1;
            Ok(level)
        };
        let from = level(self)?;
        let to = if self.take_word("to") { level(self)? } else { from };
        self.expect("}")?;
        Ok(Step::Descend(from, to))
    }

    fn subscripts(&mut self) -> Result<Step> {
        if self.take("*") {
            self.expect("]")?;
            return Ok(Step::AnyElement);
        }
        self.in_subscript += 1;
        let mut ranges = Vec::new();
        loop {
            let from = self.nested(Self::sum)?;
            let to = if self.take_word("to") { Some(self.nested(Self::sum)?) } else { None };
            ranges.push((from, to));
            if !self.take(",") {
                break;
            }
        }
        self.in_subscript -= 1;
        self.expect("]")?;
        Ok(Step::Elements(ranges))
    }
}
