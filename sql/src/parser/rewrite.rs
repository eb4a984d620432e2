//! Small rewrites of tokens, for what PostgreSQL writes and `sqlparser` does not read.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use super::Overriding;

/// The unquoted keyword of a token.
pub(super) fn keyword(token: Option<&TokenWithSpan>) -> Keyword {
    match token.map(|t| &t.token) {
        Some(Token::Word(word)) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

/// The unquoted word of a token, in lower case.
pub(super) fn word(token: Option<&TokenWithSpan>) -> Option<String> {
    match token.map(|t| &t.token) {
        Some(Token::Word(word)) if word.quote_style.is_none() => Some(word.value.to_ascii_lowercase()),
        _ => None,
    }
}

/// Takes `OVERRIDING SYSTEM | USER VALUE` out of an INSERT.
pub(super) fn take_overriding(mut tokens: Vec<TokenWithSpan>) -> (Vec<TokenWithSpan>, Option<Overriding>) {
    let word = |i: usize| match tokens.get(i).map(|t| &t.token) {
        Some(Token::Word(word)) if word.quote_style.is_none() => word.value.to_lowercase(),
        _ => String::new(),
    };
    if !matches!(keyword(tokens.first()), Keyword::INSERT | Keyword::WITH | Keyword::MERGE) {
        return (tokens, None);
    }
    let found = (1..tokens.len()).find_map(|i| match (&*word(i), &*word(i + 1), &*word(i + 2)) {
        ("overriding", "system", "value") => Some((i, Overriding::System)),
        ("overriding", "user", "value") => Some((i, Overriding::User)),
        _ => None,
    });
    let Some((at, overriding)) = found else { return (tokens, None) };
    tokens.drain(at..at + 3);
    (tokens, Some(overriding))
}

/// Puts the options in `AS IDENTITY (…)` in the one order that `sqlparser` reads.
fn order_identity_options(tokens: &mut [TokenWithSpan]) {
    const ORDER: [&str; 6] = ["increment", "minvalue", "maxvalue", "start", "cache", "cycle"];
    let word = |token: &TokenWithSpan| match &token.token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_lowercase(),
        _ => String::new(),
    };
    for i in 0..tokens.len() {
        let options = word(&tokens[i]) == "identity"
            && i > 0
            && keyword(tokens.get(i - 1)) == Keyword::AS
            && tokens.get(i + 1).is_some_and(|t| t.token == Token::LParen);
        if !options {
            continue;
        }
        let from = i + 2;
        let Some(end) = tokens[from..].iter().position(|t| t.token == Token::RParen) else { return };
        let inside = &mut tokens[from..from + end];
        let mut groups: Vec<Vec<TokenWithSpan>> = Vec::new();
        for token in inside.iter() {
            let first = ORDER.contains(&&*word(token)) || word(token) == "no";
            let after_no = groups.last().is_some_and(|g| matches!(&g[..], [no] if word(no) == "no"));
            match groups.last_mut() {
                Some(group) if !first || after_no => group.push(token.clone()),
                _ => groups.push(vec![token.clone()]),
            }
        }
        let rank = |group: &Vec<TokenWithSpan>| {
            group.iter().find_map(|t| ORDER.iter().position(|o| *o == word(t))).unwrap_or(ORDER.len())
        };
        groups.sort_by_key(rank);
        for (place, token) in inside.iter_mut().zip(groups.into_iter().flatten()) {
            *place = token;
        }
    }
}

/// Rewrites, keeping the place of every token that stays:
///
/// - `TABLE t` → `SELECT * FROM t`
/// - `IN ((SELECT …), …)` → `IN (coalesce((SELECT …)), …)`, lest the list be read as one query
/// - the options of `AS IDENTITY (…)` in the order that sqlparser expects
/// - strings with a line break between them become one
/// - what a mergeable column's type is made of becomes one word
/// - what has no place in `sqlparser`'s tree (BETWEEN SYMMETRIC, VARIADIC, subscripts in SET, `(row).*`)
///   becomes a name or a call that no statement can spell
/// - the target of `ON CONFLICT`, where it is more than names, becomes a name
/// - `WHERE CURRENT OF c` → a name for the whole condition
/// - `INSERT DEFAULT VALUES` of a MERGE → `INSERT VALUES ("default values")`
/// - `EXCLUDE` of a window frame becomes a mark (`exclusion`)
/// - `FOR NO KEY UPDATE` → `FOR UPDATE`, `FOR KEY SHARE` → `FOR SHARE`: Amphora has two strengths of lock
pub(super) fn rewrite(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let tokens = join_crdt_arguments(mark_conflict_targets(join_strings(tokens)));
    let mut tokens = super::exclusion::mark(mark_calls(mark_subscripts(mark_lists(tokens))));
    order_identity_options(&mut tokens);
    let writes = tokens.iter().any(|t| matches!(keyword(Some(t)), Keyword::UPDATE | Keyword::DELETE));
    let merge = tokens.iter().any(|t| keyword(Some(t)) == Keyword::MERGE);
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut tokens = tokens.into_iter().peekable();
    let mut first = true;
    while let Some(token) = tokens.next() {
        match keyword(Some(&token)) {
            Keyword::TABLE if first => {
                for word in ["SELECT", "*", "FROM"] {
                    let made = if word == "*" { Token::Mul } else { Token::make_keyword(word) };
                    out.push(TokenWithSpan::new(made, Span::empty()));
                }
            }
            Keyword::NO if keyword(out.last()) == Keyword::FOR && keyword(tokens.peek()) == Keyword::KEY => {
                tokens.next();
            }
            // MERGE … INSERT DEFAULT VALUES
            Keyword::DEFAULT
                if merge
                    && keyword(out.last()) == Keyword::INSERT
                    && keyword(tokens.peek()) == Keyword::VALUES =>
            {
                out.extend(tokens.next());
                out.push(TokenWithSpan::new(Token::LParen, Span::empty()));
                out.push(TokenWithSpan::new(Token::make_word(DEFAULT_VALUES, None), token.span));
                out.push(TokenWithSpan::new(Token::RParen, Span::empty()));
            }
            // The cursor of WHERE CURRENT OF becomes a part of a name that nobody can write.
            _ if writes
                && keyword(out.last()) == Keyword::WHERE
                && word(Some(&token)).as_deref() == Some("current")
                && word(tokens.peek()).as_deref() == Some("of") =>
            {
                tokens.next();
                match tokens.next() {
                    Some(TokenWithSpan { token: Token::Word(name), span }) => {
                        let cursor = match name.quote_style {
                            Some(_) => name.value,
                            None => name.value.to_lowercase(),
                        };
                        let mark = Token::make_word(&format!("{CURRENT_OF}{cursor}"), None);
                        out.push(TokenWithSpan::new(mark, span));
                    }
                    other => {
                        out.push(token);
                        out.extend(other);
                    }
                }
            }
            // `TRIM(LEADING FROM s)` trims blanks, as without FROM.
            Keyword::FROM
                if matches!(keyword(out.last()), Keyword::LEADING | Keyword::TRAILING | Keyword::BOTH) => {}
            Keyword::KEY
                if keyword(out.last()) == Keyword::FOR && keyword(tokens.peek()) == Keyword::SHARE => {}
            // `a->-1` is `a -> -1`: an operator ends in a minus only if it has one of ~!@#%^&|`? in it.
            _ if matches!(&token.token, Token::CustomBinaryOperator(op) if op == "->-" || op == "->>-") => {
                let arrow = match &token.token {
                    Token::CustomBinaryOperator(op) if op == "->-" => Token::Arrow,
                    _ => Token::LongArrow,
                };
                out.push(TokenWithSpan::new(arrow, token.span));
                out.push(TokenWithSpan::new(Token::Minus, Span::empty()));
            }
            // `(row).*`: the star is a name, for all fields.
            _ if token.token == Token::Mul && ends_with_row_dot(&out) => {
                out.push(TokenWithSpan::new(Token::make_word("*", None), token.span));
            }
            _ => out.push(token),
        }
        first = false;
    }
    out
}

/// The types of mergeable columns that are made of another.
const MADE_OF_ANOTHER: [&str; 6] =
    ["crdt_max", "crdt_min", "crdt_set", "crdt_rset", "crdt_register", "crdt_sum"];

/// What a mergeable column's type is made of becomes one word, as it is written: `crdt_max(numeric(10, 2))`,
/// `crdt_set(double precision)`.
fn join_crdt_arguments(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is_crdt = |t: &TokenWithSpan| word(Some(t)).is_some_and(|w| MADE_OF_ANOTHER.contains(&w.as_str()));
    if !tokens.iter().any(is_crdt) {
        return tokens;
    }
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut i = 0;
    while i < tokens.len() {
        let opens = i > 0 && tokens[i].token == Token::LParen && is_crdt(&tokens[i - 1]);
        out.push(tokens[i].clone());
        i += 1;
        if !opens {
            continue;
        }
        let (from, mut depth) = (i, 0_usize);
        while let Some(token) = tokens.get(i) {
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen if depth == 0 => break,
                Token::RParen => depth -= 1,
                _ => {}
            }
            i += 1;
        }
        let is_word = |t: &Token| matches!(t, Token::Word(_));
        let mut text = String::new();
        for (n, token) in tokens[from..i].iter().enumerate() {
            if n > 0 && is_word(&token.token) && is_word(&tokens[from + n - 1].token) {
                text.push(' ');
            }
            text.push_str(&token.token.to_string());
        }
        if i > from {
            out.push(TokenWithSpan::new(Token::make_word(&text, None), tokens[from].span));
        }
    }
    out
}

