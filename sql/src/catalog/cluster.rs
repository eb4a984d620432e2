//! `amphora.*`: the cluster as this node knows it. Local and immediate: these views answer on a node that
//! has lost the quorum too, for that is when they are read.

use amphora_replication::Verification;
use amphora_storage::schema::Quorum;
use amphora_storage::{Datum, Row, Timestamp};

use super::{Columns, Definition, MakeRows, SystemContext, Ty, activity, row, text};
use crate::error::Result;

const fn ours(name: &'static str, oid: u32, columns: Columns, rows: MakeRows) -> Definition {
    Definition { schema: "amphora", name, oid, columns, laid_out: false, rows }
}

pub(super) const DEFINITIONS: &[Definition] = &[
    ours("nodes", 13_501, NODES, nodes),
    ours("tables", 13_502, TABLES, tables),
    ours("replication", 13_503, REPLICATION, replication),
    ours("raft", 13_504, RAFT, raft),
    ours("verification", 13_505, VERIFICATION, verification),
    ours("sessions", 13_506, activity::SESSIONS, activity::sessions),
    ours("conflicts", 13_507, super::conflicts::CONFLICTS, super::conflicts::conflicts),
    ours("conflict_counts", 13_508, super::conflicts::COUNTS, super::conflicts::counts),
];

const NODES: Columns = &[
    ("node_id", Ty::Int8),
    ("role", Ty::Text),
    ("state", Ty::Text),
    ("pg_address", Ty::Text),
    ("rpc_address", Ty::Text),
    ("http_address", Ty::Text),
    ("region", Ty::Text),
    ("version", Ty::Text),
    ("clock_skew_ms", Ty::Int8),
    ("leader_preference", Ty::Int4),
    ("leaderless", Ty::Text),
];

fn nodes(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let nodes = context.engine.status().nodes;
    Ok(nodes
        .iter()
        .map(|n| {
            vec![
                Datum::Int8(n.node_id as i64),
                text(n.role.as_str()),
                text(n.state.as_str()),
                text(&n.pg_address),
                text(&n.rpc_address),
                text(&n.http_address),
                text(&n.region),
                text(&n.version),
                Datum::Int8(n.clock_skew_ms),
                Datum::Int4(n.leader_preference),
                text(n.leaderless.as_str()),
            ]
        })
        .collect())
}

const TABLES: Columns = &[
    ("table_id", Ty::Oid),
    ("schema_name", Ty::Name),
    ("table_name", Ty::Name),
    ("mode", Ty::Text),
    ("write_quorum", Ty::Text),
    ("read_quorum", Ty::Text),
    ("size_bytes", Ty::Int8),
];

fn tables(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let sizes = context.engine.status().tables;
    let size = |id| sizes.iter().find(|t| t.table_id == id).map_or(0, |t| t.size_bytes as i64);
    Ok(context
        .catalog
        .tables()
        .map(|t| {
            // Quorums are a leaderless table's; a strong table's is always the majority.
            let quorum = |n: Quorum| if t.is_strong() { Datum::Null } else { text(n.to_string()) };
            row(
                TABLES,
                &[
                    ("table_id", Datum::Oid(t.id.0)),
                    ("schema_name", text(&t.schema)),
                    ("table_name", text(&t.name)),
                    ("mode", text(t.replication.as_str())),
                    ("write_quorum", quorum(t.write_quorum)),
                    ("read_quorum", quorum(t.read_quorum)),
                    ("size_bytes", Datum::Int8(size(t.id))),
                ],
            )
        })
        .collect())
}

const REPLICATION: Columns = &[
    ("node_id", Ty::Int8),
    ("mode", Ty::Text),
    ("lag", Ty::Int8),
    ("lag_bytes", Ty::Int8),
    ("lag_ms", Ty::Int8),
];

fn replication(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let peers = context.engine.status().replication;
    Ok(peers
        .iter()
        .map(|p| {
            vec![
                Datum::Int8(p.node_id as i64),
                text(&p.mode),
                Datum::Int8(p.lag as i64),
                Datum::Int8(p.lag_bytes as i64),
                Datum::Int8(p.lag_ms as i64),
            ]
        })
        .collect())
}

const RAFT: Columns = &[
    ("node_id", Ty::Int8),
    ("cluster_id", Ty::Uuid),
    ("term", Ty::Int8),
    ("leader", Ty::Int8),
    ("last_log_index", Ty::Int8),
    ("committed_index", Ty::Int8),
    ("applied_index", Ty::Int8),
    ("snapshot_index", Ty::Int8),
    ("purged_index", Ty::Int8),
    ("applied_at", Ty::Timestamptz),
];

/// Milliseconds from 1970 to 2000, where PostgreSQL's clock begins.
const POSTGRES_EPOCH_MS: i64 = 946_684_800_000;

/// When a commit was, by the clock; NULL if there was none.
pub(super) fn time_of(at: Timestamp) -> Datum {
    match at.millis() as i64 {
        0 => Datum::Null,
        ms => Datum::Timestamptz((ms - POSTGRES_EPOCH_MS) * 1000),
    }
}

fn raft(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let status = context.engine.status();
    let raft = status.raft;
    let int = |n: u64| Datum::Int8(n as i64);
    let applied_at = time_of(raft.applied_timestamp);
    Ok(vec![vec![
        int(context.engine.node_id()),
        Datum::uuid(*status.cluster_id.as_bytes()),
        int(raft.term),
        raft.leader.map_or(Datum::Null, int),
        int(raft.last_log_index),
        int(raft.committed_index),
        int(raft.applied_index),
        int(raft.snapshot_index),
        int(raft.purged_index),
        applied_at,
    ]])
}

const VERIFICATION: Columns = &[
    ("schema_name", Ty::Name),
    ("table_name", Ty::Name),
    ("object", Ty::Text),
    ("node_id", Ty::Int8),
    ("rows", Ty::Int8),
    ("checksum", Ty::Text),
    ("verdict", Ty::Text),
    ("detail", Ty::Text),
    ("verified_at", Ty::Timestamptz),
];

fn verification(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let found = context.engine.verifications();
    Ok(found
        .iter()
        .map(|one| {
            let mut row = vec![text(&one.schema_name), text(&one.table_name)];
            row.extend(verification_row(one));
            row.push(time_of(one.at));
            row
        })
        .collect())
}

/// What `amphora.verify_table` shows: object, node, rows, checksum, verdict, detail.
pub fn verification_row(one: &Verification) -> Row {
    vec![
        text(&one.object),
        Datum::Int8(one.node as i64),
        one.rows.map_or(Datum::Null, |n| Datum::Int8(n as i64)),
        one.checksum.as_ref().map_or(Datum::Null, text),
        text(one.verdict.as_str()),
        text(&one.detail),
    ]
}
