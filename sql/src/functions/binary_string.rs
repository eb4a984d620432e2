//! `bytea` functions: lengths, slices, text encodings, hashes.

use std::sync::Arc;

use amphora_storage::Datum;
use sha2::Digest;

use super::arithmetic::{int, wrong_kind};
use super::signature::Ty::*;
use super::string::str_of;
use super::{Call, ScalarFunction, function};
use crate::error::{Result, SqlError};
use crate::types::{FormatContext, parse};

fn bytes(d: &Datum) -> Result<&[u8]> {
    match d {
        Datum::Bytea(b) => Ok(b),
        _ => Err(wrong_kind()),
    }
}

fn bytea(b: impl AsRef<[u8]>) -> Result<Datum> {
    Ok(Datum::Bytea(Arc::from(b.as_ref())))
}

fn hex(b: &[u8]) -> String {
    b.iter().map(|byte| format!("{byte:02x}")).collect()
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// MIME's base64: a line break after every 76 characters.
fn to_base64(b: &[u8]) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for chunk in b.chunks(3) {
        if column == 76 {
            out.push('\n');
            column = 0;
        }
        let word = chunk.iter().fold(0u32, |w, byte| w << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = (word >> (18 - 6 * i)) & 63;
            out.push(if i <= chunk.len() { BASE64[digit as usize] as char } else { '=' });
        }
        column += 4;
    }
    out
}

fn from_base64(s: &str) -> Result<Vec<u8>> {
    let (mut out, mut word, mut count) = (Vec::new(), 0u32, 0);
    let mut ended = false;
    for c in s.chars().filter(|c| !c.is_ascii_whitespace()) {
        if c == '=' {
            ended = true;
            continue;
        }
        let digit = BASE64.iter().position(|b| *b as char == c).filter(|_| !ended).ok_or_else(|| {
            SqlError::invalid_parameter_value(format!(
                "invalid symbol \"{c}\" found while decoding base64 sequence"
            ))
        })?;
        word = word << 6 | digit as u32;
        count += 1;
        if count % 4 == 0 {
            out.extend([(word >> 16) as u8, (word >> 8) as u8, word as u8]);
            word = 0;
        }
    }
    match count % 4 {
        0 => {}
        2 => out.push((word >> 4) as u8),
        3 => out.extend([(word >> 10) as u8, (word >> 2) as u8]),
        _ => {
            return Err(SqlError::invalid_parameter_value("invalid base64 end sequence")
                .with_hint("Input data is missing padding, is truncated, or is otherwise corrupted."));
        }
    }
    Ok(out)
}

fn escape(b: &[u8]) -> String {
    let mut out = String::new();
    for byte in b {
        match byte {
            b'\\' => out.push_str("\\\\"),
            0 | 0x80.. => out.push_str(&format!("\\{byte:03o}")),
            other => out.push(*other as char),
        }
    }
    out
}

fn unknown_encoding(name: &str) -> SqlError {
    SqlError::invalid_parameter_value(format!("unrecognized encoding: \"{name}\""))
}

fn encode(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let b = bytes(&a[0])?;
    let name = str_of(&a[1])?;
    Ok(Datum::text(match name.to_ascii_lowercase().as_str() {
        "hex" => hex(b),
        "base64" => to_base64(b),
        "escape" => escape(b),
        _ => return Err(unknown_encoding(name)),
    }))
}

fn decode(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (s, name) = (str_of(&a[0])?, str_of(&a[1])?);
    match name.to_ascii_lowercase().as_str() {
        "hex" => bytea(crate::types::parse_hex(s)?),
        "base64" => bytea(from_base64(s)?),
        // A leading `\x` is not special to this encoding.
        "escape" if s.starts_with("\\x") => {
            Err(SqlError::invalid_text_representation("invalid input syntax for type bytea"))
        }
        "escape" => parse(s, &amphora_storage::DataType::Bytea, &FormatContext::default()),
        _ => Err(unknown_encoding(name)),
    }
}

