//! How schemas, log entries, operations and messages become bytes: serde and bincode 2.
//!
//! This module is bincode's only caller. Every encoding begins with a version byte, so that another
//! encoding can follow without guessing; what does not begin with a version we know is refused. A decoder
//! may claim memory in proportion to its input only, so a damaged length is an error before anything is
//! allocated for it.

use bincode::config::standard;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::StorageError;

type Result<T, E = StorageError> = std::result::Result<T, E>;

/// The encoding written today: bincode 2, standard configuration (little endian, variable integers).
const VERSION: u8 = 1;

/// No encoding is longer than this, in bytes.
pub const MAX_ENCODED: usize = 1 << 30;

/// Encodes a value. Derived serde types cannot fail to encode into memory.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.push(VERSION);
    let written = bincode::serde::encode_into_std_write(value, &mut out, standard());
    // The only failures left are a sequence of unknown length or a hand-written `Serialize` that refuses:
    // both are mistakes in our own types, and what is left, nothing, does not decode.
    debug_assert!(written.is_ok(), "a type that bincode cannot encode: {written:?}");
    if written.is_err() {
        tracing::error!("a value of type {} cannot be encoded", std::any::type_name::<T>());
        out.truncate(0);
    }
    out
}

/// Decodes a value; all bytes must be used.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let damaged = |why: String| StorageError::corrupt(format!("{}: {why}", short_name::<T>()));
    if bytes.len() > MAX_ENCODED {
        return Err(damaged(format!("{} bytes are more than the limit of {MAX_ENCODED}", bytes.len())));
    }
    match bytes.split_first() {
        Some((&VERSION, body)) => {
            let (value, used) = decode_limited(body).map_err(|e| damaged(e.to_string()))?;
            if used != body.len() {
                return Err(damaged(format!("{} bytes are left over", body.len() - used)));
            }
            Ok(value)
        }
        Some((version, _)) => Err(damaged(format!("its encoding has the unknown version {version}"))),
        None => Err(damaged("it is empty".to_owned())),
    }
}

/// Decodes with a limit on the memory claimed. bincode's limit is a constant, so there are a few; each is 32
/// times the longest input it is for, because a one-byte variable integer claims the width it decodes to,
/// at most 16.
fn decode_limited<T: DeserializeOwned>(body: &[u8]) -> Result<(T, usize), bincode::error::DecodeError> {
    const KB: usize = 1 << 10;
    macro_rules! within {
        ($limit:expr) => {
            bincode::serde::decode_from_slice(body, standard().with_limit::<{ $limit }>())
        };
    }
    match body.len() {
        n if n <= KB => within!(32 * KB),
        n if n <= 32 * KB => within!(32 * 32 * KB),
        n if n <= KB * KB => within!(32 * KB * KB),
        n if n <= 32 * KB * KB => within!(32 * 32 * KB * KB),
        _ => within!(32 * MAX_ENCODED),
    }
}

/// `Table` for `amphora_storage::schema::Table`.
fn short_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    let path = name.split('<').next().unwrap_or(name);
    path.rsplit("::").next().unwrap_or(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::datum::Datum;
    use proptest::prelude::*;

    #[test]
    fn round_trip() {
        let value = (7u32, "text".to_owned(), vec![Datum::Int4(1), Datum::Null, Datum::text("é")]);
        let bytes = encode(&value);
        assert_eq!(decode::<(u32, String, Vec<Datum>)>(&bytes).unwrap(), value);
    }

    #[test]
    fn unknown_versions_leftovers_and_nothing_are_refused() {
        let mut bytes = encode(&1u32);
        bytes.push(0);
        assert!(decode::<u32>(&bytes).is_err());
        bytes[0] = 9;
        assert!(decode::<u32>(&bytes).unwrap_err().to_string().contains("version 9"));
        assert!(decode::<u32>(&[]).is_err());
    }

    #[test]
    fn a_length_beyond_the_input_allocates_nothing() {
        // A vector of u64::MAX bytes, of which none follows.
        let bytes = [VERSION, 253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert!(decode::<Vec<u8>>(&bytes).is_err());
        assert!(decode::<String>(&bytes).is_err());
        assert!(decode::<Vec<Datum>>(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
            bytes[0] = VERSION;
            let _ = decode::<Vec<Datum>>(&bytes);
            let _ = decode::<crate::schema::Table>(&bytes);
        }
    }
}
