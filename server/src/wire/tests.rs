//! The protocol, byte by byte, against a session that knows four statements.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use amphora_sql::error::{Result, SqlError};
use amphora_sql::plan::Field;
use amphora_sql::scram::Verifier;
use amphora_sql::session::{CancelHandle, Output, TransactionStatus};
use amphora_sql::types::FormatContext;
use amphora_storage::{DataType, Datum};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Authentication, PgServer, SessionFactory, SqlSession, StartOptions};

/// `rows N`, `fail`, `panic`, `wait`; anything else completes.
struct Toy {
    statement: String,
    cancel: CancelHandle,
    status: TransactionStatus,
}

struct ToyFactory;

impl SessionFactory for ToyFactory {
    type Session = Toy;

    fn authentication(&self, user: &str) -> Result<Authentication> {
        match user {
            "amphora" => Ok(Authentication::Trust),
            "secret" => Ok(Authentication::Password(Verifier::of_password("open sesame"))),
            "nobody" => Ok(Authentication::Refuse),
            _ => Err(SqlError::new("28000", format!("role \"{user}\" does not exist"))),
        }
    }

    fn open(&self, _: StartOptions) -> Result<Toy> {
        let status = TransactionStatus::Idle;
        Ok(Toy { statement: String::new(), cancel: CancelHandle::default(), status })
    }
}

fn fields() -> Arc<[Field]> {
    Arc::from(vec![Field { name: "n".into(), ty: DataType::Int4, origin: Some((16384, 1)) }])
}

impl Toy {
    async fn run(&mut self, sql: &str, formats: &[i16], out: &mut dyn Output) -> Result<()> {
        match sql.split_once(' ').unwrap_or((sql, "")) {
            ("rows", count) => {
                out.fields(&fields(), formats, &FormatContext::default());
                for n in 0..count.parse().unwrap() {
                    out.row(&[if n == 1 { Datum::Null } else { Datum::Int4(n) }])?;
                    if n % 100 == 0 {
                        out.flush_if_full().await?;
                    }
                }
                out.complete(&format!("SELECT {count}"));
            }
            ("fail", _) => return Err(SqlError::undefined_table("no \"t\"").with_hint("Make it.").at(3)),
            ("panic", _) => panic!("a bug on purpose"),
            ("wait", _) => {
                while !self.cancel.is_cancelled() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                return Err(SqlError::query_canceled("canceling statement due to user request"));
            }
            _ => out.complete("OK"),
        }
        Ok(())
    }
}

impl SqlSession for Toy {
    fn parameters(&self) -> Vec<(String, String)> {
        vec![("client_encoding".into(), "UTF8".into())]
    }

    async fn simple_query(&mut self, sql: &str, out: &mut dyn Output) -> Result<()> {
        self.run(sql, &[], out).await
    }

    async fn parse(&mut self, _: &str, sql: &str, _: &[u32]) -> Result<()> {
        sql.clone_into(&mut self.statement);
        Ok(())
    }

    fn bind(&mut self, _: &str, _: &str, _: &[Option<Bytes>], _: &[i16], _: &[i16]) -> Result<()> {
        Ok(())
    }

    async fn describe_statement(&mut self, _: &str) -> Result<(Vec<u32>, Option<Arc<[Field]>>)> {
        Ok((vec![23], Some(fields())))
    }

    fn describe_portal(&mut self, _: &str) -> Result<Option<(Arc<[Field]>, Vec<i16>)>> {
        Ok(None)
    }

    fn expect_sync(&mut self) {}

    async fn execute(&mut self, _: &str, _: u32, out: &mut dyn Output) -> Result<()> {
        let sql = self.statement.clone();
        self.run(&sql, &[1], out).await
    }

    fn close_statement(&mut self, _: &str) {}

    fn close_portal(&mut self, _: &str) {}

    async fn sync(&mut self, _: &mut dyn Output) -> Result<()> {
        Ok(())
    }

    async fn failed(&mut self) {}

    fn status(&self) -> TransactionStatus {
        self.status
    }

    fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }
}

struct Client(TcpStream);

