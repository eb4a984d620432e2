//! A session's part in sequences: `currval`, `lastval`, and values it has taken and not yet used.
//!
//! Values come from the leader ([`Sequences`]). A statement that takes one value asks for one; if it goes on
//! taking, it asks for twice as many each time, and when it ends it gives back what is left. So a load of
//! a million rows makes a thousand calls, and one row leaves no gap. Values of a sequence with CACHE are the
//! session's to keep, as in PostgreSQL.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use amphora_replication::{SequenceGrant, Sequences, Transaction};
use amphora_storage::DataType;
use amphora_storage::schema::{Sequence, SequenceState, TableId};
use parking_lot::Mutex;

use super::SessionShared;
use super::statement::interruptible;
use crate::command::NewSequence;
use crate::error::{Result, SqlError};
use crate::executor::wait_for;

/// The most values that one question asks for.
const MAX_GRANT: u32 = 4_096;

/// What a session knows of sequences.
#[derive(Default)]
pub(crate) struct SessionSequences {
    state: Mutex<State>,
    /// A statement has taken values that it may have to give back
    held: AtomicBool,
}

#[derive(Default)]
struct State {
    /// `currval`, by sequence
    current: HashMap<TableId, i64>,
    /// The sequence of `lastval`
    last: Option<TableId>,
    /// Values taken
    grants: HashMap<TableId, Held>,
}

/// Values taken and not used.
struct Held {
    grant: SequenceGrant,
    /// They outlive the statement: the sequence has CACHE
    cached: bool,
    /// How many to ask for next
    next: u32,
    source: Arc<dyn Sequences>,
}

impl SessionSequences {
    /// `nextval`. 2200H, 55P03, 57P03
    pub(super) fn next(
        &self,
        shared: &SessionShared,
        txn: &dyn Transaction,
        sequence: &Sequence,
    ) -> Result<i64> {
        let mut wanted = 1;
        {
            let mut state = self.state.lock();
            if let Some(held) = state.grants.get_mut(&sequence.id) {
                if let Some(value) = held.grant.values.pop() {
                    state.current.insert(sequence.id, value);
                    state.last = Some(sequence.id);
                    return Ok(value);
                }
                wanted = held.next;
            }
        }
        let cached = sequence.cache > 1;
        if cached {
            wanted = u32::try_from(sequence.cache).unwrap_or(MAX_GRANT);
        }
        let source = txn.sequences();
        let mut grant = waiting(shared, source.next(sequence, wanted.min(MAX_GRANT)))?;
        let value = grant.values.pop().ok_or_else(|| SqlError::internal("a grant of no values"))?;
        let mut state = self.state.lock();
        state.current.insert(sequence.id, value);
        state.last = Some(sequence.id);
        let next = wanted.saturating_mul(2).min(MAX_GRANT);
        state.grants.insert(sequence.id, Held { grant, cached, next, source });
        self.held.store(true, Ordering::Release);
        Ok(value)
    }

    /// `setval`. 22003
    pub(super) fn set(
        &self,
        shared: &SessionShared,
        txn: &dyn Transaction,
        sequence: &Sequence,
        value: i64,
        called: bool,
    ) -> Result<i64> {
        let source = txn.sequences();
        waiting(shared, source.set(sequence, value, called))?;
        let mut state = self.state.lock();
        state.grants.remove(&sequence.id);
        if called {
            state.current.insert(sequence.id, value);
        }
        Ok(value)
    }

    /// Where a sequence stands.
    pub(super) fn read(
        shared: &SessionShared,
        txn: &dyn Transaction,
        sequence: &Sequence,
    ) -> Result<(SequenceState, u32)> {
        let source = txn.sequences();
        waiting(shared, source.read(sequence))
    }

    /// `currval`. 55000
    pub(super) fn current(&self, sequence: &Sequence) -> Result<i64> {
        self.state.lock().current.get(&sequence.id).copied().ok_or_else(|| {
            SqlError::object_not_in_prerequisite_state(format!(
                "currval of sequence \"{}\" is not yet defined in this session",
                sequence.name
            ))
        })
    }

    /// `lastval`. 55000
    pub(super) fn last(&self) -> Result<i64> {
        let state = self.state.lock();
        state.last.and_then(|id| state.current.get(&id).copied()).ok_or_else(|| {
            SqlError::object_not_in_prerequisite_state("lastval is not yet defined in this session")
        })
    }

    /// The statement has ended: gives back what it has taken and not used.
    pub(super) async fn settle(&self) {
        if !self.held.swap(false, Ordering::AcqRel) {
            return;
        }
        let mut rest = Vec::new();
        self.state.lock().grants.retain(|id, held| {
            if held.cached && held.grant.values.count > 0 {
                return true;
            }
            if held.grant.values.count > 0 {
                rest.push((*id, held.grant, held.source.clone()));
            }
            false
        });
        for (id, grant, source) in rest {
            // What cannot be given back is a gap.
            drop(source.give_back(id, grant).await);
        }
    }

    /// DISCARD SEQUENCES: forgets `currval`, `lastval` and cached values.
    pub(super) fn discard(&self) {
        *self.state.lock() = State::default();
    }
}

/// Waits for the leader's answer, unless the statement is cancelled or its time runs out. 57014
fn waiting<T>(
    shared: &SessionShared,
    work: impl Future<Output = std::result::Result<T, amphora_replication::Error>>,
) -> Result<T> {
    let timeout = shared.settings.lock().effective().statement_timeout;
    let deadline = (!timeout.is_zero()).then(|| Instant::now() + timeout);
    wait_for(interruptible(&shared.cancel, deadline, work))
}

