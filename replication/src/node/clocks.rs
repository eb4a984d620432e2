//! The members' clocks, compared: whose is wrong, and what this node takes for the time.
//!
//! Timestamps decide between concurrent writes, so a node whose time of day is an hour ahead would win for an hour, and one
//! that is behind would lose. Therefore the node's clock does not follow the machine's by itself
//! ([`Hlc`](amphora_storage::Hlc)): every few seconds it is compared with the others, and what most of them agree on decides.
//!
//! ```text
//!                           this machine says    most members say     this node takes
//!   all is well             12:00:00             12:00:00             its machine's time
//!   the machine jumped      13:00:00             12:00:00             12:00:00, as it did before, and says so
//!   it woke up              13:00:00             13:00:00             13:00:00
//!   it started wrong        13:00:00             12:00:00             12:00:00
//!   nobody answers          13:00:00             –                    12:00:00, as it did before
//! ```
//!
//! Each node shows in `amphora.nodes` how far each machine's time is from what it takes for the time itself.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tracing::{error, warn};

use super::Node;
use crate::NodeId;
use crate::rpc::{REPLACED, RpcError, RpcRequest, RpcResponse};

/// The first comparison while the node runs comes after so long.
const FIRST: Duration = Duration::from_secs(1);
/// How often clocks are compared.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long a peer may take to tell its time.
const DEADLINE: Duration = Duration::from_secs(1);
/// An answer that took longer says too little.
const PROMPT: Duration = Duration::from_millis(500);
/// A node that starts asks so often until somebody has answered…
const START_ATTEMPTS: u32 = 5;
/// …and so long after the attempt before.
const START_PAUSE: Duration = Duration::from_millis(200);
/// Clocks that differ by no more are taken for equal; more is worth a warning.
const TOLERANCE_MS: i64 = 250;

/// What one comparison came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Judgement {
    /// How far this node has to move what it takes for the time
    shift: i64,
    /// True if its machine's time is wrong, as far as can be told
    wrong: bool,
}

/// Decides from by how many milliseconds this machine's time (`own`) and the others' are ahead of what this node takes
/// for the time. What a node that is `starting` takes for the time is no more than what its machine says.
fn judge(own: i64, others: &[i64], members: usize, starting: bool) -> Judgement {
    let close = |a: i64, b: i64| a.abs_diff(b) <= TOLERANCE_MS.unsigned_abs();
    // What this node has taken for the time until now is a voice among the others'.
    let voices = || others.iter().copied().chain((!starting || others.is_empty()).then_some(0));
    let group = |middle: i64| voices().filter(move |voice| close(*voice, middle));
    let agreed = voices().max_by_key(|middle| group(*middle).count()).map(|middle| {
        let mut group: Vec<i64> = group(middle).collect();
        group.sort_unstable();
        (group.len(), group.get(group.len() / 2).copied().unwrap_or(middle))
    });
    match agreed {
        _ if members <= 1 => Judgement { shift: own, wrong: false },
        Some((count, agreed)) if 2 * count > members || starting && 2 * count > others.len() => {
            match close(own, agreed) {
                true => Judgement { shift: own, wrong: false },
                false if close(agreed, 0) => Judgement { shift: 0, wrong: true },
                false => Judgement { shift: agreed, wrong: true },
            }
        }
        // Nobody knows: small corrections are followed, a jump is not.
        _ if close(own, 0) => Judgement { shift: own, wrong: false },
        _ => Judgement { shift: 0, wrong: true },
    }
}

impl Node {
    /// Compares the peers' clocks with this node's for as long as it runs.
    pub(super) async fn watch_clocks(self: Arc<Self>) {
        let mut warned: HashMap<NodeId, bool> = HashMap::new();
        let mut pause = FIRST;
        loop {
            tokio::time::sleep(pause).await;
            pause = INTERVAL;
            if let Err(why) = self.compare_clocks(false).await {
                error!("{why}; this node retires");
                return self.retire(why);
            }
            for (node, skew) in self.skew.lock().iter().map(|(node, skew)| (*node, *skew)) {
                let far = skew.abs() > TOLERANCE_MS;
                if far && warned.insert(node, true) != Some(true) {
                    warn!("node {node}'s clock is {skew} ms off, as this node sees it; synchronize it (NTP)");
                } else if !far {
                    warned.insert(node, false);
                }
            }
        }
    }

