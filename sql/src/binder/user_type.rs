//! Users' types: their names, the statements about them, and values that become of a domain.
//!
//! Stored expressions (defaults, checks, views) name a user's type by its id, `"16400"`, so that they go on
//! meaning it when it is renamed, and so that what depends on a type can be found.

use std::ops::ControlFlow;
use std::sync::Arc;

use amphora_storage::DataType;
use amphora_storage::schema::{TableId, UserType};
use amphora_storage::user_type::DomainType;
use sqlparser::ast;
use sqlparser::ast::{Ident, ObjectName, VisitMut, VisitorMut};

use super::ddl::is_system_schema;
use super::level::{Clause, Level};
use super::scope::Scope;
use super::{Binder, fold, name_parts};
use crate::command::{Command, DomainChange, NewDomain, ObjectCommand, TypeCommand};
use crate::dependency::Object;
use crate::error::{Result, SqlError};
use crate::expr::{DomainChecks, Expr};
use crate::frontend::PlannerContext;
use crate::parser::{self, DomainAction, DomainClause, TypeAst};
use crate::plan::Field;
use crate::types::CastContext;

/// Domains lead to domains so often, at most.
const MAX_DEPTH: usize = 32;

impl Binder<'_> {
    /// A user's type by its name, or by its id as stored expressions give it.
    pub(super) fn user_type(&self, name: &ObjectName) -> Result<Option<(Arc<UserType>, DataType)>> {
        let parts = name_parts(name)?;
        let catalog = &self.context.catalog;
        let found = match &parts[..] {
            [id] if id.quote_style.is_some() && id.value.bytes().all(|b| b.is_ascii_digit()) => {
                id.value.parse().ok().and_then(|id| catalog.type_by_id(TableId(id)))
            }
            [name] => {
                let name = fold(name);
                self.context.search_path.iter().find_map(|schema| catalog.type_named(schema, &name))
            }
            [schema, name] | [_, schema, name] => catalog.type_named(&fold(schema), &fold(name)),
            _ => None,
        };
        Ok(found.map(|(ty, data_type)| (ty.clone(), data_type.clone())))
    }

    /// The text of an expression that is to be stored.
    pub(super) fn stored_text(&self, e: &ast::Expr) -> String {
        let mut e = e.clone();
        let _: ControlFlow<()> = e.visit(&mut TypesById { binder: self });
        e.to_string()
    }

    /// A query's text names users' types by their ids.
    pub(super) fn types_by_id(&self, query: &mut ast::Query) {
        let _: ControlFlow<()> = query.visit(&mut TypesById { binder: self });
    }

    /// The name by which a stored expression casts to a type.
    pub(super) fn stored_type(ty: &DataType) -> String {
        match ty {
            DataType::Enum(ty) => format!("\"{}\"", ty.oid),
            DataType::Array(element) if matches!(**element, DataType::Enum(_)) => {
                format!("{}[]", Self::stored_type(element))
            }
            other => other.unmodified().to_string(),
        }
    }

    /// A statement about a user's type.
    pub(super) fn type_statement(&mut self, statement: &TypeAst) -> Result<Command> {
        let command = match statement {
            TypeAst::CreateEnum { name, labels } => {
                let (schema, name) = self.new_type_name(name)?;
                for (i, label) in labels.iter().enumerate() {
                    check_label(label)?;
                    if labels[..i].contains(label) {
                        // PostgreSQL's own unique index says so.
                        return Err(SqlError::unique_violation(
                            "duplicate key value violates unique constraint \"pg_enum_typid_label_index\"",
                        )
                        .with_detail(format!("Label \"{label}\" is given twice.")));
                    }
                }
                TypeCommand::CreateEnum { schema, name, labels: labels.clone() }
            }
            TypeAst::CreateDomain { name, ty, clauses } => {
                TypeCommand::CreateDomain(Box::new(self.create_domain(name, ty, clauses)?))
            }
            TypeAst::AddValue { name, label, if_not_exists, neighbour } => {
                let (ty, data_type) = self.existing_type(name)?;
                if !matches!(data_type, DataType::Enum(_)) {
                    return Err(not_an_enum(&ty));
                }
                check_label(label)?;
                TypeCommand::AddValue {
                    id: ty.id,
                    label: label.clone(),
                    if_not_exists: *if_not_exists,
                    neighbour: neighbour.clone(),
                }
            }
            TypeAst::RenameValue { name, from, to } => {
                let (ty, data_type) = self.existing_type(name)?;
                if !matches!(data_type, DataType::Enum(_)) {
                    return Err(not_an_enum(&ty));
                }
                check_label(to)?;
                TypeCommand::RenameValue { id: ty.id, from: from.clone(), to: to.clone() }
            }
            TypeAst::AlterDomain { name, action } => {
                let (ty, data_type) = self.existing_type(name)?;
                let DataType::Domain(domain) = &data_type else {
                    let message = format!("\"{}\" is not a domain", ty.name);
                    return Err(SqlError::wrong_object_type(message));
                };
                TypeCommand::AlterDomain { id: ty.id, change: self.domain_change(&ty.name, domain, action)? }
            }
            TypeAst::Drop { domain, if_exists, names, cascade } => {
                return self.drop_types(*domain, *if_exists, names, *cascade);
            }
        };
        Ok(Command::Object(Box::new(ObjectCommand::Type(command))))
    }

    /// ALTER TYPE | DOMAIN … RENAME TO, SET SCHEMA.
    pub(super) fn rename_type(
        &mut self,
        kind: &'static str,
        name: &ObjectName,
        to: (Option<String>, Option<String>),
    ) -> Result<Command> {
        let (ty, _) = self.type_of_kind(kind, name)?;
        let tag = if kind == "DOMAIN" { "ALTER DOMAIN" } else { "ALTER TYPE" };
        let (schema, name) = to;
        let command = TypeCommand::Rename { id: ty.id, tag, schema, name };
        Ok(Command::Object(Box::new(ObjectCommand::Type(command))))
    }

    /// A type that ALTER or COMMENT ON names. 42704, 42809
    pub(super) fn type_of_kind(&self, kind: &str, name: &ObjectName) -> Result<(Arc<UserType>, DataType)> {
        let (ty, data_type) = self.existing_type(name)?;
        if kind == "DOMAIN" && !matches!(data_type, DataType::Domain(_)) {
            return Err(SqlError::wrong_object_type(format!("\"{}\" is not a domain", ty.name)));
        }
        Ok((ty, data_type))
    }

    /// 42704
    fn existing_type(&self, name: &ObjectName) -> Result<(Arc<UserType>, DataType)> {
        if let Some(found) = self.user_type(name)? {
            return Ok(found);
        }
        let shown: Vec<String> = name_parts(name)?.into_iter().map(fold).collect();
        // A table's name is the type of its rows, and none of these.
        if self.find_relation(name).is_ok() {
            let message = format!("\"{}\" is a table's row type", shown.join("."));
            return Err(SqlError::wrong_object_type(message));
        }
        let built_in = crate::types::type_from_name(None, &shown.join("."), &[]);
        if let Some(ty) = built_in {
            let message = format!("permission denied: type {ty} is the system's");
            return Err(SqlError::insufficient_privilege(message));
        }
        Err(SqlError::undefined_object(format!("type \"{}\" does not exist", shown.join("."))))
    }

    fn new_type_name(&self, name: &ObjectName) -> Result<(String, String)> {
        let (schema, name) = self.new_name(name)?;
        let catalog = &self.context.catalog;
        if catalog.type_named(&schema, &name).is_some() || catalog.relation(&schema, &name).is_some() {
            return Err(SqlError::duplicate_object(format!("type \"{name}\" already exists")));
        }
        debug_assert!(!is_system_schema(&schema));
        Ok((schema, name))
    }

    fn drop_types(
        &mut self,
        domain: bool,
        if_exists: bool,
        names: &[ObjectName],
        cascade: bool,
    ) -> Result<Command> {
        let (mut objects, mut notices) = (Vec::new(), Vec::new());
        for name in names {
            let kind = if domain { "DOMAIN" } else { "TYPE" };
            match self.type_of_kind(kind, name) {
                Ok((ty, _)) => {
                    let object = Object::Type(ty.id);
                    if !objects.contains(&object) {
                        objects.push(object);
                    }
                }
                Err(error) if error.sqlstate == "42704" && if_exists => {
                    notices.push(format!("{}, skipping", error.message));
                }
                Err(error) => return Err(error),
            }
        }
        let tag = if domain { "DROP DOMAIN" } else { "DROP TYPE" };
        Ok(Command::Object(Box::new(ObjectCommand::Drop { tag, objects, cascade, notices })))
    }

    // Domains.

    fn create_domain(
        &mut self,
        name: &ObjectName,
        ty: &ast::DataType,
        clauses: &[DomainClause],
    ) -> Result<NewDomain> {
        let (schema, name) = self.new_type_name(name)?;
        let base = self.data_type(ty).map_err(|mut error| {
            error.position = None;
            error
        })?;
        let refused =
            matches!(base, DataType::Unknown | DataType::Record | DataType::Row(_) | DataType::Void);
        if refused || matches!(base, DataType::Crdt(_)) {
            let message = format!("\"{base}\" is not a valid base type for a domain");
            return Err(SqlError::datatype_mismatch(message));
        }
        let (mut not_null, mut null, mut default) = (false, false, None);
        let mut checks: Vec<(String, String)> = Vec::new();
        for clause in clauses {
            match clause {
                DomainClause::NotNull => not_null = true,
                DomainClause::Null => null = true,
                DomainClause::Default(_) if default.is_some() => {
                    return Err(SqlError::syntax_error("multiple default expressions"));
                }
                DomainClause::Default(e) => default = self.domain_default(&name, &base, e)?,
                DomainClause::Check(given, e) => {
                    let check = self.domain_check(&base, e)?;
                    let taken = |name: &str| checks.iter().any(|(known, _)| known == name);
                    let check_name = match given {
                        Some(given) if taken(&fold(given)) => {
                            return Err(SqlError::duplicate_object(format!(
                                "constraint \"{}\" for domain \"{name}\" already exists",
                                fold(given)
                            )));
                        }
                        Some(given) => fold(given),
                        None => super::made_up_name(&name, &[], "check", taken),
                    };
                    checks.push((check_name, check));
                }
            }
        }
        if not_null && null {
            return Err(SqlError::syntax_error("conflicting NULL/NOT NULL constraints"));
        }
        Ok(NewDomain { schema, name, base, not_null, default, checks })
    }

    fn domain_change(
        &mut self,
        name: &str,
        domain: &DomainType,
        action: &DomainAction,
    ) -> Result<DomainChange> {
        Ok(match action {
            DomainAction::Default(None) => DomainChange::Default(None),
            DomainAction::Default(Some(e)) => {
                DomainChange::Default(self.domain_default(name, &domain.base, e)?)
            }
            DomainAction::NotNull(set) => DomainChange::NotNull(*set),
            DomainAction::AddCheck { name: given, check, validate } => {
                let check = self.domain_check(&domain.base, check)?;
                let taken = |name: &str| domain.checks.iter().any(|(known, _)| known == name);
                let check_name = match given {
                    Some(given) => fold(given),
                    None => super::made_up_name(name, &[], "check", taken),
                };
                DomainChange::AddCheck { name: check_name, check, validate: *validate }
            }
            DomainAction::DropCheck { name, if_exists } => {
                DomainChange::DropCheck { name: fold(name), if_exists: *if_exists }
            }
            DomainAction::RenameCheck { name, to } => {
                DomainChange::RenameCheck { name: fold(name), to: fold(to) }
            }
            DomainAction::Validate(name) => DomainChange::Validate(fold(name)),
        })
    }

    fn domain_default(&mut self, name: &str, base: &DataType, e: &ast::Expr) -> Result<Option<String>> {
        if matches!(e, ast::Expr::Value(v) if v.value == ast::Value::Null) {
            return Ok(None);
        }
        self.check_default(e, name, base)?;
        self.default_text(e, base).map(Some)
    }

    /// The text of a CHECK over VALUE.
    fn domain_check(&mut self, base: &DataType, e: &ast::Expr) -> Result<String> {
        let bound = self.over_value(base, e)?;
        if bound.any(&mut |e| matches!(e, Expr::Call { function, .. } if function.volatility == crate::functions::Volatility::Volatile)) {
            return Err(SqlError::new("42P17", "functions in a check constraint must not be volatile"));
        }
        let mut e = e.clone();
        let _: ControlFlow<()> = e.visit(&mut UpperValue);
        Ok(self.stored_text(&e))
    }

    /// A condition over VALUE, a row of one column.
    fn over_value(&mut self, base: &DataType, e: &ast::Expr) -> Result<Expr> {
        let value = Field { name: "value".into(), ty: base.base(), origin: None };
        let scope = Scope::relation(String::new(), None, &[value]);
        let positions = self.positions.take();
        let bound = self.in_level(Level::new(scope, Clause::Check), |b| {
            let condition = b.expr(e)?;
            b.boolean(condition, "CHECK")
        });
        self.positions = positions;
        Ok(bound?.0)
    }

    /// A value that becomes of a domain: one of its base type, which satisfies its constraints.
    pub(super) fn coerce_to_domain(
        &mut self,
        expr: Expr,
        domain: &DomainType,
        context: CastContext,
    ) -> Result<Expr> {
        let input = self.coerce(expr, &domain.base.base(), context)?;
        self.checked(input, domain)
    }

    pub(super) fn checked(&mut self, input: Expr, domain: &DomainType) -> Result<Expr> {
        let mut chain = vec![domain];
        while let Some(DataType::Domain(below)) = chain.last().map(|domain| &domain.base) {
            if chain.len() >= MAX_DEPTH {
                let message = format!("domains lead to more than {MAX_DEPTH} others");
                return Err(SqlError::statement_too_complex(message));
            }
            chain.push(below);
        }
        let not_null = chain.iter().any(|domain| domain.not_null);
        let mut checks = Vec::new();
        // Those of the lowest first; all are said to be this domain's.
        for (name, text) in chain.iter().rev().flat_map(|domain| &domain.checks) {
            let e = parser::parse_expression(text)?;
            checks.push((name.clone(), self.over_value(&domain.base, &e)?));
        }
        if !not_null && checks.is_empty() {
            return Ok(input);
        }
        let checks = DomainChecks { name: domain.name.clone(), not_null, checks };
        Ok(Expr::Domain { input: Box::new(input), checks: Arc::new(checks) })
    }
}

