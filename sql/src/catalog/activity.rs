//! What goes on: `pg_stat_activity`, `pg_locks`, and statistics as far as they are kept.
//!
//! Sessions and their advisory locks are those of all nodes that answer within two seconds; whoever does not is named in a
//! warning. What is counted is the node's own, and what is not counted reads as NULL.

use amphora_replication::sessions::SessionInfo;
use amphora_storage::{Datum, Row};

use super::{Columns, Definition, SystemContext, Ty, find_role, pg, role_oid, row, text};
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
    ("leader_pid", Ty::Int4),
    ("usesysid", Ty::Oid),
    ("usename", Ty::Name),
    ("application_name", Ty::Text),
    ("client_hostname", Ty::Text),
    ("client_port", Ty::Int4),
    ("backend_start", Ty::Timestamptz),
    ("xact_start", Ty::Timestamptz),
    ("query_start", Ty::Timestamptz),
    ("state_change", Ty::Timestamptz),
    ("wait_event_type", Ty::Text),
    ("wait_event", Ty::Text),
    ("state", Ty::Text),
    ("query_id", Ty::Int8),
    ("query", Ty::Text),
    ("backend_type", Ty::Text),
];

/// A session as its own role and superusers see it, and as others do: who is there, but not what it does.
fn shown(context: &SystemContext<'_>, session: SessionInfo) -> SessionInfo {
    let superuser = || find_role(context.catalog, context.user).is_some_and(|me| me.superuser);
    if session.user == context.user || superuser() {
        return session;
    }
    let SessionInfo { node, pid, user, database, application, .. } = session;
    let query = Some("<insufficient privilege>".to_owned());
    SessionInfo { node, pid, user, database, application, query, ..SessionInfo::default() }
}

fn time(t: Option<i64>) -> Datum {
    t.map_or(Datum::Null, Datum::Timestamptz)
}

/// What is hidden is empty, or 0.
fn unless_empty(s: &str) -> Datum {
    if s.is_empty() { Datum::Null } else { text(s) }
}

fn activity(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let one = |session: SessionInfo| {
        let s = shown(context, session);
        let hidden = s.state.is_empty();
        row(
            ACTIVITY,
            &[
                ("datid", Datum::Oid(database_oid(&s.database))),
                ("datname", text(&s.database)),
                ("pid", Datum::Int4(s.pid)),
                ("usesysid", Datum::Oid(role_oid(context.catalog, &s.user))),
                ("usename", text(&s.user)),
                ("application_name", text(&s.application)),
                ("backend_start", time((!hidden).then_some(s.started))),
                ("xact_start", time(s.transaction_start)),
                ("query_start", time(s.query_start)),
                ("state_change", time(s.state_change)),
                ("state", unless_empty(&s.state)),
                ("query", text(s.query.unwrap_or_default())),
                ("backend_type", if hidden { Datum::Null } else { text("client backend") }),
            ],
        )
    };
    Ok(context.session.sessions()?.into_iter().map(one).collect())
}

pub(super) const SESSIONS: Columns = &[
    ("node_id", Ty::Int8),
    ("pid", Ty::Int4),
    ("user_name", Ty::Name),
    ("database_name", Ty::Name),
    ("application_name", Ty::Text),
    ("started_at", Ty::Timestamptz),
    ("transaction_started_at", Ty::Timestamptz),
    ("query_started_at", Ty::Timestamptz),
    ("state", Ty::Text),
    ("query", Ty::Text),
];

/// `amphora.sessions`: the same, and on which node each is.
pub(super) fn sessions(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let one = |session: SessionInfo| {
        let s = shown(context, session);
        vec![
            Datum::Int8(s.node.cast_signed()),
            Datum::Int4(s.pid),
            text(&s.user),
            text(&s.database),
            text(&s.application),
            time((!s.state.is_empty()).then_some(s.started)),
            time(s.transaction_start),
            time(s.query_start),
            unless_empty(&s.state),
            text(s.query.unwrap_or_default()),
        ]
    };
    Ok(context.session.sessions()?.into_iter().map(one).collect())
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
    for session in context.session.sessions()? {
        for lock in &session.locks {
            rows.push(row(
                LOCKS,
                &[
                    ("locktype", text("advisory")),
                    ("database", Datum::Oid(database_oid(&session.database))),
                    ("classid", Datum::Oid(lock.class)),
                    ("objid", Datum::Oid(lock.object)),
                    ("objsubid", Datum::Int2(lock.kind)),
                    ("pid", Datum::Int4(session.pid)),
                    ("mode", text(if lock.shared { "ShareLock" } else { "ExclusiveLock" })),
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