    /// Before this node stamps anything: if other members run, their time is this node's.
    pub(super) async fn take_the_clusters_time(&self) {
        for _ in 0..START_ATTEMPTS {
            match self.compare_clocks(true).await {
                Ok(answers) if answers == 0 && self.group.members().len() != 1 => {
                    tokio::time::sleep(START_PAUSE).await;
                }
                // Who has been replaced is told so by the comparisons that follow.
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// One comparison, and what follows: how many have answered. Fails if the cluster has another node in this one's
    /// place.
    async fn compare_clocks(&self, starting: bool) -> Result<usize, String> {
        let members = self.group.members();
        let peers = members.iter().map(|(id, ..)| *id).filter(|id| *id != self.id);
        let answers = join_all(peers.map(|peer| async move { (peer, self.skew_of(peer).await) })).await;
        let mut skews = BTreeMap::new();
        for (peer, answer) in answers {
            if let Some(skew) = answer? {
                skews.insert(peer, skew);
            }
        }
        let clock = &self.context.clock;
        let own = clock.jump();
        let others: Vec<i64> = skews.values().copied().collect();
        let Judgement { shift, wrong } = judge(own, &others, members.len().max(1), starting);
        clock.shift(shift);
        if shift.abs() > TOLERANCE_MS {
            warn!("this node takes another time than before, by {shift} ms, as its cluster does");
        }
        let mut known = self.skew.lock();
        if wrong && known.get(&self.id).is_none_or(|before| before.abs() <= TOLERANCE_MS) {
            error!(
                "this machine's clock is {} ms off and is not followed: {} of {} other members have told their \
                 time; synchronize it (NTP)",
                own - shift,
                others.len(),
                members.len().saturating_sub(1)
            );
        }
        known.extend(skews.into_iter().map(|(peer, skew)| (peer, skew - shift)));
        known.insert(self.id, own - shift);
        Ok(others.len())
    }

    /// How far a peer's machine is ahead of what this node takes for the time: the peer's answer is taken to be of the
    /// middle between question and answer, as NTP does. `None` if it did not say promptly.
    async fn skew_of(&self, peer: NodeId) -> Result<Option<i64>, String> {
        let Some(address) = self.address_of(peer) else { return Ok(None) };
        let (asked, before) = (Instant::now(), self.context.clock.millis());
        let answer = self.client.call(peer, &address, &RpcRequest::Clock, DEADLINE).await;
        let took = asked.elapsed();
        match answer {
            Ok(RpcResponse::Clock(theirs)) if took <= PROMPT => {
                let middle = before.saturating_add((took.as_millis() / 2) as u64);
                Ok(Some(theirs.wrapping_sub(middle).cast_signed()))
            }
            Err(RpcError::Refused(why)) if why.contains(REPLACED) => Err(why),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn shift(own: i64, others: &[i64], members: usize) -> (i64, bool) {
        let Judgement { shift, wrong } = judge(own, others, members, false);
        (shift, wrong)
    }

    #[test]
    fn the_majority_decides_whose_clock_is_wrong() {
        // All is well, and small corrections are followed.
        assert_eq!(shift(0, &[0, 3], 3), (0, false));
        assert_eq!(shift(40, &[10, -20], 3), (40, false));
        // This machine jumped, ahead or back.
        assert_eq!(shift(HOUR, &[2, -3], 3), (0, true));
        assert_eq!(shift(-HOUR, &[2, -3], 3), (0, true));
        assert_eq!(shift(HOUR, &[2], 3), (0, true));
        // Another did.
        assert_eq!(shift(1, &[HOUR, -3], 3), (1, false));
        // This one slept, while the others did not.
        assert_eq!(shift(HOUR, &[HOUR, HOUR + 5], 3), (HOUR, false));
        // It started with a wrong clock.
        assert_eq!(shift(0, &[-HOUR, 5 - HOUR], 3), (5 - HOUR, true));
    }

    #[test]
    fn who_starts_takes_the_time_of_those_that_run() {
        let start = |others: &[i64]| judge(0, others, 3, true);
        assert_eq!(start(&[-HOUR]), Judgement { shift: -HOUR, wrong: true });
        assert_eq!(start(&[-HOUR, 4 - HOUR]), Judgement { shift: 4 - HOUR, wrong: true });
        assert_eq!(start(&[20]), Judgement { shift: 0, wrong: false });
        assert_eq!(start(&[]), Judgement { shift: 0, wrong: false });
        // Two that do not agree: this one's machine decides.
        assert_eq!(start(&[-HOUR, 0]), Judgement { shift: 0, wrong: false });
    }

    #[test]
    fn without_a_majority_nothing_jumps() {
        assert_eq!(shift(HOUR, &[], 3), (0, true));
        assert_eq!(shift(30, &[], 3), (30, false));
        assert_eq!(shift(HOUR, &[HOUR], 5), (0, true));
        assert_eq!(shift(0, &[HOUR], 2), (0, false));
        assert_eq!(shift(HOUR, &[0], 2), (0, true));
        // Alone there is nobody to differ from.
        assert_eq!(shift(HOUR, &[], 1), (HOUR, false));
    }
}
