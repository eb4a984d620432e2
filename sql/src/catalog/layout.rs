//! What PostgreSQL's own catalogs look like: every relation of `pg_catalog` with its OID and all columns.
//!
//! Clients ask for columns by name and drivers join catalogs that Amphora has no use for, so each relation
//! exists with exactly PostgreSQL 15's columns, in their order. The files of this folder fill what is known, by
//! column name ([`super::row`]); what nobody fills is NULL, and a relation nobody defines has no rows.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use amphora_storage::DataType;

/// A relation of PostgreSQL's `pg_catalog`.
pub(super) struct Layout {
    pub(super) name: &'static str,
    pub(super) oid: u32,
    /// `r` or `v`
    pub(super) kind: char,
    pub(super) columns: Vec<(&'static str, DataType)>,
    /// Which columns are NOT NULL
    pub(super) not_null: Vec<bool>,
}

/// The relations by name.
pub(super) static LAYOUTS: LazyLock<BTreeMap<&'static str, Layout>> = LazyLock::new(|| {
    let lines = include_str!("layout.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(relation).map(|layout| (layout.name, layout)).collect()
});

fn relation(line: &'static str) -> Option<Layout> {
    let mut words = line.split(' ');
    let (name, oid) = (words.next()?, words.next()?.parse().ok()?);
    let kind = words.next()?.chars().next()?;
    let (mut columns, mut not_null) = (Vec::new(), Vec::new());
    for word in words {
        let (column, ty) = word.split_once(':')?;
        let plain = ty.strip_suffix('!');
        columns.push((column, data_type(plain.unwrap_or(ty))));
        not_null.push(plain.is_some());
    }
    Some(Layout { name, oid, kind, columns, not_null })
}

/// The type of a column, or the one that shows its values as PostgreSQL's does.
fn data_type(name: &str) -> DataType {
    if let Some(element) = name.strip_suffix("[]") {
        return data_type(element).array();
    }
    match name {
        "oid" | "xid" => DataType::Oid,
        "bigint" => DataType::Int8,
        "integer" => DataType::Int4,
        "smallint" => DataType::Int2,
        "boolean" => DataType::Bool,
        "name" => DataType::Name,
        "\"char\"" => DataType::InternalChar,
        "regproc" => DataType::Regproc,
        "regtype" => DataType::Regtype,
        "real" => DataType::Float4,
        "double_precision" => DataType::Float8,
        "numeric" => DataType::Numeric(None),
        "timestamp_with_time_zone" => DataType::Timestamptz(None),
        "interval" => DataType::Interval(None),
        "bytea" => DataType::Bytea,
        "int2vector" => DataType::Int2vector,
        "oidvector" => DataType::Oidvector,
        "anyarray" => DataType::Text.array(),
        // text, aclitem, inet, pg_lsn, pg_node_tree and the statistics' own
        _ => DataType::Text,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::catalog::system_views;

    #[test]
    fn every_relation_of_postgresql_is_there_with_its_columns() {
        assert_eq!(LAYOUTS.len(), 139);
        let class = &LAYOUTS["pg_class"];
        assert_eq!((class.oid, class.kind, class.columns.len()), (1259, 'r', 33));
        assert_eq!(class.columns[1], ("relname", DataType::Name));
        for view in system_views().iter().filter(|v| v.schema == "pg_catalog") {
            let layout =
                LAYOUTS.get(view.name).unwrap_or_else(|| panic!("{} is not PostgreSQL's", view.name));
            assert_eq!(view.oid, layout.oid, "{}", view.name);
            assert_eq!(view.columns[..view.visible], layout.columns, "{}", view.name);
        }
    }
}
