//! The one interface between SQL and replication.
//!
//! A session asks its node's [`Engine`] for a [`Transaction`] and works on rows of tables. It never learns
//! where a row lies or who orders its writes; it only says, before each statement, whether the statement
//! touches strong tables at all ([`Access`]), because a statement over leaderless tables must not wait for
//! anyone.
//!
//! ```text
//!   begin ──► begin_statement ──► get / scan  (synchronous, local, at the statement's snapshot)
//!                  ▲                  │
//!                  │                  ▼
//!        restart_statement ◄── insert / update / delete / lock_rows  (batched; may wait for locks)
//!        (a row had moved)            │
//!                                     ▼
//!                              commit  or  rollback
//! ```
//!
//! Reads are synchronous: once a statement has its snapshot, every row it can see is on this node's disk.
//! Writes are buffered, and later reads of the same transaction see them.

use std::sync::Arc;
use std::time::Duration;

use amphora_storage::schema::{
    Catalog, Descriptor, Index, IndexId, Quorum, Sequence, SequenceState, SequenceValues, Table, TableId,
};
use amphora_storage::{DataType, Datum, Row, Timestamp};
use async_trait::async_trait;
use futures::future::BoxFuture;

use crate::leaderless::{Conflict, ConflictKind, Progress, QUORUM_TIMEOUT};
use crate::sessions::{RemoteSessions, Signal, Signalled};
use crate::strong::EarlyCommit;
use crate::{Error, NodeId, Result, Token};

/// What a statement is going to touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing stored, or leaderless tables and the local catalog only: never waits for the network.
    Local,
    /// Strong tables too: takes a snapshot that is linearizable with everything acknowledged so far.
    Strong,
}

/// How a transaction is isolated from others, for strong tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IsolationLevel {
    /// Each statement has its own snapshot and re-evaluates after waiting for a lock.
    #[default]
    ReadCommitted,
    /// One snapshot for the whole transaction; 40001 on a concurrent update.
    RepeatableRead,
    /// One snapshot, and the commit is refused (40001) if what was read has been written since: as if
    /// transactions had run one after another.
    Serializable,
}

impl IsolationLevel {
    /// True if all statements of a transaction see the same.
    pub fn has_one_snapshot(self) -> bool {
        self != IsolationLevel::ReadCommitted
    }
}

/// How new a snapshot of strong tables is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadMode {
    /// It shows everything acknowledged anywhere before it was taken.
    #[default]
    Linearizable,
    /// It shows what this node has applied, if nothing that was acknowledged longer ago than this can be missing;
    /// else it is linearizable. [`Duration::MAX`] is any age.
    Stale(Duration),
    /// It shows what was committed at this time. Such a transaction writes nothing.
    AsOf(Timestamp),
}

/// When a commit that writes strong tables is acknowledged: PostgreSQL's `synchronous_commit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SynchronousCommit {
    /// A majority has it on disk, and it is applied on the leader.
    #[default]
    On,
    /// And every node has applied it, but for those that are down or too late.
    RemoteApply,
    /// It is on the leader's own disk.
    Local,
    /// The leader has put it into the order of commits.
    Off,
}

/// Which nodes statements over leaderless tables wait for. `None` is the table's own choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorums {
    /// Who is asked by every statement before it reads
    pub read: Option<Quorum>,
    /// Who has to have a commit on disk before it is acknowledged
    pub write: Option<Quorum>,
    /// How long either is waited for (58000)
    pub patience: Duration,
}

impl Default for Quorums {
    fn default() -> Quorums {
        Quorums { read: None, write: None, patience: QUORUM_TIMEOUT }
    }
}

/// How a transaction begins.
#[derive(Clone, Copy, Debug, Default)]
pub struct TransactionOptions {
    /// Isolation of strong tables
    pub isolation: IsolationLevel,
    /// Refuses writes (25006)
    pub read_only: bool,
    /// A single statement that will commit by itself: writes need no lock round trip, the certifier
    /// checks the versions read instead, and a conflict comes back from `commit` as
    /// [`ErrorKind::Restart`](crate::ErrorKind::Restart).
    pub autocommit: bool,
    /// Whose it is, by a number that tells the sessions of a node apart; 0 for none. The locks of a session are
    /// one in the search for deadlocks.
    pub session: u64,
    /// How long to wait for a lock; zero waits for ever
    pub lock_timeout: Duration,
    /// Bytes of memory that its writes may take until it commits (54000); 0 is the default
    pub write_memory: usize,
    /// Who computes what indexes have that is no column. Without it such indexes cannot be written (XX000).
    pub indexes: Option<&'static dyn IndexFunctions>,
}

