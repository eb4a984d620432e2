//! Arrays by their dimensions: subscripts and slices, assignment to parts, joining, stacking, filling.

use std::sync::Arc;

use amphora_storage::array::{Dimension, MAX_DIMENSIONS};
use amphora_storage::datum::Array as ArrayValue;
use amphora_storage::{DataType, Datum};

use super::arithmetic::int;
use super::array::{array, items, result};
use super::signature::Ty::*;
use super::{Call, ScalarFunction, function};
use crate::error::{Result, SqlError};
use crate::types::too_many_dimensions;

/// The most elements of an array.
const MAX_ELEMENTS: i64 = 134_217_727;

fn too_large() -> SqlError {
    SqlError::program_limit_exceeded(format!("array size exceeds the maximum allowed ({MAX_ELEMENTS})"))
}

fn element_of(c: &Call<'_>) -> DataType {
    match c.return_type {
        DataType::Array(element) => (**element).clone(),
        other => other.clone(),
    }
}

/// An array of the call's result type with these dimensions.
fn shaped(c: &Call<'_>, items: Vec<Datum>, dimensions: &[Dimension]) -> Result<Datum> {
    if items.len() as i64 > MAX_ELEMENTS {
        return Err(too_large());
    }
    match ArrayValue::shaped(element_of(c), items, dimensions) {
        Some(array) => Ok(Datum::Array(Arc::new(array))),
        None => Err(SqlError::internal("an array whose dimensions do not hold its elements")),
    }
}

fn optional(v: Option<i64>) -> Result<Datum> {
    Ok(v.map_or(Datum::Null, |v| Datum::Int4(v as i32)))
}

/// The dimension of a number, from 1.
fn dimension(a: &[Datum]) -> Result<Option<Dimension>> {
    let place = usize::try_from(int(&a[1])? - 1).ok();
    place.and_then(|i| array(&a[0]).map(|a| a.dimensions().get(i).copied()).transpose()).transpose()
}

// Parts.

/// `ARRAY[[…], […]]`: arrays of one shape as one with a dimension more.
pub(crate) static STACK: ScalarFunction = function("array_stack", &[AnyArray], AnyArray, |a, c| {
    let mut parts = Vec::with_capacity(a.len());
    for part in a {
        parts.push(match part {
            Datum::Array(part) => Some(&**part).filter(|p| !p.items.is_empty()),
            _ => None,
        });
    }
    let Some(first) = parts.iter().flatten().next() else { return Ok(result(c, Vec::new())) };
    let inner = first.dimensions();
    let mut all = Vec::with_capacity(first.items.len() * parts.len());
    for part in &parts {
        match part {
            Some(part) if part.dimensions() == inner => all.extend_from_slice(&part.items),
            _ => {
                return Err(SqlError::array_subscript_error(
                    "multidimensional arrays must have array expressions with matching dimensions",
                ));
            }
        }
    }
    stacked(c, all, parts.len(), &inner)
})
.variadic()
.called_on_null();

/// So many arrays of these dimensions, one behind the other.
fn stacked(c: &Call<'_>, items: Vec<Datum>, count: usize, inner: &[Dimension]) -> Result<Datum> {
    if inner.len() >= MAX_DIMENSIONS {
        return Err(too_many_dimensions(inner.len() + 1));
    }
    let dimensions: Vec<Dimension> =
        [Dimension::from_one(count)].into_iter().chain(inner.iter().copied()).collect();
    shaped(c, items, &dimensions)
}

/// `array[i][j]`; NULL if there is no such place.
pub(crate) static SUBSCRIPTS: ScalarFunction =
    function("array_subscripts", &[AnyArray, Any], AnyElement, |a, _| {
        let subscripts = a[1..].iter().map(int).collect::<Result<Vec<i64>>>()?;
        Ok(array(&a[0])?.at(&subscripts).cloned().unwrap_or(Datum::Null))
    })
    .variadic();

