//! From text to a [`Prepared`] statement: parse, bind, optimize.
//!
//! ```text
//!   parse ──► [ParsedStatement]        syntax only; needs no catalog, done once per text
//!                   │
//!   prepare ────────┴──► Prepared      names, types, plan; good until a table it uses changes
//! ```

use std::sync::Arc;

use amphora_storage::DataType;
use amphora_storage::schema::Catalog;

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
}

impl PlannerContext {
    /// A context with PostgreSQL's default search path and no parameter types.
    pub fn new(catalog: Arc<Catalog>) -> PlannerContext {
        PlannerContext {
            catalog,
            search_path: vec!["public".into()],
            parameters: Vec::new(),
            format: FormatContext::default(),
        }
    }
}

/// Binds and plans one statement.
pub fn prepare(statement: &ParsedStatement, context: &PlannerContext) -> Result<Prepared> {
    parser::with_enough_stack(statement.is_deep(), || {
        let bound = binder::bind(statement, context)?;
        optimizer::optimize(bound)
    })
}
