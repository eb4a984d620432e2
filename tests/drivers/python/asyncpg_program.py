"""asyncpg: everything in binary, prepared statements, cursors, COPY, cancelling, and its type introspection."""

import asyncio
import json
import os
from decimal import Decimal
from io import BytesIO

import asyncpg
from asyncpg import exceptions

from steps import Steps
from values import DOCUMENTS, SCALARS, check

URL = os.environ["DATABASE_URL"]


async def connections():
    conn = await asyncpg.connect(URL, server_settings={"application_name": "asyncpg", "search_path": "public"})
    assert await conn.fetchval("SHOW application_name") == "asyncpg"
    assert conn.get_server_version().major == 15
    assert conn.get_settings().server_encoding == "UTF8"
    await conn.close()
    by_keyword = await asyncpg.connect(
        host=os.environ["PGHOST"],
        port=os.environ["PGPORT"],
        user=os.environ["PGUSER"],
        password=os.environ["PGPASSWORD"],
        database=os.environ["PGDATABASE"],
    )
    assert await by_keyword.fetchval("SELECT 1") == 1
    await by_keyword.reset()  # unlocks advisory locks, closes cursors, UNLISTEN, RESET ALL
    await by_keyword.close()
    async with asyncpg.create_pool(URL, min_size=2, max_size=4) as pool:
        answers = await asyncio.gather(*(pool.fetchval("SELECT $1::int * 2", i) for i in range(40)))
        assert answers == [i * 2 for i in range(40)]


async def scalar(conn, name):
    values = SCALARS[name]
    table = "t_" + "".join(c for c in name if c.isalpha())
    await conn.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, v {name}, a {name}[])")
    insert = f"INSERT INTO {table} VALUES ($1, $2, $3)"
    for i, value in enumerate(values):
        await conn.execute(insert, i, value, [value, None, value])
    await conn.executemany(insert, [(len(values), None, []), (len(values) + 1, None, None)])
    rows = [tuple(r) for r in await conn.fetch(f"SELECT v, a FROM {table} ORDER BY id")]
    for value, (v, a) in zip(values, rows):
        check(value, v, name)
        check([value, None, value], a, f"{name}[]")
    assert rows[-2:] == [(None, []), (None, None)], rows[-2:]
    assert await conn.fetchval(f"SELECT count(*) FROM {table} WHERE v = $1", values[0]) >= 1


