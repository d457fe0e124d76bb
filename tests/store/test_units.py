"""Sizes in bytes: what is read, what is refused, what is written."""

import numpy as np
import pytest

from exmem.errors import SchemaError
from exmem.store.units import format_bytes, parse_bytes


class Four:
    def __index__(self) -> int:
        return 4

    def __repr__(self) -> str:
        return "Four()"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, 0),
        (10, 10),
        (np.int64(7), 7),
        (np.uint8(255), 255),
        (Four(), 4),
        ("12", 12),
        ("12 B", 12),
        ("64k", 64_000),
        ("64kB", 64_000),
        ("64M", 64_000_000),
        ("64MB", 64_000_000),
        ("1G", 10**9),
        ("2T", 2 * 10**12),
        ("2 tb", 2 * 10**12),
        ("64Ki", 65_536),
        ("64Mi", 64 * 2**20),
        ("1.5 GiB", 3 * 2**29),
        ("1TiB", 2**40),
        (" .5k ", 500),
        ("0.0009k", 0),
        ("1.9", 1),
    ],
    ids=repr,
)
def test_sizes_are_powers_of_1000_or_with_an_i_of_1024(size, expected):
    found = parse_bytes(size)
    assert (found, type(found)) == (expected, int)


@pytest.mark.parametrize("size", [2**63, 10**19, np.uint64(2**63), "10000000 TB", "9" * 30, "8388608 TiB"], ids=repr)
def test_sizes_of_2_to_the_63_and_more_are_refused(size):
    with pytest.raises(SchemaError, match=r"a size in bytes must be an integer of 0\.\.9223372036854775807"):
        parse_bytes(size)
    assert parse_bytes(2**63 - 1) == parse_bytes(str(2**63 - 1)) == 2**63 - 1


@pytest.mark.parametrize("size", [-1, "-1", np.int64(-3)], ids=repr)
def test_negative_sizes_are_refused(size):
    with pytest.raises(SchemaError):
        parse_bytes(size)


@pytest.mark.parametrize(
    "size",
    [
        True,
        False,
        np.True_,
        1.0,
        np.float64(2),
        None,
        b"12",
        "",
        "i",
        "4i",
        "ib",
        "MB",
        "1,000",
        "1e3",
        "5 XB",
        "٣",
        "1 0",
        "9" * 31,
    ],
    ids=repr,
)
def test_what_is_no_size_is_refused_and_named(size):
    with pytest.raises(SchemaError, match="expected bytes") as caught:
        parse_bytes(size)
    assert repr(size) in str(caught.value)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (9_999, "9,999 B"),
        (10_000, "10.0 kB"),
        (999_499, "999 kB"),
        (1_500_000, "1.50 MB"),
        (-12_000, "-12.0 kB"),
    ],
    ids=repr,
)
def test_sizes_are_exact_below_10_kb_and_have_three_digits_above(size, text):
    assert format_bytes(size) == text
