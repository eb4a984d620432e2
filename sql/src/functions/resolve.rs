//! Which of the overloads is meant (PostgreSQL manual, sections 10.2 and 10.3).
//!
//! ```text
//!   candidates of this name and number of arguments
//!     │ exact match? ───────────────────────────────────────────▶ it
//!     │ drop those an argument cannot implicitly become
//!     │ keep those with most exact matches
//!     │ keep those with most exact or preferred matches
//!     │ untyped literals: decide a category for each, prefer string, keep those that accept it
//!     │ untyped literals: suppose they are of the type all the others have
//!     ▼
//!   one left: it      none: 42883      several: 42725
//! ```

use amphora_storage::DataType;

use super::signature::{Signature, Ty};
use crate::types::{CastContext, Category, can_cast, category, common_type, is_preferred};

/// What a search among overloads found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The candidate at this place of the list
    One(usize),
    /// None fits
    None,
    /// Several fit equally well
    Ambiguous,
}

fn accepts(declared: Ty, actual: &DataType) -> bool {
    if *actual == DataType::Unknown {
        return true;
    }
    match declared {
        Ty::Any | Ty::AnyElement => true,
        Ty::AnyArray => actual.element().is_some(),
        Ty::AnyNonArray => actual.element().is_none(),
        Ty::AnyEnum => matches!(actual, DataType::Enum(_)),
        real => real.data_type().is_some_and(|t| can_cast(actual, &t) == Some(CastContext::Implicit)),
    }
}

fn same(declared: Ty, actual: &DataType) -> bool {
    !declared.is_polymorphic() && *actual != DataType::Unknown && declared.oid() == actual.oid()
}

fn declared_category(declared: Ty) -> (Category, bool) {
    match declared.data_type() {
        Some(t) => (category(&t), is_preferred(&t)),
        None => (Category::Pseudo, false),
    }
}

fn keep_best(candidates: &mut Vec<usize>, score: impl Fn(usize) -> usize) {
    let best = candidates.iter().map(|&c| score(c)).max().unwrap_or(0);
    candidates.retain(|&c| score(c) == best);
}

/// Chooses among overloads for these actual types, which are base types.
pub(super) fn choose(overloads: &[Signature], actual: &[DataType], operator: bool) -> Choice {
    let n = actual.len();
    let arg = |c: usize, i: usize| overloads[c].arg(i, n).unwrap_or(Ty::Any);
    let mut candidates: Vec<usize> = (0..overloads.len()).filter(|&c| overloads[c].takes(n)).collect();

    // Exact match. A binary operator first supposes that an untyped side is of the other side's type.
    let supposed: Vec<DataType> = match actual {
        [DataType::Unknown, known] | [known, DataType::Unknown] if operator => {
            vec![known.clone(), known.clone()]
        }
        _ => actual.to_vec(),
    };
    if let Some(&c) = candidates.iter().find(|&&c| (0..n).all(|i| same(arg(c, i), &supposed[i]))) {
        return Choice::One(c);
    }

    candidates.retain(|&c| (0..n).all(|i| accepts(arg(c, i), &actual[i])));
    let unknowns: Vec<usize> = (0..n).filter(|&i| actual[i] == DataType::Unknown).collect();
    if unknowns.is_empty() || candidates.len() > 1 {
        candidates.retain(|&c| bind(&overloads[c], actual).is_some());
    }
    if candidates.len() <= 1 {
        return candidates.first().map_or(Choice::None, |&c| Choice::One(c));
    }

    keep_best(&mut candidates, |c| (0..n).filter(|&i| same(arg(c, i), &actual[i])).count());
    if let [c] = candidates[..] {
        return Choice::One(c);
    }

    keep_best(&mut candidates, |c| {
        let preferred = |i: usize| {
            let (cat, preferred) = declared_category(arg(c, i));
            preferred && cat == category(&actual[i])
        };
        (0..n).filter(|&i| same(arg(c, i), &actual[i]) || preferred(i)).count()
    });
    if let [c] = candidates[..] {
        return Choice::One(c);
    }
    if unknowns.is_empty() {
        return Choice::Ambiguous;
    }

    let all = candidates.clone();
    if by_category(&mut candidates, &unknowns, &arg) {
        if let [c] = candidates[..] {
            return Choice::One(c);
        }
    } else {
        candidates = all;
    }

    let mut known = actual.iter().filter(|t| **t != DataType::Unknown);
    if let Some(first) = known.next()
        && known.all(|t| t.oid() == first.oid())
    {
        let supposed: Vec<DataType> = (0..n).map(|_| first.clone()).collect();
        let mut fitting = candidates.iter().filter(|&&c| {
            (0..n).all(|i| accepts(arg(c, i), &supposed[i])) && bind(&overloads[c], &supposed).is_some()
        });
        if let (Some(&c), None) = (fitting.next(), fitting.next()) {
            return Choice::One(c);
        }
    }
    Choice::Ambiguous
}

