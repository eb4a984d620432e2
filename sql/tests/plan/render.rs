//! Plans as compact text.

use std::fmt::Write;

use amphora_replication::Direction;
use amphora_sql::SqlError;
use amphora_sql::command::Command;
use amphora_sql::expr::{Expr, SubqueryKind};
use amphora_sql::plan::{Node, Plan, Prepared, ProjectItem, Rule, ScanRange, SortKey, Statement};
use amphora_sql::types::{FormatContext, to_text};
use amphora_storage::{DataType, Datum};

pub fn error(error: &SqlError) -> String {
    let mut out = format!("ERROR {}: {}", error.sqlstate, error.message);
    if let Some(position) = error.position {
        let _ = write!(out, " @{position}");
    }
    out.push('\n');
    if let Some(hint) = &error.hint {
        let _ = writeln!(out, "HINT: {hint}");
    }
    out
}

pub fn prepared(prepared: &Prepared) -> String {
    let mut out = String::new();
    for (i, plan) in prepared.ctes.iter().enumerate() {
        let _ = writeln!(out, "with {i}");
        tree(&mut out, plan, 1);
    }
    statement(&mut out, &prepared.statement);
    if let Some(point) = &prepared.point {
        let columns: Vec<&str> =
            point.columns.iter().map(|&c| point.table.columns[c].name.as_str()).collect();
        let _ = writeln!(out, "point read of {}", columns.join(", "));
    }
    if !prepared.parameters.is_empty() {
        let types: Vec<String> = prepared.parameters.iter().map(|t| t.to_string()).collect();
        let _ = writeln!(out, "parameters {}", types.join(", "));
    }
    if !prepared.schema.is_empty() {
        let fields: Vec<String> = prepared.schema.iter().map(|f| format!("{} {}", f.name, f.ty)).collect();
        let _ = writeln!(out, "=> {}", fields.join(", "));
    }
    out
}

fn statement(out: &mut String, statement_: &Statement) {
    match statement_ {
        Statement::Query(plan) => tree(out, plan, 0),
        Statement::Insert(insert) => {
            let _ = writeln!(out, "insert {} on conflict {:?}", insert.table.name, insert.on_conflict);
            if let Some(update) = &insert.do_update {
                for (c, e) in &update.assignments {
                    let _ = writeln!(out, "  set {} = {}", insert.table.columns[*c].name, expr(e));
                }
                if let Some(e) = &update.condition {
                    let _ = writeln!(out, "  where {}", expr(e));
                }
            }
            rest(out, &insert.checks, &insert.returning);
            tree(out, &insert.source, 1);
        }
        Statement::Update(update) => {
            let _ = writeln!(out, "update {}", update.table.name);
            for (c, e) in &update.assignments {
                let _ = writeln!(out, "  set {} = {}", update.table.columns[*c].name, expr(e));
            }
            rest(out, &update.checks, &update.returning);
            tree(out, &update.source, 1);
        }
        Statement::Delete(delete) => {
            let _ = writeln!(out, "delete {}", delete.table.name);
            rest(out, &[], &delete.returning);
            tree(out, &delete.source, 1);
        }
        Statement::Merge(merge) => {
            let _ = writeln!(out, "merge {}", merge.table.name);
            for clause in &merge.clauses {
                let _ = writeln!(out, "  when matched={} {:?}", clause.matched, clause.action);
            }
            rest(out, &merge.checks, &[]);
            tree(out, &merge.source, 1);
        }
        Statement::Copy(copy) => {
            let _ = writeln!(out, "copy {copy:?}");
        }
        Statement::Explain(explain) => {
            let _ = writeln!(
                out,
                "explain analyze={} costs={} format={}",
                explain.analyze,
                explain.costs,
                explain.format.as_str()
            );
            statement(out, &explain.statement);
        }
        Statement::Command(command) => match &**command {
            Command::CreateTable(create) => {
                let _ = writeln!(
                    out,
                    "create {} table {}.{}",
                    create.replication.as_str(),
                    create.schema,
                    create.name
                );
                for c in &create.columns {
                    let not_null = if c.not_null { " not null" } else { "" };
                    let default = c.default.as_ref().map(|d| format!(" default {d}")).unwrap_or_default();
                    let _ = writeln!(out, "  {} {}{not_null}{default}", c.name, c.ty);
                }
                for key in create.primary_key.iter().chain(&create.uniques) {
                    let _ = writeln!(out, "  key {} {:?}", key.name, key.columns);
                }
                for (name, check) in &create.checks {
                    let _ = writeln!(out, "  check {name} {check}");
                }
                for notice in &create.notices {
                    let _ = writeln!(out, "NOTICE: {notice}");
                }
            }
            Command::CreateIndex(create) => {
                let unique = if create.index.unique { "unique " } else { "" };
                let _ =
                    writeln!(out, "create {unique}index {} {:?}", create.index.name, create.index.columns);
            }
            other => {
                let _ = writeln!(out, "{other:?}");
            }
        },
    }
}

