//! Rows that are not stored in tables: constants, system views, functions, WITH queries.

use std::sync::Arc;

use amphora_storage::{DataType, Datum, Row};

use super::buffer::{Reader, RowBuffer};
use super::expression::eval_all;
use super::{BATCH, Builder, Context, Expression, Operator};
use crate::catalog::{SystemContext, SystemView};
use crate::error::Result;
use crate::expr::Expr;
use crate::functions::{Call, Rows, SetFunction};
use crate::plan::Field;

/// Rows of expressions.
pub(super) struct Values {
    rows: Vec<Vec<Expression>>,
    position: usize,
}

impl Values {
    pub(super) fn new(rows: &[Vec<Expr>], builder: &mut Builder) -> Result<Values> {
        let rows = rows.iter().map(|row| Expression::compile_all(row, builder)).collect::<Result<_>>()?;
        Ok(Values { rows, position: 0 })
    }
}

impl Operator for Values {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        let end = (self.position + BATCH).min(self.rows.len());
        for row in &self.rows[self.position..end] {
            out.push(eval_all(row, &[], context)?);
        }
        self.position = end;
        Ok(end < self.rows.len())
    }

    fn reset(&mut self, _: &Context<'_>) {
        self.position = 0;
    }
}

/// Rows of a system view, made when they are first asked for.
pub(super) struct SystemScan {
    view: &'static SystemView,
    equal: Vec<(usize, Expression)>,
    rows: Option<std::vec::IntoIter<Row>>,
}

impl SystemScan {
    pub(super) fn new(
        view: &'static SystemView,
        equal: &[(usize, Expr)],
        builder: &mut Builder,
    ) -> Result<SystemScan> {
        let equal = equal
            .iter()
            .map(|(column, e)| Ok((*column, Expression::compile(e, builder)?)))
            .collect::<Result<_>>()?;
        Ok(SystemScan { view, equal, rows: None })
    }

    fn make(&self, context: &Context<'_>) -> Result<Vec<Row>> {
        let mut equal = Vec::with_capacity(self.equal.len());
        for (column, value) in &self.equal {
            equal.push((*column, value.eval(&[], context)?));
        }
        let settings = || (context.run.settings)();
        let system = SystemContext {
            catalog: &context.run.catalog,
            engine: context.run.engine.as_ref(),
            user: &context.run.eval.user,
            database: &context.run.eval.database,
            names: context.run.eval.format.names.as_deref(),
            txn: context.txn,
            settings: &settings,
            session: context.run.eval.session.as_ref(),
        };
        let mut rows = self.view.rows(&system, &equal)?;
        rows.retain(|row| {
            equal.iter().all(|(column, value)| !value.is_null() && row.get(*column) == Some(value))
        });
        Ok(rows)
    }
}

impl Operator for SystemScan {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        if self.rows.is_none() {
            self.rows = Some(self.make(context)?.into_iter());
        }
        let Some(rows) = &mut self.rows else { return Ok(false) };
        out.extend(rows.by_ref().take(BATCH));
        Ok(rows.len() > 0)
    }

    fn reset(&mut self, _: &Context<'_>) {
        self.rows = None;
    }
}

/// A function in FROM.
pub(super) struct FunctionScan {
    call: SetCall,
    ordinality: bool,
    /// The function may give rows as single values, and they are to be several columns
    spread: bool,
    rows: Option<Rows>,
    number: i64,
}

impl FunctionScan {
    pub(super) fn new(
        function: &'static SetFunction,
        args: &[Expr],
        ordinality: bool,
        schema: &[Field],
        builder: &mut Builder,
    ) -> Result<FunctionScan> {
        let columns = &schema[..schema.len() - usize::from(ordinality)];
        // A function whose rows are of a type that the call says is told all of it.
        let ty = match (function.is_row_typed(), columns) {
            (false, [first, ..]) | (true, [first]) if !function.needs_definitions() => first.ty.clone(),
            _ => DataType::Row(columns.iter().map(|f| (f.name.clone(), f.ty.base())).collect()),
        };
        let call = SetCall::new(function, args, ty, builder)?;
        let spread = columns.len() > 1;
        Ok(FunctionScan { call, ordinality, spread, rows: None, number: 0 })
    }
}

impl Operator for FunctionScan {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        let mut rows = match self.rows.take() {
            Some(rows) => rows,
            None => self.call.rows(&[], context)?,
        };
        for _ in 0..BATCH {
            let Some(row) = rows.next() else { return Ok(false) };
            let mut row = row?;
            if self.spread
                && let [Datum::Record(fields)] = &row[..]
            {
                row = fields.to_vec();
            }
            if self.ordinality {
                self.number += 1;
                row.push(Datum::Int8(self.number));
            }
            out.push(row);
        }
        self.rows = Some(rows);
        Ok(true)
    }

    fn reset(&mut self, _: &Context<'_>) {
        self.rows = None;
        self.number = 0;
    }
}

/// A call of a set-returning function.
pub(super) struct SetCall {
    function: &'static SetFunction,
    args: Vec<Expression>,
    arg_types: Vec<DataType>,
    ty: DataType,
}

impl SetCall {
    pub(super) fn new(
        function: &'static SetFunction,
        args: &[Expr],
        ty: DataType,
        builder: &mut Builder,
    ) -> Result<SetCall> {
        let arg_types = args.iter().map(Expr::ty).collect();
        Ok(SetCall { function, args: Expression::compile_all(args, builder)?, arg_types, ty })
    }

    /// The rows for this input row.
    pub(super) fn rows(&self, row: &[Datum], context: &Context<'_>) -> Result<Rows> {
        let args = eval_all(&self.args, row, context)?;
        if self.function.strict && args.iter().any(Datum::is_null) {
            return Ok(Box::new(std::iter::empty()));
        }
        let call = Call { context: &context.run.eval, arg_types: &self.arg_types, return_type: &self.ty };
        (self.function.eval)(&args, &call)
    }
}

/// Rows that are shared: a WITH query, or a recursion's last step.
#[derive(Default)]
struct Shared {
    rows: Option<Arc<RowBuffer>>,
    reader: Reader,
}

impl Shared {
    fn next(&mut self, rows: impl FnOnce() -> Result<Arc<RowBuffer>>, out: &mut Vec<Row>) -> Result<bool> {
        let rows = match &self.rows {
            Some(rows) => rows,
            None => self.rows.insert(rows()?),
        };
        self.reader.read(rows, BATCH, out)
    }

    fn reset(&mut self) {
        *self = Shared::default();
    }
}

/// Rows of a WITH query.
pub(super) struct CteScan {
    id: usize,
    shared: Shared,
}

impl CteScan {
    pub(super) fn new(id: usize) -> CteScan {
        CteScan { id, shared: Shared::default() }
    }
}

impl Operator for CteScan {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        self.shared.next(|| context.cte(self.id), out)
    }

    fn reset(&mut self, _: &Context<'_>) {
        self.shared.reset();
    }
}

/// Rows of the working table of a recursive query.
pub(super) struct WorkTableScan {
    id: usize,
    shared: Shared,
}

impl WorkTableScan {
    pub(super) fn new(id: usize) -> WorkTableScan {
        WorkTableScan { id, shared: Shared::default() }
    }
}

impl Operator for WorkTableScan {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        self.shared.next(|| Ok(context.work_table(self.id)), out)
    }

    fn reset(&mut self, _: &Context<'_>) {
        self.shared.reset();
    }
}
