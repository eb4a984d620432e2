//! Every operator, cast, function and aggregate that PostgreSQL's own catalog has over the types under test,
//! on every pair of samples: what a random generator would meet rarely, each once.

use super::samples::{TYPES, Type, quoted};
use super::wire::{Connection, Mode};

/// Statements that read every sample as every type, and write it.
pub fn inputs() -> Vec<String> {
    let mut statements = Vec::new();
    for ty in TYPES {
        for sample in ty.samples {
            statements.push(format!("SELECT {}::{}", quoted(sample), ty.name));
            statements.push(format!("SELECT {}::{}::text", quoted(sample), ty.name));
        }
        for other in TYPES {
            for sample in other.samples.iter().take(4) {
                statements.push(format!("SELECT {}::{}", quoted(sample), ty.name));
            }
        }
    }
    statements
}

/// Statements that cast between all types, explicitly, by assignment and implicitly.
pub fn casts() -> Vec<String> {
    let mut statements = Vec::new();
    for from in TYPES {
        for to in TYPES {
            for sample in from.samples {
                statements.push(format!("SELECT {}::{}::{}", quoted(sample), from.name, to.name));
            }
            // An implicit cast is what lets two types stand in one CASE.
            statements.push(format!(
                "SELECT CASE WHEN true THEN {}::{} ELSE NULL::{} END",
                quoted(from.samples[0]),
                from.name,
                to.name
            ));
        }
    }
    statements
}

/// Assignments of every type to a column of every other.
pub fn assignments() -> Vec<String> {
    let mut statements = Vec::new();
    for (i, to) in TYPES.iter().enumerate() {
        statements.push(format!("CREATE TABLE assigned_{i} (id integer PRIMARY KEY, v {})", to.name));
        for from in TYPES {
            let sample = from.samples[from.samples.len() / 2];
            statements.push(format!(
                "INSERT INTO assigned_{i} (id, v) SELECT coalesce(max(id), 0) + 1, {}::{} FROM assigned_{i}",
                quoted(sample),
                from.name
            ));
        }
        statements.push(format!("SELECT * FROM assigned_{i} ORDER BY id"));
        statements.push(format!("DROP TABLE assigned_{i}"));
    }
    statements
}

/// Types by which the catalog's are asked for: no modifiers there.
fn plain() -> Vec<Type> {
    TYPES.iter().filter(|t| !t.name.contains('(')).copied().collect()
}

fn ask(postgres: &mut Connection, sql: &str) -> Vec<Vec<String>> {
    let answer = postgres.run(sql, &[], Mode::Simple).expect("the catalog answers");
    assert!(answer.failure.is_none(), "{:?}", answer.failure);
    let text = |v: &Option<Vec<u8>>| String::from_utf8_lossy(v.as_deref().unwrap_or_default()).into_owned();
    answer.rows.iter().map(|row| row.iter().map(text).collect()).collect()
}

fn known_types() -> String {
    let names: Vec<String> = plain().iter().map(|t| format!("'{}'::regtype", t.name)).collect();
    names.join(", ")
}

fn sample_of(regtype: &str) -> Option<Type> {
    let name = match regtype {
        "time without time zone" => "time",
        "time with time zone" => "timetz",
        "timestamp without time zone" => "timestamp",
        "timestamp with time zone" => "timestamptz",
        "character varying" => "varchar",
        other => other,
    };
    if name == "character" {
        return TYPES.iter().find(|t| t.name == "char(4)").copied();
    }
    TYPES.iter().find(|t| t.name == name).copied()
}

/// Every operator on pairs of samples; of `each` samples a side.
pub fn operators(postgres: &mut Connection, each: usize) -> Vec<String> {
    let types = known_types();
    let list = ask(
        postgres,
        &format!(
            "SELECT oprname, CASE WHEN oprleft = 0 THEN '' ELSE oprleft::regtype::text END, oprright::regtype
             FROM pg_operator WHERE oprnamespace = 'pg_catalog'::regnamespace
               AND oprname NOT IN ('@@', '@@@') -- text search is not part of Amphora
               AND (oprleft = 0 OR oprleft IN ({types}, 'bpchar'::regtype)) AND oprright IN ({types}, 'bpchar'::regtype)
             ORDER BY 1, 2, 3"
        ),
    );
    let mut statements = Vec::new();
    for row in list {
        let (op, left, right) = (&row[0], &row[1], &row[2]);
        let Some(right) = sample_of(right) else { continue };
        for b in picked(right, each) {
            let b = format!("{}::{}", quoted(b), right.name);
            if left.is_empty() {
                statements.push(format!("SELECT {op} {b}"));
                continue;
            }
            let Some(left) = sample_of(left) else { continue };
            for a in picked(left, each) {
                statements.push(format!("SELECT {}::{} {op} {b}", quoted(a), left.name));
            }
        }
    }
    statements
}

fn picked(ty: Type, each: usize) -> impl Iterator<Item = &'static str> {
    let step = (ty.samples.len() / each).max(1);
    ty.samples.iter().copied().step_by(step).take(each)
}

