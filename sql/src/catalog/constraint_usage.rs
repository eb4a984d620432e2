//! `information_schema`'s views of constraints.

use amphora_storage::schema::{Catalog, Table};
use amphora_storage::{Datum, Row};

use super::constraints::action_name;
use super::information_schema::info;
use super::relations::visible_indexes;
use super::{Columns, Definition, SystemContext, Ty, referenced_index, row, text};
use crate::error::Result;

pub(super) const DEFINITIONS: &[Definition] = &[
    info("table_constraints", 13_004, TABLE_CONSTRAINTS, table_constraints),
    info("key_column_usage", 13_005, KEY_COLUMN_USAGE, key_column_usage),
    info("referential_constraints", 13_006, REFERENTIAL_CONSTRAINTS, referential_constraints),
    info("constraint_column_usage", 13_007, CONSTRAINT_COLUMN_USAGE, constraint_column_usage),
    info("check_constraints", 13_008, CHECK_CONSTRAINTS, check_constraints),
];

fn yes_or_no(yes: bool) -> Datum {
    text(if yes { "YES" } else { "NO" })
}

/// The name PostgreSQL gives a NOT NULL here: schema, table, column and what it is.
fn not_null_name(catalog: &Catalog, table: &Table, position: usize) -> String {
    let number = table.attribute_number(position);
    format!("{}_{}_{number}_not_null", super::schema_oid(catalog, &table.schema).unwrap_or(0), table.id.0)
}

fn not_null_columns(table: &Table) -> impl Iterator<Item = usize> {
    let columns = table.visible_columns().iter().enumerate();
    columns.filter(|(_, column)| column.not_null).map(|(position, _)| position)
}

const TABLE_CONSTRAINTS: Columns = &[
    ("constraint_catalog", Ty::Name),
    ("constraint_schema", Ty::Name),
    ("constraint_name", Ty::Name),
    ("table_catalog", Ty::Name),
    ("table_schema", Ty::Name),
    ("table_name", Ty::Name),
    ("constraint_type", Ty::Text),
    ("is_deferrable", Ty::Text),
    ("initially_deferred", Ty::Text),
    ("enforced", Ty::Text),
    ("nulls_distinct", Ty::Text),
];

fn table_constraints(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for table in context.catalog.tables() {
        let mut add = |name: &str, kind: &str, deferrable: bool, deferred: bool| {
            let mut values = vec![
                ("constraint_catalog", text(context.database)),
                ("constraint_schema", text(&table.schema)),
                ("constraint_name", text(name)),
                ("table_catalog", text(context.database)),
                ("table_schema", text(&table.schema)),
                ("table_name", text(&table.name)),
                ("constraint_type", text(kind)),
                ("is_deferrable", yes_or_no(deferrable)),
                ("initially_deferred", yes_or_no(deferred)),
                ("enforced", text("YES")),
            ];
            if kind == "UNIQUE" {
                values.push(("nulls_distinct", text("YES")));
            }
            rows.push(row(TABLE_CONSTRAINTS, &values));
        };
        for index in visible_indexes(table).filter(|i| i.constraint) {
            let kind = if index.id == table.primary.id { "PRIMARY KEY" } else { "UNIQUE" };
            add(&index.name, kind, false, false);
        }
        for check in &table.checks {
            add(&check.name, "CHECK", false, false);
        }
        for key in &table.foreign_keys {
            add(&key.name, "FOREIGN KEY", key.deferrable, key.deferred);
        }
        for position in not_null_columns(table) {
            add(&not_null_name(context.catalog, table, position), "CHECK", false, false);
        }
    }
    Ok(rows)
}

const KEY_COLUMN_USAGE: Columns = &[
    ("constraint_catalog", Ty::Name),
    ("constraint_schema", Ty::Name),
    ("constraint_name", Ty::Name),
    ("table_catalog", Ty::Name),
    ("table_schema", Ty::Name),
    ("table_name", Ty::Name),
    ("column_name", Ty::Name),
    ("ordinal_position", Ty::Int4),
    ("position_in_unique_constraint", Ty::Int4),
];

