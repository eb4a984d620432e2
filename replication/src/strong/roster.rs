//! What a leader decides about its members, from what it sees of them: who may be added, who becomes a voter, who may go
//! and in which steps, who could lead instead of it. No I/O and no clock: `membership.rs` and `leadership.rs` do
//! what is decided here, and `simulation/members.rs` does it under lost messages, crashes and changes of leadership.
//!
//! ```text
//!   roster (members, who was heard when, who has how much of the log) ─┐
//!   what is wanted ────────────────────────────────────────────────────┼─► decide ─► one step, or why not
//!   whether the node was removed before ───────────────────────────────┘      ▲         │ done, if the membership
//!                                                                             └─────────┘ is still the same
//! ```
//!
//! **Why nobody is asked twice and nothing is taken back.** A step counts only if the membership is still the one that the
//! roster showed ([`Roster::as_of`]); if it is not, all is decided anew. So two removals at once cannot each rely on the
//! other's node, and whoever is removed is not brought back by an announcement that was judged before. The roster is
//! looked at *before* it is looked up who was removed, and that is noted before a node goes. A note counts only if there has
//! been no other since that was looked up, and who is noted is counted on no more: or two could each be noted as the one of
//! two voters that goes, and the last voter of a group would be one that nobody may talk to.
//!
//! **What was begun is ended**, by whoever leads: a change of voters that lost its leader half way leaves the group with two
//! configurations, both of which must agree to everything ([`Change::Vote`] ends that), and a node that was noted as
//! removed goes even if nobody asks again. But nobody ends a change by which it goes itself: if it failed with that entry in
//! its log alone, the others would need its vote, which they would not get, for their logs are shorter, and it would not
//! stand for election, for it is no voter any more. It hands leadership over to one that stays. (Raft dissertation, 4.2.2,
//! lets such a node stand; openraft does not.)

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;

use super::types::{LogId, Member};
use crate::NodeId;

/// Where a successor is named: whoever is fittest.
pub(super) const FITTEST: NodeId = 0;

/// A member, as the leader sees it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub id: NodeId,
    pub member: Member,
    pub votes: bool,
    /// Of two configurations it is in the second, which is to be the only one
    pub stays: bool,
    /// The last entry it is known to have; none of the leader itself
    pub matched: Option<u64>,
    /// How long ago the last thing was sent that it has answered; zero of the leader itself
    pub heard: Option<Duration>,
}

impl Seen {
    fn is_alive(&self, since: Duration) -> bool {
        self.heard.is_some_and(|heard| heard < since || heard.is_zero())
    }
}

/// The members, as the leader sees them.
#[derive(Clone, Debug)]
pub(super) struct Roster {
    pub own: NodeId,
    /// The last entry of the leader's log
    pub last: u64,
    /// A learner or successor this close to the end of the log, in entries, has caught up
    pub caught_up: u64,
    /// The entry that made the membership what it is
    pub as_of: Option<LogId>,
    /// A change of voters has been begun and not ended: there are two configurations
    pub joint: bool,
    pub members: Vec<Seen>,
}

/// What is wanted of the membership.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// A member, or its addresses
    Add(NodeId, Member),
    /// A member goes for ever; forced even if then no other may fail
    Remove(NodeId, bool),
    /// A read replica is to vote
    Promote(NodeId),
    /// There is to be one configuration, and whoever has caught up is to vote
    Vote,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: it is as wanted
    Done,
    /// Nothing, for this reason
    Refuse(String),
    /// Nothing: that node has been removed, for ever
    Removed,
    /// Another must lead first
    HandOver,
    /// It must be noted first that the node can never come back
    Note,
    /// The group must agree to this; then all is decided anew
    Agree(ChangeMembers<NodeId, Member>),
}

/// A voter that might succeed the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    /// `--leader-preference`
    pub preference: i32,
    /// The last entry it has
    pub matched: u64,
    pub id: NodeId,
}

fn not_a_member(id: NodeId) -> Step {
    Step::Refuse(format!("node {id} is not a member of the cluster"))
}