/// What SQL knows of an index, and the floors below do not: the values of its expressions, and which rows are
/// in it. All of it follows from the row alone, so whoever writes, on whichever node, writes the same entries.
pub trait IndexFunctions: Send + Sync + std::fmt::Debug {
    /// The values of the index's expressions for a row; `None` if its predicate is not true of the row, which
    /// then has no entry.
    fn compute(&self, table: &Table, index: &Index, row: &[Datum]) -> Result<Option<Vec<Datum>>>;

    /// Positions of the columns on which a row's entry depends.
    fn columns(&self, table: &Table, index: &Index) -> Vec<usize>;

    /// What the entries of [`Index::columns`] are called in the details of errors.
    fn names(&self, table: &Table, index: &Index) -> Vec<String>;
}

/// A row as it was read, with what is needed to write it back.
#[derive(Clone, Debug)]
pub struct StoredRow {
    /// One datum per entry of `Table::columns`
    pub row: Row,
    /// The commit that wrote it, on a strong table: what locks and the certifier compare. ZERO for a row
    /// that this transaction wrote itself, and on leaderless tables.
    pub version: Timestamp,
}

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys
    Forward,
    /// Descending keys
    Backward,
}

/// A bound of one side of a [`KeyRange`], on the column after its prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyBound {
    /// No bound
    Unbounded,
    /// At or inside this value
    Included(Datum),
    /// Strictly inside this value
    Excluded(Datum),
}

/// Part of an index: all entries whose first columns equal `prefix` and whose next column lies between
/// the bounds, whichever way that column is ordered. NULLs lie beyond the greatest value, or below the least
/// ([`KeyOrder::nulls_low`](amphora_storage::schema::KeyOrder::nulls_low)); a bound on that side does not reach
/// them, an unbounded one does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// Equal on these first columns
    pub prefix: Vec<Datum>,
    /// Lower bound of the next column
    pub lower: KeyBound,
    /// Upper bound of the next column
    pub upper: KeyBound,
}

impl KeyRange {
    /// The whole index.
    pub fn all() -> KeyRange {
        KeyRange::prefix(Vec::new())
    }

    /// All entries that begin with these values.
    pub fn prefix(prefix: Vec<Datum>) -> KeyRange {
        KeyRange { prefix, lower: KeyBound::Unbounded, upper: KeyBound::Unbounded }
    }
}

/// A scan of one range of one index.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The table, as planned
    pub table: Arc<Table>,
    /// The index to walk; rows come in its order
    pub index: IndexId,
    /// What part of it
    pub range: KeyRange,
    /// Which way
    pub direction: Direction,
    /// Positions in `Table::columns` that the caller reads, ascending; the others come as NULL.
    /// `None` is all of them, which writing a row back needs.
    pub columns: Option<Arc<[usize]>>,
}

/// Rows of a scan, pulled in batches. Owned: it pins its snapshot and may outlive the statement (portals).
pub trait RowStream: Send {
    /// Appends up to `limit` rows to `out`; fewer only at the end of the range. Returns how many.
    fn next_batch(&mut self, limit: usize, out: &mut Vec<StoredRow>) -> Result<usize>;
}

/// What a row lock excludes, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum LockMode {
    /// FOR KEY SHARE, FOR SHARE: excludes writers
    Shared,
    /// FOR NO KEY UPDATE, FOR UPDATE and writes: excludes everyone
    Exclusive,
}

/// What to do when a row is locked by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum WaitPolicy {
    /// Wait, up to `lock_timeout` (55P03) or a deadlock (40P01)
    Wait,
    /// NOWAIT: 55P03 at once
    NoWait,
    /// SKIP LOCKED
    Skip,
}

/// What became of a row that was to be locked if it is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowLock {
    /// It is locked
    Locked,
    /// Another holds it
    Skipped,
    /// It has changed since it was read, or is gone; it is not locked
    Moved,
    /// Enough were locked before it
    Untried,
}

/// What an INSERT does with a row whose key is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// 23505
    Error,
    /// Report it: on any unique index (`None`), or on this one; others still raise 23505.
    Report(Option<IndexId>),
}

