//! Where each node is.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::NodeId;

/// Node ids and the addresses at which peers reach them. Shared and replaced as a whole whenever
/// membership changes; reading takes no lock.
#[derive(Debug, Default)]
pub struct AddressBook {
    addresses: ArcSwap<HashMap<NodeId, Arc<str>>>,
}

impl AddressBook {
    /// An empty book.
    pub fn new() -> AddressBook {
        AddressBook::default()
    }

    /// A node's address, if it is known.
    pub fn get(&self, node: NodeId) -> Option<Arc<str>> {
        self.addresses.load().get(&node).cloned()
    }

    /// All of it.
    pub fn all(&self) -> Arc<HashMap<NodeId, Arc<str>>> {
        self.addresses.load_full()
    }

    /// Forgets what it knew and knows this.
    pub fn replace(&self, addresses: impl IntoIterator<Item = (NodeId, String)>) {
        let new: HashMap<NodeId, Arc<str>> =
            addresses.into_iter().map(|(id, address)| (id, Arc::from(address))).collect();
        if **self.addresses.load() != new {
            self.addresses.store(Arc::new(new));
        }
    }
}
