//! GROUPING SETS, ROLLUP, CUBE and GROUPING().
//!
//! A query over several grouping sets is one over a single grouping: each input row is taken once for every
//! set, with the set's number beside it, and the columns that are not in the set are NULL.
//!
//! ```text
//!   GROUP BY ROLLUP (a, b)      sets  0: (a, b)   1: (a)   2: ()
//!
//!   input ─► × set number 0, 1 ─► group by (a, CASE WHEN set IN (0) THEN b END, set) ─┐
//!   input ─► group by nothing ─► NULL, NULL, 2 ───────────────────────────────────────┴─► append
//! ```
//!
//! The empty set stands apart, because it gives a row even where there is no input.

use std::sync::Arc;

use amphora_storage::{DataType, Datum};
use sqlparser::ast;
use sqlparser::ast::{Expr as Ast, FunctionArg, FunctionArgExpr, FunctionArguments};

use super::Binder;
use super::level::Clause;
use super::query::{node, project};
use super::select::Item;
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::functions::{self, GROUPING};
use crate::plan::{Aggregate, Field, Node, Plan, ProjectItem};
use crate::walk::same_expr;

/// The most sets of one GROUP BY, as in PostgreSQL.
const MAX_SETS: usize = 4096;

/// The most columns of a CUBE, as in PostgreSQL.
const MAX_CUBE: usize = 12;

/// A GROUP BY: all keys, and which of them each set has.
pub(super) struct Sets {
    pub(super) keys: Vec<Expr>,
    pub(super) sets: Vec<Vec<usize>>,
}

impl Sets {
    /// Each set once.
    pub(super) fn distinct(&mut self) {
        let mut seen = std::collections::HashSet::new();
        self.sets.retain(|set| seen.insert(set.clone()));
    }

    fn key(&mut self, key: Expr) -> usize {
        match self.keys.iter().position(|k| same_expr(k, &key)) {
            Some(i) => i,
            None => {
                self.keys.push(key);
                self.keys.len() - 1
            }
        }
    }
}

/// True if a GROUP BY has more than plain keys.
pub(super) fn has_sets(exprs: &[Ast]) -> bool {
    exprs.iter().any(|e| match e {
        Ast::Rollup(_) | Ast::Cube(_) | Ast::GroupingSets(_) => true,
        Ast::Tuple(items) => items.is_empty(),
        _ => false,
    })
}

/// Every set of one part with every set of the other.
fn cross(left: Vec<Vec<usize>>, right: &[Vec<usize>]) -> Result<Vec<Vec<usize>>> {
    if left.len() * right.len() > MAX_SETS {
        return Err(SqlError::statement_too_complex(format!(
            "too many grouping sets present (maximum {MAX_SETS})"
        )));
    }
    let both = |a: &Vec<usize>| -> Vec<Vec<usize>> {
        right.iter().map(|b| a.iter().chain(b).copied().collect()).collect()
    };
    Ok(left.iter().flat_map(both).collect())
}

/// The leading parts of a list, the whole first and none last.
fn rollup(parts: &[Vec<usize>]) -> Vec<Vec<usize>> {
    (0..=parts.len()).rev().map(|n| parts[..n].concat()).collect()
}

/// Every choice among parts.
fn cube(parts: &[Vec<usize>]) -> Result<Vec<Vec<usize>>> {
    if parts.len() > MAX_CUBE {
        return Err(SqlError::new("54011", format!("CUBE is limited to {MAX_CUBE} elements")));
    }
    let choice = |bits: usize| {
        let chosen = parts.iter().enumerate().filter(|(i, _)| bits & (1 << (parts.len() - 1 - i)) != 0);
        chosen.flat_map(|(_, p)| p.iter().copied()).collect()
    };
    Ok((0..1 << parts.len()).rev().map(choice).collect())
}