async fn server(max_connections: usize) -> (PgServer, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (PgServer::start(listener, ToyFactory, max_connections).unwrap(), address)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend((body.len() as u32 + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

fn startup(version: u32, parameters: &[u8]) -> Vec<u8> {
    let mut bytes = (parameters.len() as u32 + 9).to_be_bytes().to_vec();
    bytes.extend(version.to_be_bytes());
    bytes.extend(parameters);
    bytes.push(0);
    bytes
}

impl Client {
    async fn raw(address: &str) -> Client {
        Client(TcpStream::connect(address).await.unwrap())
    }

    async fn connect(address: &str) -> (Client, Bytes) {
        let mut client = Client::raw(address).await;
        client.send(&startup(3 << 16, b"user\0amphora\0")).await;
        let replies = client.until(b'Z').await;
        let key = replies.into_iter().find(|(kind, _)| *kind == b'K').unwrap().1;
        (client, key)
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    async fn query(&mut self, sql: &str) {
        self.send(&message(b'Q', format!("{sql}\0").as_bytes())).await;
    }

    async fn next(&mut self) -> Option<(u8, Bytes)> {
        let read = async {
            let kind = self.0.read_u8().await.ok()?;
            let length = self.0.read_u32().await.ok()? as usize;
            let mut body = vec![0; length - 4];
            self.0.read_exact(&mut body).await.ok()?;
            Some((kind, Bytes::from(body)))
        };
        tokio::time::timeout(Duration::from_secs(10), read).await.expect("an answer in time")
    }

    async fn until(&mut self, last: u8) -> Vec<(u8, Bytes)> {
        let mut replies = Vec::new();
        loop {
            let reply = self.next().await.unwrap_or_else(|| panic!("closed after {replies:?}"));
            let done = reply.0 == last;
            replies.push(reply);
            if done {
                return replies;
            }
        }
    }

    async fn kinds_until(&mut self, last: u8) -> String {
        self.until(last).await.iter().map(|(kind, _)| *kind as char).collect()
    }

    /// Expects an error with this SQLSTATE, and then the end.
    async fn refused(&mut self, sqlstate: &str) {
        let (kind, body) = self.next().await.expect("an error");
        assert_eq!(kind, b'E');
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(text.contains(&format!("\0C{sqlstate}\0")), "{text:?}");
        assert!(self.next().await.is_none(), "the connection ends");
    }
}

#[tokio::test]
async fn startup_negotiates() {
    let (_server, address) = server(10).await;
    let mut client = Client::raw(&address).await;
    client.send(&[0, 0, 0, 8, 4, 210, 22, 47]).await;
    assert_eq!(client.0.read_u8().await.unwrap(), b'N');
    client.send(&[0, 0, 0, 8, 4, 210, 22, 48]).await;
    assert_eq!(client.0.read_u8().await.unwrap(), b'N');
    client.send(&startup((3 << 16) + 9999, b"user\0amphora\0_pq_.new\0x\0")).await;
    assert_eq!(client.kinds_until(b'Z').await, "vRSKZ");
    client.query("OK").await;
    assert_eq!(client.kinds_until(b'Z').await, "CZ");
}

#[tokio::test]
async fn strangers_are_refused() {
    let (_server, address) = server(10).await;
    for (packet, sqlstate) in [
        (startup(3 << 16, b"user\0eve\0"), "28000"),
        (startup(3 << 16, b"user\0amphora\0database\0mars\0"), "3D000"),
        (startup(2 << 16, b"user\0amphora\0"), "0A000"),
        (startup(3 << 16, b""), "28000"),
        (b"\x00\x00\x00\x00\x00\x03\x00\x00".to_vec(), "08P01"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), "08P01"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "08P01"),
    ] {
        let mut client = Client::raw(&address).await;
        client.send(&packet).await;
        client.refused(sqlstate).await;
    }
}

#[tokio::test]
async fn an_error_skips_to_sync_and_no_further() {
    let (_server, address) = server(10).await;
    let (mut client, _) = Client::connect(&address).await;
    let mut batch = Vec::new();
    batch.extend(message(b'P', b"\0rows 2\0\0\0"));
    batch.extend(message(b'B', b"\0\0\0\0\0\0\0\0"));
    batch.extend(message(b'D', b"S\0"));
    batch.extend(message(b'E', b"\0\0\0\0\0"));
    batch.extend(message(b'P', b"\0fail\0\0\0"));
    batch.extend(message(b'E', b"\0\0\0\0\0"));
    batch.extend(message(b'P', b"\0OK\0\0\0"));
    batch.extend(message(b'Q', b"skipped too\0"));
    batch.extend(message(b'S', b""));
    batch.extend(message(b'C', b"Sx\0"));
    batch.extend(message(b'S', b""));
    client.send(&batch).await;
    assert_eq!(client.kinds_until(b'Z').await, "12tTDDC1EZ");
    assert_eq!(client.kinds_until(b'Z').await, "3Z");
}

#[tokio::test]
async fn rows_come_in_text_and_in_binary() {
    let (_server, address) = server(10).await;
    let (mut client, _) = Client::connect(&address).await;
    client.query("rows 3").await;
    let replies = client.until(b'Z').await;
    assert_eq!(&replies[0].1[..], b"\0\x01n\0\0\0\x40\0\0\x01\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0");
    assert_eq!(&replies[1].1[..], b"\0\x01\0\0\0\x010");
    assert_eq!(&replies[2].1[..], b"\0\x01\xff\xff\xff\xff");
    let mut batch = message(b'P', b"\0rows 1\0\0\0");
    batch.extend(message(b'E', b"\0\0\0\0\0"));
    batch.extend(message(b'S', b""));
    client.send(&batch).await;
    let replies = client.until(b'Z').await;
    assert_eq!(&replies[1].1[..], b"\0\x01\0\0\0\x04\0\0\0\0");
}

#[tokio::test]
async fn malformed_messages_are_errors_of_their_own() {
    let (_server, address) = server(10).await;
    let (mut client, _) = Client::connect(&address).await;
    client.send(&message(b'Q', b"no end")).await;
    assert_eq!(client.kinds_until(b'Z').await, "EZ");
    let mut batch = message(b'B', b"\0\0\xff\xff");
    batch.extend(message(b'E', b""));
    batch.extend(message(b'S', b""));
    client.send(&batch).await;
    assert_eq!(client.kinds_until(b'Z').await, "EZ");
    client.send(&message(b'F', b"whatever")).await;
    assert_eq!(client.kinds_until(b'Z').await, "EZ");
    client.send(&message(b'd', b"copy data nobody asked for")).await;
    client.query("OK").await;
    assert_eq!(client.kinds_until(b'Z').await, "CZ");
    // A length that cannot be, and an unknown type: where the next message begins is not known any more.
    for garbage in [&b"Q\x7f\xff\xff\xff"[..], b"Q\0\0\0\x03", b"\xff\0\0\0\x04", b"p\0\0\0\x05\0"] {
        let (mut client, _) = Client::connect(&address).await;
        client.send(garbage).await;
        client.refused("08P01").await;
    }
}

#[tokio::test]
async fn a_bug_ends_one_connection() {
    let (server, address) = server(10).await;
    let (mut other, _) = Client::connect(&address).await;
    let (mut client, _) = Client::connect(&address).await;
    assert_eq!(server.sessions(), 2);
    client.query("panic").await;
    client.refused("XX000").await;
    assert_eq!(server.sessions(), 1);
    other.query("OK").await;
    assert_eq!(other.kinds_until(b'Z').await, "CZ");
}

#[tokio::test]
async fn cancel_needs_the_secret() {
    let (_server, address) = server(10).await;
    let (mut client, key) = Client::connect(&address).await;
    client.query("wait").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut request = vec![0, 0, 0, 16, 4, 210, 22, 46];
    request.extend(&key);
    let mut wrong = request.clone();
    wrong[15] ^= 1;
    Client::raw(&address).await.send(&wrong).await;
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(200), client.0.peek(&mut byte)).await;
    assert!(early.is_err(), "a wrong secret cancels nothing");
    Client::raw(&address).await.send(&request).await;
    let replies = client.until(b'Z').await;
    assert!(String::from_utf8_lossy(&replies[0].1).contains("57014"));
}

#[tokio::test]
async fn a_client_that_vanishes_is_cancelled() {
    let (server, address) = server(10).await;
    let (mut client, _) = Client::connect(&address).await;
    client.query("wait").await;
    // Even one that has sent more, which nobody has read yet.
    client.query("OK").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.sessions(), 1);
    drop(client);
    let start = std::time::Instant::now();
    while server.sessions() > 0 {
        assert!(start.elapsed() < Duration::from_secs(5), "the statement runs on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn there_is_a_limit_to_connections() {
    let (_server, address) = server(1).await;
    let (first, _) = Client::connect(&address).await;
    let mut second = Client::raw(&address).await;
    second.send(&startup(3 << 16, b"user\0amphora\0")).await;
    second.refused("53300").await;
    drop(first);
    tokio::time::sleep(Duration::from_millis(50)).await;
    Client::connect(&address).await;
}

#[tokio::test]
async fn stopping_tells_idle_clients_and_cancels_busy_ones() {
    let (server, address) = server(10).await;
    let (mut idle, _) = Client::connect(&address).await;
    let (mut busy, _) = Client::connect(&address).await;
    busy.query("wait").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let stopping = tokio::spawn(async move { server.stop().await });
    idle.refused("57P01").await;
    let replies = busy.until(b'Z').await;
    assert!(String::from_utf8_lossy(&replies[0].1).contains("57014"));
    busy.refused("57P01").await;
    stopping.await.unwrap();
    assert!(TcpStream::connect(&address).await.is_err());
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_its_own_statement_back() {
    let (_server, address) = server(10).await;
    let (mut slow, _) = Client::connect(&address).await;
    slow.query("rows 3000000").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (mut other, _) = Client::connect(&address).await;
    other.query("OK").await;
    assert_eq!(other.kinds_until(b'Z').await, "CZ");
    let mut rows = 0;
    loop {
        match slow.next().await.expect("a reply") {
            (b'D', _) => rows += 1,
            (b'Z', _) => break,
            _ => {}
        }
    }
    assert_eq!(rows, 3_000_000);
}
