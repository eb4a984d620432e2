//! From text to syntax trees, within limits.
//!
//! ```text
//!   text ─tokenizer─► tokens ─limits─► split at ; ─┬─ own statements (SET, SHOW, BEGIN, EXPLAIN, …)
//!                                                  └─ sqlparser, after small rewrites of its tokens
//! ```
//!
//! `sqlparser` reads far more SQL than is planned here, but it recurses: over nesting when it parses, and
//! over long operator chains whenever a tree is walked or dropped. So the tokens are measured first
//! (`limits`), and a statement that is deep, though allowed, is handled on a larger stack
//! (`with_enough_stack`).

mod clauses;
mod command;
mod copy;
mod cursor;
mod dialect;
pub(crate) mod exclusion;
mod limits;
mod position;
mod read_mode;
mod rewrite;
mod role;
mod sequence_name;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use sqlparser::ast;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

pub(crate) use self::clauses::{
    Cycle, GROUP_BY_DISTINCT, NO_RELATION, ROWS_FROM, Recursion, Search, recursion_of, using_alias,
};
pub(crate) use self::copy::{CopyOption, CopyPlace, CopyStatement, CopySubject, OptionValue};
pub use self::position::Positions;
pub(crate) use self::rewrite::{CONFLICT_TARGET, CURRENT_OF, DEFAULT_VALUES, SYMMETRIC, VARIADIC};

pub(crate) use self::command::{
    ColumnAction, CommentTarget, CreateTableAs, DomainAction, DomainClause, IndexAst, IndexChange,
    LikeClause, ObjectAst, SequenceOption, TableAction, TypeAst,
};

use self::dialect::AmphoraDialect;
use self::read_mode::Hints;
use crate::command::{Command, CursorOptions};
use crate::error::{Result, SqlError};
use crate::plan::ExplainFormat;

/// What is said of a text that breaks off.
const AT_END: &str = "syntax error at end of input";

/// One statement, parsed but not bound.
#[derive(Debug)]
pub struct ParsedStatement {
    ast: Option<Ast>,
    text: Arc<str>,
    positions: Arc<Positions>,
    deep: bool,
    staleness: Option<Duration>,
}

/// What a statement is, syntactically.
#[derive(Clone, Debug)]
pub(crate) enum Ast {
    /// What `sqlparser` read
    Statement(Box<ast::Statement>),
    /// A statement about an object of the catalog
    Object(Box<ObjectAst>),
    /// INSERT … OVERRIDING … VALUE
    Overriding { statement: Box<Ast>, overriding: Overriding },
    /// A statement that names nothing that must be looked up
    Command(Command),
    /// PREPARE name (types) AS sql
    Prepare { name: String, types: Vec<ast::DataType>, sql: String },
    /// EXECUTE name (args)
    Execute { name: String, args: Vec<ast::Expr> },
    /// ANALYZE and VACUUM
    Analyze(Analyze),
    /// LOCK TABLE … IN ACCESS SHARE MODE
    Lock(Vec<ast::ObjectName>),
    /// COPY
    Copy(Box<CopyStatement>),
    /// DECLARE: bound as its query
    Declare { options: CursorOptions, query: Box<Ast> },
    /// EXPLAIN
    Explain { statement: Box<Ast>, options: ExplainOptions },
    /// A query … AS OF SYSTEM TIME
    AsOf { query: Box<Ast>, time: Box<ast::Expr> },
}

/// ANALYZE or VACUUM of tables; of none named, all.
#[derive(Clone, Debug)]
pub(crate) struct Analyze {
    pub(crate) tag: &'static str,
    /// False of a VACUUM that does not analyze: names are checked, and there is nothing to do
    pub(crate) looks: bool,
    pub(crate) targets: Vec<(ast::ObjectName, Vec<String>)>,
}

/// What INSERT does with values for identity columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overriding {
    /// OVERRIDING SYSTEM VALUE: they are taken
    System,
    /// OVERRIDING USER VALUE: they are ignored
    User,
}

