//! How long writes pause when a leader falls, and when it is stopped in order.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use amphora_tests::Cluster;
use amphora_tests::load::{Acknowledgements, Roaming, Stop};

use crate::report::{Figure, Goal};

/// Clients that write.
const WRITERS: usize = 6;
/// Leaders stopped in order.
const STOPS: usize = 10;

/// Gaps at so many kills, and at orderly stops.
pub async fn figures(kills: usize) -> Vec<Figure> {
    let (gaps, lost) = killed(kills).await;
    let (stops, errors) = stopped(STOPS).await;
    let seconds = |d: Duration| d.as_secs_f64();
    let millis = |d: Duration| d.as_secs_f64() * 1e3;
    vec![
        Figure::new(
            &format!("write gap after kill -9, median of {kills}"),
            seconds(gaps[kills / 2]),
            "s",
            Goal::AtMost(1.0),
        ),
        Figure::new(
            &format!("write gap after kill -9, worst of {kills}"),
            seconds(gaps[kills - 1]),
            "s",
            Goal::AtMost(3.0),
        ),
        Figure::new("acknowledged rows lost", lost as f64, "", Goal::AtMost(0.0)),
        Figure::new(
            &format!("write gap at an orderly stop, median of {STOPS}"),
            millis(stops[STOPS / 2]),
            "ms",
            Goal::AtMost(100.0),
        ),
        Figure::new(
            &format!("write gap at an orderly stop, worst of {STOPS}"),
            millis(stops[STOPS - 1]),
            "ms",
            Goal::None,
        ),
        Figure::new("statements failed at orderly stops", errors as f64, "", Goal::AtMost(0.0)),
    ]
}

/// Waits until writes have gone on for a while after `moment`.
async fn until_writes_go_on(times: &Acknowledgements, moment: Instant) {
    loop {
        let before = times.count();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let goes_on = times.gap_around(moment).is_some() && times.count() > before + 5;
        if goes_on && moment.elapsed() > Duration::from_millis(1500) {
            return;
        }
        assert!(moment.elapsed() < Duration::from_secs(30), "writes do not go on");
    }
}

/// All gaps, ascending, and how many acknowledged rows were lost.
async fn killed(rounds: usize) -> (Vec<Duration>, usize) {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client(0).await;
    client.batch_execute("CREATE TABLE ledger (id bigint PRIMARY KEY)").await.unwrap();
    let addresses: Vec<String> = cluster.nodes().iter().map(|n| n.pg.clone()).collect();
    let acknowledged: Arc<Mutex<BTreeSet<i64>>> = Arc::default();
    let mut gaps = Vec::new();
    for round in 0..rounds {
        let (stop, times) = (Stop::default(), Acknowledgements::default());
        let writers: Vec<_> = (0..WRITERS)
            .map(|w| {
                let base = ((round * WRITERS + w) * 1_000_000) as i64;
                let mut connection = Roaming::new(addresses.clone(), w);
                let (stop, times, acknowledged) = (stop.clone(), times.clone(), acknowledged.clone());
                tokio::spawn(async move {
                    let mut id = base;
                    while !stop.is_stopped() {
                        id += 1;
                        let sql = format!("INSERT INTO ledger VALUES ({id})");
                        let client = connection.client().await;
                        let insert = client.batch_execute(&sql);
                        match tokio::time::timeout(Duration::from_secs(10), insert).await {
                            Ok(Ok(())) => {
                                acknowledged.lock().unwrap().insert(id);
                                times.note();
                            }
                            _ => connection.move_on(),
                        }
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(1000)).await;
        let leader = cluster.leader().await;
        let moment = Instant::now();
        cluster.node(leader).kill();
        until_writes_go_on(&times, moment).await;
        stop.stop();
        for writer in writers {
            writer.await.unwrap();
        }
        gaps.push(times.gap_around(moment).expect("writes went on"));
        cluster.node(leader).restart();
        cluster.wait_settled().await;
    }
    gaps.sort();
    let client = cluster.client(0).await;
    let rows = client.query("SELECT id FROM ledger", &[]).await.unwrap();
    let found: BTreeSet<i64> = rows.iter().map(|r| r.get(0)).collect();
    let lost = acknowledged.lock().unwrap().difference(&found).count();
    (gaps, lost)
}

/// All gaps, ascending, and how many single statements through the nodes that stay failed.
async fn stopped(rounds: usize) -> (Vec<Duration>, usize) {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client(0).await;
    client.batch_execute("CREATE TABLE ledger (id bigint PRIMARY KEY)").await.unwrap();
    let errors: Arc<AtomicUsize> = Arc::default();
    let mut gaps = Vec::new();
    for round in 0..rounds {
        let leader = cluster.leader().await;
        let stay: Vec<usize> = (0..3).filter(|n| *n != leader).collect();
        let (stop, times) = (Stop::default(), Acknowledgements::default());
        let mut writers = Vec::new();
        for w in 0..WRITERS {
            let client = cluster.client(stay[w % 2]).await;
            let (stop, times, errors) = (stop.clone(), times.clone(), errors.clone());
            let mut id = ((round * WRITERS + w) * 1_000_000) as i64;
            writers.push(tokio::spawn(async move {
                while !stop.is_stopped() {
                    id += 1;
                    match client.execute(&format!("INSERT INTO ledger VALUES ({id})"), &[]).await {
                        Ok(_) => times.note(),
                        Err(e) => {
                            eprintln!("at an orderly stop: {e:?}");
                            errors.fetch_add(1, Ordering::Relaxed);
                            return;
                        }
                    }
                }
            }));
        }
        tokio::time::sleep(Duration::from_millis(1000)).await;
        let moment = Instant::now();
        let mut nodes = cluster;
        cluster = tokio::task::spawn_blocking(move || {
            nodes.node(leader).terminate();
            nodes
        })
        .await
        .unwrap();
        until_writes_go_on(&times, moment).await;
        stop.stop();
        for writer in writers {
            writer.await.unwrap();
        }
        gaps.push(times.gap_around(moment).expect("writes went on"));
        cluster.node(leader).restart();
        cluster.wait_settled().await;
    }
    gaps.sort();
    (gaps, errors.load(Ordering::Relaxed))
}
