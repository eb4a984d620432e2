//! Sequences: `pg_sequence`, `pg_sequences`, `information_schema.sequences`.

use std::sync::Arc;

use amphora_storage::schema::Sequence;
use amphora_storage::{DataType, Datum, Row};

use super::information_schema::info;
use super::seed::PROCS;
use super::{
    AMPHORA_SCHEMA_OID, Columns, Definition, POSTGRES_ROLE_OID, SystemContext, Ty, char, default_oid, pg,
    row, system_views, text,
};
use crate::dependency::sequences_of_default;
use crate::error::Result;
use crate::executor::wait_for;

pub(super) const DEFINITIONS: &[Definition] = &[
    pg("pg_sequence", 2224, SEQUENCE, sequence),
    pg("pg_sequences", 12_204, SEQUENCES, sequences),
    info("sequences", 13_017, STANDARD, standard),
];

const SEQUENCE: Columns = &[
    ("seqrelid", Ty::Oid),
    ("seqtypid", Ty::Oid),
    ("seqstart", Ty::Int8),
    ("seqincrement", Ty::Int8),
    ("seqmax", Ty::Int8),
    ("seqmin", Ty::Int8),
    ("seqcache", Ty::Int8),
    ("seqcycle", Ty::Bool),
];

fn sequence(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let one = |s: &Arc<Sequence>| {
        vec![
            Datum::Oid(s.id.0),
            Datum::Oid(s.ty.oid()),
            Datum::Int8(s.start),
            Datum::Int8(s.increment),
            Datum::Int8(s.max),
            Datum::Int8(s.min),
            Datum::Int8(s.cache),
            Datum::Bool(s.cycle),
        ]
    };
    Ok(context.catalog.sequences().map(one).collect())
}

const SEQUENCES: Columns = &[
    ("schemaname", Ty::Name),
    ("sequencename", Ty::Name),
    ("sequenceowner", Ty::Name),
    ("data_type", Ty::Oid),
    ("start_value", Ty::Int8),
    ("min_value", Ty::Int8),
    ("max_value", Ty::Int8),
    ("increment_by", Ty::Int8),
    ("cycle", Ty::Bool),
    ("cache_size", Ty::Int8),
    ("last_value", Ty::Int8),
];

fn sequences(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let one = |s: &Arc<Sequence>| {
        let source = context.txn.sequences();
        let (state, _) = wait_for(async { source.read(s).await.map_err(Into::into) })?;
        Ok(row(
            SEQUENCES,
            &[
                ("schemaname", text(&s.schema)),
                ("sequencename", text(&s.name)),
                ("sequenceowner", text(&s.owner)),
                ("data_type", Datum::Oid(s.ty.oid())),
                ("start_value", Datum::Int8(s.start)),
                ("min_value", Datum::Int8(s.min)),
                ("max_value", Datum::Int8(s.max)),
                ("increment_by", Datum::Int8(s.increment)),
                ("cycle", Datum::Bool(s.cycle)),
                ("cache_size", Datum::Int8(s.cache)),
                ("last_value", if state.called { Datum::Int8(state.last) } else { Datum::Null }),
            ],
        ))
    };
    context.catalog.sequences().map(one).collect()
}

const STANDARD: Columns = &[
    ("sequence_catalog", Ty::Name),
    ("sequence_schema", Ty::Name),
    ("sequence_name", Ty::Name),
    ("data_type", Ty::Text),
    ("numeric_precision", Ty::Int4),
    ("numeric_precision_radix", Ty::Int4),
    ("numeric_scale", Ty::Int4),
    ("start_value", Ty::Text),
    ("minimum_value", Ty::Text),
    ("maximum_value", Ty::Text),
    ("increment", Ty::Text),
    ("cycle_option", Ty::Text),
];

fn standard(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let one = |s: &Arc<Sequence>| {
        let bits = match s.ty {
            DataType::Int2 => 16,
            DataType::Int4 => 32,
            _ => 64,
        };
        let number = |n: i64| text(n.to_string());
        row(
            STANDARD,
            &[
                ("sequence_catalog", text(context.database)),
                ("sequence_schema", text(&s.schema)),
                ("sequence_name", text(&s.name)),
                ("data_type", text(s.ty.to_string())),
                ("numeric_precision", Datum::Int4(bits)),
                ("numeric_precision_radix", Datum::Int4(2)),
                ("numeric_scale", Datum::Int4(0)),
                ("start_value", number(s.start)),
                ("minimum_value", number(s.min)),
                ("maximum_value", number(s.max)),
                ("increment", number(s.increment)),
                ("cycle_option", text(if s.cycle { "YES" } else { "NO" })),
            ],
        )
    };
    // The standard's view leaves out what belongs to an identity column.
    let identity = |s: &&Arc<Sequence>| {
        s.owned_by.is_some_and(|(table, column)| {
            let table = context.catalog.table_by_id(table);
            let column = table.and_then(|t| t.columns.iter().find(|c| c.id == column));
            column.is_some_and(|c| c.identity.is_some())
        })
    };
    Ok(context.catalog.sequences().filter(|s| !identity(s)).map(one).collect())
}

