//! What one large transaction costs those who send small ones meanwhile.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use amphora_tests::Cluster;
use amphora_tests::load::Stop;

use crate::Settings;
use crate::report::{Figure, Goal};

/// Rows of the large one.
const ROWS: i64 = 1_000_000;
/// Clients that commit one row at a time.
const CLIENTS: usize = 4;

/// The latencies of one-row commits while a million rows are inserted by one statement: median, and the longest.
pub async fn figures(settings: &Settings) -> Vec<Figure> {
    eprintln!("one-row commits beside a large transaction …");
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let client = cluster.client(leader).await;
    client.batch_execute("CREATE TABLE small (id bigint PRIMARY KEY, n int)").await.expect("a table");
    let (mut medians, mut longest, mut large) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..settings.rounds {
        let sql = "DROP TABLE IF EXISTS large; CREATE TABLE large (id int PRIMARY KEY, a int, b text)";
        client.batch_execute(sql).await.expect("a table");
        let latencies: Arc<Mutex<Vec<Duration>>> = Arc::default();
        let stop = Stop::default();
        let mut writers = Vec::new();
        for n in 0..CLIENTS {
            let client = cluster.client(leader).await;
            let (stop, latencies) = (stop.clone(), latencies.clone());
            writers.push(tokio::spawn(async move {
                let insert = client.prepare("INSERT INTO small VALUES ($1, 0)").await.expect("a statement");
                let mut id = ((round * CLIENTS + n) * 10_000_000) as i64;
                while !stop.is_stopped() {
                    id += 1;
                    let began = Instant::now();
                    client.execute(&insert, &[&id]).await.expect("a row");
                    latencies.lock().expect("not poisoned").push(began.elapsed());
                }
            }));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let began = Instant::now();
        let insert =
            format!("INSERT INTO large SELECT i, i % 100, '' FROM generate_series(1, {ROWS}) AS g(i)");
        client.batch_execute(&insert).await.expect("rows");
        large.push(began.elapsed());
        stop.stop();
        for writer in writers {
            writer.await.expect("a writer ends well");
        }
        let mut sorted = latencies.lock().expect("not poisoned").clone();
        sorted.sort();
        medians.push(sorted[sorted.len() / 2]);
        longest.push(sorted[sorted.len() - 1]);
    }
    let middle = |mut all: Vec<Duration>| {
        all.sort();
        all[all.len() / 2].as_secs_f64() * 1e3
    };
    vec![
        Figure::new("INSERT of 1,000,000 rows, beside small commits", middle(large), "ms", Goal::None),
        Figure::new("… a small commit meanwhile, median", middle(medians), "ms", Goal::None),
        Figure::new("… the longest", middle(longest), "ms", Goal::None),
    ]
}
