//! `amphora verify`: compares the replicas of a table; those of a leaderless one are mended.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use super::{Failure, HostPort, Table, print, say};
use crate::http::client;
use crate::http::operations::OrderFailure;
use crate::http::verify::{Found, VerifyOrder};

/// How long reading a table may take.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Prints what was found. The exit code is 1 if somebody must look after something.
pub async fn run(host: &HostPort, table: String) -> Result<ExitCode, Failure> {
    let what = format!("could not verify {table}");
    let failed = |reason: String| Failure::new(what.clone(), reason);
    let order = serde_json::to_string(&VerifyOrder { table }).map_err(|e| failed(e.to_string()))?;
    let answer = client::request(&host.to_string(), "POST", "/verify", &order, LIMIT).await;
    let (code, body) = answer.map_err(|e| {
        failed(format!("the node at {host} did not answer: {e}"))
            .next("check that it runs and that --host is its HTTP address, or ask another node")
    })?;
    if code != 200 {
        return Err(match serde_json::from_str::<OrderFailure>(&body) {
            Ok(OrderFailure { error, hint: Some(hint) }) => failed(error).next(hint),
            Ok(OrderFailure { error, hint: None }) => failed(error),
            Err(_) => failed(format!("the node at {host} answered {code}: {body}")),
        });
    }
    let found: Vec<Found> = serde_json::from_str(&body).map_err(|e| {
        failed(format!("the answer of {host} cannot be read: {e}"))
            .next("use the amphora binary of the node's own version")
    })?;
    let mut shown = Table::new(&["object", "node", "rows", "verdict", "detail"]);
    for one in &found {
        let rows = one.rows.map_or_else(String::new, |rows| rows.to_string());
        shown.row(vec![
            one.object.clone(),
            one.node.to_string(),
            rows,
            one.verdict.clone(),
            one.detail.clone(),
        ]);
    }
    match std::io::stdout().is_terminal() {
        true => say!("{}", shown.aligned("").trim_end()),
        false => print(format_args!("{}", shown.plain())),
    }
    Ok(if found.iter().any(|one| one.wrong) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
