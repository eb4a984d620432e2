//! Who may talk to whom: what a caller claims to be, and its check.
//!
//! Over HTTP/2 a claim stands in the headers of every call: a header that does not change is one byte after
//! its first time. On the urgent lane it is made once, when the connection begins ([`lane`](super::lane)).

use std::collections::HashSet;

use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use tracing::warn;
use uuid::Uuid;

use crate::NodeId;

/// The newest version of the messages that this release speaks.
pub const PROTOCOL_VERSION: u32 = 5;
/// The oldest that it understands. A release that is to be rolled out node by node speaks the version before its
/// own too: it sends to a member what that member's [`protocol`](crate::strong::Member::protocol) allows.
pub const LOWEST_PROTOCOL_VERSION: u32 = 5;

/// The versions that a node speaks. Two nodes talk to each other if they have one in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest
    pub lowest: u32,
    /// The newest
    pub highest: u32,
}

impl Versions {
    /// What this release speaks.
    pub const OWN: Versions = Versions { lowest: LOWEST_PROTOCOL_VERSION, highest: PROTOCOL_VERSION };

    /// The newest version that both speak.
    pub fn common(self, other: Versions) -> Option<u32> {
        let common = self.highest.min(other.highest);
        (common >= self.lowest && common >= other.lowest).then_some(common)
    }

    /// As one number, for a place that once held one version only.
    pub fn pack(self) -> u32 {
        self.lowest << 16 | (self.highest & 0xffff)
    }

    /// The inverse; before there were ranges there was one version.
    pub fn unpack(packed: u32) -> Versions {
        let (lowest, highest) = (packed >> 16, packed & 0xffff);
        Versions { lowest: if lowest == 0 { highest } else { lowest }, highest }
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.lowest == self.highest {
            true => write!(f, "{}", self.highest),
            false => write!(f, "{}-{}", self.lowest, self.highest),
        }
    }
}

impl std::str::FromStr for Versions {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Versions, Self::Err> {
        let (lowest, highest) = text.split_once('-').unwrap_or((text, text));
        Ok(Versions { lowest: lowest.parse()?, highest: highest.parse()? })
    }
}

/// Stands in the refusal of a node whose cluster has been recovered without it.
pub const REPLACED: &str = "was given up, and replaced by force by cluster";

const CLUSTER: HeaderName = HeaderName::from_static("amphora-cluster");
const PROTOCOL: HeaderName = HeaderName::from_static("amphora-protocol");
const FROM: HeaderName = HeaderName::from_static("amphora-from");
const TO: HeaderName = HeaderName::from_static("amphora-to");
/// On a refusal: the handler never saw the request.
const REFUSED: &str = "amphora-refused";

/// Refusals remembered, so that each is logged once.
const MAX_LOGGED_REFUSALS: usize = 256;

/// Former clusters that a node remembers for its peers.
const MAX_FORMER: usize = 4;

/// Which node this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster; none while a node asks to join one
    pub cluster: Option<Uuid>,
    /// The node; 0 while it has no id
    pub node: NodeId,
    /// The last clusters that this one was made of by force; nil where there was none
    pub former: [Uuid; MAX_FORMER],
}

impl Identity {
    /// A node that has yet to be given its identity.
    pub const JOINING: Identity = Identity { cluster: None, node: 0, former: [Uuid::nil(); MAX_FORMER] };

    /// A member.
    pub const fn of(cluster: Uuid, node: NodeId) -> Identity {
        Identity { cluster: Some(cluster), node, former: [Uuid::nil(); MAX_FORMER] }
    }

    /// The same, in a cluster that was made of others by force: a recovery that is repeated makes several.
    pub fn made_of(mut self, former: &[Uuid]) -> Identity {
        for (place, cluster) in self.former.iter_mut().zip(former.iter().rev()) {
            *place = *cluster;
        }
        self
    }
}

/// An identity as it stands in headers.
#[derive(Clone, Debug)]
pub(super) struct Headers {
    cluster: HeaderValue,
    protocol: HeaderValue,
    from: HeaderValue,
}

/// How a node without a cluster names it.
const NO_CLUSTER: &str = "none";

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

impl Headers {
    pub(super) fn new(identity: Identity, protocol: Versions) -> Headers {
        Headers {
            cluster: value(identity.cluster.map_or_else(|| NO_CLUSTER.to_owned(), |c| c.to_string())),
            protocol: value(protocol.to_string()),
            from: value(identity.node.to_string()),
        }
    }

    /// Writes a call's headers.
    pub(super) fn write(&self, to: &HeaderValue, headers: &mut HeaderMap) {
        headers.insert(CLUSTER, self.cluster.clone());
        headers.insert(PROTOCOL, self.protocol.clone());
        headers.insert(FROM, self.from.clone());
        headers.insert(TO, to.clone());
    }
}

