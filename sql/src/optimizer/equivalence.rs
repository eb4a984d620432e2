//! Columns that must be equal.
//!
//! ```text
//!   a.x = b.y AND b.y = c.z AND a.x = 7
//!     ⇒  { a.x, b.y, c.z } = 7
//! ```
//!
//! So `a` can be joined with `c` directly, and each of the three is read by its key. This holds only among
//! conditions that every row of the result fulfils: those of WHERE and of inner joins.

use amphora_storage::{DataType, Datum};

use crate::expr::Expr;
use crate::functions::ScalarFunction;
use crate::walk::same_expr;

use super::ranges::is_bound;

/// A set of equal columns.
#[derive(Clone)]
pub(super) struct Class {
    /// Columns, in the numbering of the whole cluster
    pub(super) members: Vec<usize>,
    /// The value they have, if it is known
    pub(super) value: Option<Expr>,
    function: &'static ScalarFunction,
    equality: Expr,
}

impl Class {
    /// `a = b`, two columns of the class.
    pub(super) fn equality(&self, a: usize, b: usize) -> Expr {
        self.equals(a, column_like(&self.equality, b))
    }

    /// `a = value`
    fn equals(&self, a: usize, value: Expr) -> Expr {
        Expr::Call {
            function: self.function,
            args: vec![column_like(&self.equality, a), value],
            ty: self.equality.ty(),
        }
    }

    /// What the value says of every column.
    pub(super) fn pinned(&self) -> Vec<Expr> {
        match &self.value {
            Some(value) => self.members.iter().map(|&c| self.equals(c, value.clone())).collect(),
            None => Vec::new(),
        }
    }
}

/// The column at this position, of the type that the equality compares.
fn column_like(equality: &Expr, position: usize) -> Expr {
    let ty = match equality {
        Expr::Call { args, .. } => args.first().map(Expr::ty),
        _ => None,
    };
    Expr::Column(position, ty.unwrap_or(DataType::Unknown))
}

/// The classes that these conditions make. Conditions that are part of one are taken out.
pub(super) fn classes(conditions: &mut Vec<Expr>) -> Vec<Class> {
    let mut classes: Vec<Class> = Vec::new();
    conditions.retain(|condition| {
        let Some((a, b, function)) = equal_columns(condition) else { return true };
        let of = |column: usize, classes: &[Class]| {
            classes.iter().position(|c| c.members.contains(&column) && std::ptr::eq(c.function, function))
        };
        match (of(a, &classes), of(b, &classes)) {
            (Some(i), Some(j)) if i != j => {
                let other = classes.swap_remove(i.max(j));
                classes[i.min(j)].members.extend(other.members);
            }
            (Some(_), Some(_)) => {}
            (Some(i), None) => classes[i].members.push(b),
            (None, Some(i)) => classes[i].members.push(a),
            (None, None) => classes.push(Class {
                members: vec![a, b],
                value: None,
                function,
                equality: condition.clone(),
            }),
        }
        false
    });
    // A value for one of them is a value for all.
    conditions.retain(|condition| {
        let Some((column, value, function)) = equal_value(condition) else { return true };
        let class = classes.iter_mut().find(|c| {
            let same = std::ptr::eq(c.function, function) || matches!(value.ty(), DataType::Int8);
            c.members.contains(&column) && same
        });
        let Some(class) = class else { return true };
        match &class.value {
            None => class.value = Some(value),
            // Two values: both must be checked.
            Some(known) => return !same_expr(known, &value),
        }
        false
    });
    classes
}

/// Two columns of one type that are equal.
fn equal_columns(condition: &Expr) -> Option<(usize, usize, &'static ScalarFunction)> {
    let Expr::Call { function, args, .. } = condition else { return None };
    match &args[..] {
        [Expr::Column(a, t), Expr::Column(b, u)] if function.name == "=" && a != b && t == u => {
            Some((*a, *b, function))
        }
        _ => None,
    }
}

/// A column, the value it has, and the equality that says so.
fn equal_value(condition: &Expr) -> Option<(usize, Expr, &'static ScalarFunction)> {
    let Expr::Call { function, args, .. } = condition else { return None };
    if function.name != "=" {
        return None;
    }
    match &args[..] {
        [Expr::Column(a, ty), value] | [value, Expr::Column(a, ty)] if is_bound(value) => {
            // Integer literals are int4 where they can be; in a class of bigints they are bigints.
            let value = match (ty, value) {
                (DataType::Int8, Expr::Literal(Datum::Int4(v), _)) => {
                    Expr::Literal(Datum::Int8(i64::from(*v)), DataType::Int8)
                }
                (_, other) => other.clone(),
            };
            let fits = value.ty() == *ty && !value.any(&mut |e| matches!(e, Expr::Subquery(_)));
            fits.then_some((*a, value, *function))
        }
        _ => None,
    }
}