/// What became of one row of an INSERT.
#[derive(Clone, Debug)]
pub enum InsertOutcome {
    /// It was inserted.
    Inserted,
    /// Its key is taken by this row, which is now locked; nothing was written.
    Conflict(StoredRow),
}

/// One transaction of one session. Dropping it rolls it back.
#[async_trait]
pub trait Transaction: Send {
    /// The catalog as this transaction sees it, its own DDL included. Local and immediate.
    fn catalog(&self) -> Arc<Catalog>;

    /// Called when a name was not found: brings the catalog up to all DDL acknowledged anywhere so far.
    /// Without a quorum it quietly keeps what it has.
    async fn refresh_catalog(&mut self);

    /// Starts a statement that was planned with `planned_with`'s tables: takes its snapshot and a
    /// savepoint for [`restart_statement`](Transaction::restart_statement).
    ///
    /// Fails with kind `CatalogMoved` if one of `tables` is no longer the version it was planned with,
    /// and with kind `Unavailable` if strong tables are needed and no quorum is in reach.
    async fn begin_statement(&mut self, access: Access, tables: &[Arc<Table>]) -> Result<()>;

    /// How new the snapshots are to be that statements take from now on. Whoever writes wants
    /// [`ReadMode::Linearizable`], which it is until this is called. The catalog is then this node's, too.
    fn set_read_mode(&mut self, mode: ReadMode) {
        let _ = mode;
    }

    /// How new the snapshot is that the current statement reads: what was wanted may not have been to be had.
    fn read_mode(&self) -> ReadMode {
        ReadMode::Linearizable
    }

    /// From now on statements see at least what the token stands for: they wait for it, for some seconds (57P03).
    /// 22023 for a token of another cluster.
    fn follow(&mut self, token: Option<Arc<Token>>) -> Result<()> {
        let _ = token;
        Ok(())
    }

    /// Undoes the current statement's writes, keeps its locks, and takes a newer snapshot: what READ
    /// COMMITTED does after it waited for a row that then changed.
    async fn restart_statement(&mut self) -> Result<()>;

    /// The statement failed: undoes its writes (but see `savepoint` for what a session does with that).
    fn rollback_statement(&mut self);

    /// One row by primary key.
    fn get(&self, table: &Arc<Table>, key: &[Datum]) -> Result<Option<StoredRow>>;

    /// Some columns of one row by primary key: those at these positions, in this order.
    fn get_columns(&self, table: &Arc<Table>, key: &[Datum], columns: &[usize]) -> Result<Option<Row>> {
        let part = |row: Row| columns.iter().filter_map(|&c| row.get(c).cloned()).collect();
        Ok(self.get(table, key)?.map(|stored| part(stored.row)))
    }

    /// The rows of a range, in index order, at the statement's snapshot and with this transaction's own
    /// writes up to now.
    fn scan(&self, scan: &Scan) -> Result<Box<dyn RowStream>>;

    /// From now on, until it is called with false or the statement begins anew, [`get`](Transaction::get)
    /// and [`scan`](Transaction::scan) see the transaction as it stands at this moment: what the
    /// statements of one WITH write, none of them reads.
    fn hold_reads(&mut self, hold: bool);

    /// While this is on, reads see everything although they are held: what is checked after a write.
    fn see_all(&mut self, all: bool);

    /// Inserts rows (full width; a hidden key is filled here). Checks every unique index. One outcome
    /// per row. With [`OnConflict::Error`] the first conflict fails with 23505.
    async fn insert(
        &mut self,
        table: &Arc<Table>,
        rows: Vec<Row>,
        on_conflict: OnConflict,
    ) -> Result<Vec<InsertOutcome>>;

    /// Replaces rows: each old row (as read by this statement) by its new image. Keys may change.
    /// All old images are taken out before the new ones are checked, as one SQL statement should.
    async fn update(&mut self, table: &Arc<Table>, changes: Vec<(StoredRow, Row)>) -> Result<()>;

    /// `crdt_reset`: the [`update`](Transaction::update) that follows takes out all that these rows of a leaderless
    /// table hold in these columns, given by position, and begins them anew.
    fn reset_columns(&mut self, table: &Arc<Table>, rows: &[StoredRow], columns: &[usize]) -> Result<()> {
        let _ = (table, rows, columns);
        Err(Error::new("0A000", "columns cannot be reset here"))
    }

