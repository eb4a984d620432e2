//! What goes on: `pg_stat_activity`, `pg_locks`, and statistics as far as they are kept.
//!
//! The sessions and locks are those of the node that is asked. What is not counted reads as NULL.

use amphora_storage::{Datum, Row};

use super::{Columns, Definition, SystemContext, Ty, pg, role_oid, row, text};
use crate::error::Result;
use crate::session::backends;

pub(super) const DEFINITIONS: &[Definition] = &[
    pg("pg_stat_activity", 12_212, ACTIVITY, activity),
    pg("pg_locks", 12_073, LOCKS, locks),
    pg("pg_stat_database", 12_238, DATABASE, database),
    pg("pg_stat_user_tables", 12_172, TABLES, |context, _| tables(context)),
    pg("pg_stat_all_tables", 12_162, TABLES, |context, _| tables(context)),
    pg("pg_statio_user_tables", 12_179, BLOCKS, |context, _| blocks(context)),
    pg("pg_statio_all_tables", 12_170, BLOCKS, |context, _| blocks(context)),
];

/// OID of the database that sessions work in.
const DATABASE_OID: u32 = 16_001;
/// OID of the database `postgres`.
const POSTGRES_OID: u32 = 5;

fn database_oid(name: &str) -> u32 {
    if name == "postgres" { POSTGRES_OID } else { DATABASE_OID }
}

const ACTIVITY: Columns = &[
    ("datid", Ty::Oid),
    ("datname", Ty::Name),
    ("pid", Ty::Int4),
    ("usesysid", Ty::Oid),
    ("usename", Ty::Name),
    ("application_name", Ty::Text),
    ("backend_start", Ty::Timestamptz),
    ("xact_start", Ty::Timestamptz),
    ("query_start", Ty::Timestamptz),
    ("state_change", Ty::Timestamptz),
    ("state", Ty::Text),
    ("query", Ty::Text),
    ("backend_type", Ty::Text),
];

fn activity(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let time = |t: Option<i64>| t.map_or(Datum::Null, Datum::Timestamptz);
    let one = |b: crate::session::Backend| {
        row(
            ACTIVITY,
            &[
                ("datid", Datum::Oid(database_oid(&b.database))),
                ("datname", text(&b.database)),
                ("pid", Datum::Int4(b.pid)),
                ("usesysid", Datum::Oid(role_oid(context.catalog, &b.user))),
                ("usename", text(&b.user)),
                ("application_name", text(&b.application)),
                ("backend_start", Datum::Timestamptz(b.started)),
                ("xact_start", time(b.transaction_start)),
                ("query_start", time(b.query_start)),
                ("state_change", time(b.state_change)),
                ("state", text(b.state)),
                ("query", text(b.query.unwrap_or_default())),
                ("backend_type", text("client backend")),
            ],
        )
    };
    Ok(backends(context.engine).into_iter().map(one).collect())
}

const LOCKS: Columns = &[
    ("locktype", Ty::Text),
    ("database", Ty::Oid),
    ("classid", Ty::Oid),
    ("objid", Ty::Oid),
    ("objsubid", Ty::Int2),
    ("pid", Ty::Int4),
    ("mode", Ty::Text),
    ("granted", Ty::Bool),
    ("fastpath", Ty::Bool),
];

fn locks(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for backend in backends(context.engine) {
        for lock in &backend.locks {
            rows.push(row(
                LOCKS,
                &[
                    ("locktype", text("advisory")),
                    ("database", Datum::Oid(database_oid(&backend.database))),
                    ("classid", Datum::Oid(lock.key.class)),
                    ("objid", Datum::Oid(lock.key.object)),
                    ("objsubid", Datum::Int2(lock.key.kind)),
                    ("pid", Datum::Int4(backend.pid)),
                    ("mode", text(lock.mode)),
                    ("granted", Datum::Bool(true)),
                    ("fastpath", Datum::Bool(false)),
                ],
            ));
        }
    }
    Ok(rows)
}

const DATABASE: Columns = &[("datid", Ty::Oid), ("datname", Ty::Name), ("numbackends", Ty::Int4)];

fn database(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let sessions = backends(context.engine);
    let one = |name: &str| {
        let count = sessions.iter().filter(|b| b.database == name).count();
        vec![
            Datum::Oid(database_oid(name)),
            text(name),
            Datum::Int4(i32::try_from(count).unwrap_or(i32::MAX)),
        ]
    };
    Ok(["postgres", "amphora"].into_iter().map(one).collect())
}

const TABLES: Columns =
    &[("relid", Ty::Oid), ("schemaname", Ty::Name), ("relname", Ty::Name), ("n_live_tup", Ty::Int8)];

fn tables(context: &SystemContext<'_>) -> Result<Vec<Row>> {
    let one = |table: &std::sync::Arc<amphora_storage::schema::Table>| {
        let known = context.catalog.statistics(table.id);
        let rows = known.map_or(Datum::Null, |s| Datum::Int8(s.rows.cast_signed()));
        vec![Datum::Oid(table.id.0), text(&table.schema), text(&table.name), rows]
    };
    Ok(context.catalog.tables().map(one).collect())
}

const BLOCKS: Columns = &[("relid", Ty::Oid), ("schemaname", Ty::Name), ("relname", Ty::Name)];

fn blocks(context: &SystemContext<'_>) -> Result<Vec<Row>> {
    let one = |table: &std::sync::Arc<amphora_storage::schema::Table>| {
        vec![Datum::Oid(table.id.0), text(&table.schema), text(&table.name)]
    };
    Ok(context.catalog.tables().map(one).collect())
}
