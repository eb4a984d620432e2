//! PostgreSQL's dialect as `sqlparser` has it. A type of our own, so that a difference is one line here.

use sqlparser::derive_dialect;
use sqlparser::dialect::PostgreSqlDialect;

derive_dialect!(AmphoraDialect, PostgreSqlDialect, preserve_type_id = true);
