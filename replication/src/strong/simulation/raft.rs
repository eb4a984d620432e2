//! A Raft of three nodes, as small as it can be, with what leases rest on: a voter does not vote while it may rely on
//! a leader, nor soon after it was started, unless the leader itself hands over.
//!
//! An entry is the term under which it was appended. What is written is durable at once; a crash forgets the rest.

use std::time::{Duration, Instant};

/// A node, from 0.
pub type Node = usize;
/// How many there are.
pub const NODES: usize = 3;
/// The greatest election timeout, which is also how long followers rely on a leader.
pub const ELECTION: Duration = Duration::from_millis(600);

/// What one node asks of another, or answers.
#[derive(Clone, Debug)]
pub enum Message {
    /// To be elected; the length of its log and its last term
    Vote { term: u64, last: (u64, usize), handed_over: bool },
    /// It is
    Voted { term: u64 },
    /// Entries from a position on, as of a moment of the leader's clock
    Append { term: u64, from: usize, before: u64, entries: Vec<u64>, committed: usize, sent: Instant },
    /// The log is the leader's up to here
    Appended { term: u64, matched: usize, sent: Instant },
    /// The log is another one at the position before
    Differs { term: u64, sent: Instant },
    /// Be elected now
    HandOver { term: u64 },
}

/// What a leader knows of the others.
pub struct Leadership {
    /// How far each log is the leader's
    matched: [usize; NODES],
    /// Where to send from next
    next: [usize; NODES],
    /// When what each has answered was sent
    acked: [Option<Instant>; NODES],
    /// The first entry of its own
    pub first: usize,
}

/// A node of the group.
pub struct Raft {
    pub id: Node,
    pub term: u64,
    voted: Option<(u64, Node)>,
    pub log: Vec<u64>,
    pub committed: usize,
    /// Whom it follows, and when it heard of it last
    pub leader: Option<(Node, Instant)>,
    booted: Instant,
    votes: Vec<Node>,
    campaign: Option<u64>,
    pub leading: Option<Leadership>,
}

/// Messages to send.
pub type Out = Vec<(Node, Message)>;

impl Raft {
    pub fn new(id: Node, booted: Instant) -> Raft {
        Raft {
            id,
            term: 0,
            voted: None,
            log: Vec::new(),
            committed: 0,
            leader: None,
            booted,
            votes: Vec::new(),
            campaign: None,
            leading: None,
        }
    }

    /// What a crash leaves of it, started again. For the first node of all there is nobody to wait for.
    pub fn restarted(&self, booted: Instant) -> Raft {
        let (term, voted, log) = (self.term, self.voted, self.log.clone());
        Raft { term, voted, log, ..Raft::new(self.id, booted) }
    }

    /// Looks around for a leader as if it had never heard of any: for the beginning of a schedule.
    pub fn without_waiting(mut self) -> Raft {
        self.booted -= ELECTION;
        self
    }

    fn last(&self) -> (u64, usize) {
        (self.log.last().copied().unwrap_or(0), self.log.len())
    }

    fn others(&self) -> impl Iterator<Item = Node> + use<> {
        let id = self.id;
        (0..NODES).filter(move |n| *n != id)
    }

    /// When a quorum was last known to follow this leader, by its own clock.
    pub fn quorum_acked(&self) -> Option<Instant> {
        self.leading.as_ref().and_then(|l| l.acked.iter().flatten().max().copied())
    }

    /// True while this node relies on a leader, be it itself.
    fn relies(&self, now: Instant) -> bool {
        let heard = self.leader.map(|(_, heard)| heard).max(self.quorum_acked());
        heard.is_some_and(|heard| now < heard + ELECTION)
    }

    fn adopt(&mut self, term: u64) {
        if term > self.term {
            self.term = term;
            self.leading = None;
            self.leader = None;
            self.campaign = None;
        }
    }

    /// The election timer has gone off.
    pub fn elect(&mut self, now: Instant, handed_over: bool, out: &mut Out) {
        if self.leading.is_some() || !handed_over && (self.relies(now) || now < self.booted + ELECTION) {
            return;
        }
        self.adopt(self.term + 1);
        self.voted = Some((self.term, self.id));
        self.campaign = Some(self.term);
        self.votes = vec![self.id];
        let ask = Message::Vote { term: self.term, last: self.last(), handed_over };
        out.extend(self.others().map(|to| (to, ask.clone())));
    }

    /// Appends an entry of its own; where it stands.
    pub fn propose(&mut self, now: Instant, out: &mut Out) -> usize {
        self.log.push(self.term);
        self.replicate(now, out);
        self.log.len()
    }

    /// Sends everyone what it lacks, if only to be heard.
    pub fn replicate(&self, now: Instant, out: &mut Out) {
        out.extend(self.others().filter_map(|to| Some((to, self.append(now, to)?))));
    }

    fn append(&self, sent: Instant, to: Node) -> Option<Message> {
        let from = self.leading.as_ref()?.next[to];
        let before = from.checked_sub(1).map_or(0, |at| self.log[at]);
        let entries = self.log[from..].to_vec();
        Some(Message::Append { term: self.term, from, before, entries, committed: self.committed, sent })
    }

    pub fn handle(&mut self, now: Instant, from: Node, message: Message, out: &mut Out) {
        match message {
            Message::Vote { term, last, handed_over } => {
                if !handed_over && (self.relies(now) || now < self.booted + ELECTION) || last < self.last() {
                    return;
                }
                self.adopt(term);
                if term == self.term && self.voted.is_none_or(|v| v.0 < term || v == (term, from)) {
                    self.voted = Some((term, from));
                    out.push((from, Message::Voted { term }));
                }
            }
            Message::Voted { term } => {
                self.adopt(term);
                if self.campaign != Some(term) || self.votes.contains(&from) {
                    return;
                }
                self.votes.push(from);
                self.campaign = None;
                self.leader = None;
                self.leading = Some(Leadership {
                    matched: [0; NODES],
                    next: [self.log.len(); NODES],
                    acked: [None; NODES],
                    first: self.log.len() + 1,
                });
                self.propose(now, out);
            }
            Message::Append { term, from: at, before, entries, committed, sent } => {
                if term < self.term {
                    return;
                }
                self.adopt(term);
                self.campaign = None;
                self.leader = Some((from, now));
                let agrees = at == 0 || self.log.get(at - 1) == Some(&before);
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
            Message::Appended { term, matched, sent } => {
                self.adopt(term);
                let current = self.term;
                let Some(leading) = self.leading.as_mut().filter(|_| term == current) else { return };
                leading.acked[from] = leading.acked[from].max(Some(sent));
                leading.matched[from] = leading.matched[from].max(matched);
                leading.next[from] = leading.next[from].max(matched);
                let most = leading.matched.iter().max().copied().unwrap_or(0);
                // Only entries of its own term are counted; those before come with them.
                if most > self.committed && self.log[most - 1] == self.term {
                    self.committed = most;
                }
            }
            Message::Differs { term, sent } => {
                self.adopt(term);
                let current = self.term;
                let Some(leading) = self.leading.as_mut().filter(|_| term == current) else { return };
                leading.acked[from] = leading.acked[from].max(Some(sent));
                leading.next[from] = leading.matched[from];
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
