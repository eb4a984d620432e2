//! Tables, indexes and their columns: `pg_class`, `pg_attribute`, `pg_index`, `pg_constraint`, …

use amphora_storage::schema::{Identity, Index, Quorum, Table};
use amphora_storage::{DataType, Datum, Row};

use super::{
    Columns, Definition, POSTGRES_ROLE_OID, SystemContext, Ty, char, default_oid, int2s, nothing, oids, pg,
    role_oid, row, schema_oid, system_views, text, view_definition,
};
use crate::error::Result;

pub(super) const DEFINITIONS: &[Definition] = &[
    pg("pg_class", 1259, CLASS, class),
    pg("pg_attribute", 1249, ATTRIBUTE, attribute),
    pg("pg_attrdef", 2604, ATTRDEF, attrdef),
    pg("pg_index", 2610, INDEX, index),
    pg("pg_tables", 12_201, TABLES, tables),
    pg("pg_indexes", 12_211, INDEXES, indexes),
    pg("pg_views", 12_202, VIEWS, views),
    pg(
        "pg_inherits",
        2611,
        &[
            ("inhrelid", Ty::Oid),
            ("inhparent", Ty::Oid),
            ("inhseqno", Ty::Int4),
            ("inhdetachpending", Ty::Bool),
        ],
        nothing,
    ),
    pg(
        "pg_partitioned_table",
        3350,
        &[("partrelid", Ty::Oid), ("partstrat", Ty::Char), ("partnatts", Ty::Int2), ("partdefid", Ty::Oid)],
        nothing,
    ),
];

const CLASS: Columns = &[
    ("oid", Ty::Oid),
    ("relname", Ty::Name),
    ("relnamespace", Ty::Oid),
    ("reltype", Ty::Oid),
    ("reloftype", Ty::Oid),
    ("relowner", Ty::Oid),
    ("relam", Ty::Oid),
    ("relfilenode", Ty::Oid),
    ("reltablespace", Ty::Oid),
    ("relpages", Ty::Int4),
    ("reltuples", Ty::Float4),
    ("relallvisible", Ty::Int4),
    ("reltoastrelid", Ty::Oid),
    ("relhasindex", Ty::Bool),
    ("relisshared", Ty::Bool),
    ("relpersistence", Ty::Char),
    ("relkind", Ty::Char),
    ("relnatts", Ty::Int2),
    ("relchecks", Ty::Int2),
    ("relhasrules", Ty::Bool),
    ("relhastriggers", Ty::Bool),
    ("relhassubclass", Ty::Bool),
    ("relrowsecurity", Ty::Bool),
    ("relforcerowsecurity", Ty::Bool),
    ("relispopulated", Ty::Bool),
    ("relreplident", Ty::Char),
    ("relispartition", Ty::Bool),
    ("relrewrite", Ty::Oid),
    ("relfrozenxid", Ty::Oid),
    ("relminmxid", Ty::Oid),
    ("relacl", Ty::Texts),
    ("reloptions", Ty::Texts),
    ("relpartbound", Ty::Text),
];

/// The options of a leaderless table that are not what they are without being set.
fn table_options(table: &Table) -> Vec<String> {
    let quorums = [("write_quorum", table.write_quorum), ("read_quorum", table.read_quorum)];
    let set = quorums.into_iter().filter(|(_, quorum)| *quorum != Quorum::ONE);
    let replication = format!("replication={}", table.replication.as_str());
    [replication].into_iter().chain(set.map(|(name, quorum)| format!("{name}={quorum}"))).collect()
}

struct Relation<'a> {
    oid: u32,
    name: &'a str,
    schema: u32,
    owner: u32,
    kind: char,
    columns: usize,
    checks: usize,
    has_index: bool,
    /// Takes part in foreign keys, which are triggers in PostgreSQL; psql asks before it lists them
    has_triggers: bool,
    access_method: u32,
    options: Option<Vec<String>>,
    /// Rows; -1 if nobody has counted them
    rows: f32,
}