    /// What is kept of a column, given by position, of a leaderless table's row, as a document; values in it are
    /// shown by `text`. As committed on this node: what the transaction itself has written is not in it. `None`
    /// if there is no such row.
    fn inspect(
        &self,
        table: &Arc<Table>,
        key: &[Datum],
        column: usize,
        text: &dyn Fn(&Datum, &DataType) -> serde_json::Value,
    ) -> Result<Option<serde_json::Value>> {
        let _ = (table, key, column, text);
        Err(Error::new("0A000", "columns cannot be inspected here"))
    }

    /// Deletes rows as read by this statement.
    async fn delete(&mut self, table: &Arc<Table>, rows: Vec<StoredRow>) -> Result<()>;

    /// SELECT FOR …: locks rows as read by this statement. True where locked, false where skipped.
    /// A no-op on leaderless tables.
    async fn lock_rows(
        &mut self,
        table: &Arc<Table>,
        rows: &[StoredRow],
        mode: LockMode,
        wait: WaitPolicy,
    ) -> Result<Vec<bool>>;

    /// SKIP LOCKED: locks the first `wanted` of these rows that nobody else holds and that have not moved since
    /// they were read. One answer a row. Whoever gets fewer than it wanted, and some had moved, should read again
    /// ([`ErrorKind::Restart`](crate::ErrorKind::Restart)): they may be free.
    async fn lock_free_rows(
        &mut self,
        table: &Arc<Table>,
        rows: &[StoredRow],
        mode: LockMode,
        wanted: usize,
    ) -> Result<Vec<RowLock>> {
        let tried = rows.get(..wanted.min(rows.len())).unwrap_or(rows);
        let locked = self.lock_rows(table, tried, mode, WaitPolicy::Skip).await?;
        let outcome = |locked: bool| if locked { RowLock::Locked } else { RowLock::Skipped };
        let mut outcomes: Vec<RowLock> = locked.into_iter().map(outcome).collect();
        outcomes.resize(rows.len(), RowLock::Untried);
        Ok(outcomes)
    }

    /// The statement will have to look at what others wrote until now (a parent whose key goes looks for
    /// children): its writes lock, also if it commits by itself. Call before the first write.
    fn lock_before_writing(&mut self);

    /// Which of these keys a unique index has, at the statement's snapshot and with own writes.
    fn find_keys(&self, table: &Arc<Table>, index: IndexId, keys: &[Vec<Datum>]) -> Result<Vec<bool>>;

    /// For rows that refer to these keys of a unique index: which are there, and from now until the
    /// transaction ends they stay. Values are in the index's order and none is NULL.
    async fn hold_keys(
        &mut self,
        parent: &Arc<Table>,
        index: IndexId,
        keys: &[Vec<Datum>],
    ) -> Result<Vec<bool>>;

    /// For rows that had these keys and whose deletion (or change of key) is written: from now until the
    /// transaction ends nobody else's row comes to refer to them. What the statement reads from here on it
    /// reads at a snapshot that shows all references made before, so call it after everything else was read.
    async fn seize_keys(&mut self, parent: &Arc<Table>, index: IndexId, keys: &[Vec<Datum>]) -> Result<()>;

    /// What this transaction writes is right only as long as this table is as it is described here: the
    /// commit fails with kind `CatalogMoved` if it is not, and so does this call.
    fn depend_on(&mut self, table: &Arc<Table>) -> Result<()>;

    /// First call of any DDL: waits for other DDL, then brings snapshot and catalog up to date.
    async fn lock_catalog(&mut self) -> Result<()>;

    /// Excludes all writers of a strong table until the transaction ends, and takes a snapshot after them.
    async fn lock_table(&mut self, table: &Arc<Table>) -> Result<()>;

    /// Like [`lock_table`](Transaction::lock_table), for whom row locks will do too: true if the table is
    /// locked now, false at once if others are writing to it, or if the transaction's snapshot must stay.
    async fn try_lock_table(&mut self, _table: &Arc<Table>) -> Result<bool> {
        Ok(false)
    }

    /// A new id for a table, an index's OID, …: never given twice. After `lock_catalog`.
    fn allocate_id(&mut self) -> Result<TableId>;

    /// Adds an object to the catalog, or replaces the object that has its id. After `lock_catalog`.
    fn put_object(&mut self, object: Descriptor) -> Result<()>;

    /// Adds a table to the catalog, or replaces the table that has its id. After `lock_catalog`.
    fn put_table(&mut self, table: Table) -> Result<()> {
        self.put_object(Descriptor::Table(table))
    }

