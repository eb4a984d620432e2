//! Hash joins: the right side is put into a hash table by its keys, the left side looks them up.
//!
//! NULL keys match nothing. RIGHT and FULL joins mark the right rows that found a partner and give the
//! others at the end.
//!
//! A right side that does not fit into `work_mem` is divided among files by the hash of its keys, and then
//! the left side is too; rows that match are in files of the same place ([`Partitions`]):
//!
//! ```text
//!   right  ├──0──┼──1──┼ … ┤     each pair of files is a join of its own; if its right file does not fit
//!   left   ├──0──┼──1──┼ … ┤     either, both are divided again
//! ```
//!
//! Rows that are all of one key cannot be divided. Then the table holds as many right rows as fit, all left
//! rows are read, and so on with the next right rows; a bit for each left row says whether it has matched.

use std::collections::HashMap;

use amphora_storage::{Datum, Row};
use smallvec::SmallVec;

use super::guard::{Held, row_memory};
use super::partition::{MAX_LEVEL, Partitions};
use super::spill::{SpillFile, Spilled};
use super::{BATCH, Builder, Context, Expression, Operator};
use crate::error::Result;
use crate::expr::Expr;
use crate::plan::{JoinKind, Plan};

pub(super) type Key = SmallVec<[Datum; 2]>;

/// Bytes of a table's entry beside its key and its row.
const ENTRY: usize = 48;

/// No row.
const NONE: u32 = u32::MAX;

pub(super) struct HashJoin {
    left: Box<dyn Operator>,
    right: Box<dyn Operator>,
    join: Join,
    held: Held,
    table: Option<Table>,
    probe: Probe,
    /// Pairs of files that are still to be joined
    tasks: Vec<Task>,
    done: Done,
}

/// How rows are joined.
struct Join {
    kind: JoinKind,
    left_width: usize,
    right_width: usize,
    left_keys: Vec<Expression>,
    right_keys: Vec<Expression>,
    condition: Option<Expression>,
}

/// Right rows.
#[derive(Default)]
struct Table {
    rows: Vec<Row>,
    /// The next row with the same key
    next: Vec<u32>,
    matched: Vec<bool>,
    /// The first and the last row with a key
    by_key: HashMap<Key, (u32, u32)>,
    /// Rows whose partners have been asked for (RIGHT, FULL)
    unmatched: usize,
}

/// Where left rows come from, and how far they have come.
#[derive(Default)]
struct Probe {
    /// `None` is the left input itself
    file: Option<Spilled>,
    /// The rest of a right file whose rows are of one key, and the left rows that have matched so far
    rest: Option<Rest>,
    rows: std::vec::IntoIter<Row>,
    position: usize,
    done: bool,
    current: Option<Current>,
}

/// What comes after the rows that the table holds.
struct Rest {
    right: Spilled,
    left: SpillFile,
    matched: Bits,
}

/// A left row that is being joined.
struct Current {
    row: Row,
    number: usize,
    /// The next right row with its key
    next: u32,
    found: bool,
}

/// How far a left row has come.
enum Met {
    /// It has seen all of the table, and has found a partner or not
    Wholly(bool),
    /// It is to go on
    Partly(Current),
}

/// Two files of one place.
struct Task {
    right: Option<SpillFile>,
    left: Option<SpillFile>,
    level: u32,
    /// The right file can be divided
    divisible: bool,
}

/// What was done, for EXPLAIN ANALYZE.
#[derive(Default)]
struct Done {
    memory: usize,
    buckets: usize,
    batches: usize,
}

#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn get(&self, i: usize) -> bool {
        self.0.get(i / 64).is_some_and(|word| word >> (i % 64) & 1 == 1)
    }

    fn set(&mut self, i: usize) {
        if self.0.len() <= i / 64 {
            self.0.resize(i / 64 + 1, 0);
        }
        self.0[i / 64] |= 1 << (i % 64);
    }
}

impl Table {
    fn add(&mut self, key: Option<Key>, row: Row) {
        let position = u32::try_from(self.rows.len()).unwrap_or(NONE);
        self.rows.push(row);
        self.next.push(NONE);
        let Some(key) = key else { return };
        let (_, last) = self.by_key.entry(key).or_insert((position, position));
        if *last != position
            && let Some(next) = self.next.get_mut(*last as usize)
        {
            *next = position;
        }
        *last = position;
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= NONE as usize
    }
}

