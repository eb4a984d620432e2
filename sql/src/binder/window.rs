//! Window functions: their definitions, their frames, and the functions that only windows have.

use amphora_storage::{DataType, Datum};
use sqlparser::ast;
use sqlparser::ast::{Expr as Ast, Spanned, WindowFrameBound, WindowFrameUnits, WindowSpec, WindowType};

use super::level::{Clause, WINDOW_BASE};
use super::{Binder, fold};
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::functions;
use crate::parser::exclusion;
use crate::plan::{Frame, FrameBound, FrameExclusion, FrameUnits, SortKey, WindowCall, WindowFunction};
use crate::types::CastContext;

/// True of the functions that need OVER.
pub(super) fn is_window_function(name: &str) -> bool {
    matches!(
        name,
        "row_number"
            | "rank"
            | "dense_rank"
            | "percent_rank"
            | "cume_dist"
            | "ntile"
            | "lag"
            | "lead"
            | "first_value"
            | "last_value"
            | "nth_value"
    )
}

fn windowing(message: impl Into<String>) -> SqlError {
    SqlError::new("42P20", message)
}

/// 42804: the result is of the argument's type, so it must have one.
fn determined(value: Expr) -> Result<Expr> {
    match value.ty() {
        DataType::Unknown => Err(SqlError::datatype_mismatch(
            "could not determine polymorphic type because input has type unknown",
        )),
        _ => Ok(value),
    }
}

