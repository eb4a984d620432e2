//! Calls: functions, aggregates, window functions, and the forms that only look like functions.

use amphora_storage::DataType;
use sqlparser::ast;
use sqlparser::ast::{
    DuplicateTreatment, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments, Spanned,
    WindowSpec,
};

use super::level::{AGGREGATE_BASE, Clause, SET_BASE, SetCall};
use super::{Binder, fold, name_parts};
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::functions;
use crate::parser;
use crate::plan::{Aggregate, SortKey, WindowFunction};
use crate::types::{self, CastContext};
use crate::walk::same_expr;

impl Binder<'_> {
    /// A call as it is written.
    pub(super) fn function(&mut self, call: &ast::Function) -> Result<Expr> {
        let parts = name_parts(&call.name)?;
        let Some((last, schema)) = parts.split_last() else {
            return Err(SqlError::syntax_error("a function has no name"));
        };
        let name = fold(last);
        if let Some(schema) = schema.last().map(|s| fold(s))
            && !matches!(schema.as_str(), "pg_catalog" | "public" | "amphora" | "information_schema")
        {
            let error = SqlError::invalid_schema_name(format!("schema \"{schema}\" does not exist"));
            return Err(self.at(error, last.span));
        }
        self.function_named(&name, call).map_err(|error| {
            let place = matches!(error.sqlstate, "42883" | "42725" | "42803" | "42809" | "42P20" | "0A000");
            if place { self.at(error, call.name.span()) } else { error }
        })
    }

    fn function_named(&mut self, name: &str, call: &ast::Function) -> Result<Expr> {
        let list = match &call.args {
            FunctionArguments::None => {
                return match self.niladic(name)? {
                    Some(bound) => Ok(bound),
                    None => self.call_named(name, Vec::new()),
                };
            }
            FunctionArguments::Subquery(query) if name == "array" => return self.array_subquery(query),
            FunctionArguments::Subquery(_) => {
                return Err(SqlError::syntax_error("a subquery needs its own parentheses here"));
            }
            FunctionArguments::List(list) => list,
        };
        if !call.within_group.is_empty() {
            return self.ordered_set(
                name,
                list,
                &call.within_group,
                call.filter.as_deref(),
                call.over.is_some(),
            );
        }
        if functions::is_ordered_set(name) {
            let message = format!("WITHIN GROUP is required for ordered-set aggregate {name}");
            return Err(SqlError::wrong_object_type(message));
        }
        if name == "grouping" {
            return self.grouping_call(list);
        }
        let window = match &call.over {
            Some(over) => Some(self.window_spec(over)?),
            None => None,
        };
        if functions::is_aggregate(name) {
            return self.aggregate(name, list, call.filter.as_deref(), window.as_ref());
        }
        if call.filter.is_some() {
            let message = format!("FILTER specified, but {name} is not an aggregate function");
            return Err(SqlError::wrong_object_type(message));
        }
        if list.duplicate_treatment == Some(DuplicateTreatment::Distinct) || !list.clauses.is_empty() {
            let message = format!("DISTINCT or ORDER BY specified, but {name} is not an aggregate function");
            return Err(SqlError::wrong_object_type(message));
        }
        if let Some(window) = window {
            return self.window_function(name, list, &window);
        }
        if name == super::crdt::CRDT_INSPECT || name == crate::expr::CRDT_RESET {
            return self.crdt_call(name, &list.args);
        }
        let args = match named_arguments(name, &list.args)? {
            Some(args) => args.into_iter().map(|a| self.argument_or_default(a)).collect::<Result<_>>()?,
            None => self.call_args(&list.args)?,
        };
        match name {
            "coalesce" => {
                let (args, ty) = self.unify(args, "COALESCE")?;
                Ok(Expr::Coalesce(args, ty))
            }
            "greatest" | "least" => {
                let greatest = name == "greatest";
                let (args, ty) = self.unify(args, if greatest { "GREATEST" } else { "LEAST" })?;
                Ok(Expr::Extreme { greatest, args, ty })
            }
            "nullif" => match <[Expr; 2]>::try_from(args) {
                Ok([left, right]) => self.nullif(left, right),
                Err(_) => Err(SqlError::syntax_error("NULLIF takes two arguments")),
            },
            "row" => {
                let items = args.into_iter().map(|a| self.settle(a)).collect::<Result<_>>()?;
                Ok(Expr::Row(items))
            }
            _ if functions::is_set_function(name) => self.set_function(name, args),
            _ if super::window::is_window_function(name) => {
                let message = format!("window function {name} requires an OVER clause");
                Err(SqlError::wrong_object_type(message))
            }
            _ => self.call_named(name, args),
        }
    }

    /// The arguments of a call, bound.
    pub(super) fn call_args(&mut self, args: &[FunctionArg]) -> Result<Vec<Expr>> {
        let mut bound = Vec::with_capacity(args.len());
        for arg in args {
            match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => match marked(e, parser::VARIADIC) {
                    None => bound.push(self.expr(e)?),
                    Some(array) => match self.expr(array)? {
                        Expr::Array { items, .. } => bound.extend(items),
                        other if matches!(other.ty().base(), DataType::Array(_)) => {
                            return Err(SqlError::feature_not_supported(
                                "VARIADIC is only supported with an array that is written out",
                            )
                            .with_hint("Write ARRAY[…], or use array_to_string."));
                        }
                        _ => {
                            return Err(SqlError::datatype_mismatch("VARIADIC argument must be an array"));
                        }
                    },
                },
                FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(name)) => {
                    let parts = name_parts(name)?;
                    let Some(last) = parts.last() else {
                        return Err(SqlError::syntax_error("a relation has no name"));
                    };
                    bound.push(self.bare_name(last)?);
                }
                FunctionArg::Unnamed(_) => {
                    return Err(SqlError::syntax_error("* is not an argument of this function"));
                }
                FunctionArg::Named { .. } | FunctionArg::ExprNamed { .. } => {
                    return Err(SqlError::feature_not_supported("named arguments are not supported"));
                }
            }
        }
        Ok(bound)
    }

    fn argument_or_default(&mut self, arg: Argument<'_>) -> Result<Expr> {
        match arg {
            Argument::Given(e) => self.expr(e),
            Argument::Default(value, ty) => Ok(Expr::Literal(value, ty)),
        }
    }

    /// A scalar function over bound arguments; a type's name with one argument is a cast.
    pub(super) fn call_named(&mut self, name: &str, args: Vec<Expr>) -> Result<Expr> {
        let actual: Vec<DataType> = args.iter().map(|a| a.ty().base()).collect();
        if !functions::is_function(name)
            && args.len() == 1
            && let Some(ty) = types::type_from_name(None, name, &[]).filter(|_| !name.ends_with(')'))
        {
            if let Some(arg) = args.into_iter().next() {
                return self.coerce(arg, &ty, CastContext::Explicit);
            }
            return Err(SqlError::internal("a cast has one argument"));
        }
        let resolved = functions::resolve_function(name, &actual)?;
        let args = self.arguments(args, &resolved.arg_types)?;
        Ok(Expr::Call { function: resolved.function, args, ty: resolved.return_type })
    }

    /// The functions that are called without parentheses.
    pub(super) fn niladic(&mut self, name: &str) -> Result<Option<Expr>> {
        let now = |b: &mut Self, ty: DataType| -> Result<Option<Expr>> {
            let now = b.call_named("now", Vec::new())?;
            b.coerce(now, &ty, CastContext::Explicit).map(Some)
        };
        match name {
            "current_timestamp" => now(self, DataType::Timestamptz(None)),
            "localtimestamp" => now(self, DataType::Timestamp(None)),
            "current_date" => now(self, DataType::Date),
            "current_time" => self.call_named(name, Vec::new()).map(Some),
            "localtime" => {
                let timestamp = now(self, DataType::Timestamp(None))?;
                timestamp.map(|t| self.coerce(t, &DataType::Time(None), CastContext::Explicit)).transpose()
            }
            "current_user" | "session_user" => self.call_named(name, Vec::new()).map(Some),
            "user" | "current_role" => self.call_named("current_user", Vec::new()).map(Some),
            "current_catalog" => self.call_named("current_database", Vec::new()).map(Some),
            "current_schema" => self.call_named("current_schema", Vec::new()).map(Some),
            _ => Ok(None),
        }
    }

    fn aggregate(
        &mut self,
        name: &str,
        list: &ast::FunctionArgumentList,
        filter: Option<&ast::Expr>,
        window: Option<&WindowSpec>,
    ) -> Result<Expr> {
        let clause = self.level()?.clause;
        if window.is_none() && !clause.allows_aggregates() {
            return Err(clause.no_aggregates());
        }
        // An aggregate over a window sees what the window sees; any other sees the rows before grouping.
        let inner = if window.is_some() { Clause::Window } else { Clause::Aggregate };
        let star = matches!(&list.args[..], [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)]);
        let args = if star {
            if name != "count" {
                return Err(SqlError::undefined_function(format!("function {name}(*) does not exist")));
            }
            Vec::new()
        } else {
            if list.args.is_empty() && name == "count" {
                let error = SqlError::wrong_object_type(
                    "count(*) must be used to call a parameterless aggregate function",
                );
                return Err(error);
            }
            self.in_clause(inner, |b| b.call_args(&list.args))?
        };
        let mut order_by = Vec::new();
        for clause in &list.clauses {
            match clause {
                FunctionArgumentClause::OrderBy(keys) => {
                    order_by = self.in_clause(inner, |b| b.sort_keys(keys))?;
                }
                _ => return Err(SqlError::feature_not_supported("this aggregate clause is not supported")),
            }
        }
        let filter = match filter {
            Some(filter) => Some(self.in_clause(Clause::Filter, |b| b.condition(filter, "FILTER"))?),
            None => None,
        };
        let actual: Vec<DataType> = args.iter().map(|a| a.ty().base()).collect();
        let resolved = functions::resolve_aggregate(name, &actual)?;
        let args = self.arguments(args, &resolved.arg_types)?;
        let distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
        if let Some(window) = window {
            if distinct {
                return Err(SqlError::feature_not_supported(
                    "DISTINCT is not implemented for window functions",
                ));
            }
            if !order_by.is_empty() {
                return Err(SqlError::feature_not_supported(
                    "aggregate ORDER BY is not implemented for window functions",
                ));
            }
            let function = WindowFunction::Aggregate(resolved.function);
            return self.window_call(function, args, filter, window, resolved.return_type);
        }
        if distinct && order_by.iter().any(|k| !args.iter().any(|a| same_expr(a, &k.expr))) {
            return Err(SqlError::invalid_column_reference(
                "in an aggregate with DISTINCT, ORDER BY expressions must appear in argument list",
            ));
        }
        let ty = resolved.return_type;
        self.add_aggregate(Aggregate { function: resolved.function, args, distinct, filter, order_by, ty })
    }

    /// Notes an aggregate call, unless the same was met before.
    fn add_aggregate(&mut self, call: Aggregate) -> Result<Expr> {
        let ty = call.ty.clone();
        let level = self.level()?;
        let known = level.aggregates.iter().position(|a| same_aggregate(a, &call));
        let index = known.unwrap_or_else(|| {
            level.aggregates.push(call);
            level.aggregates.len() - 1
        });
        Ok(Expr::Column(AGGREGATE_BASE + index, ty))
    }

    /// `name(direct) WITHIN GROUP (ORDER BY keys)`
    fn ordered_set(
        &mut self,
        name: &str,
        list: &ast::FunctionArgumentList,
        within: &[ast::OrderByExpr],
        filter: Option<&ast::Expr>,
        over: bool,
    ) -> Result<Expr> {
        let hypothetical = functions::hypothetical(name);
        if !functions::is_ordered_set(name) && hypothetical.is_none() {
            let error = match functions::is_aggregate(name) {
                true => SqlError::wrong_object_type(format!(
                    "{name} is not an ordered-set aggregate, so it cannot have WITHIN GROUP"
                )),
                false => SqlError::wrong_object_type(format!(
                    "WITHIN GROUP specified, but {name} is not an aggregate function"
                )),
            };
            return Err(error);
        }
        if over {
            return Err(SqlError::feature_not_supported(format!(
                "OVER is not supported for ordered-set aggregate {name}"
            )));
        }
        let clause = self.level()?.clause;
        if !clause.allows_aggregates() {
            return Err(clause.no_aggregates());
        }
        let direct = self.in_clause(Clause::Aggregate, |b| b.call_args(&list.args))?;
        let mut keys = self.in_clause(Clause::Aggregate, |b| b.sort_keys(within))?;
        let filter = match filter {
            Some(filter) => Some(self.in_clause(Clause::Filter, |b| b.condition(filter, "FILTER"))?),
            None => None,
        };
        let Some(function) = hypothetical else {
            let ordered = keys.iter().map(|k| k.expr.clone());
            let args: Vec<Expr> = direct.into_iter().chain(ordered).collect();
            let actual: Vec<DataType> = args.iter().map(|a| a.ty().base()).collect();
            let resolved = functions::resolve_aggregate(name, &actual)?;
            let args = self.arguments(args, &resolved.arg_types)?;
            // The rows are ordered by the values as they are aggregated.
            if let ([key], Some(last)) = (&mut keys[..], args.last()) {
                key.expr = last.clone();
            }
            let (function, ty) = (resolved.function, resolved.return_type);
            return self.add_aggregate(Aggregate {
                function,
                args,
                distinct: false,
                filter,
                order_by: keys,
                ty,
            });
        };
        if direct.len() != keys.len() {
            let types: Vec<DataType> =
                direct.iter().chain(keys.iter().map(|k| &k.expr)).map(|e| e.ty().base()).collect();
            let shown: Vec<String> = types.iter().map(super::coerce::type_name).collect();
            return Err(SqlError::undefined_function(format!(
                "function {name}({}) does not exist",
                shown.join(", ")
            ))
            .with_hint(format!(
                "To use the hypothetical-set aggregate {name}, the number of hypothetical direct arguments (here {}) must match the number of ordering columns (here {}).",
                direct.len(),
                keys.len()
            )));
        }
        let mut args = Vec::with_capacity(4 * keys.len());
        for (value, key) in direct.into_iter().zip(&mut keys) {
            let (mut both, _) = self.unify(vec![value, key.expr.clone()], "WITHIN GROUP")?;
            if let Some(ordered) = both.pop() {
                key.expr = ordered;
            }
            args.extend(both);
        }
        let flag = |b: bool| Expr::Literal(amphora_storage::Datum::Bool(b), DataType::Bool);
        args.extend(keys.iter().map(|k| k.expr.clone()));
        args.extend(keys.iter().map(|k| flag(k.descending)));
        args.extend(keys.iter().map(|k| flag(k.nulls_first)));
        let ty = function.signature.returns.data_type().unwrap_or(DataType::Int8);
        self.add_aggregate(Aggregate { function, args, distinct: false, filter, order_by: keys, ty })
    }

    fn set_function(&mut self, name: &str, args: Vec<Expr>) -> Result<Expr> {
        let clause = self.level()?.clause;
        if !clause.allows_sets() {
            return Err(clause.no_sets());
        }
        let actual: Vec<DataType> = args.iter().map(|a| a.ty().base()).collect();
        let resolved = functions::resolve_set_function(name, &actual)?;
        let args = self.arguments(args, &resolved.arg_types)?;
        let ty = match &resolved.columns[..] {
            [(_, ty)] => ty.clone(),
            columns => DataType::Row(columns.into()),
        };
        let level = self.level()?;
        level.sets.push(SetCall { function: resolved.function, args, ty: ty.clone() });
        Ok(Expr::Column(SET_BASE + level.sets.len() - 1, ty))
    }

    /// The keys of an ORDER BY that has no output columns to refer to.
    pub(super) fn sort_keys(&mut self, keys: &[ast::OrderByExpr]) -> Result<Vec<SortKey>> {
        keys.iter()
            .map(|key| {
                let expr = self.typed(&key.expr)?;
                sort_key(expr, &key.options)
            })
            .collect()
    }
}