fn class_row(r: &Relation<'_>) -> Row {
    let no = Datum::Bool(false);
    let zero = Datum::Oid(0);
    let options = r
        .options
        .as_ref()
        .map_or(Datum::Null, |o| Datum::array(DataType::Text, o.iter().map(text).collect()));
    row(
        CLASS,
        &[
            ("oid", Datum::Oid(r.oid)),
            ("relname", text(r.name)),
            ("relnamespace", Datum::Oid(r.schema)),
            ("reltype", zero.clone()),
            ("reloftype", zero.clone()),
            ("relowner", Datum::Oid(r.owner)),
            ("relam", Datum::Oid(r.access_method)),
            ("relfilenode", Datum::Oid(r.oid)),
            ("reltablespace", zero.clone()),
            ("relpages", Datum::Int4(0)),
            ("reltuples", Datum::Float4(r.rows)),
            ("relallvisible", Datum::Int4(0)),
            ("reltoastrelid", zero.clone()),
            ("relhasindex", Datum::Bool(r.has_index)),
            ("relisshared", no.clone()),
            ("relpersistence", char('p')),
            ("relkind", char(r.kind)),
            ("relnatts", Datum::Int2(r.columns as i16)),
            ("relchecks", Datum::Int2(r.checks as i16)),
            ("relhasrules", no.clone()),
            ("relhastriggers", Datum::Bool(r.has_triggers)),
            ("relhassubclass", no.clone()),
            ("relrowsecurity", no.clone()),
            ("relforcerowsecurity", no.clone()),
            ("relispopulated", Datum::Bool(true)),
            ("relreplident", char('d')),
            ("relispartition", no),
            ("relrewrite", zero.clone()),
            ("relfrozenxid", zero.clone()),
            ("relminmxid", zero),
            ("reloptions", options),
        ],
    )
}

/// The columns of a sequence's row.
pub(super) const SEQUENCE_COLUMNS: [(&str, DataType); 3] =
    [("last_value", DataType::Int8), ("log_cnt", DataType::Int8), ("is_called", DataType::Bool)];

/// The indexes a user sees: all but a hidden primary key.
pub(super) fn visible_indexes(table: &Table) -> impl Iterator<Item = &Index> {
    table.all_indexes().skip(usize::from(table.hidden_key))
}

/// Access method OIDs: PostgreSQL's heap and btree, so that tools know what to make of them.
const HEAP: u32 = 2;
const BTREE: u32 = 403;
const GIN: u32 = 2742;

fn access_method(index: &Index) -> u32 {
    if index.is_of_elements() { GIN } else { BTREE }
}

fn namespace_of(context: &SystemContext<'_>, schema: &str) -> u32 {
    schema_oid(context.catalog, schema).unwrap_or(0)
}

fn class(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for view in context.catalog.views() {
        rows.push(class_row(&Relation {
            oid: view.id.0,
            name: &view.name,
            schema: namespace_of(context, &view.schema),
            owner: role_oid(context.catalog, &view.owner),
            kind: 'v',
            columns: view.columns.len(),
            checks: 0,
            has_index: false,
            has_triggers: false,
            access_method: 0,
            options: None,
            rows: -1.0,
        }));
    }
    for sequence in context.catalog.sequences() {
        rows.push(class_row(&Relation {
            oid: sequence.id.0,
            name: &sequence.name,
            schema: namespace_of(context, &sequence.schema),
            owner: role_oid(context.catalog, &sequence.owner),
            kind: 'S',
            columns: SEQUENCE_COLUMNS.len(),
            checks: 0,
            has_index: false,
            has_triggers: false,
            access_method: 0,
            options: None,
            rows: -1.0,
        }));
    }
    for table in context.catalog.tables() {
        let (schema, owner) = (namespace_of(context, &table.schema), role_oid(context.catalog, &table.owner));
        rows.push(class_row(&Relation {
            oid: table.id.0,
            name: &table.name,
            schema,
            owner,
            kind: 'r',
            columns: table.visible_columns().len(),
            checks: table.checks.len(),
            has_index: visible_indexes(table).next().is_some(),
            has_triggers: !table.foreign_keys.is_empty() || context.catalog.is_referenced(table.id),
            access_method: HEAP,
            options: (!table.is_strong()).then(|| table_options(table)),
            rows: context.catalog.statistics(table.id).map_or(-1.0, |s| s.rows as f32),
        }));
        for index in visible_indexes(table) {
            rows.push(class_row(&Relation {
                oid: index.oid,
                name: &index.name,
                schema,
                owner,
                kind: 'i',
                columns: index.columns.len() + index.include.len(),
                checks: 0,
                has_index: false,
                has_triggers: false,
                access_method: access_method(index),
                options: (!index.options.is_empty())
                    .then(|| index.options.iter().map(|(name, value)| format!("{name}={value}")).collect()),
                rows: -1.0,
            }));
        }
    }
    for view in system_views() {
        rows.push(class_row(&Relation {
            oid: view.oid,
            name: view.name,
            schema: namespace_of(context, view.schema),
            owner: POSTGRES_ROLE_OID,
            kind: view.kind,
            columns: view.visible,
            checks: 0,
            has_index: false,
            has_triggers: false,
            access_method: if view.kind == 'r' { HEAP } else { 0 },
            options: None,
            rows: -1.0,
        }));
    }
    Ok(rows)
}

