//! From conditions to ranges of an index.
//!
//! ```text
//!   index (a, b, c)
//!   a = 1 AND b IN (2, 3) AND c > 4           (1, 2, c > 4)  (1, 3, c > 4)
//!   a = ANY ($1)                              (each of $1)
//!   a = 1 OR a > 5                            (1)  (a > 5)
//!   (a, b) > (1, 2)                           (1, b > 2)  (a > 1)       the pages of a list
//!   a LIKE 'ab%'                              (a >= 'ab' AND a < 'ac')  and the pattern once more
//!
//!   index (lower(a), b)
//!   lower(a) = 'x' AND b > 1                  ('x', b > 1)
//!
//!   index USING gin (tags)
//!   tags @> ARRAY['x', 'y']                   ('x')           and the condition once more
//! ```
//!
//! Ranges may overlap as long as values are not known; the executor sorts and merges them.

use amphora_storage::schema::{Index, Table};
use amphora_storage::{DataType, Datum};

use super::fold::is_volatile;
use super::push::conjuncts;
use super::selectivity::{like_prefix, prefix_end};
use crate::expr::{Expr, SubqueryKind};
use crate::plan::ScanRange;
use crate::walk::same_expr;

/// Ranges that IN lists and OR may become.
const MAX_RANGES: usize = 10_000;

/// Branches of an OR that are looked at.
const MAX_BRANCHES: usize = 1000;

/// A condition on one column that an index can use.
#[derive(Clone)]
enum Bound {
    /// `= e`, or `IN (…)`
    Equal(Vec<Expr>),
    /// `= ANY (array)`, whose elements are not known yet
    Each(Expr),
    /// A lower bound
    Lower(Expr, bool),
    /// An upper bound
    Upper(Expr, bool),
}

/// What one condition says of one column.
#[derive(Clone)]
struct Use {
    /// The condition's number
    condition: usize,
    /// What is compared, as [`Index::columns`] names it
    column: usize,
    bound: Bound,
    /// The range says all that the condition does
    exact: bool,
}

/// What conditions say that an index can use.
pub(super) struct Uses {
    /// Those that hold for every row
    all: Vec<Use>,
    /// For each OR: its number, and what its branches say; the numbers of a branch's conditions are its own
    any: Vec<(usize, Vec<Branch>)>,
    /// Those that ask for an element of an array
    elements: Vec<Use>,
}

struct Branch {
    uses: Vec<Use>,
    conditions: usize,
}

/// The ranges that conditions leave of an index.
pub(super) struct Ranges {
    pub(super) ranges: Vec<ScanRange>,
    /// Conditions that the ranges guarantee
    pub(super) guaranteed: Vec<usize>,
    /// Conditions that narrow the ranges
    pub(super) narrowing: Vec<usize>,
    /// Every range is one whole key of a unique index
    pub(super) point: bool,
}

impl Ranges {
    /// True if nothing is left out.
    pub(super) fn is_whole(&self) -> bool {
        matches!(&self.ranges[..], [r] if r.prefix.is_empty() && r.lower.is_none() && r.upper.is_none())
    }
}

/// Leading columns that have one value in all ranges.
pub(super) fn fixed(ranges: &[ScanRange]) -> usize {
    let Some((first, rest)) = ranges.split_first() else { return 0 };
    let one_value = |range: &ScanRange, i: usize| !range.each.contains(&i);
    first
        .prefix
        .iter()
        .enumerate()
        .take_while(|(i, e)| {
            one_value(first, *i)
                && rest
                    .iter()
                    .all(|r| one_value(r, *i) && r.prefix.get(*i).is_some_and(|other| same_expr(e, other)))
        })
        .count()
}

/// What indexes have, as expressions over a scan's output.
pub(super) struct Subjects<'a> {
    table: &'a Table,
    /// The table's columns that the scan gives
    columns: &'a [usize],
    /// The expressions of one index
    index: Option<(&'a Index, Vec<(usize, Expr)>)>,
}

