//! Memory for writes that are not committed: each transaction's, and all of a node's together.
//!
//! ```text
//!   transaction   0 ──── 64 KB ──────────────── amphora.transaction_memory
//!                 free    │ from the node's budget,   │ 54000
//!                         │ a megabyte at a time      │
//!   node          0 ──────┴────────────────────────── --write-memory: 53200 to whoever wants more
//! ```
//!
//! A transaction that writes a few rows touches nothing that others touch: their number is bounded by that of
//! sessions. Whoever is refused has its statement undone, and what that took is there for others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Error, Result};

/// What a transaction may take if it does not say.
pub const DEFAULT_TRANSACTION_MEMORY: usize = 1 << 30;
/// What a transaction takes without asking.
const FREE: usize = 64 << 10;
/// How much it asks for at a time.
const PIECE: usize = 1 << 20;

/// A node's memory for writes that are not committed.
#[derive(Debug)]
pub struct WriteMemory {
    limit: usize,
    used: AtomicUsize,
}

impl WriteMemory {
    /// So many bytes.
    pub fn new(limit: usize) -> WriteMemory {
        WriteMemory { limit, used: AtomicUsize::new(0) }
    }

    /// For a transaction that may take so much; 0 is the default.
    pub(super) fn begin(self: &Arc<Self>, limit: usize) -> Charged {
        let limit = if limit == 0 { DEFAULT_TRANSACTION_MEMORY } else { limit };
        Charged { node: Some(self.clone()), limit, used: 0, reserved: 0 }
    }

    /// Bytes that transactions hold, above what each has for nothing.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn reserve(&self, bytes: usize) -> Result<()> {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|used| *used <= self.limit)
        });
        taken.map(drop).map_err(|_| Error::out_of_write_memory(self.limit))
    }
}

/// What one transaction's writes take.
#[derive(Debug, Default)]
pub(super) struct Charged {
    /// None counts nothing: a copy that is only read
    node: Option<Arc<WriteMemory>>,
    limit: usize,
    used: usize,
    /// Taken from the node's budget
    reserved: usize,
}

impl Charged {
    /// 54000 beyond the transaction's limit, 53200 beyond the node's.
    pub fn take(&mut self, bytes: usize) -> Result<()> {
        let Some(node) = &self.node else { return Ok(()) };
        let used = self.used.saturating_add(bytes);
        if used > self.limit {
            return Err(Error::too_much_memory(self.limit));
        }
        if used > FREE + self.reserved {
            let more = (used - FREE - self.reserved).next_multiple_of(PIECE);
            node.reserve(more)?;
            self.reserved += more;
        }
        self.used = used;
        Ok(())
    }

    /// What was taken for a write that is undone.
    pub fn give_back(&mut self, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
        let needed = self.used.saturating_sub(FREE).next_multiple_of(PIECE);
        if let Some(node) = &self.node
            && self.reserved > needed
        {
            node.used.fetch_sub(self.reserved - needed, Ordering::Relaxed);
            self.reserved = needed;
        }
    }

    /// For a buffer that has become empty.
    pub fn emptied(&mut self) -> Charged {
        self.give_back(self.used);
        Charged { node: self.node.clone(), limit: self.limit, used: 0, reserved: 0 }
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        self.give_back(self.used);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let node = Arc::new(WriteMemory::new(10 << 20));
        let mut small = node.begin(0);
        small.take(FREE).unwrap();
        assert_eq!(node.used(), 0, "a small transaction asks nobody");
        let mut large = node.begin(8 << 20);
        large.take(7 << 20).unwrap();
        assert_eq!(node.used(), 7 << 20);
        assert_eq!(large.take(2 << 20).unwrap_err().sqlstate, "54000");
        let mut other = node.begin(8 << 20);
        assert_eq!(other.take(5 << 20).unwrap_err().sqlstate, "53200");
        other.take(1 << 20).unwrap();
        large.give_back(6 << 20);
        assert_eq!(node.used(), 2 << 20);
        other.take(4 << 20).unwrap();
        drop((large.emptied(), small, other));
        drop(large);
        assert_eq!(node.used(), 0);
    }
}