const ATTRIBUTE: Columns = &[
    ("attrelid", Ty::Oid),
    ("attname", Ty::Name),
    ("atttypid", Ty::Oid),
    ("attstattarget", Ty::Int4),
    ("attlen", Ty::Int2),
    ("attnum", Ty::Int2),
    ("attndims", Ty::Int4),
    ("attcacheoff", Ty::Int4),
    ("atttypmod", Ty::Int4),
    ("attbyval", Ty::Bool),
    ("attalign", Ty::Char),
    ("attstorage", Ty::Char),
    ("attcompression", Ty::Char),
    ("attnotnull", Ty::Bool),
    ("atthasdef", Ty::Bool),
    ("atthasmissing", Ty::Bool),
    ("attidentity", Ty::Char),
    ("attgenerated", Ty::Char),
    ("attisdropped", Ty::Bool),
    ("attislocal", Ty::Bool),
    ("attinhcount", Ty::Int4),
    ("attcollation", Ty::Oid),
    ("attacl", Ty::Texts),
    ("attoptions", Ty::Texts),
    ("attfdwoptions", Ty::Texts),
    ("attmissingval", Ty::Texts),
];

/// Where `attgenerated` stands.
const GENERATED: usize = 17;

fn attribute_row(
    relation: u32,
    name: &str,
    number: usize,
    ty: &DataType,
    not_null: bool,
    default: bool,
    identity: Option<Identity>,
) -> Row {
    let no = Datum::Bool(false);
    let base = ty.base();
    let collation = if base.is_string() { super::objects::DEFAULT_COLLATION } else { 0 };
    row(
        ATTRIBUTE,
        &[
            ("attrelid", Datum::Oid(relation)),
            ("attname", text(name)),
            ("atttypid", Datum::Oid(ty.oid())),
            ("attstattarget", Datum::Int4(-1)),
            ("attlen", Datum::Int2(ty.len())),
            ("attnum", Datum::Int2(number as i16)),
            ("attndims", Datum::Int4(i32::from(matches!(base, DataType::Array(_))))),
            ("attcacheoff", Datum::Int4(-1)),
            ("atttypmod", Datum::Int4(ty.modifier())),
            ("attbyval", Datum::Bool(matches!(ty.len(), 1..=8))),
            ("attalign", char('i')),
            ("attstorage", char(storage_letter(&base))),
            ("attcompression", text("")),
            ("attnotnull", Datum::Bool(not_null)),
            ("atthasdef", Datum::Bool(default)),
            ("atthasmissing", no.clone()),
            ("attidentity", text(identity_letter(identity))),
            ("attgenerated", text("")),
            ("attisdropped", no),
            ("attislocal", Datum::Bool(true)),
            ("attinhcount", Datum::Int4(0)),
            ("attcollation", Datum::Oid(collation)),
        ],
    )
}

