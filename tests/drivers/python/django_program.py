"""Django as a user runs it: makemigrations, migrate, the ORM, inspectdb, flush; an altered model; migrate back."""

import contextlib
import datetime as dt
import importlib
import io
import os
import pathlib
import sys
import tempfile
import threading
import uuid
from decimal import Decimal

import django
from django.conf import settings

from steps import Steps

scratch = tempfile.TemporaryDirectory()
sys.path.insert(0, scratch.name)
(pathlib.Path(scratch.name) / "shop_migrations").mkdir()
(pathlib.Path(scratch.name) / "shop_migrations/__init__.py").touch()

settings.configure(
    SECRET_KEY="unasked",
    USE_TZ=True,
    TIME_ZONE="Europe/Vienna",
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.postgres",
        "django.contrib.sessions",
        "django.contrib.sites",
        "shop",
    ],
    MIGRATION_MODULES={"shop": "shop_migrations"},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": os.environ["PGHOST"],
            "PORT": os.environ["PGPORT"],
            "USER": os.environ["PGUSER"],
            "PASSWORD": os.environ["PGPASSWORD"],
            "NAME": os.environ["PGDATABASE"],
            "OPTIONS": {"server_side_binding": os.environ.get("SERVER_SIDE_BINDING") == "1"},
        }
    },
)
django.setup()

from django.contrib.auth.models import Group, Permission, User  # noqa: E402
from django.contrib.contenttypes.models import ContentType  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.management.color import no_style  # noqa: E402
from django.db import DatabaseError, IntegrityError, connection, connections, models, transaction  # noqa: E402
from django.db.models import (  # noqa: E402
    Avg, Case, Count, DecimalField, Exists, F, Max, Min, OuterRef, Prefetch, Q, StdDev, Subquery, Sum, Value, When,
    Window,
)
from django.db.models.functions import (  # noqa: E402
    Coalesce, Concat, ExtractYear, Greatest, JSONObject, Length, Lower, Now, Rank, RowNumber, StrIndex, Substr, TruncDay,
    TruncMonth, Upper,
)

from shop.models import Customer, Item, Job, Kinds, Line, Order, Tag  # noqa: E402

UTC = dt.timezone.utc


def command(*arguments, **options):
    out = io.StringIO()
    call_command(*arguments, stdout=out, **options)
    return out.getvalue()


def migrate():
    command("makemigrations", "shop")
    importlib.invalidate_caches()
    command("migrate")
    assert "[ ]" not in command("showmigrations")
    assert "No changes" in command("makemigrations", "shop")
    command("migrate")
    assert Permission.objects.filter(codename="add_customer").exists()


def contributed():
    ann = User.objects.create_user("ann", "ann@example.org", "secret")
    ann.groups.add(Group.objects.create(name="editors"))
    ann.user_permissions.add(*Permission.objects.filter(content_type__app_label="shop")[:5])
    assert ann.has_perm("shop." + ann.user_permissions.first().codename)
    assert ContentType.objects.get_for_model(Customer).model == "customer"
    session = SessionStore()
    session["cart"] = [1, 2]
    session.save()
    assert SessionStore(session.session_key)["cart"] == [1, 2]
    assert User.objects.filter(groups__name="editors", username__istartswith="AN").count() == 1