/// The constraints of a domain that are to hold for existing values: an expression over a row of one column,
/// which fails if they do not.
pub(crate) fn domain_test(context: &PlannerContext, domain: &DomainType) -> Result<Expr> {
    Binder::new(context, None).checked(Expr::Column(0, domain.base.base()), domain)
}

/// A type that gives defaults: its own, or that of the domain below it.
pub(super) fn domain_default_of(ty: &DataType) -> Option<&String> {
    let mut ty = ty;
    for _ in 0..MAX_DEPTH {
        let DataType::Domain(domain) = ty else { return None };
        if domain.default.is_some() {
            return domain.default.as_ref();
        }
        ty = &domain.base;
    }
    None
}

/// True if values of this type must be looked at before they are stored.
pub(crate) fn is_constrained(ty: &DataType) -> bool {
    let mut ty = ty;
    for _ in 0..MAX_DEPTH {
        let DataType::Domain(domain) = ty else { return false };
        if domain.not_null || !domain.checks.is_empty() {
            return true;
        }
        ty = &domain.base;
    }
    true
}

/// VALUE is written as the keyword that it is.
struct UpperValue;

impl VisitorMut for UpperValue {
    type Break = ();

    fn pre_visit_expr(&mut self, e: &mut ast::Expr) -> ControlFlow<()> {
        if let ast::Expr::Identifier(ident) = e
            && ident.quote_style.is_none()
        {
            ident.value.make_ascii_uppercase();
        }
        ControlFlow::Continue(())
    }
}