/// An argument in its place, written or not.
enum Argument<'q> {
    Given(&'q ast::Expr),
    Default(amphora_storage::Datum, DataType),
}

/// The names of parameters of the functions that are called by name.
fn parameter_names(function: &str) -> &'static [&'static str] {
    match function {
        "make_interval" => &["years", "months", "weeks", "days", "hours", "mins", "secs"],
        "make_date" => &["year", "month", "day"],
        "make_time" => &["hour", "min", "sec"],
        "make_timestamp" => &["year", "month", "mday", "hour", "min", "sec"],
        "make_timestamptz" => &["year", "month", "mday", "hour", "min", "sec", "timezone"],
        "jsonb_set" => &["jsonb_in", "path", "replacement", "create_if_missing"],
        "jsonb_insert" => &["jsonb_in", "path", "replacement", "insert_after"],
        "jsonb_path_exists" | "jsonb_path_match" | "jsonb_path_query_array" | "jsonb_path_query_first" => {
            &["target", "path", "vars", "silent"]
        }
        _ => &[],
    }
}

/// The default of a parameter that is not the last one given.
fn parameter_default(function: &str, name: &str) -> Option<(amphora_storage::Datum, DataType)> {
    use amphora_storage::Datum;
    match (function, name) {
        ("make_interval", "secs") => Some((Datum::Float8(0.0), DataType::Float8)),
        ("make_interval", _) => Some((Datum::Int4(0), DataType::Int4)),
        (_, "vars") => Some((Datum::jsonb(types::parse_json("{}").ok()?), DataType::Jsonb)),
        _ => None,
    }
}

