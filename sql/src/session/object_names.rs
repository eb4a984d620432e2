//! Names of catalog objects, for `regclass` and its kin.

use std::sync::Arc;

use amphora_storage::DataType;
use amphora_storage::schema::{Catalog, IndexId, TableId, UserType};

use crate::catalog::{self, system_views};
use crate::error::{Result, SqlError};
use crate::types::{ObjectNames, type_from_name};

/// The names that one version of the catalog gives.
pub(super) struct CatalogNames {
    catalog: Arc<Catalog>,
    search_path: Arc<[String]>,
}

impl CatalogNames {
    pub(super) fn new(catalog: Arc<Catalog>, search_path: Arc<[String]>) -> CatalogNames {
        CatalogNames { catalog, search_path }
    }

    pub(super) fn is_visible(&self, schema: &str) -> bool {
        schema == "pg_catalog" || self.search_path.iter().any(|s| s == schema)
    }

    /// True if the plain name is found in this schema before any other.
    fn finds(&self, schema: &str, name: &str) -> bool {
        self.schemas().find(|s| *s == schema || self.relation_oid(s, name).is_some()) == Some(schema)
    }

    fn schemas(&self) -> impl Iterator<Item = &str> {
        let listed = self.search_path.iter().any(|s| s == "pg_catalog");
        let implicit = if listed { None } else { Some("pg_catalog") };
        implicit.into_iter().chain(self.search_path.iter().map(String::as_str))
    }

    fn relation(&self, oid: u32) -> Option<(&str, &str)> {
        if let Some(relation) = self.catalog.relation_by_id(TableId(oid)) {
            return Some(relation.name());
        }
        for table in self.catalog.tables() {
            if let Some(index) = table.all_indexes().find(|i| i.oid == oid) {
                return Some((&table.schema, &index.name));
            }
        }
        system_views().iter().find(|v| v.oid == oid).map(|v| (v.schema, v.name))
    }

    fn relation_oid(&self, schema: &str, name: &str) -> Option<u32> {
        if let Some(relation) = self.catalog.relation(schema, name) {
            return Some(relation.id().0);
        }
        for table in self.catalog.tables().filter(|t| t.schema == schema) {
            let hidden = |id| table.hidden_key && id == IndexId::PRIMARY;
            if let Some(index) = table.all_indexes().find(|i| i.name == name && !hidden(i.id)) {
                return Some(index.oid);
            }
        }
        system_views().iter().find(|v| v.schema == schema && v.name == name).map(|v| v.oid)
    }

    /// A user's type, or an array of one, by its perhaps qualified name.
    fn user_type(&self, name: &str) -> Result<Option<DataType>> {
        if let Some(element) = name.trim().strip_suffix("[]") {
            return Ok(self.user_type(element)?.map(DataType::array));
        }
        let parts = identifier_parts(name)?;
        Ok(match &parts[..] {
            [name] => catalog::user_type(&self.catalog, self.search_path.iter().map(String::as_str), name),
            [schema, name] | [_, schema, name] => {
                catalog::user_type(&self.catalog, std::iter::once(schema.as_str()), name)
            }
            _ => None,
        })
    }

    /// True if the type's plain name finds it; none if it is no user's.
    pub(super) fn type_is_visible(&self, oid: u32) -> Option<bool> {
        let known = |ty: &UserType| ty.id.0 == oid || ty.array == oid;
        let (ty, _) = self.catalog.types().find(|(ty, _)| known(ty))?;
        let first = self.search_path.iter().find(|s| self.catalog.type_named(s, &ty.name).is_some());
        Some(first.is_some_and(|schema| *schema == ty.schema))
    }

    /// True if the relation's plain name finds it.
    pub(super) fn relation_is_visible(&self, oid: u32) -> Option<bool> {
        self.relation(oid).map(|(schema, name)| self.finds(schema, name))
    }
}

impl ObjectNames for CatalogNames {
    fn name_of(&self, kind: &DataType, oid: u32) -> Option<String> {
        match kind {
            DataType::Regclass => {
                let (schema, name) = self.relation(oid)?;
                let quoted = catalog::quoted(name);
                Some(if self.finds(schema, name) {
                    quoted
                } else {
                    format!("{}.{quoted}", catalog::quoted(schema))
                })
            }
            DataType::Regproc => catalog::function_name(oid, false),
            DataType::Regprocedure => catalog::function_name(oid, true),
            DataType::Regoper => catalog::operator_name(oid, false),
            DataType::Regoperator => catalog::operator_name(oid, true),
            DataType::Regcollation => catalog::collation_name(oid).map(catalog::quoted),
            DataType::Regtype => self.catalog.type_of_oid(oid).map(|t| match t {
                DataType::Char(_) => "character".into(),
                other => other.to_string(),
            }),
            DataType::Regnamespace => catalog::schema_name(&self.catalog, oid).map(catalog::quoted),
            DataType::Regrole => catalog::role_name(&self.catalog, oid),
            _ => None,
        }
    }

