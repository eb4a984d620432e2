//! Functions of enumerated types. Their comparisons are those of all types with an order (`comparison.rs`).

use amphora_storage::user_type::EnumType;
use amphora_storage::{DataType, Datum};

use super::signature::Ty::*;
use super::{Call, ScalarFunction, function};
use crate::error::{Result, SqlError};

/// The type that the call is about, which its arguments say even if they are NULL.
fn enumeration<'a>(c: &Call<'a>) -> Result<&'a EnumType> {
    match c.arg_types.first() {
        Some(DataType::Enum(ty)) => Ok(ty),
        _ => Err(SqlError::feature_not_supported("could not determine actual enum type")),
    }
}

fn end(label: Option<&std::sync::Arc<amphora_storage::user_type::Label>>, name: &str) -> Result<Datum> {
    label
        .map(|label| Datum::Enum(label.clone()))
        .ok_or_else(|| SqlError::object_not_in_prerequisite_state(format!("enum {name} contains no values")))
}

/// The labels from one to another, both included; NULL is no bound.
fn range(c: &Call<'_>, from: &Datum, to: &Datum) -> Result<Datum> {
    let labels = enumeration(c)?.labels.iter().map(|label| Datum::Enum(label.clone()));
    let within = |label: &Datum| (from.is_null() || from <= label) && (to.is_null() || label <= to);
    let items = labels.filter(within).collect();
    Ok(Datum::array(c.arg_types.first().cloned().unwrap_or(DataType::Unknown), items))
}

pub(super) static FUNCTIONS: &[ScalarFunction] = &[
    function("enum_first", &[AnyEnum], AnyEnum, |_, c| {
        let ty = enumeration(c)?;
        end(ty.labels.first(), &ty.name)
    })
    .called_on_null()
    .stable(),
    function("enum_last", &[AnyEnum], AnyEnum, |_, c| {
        let ty = enumeration(c)?;
        end(ty.labels.last(), &ty.name)
    })
    .called_on_null()
    .stable(),
    function("enum_range", &[AnyEnum], AnyArray, |_, c| range(c, &Datum::Null, &Datum::Null))
        .called_on_null()
        .stable(),
    function("enum_range", &[AnyEnum, AnyEnum], AnyArray, |a, c| range(c, &a[0], &a[1]))
        .called_on_null()
        .stable(),
];
