//! The catalogs that describe the language itself: types, functions, operators, casts, operator classes.
//!
//! What PostgreSQL says of each is recorded once (`seed/record.sh`) and read when somebody asks. A row is shown if
//! Amphora has the thing: a function or operator if the call resolves to exactly these argument types, a type
//! if values of it exist. So the catalogs follow the registries in [`crate::functions`] by themselves; what those
//! hold that PostgreSQL lacks is added from the registry.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use amphora_storage::user_type::EnumType;
use amphora_storage::{DataType, Datum, Row};

use super::layout::LAYOUTS;
use super::{
    AMPHORA_SCHEMA_OID, Definition, PG_CATALOG_OID, POSTGRES_ROLE_OID, SystemContext, char, pg_laid_out, text,
};
use crate::error::{Result, SqlError};
use crate::functions::{self, ScalarFunction, Volatility};
use crate::types::{FormatContext, can_cast, parse};

pub(super) const DEFINITIONS: &[Definition] = &[
    pg_laid_out("pg_type", |c, e| Ok([select(&TYPES, e)?, super::user_types::type_rows(c)].concat())),
    pg_laid_out("pg_proc", |_, e| select(&PROCS, e)),
    pg_laid_out("pg_aggregate", |_, e| select(&AGGREGATES, e)),
    pg_laid_out("pg_operator", |_, e| select(&OPERATORS, e)),
    pg_laid_out("pg_cast", |_, e| select(&CASTS, e)),
    pg_laid_out("pg_opfamily", |_, e| select(&OPFAMILIES, e)),
    pg_laid_out("pg_opclass", |_, e| select(&OPCLASSES, e)),
    pg_laid_out("pg_amop", |_, e| select(&AMOPS, e)),
    pg_laid_out("pg_amproc", |_, e| select(&AMPROCS, e)),
    pg_laid_out("pg_language", |_, e| select(&LANGUAGES, e)),
    pg_laid_out("pg_am", |_, e| select(&ACCESS_METHODS, e)),
    pg_laid_out("pg_collation", |_, e| select(&COLLATIONS, e)),
];

/// Rows of one relation, found by OID.
pub(super) struct Seed {
    columns: HashMap<&'static str, usize>,
    rows: Vec<Row>,
    by_oid: HashMap<u32, usize>,
}

impl Seed {
    fn new(name: &str, recorded: &str, keep: impl Fn(&Named<'_>) -> bool) -> Seed {
        let layout = LAYOUTS.get(name);
        let columns: Vec<(&'static str, DataType)> = layout.map(|l| l.columns.clone()).unwrap_or_default();
        let places: HashMap<_, _> = columns.iter().enumerate().map(|(i, (n, _))| (*n, i)).collect();
        let rows = recorded.lines().map(|line| read(line, &columns));
        let rows: Vec<Row> = rows.filter(|row| keep(&Named { columns: &places, row })).collect();
        Seed { columns: places, by_oid: by_oid(&rows), rows }
    }

    /// The row of an object.
    pub(super) fn get(&self, oid: u32) -> Option<Named<'_>> {
        let row = self.rows.get(*self.by_oid.get(&oid)?)?;
        Some(Named { columns: &self.columns, row })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Named<'_>> {
        self.rows.iter().map(|row| Named { columns: &self.columns, row })
    }
}

fn by_oid(rows: &[Row]) -> HashMap<u32, usize> {
    let oid = |(i, row): (usize, &Row)| match row.first() {
        Some(Datum::Oid(oid)) => Some((*oid, i)),
        _ => None,
    };
    rows.iter().enumerate().filter_map(oid).collect()
}

/// A row whose values are asked for by name.
pub(super) struct Named<'a> {
    columns: &'a HashMap<&'static str, usize>,
    row: &'a Row,
}

impl Named<'_> {
    pub(super) fn datum(&self, name: &str) -> &Datum {
        self.columns.get(name).and_then(|i| self.row.get(*i)).unwrap_or(&Datum::Null)
    }

    pub(super) fn oid(&self, name: &str) -> u32 {
        match self.datum(name) {
            Datum::Oid(oid) => *oid,
            _ => 0,
        }
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.datum(name).as_str().unwrap_or("")
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.datum(name).as_bool() == Some(true)
    }

    pub(super) fn list(&self, name: &str) -> &[Datum] {
        match self.datum(name) {
            Datum::Array(array) => &array.items,
            _ => &[],
        }
    }
}

