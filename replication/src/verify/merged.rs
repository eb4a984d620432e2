//! The consistency check of a leaderless table: is there anything that a node has seen, and has no more?
//!
//! One node compares itself with each of the others, stretch by stretch of the table, and mends what it finds; what may
//! differ, and how it is told from what may not, is in [`repair`](crate::leaderless::repair). Through the one that
//! compares everybody gets what everybody has:
//!
//! ```text
//!     for each stretch:   trees of all ──► keys that differ anywhere
//!                         states of all, joined here ──► joined state ──► to all that differ
//! ```
//!
//! No node stands still for it. A node that cannot be reached, or does not come to see what another has seen, is
//! named as such and is compared next time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use amphora_storage::key;
use amphora_storage::schema::{IndexId, Table};
use futures::future::join_all;
use sha2::{Digest, Sha256};

use super::check::{Named, show};
use super::coordinator::{CATCH_UP, hex};
use super::{VerifyReply, VerifyRequest};
use crate::api::{Verdict, Verification};
use crate::leaderless::merkle::{Leaves, MerkleTree};
use crate::leaderless::repair::{
    FoundRow, OfferedRow, ROWS_AT_A_TIME, RepairReply, RepairRequest, RowHashes, Seen, Stretch,
};
use crate::node::Node;
use crate::{Error, NodeId, Result};

/// How long a member waits to have seen enough before it says that it has not.
const WAIT: Duration = Duration::from_secs(2);
/// Between two looks at how far the Raft log is applied.
const LOOK: Duration = Duration::from_millis(10);

type Keys = BTreeSet<Vec<u8>>;
type Answer<T> = std::result::Result<T, Silence>;

/// Why a member cannot be compared.
#[derive(Clone, Debug)]
struct Silence {
    reason: String,
    /// Its disk is why
    unreadable: bool,
}

impl From<String> for Silence {
    fn from(reason: String) -> Silence {
        Silence { reason, unreadable: false }
    }
}

impl From<&str> for Silence {
    fn from(reason: &str) -> Silence {
        reason.to_owned().into()
    }
}

/// What was found of one node.
#[derive(Default)]
struct Findings {
    rows: u64,
    checksum: Sha256,
    /// Rows that lacked something, and have it now
    mended: Named,
    /// Rows with a wrong checksum, by key; true once they are replaced
    damaged: BTreeMap<Vec<u8>, bool>,
    /// Why it could not be compared, or not to the end
    silent: Option<Silence>,
}

/// One comparison.
struct Comparison<'a> {
    node: &'a Node,
    table: &'a Table,
    found: BTreeMap<NodeId, Findings>,
}

impl Node {
    /// Compares a leaderless table on all members that can be reached, and mends it.
    pub(super) async fn verify_merged(
        &self,
        table: &Table,
        bytes_per_second: Option<u64>,
    ) -> Result<Vec<Verification>> {
        let members = self.group().members().into_iter().map(|(id, ..)| id).chain([self.id()]);
        let found = members.map(|id| (id, Findings::default())).collect();
        let mut comparison = Comparison { node: self, table, found };
        comparison.run(bytes_per_second).await?;
        Ok(comparison.judge())
    }

    /// Answers whoever compares.
    pub(super) async fn answer_repair(&self, request: RepairRequest) -> RepairReply {
        if let RepairRequest::States(_, seen) | RepairRequest::Join(_, seen) = &request
            && !self.wait_seen(seen, WAIT).await
        {
            return RepairReply::Behind;
        }
        if let RepairRequest::Join(rows, _) = &request
            && !rows.iter().all(|row| self.knows_table_of(&row.key))
        {
            return RepairReply::Failed("the table has been dropped or truncated".to_owned());
        }
        let (engine, group) = (self.leaderless().clone(), self.group().applied_index());
        let answer = tokio::task::spawn_blocking(move || engine.answer_repair(request, group)).await;
        answer.unwrap_or_else(|e| RepairReply::Failed(e.to_string()))
    }