/// Decides a category for every untyped argument and keeps the candidates that take it; false if some
/// argument's category cannot be decided.
fn by_category(candidates: &mut Vec<usize>, unknowns: &[usize], arg: &impl Fn(usize, usize) -> Ty) -> bool {
    let mut decided = Vec::new();
    for &i in unknowns {
        let seen: Vec<(Category, bool)> = candidates.iter().map(|&c| declared_category(arg(c, i))).collect();
        let category = if seen.iter().any(|(c, _)| *c == Category::String) {
            Category::String
        } else if seen.windows(2).all(|w| w[0].0 == w[1].0) {
            seen[0].0
        } else {
            return false;
        };
        let preferred = seen.iter().any(|(c, p)| *c == category && *p);
        decided.push((i, category, preferred));
    }
    candidates.retain(|&c| {
        decided.iter().all(|&(i, category, preferred)| {
            let (cat, pref) = declared_category(arg(c, i));
            cat == category && (pref || !preferred)
        })
    });
    !candidates.is_empty()
}

/// True if nothing says what the one polymorphic argument is: `to_json('x')`. (Where several arguments or an
/// array share the type, PostgreSQL's functions take `text` instead.)
pub(super) fn is_undetermined(signature: &Signature, actual: &[DataType]) -> bool {
    let n = actual.len();
    let polymorphic = |ty: Ty| matches!(ty, Ty::AnyElement | Ty::AnyNonArray | Ty::AnyArray);
    let mut places = (0..n).filter(|&i| signature.arg(i, n).is_some_and(polymorphic));
    match (places.next(), places.next()) {
        (Some(i), None) => {
            actual[i] == DataType::Unknown
                && matches!(signature.arg(i, n), Some(Ty::AnyElement | Ty::AnyNonArray))
        }
        _ => false,
    }
}

/// The types the arguments become and the result's type, once an overload is chosen: polymorphic types
/// take the common type of what stands there. `None` if there is none.
pub(super) fn bind(signature: &Signature, actual: &[DataType]) -> Option<(Vec<DataType>, DataType)> {
    let n = actual.len();
    let mut elements = Vec::new();
    for (i, t) in actual.iter().enumerate() {
        match (signature.arg(i, n)?, t) {
            (Ty::AnyElement | Ty::AnyNonArray | Ty::AnyEnum, t) => elements.push(t.clone()),
            (Ty::AnyArray, DataType::Unknown) => {}
            (Ty::AnyArray, t) => elements.push(t.element()?),
            _ => {}
        }
    }
    let element = common_type(&elements).ok()?;
    if signature.args.contains(&Ty::AnyEnum) && !matches!(element, DataType::Enum(_)) {
        return None;
    }
    let nested = matches!(element, DataType::Array(_)) && signature.args.contains(&Ty::AnyArray);
    if nested {
        return None;
    }
    let real = |declared: Ty, actual: Option<&DataType>| match declared {
        Ty::AnyElement | Ty::AnyEnum => Some(element.clone()),
        Ty::AnyArray => Some(element.clone().array()),
        Ty::Any | Ty::AnyNonArray => Some(match actual {
            Some(DataType::Unknown) | None => DataType::Text,
            Some(t) => t.clone(),
        }),
        Ty::Record => Some(match actual {
            Some(row @ DataType::Row(_)) => row.clone(),
            _ => DataType::Record,
        }),
        Ty::Bpchar => Some(match actual {
            Some(t @ DataType::Char(_)) => t.clone(),
            _ => DataType::Text,
        }),
        concrete => concrete.data_type(),
    };
    let mut args = Vec::with_capacity(n);
    for (i, t) in actual.iter().enumerate() {
        args.push(real(signature.arg(i, n)?, Some(t))?);
    }
    let returns = match signature.returns {
        // There are no arrays of arrays.
        Ty::Array(Ty::AnyElement) if matches!(element, DataType::Array(_)) => return None,
        Ty::Array(Ty::AnyElement) => element.clone().array(),
        Ty::Bpchar => DataType::Char(0),
        declared => real(declared, None)?,
    };
    Some((args, returns))
}