fn attribute(context: &SystemContext<'_>, equal: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let only = equal.iter().find(|(column, _)| *column == 0).and_then(|(_, v)| v.as_i64());
    let wanted = |oid: u32| only.is_none_or(|o| o == i64::from(oid));
    let mut rows = Vec::new();
    for table in context.catalog.tables() {
        if wanted(table.id.0) {
            for (i, column) in table.visible_columns().iter().enumerate() {
                let default =
                    column.default.is_some() && column.identity.is_none() || column.generated.is_some();
                let mut row = attribute_row(
                    table.id.0,
                    &column.name,
                    table.attribute_number(i) as usize,
                    &column.ty,
                    column.not_null,
                    default,
                    column.identity,
                );
                if column.generated.is_some() {
                    row[GENERATED] = text("s");
                }
                rows.push(row);
            }
        }
        for index in visible_indexes(table).filter(|i| wanted(i.oid)) {
            let mut names: Vec<String> = Vec::with_capacity(index.columns.len() + index.include.len());
            for (i, &column) in index.columns.iter().chain(&index.include).enumerate() {
                let (name, ty) = match index.expression(column) {
                    Some(expression) => (expression.name.as_str(), &expression.ty),
                    None => (table.columns[column].name.as_str(), &table.columns[column].ty),
                };
                let name = crate::binder::unused_name(name.to_owned(), &names);
                rows.push(attribute_row(index.oid, &name, i + 1, ty, false, false, None));
                names.push(name);
            }
        }
    }
    for view in context.catalog.views().filter(|v| wanted(v.id.0)) {
        for (i, (name, ty)) in view.columns.iter().enumerate() {
            rows.push(attribute_row(view.id.0, name, i + 1, ty, false, false, None));
        }
    }
    for sequence in context.catalog.sequences().filter(|s| wanted(s.id.0)) {
        for (i, (name, ty)) in SEQUENCE_COLUMNS.iter().enumerate() {
            rows.push(attribute_row(sequence.id.0, name, i + 1, ty, true, false, None));
        }
    }
    for view in system_views().iter().filter(|v| wanted(v.oid)) {
        for (i, (name, ty)) in view.columns.iter().take(view.visible).enumerate() {
            rows.push(attribute_row(view.oid, name, i + 1, ty, view.not_null[i], false, None));
        }
    }
    Ok(rows)
}

const ATTRDEF: Columns = &[("oid", Ty::Oid), ("adrelid", Ty::Oid), ("adnum", Ty::Int2), ("adbin", Ty::Text)];

fn attrdef(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for table in context.catalog.tables() {
        for (i, column) in table.visible_columns().iter().enumerate() {
            let default = column.default.as_ref().filter(|_| column.identity.is_none());
            if let Some(default) = default.or(column.generated.as_ref()) {
                rows.push(vec![
                    Datum::Oid(default_oid(table, i)),
                    Datum::Oid(table.id.0),
                    Datum::Int2(table.attribute_number(i)),
                    text(default),
                ]);
            }
        }
    }
    Ok(rows)
}

const INDEX: Columns = &[
    ("indexrelid", Ty::Oid),
    ("indrelid", Ty::Oid),
    ("indnatts", Ty::Int2),
    ("indnkeyatts", Ty::Int2),
    ("indisunique", Ty::Bool),
    ("indnullsnotdistinct", Ty::Bool),
    ("indisprimary", Ty::Bool),
    ("indisexclusion", Ty::Bool),
    ("indimmediate", Ty::Bool),
    ("indisclustered", Ty::Bool),
    ("indisvalid", Ty::Bool),
    ("indcheckxmin", Ty::Bool),
    ("indisready", Ty::Bool),
    ("indislive", Ty::Bool),
    ("indisreplident", Ty::Bool),
    ("indkey", Ty::Int2s),
    ("indcollation", Ty::Oids),
    ("indclass", Ty::Oids),
    ("indoption", Ty::Int2s),
    ("indexprs", Ty::Text),
    ("indpred", Ty::Text),
];