    /// True as soon as this node has seen that much; false if not in time.
    async fn wait_seen(&self, seen: &Seen, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while self.group().applied_index() < seen.group {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        self.leaderless().wait_seen(seen, until.saturating_duration_since(Instant::now())).await
    }

    /// A row of a keyspace that is no table's any more is not to come back.
    fn knows_table_of(&self, row_key: &[u8]) -> bool {
        let keyspace = key::split_prefix(row_key).map(|(keyspace, ..)| keyspace);
        crate::api::Engine::catalog(self).tables().any(|table| Some(table.keyspace()) == keyspace)
    }
}

impl Comparison<'_> {
    async fn run(&mut self, bytes_per_second: Option<u64>) -> Result<()> {
        let Range { mut start, end } = key::index_range(self.table.keyspace(), IndexId::PRIMARY);
        let (began, mut read) = (Instant::now(), 0u64);
        while start < end {
            let stretch = match self.stretch(start.clone()..end.clone()).await {
                Ok(stretch) => stretch,
                Err(e) => {
                    // Without rows of its own this node cannot say what the others should have.
                    self.silence(self.node.id(), Silence { reason: e.to_string(), unreadable: true });
                    let reason = "the node that compares cannot read its own rows";
                    self.others().into_iter().for_each(|member| self.silence(member, reason.into()));
                    return Ok(());
                }
            };
            read += stretch.bytes as u64;
            start.clone_from(&stretch.leaves.end);
            self.compare(stretch).await?;
            if let Some(rate) = bytes_per_second {
                let due = Duration::from_secs_f64(read as f64 / rate.max(1) as f64);
                tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
            }
        }
        self.keep().await;
        Ok(())
    }

    /// What was mended is in no log: it is put on disk at once.
    async fn keep(&self) {
        let mended = self.found.iter().filter(|(_, f)| f.is_mended()).map(|(id, _)| *id);
        let kept = mended.map(|member| async move { (member, self.ask(member, RepairRequest::Keep).await) });
        for (member, answer) in join_all(kept).await {
            if let Err(Silence { reason, .. }) = answer {
                tracing::warn!(node = member, "what was mended is not on its disk yet: {reason}");
            }
        }
    }

    async fn stretch(&self, range: Range<Vec<u8>>) -> Result<Stretch> {
        let engine = self.node.leaderless().clone();
        let cut = tokio::task::spawn_blocking(move || engine.stretch(range)).await;
        cut.map_err(|e| Error::new("XX000", e.to_string()))?
    }

    /// The members that have answered everything so far, this node excepted.
    fn others(&self) -> Vec<NodeId> {
        let answering = self.found.iter().filter(|(id, f)| **id != self.node.id() && f.silent.is_none());
        answering.map(|(id, _)| *id).collect()
    }

    fn silence(&mut self, member: NodeId, reason: Silence) {
        self.found.entry(member).or_default().silent = Some(reason);
    }

    /// One stretch: find the rows that differ anywhere, and mend them.
    async fn compare(&mut self, stretch: Stretch) -> Result<()> {
        let own = self.found.entry(self.node.id()).or_default();
        own.rows += stretch.tree.rows;
        own.checksum.update(stretch.tree.root().unwrap_or(&[0; 32]));
        own.damaged.extend(stretch.damaged.iter().map(|key| (key.clone(), false)));
        let mut differing: BTreeMap<NodeId, Keys> = BTreeMap::new();
        let others = self.others();
        let (comparison, stretch) = (&*self, &stretch);
        let asked =
            others.iter().map(|&member| async move { (member, comparison.differing(member, stretch).await) });
        for (member, answer) in join_all(asked).await {
            match answer {
                Ok((rows, root, keys)) => {
                    let findings = self.found.entry(member).or_default();
                    findings.rows += rows;
                    findings.checksum.update(root);
                    differing.insert(member, keys);
                }
                Err(reason) => self.silence(member, reason),
            }
        }
        // A row that is damaged here is asked of everybody, whatever the hashes say.
        let mut keys: Vec<Vec<u8>> = stretch.damaged.clone();
        keys.extend(differing.values().flatten().cloned());
        keys.sort_unstable();
        keys.dedup();
        for keys in keys.chunks(ROWS_AT_A_TIME) {
            self.mend(keys.to_vec()).await?;
        }
        Ok(())
    }

    /// How many rows a member has in a stretch, under which root, and which of them are not as they are here.
    async fn differing(&self, member: NodeId, stretch: &Stretch) -> Answer<(u64, [u8; 32], Keys)> {
        let root = stretch.tree.root().copied();
        let theirs: MerkleTree =
            match self.ask(member, RepairRequest::Tree(stretch.leaves.clone(), root)).await? {
                RepairReply::Same(rows) => return Ok((rows, root.unwrap_or_default(), Keys::new())),
                RepairReply::Tree(tree) => tree,
                other => return Err(strange(other)),
            };
        let Some(leaves) = stretch.tree.differing(&theirs) else {
            return Err("its tree is of other ranges".into());
        };
        let mut keys = Keys::new();
        for leaf in leaves {
            self.differing_in(member, &stretch.leaves, leaf, &mut keys).await?;
        }
        Ok((theirs.rows, theirs.root().copied().unwrap_or_default(), keys))
    }