/// The subscripts of a column that SET assigns to become a part of its name, as they are written:
/// `SET a[2] = 1` → `SET a."[2]" = 1`.
fn mark_subscripts(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    if !tokens.iter().any(|t| t.token == Token::LBracket)
        || !tokens.iter().any(|t| keyword(Some(t)) == Keyword::SET)
    {
        return tokens;
    }
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let (mut depth, mut set_depth) = (0_usize, None);
    let mut i = 0;
    while i < tokens.len() {
        let token = &tokens[i];
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => {
                depth = depth.saturating_sub(1);
                set_depth = set_depth.filter(|d| *d <= depth);
            }
            _ => {}
        }
        match keyword(Some(token)) {
            Keyword::SET => set_depth = Some(depth),
            Keyword::WHERE | Keyword::FROM | Keyword::RETURNING if set_depth == Some(depth) => {
                set_depth = None
            }
            _ => {}
        }
        let target = matches!(token.token, Token::Word(_))
            && set_depth == Some(depth)
            && (keyword(out.last()) == Keyword::SET
                || matches!(out.last(), Some(t) if t.token == Token::Comma));
        out.push(token.clone());
        i += 1;
        if target && let Some(end) = subscripts_end(&tokens[i..]) {
            let text: Vec<String> = tokens[i..i + end].iter().map(|t| t.token.to_string()).collect();
            out.push(TokenWithSpan::new(Token::Period, Span::empty()));
            out.push(TokenWithSpan::new(Token::make_word(&text.join(" "), None), tokens[i].span));
            i += end;
        }
    }
    out
}

