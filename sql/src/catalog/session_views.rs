//! `pg_settings`: what SHOW ALL shows, as a view.

use amphora_storage::{Datum, Row};

use super::{Columns, Definition, SystemContext, Ty, pg, row, text};
use crate::error::Result;

pub(super) const DEFINITIONS: &[Definition] = &[pg("pg_settings", 12_100, SETTINGS, settings)];

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