fn slice(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (b, start) = (bytes(&a[0])?, int(&a[1])?);
    let end = match a.get(2).map(int).transpose()? {
        Some(l) if l < 0 => return Err(SqlError::new("22011", "negative substring length not allowed")),
        Some(l) => start.saturating_add(l),
        None => i64::MAX,
    };
    let clamp = |v: i64| usize::try_from(v.saturating_sub(1).max(0)).unwrap_or(usize::MAX).min(b.len());
    let (from, to) = (clamp(start), clamp(end));
    bytea(if to > from { &b[from..to] } else { &[] })
}

fn byte_at(a: &[Datum]) -> Result<(usize, u8)> {
    let (b, i) = (bytes(&a[0])?, int(&a[1])?);
    usize::try_from(i).ok().and_then(|i| b.get(i).map(|v| (i, *v))).ok_or_else(|| {
        let last = b.len() as i64 - 1;
        SqlError::array_subscript_error(format!("index {i} out of valid range, 0..{last}"))
    })
}

fn set_byte(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (i, _) = byte_at(a)?;
    let mut copy = bytes(&a[0])?.to_vec();
    copy[i] = int(&a[2])? as u8;
    bytea(copy)
}

fn convert_from(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    match std::str::from_utf8(bytes(&a[0])?) {
        Ok(s) if s.contains('\0') => {
            Err(SqlError::character_not_in_repertoire("invalid byte sequence for encoding \"UTF8\": 0x00"))
        }
        Ok(s) => Ok(Datum::text(s)),
        Err(e) => {
            let byte = bytes(&a[0])?.get(e.valid_up_to()).copied().unwrap_or_default();
            let message = format!("invalid byte sequence for encoding \"UTF8\": 0x{byte:02x}");
            Err(SqlError::character_not_in_repertoire(message))
        }
    }
}

fn md5(b: &[u8]) -> Result<Datum> {
    Ok(Datum::text(hex(&md5::compute(b).0)))
}

/// Where a part begins, from 1; 0 if it is not there.
fn place_of(whole: &Datum, part: &Datum) -> Result<Datum> {
    let (whole, part) = (bytes(whole)?, bytes(part)?);
    let found = match part.len() {
        0 => Some(0),
        n => whole.windows(n).position(|w| w == part),
    };
    Ok(Datum::Int4(found.map_or(0, |i| i as i32 + 1)))
}

fn trim_bytes(a: &[Datum], start: bool, end: bool) -> Result<Datum> {
    let (mut rest, set) = (bytes(&a[0])?, bytes(&a[1])?);
    while let (true, [first, tail @ ..]) = (start, rest)
        && set.contains(first)
    {
        rest = tail;
    }
    while let (true, [head @ .., last]) = (end, rest)
        && set.contains(last)
    {
        rest = head;
    }
    bytea(rest)
}

