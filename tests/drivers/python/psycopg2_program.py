"""psycopg2: literals in text, its adapters and arrays, cursors by name, COPY, batches, notices, cancelling."""

import io
import json
import os
import threading

import psycopg2
import psycopg2.extensions
import psycopg2.extras
from psycopg2 import errors, sql

from steps import Steps
from values import DOCUMENTS, SCALARS, check

URL = os.environ["DATABASE_URL"]
KEYWORDS = os.environ["DATABASE_KEYWORDS"]


def connections():
    conn = psycopg2.connect(URL)
    assert conn.encoding == "UTF8"
    assert conn.server_version >= 150000
    assert conn.get_parameter_status("DateStyle").startswith("ISO")
    conn.set_client_encoding("UTF8")
    conn.close()
    conn = psycopg2.connect(KEYWORDS, application_name="by keyword", options="-c statement_timeout=5s")
    cursor = conn.cursor()
    cursor.execute("SHOW application_name")
    assert cursor.fetchone() == ("by keyword",)
    cursor.execute("SHOW statement_timeout")
    assert cursor.fetchone() == ("5s",)
    conn.close()


def scalar(conn, name):
    values = SCALARS[name]
    cursor = conn.cursor()
    table = sql.Identifier("t_" + "".join(c for c in name if c.isalpha()))
    cursor.execute(sql.SQL("CREATE TABLE {} (id int PRIMARY KEY, v " + name + ", a " + name + "[])").format(table))
    insert = sql.SQL("INSERT INTO {} VALUES (%s, %s, %s::" + name + "[])").format(table)
    for i, value in enumerate(values):
        cursor.execute(insert, (i, value, [value, None, value]))
    cursor.execute(insert, (len(values), None, []))
    cursor.execute(insert, (len(values) + 1, None, None))
    cursor.execute(sql.SQL("SELECT v, a FROM {} ORDER BY id").format(table))
    rows = cursor.fetchall()
    for value, (v, a) in zip(values, rows):
        check(value, v, name)
        check([value, None, value], [bytes(x) if isinstance(x, memoryview) else x for x in a], f"{name}[]")
    assert rows[-2:] == [(None, []), (None, None)], rows[-2:]


def documents(conn):
    cursor = conn.cursor()
    for document in DOCUMENTS:
        cursor.execute("SELECT %s::json, %s::jsonb", [psycopg2.extras.Json(document)] * 2)
        assert cursor.fetchone() == (document, document)
    psycopg2.extras.register_default_jsonb(conn, loads=json.loads)


def transactions(conn):
    cursor = conn.cursor()
    cursor.execute("CREATE TABLE tx (k int PRIMARY KEY, v text)")
    conn.commit()
    with conn:
        conn.cursor().execute("INSERT INTO tx VALUES (1, 'committed')")
    cursor.execute("INSERT INTO tx VALUES (2, 'rolled back')")
    conn.rollback()
    try:
        cursor.execute("INSERT INTO tx VALUES (1, 'duplicate')")
    except errors.UniqueViolation as error:
        assert error.pgcode == "23505" and error.diag.constraint_name == "tx_pkey"
    try:
        cursor.execute("SELECT 1")
    except errors.InFailedSqlTransaction:
        pass
    else:
        raise AssertionError("a failed transaction went on")
    assert conn.get_transaction_status() == psycopg2.extensions.TRANSACTION_STATUS_INERROR
    conn.rollback()
    cursor.execute("SAVEPOINT here")
    cursor.execute("DELETE FROM tx")
    cursor.execute("ROLLBACK TO SAVEPOINT here")
    cursor.execute("SELECT count(*) FROM tx")
    assert cursor.fetchone() == (1,)
    conn.rollback()
    conn.set_session(isolation_level="REPEATABLE READ", readonly=True)
    cursor.execute("SHOW transaction_isolation")
    assert cursor.fetchone() == ("repeatable read",)
    try:
        cursor.execute("DELETE FROM tx")
    except errors.ReadOnlySqlTransaction:
        pass
    conn.rollback()
    conn.set_session(isolation_level="DEFAULT", readonly=False, autocommit=True)
    cursor.execute("DELETE FROM tx")
    assert cursor.rowcount == 1 and cursor.statusmessage == "DELETE 1"
    conn.autocommit = False