impl<'a> Subjects<'a> {
    /// Columns only.
    pub(super) fn new(table: &'a Table, columns: &'a [usize]) -> Subjects<'a> {
        Subjects { table, columns, index: None }
    }

    /// Columns, and the expressions of an index as far as the scan gives what they read.
    pub(super) fn of_index(
        table: &'a Table,
        columns: &'a [usize],
        index: &'a Index,
        expressions: &[Expr],
    ) -> Subjects<'a> {
        let known = expressions.iter().enumerate();
        let known = known.filter_map(|(i, e)| Some((Index::EXPRESSION + i, over_output(e, columns)?)));
        Subjects { table, columns, index: Some((index, known.collect())) }
    }

    /// What an expression over the output is, seen through casts that keep value and order.
    pub(super) fn of(&self, e: &Expr) -> Option<usize> {
        if let Some(column) = plain_column(e) {
            return self.columns.get(column).copied();
        }
        let (_, expressions) = self.index.as_ref()?;
        let mut e = e;
        loop {
            if let Some((column, _)) = expressions.iter().find(|(_, own)| same_expr(own, e)) {
                return Some(*column);
            }
            match e {
                Expr::Cast { input, from, to, .. } if keeps_order(from, to) => e = input,
                _ => return None,
            }
        }
    }

    fn type_of(&self, column: usize) -> Option<&DataType> {
        match &self.index {
            Some((index, _)) => index.type_of(self.table, column),
            None => self.table.columns.get(column).map(|c| &c.ty),
        }
    }
}

/// An expression over a table's row as one over a scan's output; `None` if that lacks what it reads.
pub(super) fn over_output(e: &Expr, columns: &[usize]) -> Option<Expr> {
    let place = |position: usize| columns.iter().position(|c| *c == position);
    let mut complete = true;
    e.columns(&mut |position| complete = complete && place(position).is_some());
    complete.then(|| {
        let mut e = e.clone();
        e.map_columns(&mut |position| place(position).unwrap_or(position));
        e
    })
}

impl Uses {
    /// What conditions over a scan's output say.
    pub(super) fn new(subjects: &Subjects<'_>, conditions: &[Expr]) -> Uses {
        let mut uses = Uses { all: Vec::new(), any: Vec::new(), elements: Vec::new() };
        for (i, condition) in conditions.iter().enumerate() {
            add(subjects, i, condition, &mut uses.all);
            uses.elements.extend(element(subjects, i, condition));
            let Expr::Or(operands) = condition else { continue };
            if operands.len() > MAX_BRANCHES {
                continue;
            }
            let branches: Vec<Branch> = branches(operands)
                .into_iter()
                .map(|branch| {
                    let mut uses = Vec::new();
                    let parts = conjuncts(branch);
                    for (j, part) in parts.iter().enumerate() {
                        add(subjects, j, part, &mut uses);
                    }
                    Branch { uses, conditions: parts.len() }
                })
                .collect();
            if branches.iter().all(|b| !b.uses.is_empty()) {
                uses.any.push((i, branches));
            }
        }
        uses
    }

    /// What they leave of an index.
    pub(super) fn ranges(&self, table: &Table, index: &Index) -> Ranges {
        if index.is_of_elements() {
            return self.elements(index);
        }
        let plain = ranges(table, index, &self.all, &[]);
        if plain.point {
            return plain;
        }
        for (number, branches) in &self.any {
            if let Some(united) = self.united(table, index, *number, branches) {
                return united;
            }
        }
        plain
    }

    /// What they leave of an index of elements: the entries of one element.
    fn elements(&self, index: &Index) -> Ranges {
        let asked = self.elements.iter().find(|u| index.columns.first() == Some(&u.column));
        let value = asked.and_then(|u| match &u.bound {
            Bound::Equal(values) => values.first().cloned(),
            _ => None,
        });
        let range = ScanRange { prefix: Vec::from_iter(value), each: Vec::new(), lower: None, upper: None };
        Ranges {
            ranges: vec![range],
            guaranteed: asked.iter().filter(|u| u.exact).map(|u| u.condition).collect(),
            narrowing: asked.iter().map(|u| u.condition).collect(),
            point: false,
        }
    }

