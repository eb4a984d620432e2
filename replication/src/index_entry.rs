//! What the entry of a secondary index holds: its row's key, and behind it, where the index includes columns, these.

use amphora_storage::schema::{Index, Table};
use amphora_storage::{Datum, row};

use crate::{Error, Result};

/// The value of an entry.
pub(crate) fn entry_value(table: &Table, index: &Index, row: &[Datum], row_key: &[u8]) -> Result<Vec<u8>> {
    if index.include.is_empty() {
        return Ok(row_key.to_vec());
    }
    let slots = index.include.iter().filter_map(|&c| Some((table.columns.get(c)?.id, row.get(c)?)));
    let included = row::encode_slots(slots)?;
    let mut value = Vec::with_capacity(4 + row_key.len() + included.len());
    value.extend_from_slice(&u32::try_from(row_key.len()).unwrap_or(u32::MAX).to_be_bytes());
    value.extend_from_slice(row_key);
    value.extend_from_slice(&included);
    Ok(value)
}

/// The row's key in an entry's value, and what is included.
pub(crate) fn split_entry<'a>(index: &Index, value: &'a [u8]) -> Result<(&'a [u8], &'a [u8])> {
    if index.include.is_empty() {
        return Ok((value, &[]));
    }
    let split = value.split_first_chunk::<4>().and_then(|(length, rest)| {
        rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX))
    });
    split.ok_or_else(|| Error::new("XX001", "an index entry is too short"))
}
