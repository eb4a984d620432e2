//! x
use crate::error::Result;
use crate::plan::Prepared;
/// x
pub fn optimize(p: Prepared) -> Result<Prepared> { Ok(p) }