/// Arguments in the order of the parameters, if any is given by its name. 42883
fn named_arguments<'q>(function: &str, args: &'q [FunctionArg]) -> Result<Option<Vec<Argument<'q>>>> {
    if !args.iter().any(|a| matches!(a, FunctionArg::Named { .. } | FunctionArg::ExprNamed { .. })) {
        return Ok(None);
    }
    let names = parameter_names(function);
    if names.is_empty() {
        let message = format!("function {function} cannot be called with named arguments");
        return Err(SqlError::feature_not_supported(message));
    }
    let mut places: Vec<Option<&ast::Expr>> = vec![None; names.len()];
    for (i, arg) in args.iter().enumerate() {
        let (place, e) = match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => (Some(i), e),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(e), .. } => {
                let wanted = fold(name);
                (names.iter().position(|n| *n == wanted), e)
            }
            FunctionArg::ExprNamed {
                name: ast::Expr::Identifier(name),
                arg: FunctionArgExpr::Expr(e),
                ..
            } => {
                let wanted = fold(name);
                (names.iter().position(|n| *n == wanted), e)
            }
            _ => return Err(SqlError::syntax_error("this is not an argument")),
        };
        match place.and_then(|p| places.get_mut(p)) {
            Some(slot @ None) => *slot = Some(e),
            _ => {
                return Err(SqlError::undefined_function(format!(
                    "function {function} does not take these arguments"
                )));
            }
        }
    }
    let last = places.iter().rposition(Option::is_some).map_or(0, |i| i + 1);
    let mut ordered = Vec::with_capacity(last);
    for (name, place) in names.iter().zip(places).take(last) {
        ordered.push(match place {
            Some(e) => Argument::Given(e),
            None => match parameter_default(function, name) {
                Some((value, ty)) => Argument::Default(value, ty),
                None => {
                    return Err(SqlError::undefined_function(format!(
                        "function {function} needs its argument {name}"
                    )));
                }
            },
        });
    }
    Ok(Some(ordered))
}

