//! CREATE, ALTER and DROP ROLE, carried out.
//!
//! A role is who may connect, with which password. What it may then do is not limited yet, and whoever
//! makes a role that is no superuser is told so; but roles themselves are guarded: only a superuser alters a
//! superuser, and only a role with CREATEROLE alters others.

use amphora_storage::schema::{Catalog, Descriptor, Role};

use super::{Notice, Output, Session};
use crate::catalog::{find_role, is_built_in};
use crate::command::{RoleCommand, RoleOptions};
use crate::error::{Result, SqlError};
use crate::scram::Verifier;
use crate::types::parse_timestamptz;

impl Session {
    /// Carries out the command; gives its tag. 42501, 42704, 42710, 42939, 2BP01, 55006
    pub(super) async fn run_role(
        &mut self,
        command: &RoleCommand,
        out: &mut dyn Output,
    ) -> Result<&'static str> {
        let catalog = self.lock_catalog().await?;
        match command {
            RoleCommand::Create { name, user, options } => {
                self.create_role(&catalog, name, *user, options, out)?;
                Ok("CREATE ROLE")
            }
            RoleCommand::Alter { name, options } => {
                self.alter_role(&catalog, name, options, out)?;
                Ok("ALTER ROLE")
            }
            RoleCommand::Rename { name, to } => {
                self.rename_role(&catalog, name, to)?;
                Ok("ALTER ROLE")
            }
            RoleCommand::Drop { names, if_exists } => {
                for name in names {
                    self.drop_role(&catalog, name, *if_exists, out)?;
                }
                Ok("DROP ROLE")
            }
        }
    }

    /// The session's own role.
    fn me(&self, catalog: &Catalog) -> Result<Role> {
        find_role(catalog, &self.shared.user).ok_or_else(|| no_role(&self.shared.user))
    }

    fn create_role(
        &mut self,
        catalog: &Catalog,
        name: &str,
        user: bool,
        options: &RoleOptions,
        out: &mut dyn Output,
    ) -> Result<()> {
        let me = self.me(catalog)?;
        if options.superuser == Some(true) && !me.superuser {
            return Err(SqlError::insufficient_privilege("must be superuser to create superusers"));
        }
        if !me.create_role && !me.superuser {
            return Err(SqlError::insufficient_privilege("permission denied to create role"));
        }
        check_name(name)?;
        if find_role(catalog, name).is_some() {
            return Err(exists(name));
        }
        let mut role = Role {
            id: self.transaction(false).allocate_id()?,
            name: name.to_owned(),
            login: user,
            superuser: false,
            create_role: false,
            create_database: false,
            inherit: true,
            replication: false,
            bypass_rls: false,
            verifier: None,
            valid_until: None,
            comment: None,
        };
        self.apply(&mut role, options, out)?;
        if !role.superuser {
            let message = format!("role \"{name}\" may read and write everything");
            out.notice(Notice {
                detail: Some("Privileges are not enforced yet; only roles themselves are guarded.".into()),
                ..Notice::plain(message)
            });
        }
        self.transaction(false).put_object(Descriptor::Role(role)).map_err(Into::into)
    }

    fn alter_role(
        &mut self,
        catalog: &Catalog,
        name: &str,
        options: &RoleOptions,
        out: &mut dyn Output,
    ) -> Result<()> {
        let name = self.current_user_or(name);
        let mut role = find_role(catalog, &name).ok_or_else(|| no_role(&name))?;
        let me = self.me(catalog)?;
        if !me.superuser && (role.superuser || options.superuser.is_some()) {
            return Err(SqlError::insufficient_privilege(
                "must be superuser to alter superuser roles or change superuser attribute",
            ));
        }
        let only_password = RoleOptions { password: options.password.clone(), ..RoleOptions::default() };
        let own_password = role.name == me.name && format!("{only_password:?}") == format!("{options:?}");
        if !me.create_role && !me.superuser && !own_password {
            return Err(SqlError::insufficient_privilege("permission denied"));
        }
        if is_built_in(&name) && (options.superuser == Some(false) || options.login == Some(false)) {
            return Err(SqlError::insufficient_privilege(format!("role \"{name}\" must stay a superuser"))
                .with_hint("Give it a password that nobody knows to keep everybody out."));
        }
        if is_built_in(&name) && !catalog.roles().any(|known| known.name == name) {
            role.id = self.transaction(false).allocate_id()?;
        }
        self.apply(&mut role, options, out)?;
        self.transaction(false).put_object(Descriptor::Role(role)).map_err(Into::into)
    }

    fn rename_role(&mut self, catalog: &Catalog, name: &str, to: &str) -> Result<()> {
        let mut role = find_role(catalog, name).ok_or_else(|| no_role(name))?;
        let me = self.me(catalog)?;
        if role.name == me.name {
            return Err(SqlError::feature_not_supported("session user cannot be renamed"));
        }
        let allowed = me.superuser || (me.create_role && !role.superuser);
        if !allowed {
            return Err(SqlError::insufficient_privilege("permission denied to rename role"));
        }
        if is_built_in(name) {
            return Err(required(name));
        }
        check_name(to)?;
        if find_role(catalog, to).is_some() {
            return Err(exists(to));
        }
        if let Some(what) = owned(catalog, name).first() {
            return Err(SqlError::dependent_objects_still_exist(format!(
                "role \"{name}\" cannot be renamed because some objects depend on it"
            ))
            .with_detail(format!("owner of {what}")));
        }
        role.name = to.to_owned();
        self.transaction(false).put_object(Descriptor::Role(role)).map_err(Into::into)
    }

    fn drop_role(
        &mut self,
        catalog: &Catalog,
        name: &str,
        if_exists: bool,
        out: &mut dyn Output,
    ) -> Result<()> {
        let me = self.me(catalog)?;
        if !me.superuser && !me.create_role {
            return Err(SqlError::insufficient_privilege("permission denied to drop role"));
        }
        let Some(role) = find_role(catalog, name) else {
            if if_exists {
                out.notice(Notice::plain(format!("role \"{name}\" does not exist, skipping")));
                return Ok(());
            }
            return Err(no_role(name));
        };
        if role.name == me.name {
            return Err(SqlError::new("55006", "current user cannot be dropped"));
        }
        if role.superuser && !me.superuser {
            return Err(SqlError::insufficient_privilege("must be superuser to drop superusers"));
        }
        if is_built_in(name) {
            return Err(required(name));
        }
        let owned = owned(catalog, name);
        if !owned.is_empty() {
            let detail: Vec<String> = owned.iter().map(|what| format!("owner of {what}")).collect();
            return Err(SqlError::dependent_objects_still_exist(format!(
                "role \"{name}\" cannot be dropped because some objects depend on it"
            ))
            .with_detail(detail.join("\n")));
        }
        self.transaction(false).drop_object(role.id).map_err(Into::into)
    }

    /// CURRENT_USER and its kin stand for the session's role.
    fn current_user_or(&self, name: &str) -> String {
        match name {
            "current_user" | "current_role" | "session_user" => self.shared.user.to_string(),
            name => name.to_owned(),
        }
    }

    fn apply(&mut self, role: &mut Role, options: &RoleOptions, out: &mut dyn Output) -> Result<()> {
        let set = |slot: &mut bool, given: Option<bool>| *slot = given.unwrap_or(*slot);
        set(&mut role.login, options.login);
        set(&mut role.superuser, options.superuser);
        set(&mut role.create_role, options.create_role);
        set(&mut role.create_database, options.create_database);
        set(&mut role.inherit, options.inherit);
        set(&mut role.replication, options.replication);
        set(&mut role.bypass_rls, options.bypass_rls);
        match &options.password {
            None => {}
            Some(Some(password)) if !password.is_empty() => role.verifier = Some(verifier(password)?),
            Some(given) => {
                if given.is_some() {
                    out.notice(Notice::plain("empty string is not a valid password, clearing password"));
                }
                role.verifier = None;
            }
        }
        if let Some(until) = &options.valid_until {
            let catalog = self.catalog();
            let eval = self.eval.context(&self.shared, &catalog, self.tx.started);
            role.valid_until = Some(parse_timestamptz(until, &eval.format)?);
        }
        Ok(())
    }
}

