//! The names of a row's columns.

use amphora_storage::DataType;
use sqlparser::ast;

use super::level::{Clause, Level};
use super::{Binder, fold};
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::plan::Field;

/// The system column that says which table a row is of.
const TABLE_OID: &str = "tableoid";

/// A row's columns and the relations they come from.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// One per column of the row, in order
    pub(super) columns: Vec<ScopeColumn>,
    /// What `*` gives, in order
    pub(super) star: Vec<usize>,
    /// The relations' names
    pub(super) relations: Vec<Relation>,
}

/// A table, subquery or function in FROM.
#[derive(Clone, Debug)]
pub(super) struct Relation {
    /// Its alias, or its own name
    pub(super) name: String,
    /// Its schema, where it has no alias
    pub(super) schema: Option<String>,
    /// Its columns in the row
    pub(super) columns: std::ops::Range<usize>,
    /// It is a function of one value, and its name stands for that
    pub(super) scalar: bool,
    /// The stored table it is
    pub(super) table: Option<std::sync::Arc<amphora_storage::schema::Table>>,
}

/// A column of a row.
#[derive(Clone, Debug)]
pub(super) struct ScopeColumn {
    /// Index in `relations`; none for a column that USING made
    pub(super) relation: Option<usize>,
    pub(super) name: String,
    pub(super) ty: DataType,
    pub(super) origin: Option<(u32, i16)>,
    /// Not found by its bare name: the other side of USING, or a hidden key
    pub(super) qualified_only: bool,
    /// Not found at all
    pub(super) hidden: bool,
    /// Found by name, and not part of `*`
    pub(super) system: bool,
}

impl Scope {
    /// The scope of one relation of these fields.
    pub(super) fn relation(name: String, schema: Option<String>, fields: &[Field]) -> Scope {
        let columns = fields.iter().map(|field| ScopeColumn {
            relation: Some(0),
            name: field.name.clone(),
            ty: field.ty.clone(),
            origin: field.origin,
            qualified_only: false,
            hidden: false,
            system: false,
        });
        Scope {
            columns: columns.collect(),
            star: (0..fields.len()).collect(),
            relations: vec![Relation { name, schema, columns: 0..fields.len(), scalar: false, table: None }],
        }
    }

    /// This row followed by another. 42712 if a name is taken.
    pub(super) fn join(mut self, other: Scope) -> Result<Scope> {
        for relation in &other.relations {
            if self
                .relations
                .iter()
                .any(|r| r.name == relation.name && !r.name.is_empty() && r.schema == relation.schema)
            {
                return Err(SqlError::duplicate_alias(format!(
                    "table name \"{}\" specified more than once",
                    relation.name
                )));
            }
        }
        let columns = self.columns.len();
        let relations = self.relations.len();
        self.columns.extend(other.columns.into_iter().map(|mut c| {
            c.relation = c.relation.map(|r| r + relations);
            c
        }));
        self.star.extend(other.star.into_iter().map(|c| c + columns));
        self.relations.extend(other.relations.into_iter().map(|mut r| {
            r.columns = r.columns.start + columns..r.columns.end + columns;
            r
        }));
        Ok(self)
    }

    /// The columns a bare name means.
    fn bare(&self, name: &str) -> Vec<usize> {
        let named = |c: &ScopeColumn| c.name == name && !c.qualified_only && !c.hidden;
        (0..self.columns.len()).filter(|&i| named(&self.columns[i])).collect()
    }

    /// The relation of this name.
    pub(super) fn find_relation(&self, schema: Option<&str>, name: &str) -> Option<usize> {
        self.relations
            .iter()
            .position(|r| r.name == name && schema.is_none_or(|s| r.schema.as_deref() == Some(s)))
    }

    /// The columns of a relation by name.
    fn of_relation(&self, relation: usize, name: &str) -> Vec<usize> {
        let Some(relation) = self.relations.get(relation) else { return Vec::new() };
        relation
            .columns
            .clone()
            .filter(|&i| self.columns[i].name == name && !self.columns[i].hidden)
            .collect()
    }

    /// The visible columns of a relation, for `t.*`.
    pub(super) fn star_of(&self, relation: usize) -> Vec<usize> {
        let Some(relation) = self.relations.get(relation) else { return Vec::new() };
        relation.columns.clone().filter(|&i| !self.columns[i].hidden && !self.columns[i].system).collect()
    }

    /// The column as an error names it: `t.x`, or `x`.
    pub(super) fn display(&self, column: usize) -> String {
        let Some(c) = self.columns.get(column) else { return "?".into() };
        match c.relation.and_then(|r| self.relations.get(r)) {
            Some(relation) if !relation.name.is_empty() => format!("{}.{}", relation.name, c.name),
            _ => c.name.clone(),
        }
    }
}

