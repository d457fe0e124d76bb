"""What callers give, looked at once."""

import decimal
import enum
import fractions

import numpy as np
import pytest

from exmem.errors import CodecError, DataError, InvalidExemplarError, SchemaError
from exmem.tokens.checks import (
    array_of,
    choice,
    fitting,
    flag,
    floats_of,
    index_of,
    label_of,
    plain_json,
    real_number,
    rows_text,
    shown,
    whole_number,
)


def named(value):
    """Name a case; NumPy 1 writes its numbers as Python's are written."""
    return f"{type(value).__name__} {shown(value)}"


class Colour(enum.IntEnum):
    RED = 3


class Silent:
    def __repr__(self):
        raise RuntimeError

    def __index__(self):
        raise KeyError("index")


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3), Colour.RED], ids=named)
def test_whole_numbers_of_any_origin_become_an_int(value):
    assert (index_of(value), type(whole_number(value, "n"))) == (3, int)


@pytest.mark.parametrize(
    "value",
    [True, np.True_, np.array(True), 3.0, np.float64(3), "3", None, [3], np.array([3, 4]), np.ma.masked, 1j, Silent()],
    ids=named,
)
def test_what_is_no_whole_number_is_none(value):
    assert index_of(value) is None
    with pytest.raises(SchemaError, match="n must be an integer of 0"):
        whole_number(value, "n")
    with pytest.raises(DataError, match="label must be an integer of 64 bits"):
        label_of(value, error=DataError)


def test_whole_numbers_have_bounds():
    assert [whole_number(value, "n", least=-1, most=1) for value in (-1, 0, 1)] == [-1, 0, 1]
    for value in (-2, 2, 2**64, 10**5000):
        with pytest.raises(CodecError, match=r"n must be an integer of -1\.\.1, got"):
            whole_number(value, "n", least=-1, most=1, error=CodecError)
    assert [label_of(value) for value in (-(2**63), 2**63 - 1)] == [-(2**63), 2**63 - 1]
    for value in (-(2**63) - 1, 2**63):
        with pytest.raises(SchemaError):
            label_of(value)


@pytest.mark.parametrize(
    "value", [2, 2.0, np.float16(2), np.array(2.0), fractions.Fraction(4, 2), np.uint8(2)], ids=named
)
def test_real_numbers_of_any_origin_become_a_float(value):
    assert (real_number(value, "n"), type(real_number(value, "n"))) == (2.0, float)


@pytest.mark.parametrize(
    "value",
    [
        "2",
        b"2",
        True,
        np.False_,
        None,
        1j,
        [2.0],
        np.array([2.0]),
        float("nan"),
        np.float32("nan"),
        10**400,
        np.datetime64("2020"),
        np.timedelta64(1, "s"),
        np.ma.masked,
        np.ma.array(1.0, mask=True),
        decimal.Decimal("NaN"),
    ],
    ids=named,
)
def test_what_is_no_real_number_is_refused(value):
    with pytest.raises(SchemaError, match="n must be a number that is not NaN, got"):
        real_number(value, "n")


def test_infinity_is_a_number():
    assert real_number(float("-inf"), "n") == -np.inf
    assert floats_of([1, float("inf")], "n", error=SchemaError).tolist() == [1.0, np.inf]


def test_arrays_are_not_copied_and_what_is_none_is_named():
    array = np.zeros(3)
    assert array_of(array, "a", error=SchemaError) is array
    for value in ([[1], [1, 2]], np.ma.array([1, 2], mask=[0, 1])):
        with pytest.raises(InvalidExemplarError, match="a: "):
            array_of(value, "a", error=InvalidExemplarError)
    assert array_of(np.ma.array([1, 2]), "a", error=SchemaError).tolist() == [1, 2]
    for value in ("x", ["1"], [True], [None], [float("nan")], np.array(["2020"], "M8[D]")):
        with pytest.raises(SchemaError, match="a: expected numbers"):
            floats_of(value, "a", error=SchemaError)


def test_what_fits_a_dtype_is_cast_and_nothing_else():
    assert fitting([1, 255], "uint8", (2,), "a", error=SchemaError).dtype == np.uint8
    assert fitting(1, "float16", (), "a", error=SchemaError) == 1.0
    for value in ([1, 256], [1, -1], [1.0, 2.0], [1], ["1", "2"]):
        with pytest.raises(SchemaError, match="a: expected"):
            fitting(value, "uint8", (2,), "a", error=SchemaError)


def test_choices_and_flags_take_nothing_that_is_only_like_them():
    choice("a", "letter", ("a", "b"))
    assert [flag(np.True_, "f"), flag(False, "f")] == [True, False]
    for value in ("c", ["a"], None, np.array(["a", "b"]), b"a"):
        with pytest.raises(SchemaError, match=r"unknown letter .*; choose one of \['a', 'b'\]"):
            choice(value, "letter", ("b", "a"))
        with pytest.raises(SchemaError, match="f must be True or False"):
            flag(value, "f")


def test_plain_json_is_copied_and_all_else_refused():
    deep, inner = [], []
    for _ in range(64):
        deep = [deep]
    given = {"a": inner, "b": (1, 2.5, None, True, "\u00e9"), "c": deep[0]}
    copied = plain_json(given, "j")
    inner.append(1)
    assert (copied["a"], copied["b"]) == ([], [1, 2.5, None, True, "\u00e9"])
    circle: list = []
    circle.append(circle)
    wrong = [
        {1: 2},
        {"a": {None: 1}},
        float("nan"),
        object(),
        {1, 2},
        "\ud800",
        {"\ud800": 1},
        [deep],
        circle,
        10**5000,
        b"x",
    ]
    for value in wrong:
        with pytest.raises(SchemaError, match="j: expected"):
            plain_json(value, "j")


def test_what_is_echoed_is_cut_and_never_fails():
    assert shown("x") == "'x'"
    assert [len(shown(value)) for value in ("x" * 10**6, b"x" * 10**6, [*range(1000)])] == [80, 80, 80]
    assert [shown(10**5000), shown(Silent())] == ["<int>", "<Silent>"]
    assert [rows_text(()), rows_text((2, 3))] == ["(K,)", "(K, 2, 3)"]