async def documents(conn):
    for name in ("json", "jsonb"):
        await conn.set_type_codec(name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        for document in DOCUMENTS:
            if document is None:
                continue  # asyncpg takes None for NULL
            assert await conn.fetchval(f"SELECT $1::{name}", document) == document
            if not isinstance(document, list):  # which asyncpg would take for a dimension
                assert await conn.fetchval(f"SELECT $1::{name}[]", [document, None]) == [document, None]
        await conn.reset_type_codec(name, schema="pg_catalog")


async def transactions(conn):
    await conn.execute("CREATE TABLE tx (k int PRIMARY KEY, v text)")
    async with conn.transaction():
        await conn.execute("INSERT INTO tx VALUES (1, 'committed')")
        try:
            async with conn.transaction():  # a savepoint
                await conn.execute("INSERT INTO tx VALUES (2, 'rolled back')")
                await conn.execute("INSERT INTO tx VALUES (1, 'duplicate')")
        except exceptions.UniqueViolationError as error:
            assert error.constraint_name == "tx_pkey"
        await conn.execute("INSERT INTO tx VALUES (3, 'kept')")
    assert [r["k"] for r in await conn.fetch("SELECT k FROM tx ORDER BY k")] == [1, 3]
    outer = conn.transaction(isolation="repeatable_read", readonly=True)
    await outer.start()
    assert await conn.fetchval("SHOW transaction_isolation") == "repeatable read"
    try:
        await conn.execute("DELETE FROM tx")
    except exceptions.ReadOnlySQLTransactionError:
        pass
    try:
        await conn.fetch("SELECT 1")
    except exceptions.InFailedSQLTransactionError:
        pass
    else:
        raise AssertionError("a failed transaction went on")
    await outer.rollback()
    assert await conn.fetchval("SELECT count(*) FROM tx") == 2
    script = "INSERT INTO tx VALUES (10, 'a'); INSERT INTO tx VALUES (10, 'b')"
    try:
        await conn.execute(script)
    except exceptions.UniqueViolationError:
        pass
    assert await conn.fetchval("SELECT count(*) FROM tx") == 2, "a script is one transaction"


async def statements(conn):
    statement = await conn.prepare("SELECT $1::int AS n, $2::text[] AS t, now() AS at, NULL::numeric AS m")
    assert [p.name for p in statement.get_parameters()] == ["int4", "text[]"]
    assert [(a.name, a.type.name) for a in statement.get_attributes()] == [
        ("n", "int4"),
        ("t", "text[]"),
        ("at", "timestamptz"),
        ("m", "numeric"),
    ]
    assert await statement.fetchval(7, ["x"]) == 7
    await conn.execute("CREATE TABLE many (k int PRIMARY KEY, v int)")
    await conn.executemany("INSERT INTO many VALUES ($1, $2)", [(i, i % 7) for i in range(1000)])
    assert await conn.execute("UPDATE many SET v = 0 WHERE k < 10") == "UPDATE 10"
    returned = await conn.fetchmany("INSERT INTO many VALUES ($1, $2) RETURNING k", [(5001, 0), (5002, 0)])
    assert [r["k"] for r in returned] == [5001, 5002]
    try:
        await conn.executemany("INSERT INTO many VALUES ($1, $2)", [(9000, 1), (9001, 1), (9000, 2)])
    except exceptions.UniqueViolationError:
        pass
    assert await conn.fetchval("SELECT count(*) FROM many WHERE k >= 9000") == 0, "executemany is atomic"
    async with conn.transaction():
        total = 0
        async for row in conn.cursor("SELECT k FROM many WHERE k < $1 ORDER BY k", 1000, prefetch=70):
            total += row["k"]
        assert total == sum(range(1000))
        cursor = await conn.cursor("SELECT k FROM many ORDER BY k")
        assert [r["k"] for r in await cursor.fetch(3)] == [0, 1, 2]
        assert await cursor.forward(10) == 10
        assert (await cursor.fetchrow())["k"] == 13
    # The result's type changes under a cached statement.
    await conn.fetch("SELECT * FROM many WHERE k = 1")
    await conn.execute("ALTER TABLE many ADD COLUMN extra text")
    async with conn.transaction():
        pass
    try:
        await conn.fetch("SELECT * FROM many WHERE k = 1")
    except exceptions.InvalidCachedStatementError:
        raise AssertionError("outside a transaction asyncpg prepares again by itself")


async def copies(conn):
    await conn.execute("CREATE TABLE copied (k int PRIMARY KEY, v text, n numeric)")
    records = [(1, "a\tb", None), (2, None, Decimal("1.50"))]
    assert await conn.copy_records_to_table("copied", records=records) == "COPY 2"
    source = BytesIO(b"k,v,n\n3,x,2\n4,,3\n")
    assert await conn.copy_to_table("copied", source=source, format="csv", header=True) == "COPY 2"
    out = BytesIO()
    assert await conn.copy_from_query("SELECT k, v FROM copied ORDER BY k", output=out) == "COPY 4"
    assert out.getvalue() == b"1\ta\\tb\n2\t\\N\n3\tx\n4\t\\N\n", out.getvalue()
    out = BytesIO()
    await conn.copy_from_table("copied", columns=["k"], output=out, format="csv")
    assert out.getvalue() == b"1\n2\n3\n4\n"


async def cancelling(conn):
    try:
        await conn.fetch("SELECT pg_sleep(20)", timeout=0.3)
    except asyncio.TimeoutError:
        pass
    else:
        raise AssertionError("nothing was cancelled")
    assert await conn.fetchval("SELECT 1") == 1


async def introspection(conn):
    """What asyncpg asks when it meets a type it does not know: a recursive query over the catalogs."""
    record = await conn.fetchval("SELECT ROW(1, 'x'::text, NULL::int)")
    assert tuple(record) == (1, "x", None), record
    row = await conn.fetchrow("SELECT c.oid::regclass AS c, 'int4'::regtype AS t FROM pg_class c WHERE relname = 'tx'")
    assert row is not None
    types, _ = await conn._introspect_types([23, 1007, 26, 2205, 2206, 19, 18, 1003], 10)
    by_name = {t["name"]: t for t in types}
    assert by_name["_int4"]["elemtype"] == 23 and by_name["_int4"]["kind"] == b"b", by_name["_int4"]
    assert by_name["name"]["elemtype"] == 18, by_name["name"]


async def notices(conn):
    heard = []
    conn.add_log_listener(lambda _, message: heard.append(message.message))
    await conn.execute("DROP TABLE IF EXISTS never_was")
    await asyncio.sleep(0)
    assert heard == ['table "never_was" does not exist, skipping'], heard


async def main():
    steps = Steps()
    await steps.run_async("connections", connections)
    for step in (transactions, statements, copies, cancelling, introspection, notices, documents):
        conn = await asyncpg.connect(URL)
        await steps.run_async(step.__name__, step, conn)
        await conn.close(timeout=5)
    conn = await asyncpg.connect(URL)
    await conn.execute("SET TimeZone = 'UTC'")
    for name in SCALARS:
        await steps.run_async(name, scalar, conn, name)
    await conn.close()
    steps.finish()


asyncio.run(main())