impl Binder<'_> {
    /// The definition that OVER names or gives.
    pub(super) fn window_spec(&mut self, over: &WindowType) -> Result<WindowSpec> {
        match over {
            WindowType::NamedWindow(name) => self.named_window(name),
            WindowType::WindowSpec(spec) => self.over_base(spec),
        }
    }

    /// A definition with what it takes over from the one it names.
    fn over_base(&mut self, spec: &WindowSpec) -> Result<WindowSpec> {
        let Some(name) = &spec.window_name else { return Ok(spec.clone()) };
        let base = self.named_window(name)?;
        let folded = fold(name);
        if !spec.partition_by.is_empty() {
            let error = windowing(format!("cannot override PARTITION BY clause of window \"{folded}\""));
            return Err(self.at(error, name.span));
        }
        if !spec.order_by.is_empty() && !base.order_by.is_empty() {
            let error = windowing(format!("cannot override ORDER BY clause of window \"{folded}\""));
            return Err(self.at(error, name.span));
        }
        if base.window_frame.is_some() {
            let error = windowing(format!("cannot copy window \"{folded}\" because it has a frame clause"));
            return Err(self.at(error, name.span));
        }
        let order_by = if spec.order_by.is_empty() { base.order_by } else { spec.order_by.clone() };
        Ok(WindowSpec {
            window_name: None,
            partition_by: base.partition_by,
            order_by,
            window_frame: spec.window_frame.clone(),
        })
    }

    fn named_window(&mut self, name: &ast::Ident) -> Result<WindowSpec> {
        let folded = fold(name);
        let found =
            self.level()?.named_windows.iter().find(|(n, _)| *n == folded).map(|(_, spec)| spec.clone());
        found.ok_or_else(|| {
            self.at(SqlError::undefined_object(format!("window \"{folded}\" does not exist")), name.span)
        })
    }

    /// The WINDOW clause. A definition may name those before it.
    pub(super) fn define_windows(&mut self, definitions: &[ast::NamedWindowDefinition]) -> Result<()> {
        for definition in definitions {
            let name = fold(&definition.0);
            if self.level()?.named_windows.iter().any(|(n, _)| *n == name) {
                let error = windowing(format!("window \"{name}\" is already defined"));
                return Err(self.at(error, definition.0.span));
            }
            let spec = match &definition.1 {
                ast::NamedWindowExpr::WindowSpec(spec) => self.over_base(spec)?,
                ast::NamedWindowExpr::NamedWindow(name) => self.named_window(name)?,
            };
            self.level()?.named_windows.push((name, spec));
        }
        Ok(())
    }

    /// A call of a function that is no aggregate, with OVER.
    pub(super) fn window_function(
        &mut self,
        name: &str,
        list: &ast::FunctionArgumentList,
        spec: &WindowSpec,
    ) -> Result<Expr> {
        let mut args = self.in_clause(Clause::Window, |b| b.call_args(&list.args))?;
        let (function, ty) = match (name, args.len()) {
            ("row_number", 0) => (WindowFunction::RowNumber, DataType::Int8),
            ("rank", 0) => (WindowFunction::Rank, DataType::Int8),
            ("dense_rank", 0) => (WindowFunction::DenseRank, DataType::Int8),
            ("percent_rank", 0) => (WindowFunction::PercentRank, DataType::Float8),
            ("cume_dist", 0) => (WindowFunction::CumeDist, DataType::Float8),
            ("ntile", 1) => {
                args = vec![self.coerce(args.remove(0), &DataType::Int4, CastContext::Implicit)?];
                (WindowFunction::Ntile, DataType::Int4)
            }
            ("first_value" | "last_value", 1) => {
                let value = determined(args.remove(0))?;
                let ty = value.ty().base();
                args = vec![value];
                let first = name == "first_value";
                (if first { WindowFunction::FirstValue } else { WindowFunction::LastValue }, ty)
            }
            ("nth_value", 2) => {
                let value = determined(args.remove(0))?;
                let n = self.coerce(args.remove(0), &DataType::Int4, CastContext::Implicit)?;
                let ty = value.ty().base();
                args = vec![value, n];
                (WindowFunction::NthValue, ty)
            }
            ("lag" | "lead", 1..=3) => {
                let mut rest = args.into_iter();
                let value = rest.next().unwrap_or(Expr::Literal(Datum::Null, DataType::Unknown));
                let offset = rest.next().unwrap_or(Expr::Literal(Datum::Int4(1), DataType::Int4));
                let offset = self.coerce(offset, &DataType::Int4, CastContext::Implicit)?;
                let (value, default, ty) = match rest.next() {
                    None => {
                        let value = self.settle(value)?;
                        let ty = value.ty().base();
                        (value, Expr::Literal(Datum::Null, ty.clone()), ty)
                    }
                    Some(default) => {
                        // The value and the default have one type, like branches of a CASE.
                        let types = [value.ty().base(), default.ty().base()];
                        let ty = crate::types::common_type(&types).map_err(|_| undefined(name, &types))?;
                        let value = self.coerce(value, &ty, CastContext::Implicit)?;
                        (value, self.coerce(default, &ty, CastContext::Implicit)?, ty)
                    }
                };
                args = vec![value, offset, default];
                (WindowFunction::Shift(name == "lead"), ty)
            }
            _ if is_window_function(name) => {
                let types: Vec<DataType> = args.iter().map(|a| a.ty().base()).collect();
                return Err(undefined(name, &types));
            }
            _ if functions::is_function(name) => {
                return Err(SqlError::wrong_object_type(format!(
                    "OVER specified, but {name} is not a window function nor an aggregate function"
                )));
            }
            _ => {
                let types: Vec<DataType> = args.iter().map(|a| a.ty().base()).collect();
                return Err(undefined(name, &types));
            }
        };
        self.window_call(function, args, None, spec, ty)
    }

    pub(super) fn window_call(
        &mut self,
        function: WindowFunction,
        args: Vec<Expr>,
        filter: Option<Expr>,
        spec: &WindowSpec,
        ty: DataType,
    ) -> Result<Expr> {
        let clause = self.level()?.clause;
        if !clause.allows_windows() {
            return Err(clause.no_windows());
        }
        let (partition_by, order_by, frame) = self.in_clause(Clause::Window, |b| {
            let partition = spec.partition_by.iter().map(|e| b.typed(e)).collect::<Result<_>>()?;
            let order = b.sort_keys(&spec.order_by)?;
            let frame = match &spec.window_frame {
                Some(frame) => b.frame(frame, &order)?,
                None => Frame::standard(),
            };
            Ok((partition, order, frame))
        })?;
        let level = self.level()?;
        level.windows.push(WindowCall {
            function,
            args,
            filter,
            partition_by,
            order_by,
            frame,
            ty: ty.clone(),
        });
        Ok(Expr::Column(WINDOW_BASE + level.windows.len() - 1, ty))
    }

    /// A frame clause. 42P20 for one that makes no sense.
    fn frame(&mut self, frame: &ast::WindowFrame, order: &[SortKey]) -> Result<Frame> {
        let units = match frame.units {
            WindowFrameUnits::Rows => FrameUnits::Rows,
            WindowFrameUnits::Range => FrameUnits::Range,
            WindowFrameUnits::Groups => FrameUnits::Groups,
        };
        let (exclude, start) = exclusion::unmark(&frame.start_bound);
        let exclude = exclude.unwrap_or(FrameExclusion::NoOthers);
        let end = frame.end_bound.as_ref().unwrap_or(&WindowFrameBound::CurrentRow);
        use WindowFrameBound as B;
        let wrong = match (&start, end) {
            (B::Following(None), _) => Some("frame start cannot be UNBOUNDED FOLLOWING"),
            (_, B::Preceding(None)) => Some("frame end cannot be UNBOUNDED PRECEDING"),
            (B::CurrentRow, B::Preceding(_)) => {
                Some("frame starting from current row cannot have preceding rows")
            }
            (B::Following(_), B::Preceding(_)) => {
                Some("frame starting from following row cannot have preceding rows")
            }
            (B::Following(_), B::CurrentRow) if frame.end_bound.is_none() => {
                Some("frame starting from following row cannot end with current row")
            }
            (B::Following(_), B::CurrentRow) => {
                Some("frame starting from following row cannot have preceding rows")
            }
            _ => None,
        };
        if let Some(wrong) = wrong {
            return Err(windowing(wrong));
        }
        let offsets =
            [&start, end].iter().any(|b| matches!(b, B::Preceding(Some(_)) | B::Following(Some(_))));
        if units == FrameUnits::Range && offsets && order.len() != 1 {
            return Err(windowing(
                "RANGE with offset PRECEDING/FOLLOWING requires exactly one ORDER BY column",
            ));
        }
        if units == FrameUnits::Groups && order.is_empty() {
            return Err(windowing("GROUPS mode requires an ORDER BY clause"));
        }
        Ok(Frame {
            units,
            start: self.frame_bound(&start, units, order)?,
            end: self.frame_bound(end, units, order)?,
            exclude,
        })
    }

    fn frame_bound(
        &mut self,
        bound: &WindowFrameBound,
        units: FrameUnits,
        order: &[SortKey],
    ) -> Result<FrameBound> {
        Ok(match bound {
            WindowFrameBound::CurrentRow => FrameBound::CurrentRow,
            WindowFrameBound::Preceding(None) => FrameBound::UnboundedPreceding,
            WindowFrameBound::Following(None) => FrameBound::UnboundedFollowing,
            WindowFrameBound::Preceding(Some(e)) => {
                FrameBound::Preceding(self.frame_offset(e, units, order)?)
            }
            WindowFrameBound::Following(Some(e)) => {
                FrameBound::Following(self.frame_offset(e, units, order)?)
            }
        })
    }

    fn frame_offset(&mut self, e: &Ast, units: FrameUnits, order: &[SortKey]) -> Result<Expr> {
        let name = match units {
            FrameUnits::Rows => "ROWS",
            FrameUnits::Range => "RANGE",
            FrameUnits::Groups => "GROUPS",
        };
        // A quoted offset is read as an interval; it is of the ORDER BY column's kind.
        let e = match e {
            Ast::Interval(interval) if interval.leading_field.is_none() => &interval.value,
            e => e,
        };
        let offset = self.expr(e)?;
        if !offset.is_row_free() {
            let error =
                SqlError::invalid_column_reference(format!("argument of {name} must not contain variables"));
            return Err(self.at(error, e.span()));
        }
        let actual = offset.ty().base();
        let to = match (units, order) {
            (FrameUnits::Range, [key]) => {
                let column = key.expr.ty().base();
                let Some(to) = functions::range_offset_type(&column) else {
                    let error = SqlError::feature_not_supported(format!(
                        "RANGE with offset PRECEDING/FOLLOWING is not supported for column type {}",
                        super::coerce::type_name(&column)
                    ));
                    return Err(self.at(error, e.span()));
                };
                let fits = actual == DataType::Unknown
                    || crate::types::can_coerce(&actual, &to, CastContext::Implicit)
                    || actual.oid() == to.oid();
                if !fits {
                    let error = SqlError::feature_not_supported(format!(
                        "RANGE with offset PRECEDING/FOLLOWING is not supported for column type {} and offset type {}",
                        super::coerce::type_name(&column),
                        super::coerce::type_name(&actual)
                    ))
                    .with_hint("Cast the offset value to an appropriate type.");
                    return Err(self.at(error, e.span()));
                }
                to
            }
            _ => DataType::Int8,
        };
        self.coerce(offset, &to, CastContext::Implicit)
            .map_err(|error| match error.sqlstate {
                "42804" => SqlError::datatype_mismatch(format!(
                    "argument of {name} must be type bigint, not type {}",
                    super::coerce::type_name(&actual)
                )),
                _ => error,
            })
            .map_err(|error| self.at(error, e.span()))
    }
}

fn undefined(name: &str, types: &[DataType]) -> SqlError {
    let list: Vec<String> = types.iter().map(super::coerce::type_name).collect();
    SqlError::undefined_function(format!("function {name}({}) does not exist", list.join(", "))).with_hint(
        "No function matches the given name and argument types. You might need to add explicit type casts.",
    )
}
