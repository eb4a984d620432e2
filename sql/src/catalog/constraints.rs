//! Constraints: `pg_constraint`, and how `pg_get_constraintdef` prints them.

use std::sync::Arc;

use amphora_storage::schema::{Catalog, ForeignKey, Index, ReferentialAction, Table, UserTypeKind};
use amphora_storage::{Datum, Row};

use super::relations::{column_list, quoted, visible_indexes};
use super::{
    Columns, Definition, SystemContext, Ty, char, check_oid, domain_check_oid, int2s, oids, pg, row,
    schema_oid, shown_types, text,
};
use crate::error::Result;

pub(super) const DEFINITIONS: &[Definition] = &[pg("pg_constraint", 2606, CONSTRAINT, constraint)];

const CONSTRAINT: Columns = &[
    ("oid", Ty::Oid),
    ("conname", Ty::Name),
    ("connamespace", Ty::Oid),
    ("contype", Ty::Char),
    ("condeferrable", Ty::Bool),
    ("condeferred", Ty::Bool),
    ("convalidated", Ty::Bool),
    ("conrelid", Ty::Oid),
    ("contypid", Ty::Oid),
    ("conindid", Ty::Oid),
    ("conparentid", Ty::Oid),
    ("confrelid", Ty::Oid),
    ("confupdtype", Ty::Char),
    ("confdeltype", Ty::Char),
    ("confmatchtype", Ty::Char),
    ("conislocal", Ty::Bool),
    ("coninhcount", Ty::Int4),
    ("connoinherit", Ty::Bool),
    ("conkey", Ty::Int2s),
    ("confkey", Ty::Int2s),
    ("conpfeqop", Ty::Oids),
    ("conppeqop", Ty::Oids),
    ("conffeqop", Ty::Oids),
    ("conexclop", Ty::Oids),
    ("conbin", Ty::Text),
];

/// The CHECK constraints of domains.
fn domain_rows(context: &SystemContext<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    for (ty, _) in context.catalog.types() {
        let UserTypeKind::Domain { checks, .. } = &ty.kind else { continue };
        for (i, check) in checks.iter().enumerate() {
            let no = Datum::Bool(false);
            rows.push(row(
                CONSTRAINT,
                &[
                    ("oid", Datum::Oid(domain_check_oid(ty, i))),
                    ("conname", text(&check.name)),
                    ("connamespace", Datum::Oid(schema_oid(context.catalog, &ty.schema).unwrap_or(0))),
                    ("contype", char('c')),
                    ("condeferrable", no.clone()),
                    ("condeferred", no.clone()),
                    ("convalidated", Datum::Bool(check.validated)),
                    ("conrelid", Datum::Oid(0)),
                    ("contypid", Datum::Oid(ty.id.0)),
                    ("conindid", Datum::Oid(0)),
                    ("conparentid", Datum::Oid(0)),
                    ("confrelid", Datum::Oid(0)),
                    ("confupdtype", char(' ')),
                    ("confdeltype", char(' ')),
                    ("confmatchtype", char(' ')),
                    ("conislocal", Datum::Bool(true)),
                    ("coninhcount", Datum::Int4(0)),
                    ("connoinherit", no),
                    ("conbin", text(&check.expression)),
                ],
            ));
        }
    }
    rows
}

/// What constraints of all kinds have.
struct Constraint<'a> {
    /// OID of its schema
    schema: u32,
    table: &'a Table,
    oid: u32,
    name: &'a str,
    kind: char,
    /// The index that it needs
    index: u32,
}