/// `array[low:high]…`; parts beyond either end are not there. What is left begins at 1.
pub(crate) static SLICE: ScalarFunction = function("slice", &[AnyArray, Any], AnyArray, |a, c| {
    let source = array(&a[0])?;
    let dimensions = source.dimensions();
    let bounds = a[1..].chunks(2);
    if dimensions.is_empty() || bounds.len() > dimensions.len() {
        return Ok(result(c, Vec::new()));
    }
    let mut ranges: Vec<std::ops::Range<usize>> = dimensions.iter().map(|d| 0..d.length as usize).collect();
    for ((range, dimension), bound) in ranges.iter_mut().zip(&dimensions).zip(bounds) {
        let [low, high] = bound else { return Err(SqlError::internal("a slice without its end")) };
        let lower = i64::from(dimension.lower);
        let low = int(low)?.max(lower) - lower;
        let high = int(high)?.min(dimension.upper()) - lower + 1;
        if high <= low {
            return Ok(result(c, Vec::new()));
        }
        *range = low as usize..high as usize;
    }
    let kept: Vec<Dimension> = ranges.iter().map(|r| Dimension::from_one(r.len())).collect();
    let mut part = Vec::with_capacity(ranges.iter().map(|r| r.len()).product());
    cut(&source.items, &dimensions, &ranges, &mut part);
    shaped(c, part, &kept)
})
.variadic();

/// Copies the elements within ranges, one dimension after the other.
fn cut(items: &[Datum], dimensions: &[Dimension], ranges: &[std::ops::Range<usize>], out: &mut Vec<Datum>) {
    let (Some(range), Some((_, inner))) = (ranges.first(), dimensions.split_first()) else {
        return out.extend_from_slice(items);
    };
    let size = inner.iter().map(|d| d.length as usize).product::<usize>();
    if inner.is_empty() {
        return out.extend_from_slice(items.get(range.clone()).unwrap_or_default());
    }
    for place in range.clone() {
        cut(items.get(place * size..(place + 1) * size).unwrap_or_default(), inner, &ranges[1..], out);
    }
}

// Assignment.

/// `SET array[i][j] = value`: the array with this element; one of one dimension grows, with NULLs up to it.
pub(crate) static ASSIGN: ScalarFunction =
    function("array_assign", &[AnyArray, AnyElement, Int4], AnyArray, |a, c| {
        if a[2..].iter().any(Datum::is_null) {
            return Err(null_subscript());
        }
        let subscripts = a[2..].iter().map(int).collect::<Result<Vec<i64>>>()?;
        if let [subscript] = subscripts[..] {
            return assign(&a[0], subscript, subscript, std::slice::from_ref(&a[1]), c);
        }
        let old = match &a[0] {
            Datum::Array(old) if !old.items.is_empty() => old,
            _ => {
                let lower = |s: &i64| Dimension { length: 1, lower: *s as i32 };
                let dimensions: Vec<Dimension> = subscripts.iter().map(lower).collect();
                if dimensions.len() > MAX_DIMENSIONS {
                    return Err(too_many_dimensions(dimensions.len()));
                }
                return shaped(c, vec![a[1].clone()], &dimensions);
            }
        };
        let dimensions = old.dimensions();
        if dimensions.len() != subscripts.len() {
            return Err(SqlError::array_subscript_error("wrong number of array subscripts"));
        }
        let mut place = 0_usize;
        for (dimension, subscript) in dimensions.iter().zip(&subscripts) {
            let offset = u32::try_from(subscript - i64::from(dimension.lower)).ok();
            let Some(offset) = offset.filter(|o| *o < dimension.length) else {
                return Err(SqlError::array_subscript_error("array subscript out of range"));
            };
            place = place * dimension.length as usize + offset as usize;
        }
        let mut new = old.items.clone();
        if let Some(element) = new.get_mut(place) {
            *element = a[1].clone();
        }
        shaped(c, new, &dimensions)
    })
    .variadic()
    .called_on_null();

/// `SET array[low:high] = array`, of one dimension.
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
        assign(&a[0], low, high, &source[..wanted], c)
    })
    .called_on_null();

fn null_subscript() -> SqlError {
    SqlError::null_value_not_allowed("array subscript in assignment must not be null")
}

