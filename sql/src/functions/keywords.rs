//! PostgreSQL's keywords, for `pg_get_keywords`.

use amphora_storage::Datum;

use super::Call;
use super::set_returning::Rows;
use crate::error::Result;

/// Category, whether the word may be a column's label without AS, and the words.
const KEYWORDS: &[(&str, bool, &str)] = &[
    ("C", false, "char character precision"),
    (
        "C",
        true,
        "between bigint bit boolean coalesce dec decimal exists extract float greatest grouping inout int \
         integer interval least national nchar none normalize nullif numeric out overlay position real \
         row setof smallint substring time timestamp treat trim values varchar xmlattributes xmlconcat \
         xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable",
    ),
    (
        "R",
        false,
        "array as create except fetch for from grant group having intersect into limit offset on order \
         returning to union where window with",
    ),
    (
        "R",
        true,
        "all analyse analyze and any asc asymmetric both case cast check collate column constraint \
         current_catalog current_date current_role current_time current_timestamp current_user default \
         deferrable desc distinct do else end false foreign in initially lateral leading localtime \
         localtimestamp not null only or placing primary references select session_user some symmetric \
         table then trailing true unique user using variadic when",
    ),
    ("T", false, "isnull notnull overlaps"),
    (
        "T",
        true,
        "authorization binary collation concurrently cross current_schema freeze full ilike inner is join \
         left like natural outer right similar tablesample verbose",
    ),
    ("U", false, "day filter hour minute month over second varying within without year"),
    (
        "U",
        true,
        "abort absolute access action add admin after aggregate also alter always asensitive assertion \
         assignment at atomic attach attribute backward before begin breadth by cache call called cascade \
         cascaded catalog chain characteristics checkpoint class close cluster columns comment comments \
         commit committed compression configuration conflict connection constraints content continue \
         conversion copy cost csv cube current cursor cycle data database deallocate declare defaults \
         deferred definer delete delimiter delimiters depends depth detach dictionary disable discard \
         document domain double drop each enable encoding encrypted enum escape event exclude excluding \
         exclusive execute explain expression extension external family finalize first following force \
         forward function functions generated global granted groups handler header hold identity if \
         immediate immutable implicit import include including increment index indexes inherit inherits \
         inline input insensitive insert instead invoker isolation key label language large last \
         leakproof level listen load local location lock locked logged mapping match matched materialized \
         maxvalue merge method minvalue mode move name names new next nfc nfd nfkc nfkd no normalized \
         nothing notify nowait nulls object of off oids old operator option options ordinality others \
         overriding owned owner parallel parameter parser partial partition passing password plans policy \
         preceding prepare prepared preserve prior privileges procedural procedure procedures program \
         publication quote range read reassign recheck recursive ref referencing refresh reindex relative \
         release rename repeatable replace replica reset restart restrict return returns revoke role \
         rollback rollup routine routines rows rule savepoint schema schemas scroll search security \
         sequence sequences serializable server session set sets share show simple skip snapshot sql \
         stable standalone start statement statistics stdin stdout storage stored strict strip \
         subscription support sysid system tables tablespace temp template temporary text ties \
         transaction transform trigger truncate trusted type types uescape unbounded uncommitted \
         unencrypted unknown unlisten unlogged until update vacuum valid validate validator value version \
         view views volatile whitespace work wrapper write xml yes zone",
    ),
];

fn category(code: &str) -> &'static str {
    match code {
        "C" => "unreserved (cannot be function or type name)",
        "T" => "reserved (can be function or type name)",
        "R" => "reserved",
        _ => "unreserved",
    }
}

/// `pg_get_keywords()`: word, catcode, barelabel, catdesc, baredesc; in the words' order.
pub(super) fn rows(_: &[Datum], _: &Call<'_>) -> Result<Rows> {
    let words = KEYWORDS
        .iter()
        .flat_map(|(code, bare, words)| words.split(' ').map(move |word| (word, *code, *bare)));
    let mut words: Vec<(&str, &str, bool)> = words.collect();
    words.sort_unstable();
    Ok(Box::new(words.into_iter().map(|(word, code, bare)| {
        Ok(vec![
            Datum::text(word),
            Datum::text(code),
            Datum::Bool(bare),
            Datum::text(category(code)),
            Datum::text(if bare { "can be bare label" } else { "requires AS" }),
        ])
    })))
}