/// What is kept of a password, which may be a verifier already.
fn verifier(password: &str) -> Result<String> {
    if let Some(ready) = Verifier::parse(password) {
        return Ok(ready.to_string());
    }
    let md5 = password
        .strip_prefix("md5")
        .is_some_and(|hash| hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit()));
    if md5 {
        return Err(SqlError::feature_not_supported("passwords hashed with MD5 are not supported")
            .with_hint("Give the password itself, or a SCRAM-SHA-256 verifier."));
    }
    Ok(Verifier::of_password(password).to_string())
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(SqlError::syntax_error("zero-length delimited identifier"));
    }
    if name.starts_with("pg_") {
        return Err(SqlError::new("42939", format!("role name \"{name}\" is reserved"))
            .with_detail("Role names starting with \"pg_\" are reserved."));
    }
    if matches!(name, "public" | "none" | "current_user" | "current_role" | "session_user") {
        return Err(SqlError::new("42939", format!("role name \"{name}\" is reserved")));
    }
    Ok(())
}

/// What a role owns, in words.
fn owned(catalog: &Catalog, role: &str) -> Vec<String> {
    let relations = catalog.relations().filter_map(|relation| {
        let (_, name) = relation.name();
        let owner = match relation {
            amphora_storage::schema::Relation::Table(table) => &table.owner,
            amphora_storage::schema::Relation::View(view) => &view.owner,
            amphora_storage::schema::Relation::Sequence(sequence) => &sequence.owner,
        };
        (owner == role).then(|| format!("{} {name}", relation.kind()))
    });
    let schemas = catalog.schemas().filter(|schema| schema.owner == role);
    relations.chain(schemas.map(|schema| format!("schema {}", schema.name))).collect()
}

fn no_role(name: &str) -> SqlError {
    SqlError::undefined_object(format!("role \"{name}\" does not exist"))
}

fn exists(name: &str) -> SqlError {
    SqlError::new("42710", format!("role \"{name}\" already exists"))
}

fn required(name: &str) -> SqlError {
    SqlError::dependent_objects_still_exist(format!(
        "cannot change role {name} because it is required by the database system"
    ))
}
