"""The models of django_program.py."""

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q


class Kinds(models.Model):
    """One column of every kind of field."""

    flag = models.BooleanField(default=False)
    maybe = models.BooleanField(null=True)
    small = models.SmallIntegerField(default=1)
    natural = models.PositiveIntegerField(default=1)
    integer = models.IntegerField(db_index=True, default=0)
    big = models.BigIntegerField(default=0)
    ratio = models.FloatField(default=0)
    price = models.DecimalField(max_digits=12, decimal_places=2, default=0)
    name = models.CharField(max_length=40, db_index=True, default="")
    slug = models.SlugField(null=True, unique=True)
    mail = models.EmailField(blank=True, default="")
    link = models.URLField(blank=True, default="")
    text = models.TextField(blank=True, default="")
    day = models.DateField(null=True)
    clock = models.TimeField(null=True)
    made = models.DateTimeField(auto_now_add=True)
    lasts = models.DurationField(null=True)
    key = models.UUIDField(default=uuid.uuid4, unique=True)
    blob = models.BinaryField(null=True)
    extra = models.JSONField(default=dict)
    tags = ArrayField(models.CharField(max_length=20), default=list)

    class Meta:
        db_table_comment = "one of each"


class Customer(models.Model):
    name = models.CharField(max_length=40, db_comment="as it is written on letters")
    mail = models.EmailField(unique=True)
    balance = models.DecimalField(max_digits=12, decimal_places=2, default=0)
    born = models.DateField(null=True, blank=True)

    class Meta:
        ordering = ["name"]
        indexes = [
            models.Index(fields=["name", "-born"], name="customer_by_name"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(balance__gte=-100), name="customer_solvent"),
            models.UniqueConstraint(fields=["name", "born"], name="customer_once"),
        ]


class Tag(models.Model):
    name = models.CharField(max_length=20, primary_key=True)


class Item(models.Model):
    name = models.CharField(max_length=40)
    price = models.DecimalField(max_digits=8, decimal_places=2)
    tags = models.ManyToManyField(Tag, related_name="items")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["name"], name="item_once"),
        ]


class Order(models.Model):
    class State(models.TextChoices):
        OPEN = "open"
        PAID = "paid"

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="orders")
    state = models.CharField(max_length=8, choices=State.choices, default=State.OPEN)
    placed = models.DateTimeField()
    parent = models.ForeignKey("self", null=True, on_delete=models.SET_NULL)


class Line(models.Model):
    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    item = models.ForeignKey(Item, on_delete=models.PROTECT)
    quantity = models.IntegerField(default=1)
    price = models.DecimalField(max_digits=8, decimal_places=2)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["order", "item"], name="line_once"),
        ]


class Job(models.Model):
    name = models.CharField(max_length=20)
    done = models.BooleanField(db_default=False)
