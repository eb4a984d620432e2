//! Types that users make: enumerated types and domains, as columns and expressions carry them.
//!
//! **A label's place.** A value of an enumerated type is stored as its label's *place*, a number that is given
//! when the label is added and never changes. Places order the labels, so that everything that orders values
//! (keys, indexes, ranges, sorts, statistics) orders them by looking at nothing but the number, and a row says
//! nothing of the label's text, which may be renamed.
//!
//! ```text
//!   CREATE TYPE mood AS ENUM ('sad', 'happy')          sad = 1·2⁴⁰   happy = 2·2⁴⁰
//!   ALTER TYPE mood ADD VALUE 'ok' BEFORE 'happy'      ok  = 1.5·2⁴⁰, half way between its neighbours
//!   ALTER TYPE mood ADD VALUE 'glad'                   glad = 3·2⁴⁰
//! ```
//!
//! Adding a label between two others takes the middle of the gap, so no place that is in use moves, no row or
//! index entry is written anew, and keys that were in order stay in order. PostgreSQL does the same with
//! floats (`enumsortorder`). A gap is 2⁴⁰ wide: forty labels can be squeezed in at one point, each next to the last,
//! before there is no middle left, and then ALTER TYPE says so.
//!
//! **What is stored of the type.** Columns, and arrays in rows, keep only the type's id. The catalog, which
//! knows the labels, puts them into the descriptors it hands out ([`DataType::resolved`]); a value read through
//! such a descriptor carries its label, and so prints itself wherever it goes.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::array::Array;
use crate::datum::Datum;
use crate::types::DataType;

/// The distance between the places of labels that were made one after the other.
pub const GAP: i64 = 1 << 40;

/// The label that a value of an enumerated type is.
#[derive(Clone, Debug)]
pub struct Label {
    /// The label's OID
    pub oid: u32,
    /// Its place: what is stored, and what orders
    pub place: i64,
    /// Its text; empty where the type is not known
    pub text: Arc<str>,
}

impl Label {
    /// A label of which only the place is known.
    pub fn at(place: i64) -> Label {
        Label { oid: 0, place, text: Arc::from("") }
    }

    /// `pg_enum.enumsortorder`: 1, 2, 3 as they were made, and what lies between for those added later.
    pub fn sort_order(&self) -> f32 {
        (self.place as f64 / GAP as f64) as f32
    }
}

/// Only the place is stored.
impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.place.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Label, D::Error> {
        i64::deserialize(deserializer).map(Label::at)
    }
}

/// An enumerated type.
#[derive(Clone, Debug)]
pub struct EnumType {
    /// OID
    pub oid: u32,
    /// OID of its array type
    pub array: u32,
    /// Name as messages show it, qualified outside of `public`
    pub name: String,
    /// Its labels by place, ascending; none where only the type's id is known
    pub labels: Vec<Arc<Label>>,
}

impl EnumType {
    /// A label by its text.
    pub fn label(&self, text: &str) -> Option<&Arc<Label>> {
        self.labels.iter().find(|label| *label.text == *text)
    }

    /// A label by its place.
    pub fn label_at(&self, place: i64) -> Option<&Arc<Label>> {
        self.labels.binary_search_by_key(&place, |label| label.place).ok().and_then(|i| self.labels.get(i))
    }
}

/// A domain: a type whose values are another's, with a default and constraints of its own.
#[derive(Clone, Debug)]
pub struct DomainType {
    /// OID
    pub oid: u32,
    /// OID of its array type
    pub array: u32,
    /// Name as messages show it, qualified outside of `public`
    pub name: String,
    /// The type below, which may be a domain too; [`DataType::Unknown`] where only the id is known
    pub base: DataType,
    /// NOT NULL
    pub not_null: bool,
    /// DEFAULT, as SQL text
    pub default: Option<String>,
    /// CHECK constraints: name, and condition over VALUE as SQL text
    pub checks: Vec<(String, String)>,
}

