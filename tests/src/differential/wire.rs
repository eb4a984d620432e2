//! A client that hides nothing: bytes of values, type OIDs, tags and error fields as the server sent them.
//!
//! Drivers decode, drop and add; a comparison of servers wants the messages themselves. So this speaks the
//! little of the protocol that is needed, blocking, one statement at a time.

use std::io::{BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long a statement may take before the connection is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name
    pub name: String,
    /// OID of its type
    pub oid: u32,
    /// Its modifier
    pub modifier: i32,
}

/// An error as the client is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failure {
    /// SQLSTATE
    pub sqlstate: String,
    /// The primary message
    pub message: String,
    /// DETAIL
    pub detail: String,
    /// HINT
    pub hint: String,
    /// Where in the statement, from 1
    pub position: String,
}

/// All that came of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Columns, if it gives rows
    pub columns: Vec<Column>,
    /// Rows; a value is `None` for NULL
    pub rows: Vec<Vec<Option<Vec<u8>>>>,
    /// The command's tag
    pub tag: String,
    /// What went wrong
    pub failure: Option<Failure>,
    /// Types of parameters, as described
    pub parameters: Vec<u32>,
}

/// How a statement is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One Query message
    Simple,
    /// Parse, Bind, Describe, Execute with results in text
    Text,
    /// The same with results in binary
    Binary,
}

/// A session.
pub struct Connection {
    stream: BufReader<TcpStream>,
    out: Vec<u8>,
}

impl Connection {
    /// Connects as user and database `amphora`, without a password.
    pub fn open(address: &str) -> Result<Connection> {
        Connection::open_database(address, "amphora")
    }

    /// Connects as user `amphora` to a database.
    pub fn open_database(address: &str, database: &str) -> Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut connection = Connection { stream: BufReader::new(stream), out: Vec::new() };
        let mut body = 196_608_i32.to_be_bytes().to_vec();
        for word in ["user", "amphora", "database", database, "TimeZone", "UTC"] {
            body.extend_from_slice(word.as_bytes());
            body.push(0);
        }
        body.push(0);
        let length = i32::try_from(body.len() + 4).unwrap_or(0);
        connection.out.extend_from_slice(&length.to_be_bytes());
        connection.out.extend_from_slice(&body);
        connection.send()?;
        let mut answer = Answer::default();
        connection.receive(&mut answer)?;
        match answer.failure {
            Some(failure) => Err(Error::other(failure.message)),
            None => Ok(connection),
        }
    }

    /// Runs a statement with parameters in text form; `None` is NULL. Simple mode takes none.
    pub fn run(&mut self, sql: &str, parameters: &[Option<String>], mode: Mode) -> Result<Answer> {
        let mut answer = Answer::default();
        if mode == Mode::Simple {
            self.message(b'Q', |body| text(body, sql));
        } else {
            self.message(b'P', |body| {
                body.push(0);
                text(body, sql);
                body.extend_from_slice(&0_i16.to_be_bytes());
            });
            self.message(b'D', |body| body.extend_from_slice(b"S\0"));
            self.message(b'B', |body| {
                body.extend_from_slice(&[0, 0]);
                body.extend_from_slice(&0_i16.to_be_bytes());
                body.extend_from_slice(&(parameters.len() as i16).to_be_bytes());
                for parameter in parameters {
                    match parameter {
                        None => body.extend_from_slice(&(-1_i32).to_be_bytes()),
                        Some(value) => {
                            body.extend_from_slice(&(value.len() as i32).to_be_bytes());
                            body.extend_from_slice(value.as_bytes());
                        }
                    }
                }
                body.extend_from_slice(&1_i16.to_be_bytes());
                body.extend_from_slice(&i16::from(mode == Mode::Binary).to_be_bytes());
            });
            self.message(b'E', |body| body.extend_from_slice(&[0, 0, 0, 0, 0]));
            self.message(b'S', |_| {});
        }
        self.send()?;
        self.receive(&mut answer)?;
        Ok(answer)
    }

    fn message(&mut self, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
        self.out.push(kind);
        let start = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        write(&mut self.out);
        let length = (self.out.len() - start) as i32;
        self.out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    fn send(&mut self) -> Result<()> {
        self.stream.get_mut().write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Reads until ReadyForQuery.
    fn receive(&mut self, answer: &mut Answer) -> Result<()> {
        loop {
            let mut head = [0; 5];
            self.stream.read_exact(&mut head)?;
            let length = i32::from_be_bytes([head[1], head[2], head[3], head[4]]);
            let length = usize::try_from(length - 4).map_err(|_| bad("length"))?;
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body)?;
            let mut reader = Reader { body: &body };
            match head[0] {
                b'Z' => return Ok(()),
                b'T' => answer.columns = reader.columns()?,
                b't' => {
                    for _ in 0..reader.i16()? {
                        answer.parameters.push(reader.i32()? as u32);
                    }
                }
                b'D' => {
                    let mut row = Vec::new();
                    for _ in 0..reader.i16()? {
                        row.push(match usize::try_from(reader.i32()?) {
                            Err(_) => None,
                            Ok(n) => Some(reader.take(n)?.to_vec()),
                        });
                    }
                    answer.rows.push(row);
                }
                b'C' => answer.tag = reader.text()?,
                b'I' => answer.tag = "EMPTY".into(),
                b'E' => {
                    answer.failure = Some(reader.failure()?);
                    if matches!(&answer.failure, Some(f) if f.sqlstate.starts_with("57P")) {
                        return Ok(());
                    }
                }
                b'R' if reader.i32()? != 0 => return Err(bad("authentication")),
                _ => {}
            }
        }
    }
}

fn bad(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("malformed {what}"))
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(text.as_bytes());
    body.push(0);
}

struct Reader<'a> {
    body: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.body.split_at_checked(n).ok_or_else(|| bad("message"))?;
        self.body = rest;
        Ok(taken)
    }

    fn i16(&mut self) -> Result<i16> {
        self.take(2).map(|b| i16::from_be_bytes([b[0], b[1]]))
    }

    fn i32(&mut self) -> Result<i32> {
        self.take(4).map(|b| i32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn text(&mut self) -> Result<String> {
        let end = self.body.iter().position(|&b| b == 0).ok_or_else(|| bad("text"))?;
        let text = String::from_utf8_lossy(self.take(end)?).into_owned();
        self.take(1)?;
        Ok(text)
    }

    fn columns(&mut self) -> Result<Vec<Column>> {
        let mut columns = Vec::new();
        for _ in 0..self.i16()? {
            let name = self.text()?;
            self.take(6)?;
            let oid = self.i32()? as u32;
            self.take(2)?;
            let modifier = self.i32()?;
            self.take(2)?;
            columns.push(Column { name, oid, modifier });
        }
        Ok(columns)
    }

    fn failure(&mut self) -> Result<Failure> {
        let mut failure = Failure::default();
        loop {
            let kind = self.take(1)?[0];
            if kind == 0 {
                return Ok(failure);
            }
            let value = self.text()?;
            match kind {
                b'C' => failure.sqlstate = value,
                b'M' => failure.message = value,
                b'D' => failure.detail = value,
                b'H' => failure.hint = value,
                b'P' => failure.position = value,
                _ => {}
            }
        }
    }
}