/// The operand of one of the parser's marks.
pub(super) fn marked<'q>(e: &'q ast::Expr, mark: &str) -> Option<&'q ast::Expr> {
    let ast::Expr::Function(call) = e else { return None };
    let name = call.name.0.first().and_then(|part| part.as_ident())?;
    let FunctionArguments::List(list) = &call.args else { return None };
    match &list.args[..] {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(inner))]
            if name.quote_style.is_none() && name.value == mark =>
        {
            Some(inner)
        }
        _ => None,
    }
}

/// A key with PostgreSQL's default: NULLs are greater than everything.
pub(super) fn sort_key(expr: Expr, options: &ast::OrderByOptions) -> Result<SortKey> {
    let descending = match &options.sort {
        None | Some(ast::OrderBySort::Asc) => false,
        Some(ast::OrderBySort::Desc) => true,
        Some(ast::OrderBySort::Using(_)) => {
            return Err(SqlError::feature_not_supported("ORDER BY … USING is not supported"));
        }
    };
    if expr.ty().base() == DataType::Json {
        return Err(SqlError::undefined_function("could not identify an ordering operator for type json")
            .with_hint("Use an explicit ordering operator or modify the query."));
    }
    let nulls_first = options.nulls_first.unwrap_or(descending);
    Ok(SortKey { expr, descending, nulls_first })
}

fn same_aggregate(a: &Aggregate, b: &Aggregate) -> bool {
    let same_filter = match (&a.filter, &b.filter) {
        (None, None) => true,
        (Some(a), Some(b)) => same_expr(a, b),
        _ => false,
    };
    std::ptr::eq(a.function, b.function)
        && a.distinct == b.distinct
        && same_filter
        && a.args.len() == b.args.len()
        && a.args.iter().zip(&b.args).all(|(a, b)| same_expr(a, b))
        && a.order_by.is_empty()
        && b.order_by.is_empty()
}