def kinds():
    wrote = Kinds(
        flag=True, small=-5, natural=7, integer=2**31 - 1, big=-(2**63), ratio=1.5, price=Decimal("12.30"), name="ü",
        slug="a-b", mail="a@example.org", text="long\n", day=dt.date(2024, 2, 29), clock=dt.time(1, 2, 3, 4),
        lasts=dt.timedelta(days=3, seconds=1.5), blob=b"\0\xff", extra={"a": [1, {"b": None}], "c": "x"},
        tags=["x", "y, z"],
    )  # fmt: skip
    wrote.save()
    read = Kinds.objects.get(pk=wrote.pk)
    for field in Kinds._meta.fields:
        value = getattr(read, field.name)
        value = bytes(value) if isinstance(value, memoryview) else value
        assert value == getattr(wrote, field.name), (field.name, value)
    found = [
        Q(extra__a__0=1), Q(extra__c="x"), Q(extra__has_key="a"), Q(extra__contains={"c": "x"}), Q(extra__a__1__b=None),
        Q(tags__contains=["x"]), Q(tags__overlap=["x", "q"]), Q(tags__len=2), Q(tags__0="x"), Q(key=wrote.key),
        Q(day__year=2024), Q(day__week_day=5), Q(made__date__gte=dt.date(2020, 1, 1)), Q(lasts__gt=dt.timedelta(days=1)),
        Q(name__iexact="Ü"), Q(text__regex=r"^lo.g"), Q(text__iregex="LONG"), Q(mail__endswith="org"), Q(maybe=None),
        Q(clock__hour=1), Q(price__range=(12, 13)), Q(name__in=["ü", "u"]), Q(slug__contains="-"),
    ]  # fmt: skip
    for condition in found:
        assert Kinds.objects.filter(condition).count() == 1, condition
        assert Kinds.objects.exclude(condition).count() == 0, condition
    try:
        Kinds.objects.filter(pk=wrote.pk).update(natural=-1)
        raise AssertionError("a natural number below zero")
    except IntegrityError as error:
        assert "shop_kinds_natural_check" in str(error)


def fill():
    Tag.objects.bulk_create([Tag(name=n) for n in ("glass", "small", "new")])
    jar, lid, cup = Item.objects.bulk_create(
        [Item(name="jar", price="5.00"), Item(name="lid", price="1.25"), Item(name="cup", price="3.10")]
    )
    jar.tags.set(["glass", "new"])
    cup.tags.add("small")
    ann = Customer.objects.create(name="Ann", mail="Ann@example.org", born=dt.date(1980, 2, 29))
    bob = Customer.objects.create(name="Bob", mail="bob@example.org", balance=10)
    for day, customer in ((1, ann), (15, ann), (40, bob)):
        order = Order.objects.create(customer=customer, placed=dt.datetime(2024, 1, 1, tzinfo=UTC) + dt.timedelta(days=day))
        Line.objects.create(order=order, item=jar, quantity=day, price=jar.price)
        Line.objects.create(order=order, item=lid, quantity=2, price=lid.price)


