//! A Raft whose members change, as small as it can be: configurations count from the moment they are appended, a change
//! of voters goes through an entry with both the old and the new voters, each of which must agree, and what changes
//! the membership is refused while another such entry is not committed (as openraft does).
//!
//! What is written is durable at once; a crash forgets the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::ChangeMembers;

use crate::NodeId;
use crate::strong::types::{LeaderId, LogId, Member};

/// The greatest election timeout, which is also how long followers rely on a leader.
pub const ELECTION: Duration = Duration::from_millis(600);

/// Who belongs to the group.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Config {
    /// Voters; two sets while they change
    pub voters: Vec<BTreeSet<NodeId>>,
    pub members: BTreeMap<NodeId, Member>,
}

impl Config {
    pub fn votes(&self, id: NodeId) -> bool {
        self.voters.iter().any(|set| set.contains(&id))
    }

    /// True if those who say yes are a majority of each set of voters.
    pub fn agree(&self, yes: impl Fn(NodeId) -> bool) -> bool {
        self.voters.iter().all(|set| set.iter().filter(|id| yes(**id)).count() > set.len() / 2)
    }

    /// The next configuration on the way, as openraft's `Membership::change`.
    fn changed(&self, change: &ChangeMembers<NodeId, Member>) -> Config {
        let mut next = self.clone();
        let last = self.voters.last().cloned().unwrap_or_default();
        let goal: BTreeSet<NodeId> = match change {
            ChangeMembers::AddVoterIds(ids) => last.union(ids).copied().collect(),
            ChangeMembers::RemoveVoters(ids) => last.difference(ids).copied().collect(),
            ChangeMembers::AddNodes(nodes) => {
                nodes.iter().for_each(|(id, m)| _ = next.members.entry(*id).or_insert_with(|| m.clone()));
                return next;
            }
            ChangeMembers::SetNodes(nodes) => {
                next.members.extend(nodes.clone());
                return next;
            }
            ChangeMembers::RemoveNodes(ids) => {
                next.members.retain(|id, _| !ids.contains(id));
                return next;
            }
            other => panic!("no step is {other:?}"),
        };
        assert!(goal.iter().all(|id| next.members.contains_key(id)), "voters are members");
        next.voters = if self.voters.contains(&goal) { vec![goal] } else { vec![last, goal] };
        next.members.retain(|id, _| !self.votes(*id) || next.voters.iter().any(|set| set.contains(id)));
        next
    }
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Nothing: leadership begins
    Blank,
    /// This node can never come back
    Removed(NodeId),
    Members(Arc<Config>),
}

pub type Entry = (u64, What);

/// What one node asks of another, or answers.
#[derive(Clone, Debug)]
pub enum Message {
    /// To be elected; the last term and the length of its log
    Vote { term: u64, last: (u64, usize), handed_over: bool },
    /// It is
    Voted { term: u64 },
    /// Entries from a position on, as of a moment of the leader's clock
    Append { term: u64, from: usize, before: u64, entries: Vec<Entry>, committed: usize, sent: Instant },
    /// The log is the leader's up to here
    Appended { term: u64, matched: usize, sent: Instant },
    /// The log is another one at the position before
    Differs { term: u64, sent: Instant },
    /// Be elected now
    HandOver { term: u64 },
}

/// What a leader knows of another member.
#[derive(Clone, Copy, Default)]
pub struct Progress {
    pub matched: Option<usize>,
    next: usize,
    /// When what it has answered was sent
    pub acked: Option<Instant>,
}

/// A node of the group.
pub struct Raft {
    pub id: NodeId,
    pub term: u64,
    voted: Option<(u64, NodeId)>,
    pub log: Vec<Entry>,
    pub committed: usize,
    /// Whom it follows, and when it heard of it last
    pub leader: Option<(NodeId, Instant)>,
    booted: Instant,
    votes: BTreeSet<NodeId>,
    campaign: Option<u64>,
    pub leading: Option<BTreeMap<NodeId, Progress>>,
    /// The first entry of this leadership
    first: usize,
}

pub type Out = Vec<(NodeId, Message)>;

