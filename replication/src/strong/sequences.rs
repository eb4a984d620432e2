//! Sequences: the leader hands out their values.
//!
//! A sequence's state is one row of a keyspace of its own, and it says less than the leader knows: it stands
//! at the end of a *chunk* that the leader has taken from it in advance and hands out from memory. So values
//! are given once, in order and without a disk write each, as PostgreSQL does by logging 32 ahead; what a
//! leader had not handed out when it died is a gap.
//!
//! ```text
//!   row in the store:              last = 33 ─────────────────────┐
//!                     1  2  3  4  5  6  7  …                      33 │ 34 …
//!   leader's memory:  given ───► now      available ─────────────►   │ the next leader goes on here
//! ```
//!
//! - The row's version is compared before every answer. Whatever else writes the row (ALTER SEQUENCE,
//!   TRUNCATE … RESTART IDENTITY, DROP) is therefore seen at once, and transactions that do are ordinary
//!   ones: they lock the row's key, and while they hold it nobody is given a value, as in PostgreSQL.
//! - A leader that may have been deposed gives nothing: its lease must be valid, or a round of heartbeats
//!   must confirm it. So `setval` is exact, across nodes too.
//! - A statement that needs many values is given many, and gives back what it did not use. Taken back is
//!   only what was given last, so nobody has seen a later value.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use amphora_storage::schema::{IndexId, SequenceEnd, SequenceState, SequenceValues, TableId};
use amphora_storage::{Timestamp, codec, key};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::group::Group;
use super::tenure::Tenure;
use super::transport::{Refusal, Reply};
use super::types::{CommitRequest, Expected, Staged, TransactionId, Write};
use crate::api::LockMode;

/// Values made durable beyond those asked for: PostgreSQL's number.
const AHEAD: u32 = 32;
/// The most values ahead, for sequences that are used up quickly.
const MAX_AHEAD: u32 = 8_192;
/// A chunk used up in less time is followed by one twice as long.
const QUICKLY: Duration = Duration::from_millis(100);
/// Values in one answer, at most.
pub const MAX_GRANT: u32 = 4_096;

/// The key of a sequence's state.
pub fn sequence_key(id: TableId) -> Vec<u8> {
    let mut key = key::table_prefix(TableId::SEQUENCES, IndexId::PRIMARY).to_vec();
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

/// What is asked about a sequence.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum SequenceCall {
    /// The next values, this many at most and one at least
    Next(u32),
    /// `setval`
    Set {
        /// `last_value`
        value: i64,
        /// `is_called`
        called: bool,
    },
    /// Where does it stand?
    Read,
    /// These were given last and have not been used
    GiveBack {
        /// The generation they were given in
        generation: u64,
        /// What is left of them
        values: SequenceValues,
    },
}

/// The leader's answer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum SequenceAnswer {
    /// Values, and the generation they belong to
    Values(SequenceValues, u64),
    /// Where it stands, and how many values are durable beyond that
    State(SequenceState, u32),
    /// There are no more
    End(SequenceEnd),
    /// Another transaction is changing it: ask again
    Busy,
    /// There is no such sequence
    Gone,
    /// Done
    Done,
}

/// What a leader knows of one sequence.
struct Live {
    /// The row's version that this rests on
    version: Timestamp,
    /// Changes when somebody else has written the row, or `setval` has
    generation: u64,
    /// Where it stands, counting what was given
    now: SequenceState,
    /// Durable and not given yet
    available: SequenceValues,
    /// The commit in flight that writes the row, if one is
    writing: Option<TransactionId>,
    ahead: u32,
    chunk_taken: Instant,
}

/// The sequences of one tenure.
#[derive(Default)]
pub struct Sequences {
    live: Mutex<HashMap<TableId, Live>>,
    /// A commit in flight has ended
    written: Notify,
}

/// A new state on its way into the row.
struct Pending {
    transaction: TransactionId,
    state: SequenceState,
    /// The version it replaces
    over: Timestamp,
    /// What can be given once it is there
    chunk: SequenceValues,
}

/// What is to be done outside the lock.
enum Step {
    Answer(SequenceAnswer),
    /// Commit this
    Write(Pending),
    /// Wait for a commit in flight
    Wait,
    Failed(String),
}

impl Live {
    fn new(version: Timestamp, now: SequenceState) -> Live {
        Live {
            version,
            generation: rand::random(),
            now,
            available: SequenceValues { first: 0, step: now.increment, count: 0 },
            writing: None,
            ahead: AHEAD,
            chunk_taken: Instant::now(),
        }
    }

    fn give(&mut self, count: u32) -> SequenceAnswer {
        let count = count.min(self.available.count);
        let values = SequenceValues { count, ..self.available };
        let end = values.step.wrapping_mul(i64::from(count));
        self.available.first = self.available.first.wrapping_add(end);
        self.available.count -= count;
        self.now.last = self.available.first.wrapping_sub(values.step);
        self.now.called = true;
        SequenceAnswer::Values(values, self.generation)
    }

    fn take_back(&mut self, generation: u64, values: SequenceValues) {
        let span = values.step.wrapping_mul(i64::from(values.count));
        let follows = values.first.wrapping_add(span).wrapping_sub(values.step) == self.now.last;
        if generation == self.generation && values.count > 0 && values.step == self.now.increment && follows {
            self.available.first = values.first;
            self.available.count += values.count;
            self.now.last = values.first.wrapping_sub(values.step);
        }
    }
}