/// Puts values at consecutive subscripts of an array of one dimension.
fn assign(old: &Datum, low: i64, high: i64, values: &[Datum], c: &Call<'_>) -> Result<Datum> {
    let (mut new, dimension) = match old {
        Datum::Array(old) if !old.items.is_empty() => {
            let [dimension] = old.dimensions()[..] else {
                return Err(SqlError::array_subscript_error("wrong number of array subscripts"));
            };
            (old.items.clone(), dimension)
        }
        _ => (Vec::new(), Dimension { length: 0, lower: low as i32 }),
    };
    let lower = i64::from(dimension.lower).min(low);
    let upper = dimension.upper().max(high);
    if upper - lower >= MAX_ELEMENTS {
        return Err(too_large());
    }
    let before = (i64::from(dimension.lower) - lower) as usize;
    new.splice(0..0, std::iter::repeat_n(Datum::Null, before));
    new.resize((upper - lower + 1) as usize, Datum::Null);
    let start = (low - lower) as usize;
    new.splice(start..start + values.len(), values.iter().cloned());
    shaped(c, new, &[Dimension { length: (upper - lower + 1) as u32, lower: lower as i32 }])
}

// Joining.

fn not_flat() -> SqlError {
    SqlError::new("22000", "argument must be empty or one-dimensional array")
}

/// The one dimension of an array that may also be NULL or empty.
fn only_dimension(d: &Datum) -> Result<Dimension> {
    match d {
        Datum::Array(a) => match a.dimensions()[..] {
            [] => Ok(Dimension::from_one(0)),
            [one] => Ok(one),
            _ => Err(not_flat()),
        },
        _ => Ok(Dimension::from_one(0)),
    }
}

fn longer(dimension: Dimension) -> Dimension {
    Dimension { length: dimension.length + 1, ..dimension }
}

pub(super) fn append(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    let dimension = only_dimension(&a[0])?;
    let mut joined = items(&a[0])?.to_vec();
    joined.push(a[1].clone());
    shaped(c, joined, &[longer(dimension)])
}

pub(super) fn prepend(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    let dimension = only_dimension(&a[1])?;
    let mut joined = vec![a[0].clone()];
    joined.extend_from_slice(items(&a[1])?);
    shaped(c, joined, &[longer(dimension)])
}

/// Arrays of as many dimensions one behind the other, or one as a part of the other.
pub(super) fn cat(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    if a[0].is_null() || a[1].is_null() {
        return Ok(if a[0].is_null() { a[1].clone() } else { a[0].clone() });
    }
    let (left, right) = (array(&a[0])?, array(&a[1])?);
    let (l, r) = (left.dimensions(), right.dimensions());
    if l.is_empty() || r.is_empty() {
        return Ok(if l.is_empty() { a[1].clone() } else { a[0].clone() });
    }
    let incompatible = |detail: String| {
        SqlError::array_subscript_error("cannot concatenate incompatible arrays").with_detail(detail)
    };
    let same = |x: &[Dimension], y: &[Dimension]| x.iter().map(|d| d.length).eq(y.iter().map(|d| d.length));
    let (mut dimensions, first) = match l.len() as i64 - r.len() as i64 {
        0 if same(&l[1..], &r[1..]) => (l.clone(), l[0].length + r[0].length),
        0 => {
            let detail = "Arrays with differing element dimensions are not compatible for concatenation.";
            return Err(incompatible(detail.into()));
        }
        1 if same(&l[1..], &r) => (l.clone(), l[0].length + 1),
        -1 if same(&l, &r[1..]) => (r.clone(), r[0].length + 1),
        1 | -1 => {
            let detail = "Arrays with differing dimensions are not compatible for concatenation.";
            return Err(incompatible(detail.into()));
        }
        _ => {
            return Err(incompatible(format!(
                "Arrays of {} and {} dimensions are not compatible for concatenation.",
                l.len(),
                r.len()
            )));
        }
    };
    dimensions[0].length = first;
    let joined = left.items.iter().chain(&right.items).cloned().collect();
    shaped(c, joined, &dimensions)
}

// Making.

