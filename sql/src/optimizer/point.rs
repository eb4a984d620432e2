//! Finds the statements that are a [`PointRead`]: one table, its whole primary key, plain columns.

use amphora_storage::schema::IndexId;

use crate::expr::Expr;
use crate::plan::{Node, Plan, PointKey, PointRead, Prepared, Statement, TableScan};

pub(super) fn find(prepared: &Prepared) -> Option<PointRead> {
    let Statement::Query(plan) = &prepared.statement else { return None };
    let alone = prepared.ctes.is_empty() && prepared.writes.is_empty() && prepared.locks.is_empty();
    alone.then(|| read_of(plan)).flatten()
}

fn read_of(plan: &Plan) -> Option<PointRead> {
    match &plan.node {
        Node::TableScan(scan) => read_by_key(scan),
        Node::Project { input, exprs } => {
            let read = read_of(input)?;
            let column = |e: &Expr| match e {
                Expr::Column(position, _) => read.columns.get(*position).copied(),
                _ => None,
            };
            let columns = exprs.iter().map(column).collect::<Option<Vec<_>>>()?;
            Some(PointRead { columns, ..read })
        }
        _ => None,
    }
}

fn read_by_key(scan: &TableScan) -> Option<PointRead> {
    let [range] = scan.ranges.as_slice() else { return None };
    let whole = scan.index == IndexId::PRIMARY
        && scan.point
        && scan.filter.is_none()
        && range.prefix.len() == scan.table.primary.columns.len()
        && range.each.is_empty()
        && range.lower.is_none()
        && range.upper.is_none();
    let value = |e: &Expr| match e {
        Expr::Parameter(index, _) => Some(PointKey::Parameter(*index)),
        Expr::Literal(value, _) => Some(PointKey::Constant(value.clone())),
        _ => None,
    };
    let key = range.prefix.iter().map(value).collect::<Option<Vec<_>>>().filter(|_| whole)?;
    Some(PointRead { table: scan.table.clone(), key, columns: scan.columns.clone() })
}
