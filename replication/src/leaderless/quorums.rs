//! Waiting for other nodes: a commit until its write quorum has it, a statement until its read quorum was asked.
//!
//! Nobody who waits sends anything of its own. Commits wait in the order of their numbers, and a peer's answer, which
//! says up to which number it has them all, releases every commit that it completes a quorum for. Reads that
//! come while a question to a peer is under way share the next one: an answer counts for those who came before
//! it was asked, so that it tells of all that was acknowledged before them.
//!
//! ```text
//!   commits that wait                      acknowledged by        W = 2        W = 3
//!     7   8   9   10                       this node   10      ┌─ up to 9 ─┬─ up to 7
//!     ─────────► released in order         peer 2       9      │ 7, 8 and 9 go on
//!                                          peer 3       7      │           │ 7 goes on
//! ```
//!
//! As every write that was acknowledged is on W nodes' disks, and a read learns what R nodes have there and waits
//! until it is here too, a read sees the latest write if R + W > N, on whichever node it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use amphora_storage::schema::Quorum;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::dots::VersionVector;
use super::engine::{Engine, Members};
use super::messages::{PeerBody, PeerTransport};
use crate::{Error, NodeId, Result};

/// How long a commit waits for its write quorum, and a read for its read quorum, if nobody says otherwise.
pub const QUORUM_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what a peer has may take to come by itself before a read asks for it.
const COMES_BY_ITSELF: Duration = Duration::from_millis(15);
/// An answer that takes longer is not waited for: the link may have been cut, and be there again.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two questions to a peer that does not answer.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Commits that wait, by what they wait for.
#[derive(Default)]
pub(super) struct Waiting(Mutex<BTreeMap<Quorum, Commits>>);

/// Those who wait for a commit and all before it, by its number.
type Commits = BTreeMap<u64, Vec<oneshot::Sender<()>>>;

/// A place among those who wait; given up when dropped.
struct Place<'a> {
    waiting: &'a Waiting,
    quorum: Quorum,
    seq: u64,
    released: oneshot::Receiver<()>,
}