/// The functions of this family.
pub(super) static FUNCTIONS: &[ScalarFunction] = &[
    function("length", &[Bytea], Int4, |a, _| Ok(Datum::Int4(bytes(&a[0])?.len() as i32))),
    function("octet_length", &[Bytea], Int4, |a, _| Ok(Datum::Int4(bytes(&a[0])?.len() as i32))),
    function("bit_length", &[Bytea], Int4, |a, _| Ok(Datum::Int4(bytes(&a[0])?.len() as i32 * 8))),
    function("substring", &[Bytea, Int4], Bytea, slice),
    function("substring", &[Bytea, Int4, Int4], Bytea, slice),
    function("substr", &[Bytea, Int4], Bytea, slice),
    function("substr", &[Bytea, Int4, Int4], Bytea, slice),
    function("get_byte", &[Bytea, Int4], Int4, |a, _| Ok(Datum::Int4(i32::from(byte_at(a)?.1)))),
    function("set_byte", &[Bytea, Int4, Int4], Bytea, set_byte),
    function("encode", &[Bytea, Text], Text, encode),
    function("decode", &[Text, Text], Bytea, decode),
    function("convert_to", &[Text, Name], Bytea, |a, _| bytea(str_of(&a[0])?.as_bytes())).stable(),
    function("convert_from", &[Bytea, Name], Text, convert_from).stable(),
    function("md5", &[Text], Text, |a, _| md5(str_of(&a[0])?.as_bytes())),
    function("sha224", &[Bytea], Bytea, |a, _| bytea(sha2::Sha224::digest(bytes(&a[0])?))),
    function("sha256", &[Bytea], Bytea, |a, _| bytea(sha2::Sha256::digest(bytes(&a[0])?))),
    function("sha384", &[Bytea], Bytea, |a, _| bytea(sha2::Sha384::digest(bytes(&a[0])?))),
    function("sha512", &[Bytea], Bytea, |a, _| bytea(sha2::Sha512::digest(bytes(&a[0])?))),
    function("position", &[Bytea, Bytea], Int4, |a, _| place_of(&a[1], &a[0])),
    function("strpos", &[Bytea, Bytea], Int4, |a, _| place_of(&a[0], &a[1])),
    function("bit_count", &[Bytea], Int8, |a, _| {
        Ok(Datum::Int8(bytes(&a[0])?.iter().map(|b| i64::from(b.count_ones())).sum()))
    }),
    function("get_bit", &[Bytea, Int8], Int4, |a, _| {
        let (b, at) = (bytes(&a[0])?, int(&a[1])?);
        match usize::try_from(at).ok().and_then(|at| b.get(at / 8).map(|byte| byte >> (at % 8) & 1)) {
            Some(bit) => Ok(Datum::Int4(i32::from(bit))),
            None => Err(SqlError::array_subscript_error(format!(
                "index {at} out of valid range, 0..{}",
                b.len() as i64 * 8 - 1
            ))),
        }
    }),
    function("set_bit", &[Bytea, Int8, Int4], Bytea, |a, _| {
        let (mut b, at, new) = (bytes(&a[0])?.to_vec(), int(&a[1])?, int(&a[2])?);
        let last = b.len() as i64 * 8 - 1;
        let Some(byte) = usize::try_from(at).ok().and_then(|at| b.get_mut(at / 8)) else {
            let message = format!("index {at} out of valid range, 0..{last}");
            return Err(SqlError::array_subscript_error(message));
        };
        let bit = 1_u8 << (at % 8);
        match new {
            0 => *byte &= !bit,
            1 => *byte |= bit,
            _ => return Err(SqlError::invalid_parameter_value("new bit must be 0 or 1")),
        }
        Ok(Datum::Bytea(b.into()))
    }),
    function("btrim", &[Bytea, Bytea], Bytea, |a, _| trim_bytes(a, true, true)),
    function("ltrim", &[Bytea, Bytea], Bytea, |a, _| trim_bytes(a, true, false)),
    function("rtrim", &[Bytea, Bytea], Bytea, |a, _| trim_bytes(a, false, true)),
    function("md5", &[Bytea], Text, |a, _| md5(bytes(&a[0])?)),
];

/// LIKE over bytes: each is a character.
fn like(a: &[Datum]) -> Result<bool> {
    let wide = |d: &Datum| Ok::<String, SqlError>(bytes(d)?.iter().map(|b| char::from(*b)).collect());
    Ok(super::LikePattern::new(&wide(&a[1])?, Some('\\'), false)?.matches(&wide(&a[0])?))
}

/// `bytea LIKE`.
pub(super) static LIKE: &[ScalarFunction] = &[
    function("~~", &[Bytea, Bytea], Bool, |a, _| Ok(Datum::Bool(like(a)?))),
    function("!~~", &[Bytea, Bytea], Bool, |a, _| Ok(Datum::Bool(!like(a)?))),
];

/// The operators of this family.
pub(super) static OPERATORS: &[ScalarFunction] = &[function("||", &[Bytea, Bytea], Bytea, |a, _| {
    let mut joined = bytes(&a[0])?.to_vec();
    joined.extend_from_slice(bytes(&a[1])?);
    bytea(joined)
})];