    /// Drops an object that has no rows: a view, a sequence, a schema. After `lock_catalog`.
    fn drop_object(&mut self, id: TableId) -> Result<()>;

    /// Drops a table and, once committed, its rows. After `lock_catalog`.
    fn drop_table(&mut self, id: TableId) -> Result<()>;

    /// Writes rows of a table that is being written anew: its descriptor has a `storage` of its own, made by
    /// this transaction. Unique indexes are checked (23505) among what was loaded; a hidden key is filled
    /// here. After `lock_table`.
    fn load_rows(&mut self, table: &Arc<Table>, rows: Vec<Row>) -> Result<()>;

    /// Writes a sequence's state, as CREATE and ALTER SEQUENCE do: it takes effect when the transaction
    /// commits, and until then nobody else is given values. `None` removes it. After `lock_catalog`.
    async fn write_sequence(&mut self, id: TableId, state: Option<SequenceState>) -> Result<()>;

    /// The values of sequences, as this transaction sees them. Immediate.
    fn sequences(&self) -> Arc<dyn Sequences>;

    /// Fills a new index of a strong table (already in the table given) from the rows visible now;
    /// 23505 if it is unique and they are not. After `lock_table`.
    fn build_index(&mut self, table: &Arc<Table>, index: IndexId) -> Result<()>;

    /// Remembers this point. Savepoints nest.
    fn savepoint(&mut self) -> SavepointId;

    /// Undoes all writes since the savepoint. Locks stay.
    fn rollback_to(&mut self, savepoint: SavepointId) -> Result<()>;

    /// When [`commit`](Transaction::commit) is to be over.
    fn set_synchronous_commit(&mut self, when: SynchronousCommit) {
        let _ = when;
    }

    /// Whom statements that begin from now on wait for, and the commit.
    fn set_quorums(&mut self, quorums: Quorums) {
        let _ = quorums;
    }

    /// After a commit: it is not durable yet. Whoever goes on has to [settle](Engine::settle) it first.
    fn early_commit(&self) -> Option<EarlyCommit> {
        None
    }

    /// After a commit with [`SynchronousCommit::RemoteApply`]: the nodes that were not waited for.
    fn left_out(&self) -> &[NodeId] {
        &[]
    }

    /// True if nothing has been written.
    fn is_read_only(&self) -> bool;

    /// Makes everything durable and visible, atomically.
    ///
    /// On an error of kind `Restart` (autocommit only) nothing was written and the caller may call
    /// `restart_statement` and run the statement again.
    async fn commit(&mut self) -> Result<()>;

    /// The commit of a transaction that has nothing to commit. False if it has: nothing was done then.
    fn commit_nothing(&mut self) -> bool {
        false
    }

    /// Forgets everything and gives back all locks.
    async fn rollback(&mut self);
}

/// Values of sequences. They are handed out by the leader and are no part of any transaction: what was given
/// is not taken back by ROLLBACK. Only of a sequence that the transaction itself has created or restarted
/// are they its own.
#[async_trait]
pub trait Sequences: Send + Sync {
    /// The next values: `count` at most, one at least. 2200H at the end.
    async fn next(&self, sequence: &Sequence, count: u32) -> Result<SequenceGrant>;

    /// Gives back what is left of a grant, so that no values are missing if nobody has asked meanwhile.
    async fn give_back(&self, id: TableId, rest: SequenceGrant) -> Result<()>;

    /// `setval`; 22003 outside the bounds.
    async fn set(&self, sequence: &Sequence, value: i64, called: bool) -> Result<()>;

    /// Where it stands, and how many values beyond that are durable.
    async fn read(&self, sequence: &Sequence) -> Result<(SequenceState, u32)>;
}

/// Values that are their asker's alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceGrant {
    /// The values
    pub values: SequenceValues,
    /// Which of the sequence's lives they belong to
    pub generation: u64,
}

/// A point in a transaction's buffered writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SavepointId(pub usize);

/// A lock of a key of the application's own. It is given back when this is dropped.
#[async_trait]
pub trait AdvisoryLock: Send + Sync {
    /// Locks it; what is held already stays held. False if others hold it and it is not to be waited for. A zero
    /// timeout waits for ever. 55P03, 40P01, 57P03
    async fn lock(&self, mode: LockMode, wait: bool, timeout: Duration) -> Result<bool>;
}