impl Sequences {
    /// One look at the sequence: an answer, or what has to happen first.
    fn step(&self, tenure: &Tenure, id: TableId, call: &SequenceCall, transaction: TransactionId) -> Step {
        let key = sequence_key(id);
        let mut all = self.live.lock();
        let writing = all.get(&id).and_then(|live| live.writing);
        let other = tenure.is_locked_by_other(&key, writing);
        if other && matches!(call, SequenceCall::Next(_) | SequenceCall::Set { .. }) {
            return Step::Answer(SequenceAnswer::Busy);
        }
        let version = match tenure.replica().newest(&key) {
            Ok(version) => version,
            Err(e) => return Step::Failed(e.to_string()),
        };
        // While our own commit is in flight the row may be ahead of what is known here.
        if writing.is_none() && all.get(&id).is_none_or(|live| live.version != version) {
            let row = match tenure.replica().newest_row(&key) {
                Ok(row) => row,
                Err(e) => return Step::Failed(e.to_string()),
            };
            let Some((version, bytes)) = row else {
                all.remove(&id);
                return Step::Answer(SequenceAnswer::Gone);
            };
            match codec::decode(&bytes) {
                Ok(state) => all.insert(id, Live::new(version, state)),
                Err(e) => return Step::Failed(e.to_string()),
            };
        }
        let Some(live) = all.get_mut(&id) else { return Step::Answer(SequenceAnswer::Gone) };
        match *call {
            SequenceCall::Read => Step::Answer(SequenceAnswer::State(live.now, live.available.count)),
            SequenceCall::GiveBack { generation, values } => {
                live.take_back(generation, values);
                Step::Answer(SequenceAnswer::Done)
            }
            SequenceCall::Next(count) if live.available.count > 0 => Step::Answer(live.give(count)),
            _ if live.writing.is_some() => Step::Wait,
            SequenceCall::Next(count) => {
                if live.chunk_taken.elapsed() < QUICKLY {
                    live.ahead = (live.ahead * 2).min(MAX_AHEAD);
                } else {
                    live.ahead = AHEAD;
                }
                let mut next = live.now;
                match next.take(count.clamp(1, MAX_GRANT) + live.ahead) {
                    Err(end) => Step::Answer(SequenceAnswer::End(end)),
                    Ok(chunk) => {
                        live.writing = Some(transaction);
                        Step::Write(Pending { transaction, state: next, over: live.version, chunk })
                    }
                }
            }
            SequenceCall::Set { value, called } => {
                live.writing = Some(transaction);
                let state = SequenceState { last: value, called, ..live.now };
                let chunk = SequenceValues { first: 0, step: state.increment, count: 0 };
                Step::Write(Pending { transaction, state, over: live.version, chunk })
            }
        }
    }

    /// A commit has succeeded.
    fn committed(&self, id: TableId, call: &SequenceCall, written: &Pending, version: Timestamp) {
        let Pending { state, chunk, .. } = *written;
        let mut all = self.live.lock();
        let Some(live) = all.get_mut(&id) else { return };
        live.version = version;
        if let SequenceCall::Set { .. } = call {
            *live = Live { ahead: live.ahead, ..Live::new(version, state) };
            return;
        }
        live.available = chunk;
        live.chunk_taken = Instant::now();
    }
}

/// Ends a commit in flight, however it ends. What is known of a sequence whose commit failed or was given up
/// is read again.
struct Writing<'a> {
    sequences: &'a Sequences,
    id: TableId,
    committed: bool,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut all = self.sequences.live.lock();
        if self.committed {
            if let Some(live) = all.get_mut(&self.id) {
                live.writing = None;
            }
        } else {
            all.remove(&self.id);
        }
        drop(all);
        self.sequences.written.notify_waiters();
    }
}

impl Group {
    /// Serves a question about a sequence.
    pub(super) async fn sequence_as_leader(&self, tenure: &Tenure, id: TableId, call: SequenceCall) -> Reply {
        if !self.certainly_leads(tenure).await {
            return Reply::NotLeader(None);
        }
        let sequences = tenure.sequences();
        loop {
            if tenure.has_ended() {
                return Reply::NotLeader(None);
            }
            // Registered before the look, so that nothing that happens after it is missed.
            let written = sequences.written.notified();
            match sequences.step(tenure, id, &call, self.transaction_id()) {
                Step::Answer(answer) => return Reply::Sequence(answer),
                Step::Failed(message) => return Reply::Failed(message),
                Step::Wait => written.await,
                Step::Write(pending) => {
                    let mut writing = Writing { sequences, id, committed: false };
                    let request = write_state(id, &pending);
                    match tenure.commit(tenure.leader(), None, request).await {
                        Reply::Committed(at) => {
                            sequences.committed(id, &call, &pending, at);
                            writing.committed = true;
                        }
                        Reply::Refused(Refusal::Conflict) => return Reply::Sequence(SequenceAnswer::Busy),
                        Reply::Failed(message) => return Reply::Failed(message),
                        _ => return Reply::NotLeader(None),
                    }
                    if let SequenceCall::Set { .. } = call {
                        return Reply::Sequence(SequenceAnswer::Done);
                    }
                }
            }
        }
    }
}

fn write_state(sequence: TableId, pending: &Pending) -> CommitRequest {
    let key = sequence_key(sequence);
    CommitRequest {
        id: pending.transaction,
        locked: false,
        expected: vec![Expected { key: key.clone(), version: pending.over, mode: LockMode::Exclusive }],
        tables: Vec::new(),
        intents: Vec::new(),
        writes: vec![Write { key, value: Some(codec::encode(&pending.state)) }],
        staged: Staged::default(),
        staged_into: Vec::new(),
        reads: None,
        leaderless: Vec::new(),
        clock: Timestamp::ZERO,
        durability: Default::default(),
    }
}
