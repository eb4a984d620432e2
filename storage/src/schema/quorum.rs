//! How many nodes a write or a read of a leaderless table waits for.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Most nodes that a quorum can be asked to have.
const MAX_NODES: u32 = 1000;

/// Which nodes have to have a write, or to be asked by a read. The node at which it happens is one of them.
///
/// Whatever nodes a read's and a write's quorum are made of, they have one in common if R + W > N.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Quorum {
    /// So many, whichever they are
    Nodes(u32),
    /// More than half of the nodes of this node's region
    Local,
    /// More than half of all nodes
    Majority,
    /// More than half of the nodes of each region
    Each,
    /// All
    All,
}

impl Quorum {
    /// This node alone: nobody is waited for.
    pub const ONE: Quorum = Quorum::Nodes(1);

    /// Whether these nodes are enough: whoever is in the cluster, with its region, and which of them have it.
    pub fn is_reached<'a>(self, home: &str, members: impl Iterator<Item = (&'a str, bool)>) -> bool {
        let mut regions: BTreeMap<&str, Count> = BTreeMap::new();
        let mut whole = Count::default();
        for (region, has) in members {
            whole.add(has);
            regions.entry(region).or_default().add(has);
        }
        match self {
            Quorum::Nodes(n) => whole.has >= n,
            Quorum::Local => regions.get(home).is_some_and(Count::is_majority),
            Quorum::Majority => whole.is_majority(),
            Quorum::Each => regions.values().all(Count::is_majority),
            Quorum::All => whole.has == whole.of,
        }
    }
}

/// Nodes that have something, and nodes.
#[derive(Clone, Copy, Default)]
struct Count {
    has: u32,
    of: u32,
}

impl Count {
    fn add(&mut self, has: bool) {
        self.of += 1;
        self.has += u32::from(has);
    }

    fn is_majority(&self) -> bool {
        self.has > self.of / 2
    }
}

impl Default for Quorum {
    fn default() -> Quorum {
        Quorum::ONE
    }
}

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Quorum::Nodes(n) => return write!(f, "{n}"),
            Quorum::Local => "local_quorum",
            Quorum::Majority => "quorum",
            Quorum::Each => "each_quorum",
            Quorum::All => "all",
        })
    }
}

/// What is no quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoQuorum;

impl FromStr for Quorum {
    type Err = NoQuorum;

    fn from_str(text: &str) -> Result<Quorum, NoQuorum> {
        let text = text.trim();
        let words = [Quorum::Local, Quorum::Majority, Quorum::Each, Quorum::All];
        if let Some(word) = words.into_iter().find(|word| word.to_string().eq_ignore_ascii_case(text)) {
            return Ok(word);
        }
        let number = text.parse().ok().filter(|n| (1..=MAX_NODES).contains(n));
        number.map(Quorum::Nodes).ok_or(NoQuorum)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn quorums_are_written_as_they_are_read() {
        for text in ["1", "2", "1000", "quorum", "all", "local_quorum", "each_quorum"] {
            assert_eq!(text.parse::<Quorum>().unwrap().to_string(), text);
        }
        assert_eq!(" QUORUM ".parse(), Ok(Quorum::Majority));
        for text in ["0", "-1", "1001", "1.5", "", "some", "two"] {
            assert_eq!(text.parse::<Quorum>(), Err(NoQuorum), "{text}");
        }
    }

    #[test]
    fn regions_count_for_local_and_each() {
        // Three regions of 3, 2 and 1 nodes; which of them have it.
        let nodes = ["a", "a", "a", "b", "b", "c"];
        let reached = |quorum: Quorum, has: [u8; 6]| {
            quorum.is_reached("a", nodes.into_iter().zip(has.map(|has| has == 1)))
        };
        assert!(reached(Quorum::ONE, [1, 0, 0, 0, 0, 0]));
        assert!(!reached(Quorum::Nodes(2), [1, 0, 0, 0, 0, 0]));
        assert!(reached(Quorum::Nodes(2), [1, 0, 0, 0, 0, 1]));
        assert!(!reached(Quorum::Local, [1, 0, 0, 1, 1, 1]));
        assert!(reached(Quorum::Local, [1, 0, 1, 0, 0, 0]));
        assert!(!reached(Quorum::Majority, [1, 1, 1, 0, 0, 0]));
        assert!(reached(Quorum::Majority, [1, 0, 0, 1, 1, 1]));
        assert!(!reached(Quorum::Each, [1, 1, 1, 1, 0, 1]));
        assert!(!reached(Quorum::Each, [1, 1, 1, 1, 1, 0]));
        assert!(reached(Quorum::Each, [0, 1, 1, 1, 1, 1]));
        assert!(!reached(Quorum::All, [0, 1, 1, 1, 1, 1]));
        assert!(reached(Quorum::All, [1; 6]));
    }

    #[test]
    fn any_two_majorities_and_any_two_each_quorums_meet() {
        let nodes = ["a", "a", "a", "b", "b"];
        let sets: Vec<[bool; 5]> =
            (0..32_u32).map(|bits| std::array::from_fn(|n| bits >> n & 1 == 1)).collect();
        for quorum in [Quorum::Majority, Quorum::Each, Quorum::Local, Quorum::Nodes(3)] {
            let enough = |set: &&[bool; 5]| quorum.is_reached("b", nodes.into_iter().zip(**set));
            for (one, other) in sets
                .iter()
                .filter(enough)
                .flat_map(|one| sets.iter().filter(enough).map(move |other| (one, other)))
            {
                assert!(one.iter().zip(other).any(|(a, b)| *a && *b), "{quorum}: {one:?} {other:?}");
            }
        }
    }
}
