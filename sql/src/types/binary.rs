//! The binary forms of the wire protocol: big-endian, as PostgreSQL's send and receive functions.

use std::sync::Arc;

use amphora_storage::array::{Dimension, MAX_DIMENSIONS};
use amphora_storage::datum::{Interval, Timetz};
use amphora_storage::{Array, DataType, Datum, Numeric};
use bigdecimal::BigDecimal;
use bytes::{BufMut, BytesMut};
use num_bigint::{BigInt, Sign};
use num_traits::Zero;

use super::{FormatContext, parse};
use crate::error::{Result, SqlError};

fn malformed(data_type: &DataType) -> SqlError {
    let message = format!("incorrect binary data format for type {}", data_type.unmodified());
    SqlError::invalid_binary_representation(message)
}

/// Takes bytes from the front.
struct Reader<'a> {
    bytes: &'a [u8],
    data_type: &'a DataType,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        if n > self.bytes.len() {
            return Err(SqlError::protocol_violation("insufficient data left in message"));
        }
        let (head, tail) = self.bytes.split_at(n);
        self.bytes = tail;
        Ok(head)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| malformed(self.data_type))
    }

    fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.fixed()?))
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.fixed()?))
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.fixed()?))
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.fixed()?))
    }
}

/// Reads a value of a type from its binary form; the modifier is not applied. 22P03, 08P01.
pub fn parse_binary(bytes: &[u8], data_type: &DataType) -> Result<Datum> {
    let mut r = Reader { bytes, data_type };
    let value = match data_type {
        DataType::Bool => Datum::Bool(r.fixed::<1>()?[0] != 0),
        DataType::Int2 => Datum::Int2(r.i16()?),
        DataType::Int4 => Datum::Int4(r.i32()?),
        DataType::Int8 => Datum::Int8(r.i64()?),
        DataType::Float4 => Datum::Float4(f32::from_be_bytes(r.fixed()?)),
        DataType::Float8 => Datum::Float8(f64::from_be_bytes(r.fixed()?)),
        DataType::Numeric(_) => Datum::numeric(read_numeric(&mut r)?),
        DataType::Text
        | DataType::Varchar(_)
        | DataType::Char(_)
        | DataType::Name
        | DataType::InternalChar
        | DataType::Unknown
        | DataType::Enum(_)
        | DataType::Json => {
            let text = utf8(r.take(bytes.len())?)?;
            return parse(text, data_type, &FormatContext::default());
        }
        DataType::Jsonb => {
            if r.fixed::<1>()? != [1] {
                return Err(SqlError::invalid_binary_representation("unsupported jsonb version number"));
            }
            let text = utf8(r.take(bytes.len() - 1)?)?;
            return parse(text, data_type, &FormatContext::default());
        }
        DataType::Bytea => Datum::Bytea(Arc::from(r.take(bytes.len())?)),
        DataType::Date => Datum::Date(r.i32()?),
        DataType::Time(_) => {
            let micros = r.i64()?;
            if !(0..=super::DAY).contains(&micros) {
                return Err(SqlError::datetime_field_overflow("time out of range"));
            }
            Datum::Time(micros)
        }
        DataType::Timetz(_) => {
            let (micros, west) = (r.i64()?, r.i32()?);
            if !(0..=super::DAY).contains(&micros) {
                return Err(SqlError::datetime_field_overflow("time out of range"));
            }
            if west.abs() >= 16 * 3600 {
                let message = "time zone displacement out of range";
                return Err(SqlError::new("22009", message));
            }
            Datum::Timetz(Timetz { micros, west })
        }
        DataType::Timestamp(_) => Datum::Timestamp(r.i64()?),
        DataType::Timestamptz(_) => Datum::Timestamptz(r.i64()?),
        DataType::Interval(_) => {
            let (micros, days, months) = (r.i64()?, r.i32()?, r.i32()?);
            Datum::Interval(Arc::new(Interval { months, days, micros }))
        }
        DataType::Uuid => Datum::uuid(r.fixed()?),
        DataType::Oid
        | DataType::Regclass
        | DataType::Regtype
        | DataType::Regproc
        | DataType::Regprocedure
        | DataType::Regoper
        | DataType::Regoperator
        | DataType::Regcollation
        | DataType::Regnamespace
        | DataType::Regrole => Datum::Oid(u32::from_be_bytes(r.fixed()?)),
        DataType::Array(element) => read_array(&mut r, element)?,
        DataType::Int2vector => read_array(&mut r, &DataType::Int2)?,
        DataType::Oidvector => read_array(&mut r, &DataType::Oid)?,
        DataType::Record | DataType::Row(_) => read_record(&mut r)?,
        DataType::Void => Datum::Null,
        DataType::Crdt(c) => return parse_binary(bytes, &c.base()),
        DataType::Domain(domain) => return parse_binary(bytes, &domain.base),
    };
    if !r.bytes.is_empty() {
        return Err(malformed(data_type));
    }
    Ok(value)
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|e| {
        let byte = bytes.get(e.valid_up_to()).copied().unwrap_or_default();
        SqlError::character_not_in_repertoire(format!(
            "invalid byte sequence for encoding \"UTF8\": 0x{byte:02x}"
        ))
    })
}

