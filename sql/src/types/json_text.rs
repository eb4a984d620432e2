//! `json` and `jsonb` from text.

use amphora_storage::Json;
use serde_json::Value;

use crate::error::{Result, SqlError};

/// A `jsonb` value from its text.
pub fn parse_json(text: &str) -> Result<Json> {
    let value: Value = serde_json::from_str(text).map_err(|e| invalid(text, &e))?;
    if contains_nul(&value) {
        return Err(SqlError::new("22P05", "unsupported Unicode escape sequence")
            .with_detail("\\u0000 cannot be converted to text."));
    }
    Ok(Json(value))
}

/// Checks that a `json` value is JSON; its text is kept as it is.
pub fn validate_json(text: &str) -> Result<()> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(drop).map_err(|e| invalid(text, &e))
}

fn invalid(text: &str, error: &serde_json::Error) -> SqlError {
    let err = SqlError::invalid_text_representation("invalid input syntax for type json");
    if error.is_eof() {
        return err.with_detail("The input string ended unexpectedly.");
    }
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or("");
    let token: String = line.chars().skip(error.column().saturating_sub(1)).take(20).collect();
    let token = token.split_whitespace().next().unwrap_or("").to_string();
    match token.is_empty() {
        true => err.with_detail("The input string ended unexpectedly."),
        false => err.with_detail(format!("Token \"{token}\" is invalid.")),
    }
}

fn contains_nul(value: &Value) -> bool {
    match value {
        Value::String(s) => s.contains('\0'),
        Value::Array(a) => a.iter().any(contains_nul),
        Value::Object(o) => o.iter().any(|(k, v)| k.contains('\0') || contains_nul(v)),
        _ => false,
    }
}

/// Appends a JSON string with its quotes.
pub fn write_json_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}