    async fn differing_in(
        &self,
        member: NodeId,
        leaves: &Leaves,
        leaf: usize,
        keys: &mut Keys,
    ) -> Answer<()> {
        let Some(mut range) = leaves.range(leaf) else { return Ok(()) };
        loop {
            let theirs = match self.ask(member, RepairRequest::Hashes(range.clone())).await? {
                RepairReply::Hashes(hashes) => hashes,
                other => return Err(strange(other)),
            };
            let until = theirs.next.clone().unwrap_or_else(|| range.end.clone());
            let ours = self.own_hashes(range.start..until.clone()).await?;
            keys.extend(unequal(ours, theirs));
            if until >= range.end {
                return Ok(());
            }
            range.start = until;
        }
    }

    async fn own_hashes(&self, mut range: Range<Vec<u8>>) -> Answer<RowHashes> {
        let mut all = RowHashes { rows: Vec::new(), next: None };
        loop {
            let (engine, part) = (self.node.leaderless().clone(), range.clone());
            let part = tokio::task::spawn_blocking(move || engine.hashes(part)).await;
            let part = part.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
            all.rows.extend(part.rows);
            match part.next {
                Some(next) => range.start = next,
                None => return Ok(all),
            }
        }
    }

    /// Brings some rows together: everybody's here, and then ours to everybody.
    async fn mend(&mut self, keys: Vec<Vec<u8>>) -> Result<()> {
        let mut rest = keys.as_slice();
        while !rest.is_empty() {
            // Bytes may end a page earlier than rows do; the shortest answer says how far this round goes.
            let mut page = rest.to_vec();
            let (own, _) = match self.states(self.node.id(), &page, Seen::default()).await {
                Ok(own) => own,
                Err(reason) => {
                    self.silence(self.node.id(), reason);
                    return Ok(());
                }
            };
            page.truncate(own.len());
            let damaged_here = self.note_damaged(self.node.id(), &page, &own);
            let basis = if damaged_here.is_empty() { Seen::default() } else { self.seen_here() };
            let mut damaged: BTreeMap<NodeId, Keys> = BTreeMap::new();
            for member in self.others() {
                match self.states(member, &page, basis.clone()).await {
                    Ok((rows, seen)) => {
                        page.truncate(rows.len());
                        damaged.insert(member, self.note_damaged(member, &page, &rows));
                        let offered = offered(&page, rows, &damaged_here);
                        // Even without rows: what is offered to a damaged row must have seen what that row had.
                        if let Err(reason) = self.join(self.node.id(), offered, seen).await {
                            self.silence(member, reason);
                        }
                    }
                    Err(reason) => self.silence(member, reason),
                }
            }
            self.spread(&page, &damaged).await;
            if page.is_empty() {
                return Ok(());
            }
            rest = rest.get(page.len()..).unwrap_or_default();
        }
        Ok(())
    }

    /// Offers what is here now to all the others.
    async fn spread(&mut self, page: &[Vec<u8>], damaged: &BTreeMap<NodeId, Keys>) {
        let mut rest = page;
        while !rest.is_empty() {
            let (rows, seen) = match self.states(self.node.id(), rest, Seen::default()).await {
                Ok(found) => found,
                Err(reason) => return self.silence(self.node.id(), reason),
            };
            let count = rows.len().max(1);
            let part = rest.get(..count).unwrap_or(rest);
            for member in self.others() {
                let none = Keys::new();
                let theirs = offered(part, rows.clone(), damaged.get(&member).unwrap_or(&none));
                if !theirs.is_empty()
                    && let Err(reason) = self.join(member, theirs, seen.clone()).await
                {
                    self.silence(member, reason);
                }
            }
            rest = rest.get(count..).unwrap_or_default();
        }
    }

    /// A member's states of the first of some rows, once it has seen something.
    async fn states(&self, member: NodeId, keys: &[Vec<u8>], seen: Seen) -> Answer<(Vec<FoundRow>, Seen)> {
        match self.ask(member, RepairRequest::States(keys.to_vec(), seen)).await? {
            RepairReply::States(rows, seen) if !rows.is_empty() => Ok((rows, seen)),
            other => Err(strange(other)),
        }
    }

    /// Lets a member join rows, and takes note of those that were news to it.
    async fn join(&mut self, member: NodeId, rows: Vec<OfferedRow>, seen: Seen) -> Answer<()> {
        let news = match self.ask(member, RepairRequest::Join(rows, seen)).await? {
            RepairReply::Joined(news) => news,
            other => return Err(strange(other)),
        };
        let findings = self.found.entry(member).or_default();
        for key in news {
            match findings.damaged.get_mut(&key) {
                Some(replaced) => *replaced = true,
                None => findings.mended.add(|| show(self.table, &key)),
            }
        }
        Ok(())
    }

