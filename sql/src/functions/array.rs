//! Array functions and operators.

use amphora_storage::datum::Array as ArrayValue;
use amphora_storage::{DataType, Datum};

use super::arithmetic::{int, wrong_kind};
use super::pattern::split_text;
use super::signature::Ty::*;
use super::{Call, ScalarFunction, function};
use crate::error::{Result, SqlError};
use crate::types::to_text;

fn array(d: &Datum) -> Result<&ArrayValue> {
    match d {
        Datum::Array(a) => Ok(a),
        _ => Err(wrong_kind()),
    }
}

/// The items of an array, none of NULL.
fn items(d: &Datum) -> Result<&[Datum]> {
    match d {
        Datum::Null => Ok(&[]),
        other => Ok(&array(other)?.items),
    }
}

/// An array of the call's result type.
fn result(c: &Call<'_>, items: Vec<Datum>) -> Datum {
    match c.return_type {
        DataType::Array(element) => Datum::array((**element).clone(), items),
        other => Datum::array(other.clone(), items),
    }
}

/// The length in a dimension; NULL if the array has no such dimension.
fn dimension(a: &[Datum]) -> Result<Option<i32>> {
    let count = array(&a[0])?.items.len() as i32;
    Ok((int(&a[1])? == 1 && count > 0).then_some(count))
}

fn optional(v: Option<i32>) -> Result<Datum> {
    Ok(v.map_or(Datum::Null, Datum::Int4))
}

fn append(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    let mut joined = items(&a[0])?.to_vec();
    joined.push(a[1].clone());
    Ok(result(c, joined))
}

fn prepend(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    let mut joined = vec![a[0].clone()];
    joined.extend_from_slice(items(&a[1])?);
    Ok(result(c, joined))
}

fn cat(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    if a[0].is_null() || a[1].is_null() {
        return Ok(if a[0].is_null() { a[1].clone() } else { a[0].clone() });
    }
    let mut joined = items(&a[0])?.to_vec();
    joined.extend_from_slice(items(&a[1])?);
    Ok(result(c, joined))
}

fn remove(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    Ok(result(c, items(&a[0])?.iter().filter(|i| **i != a[1]).cloned().collect()))
}

fn replace(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    let replaced = items(&a[0])?.iter().map(|i| if *i == a[1] { a[2].clone() } else { i.clone() });
    Ok(result(c, replaced.collect()))
}

fn position(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    let start = match a.get(2) {
        Some(d) if d.is_null() => {
            return Err(SqlError::null_value_not_allowed("initial position must not be null"));
        }
        Some(d) => usize::try_from(int(d)? - 1).unwrap_or(0),
        None => 0,
    };
    let found = items(&a[0])?.iter().skip(start).position(|i| *i == a[1]);
    optional(found.map(|i| (i + start) as i32 + 1))
}

fn positions(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    let found = (1..).zip(items(&a[0])?).filter(|(_, item)| **item == a[1]);
    Ok(Datum::array(DataType::Int4, found.map(|(i, _)| Datum::Int4(i)).collect()))
}

fn to_string(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    if a[0].is_null() || a[1].is_null() {
        return Ok(Datum::Null);
    }
    let separator = a[1].as_str().ok_or_else(wrong_kind)?;
    let null = a.get(2).and_then(Datum::as_str);
    let values = array(&a[0])?;
    let shown = values.items.iter().filter_map(|item| match item.is_null() {
        true => null.map(str::to_string),
        false => Some(to_text(item, &values.element, &c.context.format)),
    });
    Ok(Datum::text(shown.collect::<Vec<_>>().join(separator)))
}

fn from_string(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    let pieces = split_text(a)?.into_iter().map(|p| p.map_or(Datum::Null, Datum::text));
    Ok(Datum::array(DataType::Text, pieces.collect()))
}

/// True if every item of `part` is in `whole`; NULL equals nothing.
fn contains(whole: &[Datum], part: &[Datum]) -> bool {
    part.iter().all(|p| !p.is_null() && whole.contains(p))
}