fn key_column_usage(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for table in context.catalog.tables() {
        let mut add = |name: &str, place: usize, column: usize, in_unique: Datum| {
            rows.push(row(
                KEY_COLUMN_USAGE,
                &[
                    ("constraint_catalog", text(context.database)),
                    ("constraint_schema", text(&table.schema)),
                    ("constraint_name", text(name)),
                    ("table_catalog", text(context.database)),
                    ("table_schema", text(&table.schema)),
                    ("table_name", text(&table.name)),
                    ("column_name", text(&table.columns[column].name)),
                    ("ordinal_position", Datum::Int4(place as i32 + 1)),
                    ("position_in_unique_constraint", in_unique),
                ],
            ));
        };
        for index in visible_indexes(table).filter(|i| i.constraint) {
            for (place, &column) in index.columns.iter().enumerate() {
                add(&index.name, place, column, Datum::Null);
            }
        }
        for key in &table.foreign_keys {
            let Some(parent) = context.catalog.table_by_id(key.parent) else { continue };
            let unique = referenced_index(parent, key).map(|i| i.columns.as_slice()).unwrap_or_default();
            let columns = table.positions(&key.columns).unwrap_or_default();
            let referenced = parent.positions(&key.parent_columns).unwrap_or_default();
            for (place, (column, other)) in columns.into_iter().zip(referenced).enumerate() {
                let in_unique = unique.iter().position(|c| *c == other);
                add(&key.name, place, column, in_unique.map_or(Datum::Null, |p| Datum::Int4(p as i32 + 1)));
            }
        }
    }
    Ok(rows)
}

const REFERENTIAL_CONSTRAINTS: Columns = &[
    ("constraint_catalog", Ty::Name),
    ("constraint_schema", Ty::Name),
    ("constraint_name", Ty::Name),
    ("unique_constraint_catalog", Ty::Name),
    ("unique_constraint_schema", Ty::Name),
    ("unique_constraint_name", Ty::Name),
    ("match_option", Ty::Text),
    ("update_rule", Ty::Text),
    ("delete_rule", Ty::Text),
];

fn referential_constraints(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for table in context.catalog.tables() {
        for key in &table.foreign_keys {
            let Some(parent) = context.catalog.table_by_id(key.parent) else { continue };
            let unique = referenced_index(parent, key).filter(|index| index.constraint);
            rows.push(row(
                REFERENTIAL_CONSTRAINTS,
                &[
                    ("constraint_catalog", text(context.database)),
                    ("constraint_schema", text(&table.schema)),
                    ("constraint_name", text(&key.name)),
                    ("unique_constraint_catalog", unique.map_or(Datum::Null, |_| text(context.database))),
                    ("unique_constraint_schema", unique.map_or(Datum::Null, |_| text(&parent.schema))),
                    ("unique_constraint_name", unique.map_or(Datum::Null, |index| text(&index.name))),
                    ("match_option", text(if key.match_full { "FULL" } else { "NONE" })),
                    ("update_rule", text(action_name(key.on_update))),
                    ("delete_rule", text(action_name(key.on_delete))),
                ],
            ));
        }
    }
    Ok(rows)
}

const CONSTRAINT_COLUMN_USAGE: Columns = &[
    ("table_catalog", Ty::Name),
    ("table_schema", Ty::Name),
    ("table_name", Ty::Name),
    ("column_name", Ty::Name),
    ("constraint_catalog", Ty::Name),
    ("constraint_schema", Ty::Name),
    ("constraint_name", Ty::Name),
];

/// The columns that a constraint is about: its own, and for a foreign key those it refers to.
fn constraint_column_usage(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut add = |table: &Table, column: usize, schema: &str, name: &str| {
        rows.push(row(
            CONSTRAINT_COLUMN_USAGE,
            &[
                ("table_catalog", text(context.database)),
                ("table_schema", text(&table.schema)),
                ("table_name", text(&table.name)),
                ("column_name", text(&table.columns[column].name)),
                ("constraint_catalog", text(context.database)),
                ("constraint_schema", text(schema)),
                ("constraint_name", text(name)),
            ],
        ));
    };
    for table in context.catalog.tables() {
        for index in visible_indexes(table).filter(|i| i.constraint) {
            for &column in &index.columns {
                add(table, column, &table.schema, &index.name);
            }
        }
        for check in &table.checks {
            for column in crate::binder::columns_of(table, &check.expression) {
                add(table, column, &table.schema, &check.name);
            }
        }
        for key in &table.foreign_keys {
            let Some(parent) = context.catalog.table_by_id(key.parent) else { continue };
            for column in parent.positions(&key.parent_columns).unwrap_or_default() {
                add(parent, column, &table.schema, &key.name);
            }
        }
    }
    Ok(rows)
}

const CHECK_CONSTRAINTS: Columns = &[
    ("constraint_catalog", Ty::Name),
    ("constraint_schema", Ty::Name),
    ("constraint_name", Ty::Name),
    ("check_clause", Ty::Text),
];

fn check_constraints(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for table in context.catalog.tables() {
        let mut add = |name: &str, clause: String| {
            rows.push(vec![text(context.database), text(&table.schema), text(name), text(clause)]);
        };
        for check in &table.checks {
            add(&check.name, format!("(({}))", check.expression));
        }
        for position in not_null_columns(table) {
            let name = &table.columns[position].name;
            add(
                &not_null_name(context.catalog, table, position),
                format!("{} IS NOT NULL", super::quoted(name)),
            );
        }
    }
    Ok(rows)
}
