//! Under which address a node is known, when it listens on several or on all.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use tokio::net::{TcpListener, lookup_host};

use crate::{Error, Result};

/// Never assigned (RFC 5737), so nobody's: stands for "somewhere else" where a route is looked up.
const ELSEWHERE: &str = "192.0.2.1:9";

/// Binds the peer listener, with words for the operator if that fails.
pub(super) async fn bind(listen: &str) -> Result<TcpListener> {
    TcpListener::bind(listen).await.map_err(|e| {
        let error = Error::new("58030", format!("could not listen for peers on {listen}: {e}"));
        match e.kind() {
            std::io::ErrorKind::AddrInUse => {
                error.hint("Another process uses the port; choose another with --rpc-listen.")
            }
            _ => error.hint("Give an address of this machine with --rpc-listen."),
        }
    })
}

/// An address that others can connect to, for one that this node listens on: an address that means "all
/// of mine" becomes the one from which this machine reaches `towards`, or the outside.
pub(super) fn advertised(listen: &str, towards: &[String]) -> String {
    let Ok(address) = listen.parse::<SocketAddr>() else { return listen.to_owned() };
    if !address.ip().is_unspecified() {
        return listen.to_owned();
    }
    let targets = towards.iter().map(String::as_str).chain([ELSEWHERE]);
    let ip = targets.filter_map(route_to).next().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    SocketAddr::new(ip, address.port()).to_string()
}

/// The address that this machine would use to reach another. Nothing is sent.
fn route_to(target: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

/// The first address a name stands for.
pub(super) async fn resolve(address: &str) -> Result<SocketAddr> {
    let failed = |reason: String| {
        Error::new("58030", format!("could not resolve the address \"{address}\": {reason}"))
            .hint("Give host:port with --advertise-rpc, as the other nodes can reach it.")
    };
    let mut found = lookup_host(address).await.map_err(|e| failed(e.to_string()))?;
    found.next().ok_or_else(|| failed("the name has no address".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_that_means_all_is_replaced() {
        assert_eq!(advertised("10.1.2.3:7433", &[]), "10.1.2.3:7433");
        assert_eq!(advertised("db1.example:7433", &[]), "db1.example:7433");
        assert_eq!(advertised("0.0.0.0:7433", &["127.0.0.1:1".to_owned()]), "127.0.0.1:7433");
        assert!(!advertised("0.0.0.0:7433", &[]).starts_with("0.0.0.0"));
    }
}
