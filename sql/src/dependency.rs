//! What depends on what in the catalog, and what DROP may therefore do.
//!
//! ```text
//!   schema ◄── table ◄─────── view ◄── view
//!     ▲          ▲  ▲───────── foreign key of another table
//!   type ◄── column, domain, view, DEFAULT that casts to it
//!                │  (owned: dropped with it, silently)
//!              sequence ◄──── DEFAULT nextval(…) of another table's column
//! ```
//!
//! Found as PostgreSQL finds it (`findDependentObjects`): depth first, newest first, and told the other way
//! round, so that messages read the same.

use amphora_storage::DataType;
use amphora_storage::schema::{Catalog, Column, ColumnId, Relation, Table, TableId, View};

use crate::catalog::quoted;
use crate::error::{Result, SqlError};

/// Dependent objects named in one message, at most: PostgreSQL's number.
const MAX_REPORTED: usize = 100;

/// Something that can be dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A schema
    Schema(TableId),
    /// A table, view or sequence
    Relation(TableId),
    /// A user's type
    Type(TableId),
    /// A column of a table
    Column(TableId, ColumnId),
    /// A column's DEFAULT
    Default(TableId, ColumnId),
    /// A foreign key of a table, by its OID
    ForeignKey(TableId, u32),
}

/// What a DROP does.
#[derive(Clone, Debug, Default)]
pub struct DropPlan {
    /// What goes, dependent objects before those they depend on
    pub objects: Vec<Object>,
    /// What the client is told: message and detail
    pub notice: Option<(String, Option<String>)>,
}

/// An object found, and on what it depends; `told` is false for what goes silently.
struct Found {
    object: Object,
    depends_on: Object,
    told: bool,
}

/// Names objects as PostgreSQL's messages do.
pub struct Names<'a> {
    /// The catalog
    pub catalog: &'a Catalog,
    /// Schemas whose relations need no qualification
    pub search_path: &'a [String],
}

impl Names<'_> {
    /// A relation's name, qualified where the search path does not find it.
    pub fn relation(&self, schema: &str, name: &str) -> String {
        let found = self.search_path.iter().find(|s| self.catalog.relation(s, name).is_some());
        if found.is_some_and(|s| s == schema) {
            quoted(name)
        } else {
            format!("{}.{}", quoted(schema), quoted(name))
        }
    }

    fn by_id(&self, id: TableId) -> (&'static str, String) {
        match self.catalog.relation_by_id(id) {
            Some(relation) => {
                let (schema, name) = relation.name();
                (relation.kind(), self.relation(schema, name))
            }
            None => ("relation", id.0.to_string()),
        }
    }

    /// True of a column that depends on a type because it is of arrays of it.
    fn is_array(&self, found: &Found) -> bool {
        let Object::Column(table, column) = &found.object else { return false };
        let column = self.catalog.table_by_id(*table).and_then(|t| column_of(t, *column));
        column.is_some_and(|c| matches!(c.ty, DataType::Array(_)))
            && matches!(found.depends_on, Object::Type(_))
    }

    /// `table t`, `default value for column c of table t`, …
    pub fn describe(&self, object: &Object) -> String {
        match object {
            Object::Schema(id) => {
                let schema = self.catalog.schema_by_id(*id);
                format!("schema {}", schema.map_or_else(|| id.0.to_string(), |s| quoted(&s.name)))
            }
            Object::Relation(id) => {
                let (kind, name) = self.by_id(*id);
                format!("{kind} {name}")
            }
            Object::Type(id) => {
                let ty = self.catalog.type_by_id(*id);
                format!("type {}", ty.map_or_else(|| id.0.to_string(), |(ty, _)| ty.shown()))
            }
            Object::Column(table, column) => {
                let name = self.catalog.table_by_id(*table).and_then(|t| column_of(t, *column));
                let name = name.map_or_else(String::new, |c| quoted(&c.name));
                format!("column {name} of table {}", self.by_id(*table).1)
            }
            Object::Default(table, column) => {
                let name = self.catalog.table_by_id(*table).and_then(|t| column_of(t, *column));
                let name = name.map_or_else(String::new, |c| quoted(&c.name));
                format!("default value for column {name} of table {}", self.by_id(*table).1)
            }
            Object::ForeignKey(table, oid) => {
                let key = self.catalog.table_by_id(*table);
                let key = key.and_then(|t| t.foreign_keys.iter().find(|k| k.oid == *oid));
                let name = key.map_or_else(String::new, |k| quoted(&k.name));
                format!("constraint {name} on table {}", self.by_id(*table).1)
            }
        }
    }
}

