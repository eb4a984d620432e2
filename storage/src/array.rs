//! Arrays: elements of one type in up to six dimensions, each of which begins where it likes.
//!
//! ```text
//!   {{1,2,3},{4,5,6}}          items  1 2 3 4 5 6      shape  2 from 1, 3 from 1
//!   [0:2]={1,2,3}              items  1 2 3            shape  3 from 0
//!   {1,2,3}                    items  1 2 3            shape  none: one dimension that begins at 1
//! ```
//!
//! Elements lie in row-major order: the last dimension varies fastest. The usual shape is not kept, so that an
//! array of the usual kind is its elements and nothing more.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::datum::Datum;
use crate::types::DataType;

/// The most dimensions of an array (PostgreSQL's `MAXDIM`).
pub const MAX_DIMENSIONS: usize = 6;

/// One dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dimension {
    /// How many places it has
    pub length: u32,
    /// The subscript of the first
    pub lower: i32,
}

impl Dimension {
    /// A dimension that begins at 1.
    pub fn from_one(length: usize) -> Dimension {
        Dimension { length: u32::try_from(length).unwrap_or(u32::MAX), lower: 1 }
    }

    /// The subscript of the last place.
    pub fn upper(&self) -> i64 {
        i64::from(self.lower) + i64::from(self.length) - 1
    }
}

/// An array of values of one type.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Array {
    /// The elements' type
    pub element: DataType,
    /// The elements, which may be NULL
    pub items: Vec<Datum>,
    /// The dimensions, if they are not one that begins at 1; none of an array without elements
    pub shape: Option<Arc<[Dimension]>>,
}

impl Array {
    /// An array of one dimension that begins at 1.
    pub fn flat(element: DataType, items: Vec<Datum>) -> Array {
        Array { element, items, shape: None }
    }

    /// An array of these dimensions. `None` if they do not hold just so many elements, or are too many.
    pub fn shaped(element: DataType, items: Vec<Datum>, dimensions: &[Dimension]) -> Option<Array> {
        if items.is_empty() {
            return Some(Array::flat(element, items));
        }
        let places = dimensions
            .iter()
            .try_fold(1_usize, |places, d| places.checked_mul(usize::try_from(d.length).ok()?))?;
        if dimensions.is_empty() || dimensions.len() > MAX_DIMENSIONS || places != items.len() {
            return None;
        }
        let usual = matches!(dimensions, [one] if one.lower == 1);
        Some(Array { element, items, shape: (!usual).then(|| Arc::from(dimensions)) })
    }

    /// Other elements in the same places.
    pub fn with_items(&self, element: DataType, items: Vec<Datum>) -> Array {
        let shape = self.shape.clone().filter(|_| items.len() == self.items.len());
        Array { element, items, shape }
    }

    /// The dimensions; none of an array without elements.
    pub fn dimensions(&self) -> Vec<Dimension> {
        match &self.shape {
            Some(shape) => shape.to_vec(),
            None if self.items.is_empty() => Vec::new(),
            None => vec![Dimension::from_one(self.items.len())],
        }
    }

    /// The element at these subscripts; `None` if there is no such place.
    pub fn at(&self, subscripts: &[i64]) -> Option<&Datum> {
        let Some(shape) = &self.shape else {
            let [subscript] = subscripts else { return None };
            return self.items.get(usize::try_from(subscript.checked_sub(1)?).ok()?);
        };
        if shape.len() != subscripts.len() {
            return None;
        }
        let mut place = 0_usize;
        for (dimension, subscript) in shape.iter().zip(subscripts) {
            let offset = subscript.checked_sub(i64::from(dimension.lower))?;
            let offset = u32::try_from(offset).ok().filter(|o| *o < dimension.length)?;
            place = place * dimension.length as usize + offset as usize;
        }
        self.items.get(place)
    }
}

/// PostgreSQL's order: by elements, then by their number, then by the dimensions.
impl Ord for Array {
    fn cmp(&self, other: &Array) -> Ordering {
        self.items.cmp(&other.items).then_with(|| match (&self.shape, &other.shape) {
            (None, None) => Ordering::Equal,
            _ => {
                let (a, b) = (self.dimensions(), other.dimensions());
                let lengths = |d: &[Dimension]| d.iter().map(|d| d.length).collect::<Vec<_>>();
                let lowers = |d: &[Dimension]| d.iter().map(|d| d.lower).collect::<Vec<_>>();
                (a.len(), lengths(&a), lowers(&a)).cmp(&(b.len(), lengths(&b), lowers(&b)))
            }
        })
    }
}

impl PartialOrd for Array {
    fn partial_cmp(&self, other: &Array) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Array {
    fn eq(&self, other: &Array) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Array {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn numbers(n: i32) -> Vec<Datum> {
        (1..=n).map(Datum::Int4).collect()
    }

    #[test]
    fn elements_lie_in_row_major_order() {
        let dimensions = [Dimension { length: 2, lower: 0 }, Dimension { length: 3, lower: 5 }];
        let array = Array::shaped(DataType::Int4, numbers(6), &dimensions).unwrap();
        assert_eq!(array.at(&[0, 5]), Some(&Datum::Int4(1)));
        assert_eq!(array.at(&[1, 6]), Some(&Datum::Int4(5)));
        for wrong in [&[2, 5][..], &[-1, 5], &[0, 8], &[0], &[0, 5, 1], &[i64::MIN, i64::MAX]] {
            assert_eq!(array.at(wrong), None);
        }
    }

    #[test]
    fn a_shape_holds_just_its_elements() {
        let two = Dimension::from_one(2);
        assert!(Array::shaped(DataType::Int4, numbers(4), &[two, two]).is_some());
        assert!(Array::shaped(DataType::Int4, numbers(5), &[two, two]).is_none());
        assert!(Array::shaped(DataType::Int4, numbers(128), &[two; 7]).is_none());
        assert!(
            Array::shaped(DataType::Int4, numbers(3), &[Dimension::from_one(3)]).unwrap().shape.is_none()
        );
        let huge = Dimension { length: u32::MAX, lower: 1 };
        assert!(Array::shaped(DataType::Int4, numbers(1), &[huge; 6]).is_none());
    }
}