/// The key of a row; `None` if part of it is NULL.
pub(super) fn key(exprs: &[Expression], row: &[Datum], context: &Context<'_>) -> Result<Option<Key>> {
    let mut key = Key::with_capacity(exprs.len());
    for expr in exprs {
        let value = expr.eval(row, context)?;
        if value.is_null() {
            return Ok(None);
        }
        key.push(value);
    }
    Ok(Some(key))
}

/// Bytes that a row takes in a table.
fn entry_memory(key: Option<&Key>, row: &Row) -> usize {
    row_memory(row) + ENTRY + key.map_or(0, |key| key.iter().map(Datum::memory).sum())
}

impl Join {
    fn keeps_left(&self) -> bool {
        matches!(self.kind, JoinKind::Left | JoinKind::Full | JoinKind::Anti)
    }

    fn keeps_right(&self) -> bool {
        matches!(self.kind, JoinKind::Right | JoinKind::Full)
    }

    /// A left row that has no partner.
    fn lonely_left(&self, mut row: Row) -> Row {
        if self.kind != JoinKind::Anti {
            row.extend(std::iter::repeat_n(Datum::Null, self.right_width));
        }
        row
    }

    fn divide_right(&self, row: Row, into: &mut Partitions, context: &Context<'_>) -> Result<()> {
        match key(&self.right_keys, &row, context)? {
            Some(key) => into.write(context.run, &key, &row),
            None if self.keeps_right() => into.write_keyless(context.run, &row),
            None => Ok(()),
        }
    }

    fn divide_left(&self, row: Row, into: &mut Partitions, context: &Context<'_>) -> Result<()> {
        match key(&self.left_keys, &row, context)? {
            Some(key) => into.write(context.run, &key, &row),
            None if self.keeps_left() => into.write_keyless(context.run, &row),
            None => Ok(()),
        }
    }

    /// Joins a left row with the rows of the table, until `out` has enough; gives it back if it has not
    /// seen all. `earlier` says whether it matched another part of the right side, `last` whether this is
    /// the last part.
    fn meet(
        &self,
        mut current: Current,
        table: &mut Table,
        (earlier, last): (bool, bool),
        enough: usize,
        context: &Context<'_>,
        out: &mut Vec<Row>,
    ) -> Result<Met> {
        let once = matches!(self.kind, JoinKind::Semi | JoinKind::Anti);
        if once && earlier {
            return Ok(Met::Wholly(true));
        }
        while let Some(right) = table.rows.get(current.next as usize) {
            if out.len() >= enough {
                return Ok(Met::Partly(current));
            }
            context.run.guard.tick()?;
            let position = current.next as usize;
            current.next = table.next.get(position).copied().unwrap_or(NONE);
            if once && self.condition.is_none() {
                current.found = true;
                break;
            }
            let mut joined = Vec::with_capacity(current.row.len() + right.len());
            joined.extend_from_slice(&current.row);
            joined.extend_from_slice(right);
            if let Some(condition) = &self.condition
                && !condition.is_true(&joined, context)?
            {
                continue;
            }
            current.found = true;
            if once {
                break;
            }
            if let Some(mark) = table.matched.get_mut(position) {
                *mark = true;
            }
            out.push(joined);
        }
        let found = current.found;
        match self.kind {
            JoinKind::Semi if found => out.push(current.row),
            JoinKind::Left | JoinKind::Full | JoinKind::Anti if !found && !earlier && last => {
                out.push(self.lonely_left(current.row));
            }
            _ => {}
        }
        Ok(Met::Wholly(found || earlier))
    }
}

impl HashJoin {
    pub(super) fn new(
        left: &Plan,
        right: &Plan,
        kind: JoinKind,
        left_keys: &[Expr],
        right_keys: &[Expr],
        condition: Option<&Expr>,
        builder: &mut Builder,
    ) -> Result<HashJoin> {
        Ok(HashJoin {
            left: builder.build(left)?,
            right: builder.build(right)?,
            join: Join {
                kind,
                left_width: left.schema.len(),
                right_width: right.schema.len(),
                left_keys: Expression::compile_all(left_keys, builder)?,
                right_keys: Expression::compile_all(right_keys, builder)?,
                condition: condition.map(|c| Expression::compile(c, builder)).transpose()?,
            },
            held: Held::default(),
            table: None,
            probe: Probe::default(),
            tasks: Vec::new(),
            done: Done::default(),
        })
    }