/// A line of COPY's text format.
fn read(line: &str, columns: &[(&'static str, DataType)]) -> Row {
    let context = FormatContext::default();
    let value = |(field, (_, ty)): (&str, &(&'static str, DataType))| match field {
        "\\N" => Datum::Null,
        plain if !plain.contains('\\') => parse(plain, ty, &context).unwrap_or(Datum::Null),
        escaped => parse(&escaped.replace("\\\\", "\\"), ty, &context).unwrap_or(Datum::Null),
    };
    line.split('\t').zip(columns).map(value).collect()
}

/// The rows that have these values.
fn select(seed: &Seed, equal: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let fits = |row: &&Row| equal.iter().all(|(column, value)| row.get(*column) == Some(value));
    if let Some((_, Datum::Oid(oid))) = equal.iter().find(|(column, _)| *column == 0)
        && !seed.by_oid.is_empty()
    {
        return Ok(seed
            .by_oid
            .get(oid)
            .and_then(|i| seed.rows.get(*i))
            .into_iter()
            .filter(fits)
            .cloned()
            .collect());
    }
    Ok(seed.rows.iter().filter(fits).cloned().collect())
}

/// The recorded rows of a relation that pass a test.
macro_rules! seed {
    ($name:literal, $keep:expr) => {
        LazyLock::new(|| Seed::new($name, include_str!(concat!("seed/", $name, ".tsv")), $keep))
    };
}

fn is_known(oid: u32) -> bool {
    DataType::from_oid(oid).is_some()
}

pub(super) static TYPES: LazyLock<Seed> =
    seed!("pg_type", |t| t.text("typtype") == "p" && t.oid("typelem") == 0 || is_known(t.oid("oid")));

/// Names that some function has in PostgreSQL.
static POSTGRESQL_NAMES: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    include_str!("seed/pg_proc.tsv").lines().filter_map(|line| line.split('\t').nth(1)).collect()
});

pub(super) static PROCS: LazyLock<Seed> = LazyLock::new(|| {
    let io = ["typinput", "typoutput", "typreceive", "typsend", "typmodin", "typmodout", "typsubscript"];
    let of_types = TYPES.iter().flat_map(|t| io.map(|column| t.oid(column)));
    let of_types: HashSet<u32> = of_types.chain(super::user_types::INPUT_AND_OUTPUT).collect();
    let mut seed = Seed::new("pg_proc", include_str!("seed/pg_proc.tsv"), |p| {
        of_types.contains(&p.oid("oid")) || is_implemented(p)
    });
    seed.rows.extend(own_functions());
    seed.by_oid = by_oid(&seed.rows);
    seed
});

static AGGREGATES: LazyLock<Seed> = seed!("pg_aggregate", |a| PROCS.get(a.oid("aggfnoid")).is_some());
pub(super) static OPERATORS: LazyLock<Seed> = seed!("pg_operator", is_implemented_operator);
static CASTS: LazyLock<Seed> = seed!("pg_cast", |c| {
    let types = (DataType::from_oid(c.oid("castsource")), DataType::from_oid(c.oid("casttarget")));
    matches!(types, (Some(from), Some(to)) if can_cast(&from, &to).is_some() || from == to)
});
static OPCLASSES: LazyLock<Seed> = seed!("pg_opclass", |c| is_known(c.oid("opcintype")));
static OPFAMILIES: LazyLock<Seed> =
    seed!("pg_opfamily", |f| { OPCLASSES.iter().any(|class| class.oid("opcfamily") == f.oid("oid")) });
static AMOPS: LazyLock<Seed> = seed!("pg_amop", |o| {
    OPERATORS.get(o.oid("amopopr")).is_some() && OPFAMILIES.get(o.oid("amopfamily")).is_some()
});
static AMPROCS: LazyLock<Seed> = seed!("pg_amproc", |p| {
    let types = [p.oid("amproclefttype"), p.oid("amprocrighttype")];
    types.into_iter().all(is_known) && OPFAMILIES.get(p.oid("amprocfamily")).is_some()
});
static LANGUAGES: LazyLock<Seed> = seed!("pg_language", |_| true);
static ACCESS_METHODS: LazyLock<Seed> = seed!("pg_am", |_| true);
static COLLATIONS: LazyLock<Seed> = seed!("pg_collation", |_| true);

/// What PostgreSQL says about the language's own objects.
static DESCRIPTIONS: LazyLock<Seed> = seed!("pg_description", |d| {
    let oid = d.oid("objoid");
    match d.oid("classoid") {
        1247 => TYPES.get(oid).is_some(),
        1255 => PROCS.get(oid).is_some(),
        2617 => OPERATORS.get(oid).is_some(),
        2605 => CASTS.get(oid).is_some(),
        2753 => OPFAMILIES.get(oid).is_some(),
        2616 => OPCLASSES.get(oid).is_some(),
        _ => true,
    }
});

/// The rows of `pg_description` about the language's own objects.
pub(super) fn descriptions() -> impl Iterator<Item = &'static Row> {
    DESCRIPTIONS.rows.iter()
}

