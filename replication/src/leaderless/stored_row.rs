//! A row state as it lies in the store: with a checksum over key and state.
//!
//! RocksDB checks the blocks that it reads from disk. What was wrong before it was given to RocksDB, or was given to it under
//! the key of another row, no block's checksum knows of; and a state that is wrong must not be joined: a total that
//! a bit flip made greater would win on every node. So a row says itself whether it is what was written, and one
//! that is not is [damaged](StoredRow::Damaged): it is never joined, but replaced by what the other nodes have of it
//! (`repair.rs`).

use amphora_storage::codec;

use super::row_state::RowState;
use crate::{Error, Result};

/// Bytes of the checksum, behind the state.
const CHECK: usize = 4;

/// What is found under a row's key.
pub(super) enum StoredRow {
    /// What was written
    Sound(RowState),
    /// Something else
    Damaged,
}

fn check(key: &[u8], state: &[u8]) -> [u8; CHECK] {
    let mut check = crc32fast::Hasher::new();
    check.update(key);
    check.update(state);
    check.finalize().to_le_bytes()
}

/// The bytes to store under a row's key.
pub(super) fn encode(key: &[u8], state: &RowState) -> Vec<u8> {
    let mut encoded = codec::encode(state);
    let check = check(key, &encoded);
    encoded.extend_from_slice(&check);
    encoded
}

/// True if these are bytes that were stored under this key.
pub(super) fn is_sound(key: &[u8], stored: &[u8]) -> bool {
    stored.split_last_chunk::<CHECK>().is_some_and(|(state, found)| check(key, state) == *found)
}

/// What the bytes under a row's key say.
pub(super) fn decode(key: &[u8], stored: &[u8]) -> StoredRow {
    let Some((state, found)) = stored.split_last_chunk::<CHECK>() else { return StoredRow::Damaged };
    if check(key, state) != *found {
        return StoredRow::Damaged;
    }
    codec::decode(state).map_or(StoredRow::Damaged, StoredRow::Sound)
}

/// The same, of a row that has to be sound. XX001
pub(crate) fn sound(key: &[u8], stored: &[u8]) -> Result<RowState> {
    match decode(key, stored) {
        StoredRow::Sound(state) => Ok(state),
        StoredRow::Damaged => {
            let table = amphora_storage::key::split_prefix(key).map_or(0, |(table, ..)| table.0);
            Err(Error::new(
                "XX001",
                format!("a row of leaderless table {table} is damaged on this node's disk"),
            )
            .detail("Its checksum is not that of what was written.")
            .hint("amphora.verify_table puts what other nodes have in its place."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_and_any_other_key_is_noticed() {
        let state = RowState { cl: 3, born: true, ..RowState::default() };
        let stored = encode(b"key", &state);
        assert!(matches!(decode(b"key", &stored), StoredRow::Sound(found) if found == state));
        assert!(matches!(decode(b"kez", &stored), StoredRow::Damaged));
        for bit in 0..stored.len() * 8 {
            let mut flipped = stored.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(b"key", &flipped), StoredRow::Damaged), "bit {bit}");
            assert!(!is_sound(b"key", &flipped));
        }
        for length in 0..stored.len() {
            assert!(matches!(decode(b"key", &stored[..length]), StoredRow::Damaged));
        }
    }
}