    fn oid_of(&self, kind: &DataType, name: &str) -> Result<Option<u32>> {
        match kind {
            DataType::Regoper => {
                let found = catalog::operator_by_name(name.trim_start_matches("pg_catalog."), None);
                return only(&found, || format!("more than one operator named {name}"));
            }
            DataType::Regprocedure | DataType::Regoperator => return signature(kind, name),
            _ => {}
        }
        let parts = identifier_parts(name)?;
        Ok(match (kind, &parts[..]) {
            (DataType::Regclass, [name]) => self.schemas().find_map(|s| self.relation_oid(s, name)),
            (DataType::Regclass, [schema, name] | [_, schema, name]) => self.relation_oid(schema, name),
            (DataType::Regtype, _) => match type_from_name(None, name, &[]) {
                Some(ty) => Some(ty.oid()),
                None => self.user_type(name)?.map(|ty| ty.oid()),
            },
            (DataType::Regnamespace, [name]) => catalog::schema_oid(&self.catalog, name),
            (DataType::Regproc, [name] | [_, name]) => {
                let found = catalog::function_by_name(name, None);
                return only(&found, || format!("more than one function named \"{name}\""));
            }
            (DataType::Regcollation, [name] | [_, name]) => catalog::collation_by_name(name),
            (DataType::Regrole, [name]) => {
                catalog::find_role(&self.catalog, name).map(|role| catalog::oid_of_role(&role))
            }
            _ => None,
        })
    }
}

/// The one that was found. 42725 if there are more.
fn only(found: &[u32], message: impl Fn() -> String) -> Result<Option<u32>> {
    match found {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        _ => Err(SqlError::ambiguous_function(message())),
    }
}

/// `upper(text)` or `+(integer,integer)`. 22P02
fn signature(kind: &DataType, text: &str) -> Result<Option<u32>> {
    let missing =
        |what: &str| SqlError::invalid_text_representation(format!("expected a {what} parenthesis"));
    let (name, types) = text.split_once('(').ok_or_else(|| missing("left"))?;
    let types = types.trim_end().strip_suffix(')').ok_or_else(|| missing("right"))?;
    let mut oids = Vec::new();
    for name in types.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let plain = name.strip_prefix("pg_catalog.").unwrap_or(name);
        let oid = match type_from_name(None, plain, &[]) {
            _ if name.eq_ignore_ascii_case("none") => 0,
            Some(found) => found.oid(),
            None => catalog::pseudo_type(plain)
                .ok_or_else(|| SqlError::undefined_object(format!("type \"{name}\" does not exist")))?,
        };
        oids.push(oid);
    }
    if *kind == DataType::Regoperator {
        let name = name.trim().trim_start_matches("pg_catalog.");
        let found = match oids[..] {
            [left, right] => catalog::operator_by_name(name, Some((left, right))),
            _ => return Err(SqlError::new("42P02", "missing argument")),
        };
        return Ok(found.first().copied());
    }
    let parts = identifier_parts(name)?;
    let name = parts.last().map_or("", String::as_str);
    Ok(catalog::function_by_name(name, Some(&oids)).first().copied())
}

/// The identifiers of a dotted name, folded and unquoted. 42602
fn identifier_parts(name: &str) -> Result<Vec<String>> {
    let mut parts = Vec::new();
    let (mut part, mut quoted, mut was_quoted) = (String::new(), false, false);
    let mut chars = name.trim().chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                part.push('"');
            }
            '"' => {
                quoted = !quoted;
                was_quoted = true;
            }
            '.' if !quoted => {
                parts.push(std::mem::take(&mut part));
                was_quoted = false;
            }
            c if quoted => part.push(c),
            c => part.extend(c.to_lowercase()),
        }
    }
    parts.push(part);
    if quoted || parts.iter().any(String::is_empty) && !was_quoted {
        return Err(SqlError::invalid_name("invalid name syntax"));
    }
    Ok(parts)
}