fn rest(out: &mut String, rules: &[(Rule, Expr)], returning: &[Expr]) {
    for (rule, e) in rules {
        let _ = match rule {
            Rule::Generated(column) => writeln!(out, "  generated #{column} {}", expr(e)),
            Rule::Check(name) => writeln!(out, "  check {name} {}", expr(e)),
        };
    }
    if !returning.is_empty() {
        let _ = writeln!(out, "  returning {}", list(returning));
    }
}

fn list(exprs: &[Expr]) -> String {
    exprs.iter().map(expr).collect::<Vec<_>>().join(", ")
}

fn keys(keys: &[SortKey]) -> String {
    let key = |k: &SortKey| {
        let mut s = expr(&k.expr);
        if k.descending {
            s.push_str(" desc");
        }
        if k.nulls_first != k.descending {
            s.push_str(if k.nulls_first { " nulls first" } else { " nulls last" });
        }
        s
    };
    keys.iter().map(key).collect::<Vec<_>>().join(", ")
}

fn range(r: &ScanRange) -> String {
    let mut parts: Vec<String> = r.prefix.iter().map(|e| format!("={}", expr(e))).collect();
    if let Some((e, inclusive)) = &r.lower {
        parts.push(format!("{}{}", if *inclusive { ">=" } else { ">" }, expr(e)));
    }
    if let Some((e, inclusive)) = &r.upper {
        parts.push(format!("{}{}", if *inclusive { "<=" } else { "<" }, expr(e)));
    }
    format!("[{}]", parts.join(" "))
}

fn condition(e: &Option<Expr>) -> String {
    e.as_ref().map(|e| format!(" if {}", expr(e))).unwrap_or_default()
}