    /// The union of what the branches of an OR leave, each under the conditions that hold anyway.
    fn united(&self, table: &Table, index: &Index, number: usize, branches: &[Branch]) -> Option<Ranges> {
        let mut all = Vec::new();
        let (mut guaranteed, mut narrowing): (Option<Vec<usize>>, Vec<usize>) = (None, vec![number]);
        let (mut point, mut exact) = (true, true);
        for branch in branches {
            let one = ranges(table, index, &self.all, &branch.uses);
            let from_branch = one.narrowing.iter().filter(|c| is_branch(**c)).count();
            if from_branch == 0 || all.len() + one.ranges.len() > MAX_RANGES {
                return None;
            }
            let (own, common): (Vec<usize>, Vec<usize>) =
                one.guaranteed.iter().copied().partition(|c| is_branch(*c));
            exact &= own.len() == branch.conditions;
            point &= one.point;
            guaranteed = Some(match guaranteed {
                None => common,
                Some(known) => known.into_iter().filter(|c| common.contains(c)).collect(),
            });
            for condition in one.narrowing.into_iter().filter(|c| !is_branch(*c)) {
                if !narrowing.contains(&condition) {
                    narrowing.push(condition);
                }
            }
            all.extend(one.ranges);
        }
        let mut guaranteed = guaranteed?;
        if exact {
            guaranteed.push(number);
        }
        Some(Ranges { ranges: all, guaranteed, narrowing, point })
    }
}

/// The operands of ORs in ORs.
fn branches(operands: &[Expr]) -> Vec<Expr> {
    operands
        .iter()
        .flat_map(|e| match e {
            Expr::Or(inner) => branches(inner),
            // a AND (b OR c) is (a AND b) OR (a AND c): how a comparison of three columns nests.
            Expr::And(parts) => match parts.iter().position(|part| matches!(part, Expr::Or(_))) {
                Some(place) if parts.len() <= 4 => {
                    let Expr::Or(inner) = &parts[place] else { return vec![e.clone()] };
                    branches(inner)
                        .into_iter()
                        .map(|branch| {
                            let mut parts = parts.clone();
                            parts[place] = branch;
                            Expr::And(parts)
                        })
                        .collect()
                }
                _ => vec![e.clone()],
            },
            other => vec![other.clone()],
        })
        .collect()
}

/// Conditions of a branch are numbered apart.
const BRANCH: usize = 1 << 32;

fn is_branch(condition: usize) -> bool {
    condition >= BRANCH
}

/// What of an index these uses leave.
fn ranges(table: &Table, index: &Index, all: &[Use], branch: &[Use]) -> Ranges {
    let uses: Vec<(usize, &Use)> = branch
        .iter()
        .map(|u| (u.condition + BRANCH, u))
        .chain(all.iter().map(|u| (u.condition, u)))
        .collect();
    let mut ranges = vec![ScanRange { prefix: Vec::new(), each: Vec::new(), lower: None, upper: None }];
    let (mut guaranteed, mut narrowing) = (Vec::new(), Vec::new());
    let mut whole_key = true;
    for (place, &column) in index.columns.iter().enumerate() {
        let nulls_low = index.order(place).nulls_low();
        let of_column = || uses.iter().filter(move |(_, u)| u.column == column);
        // One value is better than several.
        let equal = of_column()
            .filter_map(|(i, u)| match &u.bound {
                Bound::Equal(list) if ranges.len() * list.len() <= MAX_RANGES => Some((*i, u, list)),
                _ => None,
            })
            .min_by_key(|(_, _, list)| list.len());
        if let Some((i, u, list)) = equal {
            narrowing.push(i);
            if u.exact {
                guaranteed.push(i);
            }
            ranges = ranges
                .into_iter()
                .flat_map(|range| {
                    list.iter().map(move |value| {
                        let mut range = range.clone();
                        range.prefix.push(value.clone());
                        range
                    })
                })
                .collect();
            continue;
        }
        let each = of_column().find_map(|(i, u)| match &u.bound {
            Bound::Each(array) => Some((*i, array)),
            _ => None,
        });
        if let Some((i, array)) = each {
            narrowing.push(i);
            guaranteed.push(i);
            for range in &mut ranges {
                range.each.push(range.prefix.len());
                range.prefix.push(array.clone());
            }
            continue;
        }
        whole_key = false;
        let lower = of_column().find_map(|(i, u)| match &u.bound {
            Bound::Lower(e, inclusive) => Some((*i, u.exact, (e.clone(), *inclusive))),
            _ => None,
        });
        let upper = of_column().find_map(|(i, u)| match &u.bound {
            Bound::Upper(e, inclusive) => Some((*i, u.exact, (e.clone(), *inclusive))),
            _ => None,
        });
        let (from, to) = (lower.as_ref().map(|l| l.0), upper.as_ref().map(|u| u.0));
        // A condition that has two bounds is only guaranteed if both are its own.
        let whole = |i: usize| of_column().filter(|(k, _)| *k == i).count() < 2 || from == to;
        // A range without an end reaches the NULLs that lie there.
        let not_null = table.columns.get(column).is_some_and(|c| c.not_null);
        if let Some((i, exact, bound)) = upper {
            narrowing.push(i);
            let no_nulls = !nulls_low || from.is_some() || not_null;
            if exact && whole(i) && no_nulls {
                guaranteed.push(i);
            }
            ranges.iter_mut().for_each(|r| r.upper = Some(bound.clone()));
        }
        if let Some((i, exact, bound)) = lower {
            if to != Some(i) {
                narrowing.push(i);
                let no_nulls = nulls_low || to.is_some() || not_null;
                if exact && whole(i) && no_nulls {
                    guaranteed.push(i);
                }
            }
            ranges.iter_mut().for_each(|r| r.lower = Some(bound.clone()));
        }
        break;
    }
    let point = whole_key && index.unique && !index.columns.is_empty();
    Ranges { ranges, guaranteed, narrowing, point }
}

