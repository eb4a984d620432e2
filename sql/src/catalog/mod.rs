//! System catalogs: `pg_catalog`, `information_schema` and `amphora`, as views computed when they are read.

use std::sync::Arc;

use amphora_replication::Engine;
use amphora_storage::schema::Catalog;
use amphora_storage::{DataType, Datum, Row};

use crate::error::Result;

/// What a view is computed from.
pub struct SystemContext<'a> {
    /// The tables, as the transaction sees them
    pub catalog: &'a Arc<Catalog>,
    /// The node
    pub engine: &'a dyn Engine,
    /// The session's user
    pub user: &'a str,
    /// The session's database
    pub database: &'a str,
    /// The session's settings, for `pg_settings`: (name, value, description)
    pub settings: &'a dyn Fn() -> Vec<(String, String, String)>,
}

/// A view over what the node knows.
pub struct SystemView {
    /// `pg_catalog`, `information_schema`, `amphora`
    pub schema: &'static str,
    /// Name
    pub name: &'static str,
    /// OID: PostgreSQL's own where it has the relation
    pub oid: u32,
    /// Columns
    pub columns: &'static [(&'static str, DataType)],
    /// Makes the rows. `equal` lists columns known to equal a constant: a view may use it to make fewer
    /// rows, the caller filters again anyway.
    pub rows: fn(&SystemContext<'_>, equal: &[(usize, Datum)]) -> Result<Vec<Row>>,
}

impl std::fmt::Debug for SystemView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SystemView({}.{})", self.schema, self.name)
    }
}

/// The view of this name. An unqualified name is looked for in `pg_catalog`.
pub fn system_view(schema: Option<&str>, name: &str) -> Option<&'static SystemView> {
    let schema = schema.unwrap_or("pg_catalog");
    VIEWS.iter().flat_map(|family| family.iter()).find(|v| v.schema == schema && v.name == name)
}

/// All views, by family.
static VIEWS: &[&[SystemView]] = &[];