    fn note_damaged(&mut self, member: NodeId, keys: &[Vec<u8>], rows: &[FoundRow]) -> Keys {
        let damaged = keys.iter().zip(rows).filter(|(_, row)| **row == FoundRow::Damaged);
        let damaged: Keys = damaged.map(|(key, _)| key.clone()).collect();
        let known = &mut self.found.entry(member).or_default().damaged;
        for key in &damaged {
            known.entry(key.clone()).or_insert(false);
        }
        damaged
    }

    fn seen_here(&self) -> Seen {
        Seen { vector: self.node.leaderless().applied(), group: self.node.group().applied_index() }
    }

    /// Asks a member, this node included, until it has seen enough to answer.
    async fn ask(&self, member: NodeId, request: RepairRequest) -> Answer<RepairReply> {
        let until = Instant::now() + CATCH_UP;
        loop {
            let reply = if member == self.node.id() {
                self.node.answer_repair(request.clone()).await
            } else {
                match self.node.call_verify(member, VerifyRequest::Repair(request.clone())).await? {
                    VerifyReply::Repair(reply) => reply,
                    _ => return Err("its answer is of another kind".into()),
                }
            };
            match reply {
                RepairReply::Behind if Instant::now() < until => {}
                RepairReply::Behind => return Err("it has not caught up in time".into()),
                refused @ (RepairReply::Failed(_) | RepairReply::Unreadable(_)) => {
                    return Err(strange(refused));
                }
                other => return Ok(other),
            }
        }
    }

    fn judge(self) -> Vec<Verification> {
        let Comparison { node, table, found } = self;
        let at = node.leaderless().now();
        found
            .into_iter()
            .map(|(member, findings)| {
                let (verdict, detail) = findings.verdict(table);
                let complete = findings.silent.is_none();
                Verification {
                    rows: complete.then_some(findings.rows),
                    checksum: complete
                        .then(|| hex(findings.checksum.finalize().get(..16).unwrap_or_default())),
                    ..Verification::new(table, &table.name, member, at, verdict, detail)
                }
            })
            .collect()
    }
}

impl Findings {
    fn is_mended(&self) -> bool {
        self.mended.count() > 0 || self.damaged.values().any(|replaced| *replaced)
    }

    fn verdict(&self, table: &Table) -> (Verdict, String) {
        let (mut replaced, mut damaged) = (Named::default(), Named::default());
        for (key, done) in &self.damaged {
            if *done { &mut replaced } else { &mut damaged }.add(|| show(table, key));
        }
        let mended = [
            self.mended
                .tell("row had lost writes, and has them again", "rows had lost writes, and have them again"),
            replaced.tell("row was damaged, and is replaced", "rows were damaged, and are replaced"),
        ];
        let damaged = damaged.tell("row is damaged", "rows are damaged");
        let verdict = match (&damaged, &self.silent) {
            (Some(_), _) => Verdict::Damaged,
            (None, _) if mended.iter().any(Option::is_some) => Verdict::Repaired,
            (None, Some(silence)) if silence.unreadable => Verdict::Unreadable,
            (None, Some(_)) => Verdict::Unreachable,
            (None, None) => Verdict::Ok,
        };
        let parts = mended
            .into_iter()
            .flatten()
            .chain(damaged)
            .chain(self.silent.as_ref().map(|silence| silence.reason.clone()));
        (verdict, parts.collect::<Vec<_>>().join("; "))
    }
}

/// The rows that are in one list and not, or not so, in the other.
fn unequal(ours: RowHashes, theirs: RowHashes) -> impl Iterator<Item = Vec<u8>> {
    let ours: BTreeMap<_, _> = ours.rows.into_iter().collect();
    let theirs: BTreeMap<_, _> = theirs.rows.into_iter().collect();
    let there: Vec<Vec<u8>> = theirs
        .iter()
        .filter(|(key, hash)| ours.get(*key) != Some(hash))
        .map(|(key, _)| key.clone())
        .collect();
    let here: Vec<Vec<u8>> = ours.into_keys().filter(|key| !theirs.contains_key(key)).collect();
    there.into_iter().chain(here)
}

fn offered(keys: &[Vec<u8>], rows: Vec<FoundRow>, damaged: &Keys) -> Vec<OfferedRow> {
    let pairs = keys.iter().zip(rows);
    let sound = pairs.filter_map(|(key, row)| match row {
        FoundRow::Sound(state) => {
            Some(OfferedRow { key: key.clone(), state, replace: damaged.contains(key) })
        }
        FoundRow::Absent | FoundRow::Damaged => None,
    });
    sound.collect()
}

fn strange(reply: RepairReply) -> Silence {
    match reply {
        RepairReply::Failed(reason) => reason.into(),
        RepairReply::Unreadable(reason) => Silence { reason, unreadable: true },
        _ => "its answer is of another kind".into(),
    }
}