/// Adds what a condition says of a column.
fn add(subjects: &Subjects<'_>, condition: usize, e: &Expr, uses: &mut Vec<Use>) {
    let Some((column, bounds, exact)) = column_bounds(e, subjects) else { return };
    let Some(ty) = subjects.type_of(column) else { return };
    if bounds.iter().all(|bound| fits(ty, bound)) {
        uses.extend(bounds.into_iter().map(|bound| Use { condition, column, bound, exact }));
    }
}

/// A condition that only arrays with a certain element meet: `'x' = ANY (tags)`, `tags @> ARRAY['x', …]`,
/// `tags && ARRAY['x']`.
fn element(subjects: &Subjects<'_>, condition: usize, e: &Expr) -> Option<Use> {
    let (array, value, exact) = match e {
        Expr::AnyAll { left, function, array, all: false } if function.name == "=" && is_bound(left) => {
            (&**array, (**left).clone(), true)
        }
        Expr::Call { function, args, .. } => {
            let [left, right] = &args[..] else { return None };
            let (array, wanted) = match function.name {
                "@>" => (left, right),
                "<@" => (right, left),
                "&&" if subjects.of(left).is_some() => (left, right),
                "&&" => (right, left),
                _ => return None,
            };
            let values = written_out(wanted)?;
            // Of several that an array may have, no single one must be there.
            if values.len() != 1 && function.name == "&&" {
                return None;
            }
            let alone = values.len() == 1;
            (array, values.into_iter().next()?, alone)
        }
        _ => return None,
    };
    let column = subjects.of(array)?;
    let DataType::Array(own) = subjects.type_of(column)?.base() else { return None };
    let bound = Bound::Equal(vec![value]);
    fits(&own, &bound).then_some(Use { condition, column, bound, exact })
}

/// The elements of an array that is written out, in any of its dimensions.
fn written_out(array: &Expr) -> Option<Vec<Expr>> {
    match array {
        Expr::Literal(Datum::Array(array), _) => {
            let element = |v: &Datum| Expr::Literal(v.clone(), array.element.clone());
            Some(array.items.iter().map(element).collect())
        }
        Expr::Array { items, element } if !matches!(element.base(), DataType::Array(_)) => {
            items.iter().all(is_bound).then(|| items.clone())
        }
        _ => None,
    }
}

