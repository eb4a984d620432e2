//! Requests that a web page has sent are refused.
//!
//! The port asks for no password, and listens on loopback or in a trusted network. A browser stands in that network too, and
//! runs the pages of strangers. Of what they can make it send, JSON to another origin needs a leave that is
//! never given. What is left is a page whose own name is made to point here after it was loaded (DNS rebinding):
//! to the browser that is the same origin, but its name stands in `Host`. So this must be a name by which the
//! node is known, or an address, which no page can take from its name:
//!
//! | | |
//! |---|---|
//! | `Host` | an IP address, `localhost`, or the host of `--http-listen` or `--advertise-http`; else 403 |
//! | `Origin` | none, or the same as `Host`; else 403 |
//!
//! `/health` and `/ready` tell nothing, and answer under any name, for load balancers.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::operations::OrderFailure;

/// The names under which this node's port is asked.
#[derive(Clone, Debug, Default)]
pub struct KnownHosts {
    names: Arc<[String]>,
}

impl KnownHosts {
    /// These names, and those that everybody has.
    pub fn new(names: impl IntoIterator<Item = String>) -> KnownHosts {
        KnownHosts { names: names.into_iter().collect() }
    }

    /// Whether a request may come from elsewhere than a page of a stranger; if not, why.
    fn check(&self, headers: &HeaderMap) -> Result<(), String> {
        let text = |value: &axum::http::HeaderValue| value.to_str().unwrap_or("?").to_owned();
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next().map(text), hosts.next()) else {
            return Err("the request must name its host, once".to_owned());
        };
        let known = host.parse::<Authority>().is_ok_and(|authority| self.knows(authority.host()));
        if !known {
            return Err(format!("this node is not known as \"{host}\""));
        }
        for origin in headers.get_all(ORIGIN).iter().map(text) {
            let same =
                origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(&host));
            if !same {
                return Err(format!("a page of \"{origin}\" has nothing to ask here"));
            }
        }
        Ok(())
    }

    fn knows(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || self.names.iter().any(|name| name.eq_ignore_ascii_case(bare))
    }
}

/// Lets a request pass, or answers 403.
pub(super) async fn guard(State(known): State<KnownHosts>, request: Request, next: Next) -> Response {
    match known.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            tracing::warn!(path = request.uri().path(), "a request was refused: {error}");
            let hint = "Use the node's address, or start it with that name as --advertise-http.".to_owned();
            (StatusCode::FORBIDDEN, Json(OrderFailure { error, hint: Some(hint) })).into_response()
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn only_known_names_and_no_strangers() {
        let known = KnownHosts::new(["db1.example".to_owned()]);
        let passes = |pairs: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                let name = axum::http::HeaderName::try_from(*name).expect("a name");
                headers.append(name, value.parse().expect("a value"));
            }
            known.check(&headers).is_ok()
        };
        for host in
            ["127.0.0.1:8433", "10.0.0.7", "[::1]:8433", "localhost:1", "LOCALHOST", "db1.Example:8433"]
        {
            assert!(passes(&[("host", host)]), "{host}");
        }
        for host in
            ["evil.example", "evil.example:8433", "localhost.evil.example", "127.0.0.1.evil.example", "", "@"]
        {
            assert!(!passes(&[("host", host)]), "{host}");
        }
        assert!(!passes(&[]) && !passes(&[("host", "localhost"), ("host", "localhost")]));
        assert!(passes(&[("host", "localhost:8433"), ("origin", "http://localhost:8433")]));
        for origin in ["http://evil.example", "http://localhost:1", "null", ""] {
            assert!(!passes(&[("host", "localhost:8433"), ("origin", origin)]), "{origin}");
        }
    }
}
