//! Which rows of its partition a row's window call sees.
//!
//! ```text
//!   partition   0 ─────────────────────────────── n        positions, in the window's order
//!   peers             ├─ start(i) ── i ── end(i) ┤         rows equal to i in ORDER BY
//!   frame          ├── start ───────────── end ┤           what ROWS, RANGE or GROUPS says
//!   seen           ├────────┤            ├────┤            less what EXCLUDE takes out again
//! ```
//!
//! From row to row neither end of a frame moves back, because offsets are constant: RANGE searches onward
//! from where it stood, and all frames of a partition together cost one walk over it.

use std::cmp::Ordering;
use std::ops::Range;

use amphora_storage::Datum;

use super::{Builder, Context, Expression, Partition};
use crate::error::{Result, SqlError};
use crate::functions::{check_range_offset, range_bound, range_key};
use crate::plan::{FrameBound, FrameExclusion, FrameUnits, WindowCall};
use crate::types::TimeZone;

/// The groups of equal rows of a partition.
pub(super) struct Peers {
    /// Where each group begins, and the partition's length at the end
    starts: Vec<usize>,
    /// The group of each row
    groups: Vec<usize>,
}

impl Peers {
    /// Groups neighbours whose keys are equal from `first` on.
    pub(super) fn of(keys: &[Vec<Datum>], first: usize) -> Peers {
        let (mut starts, mut groups) = (Vec::new(), Vec::with_capacity(keys.len()));
        for peers in keys.chunk_by(|a, b| a[first..] == b[first..]) {
            let group = starts.len();
            starts.push(groups.len());
            groups.extend(peers.iter().map(|_| group));
        }
        starts.push(keys.len());
        Peers { starts, groups }
    }

    pub(super) fn group(&self, row: usize) -> usize {
        self.groups[row]
    }

    pub(super) fn start(&self, row: usize) -> usize {
        self.starts[self.groups[row]]
    }

    pub(super) fn end(&self, row: usize) -> usize {
        self.starts[self.groups[row] + 1]
    }

    /// Where a group begins; the partition's end for one beyond the last.
    fn start_of(&self, group: usize) -> usize {
        self.starts.get(group).or(self.starts.last()).copied().unwrap_or(0)
    }
}

/// A frame clause, compiled.
pub(super) struct Compiled {
    units: FrameUnits,
    start: End,
    end: End,
    exclude: FrameExclusion,
    descending: bool,
}

enum End {
    First,
    Before(Expression),
    Current,
    After(Expression),
    Last,
}

impl Compiled {
    pub(super) fn new(call: &WindowCall, builder: &mut Builder) -> Result<Compiled> {
        let mut end = |bound: &FrameBound| {
            Ok::<End, SqlError>(match bound {
                FrameBound::UnboundedPreceding => End::First,
                FrameBound::Preceding(e) => End::Before(Expression::compile(e, builder)?),
                FrameBound::CurrentRow => End::Current,
                FrameBound::Following(e) => End::After(Expression::compile(e, builder)?),
                FrameBound::UnboundedFollowing => End::Last,
            })
        };
        Ok(Compiled {
            units: call.frame.units,
            start: end(&call.frame.start)?,
            end: end(&call.frame.end)?,
            exclude: call.frame.exclude,
            descending: call.order_by.first().is_some_and(|k| k.descending),
        })
    }

    /// True if every frame begins with the partition and nothing is taken out of it.
    pub(super) fn only_grows(&self) -> bool {
        matches!(self.start, End::First) && !self.excludes()
    }

    /// True if EXCLUDE takes rows out.
    pub(super) fn excludes(&self) -> bool {
        self.exclude != FrameExclusion::NoOthers
    }
}

/// One row's frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// What the bounds say
    pub(super) rows: Range<usize>,
    /// What EXCLUDE takes out, up to two ranges in order, perhaps empty
    holes: [Range<usize>; 2],
}

impl Frame {
    /// The rows that are seen, in order, as ranges.
    pub(super) fn segments(&self) -> impl DoubleEndedIterator<Item = Range<usize>> + '_ {
        let Range { start, end } = self.rows;
        let [a, b] = &self.holes;
        let clamp = move |from: usize, to: usize| from.clamp(start, end)..to.clamp(start, end);
        [clamp(start, a.start), clamp(a.end, b.start), clamp(b.end, end)]
            .into_iter()
            .filter(|r| !r.is_empty())
    }

    pub(super) fn nth(&self, n: usize) -> Option<usize> {
        let mut left = n;
        for segment in self.segments() {
            if left < segment.len() {
                return Some(segment.start + left);
            }
            left -= segment.len();
        }
        None
    }

    pub(super) fn last(&self) -> Option<usize> {
        self.segments().next_back().map(|s| s.end - 1)
    }
}

/// The frames of one partition, row by row.
pub(super) struct Frames<'a> {
    compiled: &'a Compiled,
    partition: &'a Partition<'a>,
    zone: &'a TimeZone,
    start: Offset,
    end: Offset,
    /// For RANGE offsets: the rows whose key is not NULL
    valued: Range<usize>,
}

