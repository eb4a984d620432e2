//! Names of catalog objects, for `regclass` and its kin.

use std::sync::Arc;

use amphora_storage::DataType;
use amphora_storage::schema::{Catalog, IndexId};

use crate::catalog::{
    self, AMPHORA_SCHEMA_OID, INFORMATION_SCHEMA_OID, PG_CATALOG_OID, PUBLIC_OID, system_views,
};
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

    fn is_visible(&self, schema: &str) -> bool {
        schema == "pg_catalog" || self.search_path.iter().any(|s| s == schema)
    }

    fn relation(&self, oid: u32) -> Option<(&str, &str)> {
        for table in self.catalog.tables() {
            if table.id.0 == oid {
                return Some((&table.schema, &table.name));
            }
            if let Some(index) = table.all_indexes().find(|i| i.oid == oid) {
                return Some((&table.schema, &index.name));
            }
        }
        system_views().iter().find(|v| v.oid == oid).map(|v| (v.schema, v.name))
    }

    fn relation_oid(&self, schema: &str, name: &str) -> Option<u32> {
        if let Some(table) = self.catalog.table(schema, name) {
            return Some(table.id.0);
        }
        for table in self.catalog.tables().filter(|t| t.schema == schema) {
            let hidden = |id| table.hidden_key && id == IndexId::PRIMARY;
            if let Some(index) = table.all_indexes().find(|i| i.name == name && !hidden(i.id)) {
                return Some(index.oid);
            }
        }
        system_views().iter().find(|v| v.schema == schema && v.name == name).map(|v| v.oid)
    }

    /// True if the relation's plain name finds it.
    pub(super) fn relation_is_visible(&self, oid: u32) -> Option<bool> {
        self.relation(oid).map(|(schema, _)| self.is_visible(schema))
    }
}

impl ObjectNames for CatalogNames {
    fn name_of(&self, kind: &DataType, oid: u32) -> Option<String> {
        match kind {
            DataType::Regclass => {
                let (schema, name) = self.relation(oid)?;
                let name = catalog::quoted(name);
                Some(if self.is_visible(schema) {
                    name
                } else {
                    format!("{}.{name}", catalog::quoted(schema))
                })
            }
            DataType::Regtype => DataType::from_oid(oid).map(|t| match t {
                DataType::Char(_) => "character".into(),
                other => other.to_string(),
            }),
            DataType::Regnamespace => Some(
                match oid {
                    PG_CATALOG_OID => "pg_catalog",
                    PUBLIC_OID => "public",
                    INFORMATION_SCHEMA_OID => "information_schema",
                    AMPHORA_SCHEMA_OID => "amphora",
                    _ => return None,
                }
                .into(),
            ),
            DataType::Regrole => catalog::role_name(&self.catalog, oid),
            _ => None,
        }
    }

    fn oid_of(&self, kind: &DataType, name: &str) -> Result<Option<u32>> {
        let parts = identifier_parts(name)?;
        Ok(match (kind, &parts[..]) {
            (DataType::Regclass, [name]) => {
                let path = std::iter::once("pg_catalog").chain(self.search_path.iter().map(String::as_str));
                let mut path = path;
                path.find_map(|schema| self.relation_oid(schema, name))
            }
            (DataType::Regclass, [schema, name] | [_, schema, name]) => self.relation_oid(schema, name),
            (DataType::Regtype, _) => type_from_name(None, name, &[]).map(|t| t.oid()),
            (DataType::Regnamespace, [name]) => match name.as_str() {
                "pg_catalog" | "public" | "information_schema" | "amphora" => Some(catalog::schema_oid(name)),
                _ => None,
            },
            (DataType::Regrole, [name]) => {
                catalog::find_role(&self.catalog, name).map(|role| catalog::oid_of_role(&role))
            }
            _ => None,
        })
    }
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
