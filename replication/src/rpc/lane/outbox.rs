//! What waits to be written to a socket, and who writes it.
//!
//! ```text
//!   A: push ─► write ──────────────► write [B C] ─► done
//!   B:         push ─► busy: leaves it to A
//!   C:               push ─► busy
//! ```
//!
//! Whoever flushes while nobody writes becomes the writer: it writes what waits, without waiting, and again
//! if more has come meanwhile. So a message costs no task and no wakeup, and under load many leave with one
//! write. When the socket is full, or one caller has written for others long enough, the connection's own
//! task goes on ([`Outbox::drain`]).

use std::io;

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

use super::wire::{self, Kind};
use super::{MAX_FRAME_BYTES, MAX_OUTBOX_BYTES};

/// How often a caller writes for others before it leaves that to the connection's task.
const MAX_ROUNDS: usize = 8;
/// A buffer that has grown larger is given back when it is empty.
const KEPT_BYTES: usize = 256 << 10;

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// The connection has ended
    Closed,
    /// Too much waits
    Full,
    /// It is longer than a frame may be
    TooLong,
}

#[derive(Default)]
struct State {
    /// Not yet taken by a writer
    waiting: BytesMut,
    /// Taken by a writer that found the socket full
    stuck: BytesMut,
    /// Someone writes, or something is stuck
    busy: bool,
    closed: bool,
}

/// The writing end of a connection.
pub struct Outbox {
    socket: OwnedWriteHalf,
    state: Mutex<State>,
    stuck: Notify,
}

impl Outbox {
    pub fn new(socket: OwnedWriteHalf) -> Outbox {
        Outbox { socket, state: Mutex::default(), stuck: Notify::new() }
    }

    /// Adds a frame. It leaves with the next [`flush`](Outbox::flush).
    pub fn push(&self, id: u64, kind: Kind, body: &[u8]) -> Result<(), Rejected> {
        if body.len() > MAX_FRAME_BYTES {
            return Err(Rejected::TooLong);
        }
        let mut state = self.state.lock();
        if state.closed {
            return Err(Rejected::Closed);
        }
        if state.waiting.len() + body.len() > MAX_OUTBOX_BYTES {
            return Err(Rejected::Full);
        }
        wire::put(&mut state.waiting, id, kind, body);
        Ok(())
    }

    /// Writes what waits, unless someone else does. The error is of the connection: it has to be closed.
    pub fn flush(&self) -> io::Result<()> {
        let chunk = {
            let mut state = self.state.lock();
            if state.busy || state.waiting.is_empty() {
                return Ok(());
            }
            state.busy = true;
            std::mem::take(&mut state.waiting)
        };
        self.write(chunk, MAX_ROUNDS).map(|_| ())
    }

    /// Writes a chunk, and what comes meanwhile, as the one writer. False if it had to stop.
    fn write(&self, mut chunk: BytesMut, rounds: usize) -> io::Result<bool> {
        for _ in 0..rounds {
            while !chunk.is_empty() {
                match self.socket.try_write(&chunk) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => chunk.advance(written),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        self.leave(chunk);
                        return Ok(false);
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            let mut state = self.state.lock();
            if state.waiting.is_empty() {
                state.busy = false;
                if chunk.try_reclaim(KEPT_BYTES / 16) && chunk.capacity() <= KEPT_BYTES {
                    state.waiting = chunk;
                }
                return Ok(true);
            }
            chunk = std::mem::take(&mut state.waiting);
        }
        self.leave(chunk);
        Ok(false)
    }

    fn leave(&self, chunk: BytesMut) {
        self.state.lock().stuck = chunk;
        self.stuck.notify_one();
    }

    /// Goes on where writers had to stop, until the connection ends. One task a connection runs this.
    pub async fn drain(&self) -> io::Error {
        loop {
            self.stuck.notified().await;
            loop {
                if let Err(e) = self.socket.writable().await {
                    return e;
                }
                let chunk = std::mem::take(&mut self.state.lock().stuck);
                if chunk.is_empty() {
                    break;
                }
                match self.write(chunk, MAX_ROUNDS) {
                    Ok(true) => break,
                    Ok(false) => {}
                    Err(e) => return e,
                }
            }
        }
    }

    /// Takes no more, and ends the connection for the other side too, whoever still holds this one.
    pub fn close(&self) {
        let _ = socket2::SockRef::from(self.socket.as_ref()).shutdown(std::net::Shutdown::Both);
        let mut state = self.state.lock();
        state.closed = true;
        state.waiting = BytesMut::new();
        state.stuck = BytesMut::new();
    }
}