impl Binder<'_> {
    /// Binds in a new innermost level.
    pub(super) fn in_level<T>(
        &mut self,
        level: Level,
        f: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<(T, Level)> {
        self.levels.push(level);
        let result = f(self);
        let level = self.levels.pop().ok_or_else(|| SqlError::internal("query levels are out of step"))?;
        Ok((result?, level))
    }

    pub(super) fn level(&mut self) -> Result<&mut Level> {
        self.levels.last_mut().ok_or_else(|| SqlError::internal("no query level"))
    }

    /// Binds with another clause, in the same level.
    pub(super) fn in_clause<T>(
        &mut self,
        clause: Clause,
        f: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let outer = std::mem::replace(&mut self.level()?.clause, clause);
        let result = f(self);
        self.level()?.clause = outer;
        result
    }

    fn reference(&mut self, depth: usize, column: usize, ident: &ast::Ident) -> Result<Expr> {
        let position = self.position(ident.span);
        let index = self.levels.len() - 1 - depth;
        let level = &mut self.levels[index];
        let ty = level.scope.columns[column].ty.clone();
        if let Some(position) = position {
            level.mentions.entry(column).or_insert(position);
        }
        Ok(match depth {
            0 => Expr::Column(column, ty),
            depth => Expr::Outer { depth, position: column, ty },
        })
    }

    /// A bare name: a column, or a relation taken as a row.
    pub(super) fn bare_name(&mut self, ident: &ast::Ident) -> Result<Expr> {
        let name = fold(ident);
        for depth in 0..self.levels.len() {
            let level = &self.levels[self.levels.len() - 1 - depth];
            if !level.visible {
                continue;
            }
            match level.scope.bare(&name)[..] {
                [] => {}
                [column] => return self.reference(depth, column, ident),
                _ => {
                    let error =
                        SqlError::ambiguous_column(format!("column reference \"{name}\" is ambiguous"));
                    return Err(self.at(error, ident.span));
                }
            }
        }
        for depth in 0..self.levels.len() {
            let level = &self.levels[self.levels.len() - 1 - depth];
            if let Some(relation) = level.scope.find_relation(None, &name).filter(|_| level.visible) {
                return self.whole_row(depth, relation, ident);
            }
        }
        if name == TABLE_OID
            && let Some(level) = self.levels.last().filter(|level| level.visible)
            && let [relation] = &level.scope.relations[..]
            && relation.table.is_some()
        {
            return self.table_oid(0, 0, ident);
        }
        let mut error = SqlError::undefined_column(format!("column \"{name}\" does not exist"));
        if let Some(relation) = self.unseen_with(&name) {
            error = error.with_hint(format!(
                "There is a column named \"{name}\" in table \"{relation}\", but it cannot be referenced from this part of the query."
            ));
        } else if let Some(close) = self.closest(None, &name) {
            error = error.with_hint(format!("Perhaps you meant to reference the column \"{close}\"."));
        }
        Err(self.at(error, ident.span))
    }

    /// A relation taken as a row. A table's row that an outer join left empty is NULL.
    fn whole_row(&mut self, depth: usize, relation: usize, ident: &ast::Ident) -> Result<Expr> {
        let level = &self.levels[self.levels.len() - 1 - depth];
        let columns = level.scope.star_of(relation);
        if let (true, [column]) = (level.scope.relations[relation].scalar, &columns[..]) {
            return self.reference(depth, *column, ident);
        }
        let fields: Vec<(String, DataType)> = columns
            .iter()
            .map(|&c| (level.scope.columns[c].name.clone(), level.scope.columns[c].ty.base()))
            .collect();
        let from = &level.scope.relations[relation];
        let key = from.table.as_ref().filter(|t| !t.hidden_key).and_then(|t| t.primary.columns.first());
        let key = key.map(|k| from.columns.start + k);
        let row = columns.into_iter().map(|c| self.reference(depth, c, ident)).collect::<Result<Vec<_>>>()?;
        let ty = DataType::Row(fields.into());
        let named = super::record::named(Expr::Row(row), &ty);
        let Some(key) = key else { return Ok(named) };
        let key = Box::new(self.reference(depth, key, ident)?);
        Ok(Expr::Case {
            branches: vec![(Expr::IsNull { input: key, negated: true }, named)],
            otherwise: Box::new(Expr::Literal(amphora_storage::Datum::Null, ty.clone())),
            ty,
        })
    }

    /// `tableoid` of a stored table's row; NULL where an outer join left the row empty.
    fn table_oid(&mut self, depth: usize, relation: usize, ident: &ast::Ident) -> Result<Expr> {
        let level = &self.levels[self.levels.len() - 1 - depth];
        let found = level.scope.relations.get(relation);
        let Some((start, table)) = found.and_then(|r| Some((r.columns.start, r.table.as_ref()?))) else {
            return Err(SqlError::internal("tableoid of what is no table"));
        };
        let oid = Expr::Literal(amphora_storage::Datum::Oid(table.id.0), DataType::Oid);
        let Some(key) = table.primary.columns.first().map(|k| start + k) else { return Ok(oid) };
        let key = Box::new(self.reference(depth, key, ident)?);
        Ok(Expr::Case {
            branches: vec![(Expr::IsNull { input: key, negated: true }, oid)],
            otherwise: Box::new(Expr::Literal(amphora_storage::Datum::Null, DataType::Oid)),
            ty: DataType::Oid,
        })
    }

    /// `t.c` or `s.t.c`.
    pub(super) fn qualified_name(&mut self, idents: &[ast::Ident]) -> Result<Expr> {
        let (schema, relation, column) = match idents {
            [relation, column] => (None, relation, column),
            [schema, relation, column] => (Some(schema), relation, column),
            [_, schema, relation, column] => (Some(schema), relation, column),
            [column] => return self.bare_name(column),
            _ => return Err(SqlError::syntax_error("improper qualified name (too many dotted names)")),
        };
        let schema_name = schema.map(fold);
        let relation_name = fold(relation);
        let name = fold(column);
        let mut unseen = false;
        for depth in 0..self.levels.len() {
            let level = &self.levels[self.levels.len() - 1 - depth];
            let Some(found) = level.scope.find_relation(schema_name.as_deref(), &relation_name) else {
                continue;
            };
            if !level.visible {
                unseen = true;
                continue;
            }
            let stored = level.scope.relations.get(found).is_some_and(|r| r.table.is_some());
            return match level.scope.of_relation(found, &name)[..] {
                [] if name == TABLE_OID && stored => self.table_oid(depth, found, relation),
                [] => {
                    let message = format!("column {relation_name}.{name} does not exist");
                    let mut error = SqlError::undefined_column(message);
                    if let Some(close) = self.closest(Some(&relation_name), &name) {
                        error = error
                            .with_hint(format!("Perhaps you meant to reference the column \"{close}\"."));
                    }
                    Err(self.at(error, relation.span))
                }
                [c] => self.reference(depth, c, relation),
                _ => {
                    let error =
                        SqlError::ambiguous_column(format!("column reference \"{name}\" is ambiguous"));
                    Err(self.at(error, relation.span))
                }
            };
        }
        Err(self.missing_relation(&relation_name, unseen, relation))
    }

    /// 42P01: a table that FROM does not name.
    pub(super) fn missing_relation(&self, name: &str, unseen: bool, ident: &ast::Ident) -> SqlError {
        let aliased = self.levels.iter().rev().filter(|l| l.visible).find_map(|level| {
            level.scope.relations.iter().find(|r| r.table.as_ref().is_some_and(|t| t.name == name))
        });
        let invalid = format!("invalid reference to FROM-clause entry for table \"{name}\"");
        let error = if let Some(relation) = aliased.filter(|_| !unseen) {
            SqlError::undefined_table(invalid)
                .with_hint(format!("Perhaps you meant to reference the table alias \"{}\".", relation.name))
        } else if unseen {
            SqlError::undefined_table(invalid).with_hint(
                format!(
                    "There is an entry for table \"{name}\", but it cannot be referenced from this part of the query."
                ),
            )
        } else {
            SqlError::undefined_table(format!("missing FROM-clause entry for table \"{name}\""))
        };
        self.at(error, ident.span)
    }

    /// A relation that is there, cannot be seen, and has a column of this name.
    fn unseen_with(&self, name: &str) -> Option<&str> {
        self.levels.iter().rev().filter(|level| !level.visible).find_map(|level| {
            let column = level.scope.columns.iter().find(|c| c.name == name && !c.hidden)?;
            let relation = level.scope.relations.get(column.relation?)?;
            (!relation.name.is_empty()).then_some(relation.name.as_str())
        })
    }

    /// The visible column whose name is nearest, if one is near enough to be meant.
    fn closest(&self, relation: Option<&str>, name: &str) -> Option<String> {
        let limit = (name.chars().count() / 2).min(3);
        let mut best: Option<(usize, String)> = None;
        for level in self.levels.iter().rev().filter(|l| l.visible) {
            for (i, column) in level.scope.columns.iter().enumerate().filter(|(_, c)| !c.hidden) {
                let of = column.relation.and_then(|r| level.scope.relations.get(r));
                if relation.is_some() && of.map(|r| r.name.as_str()) != relation {
                    continue;
                }
                let distance = edit_distance(&column.name, name);
                if distance <= limit && best.as_ref().is_none_or(|(d, _)| distance < *d) {
                    best = Some((distance, level.scope.display(i)));
                }
            }
        }
        best.map(|(_, name)| name)
    }
}

/// Levenshtein's distance, of names that are short.
fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}
