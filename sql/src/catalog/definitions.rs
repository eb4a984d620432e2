//! How stored definitions are shown: defaults, views, comments.

use amphora_storage::DataType;
use amphora_storage::schema::{Catalog, Relation, TableId, View};

use super::{quoted, shown_types};
use crate::types::ObjectNames;

/// A stored DEFAULT as `pg_get_expr` shows it: sequences by their names.
pub fn shown_default(names: &dyn ObjectNames, text: &str) -> String {
    let mut parts = text.split('\'');
    let mut shown = parts.next().unwrap_or_default().to_owned();
    while let Some(literal) = parts.next() {
        let after = parts.next().unwrap_or_default();
        let oid = literal.parse().ok().filter(|_| after.starts_with("::regclass"));
        let name = oid.and_then(|oid| names.name_of(&DataType::Regclass, oid));
        shown.push('\'');
        shown.push_str(name.as_deref().unwrap_or(literal));
        shown.push('\'');
        shown.push_str(after);
    }
    shown
}

/// A view's query as `pg_get_viewdef` shows it: relations by their names of today. Where a column was renamed
/// since, its relation gets the names that the query uses.
pub fn view_definition(catalog: &Catalog, names: &dyn ObjectNames, view: &View) -> String {
    let mut text = view.query.clone();
    for relation in &view.relations {
        let id = format!("\"{}\"", relation.id.0);
        let Some(name) = names.name_of(&DataType::Regclass, relation.id.0) else { continue };
        text = replace_relation(&text, &id, &name, renamed(catalog, relation).as_deref());
    }
    format!(" {};", shown_types(catalog, &text))
}

/// The column names of a relation as a view knows them, if they are not those of today.
fn renamed(catalog: &Catalog, relation: &amphora_storage::schema::ViewRelation) -> Option<String> {
    let today: Vec<Option<&str>> = match catalog.relation_by_id(relation.id)? {
        Relation::Table(table) => relation
            .columns
            .iter()
            .map(|(id, _)| table.columns.iter().find(|c| c.id == *id).map(|c| c.name.as_str()))
            .collect(),
        Relation::View(view) => {
            (0..relation.columns.len()).map(|i| view.columns.get(i).map(|(name, _)| name.as_str())).collect()
        }
        Relation::Sequence(_) => return None,
    };
    let same = today.iter().zip(&relation.columns).all(|(now, (_, then))| now.is_none_or(|n| n == then));
    if same {
        return None;
    }
    let kept = today.iter().zip(&relation.columns).filter(|(now, _)| now.is_some());
    Some(kept.map(|(_, (_, then))| quoted(then)).collect::<Vec<_>>().join(", "))
}