impl Roster {
    fn find(&self, id: NodeId) -> Option<&Seen> {
        self.members.iter().find(|seen| seen.id == id)
    }

    /// True if all have answered what was sent not longer ago than this.
    pub fn all_answer(&self, since: Duration) -> bool {
        self.members.iter().all(|seen| seen.is_alive(since))
    }

    /// The next step to what is wanted. `noted` names the members that have been noted as removed, and the node that it is
    /// about if it has; `since` says how long ago a member may have been heard last to count as alive.
    pub fn decide(&self, change: &Change, noted: &BTreeSet<NodeId>, since: Duration) -> Step {
        // Who votes is a clear word only when there is one configuration.
        let settle = match self.find(self.own) {
            Some(own) if own.votes && !own.stays => Step::HandOver,
            _ => Step::Agree(ChangeMembers::AddVoterIds(BTreeSet::new())),
        };
        match change {
            Change::Add(id, _) if noted.contains(id) => Step::Removed,
            Change::Add(id, member) => match self.find(*id) {
                Some(seen) if seen.member.says_the_same(member) => Step::Done,
                Some(seen) => {
                    let member = Member { learner: seen.member.learner, ..member.clone() };
                    Step::Agree(ChangeMembers::SetNodes(BTreeMap::from([(*id, member)])))
                }
                None => Step::Agree(ChangeMembers::AddNodes(BTreeMap::from([(*id, member.clone())]))),
            },
            Change::Remove(id, force) => match self.find(*id) {
                None if noted.contains(id) => Step::Done,
                None => not_a_member(*id),
                Some(_) if self.joint => settle,
                Some(seen) => self.remove(seen, *force, noted, since),
            },
            Change::Promote(id) => match self.find(*id) {
                None => not_a_member(*id),
                Some(seen) if seen.member.learner => {
                    let member = Member { learner: false, ..seen.member.clone() };
                    Step::Agree(ChangeMembers::SetNodes(BTreeMap::from([(*id, member)])))
                }
                Some(_) => Step::Done,
            },
            Change::Vote if self.joint => settle,
            Change::Vote => match self.ripe(noted, since) {
                ripe if ripe.is_empty() => Step::Done,
                ripe => Step::Agree(ChangeMembers::AddVoterIds(ripe)),
            },
        }
    }

    fn remove(&self, gone: &Seen, force: bool, noted: &BTreeSet<NodeId>, since: Duration) -> Step {
        let id = gone.id;
        let removed = noted.contains(&id);
        // Those that are noted to go still vote, and soon will not: it must be well both ways.
        let judge = |noted| self.judge_removal(id, force, noted, since);
        match judge(&BTreeSet::new()).and_then(|()| judge(noted)) {
            Err(why) if removed => Step::Refuse(format!("{why}; once that is so it goes by itself")),
            Err(why) => Step::Refuse(why),
            Ok(()) if id == self.own => Step::HandOver,
            Ok(()) if !removed => Step::Note,
            Ok(()) if gone.votes => Step::Agree(ChangeMembers::RemoveVoters(BTreeSet::from([id]))),
            Ok(()) => Step::Agree(ChangeMembers::RemoveNodes(BTreeSet::from([id]))),
        }
    }