/// A node as SQL sees it.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Starts a transaction. Nothing is sent anywhere yet.
    fn begin(&self, options: TransactionOptions) -> Box<dyn Transaction>;

    /// The newest catalog this node has applied.
    fn catalog(&self) -> Arc<Catalog>;

    /// A 64-bit id that no other node and no other call will ever give; roughly ordered by time.
    fn unique_id(&self) -> i64;

    /// This node's id.
    fn node_id(&self) -> NodeId;

    /// Waits until a session's own early commit can be read here. 57P02 if it has been lost.
    async fn settle(&self, commit: EarlyCommit) -> Result<()> {
        let _ = commit;
        Ok(())
    }

    /// What this node's sessions have seen and written until now, to be followed elsewhere.
    async fn token(&self) -> Result<Token> {
        Ok(Token::default())
    }

    /// What the `amphora.*` views and `amphora status` show.
    fn status(&self) -> ClusterStatus;

    /// A directory for files that need not outlive the process; it may not be there yet. `None` if there is
    /// no disk to use.
    fn temp_dir(&self) -> Option<std::path::PathBuf> {
        None
    }

    /// Rows of a strong table that were written since this node started, those of others included. `None`
    /// if that is not counted.
    fn table_changes(&self, table: TableId) -> Option<u64> {
        let _ = table;
        None
    }

    /// A lock of a key of the application's own, cluster-wide and not yet held, for the session that
    /// [`TransactionOptions::session`] tells of. `lost` is called if it is lost after it was held. `None` where there
    /// are no such locks.
    fn advisory_lock(
        &self,
        session: u64,
        key: &[u8],
        lost: Arc<dyn Fn() + Send + Sync>,
    ) -> Option<Arc<dyn AdvisoryLock>> {
        let _ = (session, key, lost);
        None
    }

    /// The sessions of all other nodes that answer within two seconds.
    fn remote_sessions(&self) -> BoxFuture<'_, RemoteSessions> {
        Box::pin(async { RemoteSessions::default() })
    }

    /// Tells a session something, on whichever node it is. Takes two seconds at most for a node that is silent.
    fn signal_session(&self, pid: i32, signal: Signal) -> BoxFuture<'_, Signalled> {
        let _ = (pid, signal);
        Box::pin(async { Signalled::Unknown })
    }

    /// Compares the replicas of a table (`verify/`), those of a strong one at one timestamp and each with its indexes; those of a
    /// leaderless one are mended. Takes as long as it takes to read the table.
    fn verify_table(&self, table: TableId) -> BoxFuture<'_, Result<Vec<Verification>>> {
        let _ = table;
        Box::pin(async { Err(Error::new("0A000", "this node cannot compare replicas")) })
    }

    /// What the last check of each table found. Immediate.
    fn verifications(&self) -> Vec<Verification> {
        Vec::new()
    }

    /// Concurrent writes to leaderless tables of which one lost, as this node found them, the oldest first.
    fn conflicts(&self) -> Result<Vec<Conflict>> {
        Ok(Vec::new())
    }

    /// One of them.
    fn conflict(&self, id: i64) -> Result<Option<Conflict>> {
        let _ = id;
        Ok(None)
    }

    /// How many were found since this node started: schema, table, kind, count.
    fn conflict_counts(&self) -> Vec<(String, String, ConflictKind, u64)> {
        Vec::new()
    }

    /// Bytes of a table's rows and indexes on this node, about, as of a few seconds ago. Quick. `None` if
    /// that is not known.
    fn table_size(&self, table: TableId) -> Option<u64> {
        let _ = table;
        None
    }
}

/// The cluster as this node knows it.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct ClusterStatus {
    /// The cluster's id
    pub cluster_id: uuid::Uuid,
    /// All members
    pub nodes: Vec<NodeStatus>,
    /// The Raft group
    pub raft: RaftStatus,
    /// This node's view of how far its peers are
    pub replication: Vec<PeerLag>,
    /// Every table
    pub tables: Vec<TableStatus>,
}

/// A member's part in the Raft group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum NodeRole {
    /// Orders the writes of strong tables
    Leader,
    /// Counts for the majority
    Voter,
    /// Replicates, does not count
    Learner,
}

impl NodeRole {
    /// As the views print it.
    pub fn as_str(self) -> &'static str {
        match self {
            NodeRole::Leader => "leader",
            NodeRole::Voter => "voter",
            NodeRole::Learner => "learner",
        }
    }
}

