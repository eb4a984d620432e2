//! ANALYZE, VACUUM and LOCK TABLE: which tables and columns.

use sqlparser::ast::ObjectName;

use super::Binder;
use super::from::Found;
use crate::command::Command;
use crate::error::{Result, SqlError};
use crate::parser::Analyze;

impl Binder<'_> {
    /// The tables must be there; the transaction's snapshot keeps them as they are. 42P01
    pub(super) fn lock(&mut self, names: &[ObjectName]) -> Result<Command> {
        for name in names {
            if let Found::Table(table) = self.find_relation(name)? {
                self.use_table(&table);
            }
        }
        Ok(Command::Nothing("LOCK TABLE"))
    }

    /// 42P01, 42703, 42701
    pub(super) fn analyze(&mut self, analyze: &Analyze) -> Result<Command> {
        let (mut tables, mut warnings) = (Vec::new(), Vec::new());
        if analyze.targets.is_empty() {
            let all = |t: &std::sync::Arc<amphora_storage::schema::Table>| {
                (t.id, (0..t.visible_columns().len()).collect())
            };
            tables.extend(self.context.catalog.tables().map(all));
        }
        for (name, columns) in &analyze.targets {
            let Found::Table(table) = self.find_relation(name)? else {
                let bare = super::name_parts(name)?.last().map(|i| super::fold(i)).unwrap_or_default();
                let verb = analyze.tag.to_lowercase();
                warnings.push(format!(
                    "skipping \"{bare}\" --- cannot {verb} non-tables or special system tables"
                ));
                continue;
            };
            self.use_table(&table);
            let mut positions: Vec<usize> = Vec::new();
            for column in columns {
                let position = table.column_position(column).ok_or_else(|| {
                    SqlError::undefined_column(format!(
                        "column \"{column}\" of relation \"{}\" does not exist",
                        table.name
                    ))
                })?;
                if positions.contains(&position) {
                    return Err(SqlError::new(
                        "42701",
                        format!("column \"{column}\" of relation \"{}\" appears more than once", table.name),
                    ));
                }
                positions.push(position);
            }
            if columns.is_empty() {
                positions = (0..table.visible_columns().len()).collect();
            }
            tables.push((table.id, positions));
        }
        if !analyze.looks {
            tables.clear();
        }
        Ok(Command::Analyze { tag: analyze.tag, tables, warnings })
    }
}