    /// Whether the cluster works on without a member; if not, why, for an operator. With `force` a removal may use
    /// up what can fail, but never stop the cluster. Whoever is `noted` is not counted.
    fn judge_removal(
        &self,
        id: NodeId,
        force: bool,
        noted: &BTreeSet<NodeId>,
        since: Duration,
    ) -> Result<(), String> {
        let Some(gone) = self.find(id).filter(|m| m.votes) else { return Ok(()) };
        let stays = |m: &&Seen| m.votes && m.id != id && !noted.contains(&m.id);
        let left: Vec<&Seen> = self.members.iter().filter(stays).collect();
        if left.is_empty() {
            return Err(format!("node {id} is the only voter: without it nothing is left of the cluster"));
        }
        let majority = left.len() / 2 + 1;
        let dead: Vec<String> =
            left.iter().filter(|m| !m.is_alive(since)).map(|m| m.id.to_string()).collect();
        let alive = left.len() - dead.len();
        let dead = dead.join(", ");
        if alive < majority {
            return Err(format!(
                "without node {id} only {alive} of {} voters would be alive, and strong tables need {majority}; bring \
                 back or remove the dead first (node {dead})",
                left.len(),
            ));
        }
        if gone.is_alive(since) && alive == majority && !dead.is_empty() && !force {
            return Err(format!(
                "node {id} works, and without it no other could fail any more; bring back or remove the dead first \
                 (node {dead}), or use --force",
            ));
        }
        Ok(())
    }

    /// Learners that are to vote and can: one that has died since must not become part of the quorum.
    fn ripe(&self, noted: &BTreeSet<NodeId>, lately: Duration) -> BTreeSet<NodeId> {
        let wanted = |seen: &Seen| !seen.votes && !seen.member.learner && !noted.contains(&seen.id);
        let is_ripe = |seen: &&Seen| wanted(seen) && self.keeps_up(seen, lately);
        self.members.iter().filter(is_ripe).map(|seen| seen.id).collect()
    }

    fn keeps_up(&self, seen: &Seen, lately: Duration) -> bool {
        let near = seen.matched.is_some_and(|matched| matched + self.caught_up >= self.last);
        near && seen.heard.is_some_and(|heard| heard < lately)
    }

    /// The other voters that could lead at once: heard of lately, and hardly behind.
    pub fn fit(&self, lately: Duration, avoided: &BTreeSet<NodeId>) -> Vec<Candidate> {
        let others = self.members.iter().filter(|seen| seen.votes && seen.stays && seen.id != self.own);
        let fit = others.filter(|seen| !avoided.contains(&seen.id) && self.keeps_up(seen, lately));
        let candidate = |seen: &Seen| {
            let (preference, matched) = (seen.member.preference, seen.matched.unwrap_or(0));
            Candidate { preference, matched, id: seen.id }
        };
        fit.map(candidate).collect()
    }