/// A sequence as CREATE SEQUENCE makes it, or, given what it is, as ALTER SEQUENCE does. 22023
pub(super) fn define(mut sequence: Sequence, new: bool, options: &NewSequence) -> Result<Sequence> {
    fn invalid<T>(message: String) -> Result<T> {
        Err(SqlError::invalid_parameter_value(message))
    }
    let (old_min, old_max) = bounds(&sequence.ty);
    let ty_changed = options.ty.as_ref().is_some_and(|ty| *ty != sequence.ty);
    // A bound that was the old type's becomes the new type's.
    let (mut reset_min, mut reset_max) = (new, new);
    if let Some(ty) = &options.ty {
        reset_max |= ty_changed && sequence.max == old_max;
        reset_min |= ty_changed && sequence.min == old_min;
        sequence.ty = ty.clone();
    }
    if let Some(increment) = options.increment {
        if increment == 0 {
            return invalid("INCREMENT must not be zero".into());
        }
        sequence.increment = increment;
    }
    if let Some(cycle) = options.cycle {
        sequence.cycle = cycle;
    }
    let (type_min, type_max) = bounds(&sequence.ty);
    let up = sequence.increment > 0;
    match options.max {
        Some(Some(max)) => sequence.max = max,
        Some(None) => sequence.max = if up { type_max } else { -1 },
        None if reset_max => sequence.max = if up { type_max } else { -1 },
        None => {}
    }
    match options.min {
        Some(Some(min)) => sequence.min = min,
        Some(None) => sequence.min = if up { 1 } else { type_min },
        None if reset_min => sequence.min = if up { 1 } else { type_min },
        None => {}
    }
    let name = &sequence.ty;
    if !(type_min..=type_max).contains(&sequence.max) {
        return invalid(format!("MAXVALUE ({}) is out of range for sequence data type {name}", sequence.max));
    }
    if !(type_min..=type_max).contains(&sequence.min) {
        return invalid(format!("MINVALUE ({}) is out of range for sequence data type {name}", sequence.min));
    }
    if sequence.min >= sequence.max {
        return invalid(format!("MINVALUE ({}) must be less than MAXVALUE ({})", sequence.min, sequence.max));
    }
    match options.start {
        Some(start) => sequence.start = start,
        None if new => sequence.start = if up { sequence.min } else { sequence.max },
        None => {}
    }
    let check = |what: &str, value: i64| {
        if value < sequence.min {
            return invalid(format!(
                "{what} value ({value}) cannot be less than MINVALUE ({})",
                sequence.min
            ));
        }
        if value > sequence.max {
            return invalid(format!(
                "{what} value ({value}) cannot be greater than MAXVALUE ({})",
                sequence.max
            ));
        }
        Ok(())
    };
    check("START", sequence.start)?;
    if let Some(Some(at)) = options.restart {
        check("RESTART", at)?;
    }
    if let Some(cache) = options.cache {
        if cache <= 0 {
            return invalid(format!("CACHE ({cache}) must be greater than zero"));
        }
        sequence.cache = cache;
    }
    Ok(sequence)
}

/// The state of an altered sequence: where it stood, with the new bounds and step, or restarted. 22023
pub(super) fn altered_state(
    sequence: &Sequence,
    now: SequenceState,
    options: &NewSequence,
) -> Result<SequenceState> {
    let start = SequenceState::start_of(sequence);
    let state = match options.restart {
        Some(at) => SequenceState { last: at.unwrap_or(sequence.start), ..start },
        None => SequenceState { last: now.last, called: now.called, ..start },
    };
    let out = |what: &str, bound: &str, value: i64| {
        Err(SqlError::invalid_parameter_value(format!(
            "RESTART value ({}) cannot be {what} than {bound} ({value})",
            state.last
        )))
    };
    if state.last < sequence.min {
        return out("less", "MINVALUE", sequence.min);
    }
    if state.last > sequence.max {
        return out("greater", "MAXVALUE", sequence.max);
    }
    Ok(state)
}

fn bounds(ty: &DataType) -> (i64, i64) {
    match ty {
        DataType::Int2 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        DataType::Int4 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use amphora_storage::Timestamp;

    use super::*;

    fn blank() -> Sequence {
        Sequence {
            id: TableId(1),
            version: Timestamp::ZERO,
            schema: "public".into(),
            name: "s".into(),
            owner: "ann".into(),
            ty: DataType::Int8,
            start: 1,
            increment: 1,
            min: 1,
            max: i64::MAX,
            cache: 1,
            cycle: false,
            owned_by: None,
            comment: None,
        }
    }

    #[test]
    fn a_descending_sequence_starts_at_minus_one() {
        let s = define(blank(), true, &NewSequence { increment: Some(-1), ..Default::default() }).unwrap();
        assert_eq!((s.start, s.min, s.max), (-1, i64::MIN, -1));
    }

    #[test]
    fn another_type_takes_its_bounds_along_unless_they_were_given() {
        let int = NewSequence { ty: Some(DataType::Int4), ..Default::default() };
        let s = define(blank(), true, &int).unwrap();
        assert_eq!(s.max, i64::from(i32::MAX));
        let small = NewSequence { ty: Some(DataType::Int2), ..Default::default() };
        assert_eq!(define(s.clone(), false, &small).unwrap().max, i64::from(i16::MAX));
        let given = Sequence { max: 100_000, ..s };
        assert_eq!(
            define(given, false, &small).unwrap_err().message,
            "MAXVALUE (100000) is out of range for sequence data type smallint"
        );
    }
}
