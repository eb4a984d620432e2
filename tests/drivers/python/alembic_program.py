"""Alembic: a migration generated from models, upgraded, changed, generated again, batch mode, downgraded."""

import io
import os
import pathlib
import tempfile

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.dialects import postgresql as pg

from steps import Steps

URL = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
engine = sa.create_engine(URL)
scratch = tempfile.TemporaryDirectory()
folder = pathlib.Path(scratch.name) / "migrations"


def first():
    metadata = sa.MetaData()
    sa.Table(
        "customer",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(40), nullable=False, comment="on letters"),
        sa.Column("mail", sa.Text, unique=True),
        sa.Column("balance", sa.Numeric(12, 2), server_default="0", nullable=False),
        sa.Column("born", sa.Date, index=True),
        sa.Column("made", sa.DateTime(timezone=True), server_default=sa.func.now()),
        sa.Column("key", sa.Uuid, server_default=sa.text("gen_random_uuid()")),
        sa.Column("extra", pg.JSONB),
        sa.Column("tags", pg.ARRAY(sa.Text)),
        sa.CheckConstraint("balance >= -100", name="solvent"),
        comment="who buys",
    )
    sa.Table(
        "purchase",
        metadata,
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("customer_id", sa.ForeignKey("customer.id", ondelete="CASCADE", name="purchase_customer"), nullable=False),
        sa.Column("item", sa.Text, nullable=False),
        sa.Column("quantity", sa.SmallInteger, server_default="1"),
        sa.UniqueConstraint("customer_id", "item", name="purchase_once"),
        sa.Index("purchase_by_item", "item", "quantity"),
    )
    return metadata


def second():
    metadata = first()
    customer, purchase = metadata.tables["customer"], metadata.tables["purchase"]
    customer.append_column(sa.Column("name", sa.String(80), nullable=True, comment="on envelopes"), replace_existing=True)
    customer.append_column(sa.Column("active", sa.Boolean, server_default=sa.true(), nullable=False))
    purchase.append_column(sa.Column("quantity", sa.Integer, server_default="2"), replace_existing=True)
    metadata.remove(purchase)
    sa.Table("club", metadata, sa.Column("name", sa.String, primary_key=True), sa.Column("founder", sa.ForeignKey("customer.id")))
    return metadata


def configuration():
    config = Config(output_buffer=io.StringIO(), stdout=io.StringIO())
    config.set_main_option("script_location", str(folder))
    config.set_main_option("sqlalchemy.url", URL)
    return config


def generate(metadata, message):
    with engine.connect() as connection:
        config = configuration()
        config.attributes.update(connection=connection, metadata=metadata)
        command.revision(config, message=message, autogenerate=True)


ENV = """
from alembic import context
from sqlalchemy import engine_from_config

config = context.config
metadata = config.attributes.get("metadata")
if context.is_offline_mode():
    context.configure(url=config.get_main_option("sqlalchemy.url"), literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = engine_from_config(config.get_section(config.config_ini_section) or {}, "sqlalchemy.",
                                url=config.get_main_option("sqlalchemy.url"))
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=metadata, compare_server_default=True)
        with context.begin_transaction():
            context.run_migrations()
"""


def difference(metadata):
    with engine.connect() as connection:
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_server_default": True}), metadata)


def upgrade():
    folder.mkdir()
    (folder / "versions").mkdir()
    (folder / "env.py").write_text(ENV)
    template = pathlib.Path(command.__file__).parent / "templates/generic/script.py.mako"
    (folder / "script.py.mako").write_text(template.read_text())
    generate(first(), "first")
    command.upgrade(configuration(), "head")
    assert difference(first()) == [], difference(first())
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO customer (name, mail) VALUES ('Ann', 'a@example.org')"))
        connection.execute(sa.text("INSERT INTO purchase (customer_id, item) VALUES (1, 'jar')"))


def change():
    generate(second(), "second")
    found = {d[0] if isinstance(d, tuple) else d[0][0] for d in difference(second())}
    assert {"remove_table", "add_table", "add_column", "modify_type"} <= found, found
    command.upgrade(configuration(), "head")
    assert difference(second()) == [], difference(second())
    offline = configuration()
    command.upgrade(offline, "head", sql=True)
    assert "CREATE TABLE purchase" in offline.output_buffer.getvalue()


def operations():
    with engine.begin() as connection:
        op = Operations(MigrationContext.configure(connection))
        with op.batch_alter_table("club") as batch:
            batch.add_column(sa.Column("since", sa.Date))
            batch.alter_column("since", new_column_name="founded", existing_type=sa.Date)
            batch.create_unique_constraint("club_once", ["founder", "founded"])
            batch.create_check_constraint("club_named", "name <> ''")
        op.create_index("club_by_founder", "club", ["founder", sa.text("founded DESC")], if_not_exists=True)
        op.bulk_insert(sa.table("club", sa.column("name"), sa.column("founder")), [{"name": "chess", "founder": 1}])
        op.alter_column("club", "founded", type_=sa.Text, postgresql_using="founded::text")
        op.execute("COMMENT ON COLUMN club.name IS 'its name'")
        op.rename_table("club", "society")
        op.drop_constraint("club_once", "society", type_="unique")
        op.create_table_comment("society", "a club")
        op.rename_table("society", "club")
    indexes = {i["name"]: i for i in sa.inspect(engine).get_indexes("club")}
    assert set(indexes) == {"club_by_founder"}, indexes
    with engine.begin() as connection:
        op = Operations(MigrationContext.configure(connection))
        op.drop_index("club_by_founder", table_name="club")
        op.drop_column("club", "founded")
        op.drop_constraint("club_named", "club")


def downgrade():
    command.downgrade(configuration(), "-1")
    assert difference(first()) == [], difference(first())
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT name FROM customer")) == "Ann"
    command.stamp(configuration(), "head")
    command.stamp(configuration(), "base")
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE purchase, customer, alembic_version"))


steps = Steps()
for step in (upgrade, change, operations, downgrade):
    steps.run(step.__name__, step)
engine.dispose()
steps.finish()