    /// Reads the right side: into the table, or both sides into files.
    fn build(&mut self, context: &Context<'_>) -> Result<Table> {
        let mut table = Table::default();
        let mut files: Option<Partitions> = None;
        let (join, held, done) = (&self.join, &mut self.held, &mut self.done);
        super::drain(self.right.as_mut(), context, |row| {
            if let Some(files) = &mut files {
                return join.divide_right(row, files, context);
            }
            let key = key(&join.right_keys, &row, context)?;
            if key.is_none() && !join.keeps_right() {
                return Ok(());
            }
            let bytes = entry_memory(key.as_ref(), &row);
            if (context.run.is_over(held, bytes) && !table.rows.is_empty()) || table.is_full() {
                let files = files.insert(Partitions::new(0));
                for row in std::mem::take(&mut table).rows {
                    join.divide_right(row, files, context)?;
                }
                held.release(&context.run.guard);
                return join.divide_right(row, files, context);
            }
            held.add_bytes(&context.run.guard, bytes)?;
            done.memory = done.memory.max(held.bytes());
            table.add(key, row);
            Ok(())
        })?;
        if let Some(right) = files {
            let mut left = Partitions::new(0);
            super::drain(self.left.as_mut(), context, |row| join.divide_left(row, &mut left, context))?;
            self.probe.done = true;
            self.divide(right, left)?;
        } else {
            done.batches = 1;
        }
        self.ready(&mut table);
        Ok(table)
    }

    /// What a table that has all its rows needs beside.
    fn ready(&mut self, table: &mut Table) {
        if self.join.keeps_right() {
            table.matched = vec![false; table.rows.len()];
        }
        self.done.buckets = self.done.buckets.max(table.by_key.len().next_power_of_two());
    }

    /// Files of the same place become tasks.
    fn divide(&mut self, right: Partitions, left: Partitions) -> Result<()> {
        let (level, right, left) = (right.next_level(), right.finish()?, left.finish()?);
        let all: u64 = right.iter().flatten().map(SpillFile::rows).sum();
        for (right, left) in right.into_iter().zip(left) {
            let needed = match self.join.kind {
                JoinKind::Inner | JoinKind::Semi => right.is_some() && left.is_some(),
                JoinKind::Left | JoinKind::Anti => left.is_some(),
                JoinKind::Right => right.is_some(),
                JoinKind::Full => right.is_some() || left.is_some(),
            };
            if needed {
                let divisible = level < MAX_LEVEL && right.as_ref().is_some_and(|file| file.rows() < all);
                self.tasks.push(Task { right, left, level, divisible });
            }
        }
        Ok(())
    }

    /// Begins a task: its right rows, as far as they fit, are put into a new table. `None` if they were
    /// divided into more tasks.
    fn begin(&mut self, task: Task, context: &Context<'_>) -> Result<Option<Table>> {
        self.held.release(&context.run.guard);
        let mut table = Table::default();
        self.probe = Probe { file: task.left.as_ref().map(SpillFile::read), ..Probe::default() };
        self.probe.done = task.left.is_none();
        if let Some(right) = &task.right {
            let mut rows = right.read();
            self.fill(&mut table, &mut rows, context)?;
            if rows.left() > 0 && task.divisible {
                let (mut right_files, mut left_files) =
                    (Partitions::new(task.level), Partitions::new(task.level));
                let mut rows = right.read();
                while let Some(row) = rows.next()? {
                    self.join.divide_right(row, &mut right_files, context)?;
                }
                if let Some(left) = &task.left {
                    let mut rows = left.read();
                    while let Some(row) = rows.next()? {
                        self.join.divide_left(row, &mut left_files, context)?;
                    }
                }
                self.divide(right_files, left_files)?;
                return Ok(None);
            }
            if rows.left() > 0
                && let Some(left) = task.left
            {
                self.probe.rest = Some(Rest { right: rows, left, matched: Bits::default() });
            } else if rows.left() > 0 {
                // No left rows, so that all right ones are without a partner, whatever their number.
                self.probe.rest = Some(Rest {
                    right: rows,
                    left: context.run.new_spill()?.finish()?,
                    matched: Bits::default(),
                });
            }
        }
        self.done.batches += 1;
        self.ready(&mut table);
        Ok(Some(table))
    }

    /// Puts as many right rows into a table as fit, one at least.
    fn fill(&mut self, table: &mut Table, rows: &mut Spilled, context: &Context<'_>) -> Result<()> {
        let guard = &context.run.guard;
        while !table.is_full()
            && (table.rows.is_empty() || !context.run.is_over(&self.held, 0))
            && let Some(row) = rows.next::<Row>()?
        {
            guard.tick()?;
            let key = key(&self.join.right_keys, &row, context)?;
            self.held.add_bytes(guard, entry_memory(key.as_ref(), &row))?;
            self.done.memory = self.done.memory.max(self.held.bytes());
            table.add(key, row);
        }
        Ok(())
    }

