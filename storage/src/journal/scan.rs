//! Reading a journal while it is written.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::segment::{self, Found, HEADER, Segment};
use super::{Position, Shared};
use crate::error::{Result, StorageError};

/// Bytes read at a time.
const WINDOW: usize = 64 << 10;

/// Records in their order. It keeps the file that it reads from being written over.
pub struct Scan {
    shared: Arc<Shared>,
    from: Position,
    segment: Option<Arc<Segment>>,
    /// Bytes of the segment, and where they begin
    window: Vec<u8>,
    window_at: u32,
    /// Where in the window the record lies that was read last
    last: Range<usize>,
}

impl Scan {
    pub(super) fn new(shared: Arc<Shared>, from: Position) -> Scan {
        Scan { shared, from, segment: None, window: Vec::new(), window_at: 0, last: 0..0 }
    }

    /// The next record that is durable; `None` if there is none, now.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<(Position, &[u8])>> {
        let position = loop {
            let Some(segment) = self.segment() else { return Ok(None) };
            let (number, at) = (segment.number, self.from.offset);
            if at as usize + HEADER > segment.size as usize {
                self.turn(number);
                continue;
            }
            let written = segment.written.load(Ordering::Acquire);
            if at >= written {
                return Ok(None);
            }
            let header = self.bytes(&segment, at, HEADER, written)?;
            let length = segment::frame_length(header, number, at);
            match segment::decode(self.bytes(&segment, at, length, written)?, number, at) {
                Found::Frame { payload, next } => {
                    let length = payload.len();
                    self.from.offset = next;
                    let start = (at - self.window_at) as usize + HEADER;
                    self.last = start..start + length;
                    break Position { segment: number, offset: at };
                }
                Found::End => self.turn(number),
                Found::Nothing => {
                    let what = format!("\"{}\" has no whole record at byte {at}", segment.path.display());
                    return Err(StorageError::corrupt(what));
                }
            }
        };
        Ok(Some((position, self.current())))
    }

    /// What [`next`](Scan::next) has shown last.
    pub fn current(&self) -> &[u8] {
        self.window.get(self.last.clone()).unwrap_or_default()
    }

    /// The segment that is read, or the first after it.
    fn segment(&mut self) -> Option<Arc<Segment>> {
        if self.segment.is_none() {
            let state = self.shared.state.lock();
            let found = state.segments.iter().find(|segment| segment.number >= self.from.segment).cloned();
            drop(state);
            if let Some(segment) = &found
                && segment.number > self.from.segment
            {
                self.from = Position { segment: segment.number, offset: 0 };
            }
            self.segment = found;
        }
        self.segment.clone()
    }

    /// Goes on with the segment after this one.
    fn turn(&mut self, number: u64) {
        self.from = Position { segment: number + 1, offset: 0 };
        self.segment = None;
        self.window.clear();
    }

    /// So many bytes from `at` on, if there are so many before `limit`.
    fn bytes(&mut self, segment: &Segment, at: u32, length: usize, limit: u32) -> Result<&[u8]> {
        let has = self.window.len() as u32;
        let inside = at >= self.window_at && at as usize + length <= (self.window_at + has) as usize;
        if !inside {
            let most = (limit - at) as usize;
            self.window.resize(length.max(WINDOW).min(most), 0);
            self.window_at = at;
            segment.read(&mut self.window, at)?;
        }
        let start = (at - self.window_at) as usize;
        Ok(&self.window[start..(start + length).min(self.window.len())])
    }
}
