//! The catalog: all descriptors at one version.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{
    Column, Descriptor, ForeignKey, Role, Schema, Sequence, Table, TableId, TableStatistics, UserType, View,
};
use crate::hlc::Timestamp;
use crate::types::DataType;

/// All descriptors at one version of the catalog. Cheap to share, never changed in place.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// The commit that made this version of the catalog
    pub version: Timestamp,
    /// Tables, views and sequences share one space of names (indexes too, but those are their tables')
    by_name: BTreeMap<(String, String), Relation>,
    by_id: BTreeMap<TableId, Object>,
    tables: BTreeMap<TableId, Arc<Table>>,
    statistics: BTreeMap<TableId, Arc<TableStatistics>>,
    types: BTreeMap<TableId, KnownType>,
    /// Tables with foreign keys, by the table that these refer to
    children: BTreeMap<TableId, BTreeSet<TableId>>,
}

/// A user's type, and what columns of it are.
#[derive(Clone, Debug)]
struct KnownType {
    descriptor: Arc<UserType>,
    data_type: DataType,
}

/// A relation, found by its name.
#[derive(Clone, Debug)]
pub enum Relation {
    /// A table
    Table(Arc<Table>),
    /// A view
    View(Arc<View>),
    /// A sequence
    Sequence(Arc<Sequence>),
}

impl Relation {
    /// Its id.
    pub fn id(&self) -> TableId {
        match self {
            Relation::Table(table) => table.id,
            Relation::View(view) => view.id,
            Relation::Sequence(sequence) => sequence.id,
        }
    }

    /// Its schema's name and its own.
    pub fn name(&self) -> (&str, &str) {
        match self {
            Relation::Table(table) => (&table.schema, &table.name),
            Relation::View(view) => (&view.schema, &view.name),
            Relation::Sequence(sequence) => (&sequence.schema, &sequence.name),
        }
    }

    /// What PostgreSQL calls it in messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Relation::Table(_) => "table",
            Relation::View(_) => "view",
            Relation::Sequence(_) => "sequence",
        }
    }
}

/// Anything with an id.
#[derive(Clone, Debug)]
enum Object {
    Relation(Relation),
    Schema(Arc<Schema>),
    Statistics(TableId),
    Role(Arc<Role>),
    Type,
}

impl Catalog {
    /// A catalog of these tables.
    pub fn new(version: Timestamp, tables: impl IntoIterator<Item = Arc<Table>>) -> Catalog {
        let mut catalog = Catalog { version, ..Catalog::default() };
        for table in tables {
            catalog.put(table);
        }
        catalog
    }

    /// Adds a table, or replaces the object with its id.
    pub fn put(&mut self, table: Arc<Table>) {
        self.remove(table.id);
        let table = self.resolved_table(table);
        for key in &table.foreign_keys {
            self.children.entry(key.parent).or_default().insert(table.id);
        }
        self.tables.insert(table.id, table.clone());
        self.put_relation(Relation::Table(table));
    }

    /// Adds an object, or replaces the one with its id.
    pub fn put_object(&mut self, object: Descriptor) {
        let id = object.id();
        match object {
            Descriptor::Table(table) => self.put(Arc::new(table)),
            Descriptor::View(view) => {
                self.remove(id);
                let view = self.resolved_view(Arc::new(view));
                self.put_relation(Relation::View(view));
            }
            Descriptor::Sequence(sequence) => {
                self.remove(id);
                self.put_relation(Relation::Sequence(Arc::new(sequence)));
            }
            Descriptor::Schema(schema) => {
                self.remove(id);
                self.by_id.insert(id, Object::Schema(Arc::new(schema)));
            }
            Descriptor::Role(role) => {
                self.remove(id);
                self.by_id.insert(id, Object::Role(Arc::new(role)));
            }
            Descriptor::Type(ty) => {
                self.remove(id);
                self.by_id.insert(id, Object::Type);
                self.put_type(Arc::new(ty));
            }
            Descriptor::Statistics(statistics) => {
                self.remove(id);
                self.by_id.insert(id, Object::Statistics(statistics.table));
                self.statistics.insert(statistics.table, Arc::new(statistics));
            }
        }
    }

    fn put_relation(&mut self, relation: Relation) {
        let (schema, name) = relation.name();
        self.by_name.insert((schema.to_owned(), name.to_owned()), relation.clone());
        self.by_id.insert(relation.id(), Object::Relation(relation));
    }

