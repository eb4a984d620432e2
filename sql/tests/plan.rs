//! Transcripts of the planner: statements, and the plans or errors they get.
//!
//! `tests/plan/NAME.txt` holds blocks: a statement after `> `, then what came of it. CREATE TABLE and
//! CREATE INDEX change the catalog for the statements after them. `UPDATE_TRANSCRIPTS=1` rewrites the files.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "plan/render.rs"]
mod render;

use std::path::Path;
use std::sync::Arc;

use amphora_sql::command::{Command, CreateTable, ObjectCommand};
use amphora_sql::dependency::Object;
use amphora_sql::frontend::{PlannerContext, parse, prepare};
use amphora_sql::plan::Statement;
use amphora_storage::schema::{Catalog, Check, Column, ColumnId, Index, IndexId, Quorum, Table, TableId};
use amphora_storage::{DataType, Timestamp};

/// A catalog that grows.
struct Planner {
    catalog: Catalog,
    next: u32,
}

impl Planner {
    fn run(&mut self, sql: &str) -> String {
        let statements = match parse(sql) {
            Ok(statements) => statements,
            Err(error) => return render::error(&error),
        };
        let mut out = String::new();
        for statement in &statements {
            let context = PlannerContext::new(Arc::new(self.catalog.clone()));
            match prepare(statement, &context) {
                Err(error) => return render::error(&error),
                Ok(prepared) => {
                    out.push_str(&render::prepared(&prepared));
                    if let Statement::Command(command) = &prepared.statement {
                        self.apply(command);
                    }
                }
            }
        }
        if statements.is_empty() {
            out.push_str("(nothing)\n");
        }
        out
    }

    fn apply(&mut self, command: &Command) {
        match command {
            Command::CreateTable(create) => {
                let table = table_of(create, self.next);
                self.next += 10;
                self.catalog.put(Arc::new(table));
            }
            Command::CreateIndex(create) => {
                let mut table = (**self.catalog.table_by_id(create.table).unwrap()).clone();
                let id = IndexId(table.next_index_id);
                table.indexes.push(Index { id, oid: self.next, ..create.index.clone() });
                table.next_index_id += 1;
                self.next += 1;
                self.catalog.put(Arc::new(table));
            }
            Command::Object(object) => {
                if let ObjectCommand::Drop { objects, .. } = &**object {
                    for object in objects {
                        if let Object::Relation(id) = object {
                            self.catalog.remove(*id);
                        }
                    }
                }
            }
            _ => {}
        }
    }
}

fn table_of(create: &CreateTable, id: u32) -> Table {
    let column = |(i, c): (usize, &amphora_sql::command::NewColumn)| Column {
        not_null: c.not_null,
        default: c.default.clone(),
        ..Column::new(ColumnId(i as u32), c.name.clone(), c.ty.clone())
    };
    let mut columns: Vec<Column> = create.columns.iter().enumerate().map(column).collect();
    let hidden_key = create.primary_key.is_none();
    let no_key = Index { unique: true, ..Index::new(IndexId::PRIMARY, "", 0, vec![columns.len()]) };
    let key = create.primary_key.clone().unwrap_or(no_key);
    if hidden_key {
        let name = "rowid".to_owned();
        let id = ColumnId(columns.len() as u32);
        columns.push(Column { not_null: true, default: None, ..Column::new(id, name, DataType::Int8) });
    }
    let index =
        |i: usize, index: &Index| Index { id: IndexId(i as u32), oid: id + i as u32, ..index.clone() };
    Table {
        id: TableId(id),
        version: Timestamp::ZERO,
        schema: create.schema.clone(),
        name: create.name.clone(),
        owner: "amphora".into(),
        replication: create.replication,
        next_column_id: columns.len() as u32,
        columns,
        primary: index(0, &key),
        hidden_key,
        indexes: create.uniques.iter().enumerate().map(|(i, unique)| index(i + 1, unique)).collect(),
        checks: create
            .checks
            .iter()
            .map(|(name, expression)| Check {
                name: name.clone(),
                expression: expression.clone(),
                validated: true,
            })
            .collect(),
        next_index_id: create.uniques.len() as u32 + 1,
        storage: None,
        foreign_keys: Vec::new(),
        comment: None,
        write_quorum: Quorum::ONE,
        read_quorum: Quorum::ONE,
    }
}

#[test]
fn transcripts() {
    let update = std::env::var_os("UPDATE_TRANSCRIPTS").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "txt"));
    files.sort();
    assert!(!files.is_empty());
    let mut failures = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let got = replay(&text);
        if got != text {
            if update {
                std::fs::write(&file, &got).unwrap();
            } else {
                let pairs = text.lines().zip(got.lines()).enumerate();
                let place = pairs.clone().find(|(_, (a, b))| a != b);
                failures.push(match place {
                    Some((i, (a, b))) => {
                        format!("{}:{}\n  expected {a}\n  got      {b}", file.display(), i + 1)
                    }
                    None => format!("{}: of another length", file.display()),
                });
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// The transcript that the statements of a transcript give.
fn replay(text: &str) -> String {
    let mut planner = Planner { catalog: Catalog::default(), next: 16384 };
    let mut out = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with('#') || line.is_empty() {
            out.push_str(line);
            out.push('\n');
            continue;
        }
        let Some(first) = line.strip_prefix("> ") else { continue };
        let mut sql = first.to_owned();
        out.push_str(line);
        out.push('\n');
        while let Some(more) = lines.next_if(|l| l.starts_with(". ")) {
            sql.push('\n');
            sql.push_str(&more[2..]);
            out.push_str(more);
            out.push('\n');
        }
        out.push_str(&planner.run(&sql));
    }
    out
}