/// Puts ids where users' types are named.
struct TypesById<'a, 'b> {
    binder: &'a Binder<'b>,
}

impl TypesById<'_, '_> {
    fn change(&self, ty: &mut ast::DataType) {
        match ty {
            ast::DataType::Custom(name, arguments) if arguments.is_empty() => {
                let shown = name.to_string();
                if crate::types::type_from_name(None, &shown, &[]).is_some() {
                    return;
                }
                if let Ok(Some((ty, _))) = self.binder.user_type(name) {
                    *name = ObjectName::from(vec![Ident::with_quote('"', ty.id.0.to_string())]);
                }
            }
            ast::DataType::Array(
                ast::ArrayElemTypeDef::SquareBracket(element, _)
                | ast::ArrayElemTypeDef::Qualified(element, _)
                | ast::ArrayElemTypeDef::AngleBracket(element)
                | ast::ArrayElemTypeDef::Parenthesis(element),
            ) => self.change(element),
            _ => {}
        }
    }
}

impl VisitorMut for TypesById<'_, '_> {
    type Break = ();

    fn pre_visit_expr(&mut self, e: &mut ast::Expr) -> ControlFlow<()> {
        match e {
            ast::Expr::Cast { data_type, .. } => self.change(data_type),
            ast::Expr::TypedString(typed) => self.change(&mut typed.data_type),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// 42602
fn check_label(label: &str) -> Result<()> {
    if label.len() > 63 {
        return Err(SqlError::invalid_name(format!("invalid enum label \"{label}\""))
            .with_detail("Labels must be 63 bytes or less."));
    }
    Ok(())
}

fn not_an_enum(ty: &UserType) -> SqlError {
    SqlError::wrong_object_type(format!("{} is not an enum", ty.shown()))
}

/// The first stored expression that meant something in one catalog, and means nothing in another.
pub(crate) fn stored_breaks(before: &PlannerContext, after: &PlannerContext) -> Option<String> {
    for table in after.catalog.tables() {
        let Some(old) = before.catalog.table_by_id(table.id) else { continue };
        let columns = 0..table.visible_columns().len();
        for position in columns {
            let binds = |context: &PlannerContext, table| {
                Binder::new(context, None).default_value(table, position).is_ok()
            };
            if binds(before, old) && !binds(after, table) {
                let name = &table.columns[position].name;
                return Some(format!("the default of column \"{name}\" of table \"{}\"", table.name));
            }
        }
        let binds = |context: &PlannerContext, table| Binder::new(context, None).checks(table).is_ok();
        if binds(before, old) && !binds(after, table) {
            return Some(format!("a constraint or generated column of table \"{}\"", table.name));
        }
    }
    for view in after.catalog.views() {
        let Some(old) = before.catalog.view_by_id(view.id) else { continue };
        if !super::view_is_broken(old, before) && super::view_is_broken(view, after) {
            return Some(format!("view \"{}\"", view.name));
        }
    }
    for (ty, data_type) in after.catalog.types() {
        let Some((_, old)) = before.catalog.type_by_id(ty.id) else { continue };
        let binds = |context: &PlannerContext, ty: &DataType| match ty {
            DataType::Domain(domain) => domain_test(context, domain).is_ok(),
            _ => true,
        };
        if binds(before, old) && !binds(after, data_type) {
            return Some(format!("domain \"{}\"", ty.name));
        }
    }
    None
}