    /// Removes an object; nothing if it is not there.
    pub fn remove(&mut self, id: TableId) {
        match self.by_id.remove(&id) {
            Some(Object::Relation(relation)) => {
                let (schema, name) = relation.name();
                let key = (schema.to_owned(), name.to_owned());
                // Another may have its name by now.
                if self.by_name.get(&key).is_some_and(|known| known.id() == id) {
                    self.by_name.remove(&key);
                }
                if let Some(table) = self.tables.remove(&id) {
                    self.forget_child(&table);
                }
            }
            Some(Object::Statistics(table)) => {
                self.statistics.remove(&table);
            }
            Some(Object::Type) => {
                self.types.remove(&id);
            }
            Some(Object::Schema(_) | Object::Role(_)) | None => {}
        }
    }

    /// A table, view or sequence by schema and name.
    pub fn relation(&self, schema: &str, name: &str) -> Option<&Relation> {
        self.by_name.get(&(schema.to_owned(), name.to_owned()))
    }

    /// A table, view or sequence by id.
    pub fn relation_by_id(&self, id: TableId) -> Option<&Relation> {
        match self.by_id.get(&id) {
            Some(Object::Relation(relation)) => Some(relation),
            _ => None,
        }
    }

    /// Tables, views and sequences, by id.
    pub fn relations(&self) -> impl Iterator<Item = &Relation> {
        self.by_id.values().filter_map(|object| match object {
            Object::Relation(relation) => Some(relation),
            _ => None,
        })
    }

    /// A table by schema and name.
    pub fn table(&self, schema: &str, name: &str) -> Option<&Arc<Table>> {
        match self.relation(schema, name) {
            Some(Relation::Table(table)) => Some(table),
            _ => None,
        }
    }

    /// A table by id.
    pub fn table_by_id(&self, id: TableId) -> Option<&Arc<Table>> {
        self.tables.get(&id)
    }

