//! `EXPLAIN (CONFLICTS)`: what a concurrent write to the same row would do, column by column.

use amphora_storage::DataType;
use amphora_storage::schema::{Column, ConflictPolicy, Table};
use amphora_storage::types::Crdt;

use crate::expr::Expr;
use crate::plan::Statement;

/// One line.
pub(super) struct Fate {
    /// A column, or the whole row
    pub(super) subject: String,
    /// What happens, and which value loses
    pub(super) outcome: String,
}

/// What would become of what a statement writes. Empty for one that writes nothing.
pub(super) fn fates(statement: &Statement) -> Vec<Fate> {
    match statement {
        Statement::Insert(insert) => {
            let mut fates = Vec::new();
            if insert.table.is_strong() {
                return vec![strong(&insert.table)];
            }
            fates.push(row(
                "an insert of the same key on another node succeeds too, and the two rows merge column by column",
            ));
            let columns = insert.table.visible_columns().iter().enumerate();
            let columns = columns.filter(|(i, _)| !insert.table.primary.columns.contains(i));
            fates.extend(columns.map(|(_, c)| column(c, false)));
            fates
        }
        Statement::Update(update) => {
            if update.table.is_strong() {
                return vec![strong(&update.table)];
            }
            let table = &update.table;
            let mut fates: Vec<Fate> =
                update.assignments.iter().map(|(i, e)| assigned(table, *i, e)).collect();
            fates.push(row("a delete on another node wins over this update"));
            fates
        }
        Statement::Delete(delete) => match delete.table.is_strong() {
            true => vec![strong(&delete.table)],
            false => vec![row(
                "this delete wins over updates on other nodes that it has not seen; an insert that has seen it brings the row back",
            )],
        },
        Statement::Merge(merge) if merge.table.is_strong() => vec![strong(&merge.table)],
        Statement::Merge(merge) => {
            let columns = merge.table.visible_columns().iter().enumerate();
            let columns = columns.filter(|(i, _)| !merge.table.primary.columns.contains(i));
            columns.map(|(_, c)| column(c, false)).collect()
        }
        Statement::Query(_) | Statement::Explain(_) | Statement::Command(_) | Statement::Copy(_) => {
            Vec::new()
        }
    }
}

fn row(outcome: &str) -> Fate {
    Fate { subject: "row".into(), outcome: outcome.into() }
}

fn strong(table: &Table) -> Fate {
    row(&format!(
        "none: \"{}\" is strong, and whoever writes the row next waits, or is refused with 40001",
        table.name
    ))
}

fn assigned(table: &Table, position: usize, value: &Expr) -> Fate {
    let Some(c) = table.columns.get(position) else { return row("unknown") };
    if table.primary.columns.contains(&position) {
        return Fate {
            subject: c.name.clone(),
            outcome: "a row whose key changes is deleted and inserted: updates of the old row on other nodes are lost".into(),
        };
    }
    column(c, value.is_reset())
}

fn column(c: &Column, reset: bool) -> Fate {
    let (rule, outcome) = match &c.ty {
        DataType::Crdt(crdt) => (c.ty.to_string(), merged(crdt, reset)),
        _ => (c.conflict.as_str().to_owned(), decided(c.conflict)),
    };
    Fate { subject: format!("{} ({rule})", c.name), outcome: outcome.into() }
}

fn merged(crdt: &Crdt, reset: bool) -> &'static str {
    match crdt {
        Crdt::Max(_) | Crdt::Min(_) if reset => {
            "the reset wins over values that were written without having seen it"
        }
        _ if reset => "what this node sees is taken out; what others put in at the same time stays",
        Crdt::Counter | Crdt::Gcounter | Crdt::Sum(_) => "both differences are added; nothing is lost",
        Crdt::Max(_) => "the greater value stays, the lesser loses",
        Crdt::Min(_) => "the lesser value stays, the greater loses",
        Crdt::Set(_) => "additions and removals of both are done; of one element, the addition wins",
        Crdt::RemoveSet(_) => "additions and removals of both are done; of one element, the removal wins",
        Crdt::Flag => "true wins over a false that had not seen it",
        Crdt::Register(_) => "both values stay, side by side, until the next write; nothing is lost",
        Crdt::Map => {
            "keys merge one by one; of one key the later write stays, and an update wins over a removal"
        }
    }
}

fn decided(policy: ConflictPolicy) -> &'static str {
    match policy {
        ConflictPolicy::Lww => {
            "the later write by clock wins, the earlier value loses and is kept in amphora.conflicts"
        }
        ConflictPolicy::First => {
            "the earlier write by clock wins, the later value loses and is kept in amphora.conflicts"
        }
        ConflictPolicy::Max => "the greater value wins, the lesser loses and is kept in amphora.conflicts",
        ConflictPolicy::Min => "the lesser value wins, the greater loses and is kept in amphora.conflicts",
        ConflictPolicy::ErrorLog => {
            "the later write by clock wins, the earlier value loses, is kept in amphora.conflicts and reported in the log as an error"
        }
    }
}
