//! ALTER TABLE: what an action adds or changes, checked against the table as the actions before it left it.
//!
//! A statement may have many actions, and each sees what those before it did, so only the table's name is
//! bound with the statement. The rest is bound action by action, while the session carries them out.

use std::sync::Arc;

use amphora_storage::DataType;
use amphora_storage::schema::{ColumnId, ForeignKey, Index, Table, TableId};
use sqlparser::ast;
use sqlparser::ast::{ColumnOption, TableConstraint, VisitMut, VisitorMut};

use super::ddl::Draft;
use super::from::Found;
use super::level::Clause;
use super::{Binder, fold, name_parts};
use crate::command::{AlterTable, Command, NewColumn};
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::frontend::PlannerContext;
use crate::parser;

/// What ADD COLUMN or ADD CONSTRAINT adds. Positions count the visible columns, a new one last.
pub(crate) struct Additions {
    /// The column
    pub(crate) column: Option<NewColumn>,
    /// PRIMARY KEY
    pub(crate) primary_key: Option<Index>,
    /// UNIQUE
    pub(crate) uniques: Vec<Index>,
    /// CHECK
    pub(crate) checks: Vec<(String, String)>,
    /// FOREIGN KEY, with the ids of the table as it will be
    pub(crate) foreign_keys: Vec<ForeignKey>,
    /// Tables referred to
    pub(crate) parents: Vec<Arc<Table>>,
    /// What the client should be told
    pub(crate) notices: Vec<String>,
}

