//! `ADD GENERATED … AS IDENTITY (SEQUENCE NAME s …)`, as pg_dump writes it.
//!
//! An identity column's sequence is named after its table and column, and that is the name in the dump of a
//! table that was never renamed. There the clause says nothing and is taken out; another name is refused.

use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::rewrite::word;
use crate::error::{Result, SqlError};

/// Takes the clause out of ALTER TABLE. 0A000 if the name is not the one that Amphora gives.
pub(super) fn take_sequence_name(mut tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let word_at = |i: usize| word(tokens.get(i)).unwrap_or_default();
    if word_at(0) != "alter" || word_at(1) != "table" {
        return Ok(tokens);
    }
    let Some(at) = (2..tokens.len()).find(|&i| word_at(i) == "sequence" && word_at(i + 1) == "name") else {
        return Ok(tokens);
    };
    let Some(generated) = (2..at).find(|&i| word_at(i) == "generated") else { return Ok(tokens) };
    let (table, _) = last_part(&tokens, if word_at(2) == "only" { 3 } else { 2 });
    // ALTER COLUMN name ADD GENERATED
    let (column, _) = last_part(&tokens, generated.saturating_sub(2));
    let (name, end) = last_part(&tokens, at + 2);
    if name != format!("{table}_{column}_seq") {
        return Err(SqlError::feature_not_supported(format!(
            "SEQUENCE NAME \"{name}\" of an identity column is not supported"
        ))
        .with_hint(format!(
            "The sequence is named \"{table}_{column}_seq\"; ALTER SEQUENCE … RENAME TO changes that."
        )));
    }
    tokens.drain(at..end);
    Ok(tokens)
}

/// The last part of the name that begins at a token, and the index after it.
fn last_part(tokens: &[TokenWithSpan], mut at: usize) -> (String, usize) {
    let mut name = String::new();
    while let Some(Token::Word(part)) = tokens.get(at).map(|t| &t.token) {
        name = if part.quote_style.is_some() { part.value.clone() } else { part.value.to_lowercase() };
        at += 1;
        if tokens.get(at).map(|t| &t.token) != Some(&Token::Period) {
            break;
        }
        at += 1;
    }
    (name, at)
}
