//! How new the rows are that a statement reads: `amphora.max_staleness`, AS OF SYSTEM TIME and `amphora.token`.
//!
//! What counts for a statement, the first that there is: its own AS OF SYSTEM TIME, its transaction's, its hint,
//! `amphora.max_staleness`. The bounds are for statements that only read. Whoever writes or locks reads what is
//! newest; in a transaction with one snapshot that is the snapshot of its first statement, however old, and what it
//! writes is certified against it.

use std::sync::Arc;
use std::time::Duration;

use amphora_replication::{ReadMode, Token};
use amphora_storage::datum::Interval;
use amphora_storage::{DataType, Datum, Timestamp};

use super::Session;
use super::statement::Job;
use super::transaction::Block;
use crate::copy::Direction;
use crate::error::{Result, SqlError};
use crate::executor::LockedQuery;
use crate::plan::{Prepared, Statement};
use crate::types::{self, CastContext, FormatContext};

const TIMESTAMPTZ: DataType = DataType::Timestamptz(None);

/// Seconds from 1970 to 2000.
const EPOCH: i64 = 946_684_800;

impl Session {
    /// How the statement reads, and what it must see.
    pub(super) fn reads(&mut self, job: &Job, prepared: &Prepared) -> Result<(ReadMode, Option<Arc<Token>>)> {
        let (bound, token) = {
            let settings = self.shared.settings.lock();
            let effective = settings.effective();
            (effective.max_staleness, effective.token.clone())
        };
        let hint = job.statement.parsed.as_ref().and_then(|p| p.staleness());
        let mode = match (&prepared.as_of, self.tx.as_of) {
            (Some(_), _) => ReadMode::AsOf(self.statement_time(job, prepared)?),
            (None, at) => mode_of(at, hint.unwrap_or(bound)),
        };
        match mode {
            ReadMode::Stale(_) if !only_reads(&prepared.statement, prepared) => {
                Ok((ReadMode::Linearizable, token))
            }
            ReadMode::AsOf(_) => match prepared.tables.iter().find(|table| !table.is_strong()) {
                Some(table) => Err(SqlError::feature_not_supported(format!(
                    "AS OF SYSTEM TIME is not supported for leaderless table \"{}\"",
                    table.name
                ))
                .with_hint("Leaderless tables keep no history. Read them in a statement of their own.")),
                None => Ok((mode, token)),
            },
            mode => Ok((mode, token)),
        }
    }

    /// How a statement with this hint reads, if it only reads and says nothing else of it.
    pub(super) fn wanted_mode(&self, hint: Option<Duration>) -> ReadMode {
        let bound = hint.unwrap_or_else(|| self.shared.settings.lock().effective().max_staleness);
        mode_of(self.tx.as_of, bound)
    }

    /// `SHOW amphora.token`: all that this session has seen and written, and what it follows.
    pub(super) async fn token(&mut self) -> Result<String> {
        let mut token = self.shared.engine.token().await?;
        if let Some(followed) = &self.shared.settings.lock().effective().token {
            token.join(followed);
        }
        Ok(token.to_string())
    }

    /// The time of a statement's AS OF SYSTEM TIME.
    fn statement_time(&mut self, job: &Job, prepared: &Prepared) -> Result<Timestamp> {
        if !only_reads(&prepared.statement, prepared) {
            return Err(SqlError::feature_not_supported(
                "AS OF SYSTEM TIME is for statements that only read",
            ));
        }
        let in_block = self.tx.block == Block::Explicit;
        if in_block && (self.tx.as_of.is_some() || self.isolation().has_one_snapshot()) {
            return Err(SqlError::feature_not_supported(
                "AS OF SYSTEM TIME of a statement is not supported in a transaction with one snapshot",
            )
            .with_hint("Use SET TRANSACTION AS OF SYSTEM TIME before the first query."));
        }
        let run = self.runtime(&job.params, None);
        let txn = self.shared.engine.begin(Default::default());
        let values = crate::executor::constants(prepared.as_of.as_slice(), &run, txn.as_ref())?;
        let ty = prepared.as_of.as_ref().map(|expr| expr.ty());
        match (values.first(), ty) {
            (Some(value), Some(ty)) => self.time_of(value, &ty, &run.eval.format),
            _ => Err(SqlError::internal("AS OF SYSTEM TIME without a time")),
        }
    }

