//! A plan's nodes as EXPLAIN names them.

use std::sync::atomic::Ordering::Relaxed;

use amphora_replication::{Direction, OnConflict};
use amphora_storage::DataType;
use amphora_storage::schema::{Index, IndexId, Table};

use super::deparse::Deparser;
use crate::executor::Statistics;
use crate::expr::Expr;
use crate::plan::{Field, Insert, JoinKind, Node, Plan, ProjectItem, SortKey, TableScan};

/// Bytes that a value of a type without a fixed length is taken to have.
const VARIABLE_WIDTH: u64 = 32;

/// A node to be shown.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// `Seq Scan`
    pub(super) kind: String,
    /// `using i on t`
    suffix: String,
    /// `SubPlan 1`, on a line of its own
    pub(super) label: Option<String>,
    pub(super) cost: Option<Cost>,
    pub(super) actual: Option<Actual>,
    /// Lines below the title
    pub(super) properties: Vec<(&'static str, String)>,
    /// What only JSON shows apart
    pub(super) facts: Vec<(&'static str, String)>,
    pub(super) children: Vec<Shown>,
}

#[derive(Debug)]
pub(super) struct Cost {
    pub(super) startup: f64,
    pub(super) total: f64,
    pub(super) rows: f64,
    pub(super) width: u64,
}

/// Averages over the loops; times in milliseconds.
#[derive(Debug)]
pub(super) struct Actual {
    pub(super) startup: f64,
    pub(super) total: f64,
    pub(super) rows: f64,
    pub(super) loops: u64,
}

impl Shown {
    fn new(kind: impl Into<String>) -> Shown {
        Shown { kind: kind.into(), ..Shown::default() }
    }

    pub(super) fn utility() -> Shown {
        Shown::new("Utility Statement")
    }

    pub(super) fn title(&self) -> String {
        format!("{}{}", self.kind, self.suffix)
    }

    /// ON CONFLICT, as Insert shows it.
    pub(super) fn conflict(&mut self, insert: &Insert) {
        let OnConflict::Report(index) = &insert.on_conflict else { return };
        let resolution = if insert.do_update.is_some() { "UPDATE" } else { "NOTHING" };
        self.properties.push(("Conflict Resolution", resolution.into()));
        if let Some(index) = index.and_then(|id| insert.table.index(id)) {
            self.properties.push(("Conflict Arbiter Indexes", index.name.clone()));
        }
    }
}

/// The name under which a WITH query is shown.
pub(super) fn cte_name(position: usize) -> String {
    format!("cte_{}", position + 1)
}

/// Turns plans into what is shown.
pub(super) struct Describer<'a> {
    statistics: Option<&'a Statistics>,
    subplans: usize,
}