/// The options of EXPLAIN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExplainOptions {
    pub(crate) analyze: bool,
    pub(crate) verbose: bool,
    pub(crate) costs: bool,
    pub(crate) format: ExplainFormat,
    /// `None` is as ANALYZE is
    pub(crate) summary: Option<bool>,
    pub(crate) timing: Option<bool>,
    /// Asked for, and nothing to say: what is written is counted by RocksDB
    pub(crate) wal: bool,
    pub(crate) conflicts: bool,
}

impl ParsedStatement {
    /// `INSERT INTO schema.table query`, for the rows of CREATE TABLE … AS.
    pub(crate) fn insert_from(schema: &str, table: &str, query: &ast::Query) -> ParsedStatement {
        let name = [schema, table].map(|part| ast::Ident::with_quote('"', part));
        let insert = ast::Insert {
            insert_token: ast::helpers::attached_token::AttachedToken::empty(),
            optimizer_hints: Vec::new(),
            or: None,
            ignore: false,
            into: true,
            table: ast::TableObject::TableName(ast::ObjectName::from(name.to_vec())),
            table_alias: None,
            columns: Vec::new(),
            overwrite: false,
            source: Some(Box::new(query.clone())),
            assignments: Vec::new(),
            partitioned: None,
            after_columns: Vec::new(),
            has_table_keyword: false,
            on: None,
            returning: None,
            output: None,
            replace_into: false,
            priority: None,
            insert_alias: None,
            settings: None,
            format_clause: None,
            multi_table_insert_type: None,
            multi_table_into_clauses: Vec::new(),
            multi_table_when_clauses: Vec::new(),
            multi_table_else_clause: None,
        };
        ParsedStatement {
            ast: Some(Ast::Statement(Box::new(ast::Statement::Insert(insert)))),
            text: Arc::from(""),
            positions: Arc::new(Positions::of("")),
            // As deep as the statement it is part of may have been.
            deep: true,
            staleness: None,
        }
    }

    /// How old the rows may be that it reads, if a hint before it says so.
    pub fn staleness(&self) -> Option<Duration> {
        self.staleness
    }

    /// The statement's own text, without its semicolon.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// True of a statement whose tree is so deep that walking it needs more stack than a thread has.
    pub fn is_deep(&self) -> bool {
        self.deep
    }

    /// True of COMMIT and ROLLBACK (and ROLLBACK TO): what a failed transaction still accepts.
    pub fn ends_transaction(&self) -> bool {
        matches!(self.ast, Some(Ast::Command(Command::Commit | Command::Rollback | Command::RollbackTo(_))))
    }

    /// The command, where the statement is one that needs no binding (BEGIN, SET, …): known without a catalog.
    pub fn command(&self) -> Option<&Command> {
        match &self.ast {
            Some(Ast::Command(command)) => Some(command),
            _ => None,
        }
    }

    /// The cursor that the statement declares; its plan is the cursor's query.
    pub fn declares(&self) -> Option<&CursorOptions> {
        match &self.ast {
            Some(Ast::Declare { options, .. }) => Some(options),
            _ => None,
        }
    }

    pub(crate) fn ast(&self) -> Result<&Ast> {
        self.ast.as_ref().ok_or_else(|| SqlError::internal("statement has no tree"))
    }

    pub(crate) fn positions(&self) -> &Arc<Positions> {
        &self.positions
    }
}

impl Drop for ParsedStatement {
    fn drop(&mut self) {
        let ast = self.ast.take();
        with_enough_stack(self.deep, || drop(ast));
    }
}

/// Runs `work`, on a stack made for it if the statement is `deep`.
pub(crate) fn with_enough_stack<T>(deep: bool, work: impl FnOnce() -> T) -> T {
    if deep { stacker::grow(limits::DEEP_STACK, work) } else { work() }
}

/// The statements of a string; empty ones are left out. 42601, 54000, 54001.
pub fn parse(sql: &str) -> Result<Vec<ParsedStatement>> {
    limits::check_length(sql)?;
    let positions = Arc::new(Positions::of(sql));
    let dialect = AmphoraDialect::new();
    let mut hints = Hints::default();
    let tokens = tokenize_with(sql, &dialect, &positions, &mut |token| hints.look_at(token))?;
    limits::check_tokens(tokens.len())?;

    let mut statements = Vec::new();
    let mut before = None;
    for (tokens, end) in split(tokens) {
        let staleness =
            hints.before(std::mem::replace(&mut before, end.as_ref().map(|t| t.span.start)), &tokens);
        let deep = limits::measure(&tokens)?;
        let text: Arc<str> = Arc::from(positions.slice(sql, &tokens));
        let ast = with_enough_stack(deep, || parse_tokens(tokens, sql, &positions))
            .map_err(|error| ends_at(error, end.as_ref(), &positions, sql))?;
        statements.push(ParsedStatement {
            ast: Some(ast),
            text,
            positions: positions.clone(),
            deep,
            staleness,
        });
    }
    Ok(statements)
}

