//! Prepared statements and portals.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use amphora_storage::schema::Catalog;
use amphora_storage::{DataType, Datum, Row};
use parking_lot::Mutex;

use crate::executor::Query;
use crate::frontend::ParsedStatement;
use crate::plan::{Field, Prepared};

/// Simple-query texts whose trees and plans are kept.
const MAX_TEXTS: usize = 64;

/// Texts longer than this are not kept.
const MAX_TEXT: usize = 4096;

/// A statement, parsed, with its plan while that is good.
pub(super) struct PreparedStatement {
    /// `None` for an empty string
    pub(super) parsed: Option<ParsedStatement>,
    /// Parameter types that the client gave
    pub(super) declared: Vec<Option<DataType>>,
    plan: Mutex<Option<CachedPlan>>,
}

struct CachedPlan {
    catalog: Arc<Catalog>,
    /// The settings' generation: time zone and search path are part of a plan
    generation: u64,
    prepared: Arc<Prepared>,
    took: Duration,
}

impl PreparedStatement {
    pub(super) fn new(parsed: Option<ParsedStatement>, declared: Vec<Option<DataType>>) -> PreparedStatement {
        PreparedStatement { parsed, declared, plan: Mutex::new(None) }
    }

    /// The plan, if it was made against this catalog and these settings.
    pub(super) fn cached(&self, catalog: &Arc<Catalog>, generation: u64) -> Option<Arc<Prepared>> {
        let plan = self.plan.lock();
        let plan = plan.as_ref()?;
        (plan.generation == generation && Arc::ptr_eq(&plan.catalog, catalog)).then(|| plan.prepared.clone())
    }

    /// The last plan, however old: what parameters were described as.
    pub(super) fn last(&self) -> Option<Arc<Prepared>> {
        self.plan.lock().as_ref().map(|p| p.prepared.clone())
    }

    /// How long the last planning took.
    pub(super) fn planning_time(&self) -> Duration {
        self.plan.lock().as_ref().map_or(Duration::ZERO, |p| p.took)
    }

    pub(super) fn store(
        &self,
        catalog: Arc<Catalog>,
        generation: u64,
        prepared: Arc<Prepared>,
        took: Duration,
    ) {
        *self.plan.lock() = Some(CachedPlan { catalog, generation, prepared, took });
    }
}

/// A statement with its parameters, ready to run or running.
pub(super) struct Portal {
    pub(super) statement: Arc<PreparedStatement>,
    pub(super) params: Arc<[Datum]>,
    pub(super) formats: Arc<[i16]>,
    /// The columns it was described with
    pub(super) schema: Arc<[Field]>,
    pub(super) state: PortalState,
}

/// How far a portal has come.
pub(super) enum PortalState {
    Ready,
    /// Rows are pulled from a query
    Running(Box<Query>, Vec<Row>),
    /// All was done, and the rows it gave are being shown
    Buffered {
        rows: std::vec::IntoIter<Row>,
        tag: String,
    },
    Done,
}

/// The statements of texts seen lately.
#[derive(Default)]
pub(super) struct TextCache {
    texts: HashMap<Arc<str>, Arc<[Arc<PreparedStatement>]>>,
    order: VecDeque<Arc<str>>,
}

impl TextCache {
    pub(super) fn get(&self, sql: &str) -> Option<Arc<[Arc<PreparedStatement>]>> {
        self.texts.get(sql).cloned()
    }

    pub(super) fn put(&mut self, sql: &str, statements: Arc<[Arc<PreparedStatement>]>) {
        if sql.len() > MAX_TEXT || self.texts.contains_key(sql) {
            return;
        }
        if self.order.len() >= MAX_TEXTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.texts.remove(&oldest);
        }
        let text: Arc<str> = Arc::from(sql);
        self.order.push_back(text.clone());
        self.texts.insert(text, statements);
    }
}