fn index(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for table in context.catalog.tables() {
        for index in visible_indexes(table) {
            let (yes, no) = (Datum::Bool(true), Datum::Bool(false));
            let n = index.columns.len();
            let number = |&c: &usize| if c < Index::EXPRESSION { table.attribute_number(c) } else { 0 };
            let option = |i: usize| {
                let order = index.order(i);
                i16::from(order.descending) | (i16::from(order.nulls_first) << 1)
            };
            let collation = |&c: &usize| match index.type_of(table, c) {
                Some(ty) if ty.base().is_string() => super::objects::DEFAULT_COLLATION,
                _ => 0,
            };
            let class = |(i, &c): (usize, &usize)| {
                let named = index.classes.get(i).and_then(Option::as_deref);
                let ty = index.type_of(table, c);
                match (named, ty) {
                    (Some(name), _) => super::seed::operator_class_by_name(name).unwrap_or(0),
                    (None, Some(ty)) => super::seed::default_operator_class(ty),
                    (None, None) => 0,
                }
            };
            let expressions: Vec<String> = index
                .columns
                .iter()
                .filter(|c| **c >= Index::EXPRESSION)
                .map(|&c| crate::index::expression_text(table, index, c, false))
                .collect();
            let expressions = (!expressions.is_empty()).then(|| text(expressions.join(", ")));
            let predicate = crate::index::predicate_text(table, index, false).map(text);
            rows.push(row(
                INDEX,
                &[
                    ("indexrelid", Datum::Oid(index.oid)),
                    ("indrelid", Datum::Oid(table.id.0)),
                    ("indnatts", Datum::Int2((n + index.include.len()) as i16)),
                    ("indnkeyatts", Datum::Int2(n as i16)),
                    ("indisunique", Datum::Bool(index.unique)),
                    ("indnullsnotdistinct", Datum::Bool(index.nulls_not_distinct)),
                    ("indisprimary", Datum::Bool(index.id == table.primary.id)),
                    ("indisexclusion", no.clone()),
                    ("indimmediate", Datum::Bool(!index.deferrable)),
                    ("indisclustered", Datum::Bool(index.clustered)),
                    ("indisvalid", yes.clone()),
                    ("indcheckxmin", no.clone()),
                    ("indisready", yes.clone()),
                    ("indislive", yes),
                    ("indisreplident", no),
                    ("indkey", int2s(index.columns.iter().chain(&index.include).map(number))),
                    ("indcollation", oids(index.columns.iter().map(collation))),
                    ("indclass", oids(index.columns.iter().enumerate().map(class))),
                    ("indoption", int2s((0..n).map(option))),
                    ("indexprs", expressions.unwrap_or(Datum::Null)),
                    ("indpred", predicate.unwrap_or(Datum::Null)),
                ],
            ));
        }
    }
    Ok(rows)
}

const TABLES: Columns = &[
    ("schemaname", Ty::Name),
    ("tablename", Ty::Name),
    ("tableowner", Ty::Name),
    ("tablespace", Ty::Name),
    ("hasindexes", Ty::Bool),
    ("hasrules", Ty::Bool),
    ("hastriggers", Ty::Bool),
    ("rowsecurity", Ty::Bool),
];

fn tables(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let no = Datum::Bool(false);
    let user = context.catalog.tables().map(|t| {
        let indexed = visible_indexes(t).next().is_some();
        (t.schema.as_str(), t.name.as_str(), t.owner.as_str(), indexed)
    });
    let system = system_views().iter().filter(|v| v.schema == "pg_catalog");
    let all = user.chain(system.map(|v| (v.schema, v.name, "postgres", false)));
    Ok(all
        .map(|(schema, name, owner, indexed)| {
            row(
                TABLES,
                &[
                    ("schemaname", text(schema)),
                    ("tablename", text(name)),
                    ("tableowner", text(owner)),
                    ("hasindexes", Datum::Bool(indexed)),
                    ("hasrules", no.clone()),
                    ("hastriggers", no.clone()),
                    ("rowsecurity", no.clone()),
                ],
            )
        })
        .collect())
}

const INDEXES: Columns = &[
    ("schemaname", Ty::Name),
    ("tablename", Ty::Name),
    ("indexname", Ty::Name),
    ("tablespace", Ty::Name),
    ("indexdef", Ty::Text),
];

fn indexes(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for table in context.catalog.tables() {
        for index in visible_indexes(table) {
            rows.push(row(
                INDEXES,
                &[
                    ("schemaname", text(&table.schema)),
                    ("tablename", text(&table.name)),
                    ("indexname", text(&index.name)),
                    ("indexdef", text(index_definition(table, index, false))),
                ],
            ));
        }
    }
    Ok(rows)
}

