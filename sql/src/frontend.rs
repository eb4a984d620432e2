//! From text to a [`Prepared`] statement: parse, bind, optimize.
//!
//! ```text
//!   parse ──► [ParsedStatement]        syntax only; needs no catalog, done once per text
//!                   │
//!   prepare ────────┴──► Prepared      names, types, plan; good until a table it uses changes
//! ```

use std::sync::Arc;

use amphora_replication::Engine;
use amphora_storage::DataType;
use amphora_storage::schema::{Catalog, TableId};

pub use crate::parser::{ParsedStatement, parse};

use crate::error::Result;
use crate::plan::Prepared;
use crate::types::FormatContext;
use crate::{binder, optimizer, parser};

/// What a statement is bound against.
#[derive(Clone, Debug)]
pub struct PlannerContext {
    /// The tables
    pub catalog: Arc<Catalog>,
    /// Schemas in which unqualified names are looked for, in order; `pg_catalog` is searched before
    /// them whether it is named or not
    pub search_path: Vec<String>,
    /// Types of `$1 …` as far as the client gave them; `None` is inferred
    pub parameters: Vec<Option<DataType>>,
    /// Time zone and names for literals
    pub format: FormatContext,
    /// Which operators the session wants
    pub options: PlannerOptions,
    /// How large tables are
    pub sizes: TableSizes,
}

/// Which operators the planner may use, where it has a choice: PostgreSQL's `enable_…` settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannerOptions {
    /// `enable_hashjoin`
    pub hashjoin: bool,
    /// `enable_mergejoin`
    pub mergejoin: bool,
    /// `enable_nestloop`
    pub nestloop: bool,
    /// `enable_indexscan`
    pub indexscan: bool,
    /// `enable_indexonlyscan`
    pub indexonlyscan: bool,
    /// `enable_seqscan`
    pub seqscan: bool,
    /// `enable_sort`
    pub sort: bool,
    /// `enable_hashagg`
    pub hashagg: bool,
    /// Bytes that an operator holds before it uses files: `work_mem`
    pub work_memory: usize,
}

impl Default for PlannerOptions {
    fn default() -> PlannerOptions {
        PlannerOptions {
            hashjoin: true,
            mergejoin: true,
            nestloop: true,
            indexscan: true,
            indexonlyscan: true,
            seqscan: true,
            sort: true,
            hashagg: true,
            work_memory: 32 << 20,
        }
    }
}

/// The sizes of tables on this node.
#[derive(Clone, Default)]
pub struct TableSizes(Option<Arc<dyn Engine>>);

impl TableSizes {
    /// As this node knows them.
    pub fn new(engine: Arc<dyn Engine>) -> TableSizes {
        TableSizes(Some(engine))
    }

    /// Bytes of a table, about; `None` if nobody knows.
    pub fn of(&self, table: TableId) -> Option<u64> {
        self.0.as_ref().and_then(|engine| engine.table_size(table))
    }
}

impl std::fmt::Debug for TableSizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TableSizes")
    }
}

impl PlannerContext {
    /// A context with PostgreSQL's default search path and no parameter types.
    pub fn new(catalog: Arc<Catalog>) -> PlannerContext {
        PlannerContext {
            catalog,
            search_path: vec!["public".into()],
            parameters: Vec::new(),
            format: FormatContext::default(),
            options: PlannerOptions::default(),
            sizes: TableSizes::default(),
        }
    }
}

/// Binds and plans one statement.
pub fn prepare(statement: &ParsedStatement, context: &PlannerContext) -> Result<Prepared> {
    parser::with_enough_stack(statement.is_deep(), || {
        let bound = binder::bind(statement, context)?;
        optimizer::optimize(bound, context)
    })
}
