//! Functions and operators as text: `pg_get_functiondef` and its kin, and the names of `regproc`.

use super::quoted;
use super::seed::{Named, OPERATORS, PROCS};
use crate::functions;
use amphora_storage::Datum;

/// A type's name in a signature.
fn type_name(oid: &Datum) -> String {
    let oid = oid.as_i64().and_then(|oid| u32::try_from(oid).ok()).unwrap_or(0);
    functions::format_type(oid, None)
}

/// How many arguments come before ORDER BY in an ordered-set aggregate.
fn direct_arguments(p: &Named<'_>) -> Option<usize> {
    let ordered = matches!(p.text("proname"), "mode" | "percentile_cont" | "percentile_disc");
    (p.text("prokind") == "a" && ordered).then(|| p.list("proargtypes").len().saturating_sub(1))
}

/// `pg_get_function_arguments`; without defaults and OUT arguments `pg_get_function_identity_arguments`.
pub fn function_arguments(oid: u32, identity: bool) -> Option<String> {
    let p = PROCS.get(oid)?;
    let all = p.list("proallargtypes");
    let types = if all.is_empty() { p.list("proargtypes") } else { all };
    let (modes, names) = (p.list("proargmodes"), p.list("proargnames"));
    let inputs = p.list("proargtypes").len();
    let defaults: Vec<&str> = p.text("proargdefaults").split(", ").filter(|d| !d.is_empty()).collect();
    let direct = direct_arguments(&p);
    let variadic = p.oid("provariadic") != 0;
    let (mut out, mut input) = (String::new(), 0);
    for (i, ty) in types.iter().enumerate() {
        let mode = modes.get(i).and_then(Datum::as_str).unwrap_or("i");
        let is_input = matches!(mode, "i" | "b" | "v");
        if mode == "t" || identity && !is_input {
            continue;
        }
        if direct == Some(i) {
            out += if out.is_empty() { "ORDER BY " } else { " ORDER BY " };
        } else if !out.is_empty() {
            out += ", ";
        }
        out += match mode {
            "o" => "OUT ",
            "b" => "INOUT ",
            "v" => "VARIADIC ",
            _ if variadic && modes.is_empty() && i + 1 == types.len() => "VARIADIC ",
            _ => "",
        };
        if let Some(name) = names.get(i).and_then(Datum::as_str).filter(|n| !n.is_empty()) {
            out += &quoted(name);
            out.push(' ');
        }
        out += &type_name(ty);
        if is_input {
            input += 1;
            let from_end = inputs + 1 - input;
            if let Some(default) =
                defaults.len().checked_sub(from_end).and_then(|d| defaults.get(d)).filter(|_| !identity)
            {
                out += " DEFAULT ";
                out += default;
            }
        }
    }
    Some(out)
}

/// `pg_get_function_result`.
pub fn function_result(oid: u32) -> Option<String> {
    let p = PROCS.get(oid)?;
    let (modes, names, all) = (p.list("proargmodes"), p.list("proargnames"), p.list("proallargtypes"));
    let columns: Vec<String> = (0..all.len())
        .filter(|i| modes.get(*i).and_then(Datum::as_str) == Some("t"))
        .map(|i| {
            let name = names.get(i).and_then(Datum::as_str).map(quoted).unwrap_or_default();
            format!("{name} {}", type_name(&all[i]))
        })
        .collect();
    let one = if columns.is_empty() {
        type_name(p.datum("prorettype"))
    } else {
        format!("TABLE({})", columns.join(", "))
    };
    Some(if p.flag("proretset") && columns.is_empty() { format!("SETOF {one}") } else { one })
}

/// `pg_get_functiondef`: the statement that would create it.
pub fn function_definition(oid: u32) -> Option<String> {
    let p = PROCS.get(oid)?;
    let schema = if p.oid("pronamespace") == super::AMPHORA_SCHEMA_OID { "amphora" } else { "pg_catalog" };
    let arguments = function_arguments(oid, false)?;
    let mut properties = String::new();
    properties += match p.text("provolatile") {
        "i" => " IMMUTABLE",
        "s" => " STABLE",
        _ => "",
    };
    properties += match p.text("proparallel") {
        "s" => " PARALLEL SAFE",
        "r" => " PARALLEL RESTRICTED",
        _ => "",
    };
    if p.flag("proisstrict") {
        properties += " STRICT";
    }
    if p.flag("proleakproof") {
        properties += " LEAKPROOF";
    }
    let properties = if properties.is_empty() { properties } else { properties + "\n" };
    Some(format!(
        "CREATE OR REPLACE FUNCTION {schema}.{}({arguments})\n RETURNS {}\n LANGUAGE internal\n{properties}AS $function${}$function$\n",
        quoted(p.text("proname")),
        function_result(oid)?,
        p.text("prosrc"),
    ))
}

fn is_unique(name: &str) -> bool {
    PROCS.iter().filter(|p| p.text("proname") == name).take(2).count() == 1
}

/// The name of `regproc`; with argument types that of `regprocedure`.
pub fn function_name(oid: u32, with_types: bool) -> Option<String> {
    let p = PROCS.get(oid)?;
    let name = p.text("proname");
    let amphoras = p.oid("pronamespace") == super::AMPHORA_SCHEMA_OID;
    if with_types {
        let types: Vec<String> = p.list("proargtypes").iter().map(type_name).collect();
        return Some(format!(
            "{}{}({})",
            if amphoras { "amphora." } else { "" },
            quoted(name),
            types.join(",")
        ));
    }
    Some(match (amphoras, is_unique(name)) {
        (true, _) => format!("amphora.{}", quoted(name)),
        (false, true) => quoted(name),
        (false, false) => format!("pg_catalog.{}", quoted(name)),
    })
}

/// Functions of this name: their OIDs. With argument types at most one.
pub fn function_by_name(name: &str, types: Option<&[u32]>) -> Vec<u32> {
    let fits = |p: &Named<'_>| {
        p.text("proname") == name
            && types.is_none_or(|types| {
                p.list("proargtypes").iter().map(Datum::as_i64).eq(types.iter().map(|t| Some(i64::from(*t))))
            })
    };
    PROCS.iter().filter(fits).map(|p| p.oid("oid")).collect()
}

/// The name of `regoper`; with operand types that of `regoperator`.
pub fn operator_name(oid: u32, with_types: bool) -> Option<String> {
    let o = OPERATORS.get(oid)?;
    let name = o.text("oprname");
    if with_types {
        let side = |column: &str| match o.oid(column) {
            0 => "NONE".to_owned(),
            _ => type_name(o.datum(column)),
        };
        return Some(format!("{name}({},{})", side("oprleft"), side("oprright")));
    }
    let unique = OPERATORS.iter().filter(|o| o.text("oprname") == name).take(2).count() == 1;
    Some(if unique { name.to_owned() } else { format!("pg_catalog.{name}") })
}

/// Operators of this name: their OIDs. With operand types at most one.
pub fn operator_by_name(name: &str, types: Option<(u32, u32)>) -> Vec<u32> {
    let fits = |o: &Named<'_>| {
        o.text("oprname") == name
            && types.is_none_or(|(left, right)| o.oid("oprleft") == left && o.oid("oprright") == right)
    };
    OPERATORS.iter().filter(fits).map(|o| o.oid("oid")).collect()
}
