//! Asking all members, and what follows from their answers.

use std::sync::Arc;
use std::time::Duration;

use amphora_storage::Timestamp;
use amphora_storage::schema::{Table, TableId};
use futures::future::join_all;

use super::check::{ObjectReport, Pace, TableCheck};
use super::jobs::{Asked, Job};
use super::{Answers, CheckOrder, VerifyReply, VerifyRequest};
use crate::api::{Verdict, Verification};
use crate::node::{Node, load_catalog};
use crate::rpc::{RpcRequest, RpcResponse};
use crate::{Error, NodeId, Result};

/// How long a member may take to answer at all.
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// Between two questions for the same job.
const POLL: Duration = Duration::from_millis(200);
/// The first questions come sooner: most tables are small.
const FIRST_POLL: Duration = Duration::from_millis(5);
/// So many unanswered questions in a row, and a member counts as unreachable.
const MAX_UNANSWERED: u32 = 3;
/// What follows from a finding of which only a person knows what to do.
const NOT_REPAIRED: &str = "; nothing is repaired by itself: find out which side is right, then replace the node \
                            that is wrong";
/// How long a member may take to apply what the timestamp names.
pub(super) const CATCH_UP: Duration = Duration::from_secs(20);

impl Node {
    /// Compares the replicas of a table, of a strong one with their indexes as of now; those of a leaderless one are
    /// mended. `bytes_per_second` bounds what each node reads. 42P01
    pub async fn verify(&self, id: TableId, bytes_per_second: Option<u64>) -> Result<Vec<Verification>> {
        // A leaderless table can be compared without a majority.
        let known = crate::api::Engine::catalog(self).table_by_id(id).cloned();
        if let Some(table) = known.filter(|table| !table.is_strong()) {
            let found = self.verify_merged(&table, bytes_per_second).await?;
            self.publish(&found).await;
            return Ok(found);
        }
        let at = self.group().read_timestamp().await?;
        let catalog = load_catalog(self.store(), at)?;
        let Some(table) = catalog.table_by_id(id).cloned() else {
            return Err(Error::new("42P01", format!("could not open relation with OID {}", id.0)));
        };
        let order = CheckOrder { job: rand::random(), table: id, at, bytes_per_second };
        let members = self.group().members();
        let asked =
            members.iter().map(|(member, ..)| async move { (*member, self.ask(*member, order).await) });
        let mut answers = Answers { reports: Vec::new(), silent: Vec::new() };
        for (member, answer) in join_all(asked).await {
            match answer {
                Ok(report) => answers.reports.push((member, report)),
                Err(reason) => answers.silent.push((member, reason)),
            }
        }
        let found = answers.judge(&table, at);
        self.publish(&found).await;
        Ok(found)
    }

    /// One member's report, however long it takes.
    async fn ask(&self, member: NodeId, order: CheckOrder) -> std::result::Result<Vec<ObjectReport>, String> {
        let (mut unanswered, mut pause) = (0, FIRST_POLL);
        loop {
            let answer = if member == self.id() {
                Ok(self.check(member, order))
            } else {
                self.call_verify(member, VerifyRequest::Check(order)).await
            };
            match answer {
                Ok(VerifyReply::Done(report)) => return Ok(report),
                Ok(VerifyReply::Failed(reason)) => return Err(reason),
                Ok(VerifyReply::Working) => unanswered = 0,
                Ok(VerifyReply::Noted | VerifyReply::Repair(_)) => {
                    return Err("its answer is of another kind".to_owned());
                }
                Err(reason) if unanswered + 1 >= MAX_UNANSWERED => return Err(reason),
                Err(_) => unanswered += 1,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL);
        }
    }

