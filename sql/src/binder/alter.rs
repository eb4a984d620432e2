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
use crate::command::{AlterTable, Command, NewColumn, NewSequence, ObjectCommand};
use crate::dependency::Object;
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::frontend::PlannerContext;
use crate::parser;
use crate::parser::{SequenceOption, TableAction};

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
            binder.check_generated(&draft, position, definition)?;
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

/// What ADD GENERATED … AS IDENTITY makes of a column. 22023, 42601
pub(crate) fn new_identity(
    context: &PlannerContext,
    table: &Table,
    position: usize,
    options: &[ast::SequenceOptions],
) -> Result<NewColumn> {
    let binder = Binder::new(context, None);
    let column = &table.columns[position];
    let mut new = NewColumn::plain(column.name.clone(), column.ty.clone());
    super::ddl::numbered(&mut new, binder.identity_options(options)?, !table.is_strong())?;
    Ok(new)
}

/// The options of an identity column's sequence.
pub(crate) fn changed_sequence(context: &PlannerContext, options: &[SequenceOption]) -> Result<NewSequence> {
    Binder::new(context, None).sequence_options(options, None)
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

/// The columns that an expression's text names: positions.
pub(super) fn columns_named(table: &Table, expression: &str) -> Vec<usize> {
    struct Named<'a>(&'a Table, Vec<usize>);
    impl ast::Visitor for Named<'_> {
        type Break = ();

        fn pre_visit_expr(&mut self, e: &ast::Expr) -> std::ops::ControlFlow<()> {
            let ident = match e {
                ast::Expr::Identifier(ident) => Some(ident),
                ast::Expr::CompoundIdentifier(parts) => parts.last(),
                _ => None,
            };
            self.1.extend(ident.and_then(|ident| self.0.column_position(&fold(ident))));
            std::ops::ControlFlow::Continue(())
        }
    }
    let mut named = Named(table, Vec::new());
    if let Ok(tree) = parser::parse_expression(expression) {
        // It never breaks off.
        let _ = ast::Visit::visit(&tree, &mut named);
    }
    named.1
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
        let actions = alter.operations.iter().cloned().map(TableAction::Parsed).collect();
        self.alter_table_by(&alter.name, alter.if_exists, actions)
    }

    /// ALTER TABLE, which also renames views and sequences, and gives them to others.
    pub(super) fn alter_table_by(
        &mut self,
        name: &ast::ObjectName,
        if_exists: bool,
        actions: Vec<TableAction>,
    ) -> Result<Command> {
        let table = match self.find_relation(name) {
            Ok(Found::Table(table)) => table,
            Ok(Found::UserView(view)) => return self.alter_as_table(view.id, true, &view.name, &actions),
            Ok(Found::Sequence(sequence)) => {
                return self.alter_as_table(sequence.id, false, &sequence.name, &actions);
            }
            Ok(_) => {
                let parts = name_parts(name)?;
                let bare = parts.last().map(|i| fold(i)).unwrap_or_default();
                return Err(SqlError::insufficient_privilege(format!(
                    "permission denied: \"{bare}\" is a system catalog"
                )));
            }
            Err(error) if error.sqlstate == "42P01" && if_exists => {
                let message = format!("{}, skipping", error.message);
                return Ok(Command::Notice("ALTER TABLE", message));
            }
            Err(mut error) => {
                error.position = None;
                return Err(error);
            }
        };
        self.use_table(&table);
        Ok(Command::AlterTable(Box::new(AlterTable { table: table.id, actions })))
    }

    /// ALTER TABLE of a view or a sequence.
    fn alter_as_table(
        &mut self,
        id: TableId,
        view: bool,
        name: &str,
        actions: &[TableAction],
    ) -> Result<Command> {
        use ast::AlterTableOperation as Op;
        let tag = "ALTER TABLE";
        let command = match actions {
            [TableAction::Parsed(Op::RenameTable { table_name })] => {
                let (ast::RenameTableNameKind::To(to) | ast::RenameTableNameKind::As(to)) = table_name;
                let to = name_parts(to)?.last().map(|i| fold(i));
                ObjectCommand::Rename { id, tag, schema: None, name: to }
            }
            [TableAction::Parsed(Op::RenameColumn { old_column_name, new_column_name })] if view => {
                let (column, to) = (fold(old_column_name), fold(new_column_name));
                ObjectCommand::RenameViewColumn { id, tag, column, to }
            }
            [TableAction::Parsed(Op::OwnerTo { new_owner })] => {
                let owner = match new_owner {
                    ast::Owner::Ident(ident) => fold(ident),
                    _ => "current_user".to_owned(),
                };
                ObjectCommand::SetOwner { object: Object::Relation(id), tag, owner }
            }
            _ => {
                let kind = if view { "views" } else { "sequences" };
                let message = format!("ALTER action cannot be performed on relation \"{name}\"");
                return Err(SqlError::wrong_object_type(message)
                    .with_detail(format!("This operation is not supported for {kind}.")));
            }
        };
        Ok(Command::Object(Box::new(command)))
    }
}