impl Raft {
    pub fn new(id: NodeId, booted: Instant) -> Raft {
        Raft {
            id,
            term: 0,
            voted: None,
            log: Vec::new(),
            committed: 0,
            leader: None,
            booted,
            votes: BTreeSet::new(),
            campaign: None,
            leading: None,
            first: 0,
        }
    }

    /// One of those that found the group.
    pub fn founder(id: NodeId, booted: Instant, config: Config) -> Raft {
        Raft { log: vec![(0, What::Members(Arc::new(config)))], ..Raft::new(id, booted - ELECTION) }
    }

    /// What a crash leaves of it, started again.
    pub fn restarted(&self, booted: Instant) -> Raft {
        let (term, voted, log) = (self.term, self.voted, self.log.clone());
        Raft { term, voted, log, ..Raft::new(self.id, booted) }
    }

    /// The newest configuration, committed or not, and where it is.
    pub fn config(&self) -> (Arc<Config>, usize) {
        let newest = self.log.iter().enumerate().rev();
        let found = newest.filter_map(|(at, (_, what))| match what {
            What::Members(config) => Some((config.clone(), at + 1)),
            _ => None,
        });
        found.take(1).next().unwrap_or_default()
    }

    /// The entry that made the membership what it is.
    pub fn as_of(&self) -> Option<LogId> {
        let at = self.config().1;
        let term = self.log.get(at.checked_sub(1)?)?.0;
        Some(LogId { leader_id: LeaderId { term, node_id: 0 }, index: at as u64 })
    }

    fn last(&self) -> (u64, usize) {
        (self.log.last().map_or(0, |(term, _)| *term), self.log.len())
    }

    fn relies(&self, now: Instant) -> bool {
        if let Some(progress) = &self.leading {
            let config = self.config().0;
            let lately = |id: NodeId| {
                let acked = progress.get(&id).and_then(|p| p.acked);
                id == self.id || acked.is_some_and(|acked| now < acked + ELECTION)
            };
            return config.agree(lately);
        }
        self.leader.is_some_and(|(_, heard)| now < heard + ELECTION)
    }

    fn adopt(&mut self, term: u64) {
        if term > self.term {
            (self.term, self.leading, self.leader, self.campaign) = (term, None, None, None);
        }
    }

    /// The election timer has gone off.
    pub fn elect(&mut self, now: Instant, handed_over: bool, out: &mut Out) {
        let early = self.relies(now) || now < self.booted + ELECTION;
        let config = self.config().0;
        if self.leading.is_some() || !handed_over && early || !config.votes(self.id) {
            return;
        }
        self.adopt(self.term + 1);
        (self.voted, self.campaign) = (Some((self.term, self.id)), Some(self.term));
        self.votes = BTreeSet::from([self.id]);
        let ask = Message::Vote { term: self.term, last: self.last(), handed_over };
        let others = config.members.keys().filter(|id| **id != self.id && config.votes(**id));
        out.extend(others.map(|to| (*to, ask.clone())));
        self.count_votes(now, out);
    }

    fn count_votes(&mut self, now: Instant, out: &mut Out) {
        if self.campaign.is_some() && self.config().0.agree(|id| self.votes.contains(&id)) {
            (self.campaign, self.leader) = (None, None);
            self.leading = Some(BTreeMap::new());
            self.first = self.log.len() + 1;
            self.propose(What::Blank, now, out);
        }
    }

    /// Appends an entry of its own; where it stands.
    pub fn propose(&mut self, what: What, now: Instant, out: &mut Out) -> usize {
        self.log.push((self.term, what));
        self.replicate(now, out);
        self.count_copies();
        self.log.len()
    }

    /// The next configuration, if none is on its way and the membership is as of then.
    pub fn change(
        &mut self,
        change: &ChangeMembers<NodeId, Member>,
        as_of: Option<LogId>,
        now: Instant,
        out: &mut Out,
    ) -> Result<usize, ()> {
        let (config, at) = self.config();
        if at > self.committed || self.committed < self.first || self.as_of() != as_of {
            return Err(());
        }
        Ok(self.propose(What::Members(Arc::new(config.changed(change))), now, out))
    }