/// PostgreSQL's numeric: digits of base 10000, the weight of the first, sign, display scale.
fn read_numeric(r: &mut Reader<'_>) -> Result<Numeric> {
    let (count, weight, sign, scale) = (r.u16()?, r.i16()?, r.u16()?, r.u16()?);
    match sign {
        0xC000 => return Ok(Numeric::NaN),
        0xD000 => return Ok(Numeric::Infinity),
        0xF000 => return Ok(Numeric::NegInfinity),
        0 | 0x4000 => {}
        _ => {
            return Err(SqlError::invalid_binary_representation(
                "invalid sign in external \"numeric\" value",
            ));
        }
    }
    if scale > 16_383 {
        return Err(SqlError::invalid_binary_representation("invalid scale in external \"numeric\" value"));
    }
    let mut digits = Vec::with_capacity(usize::from(count) * 4);
    for _ in 0..count {
        let digit = r.u16()?;
        if digit > 9999 {
            return Err(SqlError::invalid_binary_representation(
                "invalid digit in external \"numeric\" value",
            ));
        }
        digits.extend([digit / 1000, digit / 100 % 10, digit / 10 % 10, digit % 10].map(|d| d as u8));
    }
    let unscaled = match BigInt::from_radix_be(Sign::Plus, &digits, 10) {
        Some(n) if sign == 0x4000 => -n,
        Some(n) => n,
        None => BigInt::zero(),
    };
    let own_scale = (i64::from(count) - i64::from(weight) - 1) * 4;
    let number = BigDecimal::new(unscaled, own_scale);
    Ok(Numeric::Finite(number.with_scale(i64::from(scale))))
}

fn write_numeric(numeric: &Numeric, out: &mut BytesMut) {
    // PostgreSQL gives the infinities a display scale of 32.
    let special = |sign: u16, scale: u16, out: &mut BytesMut| {
        out.put_slice(&[0, 0, 0, 0]);
        out.put_u16(sign);
        out.put_u16(scale);
    };
    let number = match numeric {
        Numeric::NaN => return special(0xC000, 0, out),
        Numeric::Infinity => return special(0xD000, 32, out),
        Numeric::NegInfinity => return special(0xF000, 32, out),
        Numeric::Finite(d) => d,
    };
    let (unscaled, scale) = number.as_bigint_and_exponent();
    let scale = scale.max(0);
    let (sign, mut decimal) = unscaled.to_radix_be(10);
    // Whole groups of four on both sides of the point.
    let padding = ((4 - scale % 4) % 4) as usize;
    decimal.extend(std::iter::repeat_n(0, padding));
    let front = (4 - decimal.len() % 4) % 4;
    decimal.splice(0..0, std::iter::repeat_n(0, front));
    let mut groups: Vec<u16> =
        decimal.chunks(4).map(|c| c.iter().fold(0u16, |n, d| n * 10 + u16::from(*d))).collect();
    let fraction_groups = (scale as usize).div_ceil(4);
    let mut weight = groups.len() as i64 - fraction_groups as i64 - 1;
    let leading = groups.iter().take_while(|g| **g == 0).count();
    groups.drain(..leading);
    weight -= leading as i64;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.is_empty() {
        weight = 0;
    }
    out.put_u16(groups.len() as u16);
    out.put_i16(weight as i16);
    out.put_u16(if sign == Sign::Minus { 0x4000 } else { 0 });
    out.put_u16(scale as u16);
    groups.iter().for_each(|g| out.put_u16(*g));
}

fn read_array(r: &mut Reader<'_>, element: &DataType) -> Result<Datum> {
    let dimensions = r.i32()?;
    let _has_nulls = r.i32()?;
    let oid = r.i32()? as u32;
    if oid != element.oid() {
        return Err(SqlError::datatype_mismatch(format!(
            "binary data has array element type {oid} instead of expected {}",
            element.oid()
        )));
    }
    let count = usize::try_from(dimensions).map_err(|_| malformed(element))?;
    if count > MAX_DIMENSIONS {
        return Err(super::too_many_dimensions(count));
    }
    let (mut shape, mut places) = (Vec::with_capacity(count), usize::from(count > 0));
    for _ in 0..count {
        let length = u32::try_from(r.i32()?).map_err(|_| malformed(element))?;
        shape.push(Dimension { length, lower: r.i32()? });
        // Every element takes at least the four bytes of its length.
        places = places.saturating_mul(length as usize);
        if places > r.bytes.len() / 4 {
            return Err(SqlError::protocol_violation("insufficient data left in message"));
        }
    }
    let mut items = Vec::with_capacity(places);
    for _ in 0..places {
        items.push(read_field(r, element)?);
    }
    let array = Array::shaped(element.clone(), items, &shape);
    array.map(|a| Datum::Array(Arc::new(a))).ok_or_else(|| malformed(element))
}

