"""psycopg 3: connecting, transactions, pipelines, cursors, COPY, cancelling, and every type both ways."""

import os
import threading
import time

import psycopg
from psycopg import ClientCursor, errors, sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from psycopg.types.json import Json, Jsonb

from steps import Steps
from values import DOCUMENTS, SCALARS, check

URL = os.environ["DATABASE_URL"]
KEYWORDS = os.environ["DATABASE_KEYWORDS"]


def connect(**options):
    return psycopg.connect(URL, **options)


def connections():
    with psycopg.connect(URL, application_name="by url") as conn:
        assert conn.execute("SHOW application_name").fetchone() == ("by url",)
        assert conn.info.parameter_status("client_encoding") == "UTF8"
        assert conn.info.parameter_status("standard_conforming_strings") == "on"
        assert conn.info.parameter_status("integer_datetimes") == "on"
        assert conn.info.server_version >= 150000
        assert conn.info.backend_pid == conn.execute("SELECT pg_backend_pid()").fetchone()[0]
    with psycopg.connect(KEYWORDS) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    options = make_conninfo(KEYWORDS, options="-c statement_timeout=12345 -c search_path=public")
    with psycopg.connect(options) as conn:
        assert conn.execute("SHOW statement_timeout").fetchone() == ("12345ms",)
    try:
        psycopg.connect(make_conninfo(KEYWORDS, dbname="no_such_database"))
    except psycopg.OperationalError as error:
        assert "does not exist" in str(error), error
    else:
        raise AssertionError("connected to a database that does not exist")


def scalar(conn, name, binary):
    """One type as parameter, column and result; alone, in an array, and NULL."""
    values = SCALARS[name]
    table = sql.Identifier("t_" + "".join(c for c in name if c.isalpha()) + ("_b" if binary else "_t"))
    conn.execute(sql.SQL("CREATE TABLE {} (id int PRIMARY KEY, v " + name + ", a " + name + "[])").format(table))
    marker = "%b" if binary else "%t"
    insert = sql.SQL("INSERT INTO {} VALUES (%s, " + marker + ", " + marker + ")").format(table)
    for i, value in enumerate(values):
        conn.execute(insert, (i, value, [value, None, value]))
    conn.execute(insert, (len(values), None, []))
    conn.execute(insert, (len(values) + 1, None, None))
    rows = conn.cursor(binary=binary).execute(sql.SQL("SELECT v, a FROM {} ORDER BY id").format(table)).fetchall()
    for value, (v, a) in zip(values, rows):
        check(value, v, name)
        check([value, None, value], a, f"{name}[]")
    assert rows[-2:] == [(None, []), (None, None)], rows[-2:]
    query = sql.SQL("SELECT count(*) FROM {} WHERE v = " + marker + "::" + name).format(table)
    assert conn.execute(query, (values[0],)).fetchone()[0] >= 1, f"{values[0]!r} is not found by itself"


def documents(conn, binary):
    """JSON, both kinds."""
    marker = "%b" if binary else "%t"
    for wrap, name in ((Json, "json"), (Jsonb, "jsonb")):
        query = f"SELECT {marker}::{name}, ARRAY[{marker}::{name}]"
        for document in DOCUMENTS:
            row = conn.cursor(binary=binary).execute(query, (wrap(document), wrap(document))).fetchone()
            assert row == (document, [document]), (name, document, row)


