//! Text input and output of every type: what `'…'::type` reads and what psql shows.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::sync::Arc;

use amphora_storage::types::IntervalModifier;
use amphora_storage::user_type::Label;
use amphora_storage::{DataType, Datum};

use super::datetime::{write_date, write_offset, write_time, write_timestamp};
use super::interval::parse_interval_of;
use super::number::{format_float4, format_float8, is_space};
use super::{
    FormatContext, array, datetime, format_interval, json_text, parse_float4, parse_float8, parse_int,
    parse_numeric, type_from_name,
};
use crate::error::{Result, SqlError};

/// Reads a value of a type from its text form. The type's modifier is not applied: that is
/// [`coerce_to_modifier`](super::coerce_to_modifier)'s, which knows whether the cast was explicit, and
/// [`cast`](super::cast) from [`DataType::Unknown`] does both.
pub fn parse(text: &str, data_type: &DataType, ctx: &FormatContext) -> Result<Datum> {
    Ok(match data_type {
        DataType::Bool => Datum::Bool(parse_bool(text)?),
        DataType::Int2 => Datum::Int2(parse_int(text, data_type)? as i16),
        DataType::Int4 => Datum::Int4(parse_int(text, data_type)? as i32),
        DataType::Int8 => Datum::Int8(parse_int(text, data_type)?),
        DataType::Float4 => Datum::Float4(parse_float4(text)?),
        DataType::Float8 => Datum::Float8(parse_float8(text)?),
        DataType::Numeric(_) => Datum::numeric(parse_numeric(text)?),
        DataType::Text
        | DataType::Varchar(_)
        | DataType::Char(_)
        | DataType::Name
        | DataType::InternalChar
        | DataType::Unknown => {
            if text.contains('\0') {
                let message = "invalid byte sequence for encoding \"UTF8\": 0x00";
                return Err(SqlError::character_not_in_repertoire(message));
            }
            Datum::text(text)
        }
        DataType::Bytea => Datum::Bytea(Arc::from(parse_bytea(text)?)),
        DataType::Date => Datum::Date(datetime::parse_date(text, ctx)?),
        DataType::Time(_) => Datum::Time(datetime::parse_time(text, ctx)?),
        DataType::Timetz(_) => Datum::Timetz(datetime::parse_timetz(text, ctx)?),
        DataType::Timestamp(_) => Datum::Timestamp(datetime::parse_timestamp(text, ctx)?),
        DataType::Timestamptz(_) => Datum::Timestamptz(datetime::parse_timestamptz(text, ctx)?),
        DataType::Interval(m) => {
            let fields = m.map_or(IntervalModifier::ALL, |m| m.fields);
            Datum::Interval(Arc::new(parse_interval_of(text, fields)?))
        }
        DataType::Uuid => Datum::uuid(parse_uuid(text)?),
        DataType::Json => {
            json_text::validate_json(text)?;
            Datum::text(text)
        }
        DataType::Jsonb => Datum::jsonb(json_text::parse_json(text)?),
        DataType::Oid => Datum::Oid(parse_int(text, data_type)? as u32),
        DataType::Regclass
        | DataType::Regtype
        | DataType::Regproc
        | DataType::Regprocedure
        | DataType::Regoper
        | DataType::Regoperator
        | DataType::Regcollation
        | DataType::Regnamespace
        | DataType::Regrole => Datum::Oid(parse_name(text, data_type, ctx)?),
        DataType::Array(element) => array::parse_array(text, element, ctx)?,
        DataType::Int2vector | DataType::Oidvector => {
            let element = data_type.element().unwrap_or(DataType::Oid);
            let items = text.split_ascii_whitespace().map(|item| parse(item, &element, ctx));
            Datum::array(element.clone(), items.collect::<Result<_>>()?)
        }
        DataType::Void => Datum::Null,
        DataType::Record | DataType::Row(_) => {
            return Err(SqlError::feature_not_supported(
                "input of anonymous composite types is not implemented",
            ));
        }
        DataType::Enum(ty) => Datum::Enum(ty.label(text).cloned().ok_or_else(|| {
            let message = format!("invalid input value for enum {}: \"{text}\"", ty.name);
            SqlError::invalid_text_representation(message)
        })?),
        DataType::Domain(domain) => return parse(text, &domain.base, ctx),
        DataType::Crdt(c) => return parse(text, &c.base(), ctx),
    })
}

/// The text form of a value that is not NULL, as a string.
pub fn to_text(value: &Datum, data_type: &DataType, ctx: &FormatContext) -> String {
    let mut out = String::new();
    format(value, data_type, ctx, &mut out);
    out
}

/// A date or timestamp as JSON has it: ISO 8601 with a `T`.
pub fn to_iso_text(value: &Datum, ctx: &FormatContext) -> String {
    let mut out = String::new();
    // Writing to memory does not fail.
    let _ = match value {
        Datum::Timestamp(t) => write_timestamp(*t, None, 'T', &mut out),
        Datum::Timestamptz(t) => {
            write_timestamp(ctx.timezone.to_local(*t), Some(ctx.timezone.offset_at(*t)), 'T', &mut out)
        }
        other => write_value(other, &DataType::Date, ctx, &mut out),
    };
    out
}