def queries():
    totals = Customer.objects.annotate(
        n=Count("orders", distinct=True), spent=Coalesce(Sum(F("orders__lines__quantity") * F("orders__lines__price")), 0, output_field=DecimalField())
    )
    assert [(c.name, c.n, c.spent) for c in totals] == [("Ann", 2, Decimal("85.00")), ("Bob", 1, Decimal("202.50"))]
    figures = Line.objects.aggregate(
        Sum("quantity"), Avg("price"), Min("price"), StdDev("quantity"),
        total__max=Max(F("quantity") * F("price"), output_field=DecimalField()),
    )  # fmt: skip
    assert figures["quantity__sum"] == 62 and figures["total__max"] == Decimal("200.00"), figures
    line = Line.objects.select_related("order__customer", "item").order_by("-quantity").first()
    with forbidden():
        assert (line.order.customer.name, line.item.name) == ("Bob", "jar")
    lines = Prefetch("lines", queryset=Line.objects.filter(quantity__gt=1).order_by("id"), to_attr="many")
    people = list(Customer.objects.prefetch_related(Prefetch("orders", Order.objects.prefetch_related(lines).order_by("id"))))
    with forbidden():
        assert [len(o.many) for c in people for o in c.orders.all()] == [1, 2, 2]
    assert Line.objects.filter(quantity__gt=F("price")).count() == 5
    assert Customer.objects.filter(Q(name="Ann") | ~Q(balance=0)).count() == 2
    assert Customer.objects.filter(orders__lines__item__tags__name="new").distinct().count() == 2
    newest = Order.objects.filter(customer=OuterRef("pk")).order_by("-placed")
    rows = Customer.objects.annotate(last=Subquery(newest.values("placed")[:1]), any=Exists(newest))
    assert [(r.last.day, r.any) for r in rows] == [(16, True), (10, True)]
    ranked = Line.objects.annotate(
        place=Window(Rank(), partition_by=F("item"), order_by=F("quantity").desc()), at=Window(RowNumber(), order_by="id")
    )
    assert [line.place for line in ranked.filter(item__name="jar").order_by("id")] == [3, 2, 1]
    assert ranked.filter(place=1).count() == 4
    by_month = Order.objects.annotate(month=TruncMonth("placed")).values("month").annotate(n=Count("id")).order_by("month")
    assert [(r["month"].month, r["n"]) for r in by_month] == [(1, 2), (2, 1)]
    days = Order.objects.annotate(day=TruncDay("placed"), year=ExtractYear("placed")).values_list("day", "year")
    assert sorted((d.day, y) for d, y in days) == [(2, 2024), (10, 2024), (16, 2024)]
    assert list(Order.objects.dates("placed", "month")) == [dt.date(2024, 1, 1), dt.date(2024, 2, 1)]
    size = Case(When(quantity__gte=15, then=Value("many")), When(quantity=1, then=Value("one")), default=Value("few"))
    sizes = Line.objects.annotate(size=size).values("size").annotate(n=Count("pk")).order_by("size")
    assert [(s["size"], s["n"]) for s in sizes] == [("few", 3), ("many", 2), ("one", 1)]
    texts = Customer.objects.annotate(
        a=Concat(Upper("name"), Value(" <"), Lower("mail"), Value(">"), output_field=models.TextField()), b=Length("name"), c=Substr("mail", 1, 3),
        d=StrIndex("mail", Value("@")), e=JSONObject(n="name", b="balance"), f=Greatest("balance", Value(Decimal(5))),
    ).values_list("a", "b", "c", "d", "e", "f").first()  # fmt: skip
    assert texts == ("ANN <ann@example.org>", 3, "Ann", 4, {"n": "Ann", "b": 0}, 5), texts
    both = Customer.objects.values_list("name").union(Item.objects.values_list("name")).order_by("name")
    assert [n for (n,) in both] == ["Ann", "Bob", "cup", "jar", "lid"]
    assert Order.objects.order_by("customer_id", "-placed").distinct("customer_id").count() == 2
    assert Customer.objects.order_by(F("born").asc(nulls_first=True)).first().name == "Bob"
    assert list(Customer.objects.order_by("-name")[1:2].values_list("name", flat=True)) == ["Ann"]
    assert Customer.objects.in_bulk(["bob@example.org"], field_name="mail")["bob@example.org"].name == "Bob"
    assert Item.objects.alias(n=Count("tags")).filter(n=0).get().name == "lid"
    raw = Customer.objects.raw("SELECT id, name, 7 AS seven FROM shop_customer WHERE name LIKE %s", ["A%"])
    assert [(c.name, c.seven) for c in raw] == [("Ann", 7)]
    assert "Scan" in Customer.objects.filter(name="Ann").explain(analyze=True)
    assert len(list(Permission.objects.all().iterator(chunk_size=10))) > 40


def aggregates():
    from django.contrib.postgres.aggregates import ArrayAgg, BoolOr, JSONBAgg, StringAgg

    row = Item.objects.aggregate(
        a=ArrayAgg("name", ordering="name"), b=StringAgg("name", ", ", ordering="-name"), d=BoolOr(Q(price__gt=4)),
        c=JSONBAgg("price", ordering="price"),
    )  # fmt: skip
    row |= Item.objects.aggregate(e=ArrayAgg("tags", distinct=True, filter=Q(tags__isnull=False)))
    assert row["a"] == ["cup", "jar", "lid"] and row["b"] == "lid, jar, cup" and row["c"] == [1.25, 3.1, 5], row
    assert row["d"] is True and sorted(row["e"]) == ["glass", "new", "small"], row


@contextlib.contextmanager
def forbidden():
    """No query is made inside."""

    def refuse(*_):
        raise AssertionError("a query more")

    with connection.execute_wrapper(refuse):
        yield