/// `pg_depend`, as far as tools ask for it: which column owns a sequence, which index is a constraint's, and
/// which index a foreign key refers to.
pub(super) fn dependencies(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let mut rows = of_amphora();
    for sequence in context.catalog.sequences() {
        let Some((table, column)) = sequence.owned_by else { continue };
        let Some(table) = context.catalog.table_by_id(table) else { continue };
        let Some(position) = table.columns.iter().position(|c| c.id == column) else { continue };
        let kind = if table.columns[position].identity.is_some() { 'i' } else { 'a' };
        rows.push(vec![
            Datum::Oid(PG_CLASS),
            Datum::Oid(sequence.id.0),
            Datum::Int4(0),
            Datum::Oid(PG_CLASS),
            Datum::Oid(table.id.0),
            Datum::Int4(i32::from(table.attribute_number(position))),
            char(kind),
        ]);
    }
    for table in context.catalog.tables() {
        // A default depends on the sequences that it names: a dump sets it after it has made them.
        for (i, column) in table.columns.iter().enumerate().filter(|(_, c)| c.identity.is_none()) {
            let sequences = column.default.iter().flat_map(|default| sequences_of_default(default));
            rows.extend(
                sequences.map(|id| dependency((PG_ATTRDEF, default_oid(table, i)), (PG_CLASS, id.0), 'n')),
            );
        }
        let constraints = table.all_indexes().filter(|i| i.constraint);
        // The index depends on its constraint, whose OID it shares.
        rows.extend(constraints.map(|i| dependency((PG_CLASS, i.oid), (PG_CONSTRAINT, i.oid), 'i')));
        for key in &table.foreign_keys {
            let parent = context.catalog.table_by_id(key.parent);
            let index = parent.and_then(|parent| super::referenced_index(parent, key));
            rows.extend(index.map(|i| dependency((PG_CONSTRAINT, key.oid), (PG_CLASS, i.oid), 'n')));
        }
    }
    Ok(rows)
}

/// What every database has in schema `amphora` belongs to an extension, so that pg_dump leaves it out.
fn of_amphora() -> Vec<Row> {
    let schema = std::iter::once((PG_NAMESPACE, AMPHORA_SCHEMA_OID));
    let views = system_views().iter().filter(|v| v.schema == "amphora").map(|v| (PG_CLASS, v.oid));
    let functions = PROCS.iter().filter(|p| p.oid("pronamespace") == AMPHORA_SCHEMA_OID);
    let functions = functions.map(|p| (PG_PROC, p.oid("oid")));
    let members = schema.chain(views).chain(functions);
    members.map(|member| dependency(member, (PG_EXTENSION, AMPHORA_SCHEMA_OID), 'e')).collect()
}

/// `pg_extension`: Amphora itself.
pub(super) fn extensions(_: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    Ok(vec![vec![
        Datum::Oid(AMPHORA_SCHEMA_OID),
        text("amphora"),
        Datum::Oid(POSTGRES_ROLE_OID),
        Datum::Oid(AMPHORA_SCHEMA_OID),
        Datum::Bool(false),
        text(env!("CARGO_PKG_VERSION")),
    ]])
}

/// OIDs of catalogs.
const PG_ATTRDEF: u32 = 2604;
const PG_NAMESPACE: u32 = 2615;
pub(super) const PG_PROC: u32 = 1255;
pub(super) const PG_EXTENSION: u32 = 3079;

/// One whole object depends on another.
fn dependency((class, object): (u32, u32), (on_class, on): (u32, u32), kind: char) -> Row {
    vec![
        Datum::Oid(class),
        Datum::Oid(object),
        Datum::Int4(0),
        Datum::Oid(on_class),
        Datum::Oid(on),
        Datum::Int4(0),
        char(kind),
    ]
}

/// OID of `pg_constraint`.
const PG_CONSTRAINT: u32 = 2606;
/// OID of `pg_class`.
const PG_CLASS: u32 = 1259;