/// Writes the text form of a value that is not NULL (NULL writes nothing) to a `String` or `BytesMut`.
pub fn format(value: &Datum, data_type: &DataType, ctx: &FormatContext, out: &mut (impl Write + ?Sized)) {
    // Writing to memory does not fail.
    let _ = write_value(value, data_type, ctx, out);
}

pub(super) fn write_value(
    value: &Datum,
    data_type: &DataType,
    ctx: &FormatContext,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    match value {
        Datum::Null => Ok(()),
        Datum::Bool(b) => out.write_char(if *b { 't' } else { 'f' }),
        Datum::Int2(v) => out.write_str(itoa::Buffer::new().format(*v)),
        Datum::Int4(v) => out.write_str(itoa::Buffer::new().format(*v)),
        Datum::Int8(v) => out.write_str(itoa::Buffer::new().format(*v)),
        Datum::Oid(v) => write_oid(*v, data_type, ctx, out),
        Datum::Float4(v) => out.write_str(&format_float4(*v, ctx.extra_float_digits)),
        Datum::Float8(v) => out.write_str(&format_float8(*v, ctx.extra_float_digits)),
        Datum::Numeric(v) => write!(out, "{v}"),
        Datum::Text(s) => out.write_str(s),
        Datum::Bytea(b) => {
            out.write_str("\\x")?;
            b.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
        }
        Datum::Date(d) => write_date(*d, out),
        Datum::Time(t) => write_time(*t, out),
        Datum::Timetz(t) => {
            write_time(t.micros, out)?;
            write_offset(-t.west, false, out)
        }
        Datum::Timestamp(t) => write_timestamp(*t, None, ' ', out),
        Datum::Timestamptz(t) => {
            let offset = ctx.timezone.offset_at(*t);
            write_timestamp(ctx.timezone.to_local(*t), Some(offset), ' ', out)
        }
        Datum::Interval(i) => format_interval(i, ctx.interval_style, out),
        Datum::Uuid(u) => write!(out, "{}", uuid::Uuid::from_bytes(**u).as_hyphenated()),
        Datum::Jsonb(j) => write!(out, "{j}"),
        Datum::Enum(label) => out.write_str(&label_text(label, data_type)),
        Datum::Array(a) if data_type.lower_bound() == 0 => {
            for (i, item) in a.items.iter().enumerate() {
                if i > 0 {
                    out.write_char(' ')?;
                }
                write_value(item, &a.element, ctx, out)?;
            }
            Ok(())
        }
        Datum::Array(a) => array::write_array(a, ctx, out),
        Datum::Record(r) => array::write_record(r, ctx, out),
    }
}

/// An enumerated value's label: that of its type, or its own, which it was read with.
pub(super) fn label_text(label: &Label, data_type: &DataType) -> Arc<str> {
    let known = match data_type {
        DataType::Enum(ty) => ty.label_at(label.place),
        _ => None,
    };
    known.map_or_else(|| label.text.clone(), |known| known.text.clone())
}

/// `boolean` from text: any unique prefix of true, false, yes, no, on, off, or a digit.
fn parse_bool(text: &str) -> Result<bool> {
    let word = text.trim_matches(is_space).to_ascii_lowercase();
    let prefix_of = |whole: &str, least: usize| word.len() >= least && whole.starts_with(&word);
    if prefix_of("true", 1) || prefix_of("yes", 1) || word == "on" || word == "1" {
        return Ok(true);
    }
    if prefix_of("false", 1) || prefix_of("no", 1) || prefix_of("off", 2) || word == "0" {
        return Ok(false);
    }
    Err(SqlError::invalid_input(&DataType::Bool, text))
}

/// `bytea` from its hex or its escape format.
fn parse_bytea(text: &str) -> Result<Vec<u8>> {
    if let Some(hex) = text.strip_prefix("\\x") {
        return parse_hex(hex);
    }
    let bad = || SqlError::invalid_text_representation("invalid input syntax for type bytea");
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i] != b'\\' {
            out.push(bytes[i]);
            i += 1;
        } else if bytes.get(i + 1) == Some(&b'\\') {
            out.push(b'\\');
            i += 2;
        } else {
            let digits = bytes.get(i + 1..i + 4).ok_or_else(bad)?;
            if !digits.iter().all(|d| (b'0'..=b'7').contains(d)) || digits[0] > b'3' {
                return Err(bad());
            }
            out.push((digits[0] - b'0') * 64 + (digits[1] - b'0') * 8 + (digits[2] - b'0'));
            i += 4;
        }
    }
    Ok(out)
}