def writes():
    Job.objects.bulk_create([Job(name=f"job {i}") for i in range(250)], batch_size=100)
    assert Job.objects.filter(done=False).count() == 250
    jobs = list(Job.objects.order_by("id")[:20])
    for i, job in enumerate(jobs):
        job.name = f"new {i}"
    assert Job.objects.bulk_update(jobs, ["name"], batch_size=7) == 20
    assert Job.objects.filter(name__startswith="new").count() == 20
    Tag.objects.bulk_create([Tag(name="new"), Tag(name="old")], ignore_conflicts=True)
    for balance in (1, 2):
        Customer.objects.bulk_create(
            [Customer(name="Cid", mail="cid@example.org", balance=balance)],
            update_conflicts=True, unique_fields=["mail"], update_fields=["balance", "name"],
        )  # fmt: skip
    assert Customer.objects.get(mail="cid@example.org").balance == 2
    cid, created = Customer.objects.update_or_create(mail="cid@example.org", defaults={"name": "Sid"})
    assert not created and cid.name == "Sid"
    assert Customer.objects.get_or_create(mail="dan@example.org", defaults={"name": "Dan"})[1]
    assert Customer.objects.filter(mail="cid@example.org").update(balance=F("balance") * 2 + 1) == 1
    cid.refresh_from_db()
    assert cid.balance == 5
    cid.balance = F("balance") - 1
    cid.save()
    assert Customer.objects.filter(name__in=["Sid", "Dan"]).delete() == (2, {"shop.Customer": 2})
    for wrong in (
        lambda: Customer.objects.create(name="Eve", mail="bob@example.org"),
        lambda: Customer.objects.filter(name="Bob").update(balance=-1000),
        lambda: Item.objects.create(name="jar", price=1),
        lambda: Order.objects.create(customer_id=12345678, placed=dt.datetime.now(UTC)),
    ):
        try:
            with transaction.atomic():
                wrong()
                connection.check_constraints()
            raise AssertionError("no IntegrityError")
        except IntegrityError as error:
            assert "customer_solvent" in str(error) or "violates" in str(error), error
    try:
        Item.objects.get(name="jar").delete()
        raise AssertionError("protected")
    except models.ProtectedError:
        pass


def transactions():
    try:
        with transaction.atomic():
            Tag.objects.create(name="gone")
            with transaction.atomic():
                Tag.objects.create(name="too")
            raise KeyError
    except KeyError:
        assert not Tag.objects.filter(name__in=["gone", "too"]).exists()
    after = []
    with transaction.atomic():
        Tag.objects.create(name="kept")
        transaction.on_commit(lambda: after.append(1))
        with contextlib.suppress(IntegrityError), transaction.atomic():
            Tag.objects.bulk_create([Tag(name="kept")])
        mark = transaction.savepoint()
        Tag.objects.all().delete()
        transaction.savepoint_rollback(mark)
    assert after == [1] and Tag.objects.filter(name="kept").exists()
    try:
        with transaction.atomic():
            with contextlib.suppress(DatabaseError):
                Tag.objects.raw("SELECT no_such_column FROM shop_tag")[0]
            Tag.objects.count()
        raise AssertionError("the transaction goes on")
    except DatabaseError as error:
        assert "aborted" in str(error), error


def queue():
    """Workers take jobs past those that others hold."""
    taken, lock = [], threading.Lock()

    def work():
        try:
            while True:
                with transaction.atomic():
                    jobs = Job.objects.select_for_update(skip_locked=True).filter(done=False).order_by("id")[:25]
                    mine = [job.pk for job in jobs]
                    if not mine:
                        return
                    assert Job.objects.filter(pk__in=mine).update(done=True) == len(mine)
                with lock:
                    taken.extend(mine)
        finally:
            connections.close_all()

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(taken) == len(set(taken)) == 250
    with transaction.atomic():
        first = Order.objects.select_for_update(of=("self",), no_key=True).select_related("customer").first()
        failed = []

        def other():
            try:
                with transaction.atomic():
                    Order.objects.select_for_update(nowait=True).get(pk=first.pk)
            except DatabaseError as error:
                failed.append(error.__cause__.sqlstate)
            finally:
                connections.close_all()

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert failed == ["55P03"], failed