/// Functions that are not documented: the insides of operators, casts, indexes and other modules.
const INTERNAL: &str = "'^(xml|hash|pg_indexam|pg_encoding|gin_|bt|d(cbrt|exp|log1|log10|pow|round|sqrt|trunc)$|postgresql_fdw|\
    (json|jsonb)_(object_field|array_element)|int(2|4|8)(inc|dec|up|um|abs|larger|smaller|_avg)|mul_d_|nameconcatoid|\
    numeric_(inc|exp|ln|log|power|sqrt|abs|u)|(text|name|bpchar)(i|n|r)|float|int|date_|time|to_ascii|like_escape|\
    similar_to_escape|similar_escape|extract|position|overlay|is_normalized|oid|char|cash|bool|textlen|interval)'";

/// Every function whose arguments and result are types under test; of `each` samples an argument, and one
/// call with all NULL.
pub fn functions(postgres: &mut Connection, each: usize) -> Vec<String> {
    let types = known_types();
    let list = ask(
        postgres,
        &format!(
            "SELECT proname, array_to_string(ARRAY(SELECT a::regtype::text FROM unnest(proargtypes) a), ';')
             FROM pg_proc p WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND NOT proretset
               -- What only stands behind an operator, a cast, a type or an index is not a language of its own.
               AND NOT EXISTS (SELECT FROM pg_operator o WHERE p.oid IN (o.oprcode, o.oprrest, o.oprjoin))
               AND NOT EXISTS (SELECT FROM pg_cast c WHERE c.castfunc = p.oid)
               AND NOT EXISTS (SELECT FROM pg_amproc a WHERE a.amproc = p.oid)
               AND NOT EXISTS (SELECT FROM pg_type t WHERE p.oid IN (t.typsend, t.typoutput))
               AND NOT EXISTS (SELECT FROM pg_range r WHERE r.rngsubdiff = p.oid)
               AND NOT EXISTS (SELECT FROM pg_aggregate a WHERE p.oid IN (a.aggtransfn, a.aggfinalfn,
                   a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn))
               AND proname !~ {INTERNAL}
               AND provolatile = 'i' AND provariadic = 0
               AND prorettype IN ({types}, 'bpchar'::regtype) AND pronargs BETWEEN 1 AND 3
               AND (SELECT bool_and(a IN ({types}, 'bpchar'::regtype)) FROM unnest(proargtypes) a)
             ORDER BY 1, 2"
        ),
    );
    let mut statements = Vec::new();
    for row in list {
        let Some(types) = row[1].split(';').map(sample_of).collect::<Option<Vec<Type>>>() else { continue };
        let mut calls = vec![Vec::new()];
        for ty in &types {
            let mut longer: Vec<Vec<String>> = Vec::new();
            for call in &calls {
                for sample in picked(*ty, each) {
                    let mut call = call.clone();
                    call.push(format!("{}::{}", quoted(sample), ty.name));
                    longer.push(call);
                }
            }
            calls = longer;
        }
        calls.push(types.iter().map(|t| format!("NULL::{}", t.name)).collect());
        for call in calls {
            statements.push(format!("SELECT {}({})", row[0], call.join(", ")));
        }
    }
    statements
}

/// Every aggregate over the samples of a type under test.
pub fn aggregates(postgres: &mut Connection) -> Vec<String> {
    let types = known_types();
    let list = ask(
        postgres,
        &format!(
            "SELECT proname, array_to_string(ARRAY(SELECT a::regtype::text FROM unnest(proargtypes) a), ';')
             FROM pg_proc p JOIN pg_aggregate a ON a.aggfnoid = p.oid
             WHERE aggkind = 'n' AND pronargs BETWEEN 1 AND 2
               AND (SELECT bool_and(a IN ({types}, 'bpchar'::regtype)) FROM unnest(proargtypes) a)
             ORDER BY 1, 2"
        ),
    );
    let mut statements = Vec::new();
    for row in list {
        let Some(types) = row[1].split(';').map(sample_of).collect::<Option<Vec<Type>>>() else { continue };
        for filter in ["", " WHERE false", " WHERE n <= 2", " WHERE n = 1"] {
            let longest = types.iter().map(|t| t.samples.len()).max().unwrap_or(0);
            let rows: Vec<String> = (0..longest)
                .map(|i| {
                    let values: Vec<String> = types
                        .iter()
                        .map(|t| format!("{}::{}", quoted(t.samples[i % t.samples.len()]), t.name))
                        .collect();
                    format!("({}, {})", i + 1, values.join(", "))
                })
                .collect();
            let args: Vec<&str> = ["a", "b"].into_iter().take(types.len()).collect();
            statements.push(format!(
                "SELECT {}({}) FROM (VALUES {}) v (n, {}){filter}",
                row[0],
                args.join(", "),
                rows.join(", "),
                args.join(", ")
            ));
        }
    }
    statements
}