impl<'a> Describer<'a> {
    pub(super) fn new(statistics: Option<&'a Statistics>) -> Describer<'a> {
        Describer { statistics, subplans: 0 }
    }

    /// A writing node over its source.
    pub(super) fn write(&mut self, verb: &str, table: &Table, source: &Plan) -> Shown {
        let mut shown = Shown::new(verb);
        shown.suffix = format!(" on {}", table.name);
        shown.facts.push(("Relation Name", table.name.clone()));
        shown.cost = Some(Cost { startup: 0.0, total: source.cost, rows: 0.0, width: 0 });
        shown.children.push(self.plan(source));
        shown
    }

    /// A plan and all below it.
    pub(super) fn plan(&mut self, plan: &Plan) -> Shown {
        let mut shown = self.node(plan);
        if shown.cost.is_none() {
            shown.cost = Some(self.cost(plan));
        }
        // A filter or projection that was folded into its input ran around it: its numbers are the node's.
        if let Some(actual) = self.actual(plan) {
            shown.actual = Some(actual);
        }
        if let Some(statistics) = self.statistics.and_then(|s| s.of(plan)) {
            for note in statistics.notes.lock().iter().cloned() {
                // PostgreSQL says how a hash join's table was made below its `Hash`.
                match shown.children.iter_mut().find(|child| note.0 == "Buckets" && child.kind == "Hash") {
                    Some(hash) => hash.properties.push(note),
                    None => shown.properties.push(note),
                }
            }
        }
        shown
    }

    fn cost(&self, plan: &Plan) -> Cost {
        let startup = match &plan.node {
            Node::Sort { input, .. } | Node::Aggregate { input, sorted: false, .. } => input.cost,
            Node::HashJoin { right, .. } => right.cost,
            _ => 0.0,
        };
        let rows = plan.rows.max(1.0);
        Cost { startup: startup.min(plan.cost), total: plan.cost, rows, width: width(&plan.schema) }
    }

    fn actual(&self, plan: &Plan) -> Option<Actual> {
        let statistics = self.statistics?.of(plan)?;
        let loops = statistics.loops.load(Relaxed);
        if loops == 0 {
            return None;
        }
        let per_loop = |total: u64| total as f64 / loops as f64;
        Some(Actual {
            startup: per_loop(statistics.startup.load(Relaxed)) / 1e6,
            total: per_loop(statistics.total.load(Relaxed)) / 1e6,
            rows: per_loop(statistics.rows.load(Relaxed)),
            loops,
        })
    }

    fn node(&mut self, plan: &Plan) -> Shown {
        match &plan.node {
            Node::Values(rows) if rows.len() == 1 => Shown::new("Result"),
            Node::Values(_) => {
                let mut shown = Shown::new("Values Scan");
                shown.suffix = " on \"*VALUES*\"".into();
                shown
            }
            Node::TableScan(scan) => self.table_scan(scan, &plan.schema),
            Node::SystemScan { view, equal } => {
                let mut shown = Shown::new("Seq Scan");
                shown.suffix = format!(" on {}", view.name);
                shown.facts.push(("Relation Name", view.name.into()));
                let conditions: Vec<String> = equal
                    .iter()
                    .filter_map(|(c, e)| {
                        let name = view.columns.get(*c)?.0;
                        Some(format!("({name} = {})", Deparser::new(&[]).expr(e)))
                    })
                    .collect();
                if !conditions.is_empty() {
                    shown.properties.push(("Filter", join_and(conditions)));
                }
                shown
            }
            Node::FunctionScan { function, .. } => {
                let mut shown = Shown::new("Function Scan");
                shown.suffix = format!(" on {}", function.name);
                shown.facts.push(("Function Name", function.name.into()));
                shown
            }
            Node::CteScan(id) => {
                let mut shown = Shown::new("CTE Scan");
                shown.suffix = format!(" on {}", cte_name(*id));
                shown
            }
            Node::WorkTable(_) => Shown::new("WorkTable Scan"),
            Node::Filter { input, condition } => {
                let mut shown = self.plan(input);
                self.filter(&mut shown, condition, &input.schema);
                shown
            }
            Node::Project { input, exprs } => {
                let mut shown = self.plan(input);
                shown.cost = Some(self.cost(plan));
                exprs.iter().for_each(|e| self.subplans(&mut shown, e));
                shown
            }
            Node::ProjectSet { input, exprs } => {
                let mut shown = Shown::new("ProjectSet");
                shown.children.push(self.plan(input));
                for item in exprs {
                    match item {
                        ProjectItem::Scalar(e) => self.subplans(&mut shown, e),
                        ProjectItem::Set { args, .. } => {
                            args.iter().for_each(|e| self.subplans(&mut shown, e))
                        }
                    }
                }
                shown
            }
            Node::NestedLoop { left, right, kind, condition } => {
                let mut shown = Shown::new(join_title("Nested Loop", *kind, true));
                shown.facts.push(("Join Type", join_name(*kind).into()));
                let (left_shown, right_shown) = (self.plan(left), self.plan(right));
                shown.children.extend([left_shown, right_shown]);
                self.join_filter(&mut shown, condition.as_ref(), left, right);
                shown
            }
            Node::HashJoin { left, right, kind, left_keys, right_keys, condition } => {
                let mut shown = Shown::new(join_title("Hash", *kind, false));
                shown.facts.push(("Join Type", join_name(*kind).into()));
                let (l, r) = (Deparser::new(&left.schema), Deparser::new(&right.schema));
                let keys = left_keys.iter().zip(right_keys);
                let keys = keys.map(|(a, b)| format!("({} = {})", l.expr(a), r.expr(b))).collect();
                shown.properties.push(("Hash Cond", join_and(keys)));
                let mut hash = Shown::new("Hash");
                hash.cost = Some(self.cost(right));
                hash.actual = self.actual(right);
                hash.children.push(self.plan(right));
                let left_shown = self.plan(left);
                shown.children.extend([left_shown, hash]);
                self.join_filter(&mut shown, condition.as_ref(), left, right);
                shown
            }
            Node::MergeJoin { left, right, kind, left_keys, right_keys, condition } => {
                let mut shown = Shown::new(join_title("Merge", *kind, false));
                shown.facts.push(("Join Type", join_name(*kind).into()));
                let (l, r) = (Deparser::new(&left.schema), Deparser::new(&right.schema));
                let keys = left_keys.iter().zip(right_keys);
                let keys =
                    keys.map(|(a, b)| format!("({} = {})", l.expr(&a.expr), r.expr(&b.expr))).collect();
                shown.properties.push(("Merge Cond", join_and(keys)));
                let (left_shown, right_shown) = (self.plan(left), self.plan(right));
                shown.children.extend([left_shown, right_shown]);
                self.join_filter(&mut shown, condition.as_ref(), left, right);
                shown
            }
            Node::Aggregate { input, keys, sorted, .. } => {
                let mut shown = Shown::new(match (keys.is_empty(), sorted) {
                    (true, _) => "Aggregate",
                    (false, false) => "HashAggregate",
                    (false, true) => "GroupAggregate",
                });
                if !keys.is_empty() {
                    let deparser = Deparser::new(&input.schema);
                    let keys: Vec<String> = keys.iter().map(|k| deparser.expr(k)).collect();
                    shown.properties.push(("Group Key", keys.join(", ")));
                }
                shown.children.push(self.plan(input));
                shown
            }
            Node::Window { input, .. } => self.over("WindowAgg", input),
            Node::Sort { input, keys, .. } => {
                let mut shown = Shown::new("Sort");
                shown.properties.push(("Sort Key", sort_keys(keys, &input.schema)));
                shown.children.push(self.plan(input));
                shown
            }
            Node::Limit { input, .. } => self.over("Limit", input),
            Node::Distinct { input, sorted: true, .. } => self.over("Unique", input),
            Node::Distinct { input, on, .. } => {
                let mut shown = Shown::new("HashAggregate");
                let deparser = Deparser::new(&input.schema);
                let keys: Vec<String> = on.iter().map(|k| deparser.expr(k)).collect();
                shown.properties.push(("Group Key", keys.join(", ")));
                shown.children.push(self.plan(input));
                shown
            }
            Node::Append(inputs) => {
                let mut shown = Shown::new("Append");
                for input in inputs {
                    shown.children.push(self.plan(input));
                }
                shown
            }
            Node::SetOperation { left, right, intersect, all } => {
                let name = if *intersect { "Intersect" } else { "Except" };
                let mut shown = Shown::new(format!("HashSetOp {name}{}", if *all { " All" } else { "" }));
                let (left, right) = (self.plan(left), self.plan(right));
                shown.children.extend([left, right]);
                shown
            }
            Node::Recursive { base, step, .. } => {
                let mut shown = Shown::new("Recursive Union");
                let (base, step) = (self.plan(base), self.plan(step));
                shown.children.extend([base, step]);
                shown
            }
            Node::Lock { input, .. } => self.over("LockRows", input),
        }
    }

    fn over(&mut self, kind: &str, input: &Plan) -> Shown {
        let mut shown = Shown::new(kind);
        shown.children.push(self.plan(input));
        shown
    }

    fn table_scan(&mut self, scan: &TableScan, schema: &[Field]) -> Shown {
        let conditions = index_conditions(scan);
        let table = &scan.table;
        let whole = conditions.is_empty();
        let sequential = whole && scan.index == IndexId::PRIMARY && scan.direction == Direction::Forward;
        let mut shown = if sequential {
            let mut shown = Shown::new("Seq Scan");
            shown.suffix = format!(" on {}", table.name);
            shown
        } else {
            let index = table.index(scan.index).map_or_else(String::new, |i| i.name.clone());
            let only = table.index(scan.index).is_some_and(|i| i.covers(table, &scan.columns));
            let mut shown = Shown::new(if only { "Index Only Scan" } else { "Index Scan" });
            let backward = if scan.direction == Direction::Backward { " Backward" } else { "" };
            shown.suffix = format!("{backward} using {index} on {}", table.name);
            shown.facts.push(("Index Name", index));
            shown
        };
        shown.facts.push(("Relation Name", table.name.clone()));
        if !whole {
            shown.properties.push(("Index Cond", conditions));
        }
        if let Some(filter) = &scan.filter {
            self.filter(&mut shown, filter, schema);
        }
        shown
    }

    fn filter(&mut self, shown: &mut Shown, condition: &Expr, schema: &[Field]) {
        let text = Deparser::new(schema).expr(condition);
        shown.properties.push(("Filter", text));
        self.subplans(shown, condition);
    }

    fn join_filter(&mut self, shown: &mut Shown, condition: Option<&Expr>, left: &Plan, right: &Plan) {
        let Some(condition) = condition else { return };
        let schema: Vec<Field> = left.schema.iter().chain(right.schema.iter()).cloned().collect();
        shown.properties.push(("Join Filter", Deparser::new(&schema).expr(condition)));
        self.subplans(shown, condition);
    }

    /// The subqueries of an expression, as children.
    fn subplans(&mut self, shown: &mut Shown, expr: &Expr) {
        if let Expr::Subquery(subquery) = expr {
            self.subplans += 1;
            let kind = if subquery.correlated { "SubPlan" } else { "InitPlan" };
            let label = format!("{kind} {}", self.subplans);
            let mut child = self.plan(&subquery.plan);
            child.label = Some(label);
            shown.children.push(child);
        }
        expr.children(&mut |e| self.subplans(shown, e));
    }
}

fn join_name(kind: JoinKind) -> &'static str {
    match kind {
        JoinKind::Inner => "Inner",
        JoinKind::Left => "Left",
        JoinKind::Right => "Right",
        JoinKind::Full => "Full",
        JoinKind::Semi => "Semi",
        JoinKind::Anti => "Anti",
    }
}

