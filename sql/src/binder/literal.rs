//! Literals and parameters.

use std::str::FromStr;
use std::sync::Arc;

use amphora_storage::{DataType, Datum, Numeric};
use bigdecimal::BigDecimal;
use sqlparser::ast;
use sqlparser::ast::Value;

use super::Binder;
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::types::{self, CastContext};

/// The highest `$n`: the protocol counts parameters in 16 bits.
const MAX_PARAMETERS: usize = 65535;

impl Binder<'_> {
    pub(super) fn value(&mut self, value: &ast::ValueWithSpan) -> Result<Expr> {
        let result = match &value.value {
            Value::Number(digits, _) => number(digits),
            Value::SingleQuotedString(s)
            | Value::EscapedStringLiteral(s)
            | Value::UnicodeStringLiteral(s)
            | Value::NationalStringLiteral(s) => untyped(s),
            Value::DollarQuotedString(s) => untyped(&s.value),
            Value::Boolean(b) => Ok(Expr::Literal(Datum::Bool(*b), DataType::Bool)),
            Value::Null => Ok(Expr::Literal(Datum::Null, DataType::Unknown)),
            Value::Placeholder(name) => self.parameter(name),
            Value::HexStringLiteral(_) | Value::SingleQuotedByteStringLiteral(_) => {
                Err(SqlError::feature_not_supported("bit string literals are not supported"))
            }
            _ => Err(SqlError::syntax_error("unsupported kind of literal")),
        };
        result.map_err(|error| self.at(error, value.span))
    }

    /// `$1`
    fn parameter(&mut self, name: &str) -> Result<Expr> {
        let number: Option<usize> = name.strip_prefix('$').and_then(|n| n.parse().ok());
        let Some(number) = number.filter(|n| (1..=MAX_PARAMETERS).contains(n) && !self.no_parameters) else {
            return Err(SqlError::undefined_parameter(format!("there is no parameter {name}")));
        };
        if self.parameters.len() < number {
            self.parameters.resize(number, None);
        }
        let known = self.parameters[number - 1].clone();
        Ok(Expr::Parameter(number - 1, known.unwrap_or(DataType::Unknown)))
    }

    /// `INTERVAL '1' DAY`, `INTERVAL '1 day'`
    pub(super) fn interval(&mut self, interval: &ast::Interval) -> Result<Expr> {
        let value = self.expr(&interval.value)?;
        let mut ty = DataType::Interval(None);
        if let Some(first) = &interval.leading_field {
            let last = interval.last_field.as_ref().map(|last| format!(" to {last}")).unwrap_or_default();
            let name = format!("interval {first}{last}").to_lowercase();
            let digits = interval.fractional_seconds_precision.or(interval.leading_precision);
            let digits: Vec<String> = digits.iter().map(u64::to_string).collect();
            let digits: Vec<&str> = digits.iter().map(String::as_str).collect();
            ty = types::type_from_name(None, &name, &digits)
                .ok_or_else(|| SqlError::syntax_error("syntax error at or near \"to\""))?;
        }
        self.coerce(value, &ty, CastContext::Explicit)
    }
}

fn untyped(s: &str) -> Result<Expr> {
    Ok(Expr::Literal(Datum::Text(Arc::from(s)), DataType::Unknown))
}

/// A number as PostgreSQL types it: `integer` if it fits, else `bigint`, else `numeric`.
pub(super) fn number(digits: &str) -> Result<Expr> {
    let plain = digits.replace('_', "");
    let radix = |prefix: &str, radix| {
        let digits = plain.strip_prefix(prefix)?;
        i64::from_str_radix(digits, radix).ok()
    };
    let integer = plain
        .parse::<i64>()
        .ok()
        .or_else(|| radix("0x", 16))
        .or_else(|| radix("0o", 8))
        .or_else(|| radix("0b", 2));
    if let Some(integer) = integer {
        return Ok(match i32::try_from(integer) {
            Ok(small) => Expr::Literal(Datum::Int4(small), DataType::Int4),
            Err(_) => Expr::Literal(Datum::Int8(integer), DataType::Int8),
        });
    }
    // An exponent beyond what numeric can hold would be expanded digit by digit.
    let exponent = plain.rsplit_once(['e', 'E']).and_then(|(_, e)| e.parse::<i64>().ok()).unwrap_or(0);
    if exponent.abs() > 16_383 {
        return Err(SqlError::numeric_value_out_of_range("value overflows numeric format"));
    }
    let value = BigDecimal::from_str(&plain)
        .map_err(|_| SqlError::syntax_error(format!("syntax error at or near \"{digits}\"")))?;
    Ok(Expr::Literal(Datum::numeric(Numeric::finite(value)), DataType::Numeric(None)))
}