    /// The voter that is wanted as the next leader, or the fittest; or why there is none.
    pub fn successor(
        &self,
        wanted: NodeId,
        lately: Duration,
        avoided: &BTreeSet<NodeId>,
    ) -> Result<NodeId, String> {
        let fit = self.fit(lately, avoided);
        if wanted == FITTEST {
            let fittest = fit.iter().max().map(|candidate| candidate.id);
            return fittest.ok_or_else(|| "no other voter is alive and has caught up".to_owned());
        }
        match fit.iter().any(|candidate| candidate.id == wanted) {
            true => Ok(wanted),
            false => {
                Err(format!("node {wanted} is not alive, is being drained, or is too far behind to lead"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATELY: Duration = Duration::from_secs(1);

    /// `+` a voter that is alive, `-` a dead one, `o` a replica, `l` a learner; ids from 1, of whom the first leads.
    fn cluster(picture: &str) -> Roster {
        let seen = |(i, c)| Seen {
            id: i as NodeId + 1,
            member: Member { learner: c == 'o', ..Member::default() },
            votes: c == '+' || c == '-',
            stays: true,
            matched: Some(90),
            heard: Some(if c == '-' { LATELY * 2 } else { LATELY / 2 }),
        };
        let members = picture.chars().enumerate().map(seen).collect();
        Roster { own: 1, last: 100, caught_up: 10, as_of: None, joint: false, members }
    }

    #[test]
    fn a_removal_never_stops_the_cluster() {
        // Members, who goes, without and with force
        for (picture, id, plain, forced) in [
            ("+", 1, false, false),
            ("++", 1, true, true),
            ("+++", 3, true, true),
            ("++-", 3, true, true),
            ("++-", 1, false, false),
            ("+++-", 1, false, true),
            ("+++-", 4, true, true),
            ("+++--", 1, false, false),
            ("+++--", 5, true, true),
            ("++++-", 1, false, true),
            ("+++++", 1, true, true),
            ("++++--", 1, false, true),
            ("+o", 2, true, true),
            ("+o", 1, false, false),
            ("+ol", 1, false, false),
        ] {
            let members = cluster(picture);
            let allowed = |force| members.judge_removal(id, force, &BTreeSet::new(), LATELY).is_ok();
            assert_eq!((allowed(false), allowed(true)), (plain, forced), "{picture} without {id}");
        }
        let reason =
            cluster("++-").judge_removal(1, true, &BTreeSet::new(), LATELY).err().unwrap_or_default();
        assert!(reason.contains("only 1 of 2 voters") && reason.contains("node 3"), "{reason}");
    }

    #[test]
    fn a_removal_is_noted_before_it_is_made_and_a_leader_goes_last() {
        let (members, gone) = (cluster("+++o"), |id| Change::Remove(id, false));
        assert_eq!(members.decide(&gone(1), &BTreeSet::new(), LATELY), Step::HandOver);
        assert_eq!(members.decide(&gone(2), &BTreeSet::new(), LATELY), Step::Note);
        let voter = Step::Agree(ChangeMembers::RemoveVoters(BTreeSet::from([2])));
        assert_eq!(members.decide(&gone(2), &BTreeSet::from([2]), LATELY), voter);
        let replica = Step::Agree(ChangeMembers::RemoveNodes(BTreeSet::from([4])));
        assert_eq!(members.decide(&gone(4), &BTreeSet::from([4]), LATELY), replica);
        assert_eq!(members.decide(&gone(5), &BTreeSet::from([5]), LATELY), Step::Done);
        assert!(
            matches!(members.decide(&gone(5), &BTreeSet::new(), LATELY), Step::Refuse(why) if why.contains("not a member"))
        );
        let again = Change::Add(5, Member::default());
        assert_eq!(members.decide(&again, &BTreeSet::from([5]), LATELY), Step::Removed);
        // Two that go are not counted on by each other.
        let pair = cluster("++").decide(&gone(1), &BTreeSet::from([2]), LATELY);
        assert!(matches!(pair, Step::Refuse(why) if why.contains("only voter")));
        // One that goes and is dead still counts as long as it is there.
        let dead = cluster("++-").decide(&gone(2), &BTreeSet::from([3]), LATELY);
        assert!(matches!(dead, Step::Refuse(why) if why.contains("only 1 of 2 voters")));
        let settle = Step::Agree(ChangeMembers::AddVoterIds(BTreeSet::new()));
        let mut joint = Roster { joint: true, ..members };
        assert_eq!(joint.decide(&gone(2), &BTreeSet::from([2]), LATELY), settle);
        assert_eq!(joint.decide(&Change::Vote, &BTreeSet::new(), LATELY), settle);
        // The leader is the one that goes.
        joint.members[0].stays = false;
        assert_eq!(joint.decide(&Change::Vote, &BTreeSet::new(), LATELY), Step::HandOver);
    }

    #[test]
    fn who_has_caught_up_and_is_alive_votes_and_may_lead() {
        let mut members = cluster("++lolll");
        members.members[4].matched = Some(89);
        members.members[5].matched = None;
        members.members[6].heard = Some(LATELY);
        let votes = Step::Agree(ChangeMembers::AddVoterIds(BTreeSet::from([3])));
        assert_eq!(members.decide(&Change::Vote, &BTreeSet::new(), LATELY), votes);
        let nobody = BTreeSet::new();
        assert_eq!(members.successor(FITTEST, LATELY, &nobody), Ok(2));
        assert!(members.successor(3, LATELY, &nobody).is_err(), "a learner");
        assert!(members.successor(2, LATELY, &BTreeSet::from([2])).is_err(), "is being drained");
        members.members[1].heard = Some(LATELY);
        assert!(members.successor(2, LATELY, &nobody).is_err(), "dead");
    }
}
