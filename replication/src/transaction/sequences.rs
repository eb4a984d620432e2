//! Sequences as one transaction sees them.
//!
//! Most are the leader's, and the transaction merely passes questions on. A sequence whose state the
//! transaction has written itself (CREATE, ALTER … RESTART, TRUNCATE … RESTART IDENTITY) is not visible to
//! anyone else: its values are counted here, and the state they have reached is written when it commits.
//! A savepoint's rollback does not take values back, only the state they were counted from, if that is gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use amphora_storage::codec;
use amphora_storage::schema::{Sequence, SequenceEnd, SequenceState, TableId};
use async_trait::async_trait;
use parking_lot::Mutex;

use super::HybridTransaction;
use super::buffer::WriteBuffer;
use crate::api::{LockMode, SequenceGrant, Sequences, WaitPolicy};
use crate::strong::{Group, LockKey, SequenceAnswer, SequenceCall, sequence_key};
use crate::{Error, Result};

/// A sequence whose state this transaction has written.
struct Own {
    /// The state as it was written
    base: Arc<[u8]>,
    /// What it has come to; `None` if it was dropped
    now: Option<SequenceState>,
}

/// The sequences of one transaction.
pub(super) struct TransactionSequences {
    group: Group,
    lock_timeout: Duration,
    own: Mutex<HashMap<TableId, Own>>,
}

impl TransactionSequences {
    pub(super) fn new(group: Group, lock_timeout: Duration) -> TransactionSequences {
        TransactionSequences { group, lock_timeout, own: Mutex::default() }
    }

    async fn ask(&self, sequence: &Sequence, call: SequenceCall) -> Result<SequenceAnswer> {
        match self.group.sequence(sequence.id, call, self.lock_timeout).await? {
            SequenceAnswer::Gone => Err(gone(sequence)),
            SequenceAnswer::End(end) => Err(exhausted(sequence, end)),
            answer => Ok(answer),
        }
    }

    /// Works on the transaction's own state of a sequence, if it has one.
    fn with_own<T>(
        &self,
        sequence: &Sequence,
        work: impl FnOnce(&mut SequenceState) -> Result<T>,
    ) -> Option<Result<T>> {
        let mut own = self.own.lock();
        let own = own.get_mut(&sequence.id)?;
        Some(match &mut own.now {
            Some(state) => work(state),
            None => Err(gone(sequence)),
        })
    }

    fn wrote(&self, id: TableId, base: Vec<u8>, now: Option<SequenceState>) {
        self.own.lock().insert(id, Own { base: base.into(), now });
    }

    /// After writes were taken back: forgets what is not written any more.
    pub(super) fn follow(&self, buffer: &WriteBuffer) {
        self.own.lock().retain(|id, own| match buffer.get(&sequence_key(*id)) {
            None => false,
            Some(None) => {
                own.now = None;
                true
            }
            Some(Some(bytes)) => {
                if *bytes != own.base {
                    own.base = bytes.clone();
                    own.now = codec::decode(bytes).ok();
                }
                true
            }
        });
    }

    /// The states that the transaction's own sequences have reached, for its commit.
    fn reached(&self) -> Vec<(TableId, SequenceState)> {
        self.own.lock().iter().filter_map(|(id, own)| Some((*id, own.now?))).collect()
    }
}

fn gone(sequence: &Sequence) -> Error {
    Error::new("42P01", format!("relation \"{}\" does not exist", sequence.name))
}

fn exhausted(sequence: &Sequence, end: SequenceEnd) -> Error {
    let what = if end.at_max { "maximum" } else { "minimum" };
    Error::new(
        "2200H",
        format!("nextval: reached {what} value of sequence \"{}\" ({})", sequence.name, end.bound),
    )
}

#[async_trait]
impl Sequences for TransactionSequences {
    async fn next(&self, sequence: &Sequence, count: u32) -> Result<SequenceGrant> {
        let own = self.with_own(sequence, |state| state.take(count).map_err(|end| exhausted(sequence, end)));
        if let Some(values) = own {
            return Ok(SequenceGrant { values: values?, generation: 0 });
        }
        match self.ask(sequence, SequenceCall::Next(count)).await? {
            SequenceAnswer::Values(values, generation) => Ok(SequenceGrant { values, generation }),
            _ => Err(gone(sequence)),
        }
    }

    async fn give_back(&self, id: TableId, rest: SequenceGrant) -> Result<()> {
        let SequenceGrant { values, generation } = rest;
        if let Some(own) = self.own.lock().get_mut(&id) {
            let span = values.step.wrapping_mul(i64::from(values.count));
            if let Some(state) = &mut own.now
                && state.last == values.first.wrapping_add(span).wrapping_sub(values.step)
            {
                state.last = values.first.wrapping_sub(values.step);
            }
            return Ok(());
        }
        let call = SequenceCall::GiveBack { generation, values };
        self.group.sequence(id, call, self.lock_timeout).await.map(drop)
    }

    async fn set(&self, sequence: &Sequence, value: i64, called: bool) -> Result<()> {
        if !(sequence.min..=sequence.max).contains(&value) {
            return Err(Error::new(
                "22003",
                format!(
                    "setval: value {value} is out of bounds for sequence \"{}\" ({}..{})",
                    sequence.name, sequence.min, sequence.max
                ),
            ));
        }
        let own = self.with_own(sequence, |state| {
            (state.last, state.called) = (value, called);
            Ok(())
        });
        match own {
            Some(done) => done,
            None => self.ask(sequence, SequenceCall::Set { value, called }).await.map(drop),
        }
    }

    async fn read(&self, sequence: &Sequence) -> Result<(SequenceState, u32)> {
        if let Some(state) = self.with_own(sequence, |state| Ok(*state)) {
            return Ok((state?, 0));
        }
        match self.ask(sequence, SequenceCall::Read).await? {
            SequenceAnswer::State(state, ahead) => Ok((state, ahead)),
            _ => Err(gone(sequence)),
        }
    }
}

impl HybridTransaction {
    pub(super) fn own_sequences(&self) -> &Arc<TransactionSequences> {
        self.sequences.get_or_init(|| {
            Arc::new(TransactionSequences::new(self.context.group.clone(), self.options.lock_timeout))
        })
    }

    /// Locks a sequence, so that nobody is given values, and writes its state.
    pub(super) async fn write_sequence_state(
        &mut self,
        id: TableId,
        state: Option<SequenceState>,
    ) -> Result<()> {
        let key = sequence_key(id);
        let lock = LockKey { key: key.clone(), mode: LockMode::Exclusive };
        self.request_locks("pg_sequence", vec![lock], WaitPolicy::Wait).await?;
        let bytes = state.map(|state| codec::encode(&state));
        self.buffer.put(key, bytes.clone())?;
        self.own_sequences().wrote(id, bytes.unwrap_or_default(), state);
        Ok(())
    }

    /// Writes what the transaction's own sequences have come to.
    pub(super) fn settle_sequences(&mut self) -> Result<()> {
        let Some(sequences) = self.sequences.get() else { return Ok(()) };
        for (id, state) in sequences.reached() {
            self.buffer.put(sequence_key(id), Some(codec::encode(&state)))?;
        }
        Ok(())
    }
}