fn tree(out: &mut String, plan: &Plan, depth: usize) {
    let indent = "  ".repeat(depth);
    let line = match &plan.node {
        Node::Values(rows) => {
            let shown: Vec<String> = rows.iter().take(3).map(|r| format!("({})", list(r))).collect();
            let more = if rows.len() > 3 { format!(" and {} more", rows.len() - 3) } else { String::new() };
            format!("values {}{more}", shown.join(" "))
        }
        Node::TableScan(scan) => {
            let index = scan.table.index(scan.index).map_or("?", |i| i.name.as_str());
            let ranges: Vec<String> = scan.ranges.iter().take(4).map(range).collect();
            let whole = ranges.len() == 1 && ranges[0] == "[]";
            let mut s = format!("scan {}", scan.table.name);
            if !whole || scan.index.0 != 0 || scan.direction == Direction::Backward {
                let _ = write!(s, " by {index}");
            }
            if scan.direction == Direction::Backward {
                s.push_str(" backward");
            }
            if !whole {
                let _ = write!(s, " {}", ranges.join(" "));
            }
            if scan.ranges.len() > 4 {
                let _ = write!(s, " and {} more", scan.ranges.len() - 4);
            }
            if scan.point {
                s.push_str(" point");
            }
            let names: Vec<&str> =
                scan.columns.iter().map(|&c| scan.table.columns[c].name.as_str()).collect();
            let _ = write!(s, " -> {}", names.join(","));
            s + &condition(&scan.filter)
        }
        Node::SystemScan { view, equal } => {
            let equal: Vec<String> = equal.iter().map(|(c, e)| format!("#{c}={}", expr(e))).collect();
            format!("view {}.{} {}", view.schema, view.name, equal.join(" ")).trim_end().to_owned()
        }
        Node::FunctionScan { function, args, ordinality } => {
            format!(
                "function {}({}){}",
                function.name,
                list(args),
                if *ordinality { " with ordinality" } else { "" }
            )
        }
        Node::CteScan(i) => format!("cte {i}"),
        Node::WorkTable(i) => format!("work {i}"),
        Node::Filter { condition, .. } => format!("filter {}", expr(condition)),
        Node::Project { exprs, .. } => format!("project {}", list(exprs)),
        Node::ProjectSet { exprs, .. } => {
            let item = |i: &ProjectItem| match i {
                ProjectItem::Scalar(e) => expr(e),
                ProjectItem::Set { function, args } => format!("set {}({})", function.name, list(args)),
            };
            format!("project set {}", exprs.iter().map(item).collect::<Vec<_>>().join(", "))
        }
        Node::NestedLoop { kind, condition: c, .. } => format!("loop {kind:?}{}", condition(c)),
        Node::HashJoin { kind, left_keys, right_keys, condition: c, .. } => {
            format!("hash {kind:?} ({}) = ({}){}", list(left_keys), list(right_keys), condition(c))
        }
        Node::MergeJoin { kind, left_keys, right_keys, condition: c, .. } => {
            format!(
                "merge {kind:?} ({}) = ({}){}",
                self::keys(left_keys),
                self::keys(right_keys),
                condition(c)
            )
        }
        Node::Aggregate { keys, aggregates, sorted, .. } => {
            let call = |a: &amphora_sql::plan::Aggregate| {
                let distinct = if a.distinct { "distinct " } else { "" };
                let filter = a.filter.as_ref().map(|e| format!(" filter {}", expr(e))).unwrap_or_default();
                let order = if a.order_by.is_empty() {
                    String::new()
                } else {
                    format!(" order {}", self::keys(&a.order_by))
                };
                format!("{}({distinct}{}{order}){filter}", a.function.name, list(&a.args))
            };
            let calls: Vec<String> = aggregates.iter().map(call).collect();
            let how = if *sorted { "group" } else { "aggregate" };
            format!("{how} by ({}): {}", list(keys), calls.join(", "))
        }
        Node::Window { functions, .. } => {
            let call = |w: &amphora_sql::plan::WindowCall| {
                format!(
                    "{}({}) partition ({}) order ({})",
                    window(&w.function),
                    list(&w.args),
                    list(&w.partition_by),
                    self::keys(&w.order_by)
                )
            };
            format!("window {}", functions.iter().map(call).collect::<Vec<_>>().join(", "))
        }
        Node::Sort { keys, limit, .. } => {
            let limit = limit.as_ref().map(|e| format!(" top {}", expr(e))).unwrap_or_default();
            format!("sort {}{limit}", self::keys(keys))
        }
        Node::Limit { limit, offset, .. } => {
            let show = |e: &Option<Expr>| e.as_ref().map_or("-".to_owned(), expr);
            format!("limit {} offset {}", show(limit), show(offset))
        }
        Node::Distinct { on, sorted, .. } => {
            format!("{} {}", if *sorted { "unique" } else { "distinct" }, list(on))
        }
        Node::Append(_) => "append".into(),
        Node::SetOperation { intersect, all, .. } => {
            format!("{}{}", if *intersect { "intersect" } else { "except" }, if *all { " all" } else { "" })
        }
        Node::Recursive { id, distinct, .. } => {
            format!("recursive {id}{}", if *distinct { " distinct" } else { "" })
        }
        Node::Lock { targets, mode, wait, .. } => {
            let targets: Vec<String> =
                targets.iter().map(|t| format!("{} {:?}", t.table.name, t.key)).collect();
            format!("lock {mode:?} {wait:?} {}", targets.join(", "))
        }
    };
    let _ = writeln!(out, "{indent}{line}");
    plan.node.exprs(&mut |e| subplans(out, e, depth));
    plan.node.inputs(&mut |input, _| tree(out, input, depth + 1));
}

fn subplans(out: &mut String, e: &Expr, depth: usize) {
    if let Expr::Subquery(s) = e {
        let _ = writeln!(out, "{}  subquery", "  ".repeat(depth));
        tree(out, &s.plan, depth + 2);
    }
    e.children(&mut |c| subplans(out, c, depth));
}