/// `array[low:high]`; parts beyond either end are not there.
pub(crate) static SLICE: ScalarFunction = function("slice", &[AnyArray, Int4, Int4], AnyArray, |a, c| {
    let items = items(&a[0])?;
    let low = usize::try_from(int(&a[1])? - 1).unwrap_or(0).min(items.len());
    let high = usize::try_from(int(&a[2])?).unwrap_or(0).clamp(low, items.len());
    Ok(result(c, items[low..high].to_vec()))
});

/// The most elements of an array.
const MAX_ELEMENTS: i64 = 134_217_727;

/// `SET array[i] = value`: the array with this element, and NULLs up to it.
pub(crate) static ASSIGN: ScalarFunction =
    function("array_assign", &[AnyArray, Int4, AnyElement], AnyArray, |a, c| {
        if a[1].is_null() {
            return Err(null_subscript());
        }
        assign(items(&a[0])?, int(&a[1])?, int(&a[1])?, std::slice::from_ref(&a[2]), c)
    })
    .called_on_null();

/// `SET array[low:high] = array`.
pub(crate) static ASSIGN_SLICE: ScalarFunction =
    function("array_assign_slice", &[AnyArray, Int4, Int4, AnyArray], AnyArray, |a, c| {
        if a[1].is_null() || a[2].is_null() {
            return Err(null_subscript());
        }
        if a[3].is_null() {
            return Ok(a[0].clone());
        }
        let (low, high) = (int(&a[1])?, int(&a[2])?);
        if high < low {
            return Err(SqlError::array_subscript_error("upper bound cannot be less than lower bound"));
        }
        let source = items(&a[3])?;
        let wanted = usize::try_from(high - low + 1).unwrap_or(usize::MAX);
        if source.len() < wanted {
            return Err(SqlError::array_subscript_error("source array too small"));
        }
        assign(items(&a[0])?, low, high, &source[..wanted], c)
    })
    .called_on_null();

/// The path of SEARCH and CYCLE with one row more.
pub(crate) static APPEND_ROW: ScalarFunction =
    function("array_append", &[Any, Any], Any, |a, _| match &a[0] {
        Datum::Array(path) => {
            let mut items = path.items.clone();
            items.push(a[1].clone());
            Ok(Datum::array(path.element.clone(), items))
        }
        _ => Err(wrong_kind()),
    });

fn null_subscript() -> SqlError {
    SqlError::null_value_not_allowed("array subscript in assignment must not be null")
}

fn assign(old: &[Datum], low: i64, high: i64, values: &[Datum], c: &Call<'_>) -> Result<Datum> {
    if low < 1 || old.is_empty() && low != 1 {
        return Err(SqlError::feature_not_supported("arrays whose lower bound is not 1 are not supported"));
    }
    if high > MAX_ELEMENTS {
        return Err(SqlError::program_limit_exceeded(format!(
            "array size exceeds the maximum allowed ({MAX_ELEMENTS})"
        )));
    }
    let (low, high) = (low as usize - 1, high as usize);
    let mut new = old.to_vec();
    if new.len() < high {
        new.resize(high, Datum::Null);
    }
    new.splice(low..high, values.iter().cloned());
    Ok(result(c, new))
}

fn fill(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    let sizes = items(&a[1])?;
    match sizes {
        [] => Ok(result(c, Vec::new())),
        [n] => {
            let count = usize::try_from(int(n)?).unwrap_or(0);
            if count > 1 << 27 {
                return Err(SqlError::program_limit_exceeded(
                    "array size exceeds the maximum allowed (134217727)",
                ));
            }
            Ok(result(c, vec![a[0].clone(); count]))
        }
        _ => Err(SqlError::feature_not_supported("multidimensional arrays are not supported")),
    }
}

fn trim(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    let values = items(&a[0])?;
    match usize::try_from(int(&a[1])?).ok().and_then(|n| values.len().checked_sub(n)) {
        Some(keep) => Ok(result(c, values[..keep].to_vec())),
        None => Err(SqlError::array_subscript_error(format!(
            "number of elements to trim must be between 0 and {}",
            values.len()
        ))),
    }
}