impl Waiting {
    fn enter(&self, quorum: Quorum, seq: u64) -> Place<'_> {
        let (release, released) = oneshot::channel();
        self.0.lock().entry(quorum).or_default().entry(seq).or_default().push(release);
        Place { waiting: self, quorum, seq, released }
    }

    /// Lets those go on whose commit is `reached`, which says up to which number a quorum has all.
    fn release(&self, reached: impl Fn(Quorum) -> u64) {
        let mut waiting = self.0.lock();
        waiting.retain(|quorum, commits| {
            let rest = commits.split_off(&reached(*quorum).saturating_add(1));
            for release in std::mem::replace(commits, rest).into_values().flatten() {
                // Who has given up has closed it.
                let _ = release.send(());
            }
            !commits.is_empty()
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.released.close();
        let mut waiting = self.waiting.0.lock();
        let Some(commits) = waiting.get_mut(&self.quorum) else { return };
        if let Some(there) = commits.get_mut(&self.seq) {
            there.retain(|release| !release.is_closed());
            if there.is_empty() {
                commits.remove(&self.seq);
            }
        }
        if commits.is_empty() {
            waiting.remove(&self.quorum);
        }
    }
}

/// What reads have asked one peer.
#[derive(Default)]
pub(super) struct Questions {
    /// Questions asked for, and how many of them had been when the last that was answered was asked
    wanted: u64,
    answered: u64,
    /// The answer
    said: VersionVector,
    /// Somebody waits for what the peer has and this node has not
    wanting: bool,
    /// Who last wanted to know waits until then
    until: Option<Instant>,
    /// A task asks
    asked: bool,
}

impl Members {
    /// Whether those nodes are enough. Before the members are known, nobody but this node counts.
    fn suffice(&self, quorum: Quorum, has: impl Fn(NodeId) -> bool) -> bool {
        if !self.known {
            return quorum == Quorum::ONE;
        }
        let region = |id: NodeId| self.regions.get(&id).map_or("", String::as_str);
        let peers = self.peers.keys().map(|&id| (region(id), has(id)));
        quorum.is_reached(region(self.own), peers.chain([(region(self.own), true)]))
    }

    /// Up to which of this node's commits a quorum has all of them.
    fn reached(&self, quorum: Quorum) -> u64 {
        let acked = |id: NodeId| self.peers.get(&id).map_or(0, |peer| peer.stream.acked().get(self.own));
        let mut candidates: Vec<u64> = self.peers.keys().map(|&id| acked(id)).collect();
        candidates.push(u64::MAX);
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        candidates.into_iter().find(|&seq| self.suffice(quorum, |id| acked(id) >= seq)).unwrap_or(0)
    }

    fn count(&self) -> usize {
        1 + self.peers.len()
    }

    /// These peers and this node, in words: `2 of 3 nodes (1, 2)`.
    fn share(&self, peers: impl Iterator<Item = NodeId>) -> String {
        let nodes: BTreeSet<NodeId> = peers.chain([self.own]).collect();
        let names: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
        format!("{} of {} nodes ({})", nodes.len(), self.count(), names.join(", "))
    }
}

fn in_words(quorum: Quorum) -> String {
    match quorum {
        Quorum::Nodes(1) => "of 1 node".to_owned(),
        Quorum::Nodes(n) => format!("of {n} nodes"),
        word => format!("\"{word}\""),
    }
}

impl Engine {
    /// Says in which regions the nodes are, this one included.
    pub fn set_regions(&self, regions: BTreeMap<NodeId, String>) {
        self.members.lock().regions = regions;
        self.release_waiting();
    }

    /// 55000 for a quorum of more nodes than there are: nothing has to be tried for that.
    pub fn check_quorum(&self, what: &str, quorum: Quorum) -> Result<()> {
        let members = self.members.lock();
        match quorum {
            Quorum::Nodes(n) if members.known && n as usize > members.count() => {
                Err(Error::new("55000", format!("{what} quorum of {n} nodes cannot be reached"))
                    .detail(match members.count() {
                        1 => "The cluster has 1 node.".to_owned(),
                        count => format!("The cluster has {count} nodes."),
                    })
                    .hint(format!("Lower amphora.{what}_quorum, or the table's {what}_quorum.")))
            }
            _ => Ok(()),
        }
    }

    /// Waits until this node's commit `seq` is on the disks of each of these quorums.
    ///
    /// Fails with 58000 when `patience` is over. The commit stays and will still spread: that is what the error says.
    pub async fn wait_quorums(&self, seq: u64, quorums: &BTreeSet<Quorum>, patience: Duration) -> Result<()> {
        if quorums.iter().all(|quorum| *quorum == Quorum::ONE) {
            return Ok(());
        }
        let deadline = Instant::now() + patience;
        let mut places: Vec<Place<'_>> =
            quorums.iter().map(|quorum| self.waiting.enter(*quorum, seq)).collect();
        for peer in self.members.lock().peers.values_mut() {
            peer.stream.hurry();
            peer.wake.notify_one();
        }
        self.release_waiting();
        for place in &mut places {
            let quorum = place.quorum;
            let released = tokio::time::timeout_at(deadline, &mut place.released).await;
            if !matches!(released, Ok(Ok(()))) {
                return Err(self.missed_write(seq, quorum));
            }
        }
        Ok(())
    }

    fn missed_write(&self, seq: u64, quorum: Quorum) -> Error {
        let members = self.members.lock();
        let having = members.peers.iter().filter(|(_, peer)| peer.stream.acked().get(self.id) >= seq);
        let share = members.share(having.map(|(&id, _)| id));
        Error::new("58000", format!("write quorum {} was not reached in time", in_words(quorum)))
            .detail(format!(
                "{share} acknowledged the write. It stands, and it will spread to the others."
            ))
            .hint(
                "Do not repeat a write that adds up. Check the nodes of the cluster, or lower amphora.write_quorum \
                 or the table's write_quorum.",
            )
    }

    /// A peer has said what it has, or the members are others: who waited for that goes on.
    pub(super) fn release_waiting(&self) {
        if self.waiting.is_empty() {
            return;
        }
        let members = self.members.lock();
        self.waiting.release(|quorum| members.reached(quorum));
    }

    /// Learns what each of these quorums has, and waits until local reads see it too.
    ///
    /// Fails with 58000 when `patience` is over.
    pub async fn ask_quorums(self: &Arc<Self>, quorums: &BTreeSet<Quorum>, patience: Duration) -> Result<()> {
        if quorums.iter().all(|quorum| *quorum == Quorum::ONE) {
            return Ok(());
        }
        let deadline = Instant::now() + patience;
        let mut heard = self.heard.subscribe();
        let tickets = self.ask_peers(deadline, false);
        let target = loop {
            heard.borrow_and_update();
            let missing = match self.answers(&tickets, quorums) {
                Ok(target) => break target,
                Err(missing) => missing,
            };
            if !matches!(tokio::time::timeout_at(deadline, heard.changed()).await, Ok(Ok(()))) {
                return Err(self.missed_read(&tickets, missing));
            }
        };
        let soon = deadline.min(Instant::now() + COMES_BY_ITSELF);
        if self.wait_covers(&target, soon.saturating_duration_since(Instant::now())).await.is_ok() {
            return Ok(());
        }
        self.ask_peers(deadline, true);
        self.wait_covers(&target, deadline.saturating_duration_since(Instant::now())).await
    }

    /// All that the peers have that answered, if they are enough; else a quorum that they are not enough for.
    fn answers(
        &self,
        tickets: &BTreeMap<NodeId, u64>,
        quorums: &BTreeSet<Quorum>,
    ) -> std::result::Result<VersionVector, Quorum> {
        let members = self.members.lock();
        let answered = |id: NodeId| members.has_answered(tickets, id);
        if let Some(missing) = quorums.iter().find(|quorum| !members.suffice(**quorum, answered)) {
            return Err(*missing);
        }
        let mut target = VersionVector::new();
        for (&id, peer) in &members.peers {
            if answered(id) {
                target.join(&peer.questions.said);
            }
        }
        Ok(target)
    }

    fn missed_read(&self, tickets: &BTreeMap<NodeId, u64>, quorum: Quorum) -> Error {
        let members = self.members.lock();
        let answering = members.peers.keys().copied().filter(|id| members.has_answered(tickets, *id));
        let share = members.share(answering);
        Error::new("58000", format!("read quorum {} was not reached in time", in_words(quorum)))
            .detail(format!("{share} answered."))
            .hint("Check the nodes of the cluster, or lower amphora.read_quorum or the table's read_quorum.")
    }

    /// Has every peer asked what it has, from now on. The tickets tell an answer to that from older ones.
    fn ask_peers(self: &Arc<Self>, until: Instant, wanting: bool) -> BTreeMap<NodeId, u64> {
        let mut tickets = BTreeMap::new();
        let Some(transport) = self.transport.get() else { return tickets };
        for (&id, peer) in &mut self.members.lock().peers {
            let questions = &mut peer.questions;
            questions.wanted += 1;
            questions.wanting |= wanting;
            questions.until = questions.until.max(Some(until));
            tickets.insert(id, questions.wanted);
            if !std::mem::replace(&mut questions.asked, true) {
                tokio::spawn(self.clone().ask_peer(id, transport.clone()));
            }
        }
        tickets
    }

    /// Asks a peer, one question at a time, as long as somebody wants to know.
    async fn ask_peer(self: Arc<Self>, id: NodeId, transport: Arc<dyn PeerTransport>) {
        while let Some((round, wanting)) = self.next_question(id) {
            let question = self.exchange(&*transport, id, PeerBody::Vector { wanting });
            let answer = tokio::select! {
                () = self.stopped.cancelled() => return,
                answer = tokio::time::timeout(ASK_TIMEOUT, question) => answer,
            };
            match answer {
                Ok(Ok(said)) => {
                    if let Some(peer) = self.members.lock().peers.get_mut(&id) {
                        (peer.questions.answered, peer.questions.said) = (round, said);
                    }
                    self.heard.send_modify(|n| *n = n.wrapping_add(1));
                }
                Ok(Err(_)) | Err(_) => tokio::time::sleep(ASK_AGAIN).await,
            }
        }
    }

    /// What is to be asked next: which question it is, and whether somebody waits for commits. `None` ends the asking.
    fn next_question(&self, id: NodeId) -> Option<(u64, bool)> {
        let mut members = self.members.lock();
        let questions = &mut members.peers.get_mut(&id)?.questions;
        let wanted = questions.wanted > questions.answered;
        if !wanted || questions.until.is_none_or(|until| until < Instant::now()) {
            questions.asked = false;
            return None;
        }
        Some((questions.wanted, std::mem::take(&mut questions.wanting)))
    }
}

impl Members {
    fn has_answered(&self, tickets: &BTreeMap<NodeId, u64>, id: NodeId) -> bool {
        let ticket = tickets.get(&id).copied().unwrap_or(u64::MAX);
        self.peers.get(&id).is_some_and(|peer| peer.questions.answered >= ticket)
    }
}