fn window(f: &amphora_sql::plan::WindowFunction) -> String {
    use amphora_sql::plan::WindowFunction as W;
    match f {
        W::RowNumber => "row_number".into(),
        W::Rank => "rank".into(),
        W::DenseRank => "dense_rank".into(),
        W::Shift(lead) => {
            if *lead {
                "lead".into()
            } else {
                "lag".into()
            }
        }
        W::PercentRank => "percent_rank".into(),
        W::CumeDist => "cume_dist".into(),
        W::Ntile => "ntile".into(),
        W::FirstValue => "first_value".into(),
        W::LastValue => "last_value".into(),
        W::NthValue => "nth_value".into(),
        W::Aggregate(a) => a.name.into(),
    }
}

fn literal(value: &Datum, ty: &DataType) -> String {
    match value {
        Datum::Null => "null".into(),
        Datum::Text(s) => format!("'{s}'"),
        Datum::Array(_) => format!("{value:?}"),
        other => to_text(other, ty, &FormatContext::default()),
    }
}

pub fn expr(e: &Expr) -> String {
    match e {
        Expr::Literal(value, ty) => literal(value, ty),
        Expr::Column(i, _) => format!("#{i}"),
        Expr::Domain { input, checks } => format!("{}({})", checks.name, expr(input)),
        Expr::Outer { depth, position, .. } => format!("outer({depth}).{position}"),
        Expr::Parameter(i, _) => format!("${}", i + 1),
        Expr::Call { function, args, .. } => match &args[..] {
            [l, r] if !function.name.starts_with(|c: char| c.is_alphabetic()) => {
                format!("({} {} {})", expr(l), function.name, expr(r))
            }
            _ => format!("{}({})", function.name, list(args)),
        },
        Expr::Cast { input, to, .. } => format!("{}::{to}", expr(input)),
        Expr::And(items) => format!("({})", items.iter().map(expr).collect::<Vec<_>>().join(" and ")),
        Expr::Or(items) => format!("({})", items.iter().map(expr).collect::<Vec<_>>().join(" or ")),
        Expr::Not(e) => format!("not {}", expr(e)),
        Expr::IsNull { input, negated } => {
            format!("{} is{} null", expr(input), if *negated { " not" } else { "" })
        }
        Expr::IsBool { input, value, negated } => {
            format!("{} is{} {value:?}", expr(input), if *negated { " not" } else { "" })
        }
        Expr::IsDistinct { left, right, negated } => {
            format!("{} is{} distinct from {}", expr(left), if *negated { " not" } else { "" }, expr(right))
        }
        Expr::Case { branches, otherwise, .. } => {
            let b: Vec<String> =
                branches.iter().map(|(c, v)| format!("when {} then {}", expr(c), expr(v))).collect();
            format!("case {} else {} end", b.join(" "), expr(otherwise))
        }
        Expr::Coalesce(items, _) => format!("coalesce({})", list(items)),
        Expr::Extreme { greatest, args, .. } => {
            format!("{}({})", if *greatest { "greatest" } else { "least" }, list(args))
        }
        Expr::InList { input, list: items, negated } => {
            format!("{}{} in ({})", expr(input), if *negated { " not" } else { "" }, list(items))
        }
        Expr::AnyAll { left, function, array, all } => {
            format!("{} {} {}({})", expr(left), function.name, if *all { "all" } else { "any" }, expr(array))
        }
        Expr::Subquery(s) => {
            let c = if s.correlated { "correlated " } else { "" };
            match &s.kind {
                SubqueryKind::Scalar => format!("({c}subquery)"),
                SubqueryKind::Exists => format!("exists({c}subquery)"),
                SubqueryKind::Array => format!("array({c}subquery)"),
                SubqueryKind::AnyAll { left, function, all } => {
                    format!(
                        "{} {} {}({c}subquery)",
                        expr(left),
                        function.name,
                        if *all { "all" } else { "any" }
                    )
                }
            }
        }
        Expr::Array { items, .. } => format!("array[{}]", list(items)),
        Expr::Row(items) => format!("row({})", list(items)),
        Expr::Subscript { array, index, .. } => format!("{}[{}]", expr(array), expr(index)),
    }
}
