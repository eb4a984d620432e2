"""Every type of the language with values that are hard to carry, as Python has them.

The drivers' programs write each of them and compare what comes back. Lists become one-dimensional arrays of
the type.
"""

import datetime as dt
import uuid
from decimal import Decimal

UTC = dt.timezone.utc
EAST = dt.timezone(dt.timedelta(hours=5, minutes=30))

SCALARS = {
    "boolean": [True, False],
    "smallint": [0, 1, -1, 32767, -32768],
    "integer": [0, 42, 2**31 - 1, -(2**31)],
    "bigint": [0, 2**63 - 1, -(2**63)],
    "real": [0.0, 1.5, -2.25, float("inf"), float("-inf")],
    "double precision": [0.0, 0.1, -1e300, 5e-324, float("inf"), float("-inf")],
    "numeric": [
        Decimal("0"),
        Decimal("0.10"),
        Decimal("-12345678901234567890.123456789012345678901234567890"),
        Decimal("1E+40"),
        Decimal("0.00001"),
        Decimal("NaN"),
    ],
    "text": ["", "plain", "käse 🧀", "a'b\"c\\d\n\te", "NULL", "{}", "x" * 10_000],
    "varchar(20)": ["", "twenty characters ok"],
    "char(5)": ["ab   ", "     "],
    "bytea": [b"", b"\x00\xff\\'", bytes(range(256))],
    "date": [dt.date(2000, 1, 1), dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(1969, 7, 20)],
    "time": [dt.time(0, 0), dt.time(23, 59, 59, 999999), dt.time(12, 34, 56, 789000)],
    "timetz": [dt.time(0, 0, tzinfo=UTC), dt.time(23, 59, 59, 999999, tzinfo=EAST)],
    "timestamp": [
        dt.datetime(2000, 1, 1),
        dt.datetime(1999, 12, 31, 23, 59, 59, 999999),
        dt.datetime(1, 1, 1),
        dt.datetime(9999, 12, 31, 23, 59, 59, 999999),
    ],
    "timestamptz": [
        dt.datetime(2024, 2, 29, 12, 0, tzinfo=UTC),
        dt.datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        dt.datetime(2024, 6, 1, 1, 30, tzinfo=EAST),
    ],
    "interval": [
        dt.timedelta(0),
        dt.timedelta(days=400, hours=5, microseconds=7),
        dt.timedelta(days=-1, seconds=1),
    ],
    "uuid": [uuid.UUID(int=0), uuid.UUID("0123456789abcdef0123456789abcdef")],
    "oid": [0, 23, 2**32 - 1],
}

# What a JSON document may be; each driver has its own way to say that a value is one.
DOCUMENTS = [
    {"k": [1, 2.5, None, "x"], "o": {"deep": True}},
    [],
    "a \"string\" with ü",
    12345678901234567890,
    None,
    False,
]


def same(wrote, read):
    """Whether what was read is what was written; NaN is itself, and list means all of them."""
    if isinstance(wrote, list):
        return isinstance(read, list) and len(wrote) == len(read) and all(map(same, wrote, read))
    if isinstance(wrote, Decimal) and wrote.is_nan():
        return isinstance(read, Decimal) and read.is_nan()
    if isinstance(wrote, Decimal) and isinstance(read, Decimal):
        return wrote == read and (wrote.as_tuple().exponent > 0 or str(wrote) == str(read))
    return isinstance(read, type(wrote)) and wrote == read


def check(wrote, read, what):
    """Fails with both values unless they are the same."""
    if isinstance(read, memoryview):
        read = bytes(read)
    assert same(wrote, read), f"{what}: wrote {wrote!r}, read {read!r}"