fn read_field(r: &mut Reader<'_>, data_type: &DataType) -> Result<Datum> {
    match r.i32()? {
        -1 => Ok(Datum::Null),
        n => {
            let n = usize::try_from(n).map_err(|_| malformed(data_type))?;
            parse_binary(r.take(n)?, data_type)
        }
    }
}

fn read_record(r: &mut Reader<'_>) -> Result<Datum> {
    let count = r.i32()?;
    let mut fields = Vec::new();
    for _ in 0..count {
        let oid = r.i32()? as u32;
        let data_type = DataType::from_oid(oid)
            .ok_or_else(|| SqlError::undefined_object(format!("type with OID {oid} does not exist")))?;
        fields.push(read_field(r, &data_type)?);
    }
    Ok(Datum::Record(Arc::from(fields)))
}

/// Appends the binary form of a value that is not NULL, without its length (NULL appends nothing).
pub fn format_binary(value: &Datum, data_type: &DataType, out: &mut BytesMut) {
    match value {
        Datum::Null => {}
        Datum::Bool(b) => out.put_u8(u8::from(*b)),
        Datum::Int2(v) => out.put_i16(*v),
        Datum::Int4(v) => out.put_i32(*v),
        Datum::Int8(v) => out.put_i64(*v),
        Datum::Oid(v) => out.put_u32(*v),
        Datum::Float4(v) => out.put_f32(*v),
        Datum::Float8(v) => out.put_f64(*v),
        Datum::Numeric(n) => write_numeric(n, out),
        Datum::Text(s) if data_type.base() == DataType::InternalChar => {
            out.put_u8(s.bytes().next().unwrap_or(0));
        }
        Datum::Text(s) => out.put_slice(s.as_bytes()),
        Datum::Bytea(b) => out.put_slice(b),
        Datum::Date(d) => out.put_i32(*d),
        Datum::Time(t) | Datum::Timestamp(t) | Datum::Timestamptz(t) => out.put_i64(*t),
        Datum::Timetz(t) => {
            out.put_i64(t.micros);
            out.put_i32(t.west);
        }
        Datum::Interval(i) => {
            out.put_i64(i.micros);
            out.put_i32(i.days);
            out.put_i32(i.months);
        }
        Datum::Uuid(u) => out.put_slice(&**u),
        Datum::Enum(label) => out.put_slice(super::text::label_text(label, data_type).as_bytes()),
        Datum::Jsonb(j) => {
            out.put_u8(1);
            out.put_slice(j.to_string().as_bytes());
        }
        Datum::Array(a) => write_array(a, data_type.lower_bound(), out),
        Datum::Record(fields) => {
            out.put_i32(fields.len() as i32);
            for field in fields.iter() {
                let data_type = kind(field);
                out.put_u32(data_type.oid());
                write_field(field, &data_type, out);
            }
        }
    }
}

fn write_array(array: &Array, lower_bound: i32, out: &mut BytesMut) {
    let dimensions = array.dimensions();
    out.put_i32(dimensions.len() as i32);
    out.put_i32(i32::from(array.items.iter().any(Datum::is_null)));
    out.put_u32(array.element.oid());
    for dimension in dimensions {
        out.put_i32(dimension.length as i32);
        // The catalogs' vectors are counted from 0.
        out.put_i32(dimension.lower.saturating_add(lower_bound - 1));
    }
    for item in &array.items {
        write_field(item, &array.element, out);
    }
}

/// A length and the value; -1 for NULL.
fn write_field(value: &Datum, data_type: &DataType, out: &mut BytesMut) {
    if value.is_null() {
        out.put_i32(-1);
        return;
    }
    let at = out.len();
    out.put_i32(0);
    format_binary(value, data_type, out);
    let length = (out.len() - at - 4) as i32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// The plainest type a value can have.
fn kind(value: &Datum) -> DataType {
    match value {
        Datum::Null | Datum::Text(_) | Datum::Enum(_) => DataType::Text,
        Datum::Bool(_) => DataType::Bool,
        Datum::Int2(_) => DataType::Int2,
        Datum::Int4(_) => DataType::Int4,
        Datum::Int8(_) => DataType::Int8,
        Datum::Oid(_) => DataType::Oid,
        Datum::Float4(_) => DataType::Float4,
        Datum::Float8(_) => DataType::Float8,
        Datum::Numeric(_) => DataType::Numeric(None),
        Datum::Bytea(_) => DataType::Bytea,
        Datum::Date(_) => DataType::Date,
        Datum::Time(_) => DataType::Time(None),
        Datum::Timetz(_) => DataType::Timetz(None),
        Datum::Timestamp(_) => DataType::Timestamp(None),
        Datum::Timestamptz(_) => DataType::Timestamptz(None),
        Datum::Interval(_) => DataType::Interval(None),
        Datum::Uuid(_) => DataType::Uuid,
        Datum::Jsonb(_) => DataType::Jsonb,
        Datum::Array(a) => a.element.clone().array(),
        Datum::Record(_) => DataType::Record,
    }
}