/// A member's liveness as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum NodeState {
    /// Heard from lately
    Alive,
    /// The same, and sends its clients away before it is stopped
    Draining,
    /// Silent for longer than usual
    Suspect,
    /// Silent for so long that it is taken for dead
    Dead,
}

impl NodeState {
    /// As the views print it.
    pub fn as_str(self) -> &'static str {
        match self {
            NodeState::Alive => "alive",
            NodeState::Draining => "draining",
            NodeState::Suspect => "suspect",
            NodeState::Dead => "dead",
        }
    }
}

/// One member.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct NodeStatus {
    /// Id
    pub node_id: NodeId,
    /// Part in the Raft group
    pub role: NodeRole,
    /// Liveness, seen from here
    pub state: NodeState,
    /// Where SQL clients connect
    pub pg_address: String,
    /// Where peers connect
    pub rpc_address: String,
    /// Where `/health`, `/ready` and the console are
    pub http_address: String,
    /// `--region`
    pub region: String,
    /// `--leader-preference`, as it is for its region
    pub leader_preference: i32,
    /// Amphora's version
    pub version: String,
    /// Its clock minus ours, in milliseconds, when last heard
    pub clock_skew_ms: i64,
    /// How far it is with leaderless tables
    pub leaderless: Progress,
}

/// The Raft group, seen from this node.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct RaftStatus {
    /// Current term
    pub term: u64,
    /// The leader, if one is known
    pub leader: Option<NodeId>,
    /// Last entry in this node's log
    pub last_log_index: u64,
    /// Last entry known to be on a majority
    pub committed_index: u64,
    /// Last entry applied to this node's tables
    pub applied_index: u64,
    /// Last entry covered by a snapshot
    pub snapshot_index: u64,
    /// Last entry purged from this node's log
    pub purged_index: u64,
    /// The newest commit applied here
    pub applied_timestamp: Timestamp,
}

/// How far one peer is behind this node, in one mode of replication.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct PeerLag {
    /// The peer
    pub node_id: NodeId,
    /// `strong` or `leaderless`
    pub mode: String,
    /// Entries (strong) or batches (leaderless) it has not acknowledged
    pub lag: u64,
    /// Their bytes, where known
    pub lag_bytes: u64,
    /// Age of the oldest of them in milliseconds
    pub lag_ms: u64,
}

/// One table.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct TableStatus {
    /// Id
    pub table_id: TableId,
    /// Bytes on this node's disk, about
    pub size_bytes: u64,
}

/// What a consistency check thinks of a table's rows, or of an index, on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Verdict {
    /// As it should be
    Ok,
    /// Not what most of the others have, or nobody knows who is right
    Diverged,
    /// Rows and entries do not fit together
    Damaged,
    /// It cannot be read
    Unreadable,
    /// The node did not answer
    Unreachable,
    /// Rows of a leaderless table had lost something, or were damaged, and have been mended
    Repaired,
}

impl Verdict {
    /// As the view prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Diverged => "diverged",
            Verdict::Damaged => "damaged",
            Verdict::Unreadable => "unreadable",
            Verdict::Unreachable => "unreachable",
            Verdict::Repaired => "repaired",
        }
    }

    /// True if the data was not what it should be.
    pub fn is_wrong(self) -> bool {
        !matches!(self, Verdict::Ok | Verdict::Unreachable)
    }
}

/// What a consistency check found of a table's rows, or of an index, on one node.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Verification {
    /// The table
    pub table: TableId,
    /// Its schema
    pub schema_name: String,
    /// Its name
    pub table_name: String,
    /// The table itself, or the index
    pub object: String,
    /// Whose
    pub node: NodeId,
    /// As of when; the same for all nodes
    pub at: Timestamp,
    /// Rows or entries, if they could be read
    pub rows: Option<u64>,
    /// Over all of them, in hexadecimal digits
    pub checksum: Option<String>,
    /// What to think of it
    pub verdict: Verdict,
    /// Why, in words
    pub detail: String,
}

impl Verification {
    /// Without what was read.
    pub fn new(
        table: &Table,
        object: &str,
        node: NodeId,
        at: Timestamp,
        verdict: Verdict,
        detail: String,
    ) -> Verification {
        Verification {
            table: table.id,
            schema_name: table.schema.clone(),
            table_name: table.name.clone(),
            object: object.to_owned(),
            node,
            at,
            rows: None,
            checksum: None,
            verdict,
            detail,
        }
    }
}