/// Puts a name where `"id" AS alias` stands, leaving strings alone.
fn replace_relation(text: &str, id: &str, name: &str, columns: Option<&str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(id) {
        let (before, after) = rest.split_at(at);
        let after = &after[id.len()..];
        out.push_str(before);
        // An odd number of apostrophes before it: it stands inside a string.
        let in_string = out.matches('\'').count() % 2 == 1;
        let alias = after.strip_prefix(" AS ").filter(|_| !in_string);
        match alias {
            None => {
                out.push_str(id);
                rest = after;
            }
            Some(alias) => {
                let end = identifier_end(alias);
                let (alias, after) = alias.split_at(end);
                out.push_str(name);
                let own = name.rsplit('.').next() == Some(alias);
                if !own || columns.is_some() {
                    out.push(' ');
                    out.push_str(alias);
                }
                if let (Some(columns), false) = (columns, after.trim_start().starts_with('(')) {
                    out.push_str(&format!("({columns})"));
                }
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Where the identifier that a text begins with ends.
fn identifier_end(text: &str) -> usize {
    if let Some(quoted) = text.strip_prefix('"') {
        let mut characters = quoted.char_indices().peekable();
        while let Some((i, c)) = characters.next() {
            if c == '"' {
                match characters.peek() {
                    Some((_, '"')) => {
                        characters.next();
                    }
                    _ => return i + 2,
                }
            }
        }
        return text.len();
    }
    text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(text.len())
}

/// Every comment there is: object, class, column number, text.
pub fn comments(catalog: &Catalog) -> Vec<(u32, u32, i32, &str)> {
    let mut all = vec![(super::PUBLIC_OID, NAMESPACE, 0, "standard public schema")];
    for relation in catalog.relations() {
        let comment = match relation {
            Relation::Table(table) => &table.comment,
            Relation::View(view) => &view.comment,
            Relation::Sequence(sequence) => &sequence.comment,
        };
        all.extend(comment.as_deref().map(|c| (relation.id().0, CLASS, 0, c)));
    }
    for table in catalog.tables() {
        for (i, column) in table.visible_columns().iter().enumerate() {
            let number = i32::try_from(i + 1).unwrap_or(i32::MAX);
            all.extend(column.comment.as_deref().map(|c| (table.id.0, CLASS, number, c)));
        }
        for index in table.all_indexes() {
            let class = if index.constraint { CONSTRAINT } else { CLASS };
            all.extend(index.comment.as_deref().map(|c| (index.oid, class, 0, c)));
        }
        for key in &table.foreign_keys {
            all.extend(key.comment.as_deref().map(|c| (key.oid, CONSTRAINT, 0, c)));
        }
    }
    for (ty, _) in catalog.types() {
        all.extend(ty.comment.as_deref().map(|c| (ty.id.0, TYPE, 0, c)));
    }
    for schema in catalog.schemas() {
        all.extend(schema.comment.as_deref().map(|c| (schema.id.0, NAMESPACE, 0, c)));
    }
    all
}

/// OID of `pg_class`.
const CLASS: u32 = 1259;
/// OID of `pg_constraint`.
const CONSTRAINT: u32 = 2606;
/// OID of `pg_type`.
const TYPE: u32 = 1247;
/// OID of `pg_namespace`.
const NAMESPACE: u32 = 2615;

/// The comment on an object; of one class only, if it is named.
pub fn object_comment(catalog: &Catalog, oid: u32, class: Option<&str>) -> Option<String> {
    let class = match class {
        Some("pg_class") => Some(CLASS),
        Some("pg_constraint") => Some(CONSTRAINT),
        Some("pg_namespace") => Some(NAMESPACE),
        Some("pg_type") => Some(TYPE),
        Some(_) => return None,
        None => None,
    };
    let found = comments(catalog).into_iter().find(|(object, c, number, _)| {
        *object == oid && *number == 0 && class.is_none_or(|class| class == *c)
    });
    found.map(|(.., text)| text.to_owned())
}

/// The comment on a column of a table.
pub fn column_comment(catalog: &Catalog, table: u32, number: i64) -> Option<String> {
    let table = catalog.table_by_id(TableId(table))?;
    let column = table.visible_columns().get(usize::try_from(number.checked_sub(1)?).ok()?)?;
    column.comment.clone()
}

/// What an object is, in words, as `pg_describe_object` says it: `column id of table orders`. `class` is the OID of
/// the catalog that lists it.
pub fn describe_object(
    catalog: &Catalog,
    names: &dyn ObjectNames,
    class: u32,
    oid: u32,
    column: i64,
) -> Option<String> {
    match class {
        CLASS => {
            let kind = relation_kind(catalog, oid)?;
            let relation = format!("{kind} {}", names.name_of(&DataType::Regclass, oid)?);
            match usize::try_from(column - 1) {
                Ok(place) => {
                    let table = catalog.table_by_id(TableId(oid))?;
                    Some(format!("column {} of {relation}", table.visible_columns().get(place)?.name))
                }
                Err(_) => Some(relation),
            }
        }
        NAMESPACE => super::schema_name(catalog, oid).map(|name| format!("schema {name}")),
        TYPE => names.name_of(&DataType::Regtype, oid).map(|name| format!("type {name}")),
        super::sequences::PG_PROC => {
            names.name_of(&DataType::Regprocedure, oid).map(|name| format!("function {name}"))
        }
        super::sequences::PG_EXTENSION => Some("extension amphora".to_owned()),
        _ => None,
    }
}

fn relation_kind(catalog: &Catalog, oid: u32) -> Option<&'static str> {
    match catalog.relation_by_id(TableId(oid)) {
        Some(Relation::Table(_)) => Some("table"),
        Some(Relation::View(_)) => Some("view"),
        Some(Relation::Sequence(_)) => Some("sequence"),
        None if catalog.tables().any(|table| table.all_indexes().any(|index| index.oid == oid)) => {
            Some("index")
        }
        None => {
            let system = super::system_views().iter().find(|view| view.oid == oid)?;
            Some(if system.kind == 'v' { "view" } else { "table" })
        }
    }
}