/// A column by id.
pub fn column_of(table: &Table, id: ColumnId) -> Option<&Column> {
    table.columns.iter().find(|c| c.id == id)
}

/// The sequences that a DEFAULT takes values from: a stored default names them by OID,
/// `nextval('16390'::regclass)`.
pub fn sequences_of_default(default: &str) -> impl Iterator<Item = TableId> {
    default.split('\'').skip(1).step_by(2).zip(default.split('\'').skip(2).step_by(2)).filter_map(
        |(text, after)| {
            let id = text.parse().ok().filter(|_| after.starts_with("::regclass"))?;
            Some(TableId(id))
        },
    )
}

/// True if a column of this type has values of the user's type with this id.
pub(crate) fn uses(ty: &DataType, id: TableId) -> bool {
    match ty {
        DataType::Enum(ty) => ty.oid == id.0,
        DataType::Domain(ty) => ty.oid == id.0 || uses(&ty.base, id),
        DataType::Array(element) => uses(element, id),
        _ => false,
    }
}

/// True of columns of exactly this type, or of an array of it.
fn names_directly(ty: &DataType, id: TableId) -> bool {
    match ty {
        DataType::Enum(ty) => ty.oid == id.0,
        DataType::Domain(ty) => ty.oid == id.0,
        DataType::Array(element) => names_directly(element, id),
        _ => false,
    }
}

/// True if a query's text has this identifier: it may read the column of that name.
fn mentions(text: &str, name: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back().is_some_and(word);
        let after = text[at + name.len()..].chars().next().is_some_and(word);
        !before && !after
    })
}

/// What depends on an object directly, and whether it goes silently with it.
fn dependents(catalog: &Catalog, object: &Object) -> Vec<(Object, bool)> {
    let mut found: Vec<(u32, Object, bool)> = Vec::new();
    match object {
        Object::Schema(id) => {
            let Some(schema) = catalog.schema_by_id(*id) else { return Vec::new() };
            let inside = catalog.relations().filter(|r| r.name().0 == schema.name);
            found.extend(inside.map(|r| {
                let owned = matches!(r, Relation::Sequence(s) if s.owned_by.is_some());
                (r.id().0, Object::Relation(r.id()), owned)
            }));
            let types = catalog.types().filter(|(ty, _)| ty.schema == schema.name);
            found.extend(types.map(|(ty, _)| (ty.id.0, Object::Type(ty.id), false)));
        }
        Object::Relation(id) => {
            for view in catalog.views() {
                if view.relations.iter().any(|r| r.id == *id) || view.sequences.contains(id) {
                    found.push((view.id.0, Object::Relation(view.id), false));
                }
            }
            for (table, key) in catalog.referencing(*id).into_iter().filter(|(table, _)| table.id != *id) {
                found.push((key.oid, Object::ForeignKey(table.id, key.oid), false));
            }
            for sequence in catalog.sequences() {
                if sequence.owned_by.is_some_and(|(table, _)| table == *id) {
                    found.push((sequence.id.0, Object::Relation(sequence.id), true));
                }
            }
            if catalog.sequence_by_id(*id).is_some() {
                for table in catalog.tables() {
                    for column in &table.columns {
                        let uses = |d: &String| sequences_of_default(d).any(|s| s == *id);
                        if column.default.as_ref().is_some_and(uses) {
                            found.push((table.id.0, Object::Default(table.id, column.id), false));
                        }
                    }
                }
            }
        }
        Object::Type(id) => {
            for (ty, _) in catalog.types().filter(|(ty, _)| ty.base().is_some_and(|base| uses(base, *id))) {
                found.push((ty.id.0, Object::Type(ty.id), false));
            }
            let stored = format!("\"{}\"", id.0);
            for table in catalog.tables() {
                let columns = table.columns.iter();
                for column in columns {
                    let by_default = column.default.as_ref().is_some_and(|text| text.contains(&stored));
                    if names_directly(&column.ty, *id) {
                        found.push((table.id.0, Object::Column(table.id, column.id), false));
                    } else if by_default {
                        found.push((table.id.0, Object::Default(table.id, column.id), false));
                    }
                }
            }
            for view in catalog.views() {
                if view.query.contains(&stored) || view.columns.iter().any(|(_, ty)| names_directly(ty, *id))
                {
                    found.push((view.id.0, Object::Relation(view.id), false));
                }
            }
        }
        Object::Column(table, column) => {
            let name = catalog.table_by_id(*table).and_then(|t| column_of(t, *column)).map(|c| &c.name);
            let reads = |view: &View| {
                let relation = view.relations.iter().find(|r| r.id == *table);
                let known = relation.and_then(|r| r.columns.iter().find(|(id, _)| id == column));
                known.is_some_and(|(_, then)| mentions(&view.query, then))
            };
            for view in catalog.views().filter(|view| name.is_some() && reads(view)) {
                found.push((view.id.0, Object::Relation(view.id), false));
            }
        }
        Object::Default(..) | Object::ForeignKey(..) => {}
    }
    found.sort_by_key(|f| std::cmp::Reverse(f.0));
    found.into_iter().map(|(_, object, silent)| (object, silent)).collect()
}