/// What is to be added.
pub(crate) enum Addition<'a> {
    /// ADD COLUMN
    Column(&'a ast::ColumnDef),
    /// ADD CONSTRAINT
    Constraint(&'a TableConstraint),
}

/// Checks an addition to a table.
pub(crate) fn additions(
    context: &PlannerContext,
    table: &Arc<Table>,
    addition: &Addition<'_>,
) -> Result<Additions> {
    let mut binder = Binder::new(context, None);
    let relations = context.catalog.relations().map(|relation| relation.name().1);
    let indexes = context.catalog.tables().flat_map(|t| t.all_indexes().map(|index| index.name.as_str()));
    let mut draft = Draft::of(table, relations.chain(indexes).map(str::to_owned).collect());
    let before = (draft.table.uniques.len(), draft.table.checks.len());
    let had_key = draft.table.primary_key.is_some();
    match addition {
        Addition::Column(definition) => {
            let position = draft.table.columns.len();
            binder.new_column(&mut draft, definition)?;
            for option in &definition.options {
                binder.column_constraint(&mut draft, position, option)?;
            }
            let own = [fold(&definition.name)];
            for option in &definition.options {
                if let ColumnOption::ForeignKey(key) = &option.option {
                    let mut key = key.clone();
                    key.name = key.name.or_else(|| option.name.clone());
                    binder.new_foreign_key(&mut draft, &key, &own)?;
                }
            }
        }
        Addition::Constraint(TableConstraint::ForeignKey(key)) => {
            let own: Vec<String> = key.columns.iter().map(fold).collect();
            binder.new_foreign_key(&mut draft, key, &own)?;
        }
        Addition::Constraint(constraint) => {
            if let TableConstraint::PrimaryKey(key) = constraint {
                let names = key.columns.iter().filter_map(|column| match &column.column.expr {
                    ast::Expr::Identifier(ident) => Some(fold(ident)),
                    _ => None,
                });
                let mut missing = names.filter(|name| table.column_position(name).is_none());
                if let Some(name) = missing.next() {
                    let table = &table.name;
                    let message = format!("column \"{name}\" of relation \"{table}\" does not exist");
                    return Err(SqlError::undefined_column(message));
                }
            }
            binder.table_constraint(&mut draft, constraint)?;
        }
    }
    // The draft numbers columns by position.
    let new_id = ColumnId(table.next_column_id);
    let id = |position: &ColumnId| {
        let visible = table.visible_columns();
        visible.get(position.0 as usize).map_or(new_id, |column| column.id)
    };
    let mut foreign_keys = draft.table.foreign_keys;
    for key in &mut foreign_keys {
        key.columns = key.columns.iter().map(id).collect();
        if key.parent == TableId(0) {
            key.parent = table.id;
            key.parent_columns = key.parent_columns.iter().map(id).collect();
        }
    }
    Ok(Additions {
        column: draft.table.columns.into_iter().nth(table.visible_columns().len()),
        primary_key: draft.table.primary_key.filter(|_| !had_key),
        uniques: draft.table.uniques.split_off(before.0),
        checks: draft.table.checks.split_off(before.1),
        foreign_keys,
        parents: binder.tables,
        notices: draft.table.notices,
    })
}

/// The text to keep of a new DEFAULT.
pub(crate) fn new_default(
    context: &PlannerContext,
    table: &Arc<Table>,
    position: usize,
    value: &ast::Expr,
) -> Result<String> {
    let column = &table.columns[position];
    let mut binder = Binder::new(context, None);
    binder.check_default(value, &column.name, &column.ty)?;
    binder.default_text(value, &column.ty)
}

/// What ALTER COLUMN … TYPE makes of a column.
pub(crate) struct Conversion {
    /// The new type
    pub(crate) ty: DataType,
    /// The new value over the old row
    pub(crate) value: Expr,
}

/// Checks ALTER COLUMN … TYPE [USING]. 42804
pub(crate) fn conversion(
    context: &PlannerContext,
    table: &Arc<Table>,
    position: usize,
    to: &ast::DataType,
    using: Option<&ast::Expr>,
) -> Result<Conversion> {
    let mut binder = Binder::new(context, None);
    let column = &table.columns[position];
    let ty = binder.data_type(to)?;
    if matches!(ty, DataType::Unknown | DataType::Record | DataType::Void) {
        let message = format!("column \"{}\" has pseudo-type {ty}", column.name);
        return Err(SqlError::invalid_table_definition(message));
    }
    let old = Expr::Column(position, column.ty.base());
    let name = super::coerce::type_name(&ty.base());
    let value = match using {
        Some(using) => binder.table_expr(using, Some(table), &DataType::Unknown, Clause::Check)?,
        None => old,
    };
    let value = binder.assign(value, &column.name, &ty).map_err(|error| match (error.sqlstate, using) {
        ("42804", None) => {
            let message = format!("column \"{}\" cannot be cast automatically to type {name}", column.name);
            SqlError::datatype_mismatch(message).with_hint(format!(
                "You might need to specify \"USING {}::{name}\".",
                crate::catalog::quoted(&column.name)
            ))
        }
        ("42804", Some(_)) => SqlError::datatype_mismatch(format!(
            "result of USING clause for column \"{}\" cannot be cast automatically to type {name}",
            column.name
        ))
        .with_hint("You might need to add an explicit cast."),
        _ => error,
    })?;
    Ok(Conversion { ty, value })
}

/// An expression's text after a column got another name.
pub(crate) fn rename_column_in(expression: &str, old: &str, new: &str) -> Result<String> {
    struct Rename<'a> {
        old: &'a str,
        new: &'a str,
    }
    impl VisitorMut for Rename<'_> {
        type Break = ();

        fn pre_visit_expr(&mut self, e: &mut ast::Expr) -> std::ops::ControlFlow<()> {
            let ident = match e {
                ast::Expr::Identifier(ident) => Some(ident),
                ast::Expr::CompoundIdentifier(parts) => parts.last_mut(),
                _ => None,
            };
            if let Some(ident) = ident.filter(|ident| fold(ident) == self.old) {
                let quoted = crate::catalog::quoted(self.new);
                ident.quote_style = (quoted != self.new).then_some('"');
                ident.value = self.new.to_owned();
            }
            std::ops::ControlFlow::Continue(())
        }
    }
    let mut tree = parser::parse_expression(expression)?;
    // It never breaks off.
    let _ = tree.visit(&mut Rename { old, new });
    Ok(tree.to_string())
}

impl Binder<'_> {
    pub(super) fn alter_table(&mut self, alter: &ast::AlterTable) -> Result<Command> {
        let table = match self.find_relation(&alter.name) {
            Ok(Found::Table(table)) => table,
            Ok(_) => {
                let parts = name_parts(&alter.name)?;
                let bare = parts.last().map(|i| fold(i)).unwrap_or_default();
                return Err(SqlError::feature_not_supported(format!(
                    "ALTER TABLE of \"{bare}\", which is not a table, is not supported"
                )));
            }
            Err(error) if error.sqlstate == "42P01" && alter.if_exists => {
                let message = format!("{}, skipping", error.message);
                return Ok(Command::Notice("ALTER TABLE", message));
            }
            Err(mut error) => {
                error.position = None;
                return Err(error);
            }
        };
        self.use_table(&table);
        let operations = alter.operations.clone();
        Ok(Command::AlterTable(Box::new(AlterTable { table: table.id, operations })))
    }
}
