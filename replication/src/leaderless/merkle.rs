//! Merkle trees over the rows of a range: where two nodes differ, without sending the rows.
//!
//! Whoever compares cuts a stretch of its own rows into leaves; a leaf is a half-open range of keys, and the leaves leave no
//! key out. The other node builds the tree of the same ranges over its own rows. A leaf is the hash of its rows in
//! the order of keys, an inner node the hash of its children *in their order*: sums and XOR let two differences
//! cancel each other.
//!
//! ```text
//!                        H(h1 ‖ h2 ‖ h3)                     equal roots: nothing differs, almost always
//!                       ╱       │       ╲
//!             H(l0…l7) h1       h2       h3                  else: down into the children that differ
//!             ╱  │  ╲                     │
//!       [a, f) [f, k) [k, m) …           …                   leaves: their rows are compared one by one
//! ```
//!
//! The tree covers a stretch of a table and not all of it, so that memory does not grow with the table.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Children of an inner node.
const FANOUT: usize = 8;
/// Leaves of one tree, at most.
pub const MAX_LEAVES: usize = 64;
/// A leaf ends after so many rows…
const LEAF_ROWS: usize = 256;
/// …or bytes of keys and states.
const LEAF_BYTES: usize = 256 << 10;

/// A SHA-256.
pub type Hash = [u8; 32];

/// The hashes of a tree, from the leaves up; the last level is the root alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MerkleTree {
    levels: Vec<Vec<Hash>>,
    /// Rows in all leaves
    pub rows: u64,
}

/// Ranges of keys without gaps between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaves {
    /// Where each begins; the keys ascend
    pub starts: Vec<Vec<u8>>,
    /// Where the last one ends
    pub end: Vec<u8>,
}

impl Leaves {
    /// A leaf's first key, and the first key behind it.
    pub fn range(&self, leaf: usize) -> Option<std::ops::Range<Vec<u8>>> {
        let start = self.starts.get(leaf)?.clone();
        Some(start..self.starts.get(leaf + 1).unwrap_or(&self.end).clone())
    }
}

/// The hash of one row as it is stored.
pub fn row_hash(key: &[u8], stored: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update((key.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(stored);
    hash.finalize().into()
}

/// Builds a tree from rows that come in the order of their keys.
pub struct TreeBuilder {
    leaves: Vec<Hash>,
    open: Sha256,
    rows: u64,
    rows_in_leaf: usize,
    bytes_in_leaf: usize,
}

impl Default for TreeBuilder {
    fn default() -> TreeBuilder {
        TreeBuilder { leaves: Vec::new(), open: leaf(), rows: 0, rows_in_leaf: 0, bytes_in_leaf: 0 }
    }
}

fn leaf() -> Sha256 {
    Sha256::new_with_prefix([1])
}

impl TreeBuilder {
    /// The next row of the leaf that is open.
    pub fn add(&mut self, hash: &Hash, bytes: usize) {
        self.open.update(hash);
        self.rows += 1;
        self.rows_in_leaf += 1;
        self.bytes_in_leaf += bytes;
    }

    /// True if whoever cuts the leaves should begin another.
    pub fn is_leaf_full(&self) -> bool {
        self.rows_in_leaf >= LEAF_ROWS || self.bytes_in_leaf >= LEAF_BYTES
    }

    /// Leaves that are closed.
    pub fn closed(&self) -> usize {
        self.leaves.len()
    }

    /// Closes a leaf and begins the next.
    pub fn close_leaf(&mut self) {
        let leaf = std::mem::replace(&mut self.open, leaf());
        self.leaves.push(leaf.finalize().into());
        (self.rows_in_leaf, self.bytes_in_leaf) = (0, 0);
    }

    /// The tree of the closed leaves.
    pub fn finish(self) -> MerkleTree {
        let mut levels = vec![self.leaves];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let above = below.chunks(FANOUT).map(|children| {
                let mut hash = Sha256::new_with_prefix([2]);
                children.iter().for_each(|child| hash.update(child));
                hash.finalize().into()
            });
            levels.push(above.collect());
        }
        MerkleTree { levels, rows: self.rows }
    }
}

impl MerkleTree {
    /// What stands for all of it.
    pub fn root(&self) -> Option<&Hash> {
        self.levels.last()?.first()
    }

    /// The leaves in which two trees of the same ranges differ. `None` if they are not of the same ranges.
    pub fn differing(&self, other: &MerkleTree) -> Option<Vec<usize>> {
        let shape = |tree: &MerkleTree| tree.levels.iter().map(Vec::len).collect::<Vec<_>>();
        if shape(self) != shape(other) {
            return None;
        }
        let mut differing = vec![0];
        for (level, (ours, theirs)) in self.levels.iter().zip(&other.levels).enumerate().rev() {
            differing.retain(|&at: &usize| ours.get(at) != theirs.get(at));
            if level > 0 {
                let children = |at: &usize| at * FANOUT..(at + 1) * FANOUT;
                let below = self.levels.get(level - 1).map_or(0, Vec::len);
                differing = differing.iter().flat_map(children).filter(|&child| child < below).collect();
            }
        }
        Some(differing)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn tree(leaves: &[Vec<u32>]) -> MerkleTree {
        let mut builder = TreeBuilder::default();
        for rows in leaves {
            rows.iter().for_each(|row| builder.add(&row_hash(b"k", &row.to_le_bytes()), 1));
            builder.close_leaf();
        }
        builder.finish()
    }

    #[test]
    fn exactly_the_leaves_that_differ_are_found() {
        let seed = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..100 {
            let leaves = random.random_range(1..=MAX_LEAVES);
            let ours: Vec<Vec<u32>> = (0..leaves)
                .map(|_| (0..random.random_range(0..5)).map(|_| random.random_range(0..3)).collect())
                .collect();
            let mut theirs = ours.clone();
            for leaf in &mut theirs {
                match random.random_range(0..20) {
                    0 => leaf.push(7),
                    1 => leaf.clear(),
                    2 => leaf.reverse(),
                    _ => {}
                }
            }
            let expected: Vec<usize> = (0..leaves).filter(|&at| ours[at] != theirs[at]).collect();
            let (ours, theirs) = (tree(&ours), tree(&theirs));
            assert_eq!(ours.differing(&theirs).unwrap(), expected);
            assert_eq!(ours.root() == theirs.root(), expected.is_empty());
        }
    }

    #[test]
    fn swapped_leaves_and_swapped_rows_differ() {
        let ours = tree(&[vec![1, 2], vec![3]]);
        assert_eq!(ours.differing(&tree(&[vec![3], vec![1, 2]])).unwrap(), [0, 1]);
        assert_eq!(ours.differing(&tree(&[vec![2, 1], vec![3]])).unwrap(), [0]);
        // One leaf of two rows is not two leaves of one.
        assert_eq!(ours.differing(&tree(&[vec![1, 2, 3]])), None);
        assert!(tree(&[vec![1], vec![]]).root() != tree(&[vec![], vec![1]]).root());
    }
}
