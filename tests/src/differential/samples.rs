//! Types, and values of them that have broken databases before.

/// A type under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type {
    /// As it is written
    pub name: &'static str,
    /// Texts its input function reads, mostly
    pub samples: &'static [&'static str],
    /// May be a key: has an order
    pub ordered: bool,
    /// Equal values look equal
    pub exact: bool,
}

const fn exact(name: &'static str, samples: &'static [&'static str]) -> Type {
    Type { name, samples, ordered: true, exact: true }
}

const fn loose(name: &'static str, samples: &'static [&'static str]) -> Type {
    Type { name, samples, ordered: true, exact: false }
}

const fn unordered(name: &'static str, samples: &'static [&'static str]) -> Type {
    Type { name, samples, ordered: false, exact: false }
}

/// All types.
pub const TYPES: &[Type] = &[
    exact("boolean", &["t", "f", "yes", "off", "1", " true "]),
    exact("smallint", &["0", "1", "-1", "7", "32767", "-32768", "300"]),
    exact("integer", &["0", "1", "-1", "42", "2147483647", "-2147483648", "100000"]),
    exact("bigint", &["0", "1", "-1", "10", "9223372036854775807", "-9223372036854775808", "5000000000"]),
    loose("real", &["0", "1.5", "-2.25", "1e10", "3.4e38", "NaN", "Infinity", "-0", "1e-40", "16777217"]),
    loose(
        "double precision",
        &[
            "0",
            "1.5",
            "-2.25",
            "1e100",
            "NaN",
            "-Infinity",
            "-0",
            "0.1",
            "1e-310",
            "123456789.123456789",
            "1e15",
            "1e16",
        ],
    ),
    loose(
        "numeric",
        &[
            "0",
            "1",
            "-1.50",
            "0.00",
            "123456789012345678901234567890.123456789",
            "NaN",
            "Infinity",
            "-Infinity",
            "1e-20",
            "99999",
            "0.5",
            "2.5",
            "-2.5",
            "10000",
            "0.0001",
            "1e40",
        ],
    ),
    loose("numeric(10,2)", &["0", "1.005", "-12345678.99", "0.1", "NaN", "99999999.99", "2.5"]),
    exact(
        "text",
        &[
            "",
            "a",
            "A",
            "abc",
            "ab%c_",
            "0",
            "42",
            " x ",
            "käse",
            "日本語",
            "it's",
            "\\",
            "2024-01-31",
            "{1,2}",
            "a b c",
            "NULL",
            "true",
        ],
    ),
    exact("varchar", &["", "a", "Abc", "zz", "x y", "ßẞ", "12"]),
    exact("varchar(5)", &["", "abcde", "ab   ", "ab", "Q"]),
    loose("char(4)", &["", "a", "ab  ", "abcd", "1", "Z"]),
    loose("name", &["", "abc", "pg_class", "A"]),
    loose("\"char\"", &["a", "", "Z", "0"]),
    exact("bytea", &["\\x", "\\x00", "\\xdeadbeef", "abc", "\\000\\001", "\\x61"]),
    exact(
        "date",
        &[
            "2024-02-29",
            "1999-12-31",
            "2000-01-01",
            "infinity",
            "-infinity",
            "0001-01-01",
            "4713-01-01 BC",
            "1970-01-01",
            "2024-01-31",
        ],
    ),
    exact("time", &["00:00", "23:59:59.999999", "24:00:00", "12:34:56", "04:05:06.5"]),
    loose("timetz", &["00:00+00", "12:34:56-08", "23:59:59.999999+13:30", "04:05:06.5+02"]),
    exact(
        "timestamp",
        &[
            "2024-02-29 12:34:56.789",
            "1999-12-31 23:59:59.999999",
            "infinity",
            "-infinity",
            "2000-01-01",
            "0044-03-15 BC",
            "1970-01-01 00:00:00",
            "2024-03-31 02:30:00",
        ],
    ),
    exact(
        "timestamptz",
        &[
            "2024-02-29 12:34:56.789+02",
            "1999-12-31 23:59:59.999999Z",
            "infinity",
            "-infinity",
            "2000-01-01 00:00:00 America/New_York",
            "2024-07-01 12:00:00 Europe/Berlin",
            "1970-01-01 00:00:00+00",
        ],
    ),
    loose(
        "interval",
        &[
            "0",
            "1 day",
            "-1 mon",
            "1 year 2 mons 3 days 04:05:06.789",
            "-04:00:00",
            "30 days",
            "720:00:00",
            "P1Y2M3DT4H5M6S",
            "1.5 hours",
            "-1 day +02:03:00",
            "1 mon -1 day",
        ],
    ),
    exact(
        "uuid",
        &[
            "00000000-0000-0000-0000-000000000000",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "{A0EEBC999C0B4EF8BB6D6BB9BD380A12}",
        ],
    ),
    unordered(
        "json",
        &[
            "null",
            "1",
            "{\"a\": 1, \"b\": [1, 2, null]}",
            "[]",
            "\"x\"",
            " {\"a\" :true} ",
            "[1.50, \"q\", {\"z\": {}}]",
        ],
    ),
    loose(
        "jsonb",
        &[
            "null",
            "1",
            "{\"b\": 1, \"a\": [1, 2, null]}",
            "[]",
            "\"x\"",
            "{\"a\":true,\"a\":2}",
            "[1.50, \"q\", {\"z\": {}}]",
            "{}",
            "1e2",
        ],
    ),
    exact("integer[]", &["{}", "{1}", "{1,2,3}", "{NULL,5}", "{3,2,1}", "{1,1,1}"]),
    exact("text[]", &["{}", "{a}", "{a,b,c}", "{NULL,\"null\"}", "{\"a b\",\"\"}", "{\"q\\\"\",x}"]),
    loose("numeric[]", &["{}", "{1.5,2.50}", "{NaN,NULL}"]),
    exact("boolean[]", &["{t,f,NULL}", "{}"]),
    exact("date[]", &["{2024-01-01,infinity}", "{}"]),
    exact("bigint[]", &["{1,9223372036854775807}", "{}", "{7}"]),
    exact("oid", &["0", "1", "4294967295", "23"]),
];

/// A type by its name.
pub fn type_of(name: &str) -> Type {
    let found = TYPES.iter().find(|t| t.name == name);
    *found.unwrap_or_else(|| panic!("a template names the type {name}"))
}

/// A text as a SQL literal.
pub fn quoted(text: &str) -> String {
    if text.contains('\\') {
        return format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"));
    }
    format!("'{}'", text.replace('\'', "''"))
}