/// Types are the same if their ids are.
macro_rules! by_oid {
    ($($name:ident),*) => {$(
        impl PartialEq for $name {
            fn eq(&self, other: &$name) -> bool {
                self.oid == other.oid
            }
        }

        impl Eq for $name {}

        impl std::hash::Hash for $name {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.oid.hash(state);
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                (self.oid, self.array).serialize(serializer)
            }
        }
    )*};
}

by_oid!(EnumType, DomainType);

impl<'de> Deserialize<'de> for EnumType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<EnumType, D::Error> {
        let (oid, array) = Deserialize::deserialize(deserializer)?;
        Ok(EnumType { oid, array, name: format!("type {oid}"), labels: Vec::new() })
    }
}

impl<'de> Deserialize<'de> for DomainType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<DomainType, D::Error> {
        let (oid, array) = Deserialize::deserialize(deserializer)?;
        let (default, checks) = (None, Vec::new());
        let name = format!("type {oid}");
        Ok(DomainType { oid, array, name, base: DataType::Unknown, not_null: false, default, checks })
    }
}

impl Datum {
    /// The value with its labels, where `ty` is an enumerated type or an array of one.
    pub fn labelled(self, ty: &DataType) -> Datum {
        match (self, ty) {
            (Datum::Enum(label), DataType::Enum(known)) => {
                Datum::Enum(known.label_at(label.place).cloned().unwrap_or(label))
            }
            (Datum::Array(array), DataType::Array(element)) if matches!(**element, DataType::Enum(_)) => {
                let items = array.items.iter().map(|item| item.clone().labelled(element)).collect();
                let (element, shape) = ((**element).clone(), array.shape.clone());
                Datum::Array(Arc::new(Array { element, items, shape }))
            }
            (value, DataType::Domain(domain)) => value.labelled(&domain.base),
            (value, _) => value,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::{codec, key, row};

    fn mood() -> DataType {
        let label = |(i, text): (usize, &str)| {
            Arc::new(Label { oid: 0, place: (i as i64 + 1) * GAP, text: Arc::from(text) })
        };
        let labels = ["sad", "ok", "happy"].into_iter().enumerate().map(label).collect();
        DataType::Enum(Arc::new(EnumType { oid: 16400, array: 16401, name: "mood".into(), labels }))
    }

    fn value(ty: &DataType, text: &str) -> Datum {
        let DataType::Enum(ty) = ty else { panic!("no enum") };
        Datum::Enum(ty.label(text).unwrap().clone())
    }

    #[test]
    fn a_row_keeps_the_place_and_gives_the_label_back() {
        let ty = mood();
        let mut bytes = Vec::new();
        row::encode_value(&mut bytes, &value(&ty, "ok")).unwrap();
        let Datum::Enum(bare) = row::decode_value(&bytes).unwrap() else { panic!("no enum") };
        assert_eq!((bare.place, &*bare.text), (2 * GAP, ""));
        let Datum::Enum(full) = Datum::Enum(bare).labelled(&ty) else { panic!("no enum") };
        assert_eq!(&*full.text, "ok");
    }

    #[test]
    fn keys_are_in_the_order_of_places_and_read_back() {
        let ty = mood();
        let key = |text| {
            let mut out = Vec::new();
            key::encode_datum(&mut out, &value(&ty, text)).unwrap();
            out
        };
        assert!(key("sad") < key("ok") && key("ok") < key("happy"));
        let bytes = key("happy");
        let (read, rest) = key::decode_datum(&bytes, &ty).unwrap();
        assert!(rest.is_empty());
        assert!(matches!(read, Datum::Enum(label) if &*label.text == "happy"));
    }

    #[test]
    fn of_a_type_only_its_ids_are_stored() {
        let bytes = codec::encode(&mood().array());
        assert!(bytes.len() < 16);
        assert_eq!(codec::decode::<DataType>(&bytes).unwrap(), mood().array());
    }
}