fn join_title(method: &str, kind: JoinKind, bare_inner: bool) -> String {
    match (kind, bare_inner) {
        (JoinKind::Inner, true) => method.to_owned(),
        (JoinKind::Inner, false) => format!("{method} Join"),
        (kind, _) => format!("{method} {} Join", join_name(kind)),
    }
}

fn join_and(conditions: Vec<String>) -> String {
    match &conditions[..] {
        [one] => one.clone(),
        many => format!("({})", many.join(" AND ")),
    }
}

fn sort_keys(keys: &[SortKey], schema: &[Field]) -> String {
    let deparser = Deparser::new(schema);
    let shown = keys.iter().map(|key| {
        let direction = if key.descending { " DESC" } else { "" };
        // NULLs are greater than everything: last ascending, first descending.
        let nulls = match (key.descending, key.nulls_first) {
            (false, true) => " NULLS FIRST",
            (true, false) => " NULLS LAST",
            _ => "",
        };
        format!("{}{direction}{nulls}", deparser.expr(&key.expr))
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// What the ranges of a scan say of the index's columns; empty for the whole index.
fn index_conditions(scan: &TableScan) -> String {
    let Some(index) = scan.table.index(scan.index) else { return String::new() };
    let name = |i: usize| match index.columns.get(i) {
        Some(&column) if column < Index::EXPRESSION => scan.table.columns[column].name.clone(),
        Some(&column) => crate::index::key_text(&scan.table, index, column, false),
        None => "?".to_owned(),
    };
    let deparser = Deparser::new(&[]);
    if index.is_of_elements() {
        let value = scan.ranges.first().and_then(|range| range.prefix.first());
        return value.map_or_else(String::new, |e| format!("({} = ANY ({}))", deparser.expr(e), name(0)));
    }
    if let [first, _, ..] = &scan.ranges[..]
        && scan.ranges.iter().all(|r| r.each.is_empty())
        && scan.ranges.iter().all(|r| r.prefix.len() == 1 && r.lower.is_none() && r.upper.is_none())
        && first.prefix.len() == 1
    {
        let values: Vec<String> =
            scan.ranges.iter().filter_map(|r| r.prefix.first()).map(|e| deparser.expr(e)).collect();
        return format!("({} = ANY ({{{}}}))", name(0), values.join(","));
    }
    let ranges = scan.ranges.iter().filter_map(|range| {
        let mut conditions = Vec::new();
        for (i, e) in range.prefix.iter().enumerate() {
            let value = deparser.expr(e);
            conditions.push(match range.each.contains(&i) {
                true => format!("({} = ANY ({value}))", name(i)),
                false => format!("({} = {value})", name(i)),
            });
        }
        let next = name(range.prefix.len());
        if let Some((e, inclusive)) = &range.lower {
            conditions.push(format!("({next} {} {})", if *inclusive { ">=" } else { ">" }, deparser.expr(e)));
        }
        if let Some((e, inclusive)) = &range.upper {
            conditions.push(format!("({next} {} {})", if *inclusive { "<=" } else { "<" }, deparser.expr(e)));
        }
        (!conditions.is_empty()).then(|| join_and(conditions))
    });
    let ranges: Vec<String> = ranges.collect();
    match &ranges[..] {
        [] => String::new(),
        [one] => one.clone(),
        many => format!("({})", many.join(" OR ")),
    }
}

/// Bytes of a row, about.
fn width(schema: &[Field]) -> u64 {
    schema
        .iter()
        .map(|f| match f.ty.len() {
            n if n > 0 => n.unsigned_abs().into(),
            _ => match &f.ty {
                DataType::Varchar(Some(n)) | DataType::Char(n) => u64::from(*n) + 4,
                _ => VARIABLE_WIDTH,
            },
        })
        .sum()
}