impl Binder<'_> {
    /// The sets of a GROUP BY: those of its items, each with each.
    pub(super) fn grouping_sets(&mut self, exprs: &[Ast], items: &[Item]) -> Result<Sets> {
        let mut found = Sets { keys: Vec::new(), sets: Vec::new() };
        let mut sets = vec![Vec::new()];
        for e in exprs {
            let more = self.sets_of(e, items, &mut found)?;
            sets = cross(sets, &more)?;
        }
        for set in &mut sets {
            set.sort_unstable();
            set.dedup();
        }
        found.sets = sets;
        Ok(found)
    }

    fn sets_of(&mut self, e: &Ast, items: &[Item], found: &mut Sets) -> Result<Vec<Vec<usize>>> {
        match e {
            Ast::Rollup(parts) => Ok(rollup(&self.parts(parts, items, found)?)),
            Ast::Cube(parts) => cube(&self.parts(parts, items, found)?),
            Ast::GroupingSets(sets) => {
                let mut all = Vec::new();
                for set in sets {
                    // A set in parentheses of its own is a list of keys; nested sets stand alone.
                    match &set[..] {
                        [one] => all.extend(self.sets_of(one, items, found)?),
                        list => all.push(self.part(list, items, found)?),
                    }
                }
                Ok(all)
            }
            Ast::Tuple(list) => Ok(vec![self.part(list, items, found)?]),
            Ast::Function(call) if call.args != FunctionArguments::None => {
                let name = call.name.to_string().to_lowercase();
                let (FunctionArguments::List(list), "rollup" | "cube") = (&call.args, name.as_str()) else {
                    return Ok(vec![vec![self.set_key(e, items, found)?]]);
                };
                let mut parts = Vec::with_capacity(list.args.len());
                for arg in &list.args {
                    let FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) = arg else {
                        return Err(SqlError::syntax_error(format!("{name} takes expressions")));
                    };
                    parts.push(match e {
                        Ast::Tuple(list) => self.part(list, items, found)?,
                        one => vec![self.set_key(one, items, found)?],
                    });
                }
                if name == "rollup" { Ok(rollup(&parts)) } else { cube(&parts) }
            }
            one => Ok(vec![vec![self.set_key(one, items, found)?]]),
        }
    }

    fn parts(&mut self, parts: &[Vec<Ast>], items: &[Item], found: &mut Sets) -> Result<Vec<Vec<usize>>> {
        parts.iter().map(|part| self.part(part, items, found)).collect()
    }

    fn part(&mut self, list: &[Ast], items: &[Item], found: &mut Sets) -> Result<Vec<usize>> {
        list.iter().map(|e| self.set_key(e, items, found)).collect()
    }

    fn set_key(&mut self, e: &Ast, items: &[Item], found: &mut Sets) -> Result<usize> {
        let key = self.in_clause(Clause::GroupBy, |b| b.group_key(e, items))?;
        Ok(found.key(key))
    }

    /// `GROUPING(a, b)`: stands for itself until the sets are known.
    pub(super) fn grouping_call(&mut self, list: &ast::FunctionArgumentList) -> Result<Expr> {
        if !self.level()?.clause.allows_aggregates() {
            let clause = self.level()?.clause.name();
            let message = format!("grouping operations are not allowed in {clause}");
            return Err(SqlError::grouping_error(message));
        }
        let args = self.call_args(&list.args)?;
        Ok(Expr::Call { function: &GROUPING, args, ty: DataType::Int4 })
    }
}

/// Replaces GROUPING calls, once the keys and sets are known. `set` is the column of the set's number, if
/// there are several sets. 42803 if an argument is no key.
pub(super) fn resolve_grouping(
    e: &mut Expr,
    keys: &[Expr],
    sets: &[Vec<usize>],
    set: Option<&Expr>,
) -> Result<()> {
    let Expr::Call { function, args, .. } = e else {
        let mut result = Ok(());
        e.children_mut(&mut |child| {
            if result.is_ok() {
                result = resolve_grouping(child, keys, sets, set);
            }
        });
        return result;
    };
    if !std::ptr::eq(*function, &GROUPING) {
        return args.iter_mut().try_for_each(|arg| resolve_grouping(arg, keys, sets, set));
    }
    let mut positions = Vec::with_capacity(args.len());
    for arg in args.iter() {
        let found = keys.iter().position(|k| same_expr(k, arg)).ok_or_else(|| {
            SqlError::grouping_error(
                "arguments to GROUPING must be grouping expressions of the associated query level",
            )
        })?;
        positions.push(found);
    }
    let bits = |set: &Vec<usize>| {
        positions.iter().fold(0_i32, |bits, key| bits << 1 | i32::from(!set.contains(key)))
    };
    let literal = |v: i32| Expr::Literal(Datum::Int4(v), DataType::Int4);
    *e = match set {
        None => literal(sets.first().map_or(0, bits)),
        Some(set) => {
            let equal = functions::resolve_operator("=", Some(&DataType::Int4), &DataType::Int4)?.function;
            let branches = sets.iter().enumerate().map(|(number, keys)| {
                let args = vec![set.clone(), literal(i32::try_from(number).unwrap_or(i32::MAX))];
                (Expr::Call { function: equal, args, ty: DataType::Bool }, literal(bits(keys)))
            });
            Expr::Case { branches: branches.collect(), otherwise: Box::new(literal(0)), ty: DataType::Int4 }
        }
    };
    Ok(())
}

