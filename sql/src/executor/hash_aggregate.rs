//! GROUP BY by hashing.
//!
//! Groups come out in the order in which they were first seen, as long as they fit into `work_mem`. Then no
//! more groups are begun: rows of others are divided among files by the hash of their key, and each file is
//! grouped by itself when the first groups have been given.

use std::collections::HashMap;

use amphora_storage::{Datum, Row};

use super::aggregate::{AggregateCall, Group};
use super::expression::eval_all;
use super::guard::{Held, row_memory};
use super::partition::{MAX_LEVEL, Partitions, Pending, pending};
use super::{BATCH, Builder, Context, Expression, Operator};
use crate::error::Result;
use crate::expr::Expr;
use crate::plan::Aggregate;

pub(super) struct HashAggregate {
    input: Box<dyn Operator>,
    grouping: Grouping,
    groups: Option<std::vec::IntoIter<Group>>,
    pending: Vec<Pending>,
    held: Held,
    done: Done,
}

/// By what rows are grouped, and what is made of a group.
struct Grouping {
    keys: Vec<Expression>,
    calls: Vec<AggregateCall>,
}

/// What was done, for EXPLAIN ANALYZE.
#[derive(Default)]
struct Done {
    memory: usize,
    disk: u64,
    batches: usize,
}

/// Groups of the rows seen so far.
struct Groups<'a> {
    grouping: &'a Grouping,
    groups: Vec<Group>,
    positions: HashMap<Vec<Datum>, usize>,
    /// Rows of groups that did not fit
    others: Option<Partitions>,
    /// The level of their files
    level: u32,
    held: &'a mut Held,
}

impl<'a> Groups<'a> {
    fn new(grouping: &'a Grouping, level: u32, held: &'a mut Held) -> Groups<'a> {
        Groups { grouping, groups: Vec::new(), positions: HashMap::new(), others: None, level, held }
    }

    fn add(&mut self, row: &Row, context: &Context<'_>) -> Result<()> {
        let Grouping { keys, calls } = self.grouping;
        let key = eval_all(keys, row, context)?;
        let position = match self.positions.get(&key) {
            Some(position) => *position,
            None => {
                let memory = 2 * row_memory(&key) + 64 + 96 * calls.len();
                let full = self.others.is_some()
                    || (!self.groups.is_empty()
                        && self.level < MAX_LEVEL
                        && context.run.is_over(self.held, memory));
                if full {
                    let level = self.level;
                    let others = self.others.get_or_insert_with(|| Partitions::new(level));
                    return others.write(context.run, &key, row);
                }
                self.held.add_bytes(&context.run.guard, memory)?;
                self.groups.push(Group::new(key.clone(), calls, context));
                self.positions.insert(key, self.groups.len() - 1);
                self.groups.len() - 1
            }
        };
        match self.groups.get_mut(position) {
            Some(group) => group.add(row, calls, context, self.held),
            None => Ok(()),
        }
    }
}

impl HashAggregate {
    pub(super) fn new(
        input: Box<dyn Operator>,
        keys: &[Expr],
        aggregates: &[Aggregate],
        builder: &mut Builder,
    ) -> Result<HashAggregate> {
        let keys = Expression::compile_all(keys, builder)?;
        let calls = aggregates.iter().map(|a| AggregateCall::compile(a, builder)).collect::<Result<_>>()?;
        Ok(HashAggregate {
            input,
            grouping: Grouping { keys, calls },
            groups: None,
            pending: Vec::new(),
            held: Held::default(),
            done: Done::default(),
        })
    }

    /// The one group of an aggregate without keys.
    fn whole(&mut self, context: &Context<'_>) -> Result<Vec<Group>> {
        let (calls, held) = (&self.grouping.calls, &mut self.held);
        let mut group = Group::new(Vec::new(), calls, context);
        super::drain(self.input.as_mut(), context, |row| group.add(&row, calls, context, held))?;
        Ok(vec![group])
    }

    /// Groups the input, or what was set aside.
    fn group(&mut self, pending: Option<Pending>, context: &Context<'_>) -> Result<Vec<Group>> {
        self.held.release(&context.run.guard);
        let level = pending.as_ref().map_or(0, |p| p.level);
        let mut groups = Groups::new(&self.grouping, level, &mut self.held);
        match pending {
            None => super::drain(self.input.as_mut(), context, |row| groups.add(&row, context))?,
            Some(mut pending) => {
                while let Some(row) = pending.rows.next::<Row>()? {
                    context.run.guard.tick()?;
                    groups.add(&row, context)?;
                }
            }
        }
        let Groups { groups, others, .. } = groups;
        self.done.batches += 1;
        self.done.memory = self.done.memory.max(self.held.bytes());
        if let Some(others) = others {
            self.done.disk += others.bytes();
            self.pending.extend(self::pending(others)?);
        }
        Ok(groups)
    }
}

impl Operator for HashAggregate {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        let mut groups = match self.groups.take() {
            Some(groups) => groups,
            None if self.grouping.keys.is_empty() => self.whole(context)?.into_iter(),
            None => self.group(None, context)?.into_iter(),
        };
        for group in groups.by_ref().take(BATCH) {
            out.push(group.finish(&self.grouping.calls, context)?);
        }
        if groups.len() == 0 {
            let Some(pending) = self.pending.pop() else {
                self.held.release(&context.run.guard);
                self.groups = Some(groups);
                return Ok(false);
            };
            groups = self.group(Some(pending), context)?.into_iter();
        }
        self.groups = Some(groups);
        Ok(true)
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.input.reset(context);
        self.groups = None;
        self.pending.clear();
        self.held.release(&context.run.guard);
    }

    fn notes(&self) -> Vec<(&'static str, String)> {
        if self.grouping.keys.is_empty() {
            return Vec::new();
        }
        let Done { memory, disk, batches } = self.done;
        let mut note = format!("{batches}  Memory Usage: {}kB", memory.div_ceil(1024).max(1));
        if disk > 0 {
            note.push_str(&format!("  Disk Usage: {}kB", disk.div_ceil(1024)));
        }
        vec![("Batches", note)]
    }
}