/// What PostgreSQL says of a type, function or operator: `obj_description`.
pub fn description(oid: u32, class: u32) -> Option<&'static str> {
    let seed: &'static Seed = &DESCRIPTIONS;
    let found = seed
        .rows
        .iter()
        .find(|row| row.first() == Some(&Datum::Oid(oid)) && row.get(1) == Some(&Datum::Oid(class)));
    found.and_then(|row| row.get(3)).and_then(Datum::as_str)
}

/// A declared argument type as a call has it: some real type for a polymorphic one, which is then `true`.
fn sample(oid: u32) -> Option<(DataType, bool)> {
    match oid {
        // any, anyelement, anynonarray, anycompatible, anycompatiblenonarray
        2276 | 2283 | 2776 | 5077 | 5079 => Some((DataType::Int4, true)),
        // anyarray, anycompatiblearray
        2277 | 5078 => Some((DataType::Int4.array(), true)),
        3500 => {
            let none = EnumType { oid: 0, array: 0, name: String::new(), labels: Vec::new() };
            Some((DataType::Enum(none.into()), true))
        }
        real => DataType::from_oid(real).map(|t| (t, false)),
    }
}

fn samples(types: &[Datum]) -> Option<Vec<(DataType, bool)>> {
    types.iter().map(|t| t.as_i64().and_then(|oid| u32::try_from(oid).ok()).and_then(sample)).collect()
}

fn exact(resolved: &[DataType], declared: &[(DataType, bool)]) -> bool {
    resolved.iter().zip(declared).all(|(r, (d, polymorphic))| *polymorphic || r.oid() == d.oid())
}

/// Whether a call of this function resolves to it.
fn is_implemented(p: &Named<'_>) -> bool {
    let name = p.text("proname");
    let Some(declared) = samples(p.list("proargtypes")) else { return false };
    let types: Vec<DataType> = declared.iter().map(|(t, _)| t.clone()).collect();
    match p.text("prokind") {
        "a" => functions::resolve_aggregate(name, &types).is_ok_and(|r| exact(&r.arg_types, &declared)),
        "w" => true,
        _ if p.flag("proretset") => {
            functions::resolve_set_function(name, &types).is_ok_and(|r| exact(&r.arg_types, &declared))
        }
        _ => functions::resolve_function(name, &types).is_ok_and(|r| exact(&r.arg_types, &declared)),
    }
}

fn is_implemented_operator(o: &Named<'_>) -> bool {
    let sides = [o.oid("oprleft"), o.oid("oprright")];
    let sides: Vec<Datum> = sides.into_iter().filter(|oid| *oid != 0).map(Datum::Oid).collect();
    let Some(declared) = samples(&sides) else { return false };
    let resolved = match &declared[..] {
        [(left, _), (right, _)] => functions::resolve_operator(o.text("oprname"), Some(left), right),
        [(right, _)] => functions::resolve_operator(o.text("oprname"), None, right),
        _ => return false,
    };
    resolved.is_ok_and(|r| exact(&r.arg_types, &declared))
}

/// Where the OIDs of functions begin that PostgreSQL does not have.
const OWN_FUNCTIONS: u32 = 14_000;

/// Rows for the functions that PostgreSQL does not have.
fn own_functions() -> Vec<Row> {
    let own = functions::all_functions().filter(|f| !POSTGRESQL_NAMES.contains(f.name));
    own.enumerate().map(|(i, f)| own_function(OWN_FUNCTIONS + i as u32, f)).collect()
}

