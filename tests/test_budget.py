import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exmem.budget import Quota, class_quotas, format_bytes, parse_bytes
from exmem.errors import SchemaError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (17, 17),
        ("18", 18),
        ("64MB", 64_000_000),
        ("64 mb", 64_000_000),
        ("1.5 GiB", 1_610_612_736),
        ("0.1kB", 100),
        (".5 KiB", 512),
    ],
)
def test_parse_bytes_reads_decimal_and_binary_units(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", -2, 1.5, "1e6", "5 parsecs", None, True])
def test_parse_bytes_refuses_what_is_not_a_size(text):
    with pytest.raises(SchemaError):
        parse_bytes(text)


def test_format_bytes_is_exact_below_ten_thousand():
    assert [format_bytes(size) for size in (0, 9_999, 10_000, 999_999, 1_500_000, 64_000_000)] == [
        "0 B",
        "9,999 B",
        "10.0 kB",
        "1.00 MB",
        "1.50 MB",
        "64.0 MB",
    ]


def test_class_quotas_lend_what_a_small_class_does_not_use():
    assert class_quotas({7: 100, 3: 10, 5: 100}, 110) == {3: 10, 5: 50, 7: 50}


@given(st.dictionaries(st.integers(0, 50), st.integers(0, 10_000)), st.integers(0, 100_000))
def test_quota_never_loses_or_invents_a_byte(used, total):
    quotas = class_quotas(used, total)
    assert sum(quotas.values()) == min(total, sum(used.values()))
    assert all(0 <= quotas[label] <= used[label] for label in used)
    cut = [quotas[label] for label in used if quotas[label] < used[label]]
    assert not cut or max(cut) - min(cut) <= 1  # those that are cut get the same, but for bytes that do not divide
    assert all(quotas[label] <= min(cut, default=10_000) + 1 for label in used if quotas[label] == used[label] if cut)


WEIGHTS = st.dictionaries(st.integers(0, 50), st.floats(1e-12, 1e12))


@given(st.dictionaries(st.integers(0, 50), st.integers(0, 10_000)), st.integers(0, 100_000), WEIGHTS)
def test_weighted_quotas_never_lose_or_invent_a_byte_either(used, total, weights):
    quotas = class_quotas(used, total, weights)
    assert sum(quotas.values()) == min(total, sum(used.values()))
    assert all(0 <= quotas[label] <= used[label] for label in used)
    # Those that are cut are within a byte of one level; no class that is not cut is above it.
    load = {label: 1 / Fraction(weights.get(label, 1.0)) for label in used}
    cut = [label for label in used if quotas[label] < used[label]]
    lowest = min(((quotas[label] + 1) * load[label] for label in cut), default=None)
    assert lowest is None or all((quotas[label] - (label in cut)) * load[label] <= lowest for label in used)


def test_weighted_quotas_worked_by_hand():
    # Class 1 wants less than its share of 60; of the rest class 2 gets twice what class 3 gets; one byte is left over.
    assert class_quotas({1: 10, 2: 100, 3: 100}, 101, {1: 3.0, 2: 2.0}) == {1: 10, 2: 61, 3: 30}


def test_a_quota_survives_json_and_leaves_out_what_is_one():
    quota = Quota(unit="counts", weights={7: 2, -1: 1, 3: 0.5})
    assert quota.to_json() == {"unit": "counts", "weights": {"3": 0.5, "7": 2.0}}
    assert Quota.from_json(json.loads(json.dumps(quota.to_json()))) == quota
    for described in ({}, [], None, {"unit": "bytes"}, {"unit": "bytes", "weights": [1]}):
        with pytest.raises(SchemaError, match="expected a quota"):
            Quota.from_json(described)
