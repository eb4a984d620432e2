//! Values of a sequence are given once and grow, on every node, while leaders fall.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use amphora_tests::Cluster;
use amphora_tests::load::{Roaming, Stop};

/// Takes values one by one, from whatever node gives them.
async fn take(addresses: Vec<String>, taker: usize, stop: Stop, values: Arc<Mutex<Vec<i64>>>) {
    let mut connection = Roaming::new(addresses, taker);
    let mut last = 0;
    while !stop.is_stopped() {
        let client = connection.client().await;
        let answer =
            tokio::time::timeout(Duration::from_secs(10), client.query_one("SELECT nextval('s')", &[])).await;
        match answer {
            Ok(Ok(row)) => {
                let value: i64 = row.get(0);
                assert!(value > last, "{value} was given after {last}");
                last = value;
                values.lock().unwrap().push(value);
            }
            _ => connection.move_on(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_unique_and_grow_when_leaders_are_killed() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client(0).await;
    client.batch_execute("CREATE SEQUENCE s").await.unwrap();
    let addresses: Vec<String> = cluster.nodes().iter().map(|n| n.pg.clone()).collect();
    let (stop, values) = (Stop::default(), Arc::<Mutex<Vec<i64>>>::default());
    let takers: Vec<_> =
        (0..6).map(|t| tokio::spawn(take(addresses.clone(), t, stop.clone(), values.clone()))).collect();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let leader = cluster.leader().await;
        cluster.node(leader).kill();
        tokio::time::sleep(Duration::from_secs(4)).await;
        cluster.node(leader).restart();
        cluster.wait_ready(leader).await;
    }
    stop.stop();
    for taker in takers {
        taker.await.unwrap();
    }
    let mut values = values.lock().unwrap().clone();
    let count = values.len();
    assert!(count > 100, "only {count} values were given");
    values.sort_unstable();
    values.dedup();
    assert_eq!(values.len(), count, "a value was given twice");
    println!("{count} values, the greatest {}", values.last().unwrap());
}