/// Pairs of hexadecimal digits, with space between pairs allowed.
pub(crate) fn parse_hex(text: &str) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 2);
    let mut high = None;
    for c in text.chars() {
        if is_space(c) && high.is_none() {
            continue;
        }
        let digit = c
            .to_digit(16)
            .ok_or_else(|| SqlError::invalid_parameter_value(format!("invalid hexadecimal digit: \"{c}\"")))?
            as u8;
        match high.take() {
            None => high = Some(digit),
            Some(h) => out.push(h << 4 | digit),
        }
    }
    match high {
        None => Ok(out),
        Some(_) => Err(SqlError::invalid_parameter_value("invalid hexadecimal data: odd number of digits")),
    }
}

/// `uuid` from 32 hexadecimal digits, perhaps in braces, perhaps with hyphens after groups of four.
fn parse_uuid(text: &str) -> Result<[u8; 16]> {
    let bad = || SqlError::invalid_input(&DataType::Uuid, text);
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}').ok_or_else(bad)?,
        None => text,
    };
    let (mut out, mut count) = ([0u8; 16], 0usize);
    let mut previous_hyphen = true;
    for c in inner.chars() {
        if c == '-' && !previous_hyphen && count.is_multiple_of(4) && count < 32 {
            previous_hyphen = true;
            continue;
        }
        let digit = c.to_digit(16).ok_or_else(bad)? as u8;
        let slot = out.get_mut(count / 2).ok_or_else(bad)?;
        *slot = *slot << 4 | digit;
        count += 1;
        previous_hyphen = false;
    }
    if count != 32 || previous_hyphen {
        return Err(bad());
    }
    Ok(out)
}

/// A type's name without the quotes that are not needed: `"pg_catalog"."int4"` is `pg_catalog.int4`.
fn unquoted_type(text: &str) -> Cow<'_, str> {
    let plain = |part: &str| !part.is_empty() && part != "char" && !part.contains(['.', ' ']);
    let quoted = text.split('"').skip(1).step_by(2);
    match text.contains('"') && quoted.clone().all(|part| plain(part) && part == part.to_lowercase()) {
        true => Cow::Owned(text.replace('"', "")),
        false => Cow::Borrowed(text),
    }
}

/// `regclass` and its like: an OID, `-` for none, or a name.
fn parse_name(text: &str, data_type: &DataType, ctx: &FormatContext) -> Result<u32> {
    if text == "-" {
        return Ok(0);
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(parse_int(text, &DataType::Oid)? as u32);
    }
    if *data_type == DataType::Regtype {
        let name = unquoted_type(text.trim());
        let plain = name.strip_prefix("pg_catalog.").unwrap_or(&name);
        if let Some(found) = type_from_name(None, plain, &[]) {
            return Ok(found.oid());
        }
        if let Some(found) = crate::catalog::pseudo_type(plain) {
            return Ok(found);
        }
        if let Some(names) = &ctx.names
            && let Some(found) = names.oid_of(data_type, text)?
        {
            return Ok(found);
        }
        let shown = text.replace('"', "");
        return Err(SqlError::undefined_object(format!("type \"{shown}\" does not exist")));
    }
    let found = match &ctx.names {
        Some(names) => names.oid_of(data_type, text)?,
        None => None,
    };
    found.ok_or_else(|| match data_type {
        DataType::Regclass => SqlError::undefined_table(format!("relation \"{text}\" does not exist")),
        DataType::Regproc | DataType::Regprocedure => {
            SqlError::undefined_function(format!("function \"{text}\" does not exist"))
        }
        DataType::Regoper | DataType::Regoperator => {
            SqlError::undefined_function(format!("operator does not exist: {text}"))
        }
        DataType::Regcollation => {
            SqlError::undefined_object(format!("collation \"{text}\" for encoding \"UTF8\" does not exist"))
        }
        DataType::Regnamespace => SqlError::invalid_schema_name(format!("schema \"{text}\" does not exist")),
        _ => SqlError::undefined_object(format!("role \"{text}\" does not exist")),
    })
}

fn write_oid(
    oid: u32,
    data_type: &DataType,
    ctx: &FormatContext,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    let name = match data_type {
        DataType::Regtype if oid == 0 => Some("-".to_string()),
        DataType::Regtype => DataType::from_oid(oid)
            .map(|t| match t {
                DataType::Char(_) => "character".to_string(),
                DataType::Array(e) if matches!(*e, DataType::Char(_)) => "character[]".to_string(),
                t => t.to_string(),
            })
            .or_else(|| crate::catalog::pseudo_type_name(oid))
            .or_else(|| ctx.names.as_ref().and_then(|n| n.name_of(data_type, oid))),
        DataType::Oid => None,
        t if t.is_oid_like() => match oid {
            0 if matches!(data_type, DataType::Regoper | DataType::Regoperator) => Some("0".to_string()),
            0 => Some("-".to_string()),
            _ => ctx.names.as_ref().and_then(|n| n.name_of(data_type, oid)),
        },
        _ => None,
    };
    match name {
        Some(name) => out.write_str(&name),
        None => write!(out, "{oid}"),
    }
}
