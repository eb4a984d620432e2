//! Types as they are written.

use amphora_storage::DataType;
use sqlparser::ast;
use sqlparser::ast::{ArrayElemTypeDef, CharacterLength, DataType as Ast, ExactNumberInfo, TimezoneInfo};

use super::from::Found;
use super::{Binder, fold, name_parts};
use crate::error::{Result, SqlError};
use crate::types;

impl Binder<'_> {
    /// The type that is written. 42704 if there is none of that name.
    pub(super) fn data_type(&self, ty: &ast::DataType) -> Result<DataType> {
        let length = |l: &Option<CharacterLength>| -> Vec<String> {
            match l {
                Some(CharacterLength::IntegerLength { length, .. }) => vec![length.to_string()],
                _ => Vec::new(),
            }
        };
        let number = |n: &ExactNumberInfo| -> Vec<String> {
            match n {
                ExactNumberInfo::None => Vec::new(),
                ExactNumberInfo::Precision(p) => vec![p.to_string()],
                ExactNumberInfo::PrecisionAndScale(p, s) => vec![p.to_string(), s.to_string()],
            }
        };
        let digits = |p: &Option<u64>| -> Vec<String> { p.iter().map(u64::to_string).collect() };
        let whole;
        let (name, arguments): (&str, Vec<String>) = match ty {
            Ast::Bool | Ast::Boolean => ("boolean", vec![]),
            Ast::SmallInt(_) | Ast::Int2(_) => ("smallint", vec![]),
            Ast::Int(_) | Ast::Integer(_) | Ast::Int4(_) => ("integer", vec![]),
            Ast::BigInt(_) | Ast::Int8(_) => ("bigint", vec![]),
            Ast::Real | Ast::Float4 => ("real", vec![]),
            Ast::DoublePrecision | Ast::Float8 => ("double precision", vec![]),
            Ast::Float(n) => ("float", number(n)),
            Ast::Numeric(n) | Ast::Decimal(n) | Ast::Dec(n) => ("numeric", number(n)),
            Ast::Text => ("text", vec![]),
            Ast::Varchar(l) | Ast::CharacterVarying(l) | Ast::CharVarying(l) => ("varchar", length(l)),
            Ast::Char(l) | Ast::Character(l) => ("char", length(l)),
            Ast::Bytea => ("bytea", vec![]),
            Ast::Date => ("date", vec![]),
            Ast::Time(p, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => ("timetz", digits(p)),
            Ast::Time(p, _) => ("time", digits(p)),
            Ast::Timestamp(p, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => ("timestamptz", digits(p)),
            Ast::Timestamp(p, _) => ("timestamp", digits(p)),
            Ast::Interval { fields: None, precision } => ("interval", digits(precision)),
            Ast::Interval { fields: Some(fields), precision } => {
                whole = format!("interval {fields}").to_lowercase();
                (&whole, digits(precision))
            }
            Ast::Uuid => ("uuid", vec![]),
            Ast::JSON => ("json", vec![]),
            Ast::JSONB => ("jsonb", vec![]),
            Ast::Regclass => ("regclass", vec![]),
            Ast::Array(
                ArrayElemTypeDef::SquareBracket(element, _)
                | ArrayElemTypeDef::Qualified(element, _)
                | ArrayElemTypeDef::AngleBracket(element)
                | ArrayElemTypeDef::Parenthesis(element),
            ) => {
                return Ok(match self.data_type(element)? {
                    DataType::Domain(domain) => {
                        return Err(SqlError::feature_not_supported("arrays of domains are not supported")
                            .with_hint(format!("Use an array of {}.", domain.base.base())));
                    }
                    array @ DataType::Array(_) => array,
                    element => element.array(),
                });
            }
            Ast::Custom(name, arguments) => return self.named_type(name, arguments),
            other => return Err(undefined_type(&other.to_string().to_lowercase())),
        };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        types::type_from_name(None, name, &arguments).ok_or_else(|| {
            SqlError::invalid_parameter_value(format!("invalid type modifier for type {name}"))
        })
    }

    fn named_type(&self, name: &ast::ObjectName, arguments: &[String]) -> Result<DataType> {
        let parts = name_parts(name)?;
        let Some((last, schema)) = parts.split_last() else {
            return Err(SqlError::syntax_error("a type has no name"));
        };
        let schema = schema.last().map(|s| fold(s));
        let text = match last.quote_style {
            Some(_) if last.value == "char" => "\"char\"".to_owned(),
            _ => fold(last),
        };
        let arguments: Vec<String> = arguments.iter().map(|a| a.to_lowercase()).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        if let Some(ty) = types::type_from_name(schema.as_deref(), &text, &arguments) {
            return Ok(ty);
        }
        if let Some((_, ty)) = self.user_type(name)? {
            if !arguments.is_empty() {
                let message = format!("type modifier is not allowed for type \"{}\"", fold(last));
                return Err(self.at(SqlError::syntax_error(message), last.span));
            }
            return Ok(ty);
        }
        if let Some(error) = wrong_crdt(&text, &arguments) {
            return Err(self.at(error, last.span));
        }
        // A table's name is the type of its rows.
        if let Ok(Found::Table(table)) = self.find_relation(name) {
            let fields = table.visible_columns().iter().map(|c| (c.name.clone(), c.ty.base()));
            return Ok(DataType::Row(fields.collect()));
        }
        Err(self.at(undefined_type(&fold(last)), last.span))
    }
}

/// Why a mergeable type cannot be made of this one.
fn wrong_crdt(name: &str, arguments: &[&str]) -> Option<SqlError> {
    let hint = match name {
        "crdt_sum" => "Write crdt_sum(numeric), or crdt_sum(numeric(12,2)).",
        "crdt_max" | "crdt_min" => "Write the type of its values in parentheses: crdt_max(timestamptz).",
        "crdt_set" | "crdt_rset" | "crdt_register" => {
            "Write the type of its values in parentheses: crdt_set(text). That type cannot be an array."
        }
        "crdt_counter" | "crdt_gcounter" | "crdt_flag" | "crdt_map" => "Write the type's name alone.",
        _ => return None,
    };
    let written = match arguments {
        [] => name.to_owned(),
        arguments => format!("{name}({})", arguments.join(", ")),
    };
    Some(SqlError::feature_not_supported(format!("type {written} is not supported")).with_hint(hint))
}

fn undefined_type(name: &str) -> SqlError {
    SqlError::undefined_object(format!("type \"{name}\" does not exist"))
}
