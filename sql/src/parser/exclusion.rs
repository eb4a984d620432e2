//! EXCLUDE of a window frame, which `sqlparser` does not read.
//!
//! It is taken off the tokens and kept as a mark around the frame's first bound:
//!
//! ```text
//!   ROWS BETWEEN 2 PRECEDING AND CURRENT ROW EXCLUDE TIES
//!   ROWS BETWEEN "exclude ties"(2) PRECEDING AND CURRENT ROW
//! ```
//!
//! The mark's name has a blank in it and no quotes around it, so that no statement can spell it.

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Value, WindowFrameBound,
};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use super::rewrite::{keyword, word};
use crate::plan::FrameExclusion;

const MARKS: [(&str, FrameExclusion); 4] = [
    ("exclude no others", FrameExclusion::NoOthers),
    ("exclude current row", FrameExclusion::CurrentRow),
    ("exclude group", FrameExclusion::Group),
    ("exclude ties", FrameExclusion::Ties),
];

/// The mark that EXCLUDE at this place asks for, and how many tokens it is.
fn read(tokens: &[TokenWithSpan]) -> Option<(&'static str, usize)> {
    let words: Vec<String> = tokens.iter().take(3).map_while(|t| word(Some(t))).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (mark, length) = match words.get(..3) {
        Some(["exclude", "no", "others"]) => (MARKS[0].0, 3),
        Some(["exclude", "current", "row"]) => (MARKS[1].0, 3),
        _ => match words.get(..2) {
            Some(["exclude", "group"]) => (MARKS[2].0, 2),
            Some(["exclude", "ties"]) => (MARKS[3].0, 2),
            _ => return None,
        },
    };
    let closes = tokens.get(length).is_some_and(|t| t.token == Token::RParen);
    closes.then_some((mark, length))
}

/// Moves every EXCLUDE into its frame's first bound.
pub(super) fn mark(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut i = 0;
    while i < tokens.len() {
        if word(tokens.get(i)).as_deref() == Some("exclude")
            && let Some((mark, length)) = read(&tokens[i..])
            && let Some(start) = bound_start(&tokens[..i])
            && let Some(end) = bound_end(&tokens[start..i])
        {
            tokens.drain(i..i + length);
            wrap(&mut tokens, start, start + end, mark);
        }
        i += 1;
    }
    tokens
}

/// Where the first bound of the frame that ends here begins.
fn bound_start(tokens: &[TokenWithSpan]) -> Option<usize> {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate().rev() {
        match &token.token {
            Token::RParen => depth += 1,
            Token::LParen if depth == 0 => return None,
            Token::LParen => depth -= 1,
            _ if depth == 0
                && matches!(keyword(Some(token)), Keyword::ROWS | Keyword::RANGE | Keyword::GROUPS) =>
            {
                return Some(i + 1 + usize::from(keyword(tokens.get(i + 1)) == Keyword::BETWEEN));
            }
            _ => {}
        }
    }
    None
}

/// Where the bound's PRECEDING, FOLLOWING or ROW stands.
fn bound_end(tokens: &[TokenWithSpan]) -> Option<usize> {
    let mut depth = 0_usize;
    tokens.iter().position(|token| {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && matches!(keyword(Some(token)), Keyword::PRECEDING | Keyword::FOLLOWING | Keyword::ROW)
    })
}

fn wrap(tokens: &mut Vec<TokenWithSpan>, start: usize, end: usize, mark: &str) {
    let made = |token: Token| TokenWithSpan::new(token, Span::empty());
    let text = |s: &str| made(Token::SingleQuotedString(s.to_owned()));
    let close = made(Token::RParen);
    match keyword(tokens.get(end)) {
        // CURRENT ROW, UNBOUNDED …: the argument says which.
        Keyword::ROW => {
            tokens.splice(start..=end, [text("current row"), close, made(Token::make_keyword("PRECEDING"))]);
        }
        _ if keyword(tokens.get(start)) == Keyword::UNBOUNDED => {
            tokens.splice(start..end, [text("unbounded"), close]);
        }
        _ => tokens.insert(end, close),
    }
    let name = Token::make_word(mark, None);
    tokens.splice(start..start, [made(name), made(Token::LParen)]);
}

/// Takes the mark off a bound.
pub(crate) fn unmark(bound: &WindowFrameBound) -> (Option<FrameExclusion>, WindowFrameBound) {
    let (WindowFrameBound::Preceding(Some(e)) | WindowFrameBound::Following(Some(e))) = bound else {
        return (None, bound.clone());
    };
    let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = &**e else {
        return (None, bound.clone());
    };
    let found = name.0.first().and_then(|part| part.as_ident()).filter(|i| i.quote_style.is_none());
    let exclusion = found.and_then(|i| MARKS.iter().find(|(mark, _)| *mark == i.value)).map(|(_, x)| *x);
    let (Some(exclusion), [FunctionArg::Unnamed(FunctionArgExpr::Expr(inner))]) = (exclusion, &list.args[..])
    else {
        return (None, bound.clone());
    };
    let said = match inner {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(s) if value.span == Span::empty() => s.as_str(),
            _ => "",
        },
        _ => "",
    };
    let preceding = matches!(bound, WindowFrameBound::Preceding(_));
    let offset = match said {
        "current row" => return (Some(exclusion), WindowFrameBound::CurrentRow),
        "unbounded" => None,
        _ => Some(Box::new(inner.clone())),
    };
    let bound = match preceding {
        true => WindowFrameBound::Preceding(offset),
        false => WindowFrameBound::Following(offset),
    };
    (Some(exclusion), bound)
}
