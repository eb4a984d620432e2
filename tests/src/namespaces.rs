//! Hosts on one machine: a network namespace a node, joined by a bridge in a namespace of its own.
//!
//! ```text
//!   root ns ──veth──┐
//!                   │   namespace amp<pid>s
//!   amp<pid>n0 ─────┤── br0 (a switch; in its own namespace, where no firewall rule of the
//!   amp<pid>n1 ─────┤        machine's reaches it)
//!   amp<pid>n2 ─────┘
//! ```

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A switch and its hosts. Removed when dropped.
pub struct Network {
    tag: String,
    subnet: String,
    hosts: usize,
}

fn run(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a program");
    let output = Command::new(program).args(words).output().unwrap_or_else(|e| panic!("{line}: {e}"));
    output.status.success()
}

fn must(line: &str) {
    assert!(run(line), "failed: {line} (network namespaces need root)");
}

impl Network {
    /// A switch with `hosts` hosts, reachable from the root namespace.
    pub fn create(hosts: usize) -> Network {
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let id = (std::process::id().wrapping_mul(7).wrapping_add(count)) % 20_000;
        let tag = format!("amp{id}");
        let subnet = format!("10.{}.{}", 200 + id % 50, (id / 50) % 250);
        let network = Network { tag: tag.clone(), subnet: subnet.clone(), hosts };
        must(&format!("ip netns add {tag}s"));
        must(&format!("ip -n {tag}s link add br0 type bridge"));
        must(&format!("ip -n {tag}s link set br0 up"));
        must(&format!("ip link add {tag}r type veth peer name r netns {tag}s"));
        must(&format!("ip -n {tag}s link set r master br0 up"));
        must(&format!("ip addr add {subnet}.254/24 dev {tag}r"));
        must(&format!("ip link set {tag}r up"));
        for host in 0..hosts {
            must(&format!("ip netns add {tag}n{host}"));
            must(&format!("ip -n {tag}n{host} link add e0 type veth peer name v{host} netns {tag}s"));
            must(&format!("ip -n {tag}s link set v{host} master br0 up"));
            must(&format!("ip -n {tag}n{host} addr add {}/24 dev e0", network.address(host)));
            must(&format!("ip -n {tag}n{host} link set e0 up"));
            must(&format!("ip -n {tag}n{host} link set lo up"));
        }
        network
    }

    /// A host's address.
    pub fn address(&self, host: usize) -> String {
        format!("{}.{}", self.subnet, host + 1)
    }

    /// A host's namespace.
    pub fn namespace(&self, host: usize) -> String {
        format!("{}n{host}", self.tag)
    }

    /// Host `at` hears nothing more from host `from`.
    pub fn cut(&self, at: usize, from: usize) {
        let (ns, address) = (self.namespace(at), self.address(from));
        must(&format!("ip netns exec {ns} iptables -w -A INPUT -s {address} -j DROP"));
    }

    /// Loses a share of what host `at` is sent by host `from`.
    pub fn lose(&self, at: usize, from: usize, probability: f64) {
        let (ns, address) = (self.namespace(at), self.address(from));
        must(&format!(
            "ip netns exec {ns} iptables -w -A INPUT -s {address} -m statistic --mode random \
             --probability {probability} -j DROP"
        ));
    }

    /// All hear all again.
    pub fn heal(&self) {
        for host in 0..self.hosts {
            must(&format!("ip netns exec {} iptables -w -F INPUT", self.namespace(host)));
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 0..self.hosts {
            run(&format!("ip netns del {}", self.namespace(host)));
        }
        run(&format!("ip link del {}r", self.tag));
        run(&format!("ip netns del {}s", self.tag));
    }
}