/// `array_fill(value, lengths, lower bounds)`
fn fill(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    if a[1].is_null() || a.get(2).is_some_and(Datum::is_null) {
        return Err(SqlError::null_value_not_allowed("dimension array or low bound array cannot be null"));
    }
    let lengths = items(&a[1])?;
    let lowers = a.get(2).map(items).transpose()?;
    if lengths.iter().chain(lowers.unwrap_or_default()).any(Datum::is_null) {
        return Err(SqlError::null_value_not_allowed("dimension values cannot be null"));
    }
    if lengths.len() > MAX_DIMENSIONS {
        return Err(too_many_dimensions(lengths.len()));
    }
    if lowers.is_some_and(|l| l.len() != lengths.len()) {
        return Err(SqlError::array_subscript_error("wrong number of array subscripts")
            .with_detail("Low bound array has different size than dimensions array."));
    }
    let mut dimensions = Vec::with_capacity(lengths.len());
    let mut count: i64 = i64::from(!lengths.is_empty());
    for (i, length) in lengths.iter().enumerate() {
        let length = int(length)?.max(0);
        let lower = lowers.and_then(|l| l.get(i)).map_or(Ok(1), int)?;
        count = count.checked_mul(length).filter(|n| *n <= MAX_ELEMENTS).ok_or_else(too_large)?;
        dimensions.push(Dimension { length: length as u32, lower: lower as i32 });
    }
    shaped(c, vec![a[0].clone(); count as usize], &dimensions)
}

/// `trim_array(array, n)`: without the last n of its first dimension.
fn trim(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    let source = array(&a[0])?;
    let mut dimensions = source.dimensions();
    let length = dimensions.first().map_or(0, |d| i64::from(d.length));
    let left = length - int(&a[1])?;
    if !(0..=length).contains(&left) {
        return Err(SqlError::array_subscript_error(format!(
            "number of elements to trim must be between 0 and {length}"
        )));
    }
    if left == 0 {
        return Ok(result(c, Vec::new()));
    }
    let size = source.items.len() / length.max(1) as usize;
    dimensions[0].length = left as u32;
    dimensions.iter_mut().for_each(|d| d.lower = 1);
    shaped(c, source.items[..left as usize * size].to_vec(), &dimensions)
}

/// The functions of this family.
pub(super) static FUNCTIONS: &[ScalarFunction] = &[
    function("array_length", &[AnyArray, Int4], Int4, |a, _| {
        optional(dimension(a)?.map(|d| i64::from(d.length)))
    }),
    function("array_upper", &[AnyArray, Int4], Int4, |a, _| optional(dimension(a)?.map(|d| d.upper()))),
    function("array_lower", &[AnyArray, Int4], Int4, |a, _| {
        optional(dimension(a)?.map(|d| i64::from(d.lower)))
    }),
    function("array_upper", &[Int2vector, Int4], Int4, |a, _| optional(dimension(a)?.map(|d| d.upper() - 1))),
    function("array_lower", &[Int2vector, Int4], Int4, |a, _| optional(dimension(a)?.map(|_| 0))),
    function("array_upper", &[Oidvector, Int4], Int4, |a, _| optional(dimension(a)?.map(|d| d.upper() - 1))),
    function("array_lower", &[Oidvector, Int4], Int4, |a, _| optional(dimension(a)?.map(|_| 0))),
    function("array_ndims", &[AnyArray], Int4, |a, _| {
        let count = array(&a[0])?.dimensions().len();
        optional((count > 0).then_some(count as i64))
    }),
    function("array_dims", &[AnyArray], Text, |a, _| {
        let dimensions = array(&a[0])?.dimensions();
        let shown: String = dimensions.iter().map(|d| format!("[{}:{}]", d.lower, d.upper())).collect();
        Ok(if shown.is_empty() { Datum::Null } else { Datum::text(shown) })
    }),
    function("cardinality", &[AnyArray], Int4, |a, _| Ok(Datum::Int4(array(&a[0])?.items.len() as i32))),
    function("array_append", &[AnyArray, AnyElement], AnyArray, append).called_on_null(),
    function("array_prepend", &[AnyElement, AnyArray], AnyArray, prepend).called_on_null(),
    function("array_cat", &[AnyArray, AnyArray], AnyArray, cat).called_on_null(),
    function("array_fill", &[AnyElement, Array(&Int4)], AnyArray, fill).called_on_null(),
    function("array_fill", &[AnyElement, Array(&Int4), Array(&Int4)], AnyArray, fill).called_on_null(),
    function("trim_array", &[AnyArray, Int4], AnyArray, trim),
];
