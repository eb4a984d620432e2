//! `LIKE other INCLUDING …` in CREATE TABLE: columns and what belongs to them, copied once.

use amphora_storage::DataType;
use amphora_storage::schema::{Index, IndexId, Sequence, Table};
use sqlparser::ast;

use super::Binder;
use super::ddl::Draft;
use super::from::Found;
use super::index::{no_method, no_unique_index};
use crate::command::{NewColumn, NewSequence};
use crate::error::{Result, SqlError};
use crate::parser::LikeClause;

impl Binder<'_> {
    /// Appends the columns of what a new table is like. 42P01, 42701, 42809
    pub(super) fn like_columns(&mut self, draft: &mut Draft, like: &LikeClause) -> Result<()> {
        let columns = match self.find_relation(&like.name)? {
            Found::Table(table) => {
                let copy = |(position, column): (usize, &amphora_storage::schema::Column)| {
                    let mut new = NewColumn::plain(column.name.clone(), column.ty.clone());
                    new.not_null = column.not_null;
                    if column.identity.is_some() {
                        if like.identity {
                            new.identity = column.identity;
                            new.sequence = self.sequence_of(&table, position);
                        }
                    } else if like.defaults {
                        new.default.clone_from(&column.default);
                    }
                    if like.generated {
                        new.generated.clone_from(&column.generated);
                    }
                    new
                };
                table.visible_columns().iter().enumerate().map(copy).collect::<Vec<_>>()
            }
            Found::UserView(view) => {
                let columns = view.columns.iter();
                columns.map(|(name, ty)| NewColumn::plain(name.clone(), ty.base())).collect()
            }
            _ => {
                let message = format!("relation \"{}\" is invalid in LIKE clause", like.name);
                return Err(SqlError::wrong_object_type(message));
            }
        };
        let leaderless = draft.table.replication == amphora_storage::schema::Replication::Leaderless;
        for mut column in columns {
            if draft.table.columns.iter().any(|known| known.name == column.name) {
                let message = format!("column \"{}\" specified more than once", column.name);
                return Err(SqlError::duplicate_column(message));
            }
            if !leaderless {
                column.ty = match column.ty {
                    ty @ DataType::Crdt(_) => ty.base(),
                    ty => ty,
                };
            }
            if leaderless && (column.generated.is_some() || column.sequence.is_some()) {
                return Err(SqlError::feature_not_supported(
                    "identity and generated columns cannot be copied to a leaderless table",
                )
                .with_hint("Leave INCLUDING IDENTITY and INCLUDING GENERATED out."));
            }
            draft.table.columns.push(column);
        }
        Ok(())
    }

    /// Adds the constraints and indexes of what a new table is like, once all its columns are there.
    pub(super) fn like_constraints(&mut self, draft: &mut Draft, like: &LikeClause) -> Result<()> {
        let Found::Table(table) = self.find_relation(&like.name)? else { return Ok(()) };
        if like.constraints {
            for check in &table.checks {
                draft.add_check(&check.name, &check.expression)?;
            }
        }
        if !like.indexes {
            return Ok(());
        }
        let place = |draft: &Draft, c: &usize| {
            let name = table.columns.get(*c).map(|column| column.name.as_str());
            match c {
                c if *c >= Index::EXPRESSION => Some(*c),
                _ => draft.table.columns.iter().position(|new| Some(new.name.as_str()) == name),
            }
        };
        let copied = |draft: &Draft, index: &Index| {
            let places = |columns: &[usize]| columns.iter().map(|c| place(draft, c)).collect::<Option<_>>();
            let (columns, include) = (places(&index.columns)?, places(&index.include)?);
            let (derived, comment) = (Default::default(), None);
            Some(Index { columns, include, derived, comment, clustered: false, ..index.clone() })
        };
        let leaderless = draft.table.replication == amphora_storage::schema::Replication::Leaderless;
        let all = table.all_indexes().skip(usize::from(table.hidden_key));
        for index in all {
            let copy = copied(draft, index).ok_or_else(|| SqlError::internal("an index has no column"))?;
            if index.id == IndexId::PRIMARY {
                draft.primary_key(None, copy)?;
            } else if index.constraint {
                draft.unique(None, copy)?;
            } else if copy.unique && leaderless {
                return Err(no_unique_index(&draft.table.name));
            } else if copy.is_of_elements() && !leaderless {
                return Err(no_method(copy.method.as_str()));
            } else {
                draft.index(copy);
            }
        }
        Ok(())
    }

    /// The options of the sequence that belongs to a column.
    fn sequence_of(&self, table: &Table, position: usize) -> Option<NewSequence> {
        let owner = (table.id, table.columns.get(position)?.id);
        let sequence = self.context.catalog.sequences().find(|s| s.owned_by == Some(owner))?;
        let Sequence { ty, start, increment, min, max, cache, cycle, .. } = &**sequence;
        Some(NewSequence {
            ty: Some(ty.clone()),
            increment: Some(*increment),
            min: Some(Some(*min)),
            max: Some(Some(*max)),
            start: Some(*start),
            cache: Some(*cache),
            cycle: Some(*cycle),
            ..NewSequence::default()
        })
    }
}

/// True of what makes a table of others: not there, and said so.
pub(super) fn unsupported(create: &ast::CreateTable) -> Option<SqlError> {
    let refused = |what: &str, hint: &str| {
        Some(SqlError::feature_not_supported(format!("{what} is not supported")).with_hint(hint.to_owned()))
    };
    if create.inherits.is_some() {
        return refused("INHERITS", "Copy the columns with LIKE, and read both tables with UNION ALL.");
    }
    if create.partition_by.is_some() || create.partition_of.is_some() {
        return refused(
            "PARTITION BY",
            "Leave it out: a table of any size lies on every node, in one order.",
        );
    }
    None
}