/// How many tokens the subscripts before `=` are.
fn subscripts_end(tokens: &[TokenWithSpan]) -> Option<usize> {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate() {
        match &token.token {
            Token::LBracket => depth += 1,
            Token::RBracket => depth = depth.saturating_sub(1),
            Token::Eq if depth == 0 => return (i > 0).then_some(i),
            _ if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// What the name begins with that stands for the target of ON CONFLICT, where that is more than columns.
pub(crate) const CONFLICT_TARGET: &str = "on conflict ";

/// `ON CONFLICT (lower(a)) WHERE b DO` → `ON CONFLICT ON CONSTRAINT "on conflict (lower(a)) WHERE b" DO`:
/// what infers an index by more than the names of its columns becomes a name, as it is written.
fn mark_conflict_targets(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let word_at = |i: usize, expected: &str| word(tokens.get(i)).is_some_and(|w| w == expected);
    let mut marks: Vec<(usize, usize)> = Vec::new();
    for i in 2..tokens.len() {
        if tokens[i].token != Token::LParen || !word_at(i - 1, "conflict") || !word_at(i - 2, "on") {
            continue;
        }
        let Some(close) = close_of(&tokens, i + 1) else { continue };
        let plain = (i + 1..close).all(|j| match (j - i) % 2 {
            1 => matches!(tokens[j].token, Token::Word(_)),
            _ => tokens[j].token == Token::Comma,
        });
        let end = if word_at(close + 1, "where") { do_of(&tokens, close + 2) } else { Some(close + 1) };
        if let Some(end) = end.filter(|end| !plain || *end > close + 1) {
            marks.push((i, end));
        }
    }
    if marks.is_empty() {
        return tokens;
    }
    let made = |token: Token| TokenWithSpan::new(token, Span::empty());
    let mut out = Vec::with_capacity(tokens.len());
    for (i, token) in tokens.iter().enumerate() {
        match marks.iter().find(|(start, end)| (*start..*end).contains(&i)) {
            Some((start, end)) if *start == i => {
                let text: Vec<String> = tokens[i..*end].iter().map(|t| t.token.to_string()).collect();
                let name = format!("{CONFLICT_TARGET}{}", text.join(" "));
                out.push(made(Token::make_keyword("ON")));
                out.push(made(Token::make_keyword("CONSTRAINT")));
                out.push(TokenWithSpan::new(Token::make_word(&name, Some('"')), token.span));
            }
            Some(_) => {}
            None => out.push(token.clone()),
        }
    }
    out
}

/// The DO that ends the predicate of ON CONFLICT.
fn do_of(tokens: &[TokenWithSpan], from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate().skip(from) {
        match &token.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => depth = depth.checked_sub(1)?,
            _ if depth == 0 && word(Some(token)).is_some_and(|w| w == "do") => return Some(i),
            _ => {}
        }
    }
    None
}
/// The value that stands for DEFAULT VALUES in a MERGE.
pub(crate) const DEFAULT_VALUES: &str = "default values";

/// What the name of a cursor begins with that stands in WHERE CURRENT OF.
pub(crate) const CURRENT_OF: &str = "current of ";

/// The name that marks BETWEEN SYMMETRIC, around its first bound.
pub(crate) const SYMMETRIC: &str = "between symmetric";

/// The name that marks an argument as VARIADIC.
pub(crate) const VARIADIC: &str = "variadic array";

/// What `sqlparser` does not read becomes a call of a name that nobody can write: `BETWEEN SYMMETRIC a AND`
/// is `BETWEEN "between symmetric"(a) AND`, `f(VARIADIC a)` is `f("variadic array"(a))`.
fn mark_calls(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let marks: Vec<(usize, usize, &str)> = (1..tokens.len())
        .filter_map(|i| match word(tokens.get(i))?.as_str() {
            "symmetric" if keyword(tokens.get(i - 1)) == Keyword::BETWEEN => {
                Some((i, and_of(&tokens, i + 1)?, SYMMETRIC))
            }
            "variadic" if matches!(tokens[i - 1].token, Token::LParen | Token::Comma) => {
                Some((i, close_of(&tokens, i + 1)?, VARIADIC))
            }
            _ => None,
        })
        .collect();
    if marks.is_empty() {
        return tokens;
    }
    let made = |token: Token| TokenWithSpan::new(token, Span::empty());
    let mut out = Vec::with_capacity(tokens.len() + 2 * marks.len());
    for (i, token) in tokens.into_iter().enumerate() {
        out.extend(marks.iter().filter(|(_, end, _)| *end == i).map(|_| made(Token::RParen)));
        match marks.iter().find(|(start, ..)| *start == i) {
            Some((_, _, mark)) => out.extend([made(Token::make_word(mark, None)), made(Token::LParen)]),
            None => out.push(token),
        }
    }
    out
}

/// The AND that ends the first bound of a BETWEEN.
fn and_of(tokens: &[TokenWithSpan], from: usize) -> Option<usize> {
    let (mut depth, mut cases) = (0_usize, 0_usize);
    for (i, token) in tokens.iter().enumerate().skip(from) {
        match (&token.token, keyword(Some(token))) {
            (Token::LParen | Token::LBracket, _) => depth += 1,
            (Token::RParen | Token::RBracket, _) => depth = depth.checked_sub(1)?,
            (_, Keyword::CASE) => cases += 1,
            (_, Keyword::END) => cases = cases.saturating_sub(1),
            (_, Keyword::AND) if depth == 0 && cases == 0 => return Some(i),
            _ => {}
        }
    }
    None
}

/// The parenthesis that ends the call around this place.
fn close_of(tokens: &[TokenWithSpan], from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate().skip(from) {
        match &token.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen if depth == 0 => return Some(i),
            Token::RParen | Token::RBracket => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

/// True after `).`
fn ends_with_row_dot(tokens: &[TokenWithSpan]) -> bool {
    matches!(
        tokens,
        [.., TokenWithSpan { token: Token::RParen, .. }, TokenWithSpan { token: Token::Period, .. }]
    )
}

/// Wraps a subquery that begins an IN list.
fn mark_lists(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is = |i: usize, token: &Token| tokens.get(i).is_some_and(|t| t.token == *token);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for i in 0..tokens.len() {
        let begins = keyword(tokens.get(i)) == Keyword::IN
            && is(i + 1, &Token::LParen)
            && is(i + 2, &Token::LParen)
            && matches!(keyword(tokens.get(i + 3)), Keyword::SELECT | Keyword::WITH | Keyword::VALUES);
        if !begins {
            continue;
        }
        let mut depth = 0_usize;
        for (j, token) in tokens.iter().enumerate().skip(i + 2) {
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                if !is(j + 1, &Token::RParen) {
                    before.push(i + 2);
                    after.push(j);
                }
                break;
            }
        }
    }
    if before.is_empty() {
        return tokens;
    }
    after.sort_unstable();
    let made = |token: Token| TokenWithSpan::new(token, Span::empty());
    let mut out = Vec::with_capacity(tokens.len() + 3 * before.len());
    for (i, token) in tokens.into_iter().enumerate() {
        if before.binary_search(&i).is_ok() {
            out.push(made(Token::make_word("coalesce", None)));
            out.push(made(Token::LParen));
        }
        out.push(token);
        if after.binary_search(&i).is_ok() {
            out.push(made(Token::RParen));
        }
    }
    out
}

/// What stands in the place of the second word of `INSERT INTO` or `DELETE FROM`, which `sqlparser` can do without.
pub(super) fn instead_of_its_second_word(tokens: &[TokenWithSpan]) -> Option<&TokenWithSpan> {
    let wanted = match keyword(tokens.first()) {
        Keyword::INSERT => Keyword::INTO,
        Keyword::DELETE => Keyword::FROM,
        _ => return None,
    };
    tokens.get(1).filter(|token| keyword(Some(token)) != wanted)
}

/// A name that follows a star, as in `SELECT * form t`: `sqlparser` takes it for the star's.
pub(super) fn name_of_a_star(tokens: &[TokenWithSpan]) -> Option<&TokenWithSpan> {
    let begins = |token: &TokenWithSpan| {
        token.token == Token::Comma
            || matches!(keyword(Some(token)), Keyword::SELECT | Keyword::ALL | Keyword::DISTINCT)
    };
    let named = |three: &&[TokenWithSpan]| {
        let name = matches!(&three[2].token, Token::Word(word) if word.keyword == Keyword::NoKeyword);
        name && three[1].token == Token::Mul && begins(&three[0])
    };
    tokens.windows(3).find(named).map(|three| &three[2])
}

/// True of a string that follows another on the same line, which SQL does not allow.
pub(super) fn is_misplaced_string(before: &TokenWithSpan, token: &TokenWithSpan) -> bool {
    let string = |t: &TokenWithSpan| matches!(t.token, Token::SingleQuotedString(_));
    string(before) && string(token) && before.span.end.line == token.span.start.line
}

/// Joins strings that only a line break separates.
fn join_strings(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    for token in tokens {
        if let (
            Some(TokenWithSpan { token: Token::SingleQuotedString(before), span }),
            Token::SingleQuotedString(more),
        ) = (out.last_mut(), &token.token)
        {
            before.push_str(more);
            span.end = token.span.end;
        } else {
            out.push(token);
        }
    }
    out
}