fn own_function(oid: u32, f: &ScalarFunction) -> Row {
    let is_amphoras = matches!(f.name, "unique_id" | "node_id");
    let volatility = match f.volatility {
        Volatility::Immutable => 'i',
        Volatility::Stable => 's',
        Volatility::Volatile => 'v',
    };
    let arguments: Vec<Datum> = f.signature.args.iter().map(|t| Datum::Oid(t.oid())).collect();
    let last = f.signature.args.last().filter(|_| f.signature.variadic);
    let value = |name: &str| match name {
        "oid" => Datum::Oid(oid),
        "proname" | "prosrc" => text(f.name),
        "pronamespace" => Datum::Oid(if is_amphoras { AMPHORA_SCHEMA_OID } else { PG_CATALOG_OID }),
        "proowner" => Datum::Oid(POSTGRES_ROLE_OID),
        "prolang" => Datum::Oid(12),
        "procost" => Datum::Float4(1.0),
        "prorows" => Datum::Float4(0.0),
        "provariadic" => Datum::Oid(last.map_or(0, |t| t.oid())),
        "prosupport" => Datum::Oid(0),
        "prokind" => char('f'),
        "prosecdef" | "proleakproof" | "proretset" => Datum::Bool(false),
        "proisstrict" => Datum::Bool(f.strict),
        "provolatile" => char(volatility),
        "proparallel" => char('s'),
        "pronargs" => Datum::Int2(arguments.len() as i16),
        "pronargdefaults" => Datum::Int2(0),
        "prorettype" => Datum::Oid(f.signature.returns.oid()),
        "proargtypes" => Datum::array(DataType::Oid, arguments.clone()),
        _ => Datum::Null,
    };
    LAYOUTS
        .get("pg_proc")
        .map(|l| l.columns.iter().map(|(name, _)| value(name)).collect())
        .unwrap_or_default()
}

/// The default operator class of each type.
static DEFAULT_CLASSES: LazyLock<HashMap<u32, u32>> = LazyLock::new(|| {
    let all = Seed::new("pg_opclass", include_str!("seed/pg_opclass.tsv"), |c| c.flag("opcdefault"));
    all.iter().map(|c| (c.oid("opcintype"), c.oid("oid"))).collect()
});

/// The operator class that an index on this type uses.
pub(super) fn default_operator_class(ty: &DataType) -> u32 {
    // varchar has no class of its own; arrays share that of anyarray.
    let oid = match ty.base() {
        DataType::Varchar(_) => DataType::Text.oid(),
        DataType::Array(_) => 2277,
        other => other.oid(),
    };
    DEFAULT_CLASSES.get(&oid).copied().unwrap_or(0)
}

/// The operator classes of btree, by name: OID and the type that it is for.
static CLASSES: LazyLock<HashMap<String, (u32, u32)>> = LazyLock::new(|| {
    let all = Seed::new("pg_opclass", include_str!("seed/pg_opclass.tsv"), |c| c.oid("opcmethod") == BTREE);
    all.iter().map(|c| (c.text("opcname").to_owned(), (c.oid("oid"), c.oid("opcintype")))).collect()
});

/// btree, among access methods.
const BTREE: u32 = 403;

/// The OID of a btree operator class.
pub(super) fn operator_class_by_name(name: &str) -> Option<u32> {
    CLASSES.get(name).map(|(oid, _)| *oid)
}

/// 42704 if there is no such operator class of btree, 42804 if it is not for this type.
pub fn operator_class_fits(name: &str, ty: &DataType) -> Result<()> {
    let Some((_, of)) = CLASSES.get(name) else {
        return Err(SqlError::undefined_object(format!(
            "operator class \"{name}\" does not exist for access method \"btree\""
        )));
    };
    let base = ty.base();
    let accepts = match base {
        DataType::Varchar(_) | DataType::Text => *of == DataType::Text.oid(),
        DataType::Array(_) => *of == 2277,
        _ => *of == base.oid(),
    };
    if !accepts {
        return Err(SqlError::datatype_mismatch(format!(
            "operator class \"{name}\" does not accept data type {}",
            base.unmodified()
        )));
    }
    Ok(())
}

/// The type's name as `format_type` gives it for types that have no values here: `"any"`, `internal`.
pub fn pseudo_type_name(oid: u32) -> Option<String> {
    TYPES.get(oid).map(|t| match t.text("typname") {
        "any" => "\"any\"".to_owned(),
        name => name.to_owned(),
    })
}

/// The OID of a type that has no values here, by its name.
pub fn pseudo_type(name: &str) -> Option<u32> {
    let name = name.trim_matches('"');
    TYPES.iter().find(|t| t.text("typname") == name).map(|t| t.oid("oid"))
}

/// The name of a collation, or the collation of a name.
pub fn collation_name(oid: u32) -> Option<&'static str> {
    let seed: &'static Seed = &COLLATIONS;
    let row = seed.rows.iter().find(|row| row.first() == Some(&Datum::Oid(oid)))?;
    row.get(1).and_then(Datum::as_str)
}

/// The collation of a name.
pub fn collation_by_name(name: &str) -> Option<u32> {
    COLLATIONS.iter().find(|c| c.text("collname") == name).map(|c| c.oid("oid"))
}

/// Rows for `pg_description`: the language's own.
pub(super) fn described(_: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    Ok(descriptions().cloned().collect())
}
