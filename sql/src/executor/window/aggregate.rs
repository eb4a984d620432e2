//! Aggregates over frames.
//!
//! A frame moves forward: rows enter at its end and leave at its start. So
//!
//! - a frame that only grows folds each row once;
//! - a frame that slides takes leaving rows back, where the aggregate can ([`AggregateState::retract`]);
//! - the least and the greatest value are kept as a queue of candidates, each better than all behind it;
//! - anything else, and a frame with holes, is folded anew whenever its rows change, as in PostgreSQL.

use std::collections::VecDeque;
use std::ops::Range;

use amphora_storage::Datum;

use super::frame::{Frame, Frames};
use super::{Call, Context, Partition};
use crate::error::Result;
use crate::functions::{AggregateFunction, AggregateState};

/// A row's arguments; none where FILTER leaves the row out.
type Inputs = [Option<Vec<Datum>>];

impl Call {
    pub(super) fn aggregate(
        &self,
        function: &'static AggregateFunction,
        partition: &Partition<'_>,
        context: &Context<'_>,
    ) -> Result<Vec<Datum>> {
        let inputs = self.inputs(partition, context)?;
        let mut frames = Frames::new(&self.frame, partition, context)?;
        let extreme = match function.name {
            "min" => Some(false),
            "max" => Some(true),
            _ => None,
        };
        if let Some(greatest) = extreme.filter(|_| !self.frame.excludes() && !self.frame.only_grows()) {
            return extremes(&inputs, greatest, &mut frames, context);
        }
        let new_state = || (function.new_state)(&self.arg_types, &context.run.eval);
        let mut sliding = Sliding { inputs: &inputs, state: new_state(), seen: 0..0 };
        let mut values: Vec<Datum> = Vec::with_capacity(inputs.len());
        let mut last: Option<Frame> = None;
        for i in 0..inputs.len() {
            context.run.guard.tick()?;
            let frame = frames.next(i)?;
            let known = values.last().filter(|_| last.as_ref() == Some(&frame)).cloned();
            let value = match known {
                Some(value) => value,
                None if self.frame.excludes() => {
                    let mut state = new_state();
                    for segment in frame.segments() {
                        fold(state.as_mut(), &inputs[segment], context)?;
                    }
                    state.finish()?
                }
                None => {
                    if !sliding.drop_until(frame.rows.start)? {
                        sliding.state = new_state();
                        sliding.seen = frame.rows.start..frame.rows.start;
                    }
                    sliding.take_until(frame.rows.end, context)?;
                    sliding.state.finish()?
                }
            };
            values.push(value);
            last = Some(frame);
        }
        Ok(values)
    }
}

/// A state, and the rows that are in it.
struct Sliding<'a> {
    inputs: &'a Inputs,
    state: Box<dyn AggregateState>,
    seen: Range<usize>,
}

impl Sliding<'_> {
    /// Takes the rows before `start` back; false if the state must start anew.
    fn drop_until(&mut self, start: usize) -> Result<bool> {
        if start > self.seen.end {
            return Ok(false);
        }
        while self.seen.start < start {
            if let Some(args) = &self.inputs[self.seen.start]
                && !self.state.retract(args)?
            {
                return Ok(false);
            }
            self.seen.start += 1;
        }
        Ok(true)
    }

    fn take_until(&mut self, end: usize, context: &Context<'_>) -> Result<()> {
        if end > self.seen.end {
            fold(self.state.as_mut(), &self.inputs[self.seen.end..end], context)?;
            self.seen.end = end;
        }
        Ok(())
    }
}

fn fold(state: &mut dyn AggregateState, inputs: &Inputs, context: &Context<'_>) -> Result<()> {
    for args in inputs.iter().flatten() {
        context.run.guard.tick()?;
        state.update(args)?;
    }
    Ok(())
}

/// `min` and `max` of sliding frames.
fn extremes(
    inputs: &Inputs,
    greatest: bool,
    frames: &mut Frames<'_>,
    context: &Context<'_>,
) -> Result<Vec<Datum>> {
    let value = |i: usize| inputs[i].as_ref().and_then(|args| args.first()).filter(|v| !v.is_null());
    let mut candidates: VecDeque<usize> = VecDeque::new();
    let mut taken = 0;
    let mut values = Vec::with_capacity(inputs.len());
    for i in 0..inputs.len() {
        context.run.guard.tick()?;
        let Range { start, end } = frames.next(i)?.rows;
        for row in taken..end {
            let Some(new) = value(row) else { continue };
            while let Some(old) = candidates.back().and_then(|b| value(*b)) {
                let better = if greatest { new > old } else { new < old };
                if !better {
                    break;
                }
                candidates.pop_back();
            }
            candidates.push_back(row);
        }
        taken = taken.max(end);
        while candidates.front().is_some_and(|f| *f < start) {
            candidates.pop_front();
        }
        // An empty frame may begin beyond rows that were never taken.
        let best = candidates.front().filter(|f| **f < end).and_then(|f| value(*f));
        values.push(best.cloned().unwrap_or(Datum::Null));
    }
    Ok(values)
}
