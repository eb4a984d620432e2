"""SQLAlchemy 2: create, reflect, the ORM with relationships, Core statements, over psycopg and asyncpg."""

import asyncio
import datetime as dt
import enum
import os
import uuid
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

from steps import Steps
from values import SCALARS, check

URL = os.environ["DATABASE_URL"]


def engine_for(driver):
    return sa.create_engine(URL.replace("postgresql://", f"postgresql+{driver}://"))


class Base(DeclarativeBase):
    pass


class State(enum.Enum):
    OPEN = "open"
    CLOSED = "closed"


membership = sa.Table(
    "membership",
    Base.metadata,
    sa.Column("person_id", sa.ForeignKey("person.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("club_id", sa.ForeignKey("club.id", ondelete="CASCADE"), primary_key=True),
)


class Person(Base):
    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(40))
    email: Mapped[str | None] = mapped_column(unique=True)
    born: Mapped[dt.date | None]
    created: Mapped[dt.datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())
    balance: Mapped[Decimal] = mapped_column(sa.Numeric(12, 2), default=0)
    key: Mapped[uuid.UUID] = mapped_column(default=uuid.uuid4)
    tags: Mapped[list[str]] = mapped_column(pg.ARRAY(sa.Text), default=list)
    extra: Mapped[dict] = mapped_column(pg.JSONB, default=dict)
    state: Mapped[State] = mapped_column(sa.Enum(State, native_enum=False), default=State.OPEN)
    orders: Mapped[list["Order"]] = relationship(back_populates="person", cascade="all, delete-orphan")
    clubs: Mapped[list["Club"]] = relationship(secondary=membership, back_populates="members")
    __table_args__ = (
        sa.CheckConstraint("balance >= 0", name="person_solvent"),
        sa.Index("person_by_name", "name", "born"),
        {"comment": "who buys"},
    )


class Order(Base):
    __tablename__ = "order"
    id: Mapped[int] = mapped_column(sa.BigInteger, sa.Identity(), primary_key=True)
    person_id: Mapped[int] = mapped_column(sa.ForeignKey("person.id"))
    item: Mapped[str] = mapped_column(comment="what was bought")
    person: Mapped[Person] = relationship(back_populates="orders")


class Club(Base):
    __tablename__ = "club"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    members: Mapped[list[Person]] = relationship(secondary=membership, back_populates="clubs")


def create(engine):
    Base.metadata.create_all(engine)
    Base.metadata.create_all(engine)  # finds that all is there


def orm(engine):
    with Session(engine) as session:
        chess = Club(name="chess")
        ann = Person(name="Ann", email="ann@example.org", born=dt.date(1980, 2, 29), tags=["a", "b"], clubs=[chess])
        ann.orders = [Order(item="jar"), Order(item="lid")]
        bob = Person(name="Bob", extra={"k": [1, {"x": None}]}, balance=Decimal("10.50"), clubs=[chess])
        session.add_all([ann, bob])
        session.commit()
        assert ann.id and ann.created.tzinfo is not None and [o.id for o in ann.orders] == [1, 2]
        assert bob.balance == Decimal("10.50") and bob.state is State.OPEN
        ann.orders.pop()
        bob.state = State.CLOSED
        session.commit()
        query = sa.select(Person).options(selectinload(Person.orders), selectinload(Person.clubs)).order_by(Person.id)
        people = session.scalars(query).all()
        assert [(p.name, len(p.orders), [c.name for c in p.clubs]) for p in people] == [
            ("Ann", 1, ["chess"]),
            ("Bob", 0, ["chess"]),
        ]
        joined = session.execute(
            sa.select(Person.name, sa.func.count(Order.id)).outerjoin(Order).group_by(Person.name).order_by(Person.name)
        ).all()
        assert joined == [("Ann", 1), ("Bob", 0)], joined
        assert session.scalars(sa.select(Person.name).where(Person.tags.contains(["a"]))).all() == ["Ann"]
        assert session.scalars(sa.select(Person.name).where(Person.extra["k"][0].astext == "1")).all() == ["Bob"]
        ranked = sa.func.row_number().over(order_by=Person.name.desc())
        assert session.execute(sa.select(Person.name, ranked).order_by(ranked)).all() == [("Bob", 1), ("Ann", 2)]
        with session.begin_nested() as savepoint:
            session.execute(sa.delete(Order))
            savepoint.rollback()
        try:
            session.add(Person(name="Eve", email="ann@example.org"))
            session.flush()
        except sa.exc.IntegrityError as error:
            assert "person_email_key" in str(error), error
            session.rollback()
        locked = session.scalars(sa.select(Person).with_for_update().where(Person.name == "Ann")).one()
        session.delete(locked)
        session.commit()
        assert session.scalar(sa.select(sa.func.count()).select_from(Order)) == 0
        assert session.scalar(sa.select(sa.func.count()).select_from(membership)) == 1
        session.add_all([Person(name=f"p{i}") for i in range(300)])  # one INSERT … RETURNING in pages
        session.commit()


def core(engine):
    with engine.begin() as conn:
        counters = sa.Table("counters", sa.MetaData(), sa.Column("k", sa.Text, primary_key=True), sa.Column("n", sa.Integer))
        counters.create(conn)
        for _ in range(3):
            statement = upsert(counters).values(k="a", n=1)
            statement = statement.on_conflict_do_update(index_elements=["k"], set_={"n": counters.c.n + 1})
            conn.execute(statement)
        conn.execute(upsert(counters).values(k="a", n=0).on_conflict_do_nothing())
        assert conn.execute(sa.select(counters)).all() == [("a", 3)]
        conn.execute(counters.insert(), [{"k": str(i), "n": i} for i in range(100)])
        updated = conn.execute(counters.update().where(counters.c.n < 3).values(n=-1).returning(counters.c.k)).all()
        assert sorted(r.k for r in updated) == ["0", "1", "2"]
        recursive = sa.select(sa.literal(1).label("i")).cte("walk", recursive=True)
        recursive = recursive.union_all(sa.select(recursive.c.i + 1).where(recursive.c.i < 10))
        assert conn.scalar(sa.select(sa.func.sum(recursive.c.i))) == 55
        streamed = conn.execution_options(yield_per=30).execute(sa.select(counters.c.k))
        assert len(list(streamed)) == 101
        values = sa.values(sa.column("a", sa.Integer), sa.column("b", sa.Text), name="v").data([(1, "x"), (2, "y")])
        assert conn.execute(sa.select(values).order_by(sa.text("a DESC"))).all() == [(2, "y"), (1, "x")]


def reflect(engine):
    inspector = sa.inspect(engine)
    assert {"person", "order", "club", "membership"} <= set(inspector.get_table_names())
    assert inspector.has_table("person") and not inspector.has_table("nobody")
    assert "public" in inspector.get_schema_names()
    columns = {c["name"]: c for c in inspector.get_columns("person")}
    assert isinstance(columns["balance"]["type"], sa.Numeric) and columns["balance"]["type"].scale == 2
    assert isinstance(columns["name"]["type"], sa.String) and columns["name"]["type"].length == 40
    assert columns["created"]["type"].timezone and columns["created"]["default"] == "now()"
    assert isinstance(columns["tags"]["type"], pg.ARRAY) and isinstance(columns["extra"]["type"], pg.JSONB)
    assert columns["email"]["nullable"] and not columns["name"]["nullable"]
    assert columns["id"]["default"] == "nextval('person_id_seq'::regclass)", columns["id"]
    assert inspector.get_columns("order")[0]["identity"]["always"] is False
    assert inspector.get_columns("order")[2]["comment"] == "what was bought"
    assert inspector.get_pk_constraint("membership")["constrained_columns"] == ["person_id", "club_id"]
    [key] = inspector.get_foreign_keys("order")
    assert (key["referred_table"], key["constrained_columns"], key["referred_columns"]) == ("person", ["person_id"], ["id"])
    assert {k["options"].get("ondelete") for k in inspector.get_foreign_keys("membership")} == {"CASCADE"}
    assert [i["column_names"] for i in inspector.get_indexes("person") if i["name"] == "person_by_name"] == [["name", "born"]]
    assert [u["column_names"] for u in inspector.get_unique_constraints("person")] == [["email"]]
    checks = {c["name"] for c in inspector.get_check_constraints("person")}
    assert "person_solvent" in checks, checks
    assert inspector.get_table_comment("person") == {"text": "who buys"}
    with engine.begin() as conn:
        conn.execute(sa.text("CREATE VIEW rich AS SELECT id, name FROM person WHERE balance > 5"))
    assert inspector.get_view_names() == ["rich"] or "rich" in sa.inspect(engine).get_view_names()
    assert "person" in sa.inspect(engine).get_view_definition("rich")
    assert "person_id_seq" in inspector.get_sequence_names()
    assert inspector.get_enums() == []
    reflected = sa.MetaData()
    reflected.reflect(engine, views=True)
    assert set(reflected.tables["membership"].c.keys()) == {"person_id", "club_id"}
    assert reflected.tables["order"].c.person_id.foreign_keys
    autoload = sa.Table("person", sa.MetaData(), autoload_with=engine)
    assert autoload.c.name.type.length == 40


def scalar(engine, name, values, kind):
    table = sa.Table(
        "sa_" + "".join(c for c in name if c.isalnum()) + engine.driver,
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("v", kind),
        sa.Column("a", pg.ARRAY(kind)),
    )
    with engine.begin() as conn:
        table.create(conn)
        rows = [{"id": i, "v": v, "a": [v, None]} for i, v in enumerate(values)]
        conn.execute(table.insert(), [*rows, {"id": len(rows), "v": None, "a": None}])
        read = conn.execute(sa.select(table).order_by(table.c.id)).all()
        for wrote, row in zip(rows, read):
            check(wrote["v"], row.v, name)
            check(wrote["a"], [bytes(x) if isinstance(x, memoryview) else x for x in row.a], f"{name}[]")
        assert tuple(read[-1]) == (len(rows), None, None)


KINDS = {
    "boolean": sa.Boolean(),
    "smallint": sa.SmallInteger(),
    "integer": sa.Integer(),
    "bigint": sa.BigInteger(),
    "real": sa.REAL(),
    "double precision": sa.Double(),
    "numeric": sa.Numeric(),
    "text": sa.Text(),
    "varchar(20)": sa.String(20),
    "char(5)": sa.CHAR(5),
    "bytea": sa.LargeBinary(),
    "date": sa.Date(),
    "time": sa.Time(),
    "timetz": sa.Time(timezone=True),
    "timestamp": sa.DateTime(),
    "timestamptz": sa.DateTime(timezone=True),
    "interval": sa.Interval(),
    "uuid": sa.Uuid(),
    "oid": pg.OID(),
}


def asynchronous():
    async def run():
        engine = create_async_engine(URL.replace("postgresql://", "postgresql+asyncpg://"))
        async with async_sessionmaker(engine)() as session:
            session.add(Person(name="Zoe", orders=[Order(item="cup")]))
            await session.commit()
            query = sa.select(Person).options(selectinload(Person.orders)).where(Person.name == "Zoe")
            zoe = (await session.scalars(query)).one()
            assert [o.item for o in zoe.orders] == ["cup"]
        async with engine.connect() as conn:
            names = await conn.run_sync(lambda sync: sa.inspect(sync).get_table_names())
            assert "person" in names
            streamed = await conn.stream(sa.select(Person.id).limit(50))
            assert len([row async for row in streamed]) == 50
        await engine.dispose()

    asyncio.run(run())


def drop(engine):
    with engine.begin() as conn:
        conn.execute(sa.text("DROP VIEW IF EXISTS rich"))
    Base.metadata.drop_all(engine)
    assert not sa.inspect(engine).has_table("person")


steps = Steps()
for driver in ("psycopg", "psycopg2"):
    database = engine_for(driver)
    for step in (create, orm, core, reflect):
        steps.run(f"{driver} {step.__name__}", step, database)
    if driver == "psycopg":
        steps.run("asyncpg", asynchronous)
    for type_name, column_type in KINDS.items():
        values = SCALARS[type_name]
        steps.run(f"{driver} {type_name}", scalar, database, type_name, values, column_type)
    steps.run(f"{driver} drop", drop, database)
    with database.begin() as connection:
        connection.execute(sa.text("DROP TABLE counters"))
    database.dispose()
steps.finish()
