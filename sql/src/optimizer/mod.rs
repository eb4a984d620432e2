//! From the plainest plan to a quick one.

use crate::error::Result;
use crate::plan::Prepared;

/// Plans a bound statement.
pub fn optimize(prepared: Prepared) -> Result<Prepared> {
    Ok(prepared)
}
