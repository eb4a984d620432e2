"""Enumerated types, domains and generated columns through psycopg 3, asyncpg and SQLAlchemy, in both formats."""

import asyncio
import enum
import os

import asyncpg
import psycopg
import sqlalchemy as sa
from psycopg.types.enum import EnumInfo, register_enum

URL = os.environ["DATABASE_URL"]


class Mood(enum.Enum):
    sad = "sad"
    ok = "ok"
    happy = "happy"


def with_psycopg():
    with psycopg.connect(URL, autocommit=True) as connection:
        connection.execute("CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')")
        connection.execute("CREATE TABLE people (id int PRIMARY KEY, m mood, ms mood[])")
        info = EnumInfo.fetch(connection, "mood")
        assert list(info.labels) == ["sad", "ok", "happy"]
        register_enum(info, connection, Mood)
        for binary in (False, True):
            connection.execute("TRUNCATE people")
            values = (Mood.ok, [Mood.sad, Mood.happy])
            connection.execute("INSERT INTO people VALUES (1, %s, %s)", values)
            cursor = connection.cursor(binary=binary)
            cursor.execute("SELECT m, ms FROM people")
            assert [column.type_code for column in cursor.description] == [info.oid, info.array_oid]
            assert cursor.fetchone() == values
            cursor.execute("SELECT id FROM people WHERE m = %s", (Mood.ok,))
            assert cursor.fetchone() == (1,)
            options = " (FORMAT binary)" if binary else ""
            with connection.cursor().copy(f"COPY people FROM STDIN{options}") as copy:
                copy.set_types(["int4", "mood", "mood[]"])
                copy.write_row((2, Mood.happy, [Mood.ok]))
            cursor.execute("SELECT m, ms FROM people WHERE id = 2")
            assert cursor.fetchone() == (Mood.happy, [Mood.ok])


async def with_asyncpg():
    connection = await asyncpg.connect(URL)
    assert await connection.fetchval("SELECT id FROM people WHERE m = $1", "happy") == 2
    await connection.execute("INSERT INTO people VALUES ($1, $2, $3)", 3, "sad", ["ok", "ok"])
    row = await connection.fetchrow("SELECT * FROM people WHERE id = 3")
    assert tuple(row) == (3, "sad", ["ok", "ok"]), row
    await connection.copy_records_to_table("people", records=[(4, "happy", ["sad"])])
    assert await connection.fetchval("SELECT m FROM people WHERE id = 4") == "happy"
    await connection.execute("CREATE DOMAIN positive AS int CHECK (VALUE > 0)")
    assert await connection.fetchval("SELECT $1::positive", 5) == 5
    try:
        await connection.fetchval("SELECT $1::positive", -5)
        raise AssertionError("a domain took a value that its CHECK refuses")
    except asyncpg.CheckViolationError as error:
        assert (error.constraint_name, error.data_type_name) == ("positive_check", "positive")
    await connection.close()


def with_sqlalchemy():
    engine = sa.create_engine(URL.replace("postgresql://", "postgresql+psycopg://"))
    metadata = sa.MetaData()
    table = sa.Table(
        "made",
        metadata,
        sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True),
        sa.Column("m", sa.Enum(Mood, name="made_mood"), server_default="ok"),
        sa.Column("n", sa.Integer),
        sa.Column("twice", sa.Integer, sa.Computed("n * 2", persisted=True)),
    )
    metadata.create_all(engine)
    with engine.begin() as connection:
        inserted = connection.execute(table.insert().returning(table.c.m, table.c.twice), [{"n": 4}])
        assert inserted.all() == [(Mood.ok, 8)]
        found = connection.execute(table.select().where(table.c.m == Mood.ok)).all()
        assert found == [(1, Mood.ok, 4, 8)], found
    inspector = sa.inspect(engine)
    columns = {column["name"]: column for column in inspector.get_columns("made")}
    assert columns["m"]["type"].enums == ["sad", "ok", "happy"]
    assert columns["twice"]["computed"]["persisted"]
    assert columns["id"]["identity"]["always"]
    assert [e["name"] for e in inspector.get_enums()] == ["made_mood", "mood"]
    assert [d["constraints"][0]["check"] for d in inspector.get_domains()] == ["VALUE > 0"]
    metadata.drop_all(engine)


with_psycopg()
asyncio.run(with_asyncpg())
with_sqlalchemy()