    /// Sends everyone what it lacks, if only to be heard.
    pub fn replicate(&mut self, now: Instant, out: &mut Out) {
        let (config, id, end) = (self.config().0, self.id, self.log.len());
        let Some(progress) = &mut self.leading else { return };
        progress.retain(|id, _| config.members.contains_key(id));
        for to in config.members.keys().filter(|to| **to != id) {
            progress.entry(*to).or_insert(Progress { next: end, ..Progress::default() });
        }
        let all: Vec<NodeId> = progress.keys().copied().collect();
        out.extend(all.into_iter().filter_map(|to| Some((to, self.append(now, to)?))));
    }

    fn append(&self, sent: Instant, to: NodeId) -> Option<Message> {
        let from = self.leading.as_ref()?.get(&to)?.next;
        let before = from.checked_sub(1).map_or(0, |at| self.log[at].0);
        let entries = self.log[from..].to_vec();
        Some(Message::Append { term: self.term, from, before, entries, committed: self.committed, sent })
    }

    /// What a majority has is committed, if it is of this leadership; so is all before it.
    fn count_copies(&mut self) {
        let Some(progress) = &self.leading else { return };
        let config = self.config().0;
        let has = |id: NodeId, at: usize| {
            id == self.id || progress.get(&id).is_some_and(|p| p.matched.is_some_and(|m| m >= at))
        };
        let committed = (self.committed.max(self.first - 1) + 1..=self.log.len())
            .rev()
            .find(|at| config.agree(|id| has(id, *at)));
        self.committed = self.committed.max(committed.unwrap_or(0));
        // Who does not vote any more leads no more.
        if self.config().1 <= self.committed && !config.votes(self.id) {
            self.leading = None;
        }
    }

    pub fn handle(&mut self, now: Instant, from: NodeId, message: Message, out: &mut Out) {
        match message {
            Message::Vote { term, last, handed_over } => {
                let early = self.relies(now) || now < self.booted + ELECTION;
                if term < self.term {
                    // It learns that it is behind.
                    out.push((from, Message::Differs { term: self.term, sent: now }));
                }
                if !handed_over && early {
                    return;
                }
                self.adopt(term);
                if last < self.last() {
                    return;
                }
                if term == self.term && self.voted.is_none_or(|v| v.0 < term || v == (term, from)) {
                    self.voted = Some((term, from));
                    out.push((from, Message::Voted { term }));
                }
            }
            Message::Voted { term } => {
                self.adopt(term);
                if self.campaign == Some(term) {
                    self.votes.insert(from);
                    self.count_votes(now, out);
                }
            }
            Message::Append { term, from: at, before, entries, committed, sent } => {
                if term < self.term {
                    // It learns that it leads no more.
                    out.push((from, Message::Differs { term: self.term, sent }));
                    return;
                }
                self.adopt(term);
                assert!(self.leading.is_none(), "two lead in term {term}");
                (self.campaign, self.leader) = (None, Some((from, now)));
                let agrees = at == 0 || self.log.get(at - 1).is_some_and(|(term, _)| *term == before);
                if !agrees {
                    out.push((from, Message::Differs { term, sent }));
                    return;
                }
                // An append that was overtaken by a later one takes nothing away.
                let matched = at + entries.len();
                if self.log.get(at..matched.min(self.log.len())) != Some(&entries[..]) {
                    self.log.truncate(at);
                    self.log.extend(entries);
                }
                self.committed = self.committed.max(committed.min(matched));
                out.push((from, Message::Appended { term, matched, sent }));
            }
            Message::Appended { term, .. } | Message::Differs { term, .. } if term != self.term => {
                self.adopt(term);
            }
            Message::Appended { matched, sent, .. } => {
                let Some(peer) = self.leading.as_mut().and_then(|l| l.get_mut(&from)) else { return };
                peer.acked = peer.acked.max(Some(sent));
                peer.matched = peer.matched.max(Some(matched));
                peer.next = peer.next.max(matched);
                self.count_copies();
            }
            Message::Differs { sent, .. } => {
                let Some(peer) = self.leading.as_mut().and_then(|l| l.get_mut(&from)) else { return };
                peer.acked = peer.acked.max(Some(sent));
                peer.next = peer.matched.unwrap_or(0);
                out.extend(self.append(now, from).map(|m| (from, m)));
            }
            Message::HandOver { term } => {
                if term == self.term && self.leader.is_some_and(|(leader, _)| leader == from) {
                    self.elect(now, true, out);
                }
            }
        }
    }
}
