//! What a statement may look like, and what it may not do to the process.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn error(sql: &str) -> SqlError {
    parse(sql).expect_err(sql)
}

#[test]
fn splits_statements_and_drops_empty_ones() {
    let statements = parse("; select 1 ;; select ';' -- ; not here\n; ").unwrap();
    let texts: Vec<&str> = statements.iter().map(ParsedStatement::text).collect();
    assert_eq!(texts, ["select 1", "select ';'"]);
    assert!(parse("").unwrap().is_empty());
    assert!(parse(" /* nothing */ -- at all").unwrap().is_empty());
}

#[test]
fn positions_count_characters() {
    let error = error("select 'äöü',\n  'é' fromm t x y");
    assert_eq!(error.sqlstate, "42601");
    assert!(error.position.is_some_and(|p| p > 16));
}

#[test]
fn a_long_chain_of_operators_is_refused_not_fatal() {
    let sum = format!("select 1{}", " + 1".repeat(50_000));
    assert_eq!(error(&sum).sqlstate, "54001");
    let casts = format!("select 1{}", "::int".repeat(5_000));
    assert_eq!(error(&casts).sqlstate, "54001");
    let nots = format!("select {} true", "not ".repeat(50_000));
    assert_eq!(error(&nots).sqlstate, "54001");
    let minus = format!("select {} 1", "- ".repeat(50_000));
    assert_eq!(error(&minus).sqlstate, "54001");
}

#[test]
fn deep_nesting_is_refused_not_fatal() {
    for (open, close) in [("(", ")"), ("(select ", ")"), ("array[", "]"), ("case when true then ", " end")] {
        let sql = format!("select {}1{}", open.repeat(500), close.repeat(500));
        assert_eq!(error(&sql).sqlstate, "54001", "{open}");
    }
}

#[test]
fn long_flat_chains_and_moderate_nesting_are_fine() {
    let or = format!("select * from t where a = 0{}", " or a = 1".repeat(10_000));
    assert_eq!(parse(&or).unwrap().len(), 1);
    let union = format!("select 1{}", " union all select 1".repeat(2_000));
    assert_eq!(parse(&union).unwrap().len(), 1);
    let sum = format!("select 1{}", " + 1".repeat(900));
    assert_eq!(parse(&sum).unwrap().len(), 1);
    let list = format!("select * from t where a in (1{})", ", 1".repeat(50_000));
    assert_eq!(parse(&list).unwrap().len(), 1);
}

#[test]
fn nested_parentheses_take_no_exponential_time() {
    let started = std::time::Instant::now();
    for (open, close) in [("(", ")"), ("(select ", ")")] {
        let sql = format!("select {}1{}", open.repeat(60), close.repeat(60));
        let _ = parse(&sql);
    }
    let from = format!("select * from {}t{}", "(".repeat(25), ")".repeat(25));
    let _ = parse(&from);
    assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn commands_need_no_catalog() {
    let statements = parse("begin; set x = 1; select 1; rollback to savepoint a; abort").unwrap();
    let commands: Vec<bool> = statements.iter().map(|s| s.command().is_some()).collect();
    assert_eq!(commands, [true, true, false, true, true]);
    let ends: Vec<bool> = statements.iter().map(ParsedStatement::ends_transaction).collect();
    assert_eq!(ends, [false, false, false, true, true]);
}

#[test]
fn a_slip_is_named_where_it_stands() {
    for (sql, word, position) in [
        ("select * form t", "form", 10),
        ("select a, * x from t", "x", 13),
        ("delete form t", "form", 8),
        ("delete t where a = 1", "t", 8),
        ("insert t values (1)", "t", 8),
        ("insert \"into\" t values (1)", "\"into\"", 8),
    ] {
        let error = parse(sql).unwrap_err();
        assert_eq!(error.message, format!("syntax error at or near \"{word}\""), "{sql}");
        assert_eq!(error.position, Some(position), "{sql}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_is_fatal(sql in "\\PC{0,120}") {
        let _ = parse(&sql);
    }

    #[test]
    fn no_sequence_of_words_is_fatal(words in proptest::collection::vec(proptest::sample::select(vec![
        "select", "from", "where", "(", ")", "1", "'a'", "t", "*", ",", ";", "group by", "order by", "insert into",
        "values", "set", "update", "delete", "begin", "explain", "create table", "int", "primary key", "with", "as",
        "union", "case", "when", "end", "prepare", "execute", "for", "no", "key", "show", "$1", "::", "[", "]", "=",
        "join", "on", "using", "lateral", "over", "filter", "interval", "extract", "cast", "array", "row", "not", "in",
    ]), 0..24)) {
        let _ = parse(&words.join(" "));
    }
}