def transactions(conn):
    conn.execute("CREATE TABLE tx (k int PRIMARY KEY, v text)")
    with conn.transaction():
        conn.execute("INSERT INTO tx VALUES (1, 'committed')")
    try:
        with conn.transaction():
            conn.execute("INSERT INTO tx VALUES (2, 'rolled back')")
            raise psycopg.Rollback
    except psycopg.Rollback:
        raise AssertionError("Rollback leaves its own block only")
    with conn.transaction():
        conn.execute("INSERT INTO tx VALUES (3, 'kept')")
        try:
            with conn.transaction("inner"):
                conn.execute("INSERT INTO tx VALUES (1, 'duplicate')")
        except errors.UniqueViolation as error:
            assert error.diag.sqlstate == "23505"
            assert error.diag.constraint_name == "tx_pkey", error.diag.constraint_name
            assert error.diag.table_name == "tx" and error.diag.schema_name == "public"
            assert error.diag.message_detail == "Key (k)=(1) already exists."
        conn.execute("INSERT INTO tx VALUES (4, 'after the savepoint')")
    assert [r[0] for r in conn.execute("SELECT k FROM tx ORDER BY k")] == [1, 3, 4]
    try:
        with conn.transaction():
            try:
                conn.execute("SELECT 1/0")
            except errors.DivisionByZero:
                pass
            conn.execute("SELECT 1")
    except errors.InFailedSqlTransaction as error:
        assert error.sqlstate == "25P02"
    else:
        raise AssertionError("a failed transaction went on")
    try:
        conn.execute("SELECT nothing FROM tx")
    except errors.UndefinedColumn as error:
        assert error.diag.statement_position == "8", error.diag.statement_position
    conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with conn.transaction():
        assert conn.execute("SHOW transaction_isolation").fetchone() == ("repeatable read",)
    conn.isolation_level = None
    conn.read_only = True
    try:
        with conn.transaction():
            conn.execute("INSERT INTO tx VALUES (9, 'never')")
    except errors.ReadOnlySqlTransaction:
        pass
    else:
        raise AssertionError("wrote in a read-only transaction")
    conn.read_only = None


def batches(conn):
    conn.execute("CREATE TABLE batch (k int PRIMARY KEY, v int)")
    cursor = conn.cursor()
    cursor.executemany("INSERT INTO batch VALUES (%s, %s)", [(i, i * i) for i in range(200)])
    assert cursor.rowcount == 200
    cursor.executemany("UPDATE batch SET v = v + 1 WHERE k = %s RETURNING v", [(2,), (3,)], returning=True)
    answers = [cursor.fetchone()]
    while cursor.nextset():
        answers.append(cursor.fetchone())
    assert answers == [(5,), (10,)], answers
    with conn.pipeline() as pipeline:
        cursors = [conn.execute("SELECT v FROM batch WHERE k = %s", (i,)) for i in range(50)]
        pipeline.sync()
        assert cursors[7].fetchone() == (49,)
    with conn.pipeline():
        try:
            with conn.transaction():
                conn.execute("INSERT INTO batch VALUES (1000, 0)")
                conn.execute("INSERT INTO batch VALUES (1000, 0)")
        except errors.UniqueViolation:
            pass
        else:
            raise AssertionError("the pipeline's error was lost")
    assert conn.execute("SELECT count(*) FROM batch").fetchone() == (200,)
    for _ in range(12):  # the fifth time psycopg prepares it
        assert conn.execute("SELECT v FROM batch WHERE k = %s", (4,)).fetchone() == (16,)
    prepared = conn.execute("SELECT %s::int + 1", (1,), prepare=True).fetchone()
    assert prepared == (2,)
    conn.execute("DEALLOCATE ALL")
    rows = conn.cursor(row_factory=dict_row).execute("SELECT 1 AS one, 'x' AS two").fetchall()
    assert rows == [{"one": 1, "two": "x"}]
    client = ClientCursor(conn)
    client.execute("SELECT %s::int, %s, %s::bytea; SELECT 2", (1, "it's \\", b"\x00'"))
    assert client.fetchone() == (1, "it's \\", b"\x00'")
    assert client.nextset() and client.fetchone() == (2,)