/// The statement that would make an index, as `pg_get_indexdef` prints it.
pub fn index_definition(table: &Table, index: &Index, pretty: bool) -> String {
    let unique = if index.unique { "UNIQUE " } else { "" };
    let columns: Vec<String> = (0..index.columns.len()).map(|i| index_key(table, index, i, pretty)).collect();
    let on = match pretty && table.schema == "public" {
        true => quoted(&table.name),
        false => format!("{}.{}", quoted(&table.schema), quoted(&table.name)),
    };
    let mut definition = format!(
        "CREATE {unique}INDEX {} ON {on} USING {} ({})",
        quoted(&index.name),
        index.method.as_str(),
        columns.join(", ")
    );
    if !index.include.is_empty() {
        definition.push_str(&format!(" INCLUDE ({})", column_list(table, &index.include)));
    }
    if index.nulls_not_distinct {
        definition.push_str(" NULLS NOT DISTINCT");
    }
    if !index.options.is_empty() {
        let options = index.options.iter().map(|(name, value)| format!("{name}='{value}'"));
        definition.push_str(&format!(" WITH ({})", options.collect::<Vec<_>>().join(", ")));
    }
    if let Some(predicate) = crate::index::predicate_text(table, index, pretty) {
        definition.push_str(&format!(" WHERE {predicate}"));
    }
    definition
}

/// One of the things that an index has, with its operator class and its order where they are not the usual ones.
fn index_key(table: &Table, index: &Index, place: usize, pretty: bool) -> String {
    let column = index.columns[place];
    let mut text = crate::index::key_text(table, index, column, pretty);
    if let Some(class) = index.classes.get(place).and_then(Option::as_deref)
        && let Some(ty) = index.type_of(table, column)
        && super::seed::operator_class_by_name(class) != Some(super::seed::default_operator_class(ty))
    {
        text.push_str(&format!(" {}", quoted(class)));
    }
    let order = index.order(place);
    text.push_str(match (order.descending, order.nulls_first) {
        (false, false) => "",
        (false, true) => " NULLS FIRST",
        (true, true) => " DESC",
        (true, false) => " DESC NULLS LAST",
    });
    text
}

/// One attribute of an index, as `pg_get_indexdef` with a number prints it.
pub fn index_attribute(table: &Table, index: &Index, place: usize, pretty: bool) -> Option<String> {
    let column = *index.columns.iter().chain(&index.include).nth(place)?;
    Some(crate::index::key_text(table, index, column, pretty))
}

/// Names of a table's columns, for a definition.
pub(super) fn column_list(table: &Table, columns: &[usize]) -> String {
    let names: Vec<String> = columns.iter().map(|&c| quoted(&table.columns[c].name)).collect();
    names.join(", ")
}

/// An identifier as SQL needs it: in quotes where it is not plain lower case.
pub fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

const VIEWS: Columns =
    &[("schemaname", Ty::Name), ("viewname", Ty::Name), ("viewowner", Ty::Name), ("definition", Ty::Text)];

fn views(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let users = context.catalog.views().map(|v| {
        let definition = context.names.map(|names| view_definition(context.catalog, names, v));
        vec![text(&v.schema), text(&v.name), text(&v.owner), definition.map_or(Datum::Null, text)]
    });
    let systems = system_views().iter().filter(|v| v.schema != "pg_catalog");
    let systems = systems.map(|v| vec![text(v.schema), text(v.name), text("postgres"), Datum::Null]);
    Ok(users.chain(systems).collect())
}

/// `attstorage`: what PostgreSQL's TOAST would do with values of the type.
fn storage_letter(ty: &DataType) -> char {
    match ty {
        DataType::Numeric(_) => 'm',
        ty if ty.len() < 0 => 'x',
        _ => 'p',
    }
}

/// `attidentity`
fn identity_letter(identity: Option<Identity>) -> &'static str {
    match identity {
        None => "",
        Some(Identity::Always) => "a",
        Some(Identity::ByDefault) => "d",
    }
}