fn visit(catalog: &Catalog, object: &Object, roots: &[Object], found: &mut Vec<Found>) {
    for (dependent, silent) in dependents(catalog, object) {
        let part_of_root = match &dependent {
            Object::Default(table, _) | Object::ForeignKey(table, _) | Object::Column(table, _) => {
                let table = Object::Relation(*table);
                roots.contains(&table) || found.iter().any(|f| f.object == table)
            }
            _ => false,
        };
        if part_of_root || roots.contains(&dependent) || found.iter().any(|f| f.object == dependent) {
            continue;
        }
        // Marks the way, so that a circle ends; its place in the order comes afterwards.
        let place = found.len();
        found.push(Found { object: dependent.clone(), depends_on: object.clone(), told: !silent });
        visit(catalog, &dependent, roots, found);
        let this = found.remove(place);
        found.push(this);
    }
}

/// What dropping `roots` does. 2BP01 if something depends on them and `cascade` is not given.
pub fn plan_drop(names: &Names<'_>, roots: &[Object], cascade: bool) -> Result<DropPlan> {
    let mut found = Vec::new();
    for root in roots {
        if let Object::Relation(id) = root {
            check_identity(names, *id, roots)?;
        }
        visit(names.catalog, root, roots, &mut found);
    }
    // What goes with a table that goes is no object of its own.
    let gone: Vec<Object> = found.iter().map(|f| f.object.clone()).collect();
    found.retain(|f| match &f.object {
        Object::Default(table, _) | Object::ForeignKey(table, _) | Object::Column(table, _) => {
            !gone.contains(&Object::Relation(*table))
        }
        _ => true,
    });
    let told: Vec<&Found> = found.iter().rev().filter(|f| f.told).collect();
    let list = |line: &dyn Fn(&Found) -> String| {
        let mut lines: Vec<String> = told.iter().take(MAX_REPORTED).map(|f| line(f)).collect();
        if let Some(more) = told.len().checked_sub(MAX_REPORTED).filter(|more| *more > 0) {
            let objects = if more == 1 { "object" } else { "objects" };
            lines.push(format!("and {more} other {objects} (see server log for list)"));
        }
        lines.join("\n")
    };
    if !told.is_empty() && !cascade {
        let message = match roots {
            [root] => format!("cannot drop {} because other objects depend on it", names.describe(root)),
            _ => "cannot drop desired object(s) because other objects depend on them".to_owned(),
        };
        let detail = list(&|f| {
            let (object, on) = (names.describe(&f.object), names.describe(&f.depends_on));
            format!("{object} depends on {on}{}", if names.is_array(f) { "[]" } else { "" })
        });
        return Err(SqlError::dependent_objects_still_exist(message)
            .with_detail(detail)
            .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
    }
    let notice = match &told[..] {
        [] => None,
        [one] => Some((format!("drop cascades to {}", names.describe(&one.object)), None)),
        many => {
            let detail = list(&|f| format!("drop cascades to {}", names.describe(&f.object)));
            Some((format!("drop cascades to {} other objects", many.len()), Some(detail)))
        }
    };
    let objects = found.into_iter().map(|f| f.object).chain(roots.iter().cloned()).collect();
    Ok(DropPlan { objects, notice })
}

/// 2BP01 for the sequence of an identity column, unless its table goes too.
fn check_identity(names: &Names<'_>, id: TableId, roots: &[Object]) -> Result<()> {
    let Some(sequence) = names.catalog.sequence_by_id(id) else { return Ok(()) };
    let Some((table, column)) = sequence.owned_by else { return Ok(()) };
    let Some(column) = names.catalog.table_by_id(table).and_then(|t| column_of(t, column)) else {
        return Ok(());
    };
    if column.identity.is_none() || roots.contains(&Object::Relation(table)) {
        return Ok(());
    }
    let what = format!("column {} of table {}", quoted(&column.name), names.by_id(table).1);
    Err(SqlError::dependent_objects_still_exist(format!(
        "cannot drop {} because {what} requires it",
        names.describe(&Object::Relation(id))
    ))
    .with_hint(format!("You can drop {what} instead.")))
}
