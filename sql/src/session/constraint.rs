//! Foreign keys whose checks wait: SET CONSTRAINTS, and what COMMIT does first.

use std::collections::HashSet;
use std::sync::Arc;

use super::Session;
use super::statement::interruptible;
use crate::error::{Result, SqlError};
use crate::executor;

impl Session {
    /// Checks what was put off, of all constraints or of these.
    pub(super) async fn check_deferred(&mut self, only: Option<&HashSet<u32>>) -> Result<()> {
        if self.tx.txn.is_none() || self.tx.deferred.lock().is_empty() {
            return Ok(());
        }
        let mut run = self.runtime(&Arc::from([]), None);
        let cancel = self.shared.cancel.clone();
        let deferred = self.tx.deferred.clone();
        let Some(txn) = &mut self.tx.txn else { return Ok(()) };
        let work = executor::check_deferred(&deferred, only, txn.as_mut(), &mut run);
        interruptible(&cancel, None, work).await
    }

    /// SET CONSTRAINTS. 42704, 42809
    pub(super) async fn set_constraints(
        &mut self,
        names: Option<&[(Option<String>, String)]>,
        deferred: bool,
    ) -> Result<()> {
        let Some(names) = names else {
            self.tx.deferred.lock().set_all(deferred);
            return if deferred { Ok(()) } else { self.check_deferred(None).await };
        };
        let catalog = self.catalog();
        let mut oids = HashSet::new();
        for (schema, name) in names {
            let keys = catalog
                .tables()
                .filter(|table| schema.as_ref().is_none_or(|schema| *schema == table.schema))
                .flat_map(|table| &table.foreign_keys)
                .filter(|key| key.name == *name);
            let mut found = false;
            for key in keys {
                found = true;
                if !key.deferrable {
                    let message = format!("constraint \"{name}\" is not deferrable");
                    return Err(SqlError::wrong_object_type(message));
                }
                oids.insert(key.oid);
            }
            if !found {
                return Err(SqlError::undefined_object(format!("constraint \"{name}\" does not exist")));
            }
        }
        oids.iter().for_each(|&oid| self.tx.deferred.lock().set(oid, deferred));
        if deferred { Ok(()) } else { self.check_deferred(Some(&oids)).await }
    }
}
