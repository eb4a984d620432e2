//! TABLESAMPLE: whether a row is in the sample.
//!
//! A hash of the row's primary key and the seed is a number between 0 and 1, and a row is taken if it is less
//! than the share that is asked for. So the same seed gives the same rows on every node, for as long as they
//! are there, and a larger share with the same seed gives those and more. SYSTEM, which in PostgreSQL takes
//! whole pages, takes rows here too: rows do not lie in pages.

use amphora_storage::Datum;
use amphora_storage::key::encode_datum;

use super::arithmetic::float;
use super::signature::Ty::*;
use super::{ScalarFunction, function};
use crate::error::{Result, SqlError};

/// `sample(percentage, seed, key …)`; a scan's own seed is drawn by its caller.
pub(crate) static SAMPLE: ScalarFunction =
    function("sample", &[Float8, Float8, Any], Bool, |a, _| in_sample(a).map(Datum::Bool))
        .variadic()
        .called_on_null();

fn in_sample(a: &[Datum]) -> Result<bool> {
    let [percentage, seed, key @ ..] = a else { return Ok(false) };
    if percentage.is_null() {
        return Err(SqlError::new("2202H", "TABLESAMPLE parameter cannot be null"));
    }
    if seed.is_null() {
        return Err(SqlError::new("2202G", "TABLESAMPLE REPEATABLE parameter cannot be null"));
    }
    let percentage = float(percentage)?;
    if !(0.0..=100.0).contains(&percentage) {
        return Err(SqlError::new("2202H", "sample percentage must be between 0 and 100"));
    }
    let mut bytes = float(seed)?.to_bits().to_be_bytes().to_vec();
    for part in key {
        encode_datum(&mut bytes, part).map_err(|error| SqlError::internal(error.to_string()))?;
    }
    Ok(share(&bytes) * 100.0 < percentage)
}

/// FNV-1a, and the last step of MurmurHash3 so that near keys lie far apart, as a share of all its values.
fn share(bytes: &[u8]) -> f64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^= hash >> 33;
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_spread_evenly() {
        for seed in [0_i64, 1, 99] {
            let taken = (0..10_000_i64)
                .filter(|i| share(&[seed.to_be_bytes(), i.to_be_bytes()].concat()) < 0.2)
                .count();
            assert!((1_800..2_200).contains(&taken), "{taken} of 10000 for seed {seed}");
        }
    }
}