/// An expression alone: a stored DEFAULT or CHECK.
pub(crate) fn parse_expression(sql: &str) -> Result<ast::Expr> {
    parse_part(sql, |parser| parser.parse_expr())
}

/// What ON CONFLICT names, which is what CREATE INDEX names: `(lower(email)) WHERE deleted_at IS NULL`.
pub(crate) fn parse_index_target(target: &str) -> Result<ast::CreateIndex> {
    parse_part(&format!("ON t {target}"), |parser| parser.parse_create_index(false))
}

/// A query alone: a stored view's.
pub(crate) fn parse_query(sql: &str) -> Result<ast::Query> {
    parse_part(sql, |parser| parser.parse_query()).map(|query| *query)
}

fn parse_part<T>(
    sql: &str,
    parse: impl FnOnce(&mut Parser<'_>) -> std::result::Result<T, ParserError>,
) -> Result<T> {
    let positions = Positions::of(sql);
    let dialect = AmphoraDialect::new();
    let mut parser = parser(&dialect, tokenize(sql, &dialect, &positions)?);
    parse(&mut parser).map_err(|error| syntax_error(error, &mut parser, &positions, sql))
}

/// The tokens that mean something.
fn tokenize(sql: &str, dialect: &AmphoraDialect, positions: &Positions) -> Result<Vec<TokenWithSpan>> {
    tokenize_with(sql, dialect, positions, &mut |_| Ok(()))
}

/// The tokens that mean something; every token is shown to `look` first.
fn tokenize_with(
    sql: &str,
    dialect: &AmphoraDialect,
    positions: &Positions,
    look: &mut dyn FnMut(&TokenWithSpan) -> Result<()>,
) -> Result<Vec<TokenWithSpan>> {
    let tokens = Tokenizer::new(dialect, sql)
        .tokenize_with_location()
        .map_err(|error| tokenizer_error(sql, positions, &error))?;
    tokens.iter().try_for_each(look)?;
    let silent = |token: &Token| matches!(token, Token::Whitespace(_) | Token::EOF);
    Ok(tokens.into_iter().filter(|t| !silent(&t.token)).collect())
}

/// Nesting is limited by [`limits::measure`]; sqlparser's own counter counts several times per level.
fn parser<'a>(dialect: &'a AmphoraDialect, tokens: Vec<TokenWithSpan>) -> Parser<'a> {
    Parser::new(dialect).with_recursion_limit(limits::PARSER_RECURSION).with_tokens_with_locations(tokens)
}

/// The tokens of a statement, and the semicolon that ends it.
type Tokens = (Vec<TokenWithSpan>, Option<TokenWithSpan>);

/// Cuts at semicolons, and leaves empty statements out.
fn split(tokens: Vec<TokenWithSpan>) -> Vec<Tokens> {
    let mut statements: Vec<Tokens> = vec![(Vec::new(), None)];
    for token in tokens {
        let Some((statement, end)) = statements.last_mut() else { break };
        if token.token == Token::SemiColon {
            *end = Some(token);
            statements.push((Vec::new(), None));
        } else {
            statement.push(token);
        }
    }
    statements.retain(|(tokens, _)| !tokens.is_empty());
    statements
}

/// A statement that breaks off before a semicolon is wrong there, not at the end of the text.
fn ends_at(error: SqlError, end: Option<&TokenWithSpan>, positions: &Positions, sql: &str) -> SqlError {
    match end {
        Some(end) if error.message == AT_END => near(end, positions, sql),
        _ => error,
    }
}