    /// What comes when all left rows have been joined with the table; `None` at the end.
    fn proceed(&mut self, context: &Context<'_>) -> Result<Option<Table>> {
        if let Some(mut rest) = self.probe.rest.take_if(|rest| rest.right.left() > 0) {
            self.held.release(&context.run.guard);
            let mut table = Table::default();
            self.fill(&mut table, &mut rest.right, context)?;
            self.probe = Probe { file: Some(rest.left.read()), rest: Some(rest), ..Probe::default() };
            self.ready(&mut table);
            return Ok(Some(table));
        }
        while let Some(task) = self.tasks.pop() {
            context.run.guard.check()?;
            if let Some(table) = self.begin(task, context)? {
                return Ok(Some(table));
            }
        }
        Ok(None)
    }

    /// The next left row and what it may match; `None` at the end.
    fn next_left(&mut self, table: &Table, context: &Context<'_>) -> Result<Option<Current>> {
        let probe = &mut self.probe;
        loop {
            if let Some(current) = probe.current.take() {
                return Ok(Some(current));
            }
            if let Some(row) = probe.rows.next() {
                let key = key(&self.join.left_keys, &row, context)?;
                let next = key.and_then(|key| table.by_key.get(&key)).map_or(NONE, |(first, _)| *first);
                let number = probe.position;
                probe.position += 1;
                return Ok(Some(Current { row, number, next, found: false }));
            }
            if probe.done {
                return Ok(None);
            }
            let mut rows = Vec::new();
            match &mut probe.file {
                None => probe.done = !self.left.next(context, &mut rows)?,
                Some(file) => {
                    while rows.len() < BATCH
                        && let Some(row) = file.next()?
                    {
                        rows.push(row);
                    }
                    probe.done = file.left() == 0;
                }
            }
            probe.rows = rows.into_iter();
            context.run.guard.check()?;
        }
    }

    /// Right rows without a partner, in batches; false when there are no more.
    fn give_unmatched(&self, table: &mut Table, out: &mut Vec<Row>) -> bool {
        let end = (table.unmatched + BATCH).min(table.matched.len());
        for position in table.unmatched..end {
            if !table.matched[position] {
                let mut row = vec![Datum::Null; self.join.left_width];
                row.append(&mut table.rows[position]);
                out.push(row);
            }
        }
        table.unmatched = end;
        end < table.matched.len()
    }
}

impl Operator for HashJoin {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        context.run.guard.check()?;
        let mut table = match self.table.take() {
            Some(table) => table,
            None => {
                let table = self.build(context)?;
                if table.by_key.is_empty() && matches!(self.join.kind, JoinKind::Inner | JoinKind::Semi) {
                    self.probe.done = true;
                }
                table
            }
        };
        let enough = out.len() + BATCH;
        while out.len() < enough {
            if let Some(current) = self.next_left(&table, context)? {
                let number = current.number;
                let rest = self.probe.rest.as_ref();
                let place =
                    (rest.is_some_and(|r| r.matched.get(number)), rest.is_none_or(|r| r.right.left() == 0));
                match self.join.meet(current, &mut table, place, enough, context, out)? {
                    Met::Partly(current) => self.probe.current = Some(current),
                    Met::Wholly(true) => {
                        if let Some(rest) = &mut self.probe.rest {
                            rest.matched.set(number);
                        }
                    }
                    Met::Wholly(false) => {}
                }
                continue;
            }
            if self.give_unmatched(&mut table, out) {
                continue;
            }
            match self.proceed(context)? {
                Some(next) => table = next,
                None => {
                    self.table = Some(table);
                    return Ok(false);
                }
            }
        }
        self.table = Some(table);
        Ok(true)
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.left.reset(context);
        self.right.reset(context);
        self.table = None;
        self.probe = Probe::default();
        self.tasks.clear();
        self.held.release(&context.run.guard);
    }

    fn notes(&self) -> Vec<(&'static str, String)> {
        let Done { memory, buckets, batches } = self.done;
        let (buckets, memory) = (buckets.max(1024), memory.div_ceil(1024).max(1));
        vec![("Buckets", format!("{buckets}  Batches: {}  Memory Usage: {memory}kB", batches.max(1)))]
    }
}