def batches(conn):
    cursor = conn.cursor()
    cursor.execute("CREATE TABLE batch (k int PRIMARY KEY, v text)")
    cursor.executemany("INSERT INTO batch VALUES (%(k)s, %(v)s)", [{"k": i, "v": str(i)} for i in range(50)])
    psycopg2.extras.execute_batch(cursor, "UPDATE batch SET v = %s WHERE k = %s", [("x", i) for i in range(50)])
    rows = [(i, f"it's {i} %") for i in range(50, 1050)]
    returned = psycopg2.extras.execute_values(
        cursor, "INSERT INTO batch VALUES %s RETURNING k", rows, page_size=300, fetch=True
    )
    assert [r[0] for r in returned] == [r[0] for r in rows]
    cursor.execute("SELECT count(*), count(*) FILTER (WHERE v = 'x') FROM batch")
    assert cursor.fetchone() == (1050, 50)
    cursor.execute("SELECT k FROM batch WHERE k = ANY(%s) ORDER BY k", ([3, 1, 2],))
    assert cursor.fetchall() == [(1,), (2,), (3,)]
    cursor.execute("SELECT k FROM batch WHERE k IN %s ORDER BY k", ((7, 8),))
    assert cursor.fetchall() == [(7,), (8,)]
    cursor.execute("PREPARE by_key (int) AS SELECT v FROM batch WHERE k = $1")
    cursor.execute("EXECUTE by_key (%s)", (60,))
    assert cursor.fetchone() == ("it's 60 %",)
    named = conn.cursor(cursor_factory=psycopg2.extras.RealDictCursor)
    named.execute("SELECT 1 AS one")
    assert named.fetchone() == {"one": 1}
    conn.rollback()


def cursors(conn):
    with conn, conn.cursor("by_name") as cursor:
        cursor.itersize = 100
        cursor.execute("SELECT g FROM generate_series(1, 1000) g")
        assert sum(row[0] for row in cursor) == 500500
    with conn, conn.cursor("scrolls", scrollable=True) as cursor:
        cursor.execute("SELECT g FROM generate_series(1, 10) g")
        cursor.scroll(9)
        assert cursor.fetchone() == (10,)
        cursor.scroll(0, mode="absolute")
        assert cursor.fetchmany(2) == [(1,), (2,)]


def copies(conn):
    cursor = conn.cursor()
    cursor.execute("CREATE TABLE copied (k int PRIMARY KEY, v text)")
    cursor.copy_from(io.StringIO("1\ta\n2\t\\N\n"), "copied", columns=("k", "v"))
    cursor.copy_expert("COPY copied FROM STDIN WITH (FORMAT csv, HEADER true)", io.StringIO('k,v\n3,"x,\ny"\n'))
    out = io.StringIO()
    cursor.copy_to(out, "copied")
    assert sorted(out.getvalue().splitlines()) == ["1\ta", "2\t\\N", "3\tx,\\ny"], out.getvalue()
    try:
        cursor.copy_from(io.StringIO("nonsense\n"), "copied")
    except errors.InvalidTextRepresentation as error:
        assert "COPY copied, line 1, column k" in str(error), error
    conn.rollback()


def cancelling(conn):
    timer = threading.Timer(0.2, conn.cancel)
    timer.start()
    try:
        conn.cursor().execute("SELECT pg_sleep(20)")
    except errors.QueryCanceled:
        pass
    else:
        raise AssertionError("nothing was cancelled")
    timer.join()
    conn.rollback()


def notices(conn):
    conn.cursor().execute("DROP TABLE IF EXISTS never_was")
    assert conn.notices == ['NOTICE:  table "never_was" does not exist, skipping\n'], conn.notices
    conn.rollback()


def columns(conn):
    cursor = conn.cursor()
    cursor.execute("SELECT 1::numeric(10,2) AS n, 'x'::varchar(7) AS v, 'y'::text AS t")
    n, v, t = cursor.description
    assert (n.name, n.type_code, n.precision, n.scale) == ("n", 1700, 10, 2), n
    assert (v.name, v.type_code, v.internal_size) == ("v", 1043, 7), v
    assert (t.type_code, t.internal_size) == (25, -1), t
    conn.rollback()


steps = Steps()
steps.run("connections", connections)
for step in (transactions, batches, cursors, copies, cancelling, notices, columns, documents):
    connection = psycopg2.connect(URL)
    steps.run(step.__name__, step, connection)
    connection.close()
connection = psycopg2.connect(URL)
connection.autocommit = True
connection.cursor().execute("SET TimeZone = 'UTC'")
psycopg2.extras.register_uuid(conn_or_curs=connection)
for type_name in SCALARS:
    steps.run(type_name, scalar, connection, type_name)
steps.finish()
