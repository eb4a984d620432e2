//! Roles: those that every cluster has, and those in the catalog.

use amphora_storage::schema::{Catalog, Role, TableId};
use amphora_storage::{Datum, Row};

use super::{AMPHORA_ROLE_OID, Columns, Definition, POSTGRES_ROLE_OID, SystemContext, Ty, pg, row, text};
use crate::error::Result;

pub(super) const DEFINITIONS: &[Definition] = &[
    pg("pg_roles", 12_050, ROLES, roles),
    pg("pg_authid", 1260, AUTHID, authid),
    pg("pg_user", 12_055, USER, users),
    pg("pg_shadow", 12_056, USER, shadow),
];

/// The roles that every cluster has. They are superusers, and stay so.
const BUILT_IN: [(u32, &str); 2] = [(POSTGRES_ROLE_OID, "postgres"), (AMPHORA_ROLE_OID, "amphora")];

/// True of a role that every cluster has.
pub fn is_built_in(role: &str) -> bool {
    BUILT_IN.iter().any(|(_, name)| *name == role)
}

/// All roles, built-in ones first.
pub fn all_roles(catalog: &Catalog) -> Vec<Role> {
    let built_in = BUILT_IN.iter().filter_map(|(_, name)| find_role(catalog, name));
    built_in.chain(catalog.roles().filter(|r| !is_built_in(&r.name)).map(|r| (**r).clone())).collect()
}

/// A role by name. A built-in one that was never altered has the id of its OID, and no descriptor.
pub fn find_role(catalog: &Catalog, name: &str) -> Option<Role> {
    if let Some(role) = catalog.roles().find(|role| role.name == name) {
        return Some((**role).clone());
    }
    let (oid, name) = BUILT_IN.iter().find(|(_, built_in)| *built_in == name)?;
    Some(Role {
        id: TableId(*oid),
        name: (*name).to_owned(),
        login: true,
        superuser: true,
        create_role: true,
        create_database: true,
        inherit: true,
        replication: true,
        bypass_rls: true,
        verifier: None,
        valid_until: None,
        comment: None,
    })
}

/// The OID that clients see: a built-in role keeps its own after it was altered.
pub fn oid_of_role(role: &Role) -> u32 {
    let built_in = BUILT_IN.iter().find(|(_, name)| *name == role.name);
    built_in.map_or(role.id.0, |(oid, _)| *oid)
}

/// The OID of a role by name; the first superuser's if there is none of this name.
pub fn role_oid(catalog: &Catalog, name: &str) -> u32 {
    find_role(catalog, name).map_or(POSTGRES_ROLE_OID, |role| oid_of_role(&role))
}

/// The name of a role by OID.
pub fn role_name(catalog: &Catalog, oid: u32) -> Option<String> {
    all_roles(catalog).into_iter().find(|role| oid_of_role(role) == oid).map(|role| role.name)
}

const ROLES: Columns = &[
    ("rolname", Ty::Name),
    ("rolsuper", Ty::Bool),
    ("rolinherit", Ty::Bool),
    ("rolcreaterole", Ty::Bool),
    ("rolcreatedb", Ty::Bool),
    ("rolcanlogin", Ty::Bool),
    ("rolreplication", Ty::Bool),
    ("rolconnlimit", Ty::Int4),
    ("rolpassword", Ty::Text),
    ("rolvaliduntil", Ty::Timestamptz),
    ("rolbypassrls", Ty::Bool),
    ("rolconfig", Ty::Texts),
    ("oid", Ty::Oid),
];

const AUTHID: Columns = &[
    ("oid", Ty::Oid),
    ("rolname", Ty::Name),
    ("rolsuper", Ty::Bool),
    ("rolinherit", Ty::Bool),
    ("rolcreaterole", Ty::Bool),
    ("rolcreatedb", Ty::Bool),
    ("rolcanlogin", Ty::Bool),
    ("rolreplication", Ty::Bool),
    ("rolbypassrls", Ty::Bool),
    ("rolconnlimit", Ty::Int4),
    ("rolpassword", Ty::Text),
    ("rolvaliduntil", Ty::Timestamptz),
];

fn values(role: &Role, columns: Columns, password: Datum) -> Row {
    row(
        columns,
        &[
            ("oid", Datum::Oid(oid_of_role(role))),
            ("rolname", text(&role.name)),
            ("rolsuper", Datum::Bool(role.superuser)),
            ("rolinherit", Datum::Bool(role.inherit)),
            ("rolcreaterole", Datum::Bool(role.create_role)),
            ("rolcreatedb", Datum::Bool(role.create_database)),
            ("rolcanlogin", Datum::Bool(role.login)),
            ("rolreplication", Datum::Bool(role.replication)),
            ("rolbypassrls", Datum::Bool(role.bypass_rls)),
            ("rolconnlimit", Datum::Int4(-1)),
            ("rolpassword", password),
            ("rolvaliduntil", role.valid_until.map_or(Datum::Null, Datum::Timestamptz)),
        ],
    )
}

fn roles(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let all = all_roles(context.catalog);
    Ok(all.iter().map(|role| values(role, ROLES, text("********"))).collect())
}

/// Verifiers are shown to superusers only, as in PostgreSQL.
fn password(context: &SystemContext<'_>, role: &Role) -> Datum {
    let visible = find_role(context.catalog, context.user).is_some_and(|me| me.superuser);
    match &role.verifier {
        Some(verifier) if visible => text(verifier),
        _ => Datum::Null,
    }
}

fn authid(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let all = all_roles(context.catalog);
    Ok(all.iter().map(|role| values(role, AUTHID, password(context, role))).collect())
}

const USER: Columns = &[
    ("usename", Ty::Name),
    ("usesysid", Ty::Oid),
    ("usecreatedb", Ty::Bool),
    ("usesuper", Ty::Bool),
    ("userepl", Ty::Bool),
    ("usebypassrls", Ty::Bool),
    ("passwd", Ty::Text),
    ("valuntil", Ty::Timestamptz),
    ("useconfig", Ty::Texts),
];

fn user(role: &Role, password: Datum) -> Row {
    row(
        USER,
        &[
            ("usename", text(&role.name)),
            ("usesysid", Datum::Oid(oid_of_role(role))),
            ("usecreatedb", Datum::Bool(role.create_database)),
            ("usesuper", Datum::Bool(role.superuser)),
            ("userepl", Datum::Bool(role.replication)),
            ("usebypassrls", Datum::Bool(role.bypass_rls)),
            ("passwd", password),
            ("valuntil", role.valid_until.map_or(Datum::Null, Datum::Timestamptz)),
        ],
    )
}

fn users(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let all = all_roles(context.catalog);
    Ok(all.iter().filter(|role| role.login).map(|role| user(role, text("********"))).collect())
}

fn shadow(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let all = all_roles(context.catalog);
    Ok(all.iter().filter(|role| role.login).map(|role| user(role, password(context, role))).collect())
}