/// The functions of this family.
pub(super) static FUNCTIONS: &[ScalarFunction] = &[
    function("array_length", &[AnyArray, Int4], Int4, |a, _| optional(dimension(a)?)),
    function("array_upper", &[AnyArray, Int4], Int4, |a, _| optional(dimension(a)?)),
    function("array_lower", &[AnyArray, Int4], Int4, |a, _| optional(dimension(a)?.map(|_| 1))),
    function("array_upper", &[Int2vector, Int4], Int4, |a, _| optional(dimension(a)?.map(|n| n - 1))),
    function("array_lower", &[Int2vector, Int4], Int4, |a, _| optional(dimension(a)?.map(|_| 0))),
    function("array_upper", &[Oidvector, Int4], Int4, |a, _| optional(dimension(a)?.map(|n| n - 1))),
    function("array_lower", &[Oidvector, Int4], Int4, |a, _| optional(dimension(a)?.map(|_| 0))),
    function("array_ndims", &[AnyArray], Int4, |a, _| {
        optional(if array(&a[0])?.items.is_empty() { None } else { Some(1) })
    }),
    function("array_dims", &[AnyArray], Text, |a, _| {
        Ok(match array(&a[0])?.items.len() {
            0 => Datum::Null,
            n => Datum::text(format!("[1:{n}]")),
        })
    }),
    function("cardinality", &[AnyArray], Int4, |a, _| Ok(Datum::Int4(array(&a[0])?.items.len() as i32))),
    function("array_append", &[AnyArray, AnyElement], AnyArray, append).called_on_null(),
    function("array_prepend", &[AnyElement, AnyArray], AnyArray, prepend).called_on_null(),
    function("array_cat", &[AnyArray, AnyArray], AnyArray, cat).called_on_null(),
    function("array_remove", &[AnyArray, AnyElement], AnyArray, remove).called_on_null(),
    function("array_replace", &[AnyArray, AnyElement, AnyElement], AnyArray, replace).called_on_null(),
    function("array_position", &[AnyArray, AnyElement], Int4, position).called_on_null(),
    function("array_position", &[AnyArray, AnyElement, Int4], Int4, position).called_on_null(),
    function("array_positions", &[AnyArray, AnyElement], Array(&Int4), positions).called_on_null(),
    function("array_fill", &[AnyElement, Array(&Int4)], AnyArray, fill).called_on_null(),
    function("array_fill", &[AnyElement, Array(&Int4), Array(&Int4)], AnyArray, |a, c| match items(&a[2])? {
        [one] if one.as_i64() == Some(1) => fill(a, c),
        _ => Err(SqlError::feature_not_supported("arrays whose lower bound is not 1 are not supported")),
    })
    .called_on_null(),
    function("trim_array", &[AnyArray, Int4], AnyArray, trim),
    function("array_to_string", &[AnyArray, Text], Text, to_string).stable(),
    function("array_to_string", &[AnyArray, Text, Text], Text, to_string).called_on_null().stable(),
    function("string_to_array", &[Text, Text], Array(&Text), from_string).called_on_null(),
    function("string_to_array", &[Text, Text, Text], Array(&Text), from_string).called_on_null(),
];

/// The operators of this family.
pub(super) static OPERATORS: &[ScalarFunction] = &[
    function("||", &[AnyArray, AnyArray], AnyArray, cat).called_on_null(),
    function("||", &[AnyArray, AnyElement], AnyArray, append).called_on_null(),
    function("||", &[AnyElement, AnyArray], AnyArray, prepend).called_on_null(),
    function("@>", &[AnyArray, AnyArray], Bool, |a, _| {
        Ok(Datum::Bool(contains(items(&a[0])?, items(&a[1])?)))
    }),
    function("<@", &[AnyArray, AnyArray], Bool, |a, _| {
        Ok(Datum::Bool(contains(items(&a[1])?, items(&a[0])?)))
    }),
    function("&&", &[AnyArray, AnyArray], Bool, |a, _| {
        let (x, y) = (items(&a[0])?, items(&a[1])?);
        Ok(Datum::Bool(x.iter().any(|i| !i.is_null() && y.contains(i))))
    }),
];
