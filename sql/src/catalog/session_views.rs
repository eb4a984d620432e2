//! What a session has: `pg_settings` (what SHOW ALL shows), `pg_prepared_statements`, `pg_cursors`.

use amphora_storage::{DataType, Datum, Row};

use super::{Columns, Definition, SystemContext, Ty, pg, row, text};
use crate::error::Result;

pub(super) const DEFINITIONS: &[Definition] = &[
    pg("pg_settings", 12_100, SETTINGS, settings),
    pg("pg_prepared_statements", 12095, STATEMENTS, statements),
    pg("pg_cursors", 12077, CURSORS, cursors),
];

const STATEMENTS: Columns = &[
    ("name", Ty::Text),
    ("statement", Ty::Text),
    ("prepare_time", Ty::Timestamptz),
    ("parameter_types", Ty::Regtypes),
    ("from_sql", Ty::Bool),
    ("generic_plans", Ty::Int8),
    ("custom_plans", Ty::Int8),
];

fn statements(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let one = |s: crate::session::ListedStatement| {
        let types = s.parameters.iter().map(|oid| Datum::Oid(*oid)).collect();
        vec![
            text(&s.name),
            text(&s.text),
            Datum::Timestamptz(s.prepared),
            Datum::array(DataType::Regtype, types),
            Datum::Bool(s.from_sql),
            Datum::Int8(0),
            Datum::Int8(0),
        ]
    };
    Ok(context.session.prepared_statements().into_iter().map(one).collect())
}

const CURSORS: Columns = &[
    ("name", Ty::Text),
    ("statement", Ty::Text),
    ("is_holdable", Ty::Bool),
    ("is_binary", Ty::Bool),
    ("is_scrollable", Ty::Bool),
    ("creation_time", Ty::Timestamptz),
];

fn cursors(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let one = |c: crate::session::ListedCursor| {
        vec![
            text(&c.name),
            text(&c.text),
            Datum::Bool(c.hold),
            Datum::Bool(c.binary),
            Datum::Bool(c.scroll),
            Datum::Timestamptz(c.created),
        ]
    };
    Ok(context.session.cursors().into_iter().map(one).collect())
}

const SETTINGS: Columns = &[
    ("name", Ty::Text),
    ("setting", Ty::Text),
    ("unit", Ty::Text),
    ("category", Ty::Text),
    ("short_desc", Ty::Text),
    ("extra_desc", Ty::Text),
    ("context", Ty::Text),
    ("vartype", Ty::Text),
    ("source", Ty::Text),
    ("min_val", Ty::Text),
    ("max_val", Ty::Text),
    ("enumvals", Ty::Texts),
    ("boot_val", Ty::Text),
    ("reset_val", Ty::Text),
    ("sourcefile", Ty::Text),
    ("sourceline", Ty::Int4),
    ("pending_restart", Ty::Bool),
];

fn settings(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let one = |(name, value, description): (String, String, String)| {
        row(
            SETTINGS,
            &[
                ("name", text(&name)),
                ("setting", text(&value)),
                ("short_desc", text(&description)),
                ("context", text("user")),
                ("vartype", text("string")),
                ("source", text("default")),
                ("reset_val", text(&value)),
                ("pending_restart", Datum::Bool(false)),
            ],
        )
    };
    Ok((context.settings)().into_iter().map(one).collect())
}