/// Parses the tokens of one statement.
fn parse_tokens(tokens: Vec<TokenWithSpan>, sql: &str, positions: &Positions) -> Result<Ast> {
    let dialect = AmphoraDialect::new();
    let mut own = command::CommandParser::new(&tokens, sql, positions);
    if let Some(ast) = own.parse(&dialect)? {
        return Ok(ast);
    }
    if let Some(pair) = tokens.windows(2).find(|pair| rewrite::is_misplaced_string(&pair[0], &pair[1])) {
        return Err(near(&pair[1], positions, sql));
    }
    let slip = rewrite::instead_of_its_second_word(&tokens).or_else(|| rewrite::name_of_a_star(&tokens));
    if let Some(token) = slip {
        return Err(near(token, positions, sql));
    }
    let tokens = sequence_name::take_sequence_name(tokens)?;
    let (tokens, overriding) = rewrite::take_overriding(tokens);
    let (tokens, as_of) = read_mode::take_as_of(tokens, sql, positions)?;
    let tokens = rewrite::rewrite(clauses::rewrite(tokens)?);
    let mut parser = parser(&dialect, tokens);
    let statement = parser.parse_statement().map_err(|e| syntax_error(e, &mut parser, positions, sql))?;
    let next = parser.peek_token();
    if next.token != Token::EOF {
        return Err(near(&next, positions, sql));
    }
    let statement = Ast::Statement(Box::new(statement));
    let statement = match overriding {
        Some(overriding) => Ast::Overriding { statement: Box::new(statement), overriding },
        None => statement,
    };
    Ok(match as_of {
        Some(time) => Ast::AsOf { query: Box::new(statement), time: Box::new(time) },
        None => statement,
    })
}

/// 42601 at a token.
fn near(token: &TokenWithSpan, positions: &Positions, sql: &str) -> SqlError {
    if token.token == Token::EOF {
        return SqlError::syntax_error(AT_END).at(sql.chars().count() + 1);
    }
    let text = positions.token_text(sql, token);
    let error = SqlError::syntax_error(format!("syntax error at or near \"{text}\""));
    match positions.of_span(&token.span) {
        Some(position) => error.at(position),
        None => error,
    }
}

/// sqlparser's error in PostgreSQL's words. Its message ends with the place of the token it did not expect.
fn syntax_error(error: ParserError, parser: &mut Parser<'_>, positions: &Positions, sql: &str) -> SqlError {
    let message = match error {
        ParserError::RecursionLimitExceeded => return limits::too_deep(),
        ParserError::ParserError(message) | ParserError::TokenizerError(message) => message,
    };
    if message.contains("found: EOF") {
        return SqlError::syntax_error(AT_END).at(sql.chars().count() + 1);
    }
    let place = message.rsplit_once(" at Line: ").and_then(|(_, place)| {
        let (line, column) = place.split_once(", Column: ")?;
        Some((line.trim().parse::<u64>().ok()?, column.trim().parse::<u64>().ok()?))
    });
    if let Some((line, column)) = place {
        let mut index = 0;
        loop {
            let token = parser.token_at(index).clone();
            if token.token == Token::EOF {
                break;
            }
            if token.span.start.line == line && token.span.start.column == column {
                return near(&token, positions, sql);
            }
            index += 1;
        }
    }
    let next = parser.peek_token();
    let detail = message.trim_start_matches("sql parser error: ").to_owned();
    near(&next, positions, sql).with_detail(format!("{detail}."))
}

/// A text that cannot even be cut into tokens.
fn tokenizer_error(
    sql: &str,
    positions: &Positions,
    error: &sqlparser::tokenizer::TokenizerError,
) -> SqlError {
    let message = error.message.as_str();
    let start = positions.at(error.location.line, error.location.column);
    let rest: String = start.map(|p| sql.chars().skip(p - 1).collect()).unwrap_or_default();
    let what = if message.contains("comment") {
        "unterminated /* comment"
    } else if message.contains("delimiter") {
        "unterminated quoted identifier"
    } else if message.contains("dollar") {
        "unterminated dollar-quoted string"
    } else if message.contains("nterminated") || message.contains("EOF") {
        "unterminated quoted string"
    } else {
        "syntax error"
    };
    let error = SqlError::syntax_error(format!("{what} at or near \"{rest}\""));
    match start {
        Some(start) => error.at(start),
        None => error,
    }
}
