//! What empties and what fills whole tables: TRUNCATE and CREATE TABLE AS.
//!
//! TRUNCATE writes nothing per row: the table goes on under the same id, and its rows under another storage
//! id. What lies under the old one is found and reclaimed as after DROP. It is part of its transaction like
//! any change of the catalog. On a leaderless table it takes effect on each node when the node learns of it:
//! what a node writes before that goes the way of the rows that were there, and nothing of it comes back.

use std::collections::BTreeSet;
use std::sync::Arc;

use amphora_storage::Datum;
use amphora_storage::schema::{Catalog, SequenceState, Table, TableId};

use super::command::Answer;
use super::prepared::PreparedStatement;
use super::{Notice, Output, Session};
use crate::command::CreateTableAs;
use crate::error::{Result, SqlError};
use crate::parser::ParsedStatement;

impl Session {
    /// TRUNCATE. 0A000 if a table that is not truncated refers to one that is.
    pub(super) async fn truncate(
        &mut self,
        catalog: &Arc<Catalog>,
        tables: &[TableId],
        restart: bool,
        cascade: bool,
    ) -> Result<Vec<Notice>> {
        let mut all: Vec<TableId> = tables.to_vec();
        let mut notices = Vec::new();
        let mut next = 0;
        while let Some(&id) = all.get(next) {
            next += 1;
            let referencing: BTreeSet<TableId> = catalog
                .referencing(id)
                .into_iter()
                .map(|(table, _)| table.id)
                .filter(|t| !all.contains(t))
                .collect();
            for child in referencing {
                let Some(child) = catalog.table_by_id(child) else { continue };
                if !cascade {
                    return Err(referenced(catalog, child, id));
                }
                notices.push(Notice::plain(format!("truncate cascades to table \"{}\"", child.name)));
                all.push(child.id);
            }
        }
        for id in all {
            self.truncate_one(catalog, id).await?;
            if restart {
                for sequence in catalog.sequences().filter(|s| s.owned_by.is_some_and(|(t, _)| t == id)) {
                    let state = SequenceState::start_of(sequence);
                    self.transaction(false).write_sequence(sequence.id, Some(state)).await?;
                }
            }
        }
        Ok(notices)
    }

    async fn truncate_one(&mut self, catalog: &Catalog, id: TableId) -> Result<()> {
        let storage = self.transaction(false).allocate_id()?;
        self.change_table(catalog, id, |table| table.storage = Some(storage)).await
    }

    /// CREATE TABLE … AS: makes the table, then inserts what the query gives.
    pub(super) async fn create_table_as(
        &mut self,
        create: &CreateTableAs,
        out: &mut dyn Output,
    ) -> Result<Answer> {
        if let Some(exists) = self.create_table(&create.table).await? {
            out.notice(Notice::plain(exists));
            return Ok(Answer::tag("CREATE TABLE AS"));
        }
        let Some(query) = &create.query else { return Ok(Answer::tag("CREATE TABLE AS")) };
        let parsed = ParsedStatement::insert_from(&create.table.schema, &create.table.name, query);
        let statement = PreparedStatement::new(Some(parsed), Vec::new());
        let catalog = self.catalog();
        let prepared = self.plan_with(&statement, &catalog)?;
        let params: Arc<[Datum]> = Arc::from([]);
        let (_, written) = self.write(&prepared.statement, &prepared, &params, self.deadline()).await?;
        Ok(Answer::tag(format!("SELECT {}", written.count)))
    }
}

fn referenced(catalog: &Catalog, child: &Table, parent: TableId) -> SqlError {
    let parent = catalog.table_by_id(parent).map_or("", |t| t.name.as_str());
    SqlError::feature_not_supported("cannot truncate a table referenced in a foreign key constraint")
        .with_detail(format!("Table \"{}\" references \"{parent}\".", child.name))
        .with_hint(format!(
            "Truncate table \"{}\" at the same time, or use TRUNCATE ... CASCADE.",
            child.name
        ))
}
