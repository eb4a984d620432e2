//! Schemas, databases, and the catalogs of things that Amphora does not have.

use amphora_storage::{Datum, Row};

use super::{
    AMPHORA_ROLE_OID, BUILT_IN_SCHEMAS, Columns, Definition, POSTGRES_ROLE_OID, SystemContext, Ty, char,
    comments, nothing, pg, role_oid, row, text,
};
use crate::error::Result;

/// OID of the collation `default`.
pub(super) const DEFAULT_COLLATION: u32 = 100;

pub(super) const DEFINITIONS: &[Definition] = &[
    pg("pg_namespace", 2615, NAMESPACE, namespaces),
    pg("pg_database", 1262, DATABASE, databases),
    pg(
        "pg_tablespace",
        1213,
        &[
            ("oid", Ty::Oid),
            ("spcname", Ty::Name),
            ("spcowner", Ty::Oid),
            ("spcacl", Ty::Texts),
            ("spcoptions", Ty::Texts),
        ],
        tablespaces,
    ),
    pg(
        "pg_description",
        2609,
        &[("objoid", Ty::Oid), ("classoid", Ty::Oid), ("objsubid", Ty::Int4), ("description", Ty::Text)],
        descriptions,
    ),
    pg(
        "pg_shdescription",
        2396,
        &[("objoid", Ty::Oid), ("classoid", Ty::Oid), ("description", Ty::Text)],
        nothing,
    ),
    pg(
        "pg_auth_members",
        1261,
        &[("roleid", Ty::Oid), ("member", Ty::Oid), ("grantor", Ty::Oid), ("admin_option", Ty::Bool)],
        nothing,
    ),
    pg(
        "pg_db_role_setting",
        2964,
        &[("setdatabase", Ty::Oid), ("setrole", Ty::Oid), ("setconfig", Ty::Texts)],
        nothing,
    ),
    pg("pg_trigger", 2620, TRIGGER, nothing),
    pg(
        "pg_rewrite",
        2618,
        &[
            ("oid", Ty::Oid),
            ("rulename", Ty::Name),
            ("ev_class", Ty::Oid),
            ("ev_type", Ty::Char),
            ("ev_enabled", Ty::Char),
            ("is_instead", Ty::Bool),
        ],
        nothing,
    ),
    pg(
        "pg_policy",
        3256,
        &[
            ("oid", Ty::Oid),
            ("polname", Ty::Name),
            ("polrelid", Ty::Oid),
            ("polcmd", Ty::Char),
            ("polpermissive", Ty::Bool),
            ("polroles", Ty::Oids),
            ("polqual", Ty::Text),
            ("polwithcheck", Ty::Text),
        ],
        nothing,
    ),
    pg("pg_statistic_ext", 3381, STATISTIC_EXT, nothing),
    pg(
        "pg_publication",
        6104,
        &[
            ("oid", Ty::Oid),
            ("pubname", Ty::Name),
            ("pubowner", Ty::Oid),
            ("puballtables", Ty::Bool),
            ("pubinsert", Ty::Bool),
            ("pubupdate", Ty::Bool),
            ("pubdelete", Ty::Bool),
            ("pubtruncate", Ty::Bool),
            ("pubviaroot", Ty::Bool),
        ],
        nothing,
    ),
    pg(
        "pg_publication_rel",
        6106,
        &[
            ("oid", Ty::Oid),
            ("prpubid", Ty::Oid),
            ("prrelid", Ty::Oid),
            ("prqual", Ty::Text),
            ("prattrs", Ty::Int2s),
        ],
        nothing,
    ),
    pg(
        "pg_publication_namespace",
        6237,
        &[("oid", Ty::Oid), ("pnpubid", Ty::Oid), ("pnnspid", Ty::Oid)],
        nothing,
    ),
    pg(
        "pg_subscription",
        6100,
        &[
            ("oid", Ty::Oid),
            ("subdbid", Ty::Oid),
            ("subname", Ty::Name),
            ("subowner", Ty::Oid),
            ("subenabled", Ty::Bool),
        ],
        nothing,
    ),
    pg(
        "pg_foreign_table",
        3118,
        &[("ftrelid", Ty::Oid), ("ftserver", Ty::Oid), ("ftoptions", Ty::Texts)],
        nothing,
    ),
    pg(
        "pg_foreign_server",
        1417,
        &[("oid", Ty::Oid), ("srvname", Ty::Name), ("srvowner", Ty::Oid), ("srvfdw", Ty::Oid)],
        nothing,
    ),
    pg(
        "pg_foreign_data_wrapper",
        2328,
        &[("oid", Ty::Oid), ("fdwname", Ty::Name), ("fdwowner", Ty::Oid)],
        nothing,
    ),
    pg(
        "pg_depend",
        2608,
        &[
            ("classid", Ty::Oid),
            ("objid", Ty::Oid),
            ("objsubid", Ty::Int4),
            ("refclassid", Ty::Oid),
            ("refobjid", Ty::Oid),
            ("refobjsubid", Ty::Int4),
            ("deptype", Ty::Char),
        ],
        super::sequences::dependencies,
    ),
    pg(
        "pg_extension",
        3079,
        &[
            ("oid", Ty::Oid),
            ("extname", Ty::Name),
            ("extowner", Ty::Oid),
            ("extnamespace", Ty::Oid),
            ("extrelocatable", Ty::Bool),
            ("extversion", Ty::Text),
        ],
        super::sequences::extensions,
    ),
    pg(
        "pg_event_trigger",
        3466,
        &[
            ("oid", Ty::Oid),
            ("evtname", Ty::Name),
            ("evtevent", Ty::Name),
            ("evtowner", Ty::Oid),
            ("evtenabled", Ty::Char),
        ],
        nothing,
    ),
    pg(
        "pg_matviews",
        12_203,
        &[("schemaname", Ty::Name), ("matviewname", Ty::Name), ("matviewowner", Ty::Name)],
        nothing,
    ),
];