/// An addressee as it stands in a header; 0 is whoever answers.
pub(super) fn addressee(node: NodeId) -> HeaderValue {
    value(node.to_string())
}

/// Who is calling, after the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// The node; 0 if it has no id yet
    pub(super) node: NodeId,
    /// True if it is a member of this cluster, false if it is one to be
    pub(super) same_cluster: bool,
}

/// Who a caller says it is, and whom it means to reach, in words.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) protocol: String,
    pub(super) cluster: String,
    pub(super) from: String,
    pub(super) to: String,
}

impl Claim {
    /// Reads it from a call's headers.
    pub(super) fn of(headers: &HeaderMap) -> Result<Claim, String> {
        let text = |name: &HeaderName| {
            headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned).ok_or_else(|| {
                format!("the call has no {name} header; it does not come from an Amphora node")
            })
        };
        Ok(Claim { protocol: text(&PROTOCOL)?, from: text(&FROM)?, cluster: text(&CLUSTER)?, to: text(&TO)? })
    }

    /// Checks it. The error is for both operators: it goes back to the caller and into this node's log.
    pub(super) fn check(&self, own: Identity) -> Result<Caller, String> {
        let Claim { protocol, cluster, from, to } = self;
        if protocol.parse().ok().and_then(|theirs| Versions::OWN.common(theirs)).is_none() {
            return Err(format!(
                "protocol version mismatch: node {from} speaks version {protocol}, node {} speaks version {}; run \
                 releases of Amphora on all nodes that follow each other",
                own.node,
                Versions::OWN,
            ));
        }
        let own_cluster = own.cluster.unwrap_or_default();
        let same_cluster = cluster.parse() == Ok(own_cluster);
        if own.former.iter().any(|former| !former.is_nil() && cluster.parse() == Ok(*former)) {
            return Err(format!(
                "cluster {cluster} {REPLACED} {own_cluster}, on node {}: what node {from} has is not part of it",
                own.node,
            ));
        }
        if !same_cluster && cluster != NO_CLUSTER {
            return Err(format!(
                "it belongs to another cluster: node {from} is of cluster {cluster}, node {} is of cluster \
                 {own_cluster}; check the addresses given with --join, or start with the right --data-dir",
                own.node,
            ));
        }
        if to != "0" && to.parse() != Ok(own.node) {
            return Err(format!("this address belongs to node {}, not to node {to}", own.node));
        }
        let node = from.parse().map_err(|_| format!("\"{from}\" is not a node id"))?;
        Ok(Caller { node, same_cluster })
    }
}

/// Checks a call's headers.
pub(super) fn check(own: Identity, headers: &HeaderMap) -> Result<Caller, String> {
    Claim::of(headers)?.check(own)
}

/// A refusal for good: certainly not handled, for this reason, and not to be repeated.
pub(super) fn refusal(reason: String) -> tonic::Status {
    mark(tonic::Status::failed_precondition(reason))
}

/// A refusal for now: certainly not handled, and worth repeating.
pub(super) fn unavailable(reason: String) -> tonic::Status {
    mark(tonic::Status::unavailable(reason))
}

fn mark(mut status: tonic::Status) -> tonic::Status {
    status.metadata_mut().insert(REFUSED, tonic::metadata::MetadataValue::from_static("1"));
    status
}

/// True if a status says that the handler never saw the request.
pub(super) fn is_refusal(status: &tonic::Status) -> bool {
    status.metadata().contains_key(REFUSED)
}

/// Logs each refusal once: a peer that is refused tries again many times a second.
#[derive(Debug, Default)]
pub(super) struct RefusalLog {
    seen: Mutex<HashSet<String>>,
}

impl RefusalLog {
    /// Logs it if it is new.
    pub(super) fn report(&self, remote: &str, reason: &str) {
        let mut seen = self.seen.lock();
        if seen.len() < MAX_LOGGED_REFUSALS && seen.insert(format!("{remote} {reason}")) {
            drop(seen);
            warn!(peer = remote, "refused a call: {reason}");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nodes_agree_on_the_newest_version_that_both_speak() {
        let versions = |text: &str| text.parse::<Versions>().unwrap();
        for (one, other, common) in [
            ("3", "3", Some(3)),
            ("3", "3-4", Some(3)),
            ("3-4", "4-5", Some(4)),
            ("3", "4-5", None),
            ("2", "3", None),
        ] {
            assert_eq!(versions(one).common(versions(other)), common, "{one} and {other}");
            assert_eq!(versions(other).common(versions(one)), common, "{other} and {one}");
            assert_eq!(Versions::unpack(versions(one).pack()), versions(one));
            assert_eq!(versions(one).to_string(), one);
        }
        // A release from before there were ranges sends its one version.
        assert_eq!(Versions::unpack(2), versions("2"));
        assert!("three".parse::<Versions>().is_err());
    }
}