    /// All tables, by id.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.values()
    }

    /// All views, by id.
    pub fn views(&self) -> impl Iterator<Item = &Arc<View>> {
        self.relations().filter_map(|relation| match relation {
            Relation::View(view) => Some(view),
            _ => None,
        })
    }

    /// All sequences, by id.
    pub fn sequences(&self) -> impl Iterator<Item = &Arc<Sequence>> {
        self.relations().filter_map(|relation| match relation {
            Relation::Sequence(sequence) => Some(sequence),
            _ => None,
        })
    }

    /// A sequence by schema and name.
    pub fn sequence(&self, schema: &str, name: &str) -> Option<&Arc<Sequence>> {
        match self.relation(schema, name) {
            Some(Relation::Sequence(sequence)) => Some(sequence),
            _ => None,
        }
    }

    /// A sequence by id.
    pub fn sequence_by_id(&self, id: TableId) -> Option<&Arc<Sequence>> {
        match self.relation_by_id(id) {
            Some(Relation::Sequence(sequence)) => Some(sequence),
            _ => None,
        }
    }

    /// A view by schema and name.
    pub fn view(&self, schema: &str, name: &str) -> Option<&Arc<View>> {
        match self.relation(schema, name) {
            Some(Relation::View(view)) => Some(view),
            _ => None,
        }
    }

    /// Schemas that were made by users, by id.
    pub fn schemas(&self) -> impl Iterator<Item = &Arc<Schema>> {
        self.by_id.values().filter_map(|object| match object {
            Object::Schema(schema) => Some(schema),
            _ => None,
        })
    }

    /// Roles that were made or altered, by id.
    pub fn roles(&self) -> impl Iterator<Item = &Arc<Role>> {
        self.by_id.values().filter_map(|object| match object {
            Object::Role(role) => Some(role),
            _ => None,
        })
    }

    /// A schema that a user made, by name.
    pub fn schema(&self, name: &str) -> Option<&Arc<Schema>> {
        self.schemas().find(|schema| schema.name == name)
    }

    /// A schema that a user made, by id.
    pub fn schema_by_id(&self, id: TableId) -> Option<&Arc<Schema>> {
        match self.by_id.get(&id) {
            Some(Object::Schema(schema)) => Some(schema),
            _ => None,
        }
    }

    /// A view by id.
    pub fn view_by_id(&self, id: TableId) -> Option<&Arc<View>> {
        match self.relation_by_id(id) {
            Some(Relation::View(view)) => Some(view),
            _ => None,
        }
    }

    /// What ANALYZE learned of a table.
    pub fn statistics(&self, table: TableId) -> Option<&Arc<TableStatistics>> {
        self.statistics.get(&table)
    }

    /// Foreign keys that refer to a table, with the tables that have them (itself included, if it does), in
    /// the order in which they were made.
    pub fn referencing(&self, parent: TableId) -> Vec<(&Arc<Table>, &ForeignKey)> {
        let Some(children) = self.children.get(&parent) else { return Vec::new() };
        let tables = children.iter().filter_map(|id| self.tables.get(id));
        let mut keys: Vec<_> = tables
            .flat_map(|table| table.foreign_keys.iter().map(move |key| (table, key)))
            .filter(|(_, key)| key.parent == parent)
            .collect();
        keys.sort_by_key(|(_, key)| key.oid);
        keys
    }

    /// True if a foreign key refers to this table.
    pub fn is_referenced(&self, parent: TableId) -> bool {
        self.children.contains_key(&parent)
    }

    /// Users' types, by id.
    pub fn types(&self) -> impl Iterator<Item = (&Arc<UserType>, &DataType)> {
        self.types.values().map(|known| (&known.descriptor, &known.data_type))
    }

    /// A user's type by schema and name.
    pub fn type_named(&self, schema: &str, name: &str) -> Option<(&Arc<UserType>, &DataType)> {
        self.types().find(|(ty, _)| ty.name == name && ty.schema == schema)
    }

    /// A user's type by id.
    pub fn type_by_id(&self, id: TableId) -> Option<(&Arc<UserType>, &DataType)> {
        self.types.get(&id).map(|known| (&known.descriptor, &known.data_type))
    }

    /// The type with this OID: a system's, a user's, or the array type of a user's.
    pub fn type_of_oid(&self, oid: u32) -> Option<DataType> {
        if oid < TableId::FIRST_USER.0 {
            return DataType::from_oid(oid);
        }
        match self.types.get(&TableId(oid)) {
            Some(known) => Some(known.data_type.clone()),
            None => self.types().find(|(ty, _)| ty.array == oid).map(|(_, ty)| ty.clone().array()),
        }
    }

    /// A type as stored, with what the catalog knows of it.
    pub fn resolved(&self, ty: &DataType) -> DataType {
        let of = |oid: u32| self.types.get(&TableId(oid)).map(|known| known.data_type.clone());
        let resolved = match ty {
            DataType::Enum(ty) => of(ty.oid),
            DataType::Domain(ty) => of(ty.oid),
            DataType::Array(element) if element.is_user_made() => Some(self.resolved(element).array()),
            _ => None,
        };
        resolved.unwrap_or_else(|| ty.clone())
    }

    /// Adds a type, and tells those who use it.
    fn put_type(&mut self, ty: Arc<UserType>) {
        let id = ty.id;
        let data_type = ty.data_type(&ty.base().map_or(DataType::Unknown, |base| self.resolved(base)));
        self.types.insert(id, KnownType { descriptor: ty, data_type: data_type.clone() });
        let above =
            self.types.values().filter(|known| known.descriptor.base().is_some_and(|b| *b == data_type));
        let above: Vec<Arc<UserType>> = above.map(|known| known.descriptor.clone()).collect();
        for domain in above.into_iter().filter(|domain| domain.id != id) {
            self.put_type(domain);
        }
        let tables = self.tables.values().filter(|t| t.columns.iter().any(|c| c.ty.is_user_made()));
        for table in tables.cloned().collect::<Vec<_>>() {
            let table = self.resolved_table(table);
            self.tables.insert(table.id, table.clone());
            self.put_relation(Relation::Table(table));
        }
        let views = self.views().filter(|v| v.columns.iter().any(|(_, ty)| ty.is_user_made()));
        for view in views.cloned().collect::<Vec<_>>() {
            let view = self.resolved_view(view);
            self.put_relation(Relation::View(view));
        }
    }

    fn resolved_table(&self, table: Arc<Table>) -> Arc<Table> {
        if !table.columns.iter().any(|column| column.ty.is_user_made()) {
            return table;
        }
        let mut table = Table::clone(&table);
        for Column { ty, missing, .. } in &mut table.columns {
            *ty = self.resolved(ty);
            *missing = missing.clone().labelled(ty);
        }
        Arc::new(table)
    }

    fn resolved_view(&self, view: Arc<View>) -> Arc<View> {
        if !view.columns.iter().any(|(_, ty)| ty.is_user_made()) {
            return view;
        }
        let mut view = View::clone(&view);
        view.columns.iter_mut().for_each(|(_, ty)| *ty = self.resolved(ty));
        Arc::new(view)
    }

    fn forget_child(&mut self, table: &Table) {
        for key in &table.foreign_keys {
            if let Entry::Occupied(mut children) = self.children.entry(key.parent) {
                children.get_mut().remove(&table.id);
                if children.get().is_empty() {
                    children.remove();
                }
            }
        }
    }
}