const NAMESPACE: Columns =
    &[("oid", Ty::Oid), ("nspname", Ty::Name), ("nspowner", Ty::Oid), ("nspacl", Ty::Texts)];

fn namespaces(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    // What everybody may do in `public`, as PostgreSQL says it from the beginning.
    let privileges = |name: &str| match name {
        "public" => Datum::array(
            amphora_storage::DataType::Text,
            vec![text("postgres=UC/postgres"), text("=U/postgres")],
        ),
        _ => Datum::Null,
    };
    let built_in = BUILT_IN_SCHEMAS.iter().map(|(name, oid)| {
        vec![Datum::Oid(*oid), text(name), Datum::Oid(POSTGRES_ROLE_OID), privileges(name)]
    });
    let users = context.catalog.schemas().map(|s| {
        let owner = Datum::Oid(role_oid(context.catalog, &s.owner));
        vec![Datum::Oid(s.id.0), text(&s.name), owner, Datum::Null]
    });
    Ok(built_in.chain(users).collect())
}

fn descriptions(context: &SystemContext<'_>, equal: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let one = |(oid, class, number, comment): (u32, u32, i32, &str)| {
        vec![Datum::Oid(oid), Datum::Oid(class), Datum::Int4(number), text(comment)]
    };
    let mut rows = super::seed::described(context, equal)?;
    rows.extend(comments(context.catalog).into_iter().map(one));
    Ok(rows)
}

const DATABASE: Columns = &[
    ("oid", Ty::Oid),
    ("datname", Ty::Name),
    ("datdba", Ty::Oid),
    ("encoding", Ty::Int4),
    ("datlocprovider", Ty::Char),
    ("datistemplate", Ty::Bool),
    ("datallowconn", Ty::Bool),
    ("datconnlimit", Ty::Int4),
    ("datfrozenxid", Ty::Oid),
    ("datminmxid", Ty::Oid),
    ("dattablespace", Ty::Oid),
    ("datcollate", Ty::Text),
    ("datctype", Ty::Text),
    ("daticulocale", Ty::Text),
    ("datcollversion", Ty::Text),
    ("datacl", Ty::Texts),
];

/// `pg_encoding` of UTF-8.
const UTF8: i32 = 6;

fn databases(_: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let one = |(oid, name, owner)| {
        row(
            DATABASE,
            &[
                ("oid", Datum::Oid(oid)),
                ("datname", text(name)),
                ("datdba", Datum::Oid(owner)),
                ("encoding", Datum::Int4(UTF8)),
                ("datlocprovider", char('c')),
                ("datistemplate", Datum::Bool(false)),
                ("datallowconn", Datum::Bool(true)),
                ("datconnlimit", Datum::Int4(-1)),
                ("dattablespace", Datum::Oid(1663)),
                ("datcollate", text("C")),
                ("datctype", text("C.UTF-8")),
            ],
        )
    };
    let all = [(5, "postgres", POSTGRES_ROLE_OID), (16_001, "amphora", AMPHORA_ROLE_OID)];
    Ok(all.into_iter().map(one).collect())
}

fn tablespaces(_: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let owner = Datum::Oid(POSTGRES_ROLE_OID);
    Ok(vec![vec![Datum::Oid(1663), text("pg_default"), owner, Datum::Null, Datum::Null]])
}

const TRIGGER: Columns = &[
    ("oid", Ty::Oid),
    ("tgrelid", Ty::Oid),
    ("tgparentid", Ty::Oid),
    ("tgname", Ty::Name),
    ("tgfoid", Ty::Oid),
    ("tgtype", Ty::Int2),
    ("tgenabled", Ty::Char),
    ("tgisinternal", Ty::Bool),
    ("tgconstrrelid", Ty::Oid),
    ("tgconstrindid", Ty::Oid),
    ("tgconstraint", Ty::Oid),
    ("tgdeferrable", Ty::Bool),
    ("tginitdeferred", Ty::Bool),
    ("tgnargs", Ty::Int2),
];

const STATISTIC_EXT: Columns = &[
    ("oid", Ty::Oid),
    ("stxrelid", Ty::Oid),
    ("stxname", Ty::Name),
    ("stxnamespace", Ty::Oid),
    ("stxowner", Ty::Oid),
    ("stxstattarget", Ty::Int4),
    ("stxkeys", Ty::Int2s),
    ("stxkind", Ty::Texts),
    ("stxexprs", Ty::Text),
];
