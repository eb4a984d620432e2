//! A node: everything on the floors below put together, and kept together until it stops.
//!
//! ```text
//!                     ┌───────────────────────── Node ─────────────────────────┐
//!   sessions ────────►│ Engine ─► HybridTransaction ─┬─► Group ──────┐         │
//!                     │   CatalogCache, UniqueIds    └─► leaderless ─┤         │
//!                     │                                    Engine    │         │
//!   peers ◄──────────►│ rpc::Server, rpc::Client ◄───────────────────┤         │
//!                     │ Gossip, AddressBook                          ▼         │
//!                     │                                 DataDir: Store, RaftLog│
//!                     └────────────────────────────────────────────────────────┘
//! ```
//!
//! A node starts in one of three ways, and the data directory decides which: with an identity on disk it
//! restarts; without one it asks the `--join` addresses for one; without those it founds a cluster. The
//! identity is written when what it stands for is on disk: a founder's after its first membership is, a
//! joiner's after its id is allocated. A crash before that leaves a directory that starts over.

mod catalog;
mod ids;

pub use catalog::{CatalogCache, catalog_key, load_catalog};
pub use ids::{MAX_NODE_ID, UniqueIds};