    pub(super) async fn call_verify(
        &self,
        member: NodeId,
        request: VerifyRequest,
    ) -> std::result::Result<VerifyReply, String> {
        let address = self.address_of(member).ok_or("its address is not known")?;
        match self.client().call(member, &address, &RpcRequest::Verify(request), CALL_DEADLINE).await {
            Ok(RpcResponse::Verify(reply)) => Ok(reply),
            Ok(RpcResponse::Failed(reason)) => Err(reason),
            Ok(_) => Err("its answer is of another kind".to_owned()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Answers a coordinator.
    pub(crate) async fn handle_verify(&self, from: NodeId, request: VerifyRequest) -> VerifyReply {
        match request {
            VerifyRequest::Check(order) => self.check(from, order),
            VerifyRequest::Publish(found) => {
                self.note(found);
                VerifyReply::Noted
            }
            VerifyRequest::Repair(request) => VerifyReply::Repair(self.answer_repair(request).await),
        }
    }

    /// Begins a job, or says how far it is.
    fn check(&self, from: NodeId, order: CheckOrder) -> VerifyReply {
        let job = match self.verify_jobs().ask(from, order.job) {
            Asked::Answer(answer) => return answer,
            Asked::Begin(job) => job,
        };
        let (group, store) = (self.group().clone(), self.store().clone());
        let functions = self.verify_options().indexes;
        self.spawn(async move {
            let applied = tokio::time::timeout(CATCH_UP, group.wait_applied(order.at)).await;
            let hold = match applied {
                Ok(()) => group.hold_history(order.at),
                Err(_) => Err(Error::new("57P03", "it has not caught up in time")),
            };
            let worker = job.clone();
            let checked = match hold {
                Err(e) => Err(e),
                Ok(hold) => tokio::task::spawn_blocking(move || {
                    let catalog = load_catalog(&store, hold.at())?;
                    let Some(table) = catalog.table_by_id(order.table) else {
                        return Err(Error::new("42P01", "it does not know the table"));
                    };
                    let check = TableCheck { store: &store, table, at: hold.at(), functions };
                    check.run(&mut pace(&worker, order.bytes_per_second))
                })
                .await
                .unwrap_or_else(|e| Err(Error::new("XX000", e.to_string()))),
            };
            job.finish(match checked {
                Ok(reports) => VerifyReply::Done(reports),
                Err(e) => VerifyReply::Failed(e.to_string()),
            });
        });
        VerifyReply::Working
    }

    /// Tells everybody what was found.
    async fn publish(&self, found: &[Verification]) {
        self.note(found.to_vec());
        let members = self.group().members();
        let others = members.iter().map(|(id, ..)| *id).filter(|id| *id != self.id());
        join_all(others.map(|member| async move {
            let told = self.call_verify(member, VerifyRequest::Publish(found.to_vec())).await;
            if let Err(reason) = told {
                tracing::debug!(node = member, "could not be told what a check found: {reason}");
            }
        }))
        .await;
    }

    /// Remembers what was found of a table in the place of what was found before, and says aloud what is wrong.
    fn note(&self, found: Vec<Verification>) {
        for one in found.iter().filter(|one| one.verdict.is_wrong()) {
            tracing::error!(
                table = %one.table_name, object = %one.object, node = one.node, verdict = one.verdict.as_str(),
                "a consistency check found that the data is not what it should be: {}{}",
                one.detail,
                if one.verdict == Verdict::Repaired { "" } else { NOT_REPAIRED }
            );
        }
        self.remember_verifications(found);
    }
}

fn pace(job: &Arc<Job>, bytes_per_second: Option<u64>) -> Pace {
    let job = job.clone();
    Pace::new(bytes_per_second, move || job.is_wanted())
}

impl Answers {
    /// One verdict for each object and node.
    fn judge(&self, table: &Table, at: Timestamp) -> Vec<Verification> {
        let mut found = Vec::new();
        let objects = std::iter::once(&table.primary).chain(&table.indexes).enumerate();
        for (place, index) in objects {
            let object = if place == 0 { &table.name } else { &index.name };
            let reports: Vec<(NodeId, &ObjectReport)> = self
                .reports
                .iter()
                .filter_map(|(node, reports)| Some((*node, reports.get(place)?)))
                .collect();
            for (node, report) in &reports {
                let (verdict, detail) = verdict(*node, report, &reports);
                let readable = report.failed.is_none();
                found.push(Verification {
                    rows: readable.then_some(report.rows),
                    checksum: readable.then(|| hex(&report.checksum)),
                    ..Verification::new(table, object, *node, at, verdict, detail)
                });
            }
        }
        for (node, reason) in &self.silent {
            let verdict = Verdict::Unreachable;
            found.push(Verification::new(table, &table.name, *node, at, verdict, reason.clone()));
        }
        found
    }
}

/// What to think of one node's report, seen beside the others'.
fn verdict(node: NodeId, report: &ObjectReport, all: &[(NodeId, &ObjectReport)]) -> (Verdict, String) {
    if let Some(reason) = &report.failed {
        return (Verdict::Unreadable, reason.clone());
    }
    let readable = all.iter().filter(|(_, r)| r.failed.is_none());
    let agrees = |other: &ObjectReport| other.checksum == report.checksum && other.rows == report.rows;
    let (mut alike, mut other) = (Vec::new(), Vec::new());
    for (id, theirs) in readable {
        if agrees(theirs) { alike.push(*id) } else { other.push(*id) }
    }
    let mut details = Vec::new();
    let majority = alike.len() > other.len();
    let mut verdict = Verdict::Ok;
    if !other.is_empty() && !majority {
        verdict = Verdict::Diverged;
        let side: Vec<NodeId> = alike.into_iter().filter(|id| *id != node).collect();
        let with = if side.is_empty() { String::new() } else { format!(", as {} does", nodes(&side)) };
        details.push(format!("differs from {}{with}", nodes(&other)));
    }
    if !report.misfits.is_empty() {
        verdict = Verdict::Damaged;
        details.push(report.misfits.clone());
    }
    (verdict, details.join("; "))
}

fn nodes(ids: &[NodeId]) -> String {
    let list = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("{} {list}", if ids.len() == 1 { "node" } else { "nodes" })
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