fn constraint_row(of: &Constraint<'_>, special: &[(&str, Datum)]) -> Row {
    let no = Datum::Bool(false);
    let mut values = vec![
        ("oid", Datum::Oid(of.oid)),
        ("conname", text(of.name)),
        ("connamespace", Datum::Oid(of.schema)),
        ("contype", char(of.kind)),
        ("condeferrable", no.clone()),
        ("condeferred", no.clone()),
        ("convalidated", Datum::Bool(true)),
        ("conrelid", Datum::Oid(of.table.id.0)),
        ("contypid", Datum::Oid(0)),
        ("conindid", Datum::Oid(of.index)),
        ("conparentid", Datum::Oid(0)),
        ("confrelid", Datum::Oid(0)),
        ("confupdtype", char(' ')),
        ("confdeltype", char(' ')),
        ("confmatchtype", char(' ')),
        ("conislocal", Datum::Bool(true)),
        ("coninhcount", Datum::Int4(0)),
        ("connoinherit", Datum::Bool(of.kind != 'c')),
    ];
    for (name, value) in special {
        values.retain(|(known, _)| known != name);
        values.push((name, value.clone()));
    }
    row(CONSTRAINT, &values)
}

fn constraint(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for table in context.catalog.tables() {
        let schema = schema_oid(context.catalog, &table.schema).unwrap_or(0);
        for index in visible_indexes(table).filter(|i| i.constraint) {
            let kind = if index.id == table.primary.id { 'p' } else { 'u' };
            let key = int2s(index.columns.iter().map(|&c| table.attribute_number(c)));
            let of = Constraint { schema, table, oid: index.oid, name: &index.name, kind, index: index.oid };
            let special = [
                ("conkey", key),
                ("condeferrable", Datum::Bool(index.deferrable)),
                ("condeferred", Datum::Bool(index.deferred)),
            ];
            rows.push(constraint_row(&of, &special));
        }
        for (i, check) in table.checks.iter().enumerate() {
            let of = Constraint {
                schema,
                table,
                oid: check_oid(table, i),
                name: &check.name,
                kind: 'c',
                index: 0,
            };
            let columns = crate::binder::columns_of(table, &check.expression);
            let special = [
                ("conkey", int2s(columns.into_iter().map(|c| table.attribute_number(c)))),
                ("convalidated", Datum::Bool(check.validated)),
                ("conbin", text(crate::binder::shown_condition(table, &check.expression, false))),
            ];
            rows.push(constraint_row(&of, &special));
        }
        for key in &table.foreign_keys {
            rows.push(foreign_key_row(context.catalog, table, key));
        }
    }
    rows.extend(domain_rows(context));
    Ok(rows)
}

fn foreign_key_row(catalog: &Catalog, table: &Table, key: &ForeignKey) -> Row {
    let numbers = |table: &Table, positions: Option<Vec<usize>>| {
        int2s(positions.unwrap_or_default().into_iter().map(|c| table.attribute_number(c)))
    };
    let schema = schema_oid(catalog, &table.schema).unwrap_or(0);
    let parent = catalog.table_by_id(key.parent);
    let index = parent.and_then(|p| super::referenced_index(p, key)).map_or(0, |i| i.oid);
    let of = Constraint { schema, table, oid: key.oid, name: &key.name, kind: 'f', index };
    let confkey = parent.map_or(Datum::Null, |p| numbers(p, p.positions(&key.parent_columns)));
    constraint_row(
        &of,
        &[
            ("condeferrable", Datum::Bool(key.deferrable)),
            ("condeferred", Datum::Bool(key.deferred)),
            ("convalidated", Datum::Bool(key.validated)),
            ("confrelid", Datum::Oid(key.parent.0)),
            ("confupdtype", char(action_letter(key.on_update))),
            ("confdeltype", char(action_letter(key.on_delete))),
            ("confmatchtype", char(if key.match_full { 'f' } else { 's' })),
            ("conkey", numbers(table, table.positions(&key.columns))),
            ("confkey", confkey),
            ("conpfeqop", oids(vec![96; key.columns.len()])),
        ],
    )
}

fn action_letter(action: ReferentialAction) -> char {
    match action {
        ReferentialAction::NoAction => 'a',
        ReferentialAction::Restrict => 'r',
        ReferentialAction::Cascade => 'c',
        ReferentialAction::SetNull => 'n',
        ReferentialAction::SetDefault => 'd',
    }
}