def cursors(conn):
    conn.execute("CREATE TABLE many AS SELECT g AS k FROM generate_series(1, 5000) g")
    with conn.transaction():
        with conn.cursor("by_name") as cursor:
            cursor.itersize = 700
            cursor.execute("SELECT k FROM many ORDER BY k")
            assert sum(row[0] for row in cursor) == 5000 * 5001 // 2
        with conn.cursor("scrolls", scrollable=True, binary=True) as cursor:
            cursor.execute("SELECT k FROM many ORDER BY k")
            assert cursor.fetchmany(3) == [(1,), (2,), (3,)]
            cursor.scroll(-2)
            assert cursor.fetchone() == (2,)
            cursor.scroll(4999, mode="absolute")
            assert cursor.fetchone() == (5000,)
    with conn.cursor("outlives", withhold=True) as cursor:
        cursor.execute("SELECT k FROM many ORDER BY k DESC")
        assert cursor.fetchone() == (5000,)
    streamed = conn.cursor().stream("SELECT k FROM many ORDER BY k")
    assert sum(row[0] for row in streamed) == 5000 * 5001 // 2


def copies(conn):
    conn.execute("CREATE TABLE copied (k int PRIMARY KEY, v text, n numeric)")
    rows = [(1, "a\tb\n\\", None), (2, None, 1), (3, "", 2)]
    cursor = conn.cursor()
    with cursor.copy("COPY copied FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
    assert cursor.rowcount == 3
    with cursor.copy("COPY copied FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["int4", "text", "numeric"])
        copy.write_row((4, "binary", 3))
    with cursor.copy("COPY (SELECT k, v, n FROM copied ORDER BY k) TO STDOUT") as copy:
        copy.set_types(["int4", "text", "numeric"])
        assert [tuple(r) for r in copy.rows()] == [*rows, (4, "binary", 3)]
    with cursor.copy("COPY (SELECT k, v FROM copied ORDER BY k) TO STDOUT (FORMAT binary)") as copy:
        copy.set_types(["int4", "text"])
        assert [tuple(r) for r in copy.rows()] == [r[:2] for r in rows] + [(4, "binary")]
    with cursor.copy("COPY copied (k, v) TO STDOUT (FORMAT csv, HEADER)") as copy:
        assert bytes(b"".join(copy)).startswith(b"k,v\n")
    try:
        with cursor.copy("COPY copied FROM STDIN") as copy:
            copy.write_row((5, "not kept", 0))
            raise ValueError("given up")
    except ValueError:
        pass
    assert conn.execute("SELECT count(*) FROM copied").fetchone() == (4,)


def cancelling(conn):
    timer = threading.Timer(0.2, conn.cancel_safe)
    timer.start()
    start = time.monotonic()
    try:
        conn.execute("SELECT pg_sleep(20)")
    except errors.QueryCanceled as error:
        assert error.sqlstate == "57014"
    else:
        raise AssertionError("nothing was cancelled")
    timer.join()
    assert time.monotonic() - start < 5
    assert conn.execute("SELECT 1").fetchone() == (1,)
    conn.execute("SET statement_timeout = 100")
    try:
        conn.execute("SELECT pg_sleep(20)")
    except errors.QueryCanceled:
        pass
    conn.execute("RESET statement_timeout")


def notices(conn):
    heard = []
    conn.add_notice_handler(lambda diag: heard.append((diag.severity, diag.message_primary)))
    conn.execute("DROP TABLE IF EXISTS never_was")
    assert heard == [("NOTICE", 'table "never_was" does not exist, skipping')], heard


def type_information(conn):
    from psycopg.types import TypeInfo

    for name in ("int4", "text", "timestamptz", "numeric"):
        info = TypeInfo.fetch(conn, name)
        assert info is not None and info.oid == conn.adapters.types[name].oid, name
        assert info.array_oid == conn.adapters.types[name].array_oid, name


steps = Steps()
steps.run("connections", connections)
for name in ("transactions", "batches", "cursors", "copies", "cancelling", "notices", "type_information"):
    with connect(autocommit=True) as connection:
        steps.run(name, globals()[name], connection)
with connect(autocommit=True) as connection:
    connection.execute("SET TimeZone = 'UTC'")
    for in_binary in (False, True):
        for type_name in SCALARS:
            steps.run(f"{type_name} binary={in_binary}", scalar, connection, type_name, in_binary)
        steps.run(f"json binary={in_binary}", documents, connection, in_binary)
steps.finish()