/// The offset of one end, and for RANGE how far the search has come.
struct Offset {
    count: usize,
    distance: Datum,
    reached: usize,
}

impl Offset {
    fn none() -> Offset {
        Offset { count: 0, distance: Datum::Null, reached: 0 }
    }
}

impl<'a> Frames<'a> {
    pub(super) fn new(
        compiled: &'a Compiled,
        partition: &'a Partition<'a>,
        context: &Context<'a>,
    ) -> Result<Frames<'a>> {
        let keys = partition.keys;
        let null = |row: &Vec<Datum>| row.get(partition.key).is_none_or(Datum::is_null);
        let first = keys.iter().position(|k| !null(k)).unwrap_or(keys.len());
        let last = keys.iter().rposition(|k| !null(k)).map_or(first, |i| i + 1);
        let (start, end) = (&compiled.start, &compiled.end);
        Ok(Frames {
            compiled,
            partition,
            zone: context.run.eval.timezone(),
            start: offset(start, "starting", compiled.units, first, context)?,
            end: offset(end, "ending", compiled.units, first, context)?,
            valued: first..last,
        })
    }

    /// The frame of row `i`; rows must be asked for in order.
    pub(super) fn next(&mut self, i: usize) -> Result<Frame> {
        let (peers, count) = (self.partition.peers, self.partition.rows.len());
        let by_rows = self.compiled.units == FrameUnits::Rows;
        let start = match &self.compiled.start {
            End::First => 0,
            End::Last => count,
            End::Current if by_rows => i,
            End::Current => peers.start(i),
            End::Before(_) => self.bound(i, true, true)?,
            End::After(_) => self.bound(i, false, true)?,
        };
        let end = match &self.compiled.end {
            End::First => 0,
            End::Last => count,
            End::Current if by_rows => i + 1,
            End::Current => peers.end(i),
            End::Before(_) => self.bound(i, true, false)?,
            End::After(_) => self.bound(i, false, false)?,
        };
        let start = start.min(count);
        let none = count..count;
        let holes = match self.compiled.exclude {
            FrameExclusion::NoOthers => [none.clone(), none],
            FrameExclusion::CurrentRow => [i..i + 1, none],
            FrameExclusion::Group => [peers.start(i)..peers.end(i), none],
            FrameExclusion::Ties => [peers.start(i)..i, i + 1..peers.end(i)],
        };
        Ok(Frame { rows: start..end.clamp(start, count), holes })
    }

    /// Where the frame begins, or ends, if that is an offset from row `i`.
    fn bound(&mut self, i: usize, before: bool, is_start: bool) -> Result<usize> {
        let peers = self.partition.peers;
        let offset = if is_start { &mut self.start } else { &mut self.end };
        let past = usize::from(!is_start);
        match self.compiled.units {
            FrameUnits::Rows => Ok(match before {
                true => (i + past).saturating_sub(offset.count),
                false => (i + past).saturating_add(offset.count),
            }),
            FrameUnits::Groups => {
                let group = peers.group(i) + past;
                Ok(match before {
                    true if group < offset.count => 0,
                    true => peers.start_of(group - offset.count),
                    false => peers.start_of(group.saturating_add(offset.count)),
                })
            }
            FrameUnits::Range => {
                if !self.valued.contains(&i) {
                    return Ok(if is_start { peers.start(i) } else { peers.end(i) });
                }
                let key = |row: usize| range_key(&self.partition.keys[row][self.partition.key]);
                // Against the order, what comes before is greater.
                let bound =
                    range_bound(&key(i), &offset.distance, before != self.compiled.descending, self.zone)?;
                while offset.reached < self.valued.end {
                    let order = match self.compiled.descending {
                        true => bound.cmp(&key(offset.reached)),
                        false => key(offset.reached).cmp(&bound),
                    };
                    let outside = order == Ordering::Less || order == Ordering::Equal && !is_start;
                    if !outside {
                        break;
                    }
                    offset.reached += 1;
                }
                Ok(offset.reached)
            }
        }
    }
}

/// Evaluates an offset. 22004 and 22013 as PostgreSQL words them.
fn offset(
    end: &End,
    which: &str,
    units: FrameUnits,
    reached: usize,
    context: &Context<'_>,
) -> Result<Offset> {
    let (End::Before(e) | End::After(e)) = end else { return Ok(Offset::none()) };
    let value = e.eval(&[], context)?;
    if value.is_null() {
        return Err(SqlError::null_value_not_allowed(format!("frame {which} offset must not be null")));
    }
    if units == FrameUnits::Range {
        check_range_offset(&value)?;
        return Ok(Offset { count: 0, distance: value, reached });
    }
    match value.as_i64() {
        Some(n) if n >= 0 => {
            let count = usize::try_from(n).unwrap_or(usize::MAX);
            Ok(Offset { count, ..Offset::none() })
        }
        _ => Err(SqlError::new("22013", format!("frame {which} offset must not be negative"))),
    }
}