def inspect():
    made = command("inspectdb")
    assert "Unable to inspect" not in made, made
    for expected in (
        "class ShopCustomer(models.Model):",
        "mail = models.CharField(unique=True, max_length=254)",
        "balance = models.DecimalField(max_digits=12, decimal_places=2)",
        "customer = models.ForeignKey(ShopCustomer, models.DO_NOTHING)",
        "lasts = models.DurationField(blank=True, null=True)",
        "unique_together = (('name', 'born'),)",
        "db_table_comment = 'one of each'",
        "db_comment='as it is written on letters'",
    ):
        assert expected in made, f"{expected} is not in\n{made}"
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, "shop_customer")
        assert found["customer_solvent"]["check"] and found["customer_once"]["unique"]
        assert found["customer_by_name"]["columns"] == ["name", "born"]
        assert connection.introspection.get_primary_key_column(cursor, "shop_item") == "id"
        sequences = connection.introspection.get_sequences(cursor, "shop_item")
        assert [s["name"] for s in sequences] == ["shop_item_id_seq"], sequences


def alter():
    """The schema editor does what a migration of each kind asks."""
    from django.db import migrations
    from django.db.migrations.state import ProjectState
    from django.db.migrations.loader import MigrationLoader

    state = MigrationLoader(connection).project_state()
    operations = [
        migrations.AddField("tag", "rank", models.IntegerField(default=7)),
        migrations.AlterField("tag", "rank", models.BigIntegerField(null=True, db_index=True)),
        migrations.RunSQL("UPDATE shop_tag SET rank = NULL", ""),
        migrations.AlterField("tag", "rank", models.CharField(max_length=9, null=True, unique=True)),
        migrations.RenameField("tag", "rank", "grade"),
        migrations.AddIndex("tag", models.Index(fields=["grade", "name"], name="tag_by_grade")),
        migrations.RenameIndex("tag", "tag_by_better_grade", old_name="tag_by_grade"),
        migrations.AddConstraint("tag", models.CheckConstraint(condition=~Q(grade="x"), name="tag_grade")),
        migrations.AlterUniqueTogether("job", {("name", "done")}),
        migrations.AlterField("item", "name", models.TextField()),
        migrations.AlterField("order", "parent", models.ForeignKey("shop.Customer", null=True, on_delete=models.CASCADE)),
        migrations.RenameModel("Job", "Task"),
        migrations.AlterModelTable("task", "work"),
        migrations.RunSQL("UPDATE shop_tag SET grade = name", "UPDATE shop_tag SET grade = NULL"),
        migrations.AddField("customer", "favourite", models.ForeignKey("shop.Item", null=True, on_delete=models.SET_NULL)),
        migrations.AddField("item", "liked", models.ManyToManyField("shop.Customer")),
        migrations.AlterModelTableComment("item", "what is sold"),
        migrations.RemoveField("kinds", "maybe"),
        migrations.DeleteModel("Line"),
    ]
    done = []
    for operation in operations:
        after = state.clone()
        operation.state_forwards("shop", after)
        with connection.schema_editor() as editor:
            operation.database_forwards("shop", editor, state, after)
        done.append((operation, state, after))
        state = after
    for operation, before, after in reversed(done):
        if isinstance(operation, migrations.AlterModelTableComment):
            continue
        with connection.schema_editor() as editor:
            operation.database_backwards("shop", editor, after, before)
    assert Job.objects.count() == 250 and Line.objects.count() == 0
    assert isinstance(state, ProjectState)


def leave():
    command("sqlsequencereset", "shop")
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), [Job, Item]):
            cursor.execute(statement)
    assert Job.objects.create(name="one more").pk == 251
    dumped = command("dumpdata", "shop", "auth.group")
    path = pathlib.Path(scratch.name) / "all.json"
    path.write_text(dumped)
    command("flush", interactive=False)
    assert Customer.objects.count() == 0
    command("loaddata", str(path))
    assert Customer.objects.count() == 2 and Kinds.objects.get().tags == ["x", "y, z"]
    command("migrate", "shop", "zero")
    command("migrate", "auth", "0001")
    for app in ("admin", "sessions", "sites", "auth", "contenttypes"):
        command("migrate", app, "zero")
    assert connection.introspection.table_names() == ["django_migrations"]
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE django_migrations")


steps = Steps()
for step in (migrate, contributed, kinds, fill, queries, aggregates, writes, transactions, queue, inspect, alter, leave):
    steps.run(step.__name__, step)
connections.close_all()
steps.finish()
