//! ALTER COLUMN … SET (conflict = …): which of two concurrent writes a plain column of a leaderless table keeps.

use amphora_storage::DataType;
use amphora_storage::schema::{ConflictPolicy, Table};

use crate::error::{Result, SqlError};

/// The policy that a column's options name.
pub(super) fn conflict_policy(
    table: &Table,
    position: usize,
    options: &[(String, Option<String>)],
) -> Result<ConflictPolicy> {
    let column = &table.columns[position];
    let mut policy = column.conflict;
    for (name, value) in options {
        if name != "conflict" {
            let message = format!("unrecognized parameter \"{name}\"");
            return Err(
                SqlError::invalid_parameter_value(message).with_hint("Available parameter: conflict.")
            );
        }
        let value = value.as_deref().unwrap_or(ConflictPolicy::default().as_str());
        policy = ConflictPolicy::from_name(&value.to_lowercase()).ok_or_else(|| {
            SqlError::invalid_parameter_value(format!(
                "invalid value for parameter \"conflict\": \"{value}\""
            ))
            .with_hint("Available values: lww, first, max, min, error_log.")
        })?;
    }
    let refused = |why: &str, hint: &str| {
        let message = format!("column \"{}\" cannot have a conflict policy", column.name);
        Err(SqlError::feature_not_supported(message).with_detail(why).with_hint(hint))
    };
    if table.is_strong() {
        let hint = "Make the table WITH (replication = 'leaderless').";
        return refused("A strong table has no concurrent writes.", hint);
    }
    if matches!(column.ty, DataType::Crdt(_)) {
        return refused(
            &format!("Its type {} merges concurrent writes.", column.ty),
            "EXPLAIN (CONFLICTS) says how; for another way use another type.",
        );
    }
    if table.primary.columns.contains(&position) {
        return refused("It is part of the key, which names the row.", "Choose another column.");
    }
    Ok(policy)
}