/// What a condition restricts, how, and whether that is all it says.
fn column_bounds(condition: &Expr, subjects: &Subjects<'_>) -> Option<(usize, Vec<Bound>, bool)> {
    match condition {
        Expr::Call { function, args, .. } => {
            let [left, right] = &args[..] else { return None };
            if function.name == "~~" {
                return pattern_bounds(left, right, subjects);
            }
            let (column, value, name) = match (subjects.of(left), subjects.of(right)) {
                (Some(column), _) if is_bound(right) => (column, right, function.name),
                (_, Some(column)) if is_bound(left) => (column, left, mirrored(function.name)?),
                _ => return None,
            };
            let value = value.clone();
            let bound = match name {
                "=" => Bound::Equal(vec![value]),
                "<" => Bound::Upper(value, false),
                "<=" => Bound::Upper(value, true),
                ">" => Bound::Lower(value, false),
                ">=" => Bound::Lower(value, true),
                _ => return None,
            };
            Some((column, vec![bound], true))
        }
        Expr::InList { input, list, negated: false } => {
            let column = subjects.of(input)?;
            list.iter().all(is_bound).then(|| (column, vec![Bound::Equal(list.clone())], true))
        }
        Expr::AnyAll { left, function, array, all: false } if function.name == "=" => {
            let column = subjects.of(left)?;
            match &**array {
                // An array that is written out.
                Expr::Literal(Datum::Array(array), _) => {
                    let list = array.items.iter().filter(|v| !v.is_null());
                    let list = list.map(|v| Expr::Literal(v.clone(), array.element.clone())).collect();
                    Some((column, vec![Bound::Equal(list)], true))
                }
                Expr::Array { items, .. } if items.iter().all(is_bound) => {
                    Some((column, vec![Bound::Equal(items.clone())], true))
                }
                other if is_bound(other) && matches!(other.ty().base(), DataType::Array(_)) => {
                    Some((column, vec![Bound::Each(other.clone())], true))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// `column LIKE 'prefix%'`: in the order of an index, texts that begin alike lie together.
fn pattern_bounds(left: &Expr, right: &Expr, subjects: &Subjects<'_>) -> Option<(usize, Vec<Bound>, bool)> {
    let column = subjects.of(left)?;
    let Expr::Literal(Datum::Text(pattern), ty) = right else { return None };
    let prefix = like_prefix(pattern);
    if prefix.is_empty() {
        return None;
    }
    let text = |s: &str| Expr::Literal(Datum::text(s), ty.clone());
    let lower = Bound::Lower(text(prefix), true);
    let mut bounds = vec![lower];
    bounds.extend(prefix_end(prefix).map(|end| Bound::Upper(text(&end), false)));
    Some((column, bounds, pattern.len() == prefix.len() + 1 && pattern.ends_with('%')))
}

/// A column, seen through a cast that keeps value and order.
pub(super) fn plain_column(e: &Expr) -> Option<usize> {
    match e {
        Expr::Column(i, _) => Some(*i),
        Expr::Cast { input, from, to, .. } if keeps_order(from, to) => plain_column(input),
        _ => None,
    }
}

fn keeps_order(from: &DataType, to: &DataType) -> bool {
    let is_integer = |ty: &DataType| matches!(ty, DataType::Int2 | DataType::Int4 | DataType::Int8);
    let is_text = |ty: &DataType| matches!(ty, DataType::Text | DataType::Varchar(None) | DataType::Name);
    (is_integer(from) && is_integer(to) && to.len() >= from.len())
        || (matches!(from, DataType::Text | DataType::Varchar(_) | DataType::Name) && is_text(to))
}

/// True of what has one value for the whole scan.
pub(super) fn is_bound(e: &Expr) -> bool {
    let simple = !e.any(&mut |e| match e {
        Expr::Subquery(s) => s.correlated || !matches!(s.kind, SubqueryKind::Scalar),
        _ => false,
    });
    simple && e.is_row_free() && !is_volatile(e)
}

fn mirrored(operator: &str) -> Option<&'static str> {
    Some(match operator {
        "=" => "=",
        "<" => ">",
        "<=" => ">=",
        ">" => "<",
        ">=" => "<=",
        _ => return None,
    })
}

/// True if the values compare with those of the type as they lie in the index.
fn fits(own: &DataType, bound: &Bound) -> bool {
    // char(n) compares without its padding, but lies in the index with it.
    if matches!(own, DataType::Char(_)) {
        return false;
    }
    let kind = |ty: &DataType| match ty.base() {
        DataType::Int2 | DataType::Int4 | DataType::Int8 => 20,
        DataType::Text | DataType::Varchar(_) | DataType::Name => 25,
        other => other.oid(),
    };
    let same = |ty: &DataType| kind(ty) == kind(own);
    match bound {
        Bound::Equal(list) => list.iter().all(|e| same(&e.ty())),
        Bound::Each(array) => matches!(array.ty().base(), DataType::Array(element) if same(&element)),
        Bound::Lower(e, _) | Bound::Upper(e, _) => same(&e.ty()),
    }
}