    /// The timestamp of a moment: a time, or an interval from the beginning of the transaction.
    fn time_of(&self, value: &Datum, ty: &DataType, format: &FormatContext) -> Result<Timestamp> {
        match value {
            Datum::Null => Err(SqlError::new("22004", "AS OF SYSTEM TIME: the time must not be null")),
            Datum::Text(_) => self.time_of_text(&types::to_text(value, ty, format), format),
            Datum::Interval(interval) => self.ago(interval, format),
            value => self.past(&types::cast(value, ty, &TIMESTAMPTZ, CastContext::Explicit, format)?),
        }
    }

    /// As [`Session::time_of`], of `'2026-11-21 12:00:00+00'` or `'-10s'`.
    pub(super) fn time_of_text(&self, text: &str, format: &FormatContext) -> Result<Timestamp> {
        match (types::parse_timestamptz(text, format), types::parse_interval(text)) {
            (Ok(time), _) => self.past(&Datum::Timestamptz(time)),
            (Err(_), Ok(interval)) => self.ago(&interval, format),
            (Err(error), Err(_)) => Err(error),
        }
    }

    fn ago(&self, interval: &Interval, format: &FormatContext) -> Result<Timestamp> {
        let time = crate::functions::add_interval(self.tx.started, interval, Some(&format.timezone))?;
        self.past(&Datum::Timestamptz(time))
    }

    /// 22023 for the future.
    fn past(&self, time: &Datum) -> Result<Timestamp> {
        let Datum::Timestamptz(micros) = time else {
            return Err(SqlError::internal("a time of another type"));
        };
        if *micros > types::current_timestamp().max(self.tx.started) {
            return Err(SqlError::invalid_parameter_value(
                "AS OF SYSTEM TIME: cannot specify a time in the future",
            )
            .with_hint("Name a time that has passed, or an interval like '-10s'."));
        }
        let millis = micros.div_euclid(1000).saturating_add(EPOCH * 1000);
        // All that was committed in that millisecond.
        Ok(Timestamp(Timestamp::from_millis(u64::try_from(millis).unwrap_or(0)).0 | 0xffff))
    }
}

fn mode_of(as_of: Option<Timestamp>, bound: Duration) -> ReadMode {
    match as_of {
        Some(at) => ReadMode::AsOf(at),
        None if bound.is_zero() => ReadMode::Linearizable,
        None => ReadMode::Stale(bound),
    }
}

/// True of what neither writes nor locks.
fn only_reads(statement: &Statement, prepared: &Prepared) -> bool {
    prepared.writes.is_empty()
        && prepared.locks.is_empty()
        && match statement {
            Statement::Query(plan) => !LockedQuery::is_needed(plan),
            Statement::Explain(explain) => only_reads(&explain.statement, prepared),
            Statement::Copy(copy) => matches!(copy.direction, Direction::To(_)),
            _ => false,
        }
}

/// A read mode as EXPLAIN shows it.
pub(super) fn shown(mode: ReadMode) -> String {
    match mode {
        ReadMode::Linearizable => "linearizable".to_owned(),
        ReadMode::Stale(Duration::MAX) => "stale (any)".to_owned(),
        ReadMode::Stale(bound) => format!("stale (at most {bound:?})"),
        ReadMode::AsOf(at) => {
            let micros = i64::try_from(at.millis()).unwrap_or(i64::MAX).saturating_sub(EPOCH * 1000);
            let time = Datum::Timestamptz(micros.saturating_mul(1000));
            format!("as of {}", types::to_text(&time, &TIMESTAMPTZ, &FormatContext::default()))
        }
    }
}
