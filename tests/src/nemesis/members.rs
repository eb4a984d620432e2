//! Members come and go and leadership moves, by an operator's commands, each repeated until it is done.
//!
//! A guest lives in the slot after the last node; a fresh node that takes another's place also takes its address, with
//! an empty directory, and gets an id of its own.

use std::time::{Duration, Instant};

use super::{Victim, find};
use crate::Cluster;

/// How long a command may be refused before that is a failure: others may be dead, or a change under way.
const PATIENCE: Duration = Duration::from_secs(45);

/// Gives a command to the cluster, again and again until it is obeyed. Any node will do.
async fn order(hosts: Vec<String>, arguments: Vec<String>) {
    let start = Instant::now();
    for host in hosts.iter().cycle() {
        let mut command = tokio::process::Command::new(crate::binary());
        command.arg("node").args(&arguments).env("AMPHORA_HOST", host).kill_on_drop(true);
        let said = match tokio::time::timeout(Duration::from_secs(20), command.output()).await {
            Ok(output) => {
                let output = output.expect("the binary runs");
                if output.status.success() {
                    return;
                }
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
            }
            Err(_) => "no answer".to_owned(),
        };
        assert!(start.elapsed() < PATIENCE, "{arguments:?} is not obeyed: {said}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The HTTP addresses of all who run, but for one.
fn hosts(cluster: &Cluster, but: usize) -> Vec<String> {
    let running =
        cluster.nodes().iter().enumerate().filter(|(index, node)| *index != but && node.is_running());
    running.map(|(_, node)| node.http.clone()).collect()
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

async fn id(cluster: &Cluster, node: usize) -> u64 {
    let start = Instant::now();
    loop {
        if let Ok((200, body)) = cluster.nodes()[node].http("GET", "/status", "").await
            && let Ok(status) = serde_json::from_str::<serde_json::Value>(&body)
            && let Some(id) = status["node_id"].as_u64()
        {
            return id;
        }
        assert!(start.elapsed() < PATIENCE, "a node that has no id");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Leadership goes round.
pub(super) async fn shuffle(cluster: &Cluster, lasts: Duration) {
    let until = Instant::now() + lasts;
    let mut at = cluster.leader().await;
    while Instant::now() < until {
        at = (at + 1) % cluster.len();
        let id = id(cluster, at).await.to_string();
        // It may be refused: another transfer, or the next one is behind.
        cluster.run(at, &["node", "transfer-leader", "--to", &id]).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

/// Out of service in order, and back.
pub(super) async fn roll(cluster: &mut Cluster, node: usize, lasts: Duration) {
    let id = id(cluster, node).await;
    order(hosts(cluster, node), words(&format!("drain {id} --timeout 15"))).await;
    let code = tokio::task::block_in_place(|| cluster.node(node).terminate());
    assert_eq!(code, Some(0), "{}", cluster.nodes()[node].tail(40));
    tokio::time::sleep(lasts).await;
    cluster.node(node).start();
    cluster.wait_ready(node).await;
}

async fn join(cluster: &mut Cluster, extra: &[&str]) -> (usize, u64) {
    let guest = cluster.add_node(extra).await;
    cluster.wait_ready(guest).await;
    (guest, id(cluster, guest).await)
}

/// One more joins, as a replica first if so said, and leaves.
pub(super) async fn guest(cluster: &mut Cluster, replica: bool, lasts: Duration) {
    let (guest, id) = join(cluster, if replica { &["--learner"] } else { &[] }).await;
    if replica {
        tokio::time::sleep(lasts / 2).await;
        order(hosts(cluster, guest), words(&format!("promote {id}"))).await;
    }
    cluster.wait_settled().await;
    tokio::time::sleep(lasts).await;
    order(hosts(cluster, guest), words(&format!("remove {id} --force"))).await;
    // It goes on for a moment, and must not tell anybody anything that is not true any more.
    tokio::time::sleep(lasts / 4).await;
    cluster.discard_last();
}

/// One more joins and leaves; amidst of each somebody dies and comes back.
pub(super) async fn guest_amidst(cluster: &mut Cluster, victim: Victim, lasts: Duration) {
    let guest = cluster.add_node(&[]).await;
    tokio::time::sleep(lasts / 4).await;
    die_for(cluster, victim, lasts / 2).await;
    cluster.wait_ready(guest).await;
    cluster.wait_settled().await;
    let id = id(cluster, guest).await;
    let leaves = tokio::spawn(order(hosts(cluster, guest), words(&format!("remove {id} --force"))));
    tokio::time::sleep(lasts / 16).await;
    die_for(cluster, victim, lasts / 2).await;
    leaves.await.expect("it leaves");
    cluster.discard_last();
}

/// Dies and comes back; not the guest, who is not anybody's victim.
async fn die_for(cluster: &mut Cluster, victim: Victim, lasts: Duration) {
    let node = find(cluster, victim).await;
    let node = if node + 1 == cluster.len() { 0 } else { node };
    cluster.node(node).kill();
    tokio::time::sleep(lasts).await;
    cluster.node(node).start();
    cluster.wait_ready(node).await;
}

/// Removed, dead or alive, and a fresh one in its place.
pub(super) async fn replace(cluster: &mut Cluster, node: usize, dead: bool, lasts: Duration) {
    let id = id(cluster, node).await;
    if dead {
        cluster.node(node).kill();
        tokio::time::sleep(lasts / 2).await;
    }
    order(hosts(cluster, node), words(&format!("remove {id} --force"))).await;
    tokio::time::sleep(lasts / 2).await;
    if !dead {
        cluster.node(node).kill();
    }
    cluster.start_afresh(node);
    cluster.wait_settled().await;
}