/// An action as SQL and `information_schema` spell it.
pub(super) fn action_name(action: ReferentialAction) -> &'static str {
    match action {
        ReferentialAction::NoAction => "NO ACTION",
        ReferentialAction::Restrict => "RESTRICT",
        ReferentialAction::Cascade => "CASCADE",
        ReferentialAction::SetNull => "SET NULL",
        ReferentialAction::SetDefault => "SET DEFAULT",
    }
}

/// A constraint's definition, as `pg_get_constraintdef` prints it, by its OID.
pub fn constraint_definition(
    catalog: &Catalog,
    table: &Arc<Table>,
    oid: u32,
    pretty: bool,
    visible: &dyn Fn(u32) -> bool,
) -> Option<String> {
    let list = column_list;
    if let Some(index) = table.all_indexes().find(|i| i.constraint && i.oid == oid) {
        let kind = if index.id == table.primary.id { "PRIMARY KEY" } else { "UNIQUE" };
        let nulls = if index.nulls_not_distinct { " NULLS NOT DISTINCT" } else { "" };
        let mut definition = format!("{kind}{nulls} ({})", list(table, &index.columns));
        if !index.include.is_empty() {
            definition.push_str(&format!(" INCLUDE ({})", list(table, &index.include)));
        }
        if !index.options.is_empty() {
            let options = index.options.iter().map(|(name, value)| format!("{name}='{value}'"));
            definition.push_str(&format!(" WITH ({})", options.collect::<Vec<_>>().join(", ")));
        }
        if index.deferrable {
            definition.push_str(" DEFERRABLE");
        }
        if index.deferred {
            definition.push_str(" INITIALLY DEFERRED");
        }
        return Some(definition);
    }
    if let Some(key) = table.foreign_keys.iter().find(|key| key.oid == oid) {
        let parent = catalog.table_by_id(key.parent)?;
        let name = match visible(parent.id.0) {
            true => quoted(&parent.name),
            false => format!("{}.{}", quoted(&parent.schema), quoted(&parent.name)),
        };
        let mut definition = format!(
            "FOREIGN KEY ({}) REFERENCES {name}({})",
            list(table, &table.positions(&key.columns)?),
            list(parent, &parent.positions(&key.parent_columns)?)
        );
        if key.match_full {
            definition.push_str(" MATCH FULL");
        }
        for (when, action) in [("UPDATE", key.on_update), ("DELETE", key.on_delete)] {
            if action != ReferentialAction::NoAction {
                definition.push_str(&format!(" ON {when} {}", action_name(action)));
            }
        }
        for (is, what) in [
            (key.deferrable, " DEFERRABLE"),
            (key.deferred, " INITIALLY DEFERRED"),
            (!key.validated, " NOT VALID"),
        ] {
            if is {
                definition.push_str(what);
            }
        }
        return Some(definition);
    }
    let check = table.checks.iter().enumerate().find(|(i, _)| check_oid(table, *i) == oid)?.1;
    let condition = crate::binder::shown_condition(table, &check.expression, pretty);
    let not_valid = if check.validated { "" } else { " NOT VALID" };
    Some(format!("CHECK ({}){not_valid}", shown_types(catalog, &condition)))
}

/// An expression of `pg_index` or `pg_constraint`, given as it is there, with no more parentheses than it needs.
pub fn pretty_expression(table: &Arc<Table>, text: &str) -> Option<String> {
    use crate::binder::shown_condition;
    use crate::index::{expression_text, predicate_text};
    let of_index = |index: &Index| {
        let expression = |c: &usize| {
            (expression_text(table, index, *c, false) == text)
                .then(|| expression_text(table, index, *c, true))
        };
        match predicate_text(table, index, false).filter(|known| known == text) {
            Some(_) => predicate_text(table, index, true),
            None => index.columns.iter().filter(|c| **c >= Index::EXPRESSION).find_map(expression),
        }
    };
    let mut checks = table.checks.iter().map(|check| check.expression.as_str());
    table.indexes.iter().find_map(of_index).or_else(|| {
        let check = checks.find(|check| shown_condition(table, check, false) == text)?;
        Some(shown_condition(table, check, true))
    })
}
