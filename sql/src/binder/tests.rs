//! Statements of every shape must give a plan or an error, never a panic.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use amphora_storage::schema::{
    Catalog, Column, ColumnId, Index, IndexId, Quorum, Replication, Table, TableId,
};
use amphora_storage::{DataType, Timestamp};

use crate::frontend::{PlannerContext, parse, prepare};

fn catalog() -> Arc<Catalog> {
    let column = |i: u32, name: &str, ty: DataType| Column {
        not_null: i == 0,
        default: None,
        ..Column::new(ColumnId(i), name, ty)
    };
    let table = |id: u32, name: &str| Table {
        id: TableId(id),
        version: Timestamp::ZERO,
        schema: "public".into(),
        name: name.into(),
        owner: "amphora".into(),
        replication: Replication::Strong,
        columns: vec![
            column(0, "id", DataType::Int4),
            column(1, "b", DataType::Text),
            column(2, "c", DataType::Numeric(None)),
        ],
        primary: Index::of_constraint(IndexId::PRIMARY, format!("{name}_pkey"), id + 1, vec![0]),
        hidden_key: false,
        indexes: Vec::new(),
        checks: Vec::new(),
        foreign_keys: Vec::new(),
        comment: None,
        next_column_id: 3,
        next_index_id: 1,
        storage: None,
        write_quorum: Quorum::ONE,
        read_quorum: Quorum::ONE,
    };
    Arc::new(Catalog::new(Timestamp::ZERO, [Arc::new(table(16384, "t")), Arc::new(table(16394, "u"))]))
}

fn plan(sql: &str) -> Result<(), String> {
    let context = PlannerContext::new(catalog());
    for statement in parse(sql).map_err(|e| e.to_string())? {
        prepare(&statement, &context).map_err(|e| e.to_string())?;
    }
    Ok(())
}

#[test]
fn deep_statements_are_planned_and_dropped() {
    plan(&format!("select 1{}", " + id".repeat(900)).replace("select 1", "select 1 from t where 0 = id"))
        .unwrap();
    plan(&format!("select * from t where id = 0{}", " or id = 1".repeat(5_000))).unwrap();
    plan(&format!("select 1{}", " union all select 1".repeat(500))).unwrap();
    plan(&format!("select {}id{} from t", "(".repeat(100), ")".repeat(100))).unwrap();
}

#[test]
fn a_point_statement_is_planned_quickly() {
    let context = PlannerContext::new(catalog());
    let statements = parse("select b, c from t where id = $1").unwrap();
    let rounds = 2_000;
    let started = std::time::Instant::now();
    for _ in 0..rounds {
        prepare(&statements[0], &context).unwrap();
    }
    let each = started.elapsed() / rounds;
    // A tenth of this in a release build; here it only must not be out of proportion.
    assert!(each < std::time::Duration::from_millis(2), "{each:?}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(1500))]

    #[test]
    fn random_queries_give_a_plan_or_an_error(
        items in proptest::collection::vec(item(), 1..4),
        from in proptest::sample::select(vec![
            "", " from t", " from t, u", " from t join u using (id)", " from t left join u on t.id = u.id",
            " from t full join u using (id)", " from t right join u on t.id = u.id and t.b = 'x'",
            " from t natural join u", " from t, lateral (select * from u where u.id = t.id) x",
            " from t join u on t.id = u.id join t v on v.id = u.id", " from generate_series(1, 3) t(id)",
            " from (select id, b, c from t) t left join (u join t w on u.id = w.id) on t.id = w.id",
        ]),
        condition in proptest::option::of(item()),
        group in proptest::option::of(proptest::sample::select(vec!["t.id", "1", "b", "t.id, t.b", "u.id"])),
        order in proptest::option::of(proptest::sample::select(vec!["1", "t.id desc", "b nulls first", "count(*)"])),
        tail in proptest::sample::select(vec!["", " limit 3", " limit 1 offset 2", " for update"]),
    ) {
        let mut sql = format!("select {}{from}", items.join(", "));
        if let Some(condition) = condition {
            sql.push_str(&format!(" where {condition}"));
        }
        if let Some(group) = group {
            sql.push_str(&format!(" group by {group}"));
        }
        if let Some(order) = order {
            sql.push_str(&format!(" order by {order}"));
        }
        sql.push_str(tail);
        let _ = plan(&sql);
    }
}

/// An expression, often of the wrong type or place.
fn item() -> impl proptest::strategy::Strategy<Value = String> {
    proptest::sample::select(vec![
        "*",
        "t.*",
        "id",
        "t.id",
        "u.b",
        "b",
        "c + 1",
        "count(*)",
        "sum(t.id)",
        "t.id = 3",
        "t.id = u.id",
        "b like 'a%'",
        "t.id in (1, 2)",
        "t.id in (select id from u)",
        "t.id not in (select id from u where u.b = t.b)",
        "exists (select 1 from u where u.id = t.id and u.b > 'x')",
        "not exists (select 1 from u v where v.id = t.id)",
        "(select max(u.c) from u where u.id = t.id)",
        "(select b from u where u.id = t.id and t.c > (select 1))",
        "case when t.id > 1 then b else 'q' end",
        "row_number() over (partition by b order by t.id)",
        "generate_series(1, t.id)",
        "array(select id from u where u.b = t.b)",
        "t.id = any(array[1, 2])",
        "(t.id, b) = (1, 'a')",
        "(t.id, b) in (select id, b from u)",
        "$1",
        "t.id = $1",
        "b = $2",
        "coalesce(b, $3)",
        "string_agg(b, ',' order by t.id)",
        "count(distinct b) filter (where t.id > 2)",
        "t",
        "t.id::text || b",
        "t.id between 1 and 3 or t.id = 7 and b = 'x'",
        "u.id is null",
        "true",
        "null",
        "sum(c) over ()",
        "exists (select * from u where u.id in (select w.id from t w where w.b = t.b))",
    ])
    .prop_map_to_string()
}

/// `prop_map(str::to_owned)`, named for what it does.
trait ToStrings: Sized {
    fn prop_map_to_string(self) -> proptest::strategy::BoxedStrategy<String>;
}

impl<S> ToStrings for S
where
    S: proptest::strategy::Strategy<Value = &'static str> + 'static,
{
    fn prop_map_to_string(self) -> proptest::strategy::BoxedStrategy<String> {
        proptest::strategy::Strategy::boxed(proptest::strategy::Strategy::prop_map(self, str::to_owned))
    }
}