/// The grouping itself. Output: the keys, the set's number, the aggregates.
pub(super) fn plan(
    input: Plan,
    keys: &[Expr],
    sets: &[Vec<usize>],
    aggregates: Vec<Aggregate>,
) -> Result<Plan> {
    let unnamed = |ty: DataType| Field { name: "?column?".into(), ty, origin: None };
    let number = |n: usize| Expr::Literal(Datum::Int4(i32::try_from(n).unwrap_or(i32::MAX)), DataType::Int4);
    let width = input.width();
    let fields = keys.iter().map(|key| match key {
        Expr::Column(i, _) => input.schema.get(*i).cloned().unwrap_or_else(|| unnamed(key.ty())),
        other => unnamed(other.ty()),
    });
    let schema: Arc<[Field]> = fields
        .chain([unnamed(DataType::Int4)])
        .chain(aggregates.iter().map(|a| unnamed(a.ty.clone())))
        .collect();
    let mut branches = Vec::new();
    for (n, _) in sets.iter().enumerate().filter(|(_, set)| set.is_empty()) {
        let totals: Arc<[Field]> = aggregates.iter().map(|a| unnamed(a.ty.clone())).collect();
        let node_ = Node::Aggregate {
            input: Box::new(input.clone()),
            keys: Vec::new(),
            aggregates: aggregates.clone(),
            sorted: false,
        };
        let nulls = keys.iter().map(|k| Expr::Literal(Datum::Null, k.ty()));
        let values = totals.iter().enumerate().map(|(i, f)| Expr::Column(i, f.ty.clone()));
        let exprs = nulls.chain([number(n)]).chain(values).collect();
        branches.push(project(node(node_, totals.clone()), exprs, schema.clone()));
    }
    let keyed: Vec<usize> = (0..sets.len()).filter(|&n| !sets[n].is_empty()).collect();
    if !keyed.is_empty() {
        let numbers =
            Expr::Array { items: keyed.iter().map(|&n| number(n)).collect(), element: DataType::Int4 };
        let unnest = functions::resolve_set_function("unnest", &[DataType::Int4.array()])?;
        let mut exprs: Vec<ProjectItem> =
            (0..width).map(|i| ProjectItem::Scalar(Expr::Column(i, input.schema[i].ty.clone()))).collect();
        exprs.push(ProjectItem::Set { function: unnest.function, args: vec![numbers] });
        let mut wide = input.schema.to_vec();
        wide.push(unnamed(DataType::Int4));
        let taken = node(Node::ProjectSet { input: Box::new(input), exprs }, Arc::from(wide));
        let set = Expr::Column(width, DataType::Int4);
        let in_sets = |(k, key): (usize, &Expr)| {
            let having: Vec<Expr> =
                keyed.iter().filter(|&&n| sets[n].contains(&k)).map(|&n| number(n)).collect();
            if having.len() == keyed.len() {
                return key.clone();
            }
            let condition = Expr::InList { input: Box::new(set.clone()), list: having, negated: false };
            Expr::Case {
                branches: vec![(condition, key.clone())],
                otherwise: Box::new(Expr::Literal(Datum::Null, key.ty())),
                ty: key.ty(),
            }
        };
        let mut grouped: Vec<Expr> = keys.iter().enumerate().map(in_sets).collect();
        grouped.push(set.clone());
        let aggregate = Node::Aggregate { input: Box::new(taken), keys: grouped, aggregates, sorted: false };
        branches.push(node(aggregate, schema.clone()));
    }
    Ok(match <[Plan; 1]>::try_from(branches) {
        Ok([one]) => one,
        Err(many) => node(Node::Append(many), schema),
    })
}
