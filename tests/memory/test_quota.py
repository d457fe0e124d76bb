"""How classes share a budget: bytes shared out, weights, and who loses first in a memory."""

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exmem import ExemplarMemory
from exmem.errors import ReadOnlyError, SchemaError
from exmem.memory.quota import Quota, class_quotas
from tests.exemplars import exemplar, schema
from tests.memory.reference_eviction import eviction_order

OPTIONS = {"durable": False, "threads": 1}


def create(folder, *, max_bytes, codec="patch_jpeg", **options):
    return ExemplarMemory.create(folder, schema=schema(codec), max_bytes=max_bytes, **OPTIONS, **options)


def counts(memory):
    return {label: held.exemplars for label, held in memory.summary().items()}


# Shares ------------------------------------------------------------------------------------------------------------


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


# In a memory ---------------------------------------------------------------------------------------------------------


def test_equal_counts_hold_as_many_large_exemplars_as_small_ones(tmp_path):
    for quota, even in (("bytes", False), ("counts", True)):
        with create(tmp_path / quota, max_bytes="200kB", codec="raw", quota=quota) as memory:
            memory.add([exemplar(seed, label=0, priority=-seed, kept=15) for seed in range(40)])
            memory.add([exemplar(seed, label=1, priority=-seed, kept=5) for seed in range(40)])
            held = counts(memory)
            assert (abs(held[0] - held[1]) <= 1) == even
            assert held[1] > 1.5 * held[0] or even


def test_weights_share_by_frequency_and_a_class_that_wants_less_lends_the_rest(tmp_path):
    with create(tmp_path, max_bytes="200kB", codec="raw", quota="counts") as memory:
        memory.weigh({0: 30, 1: 10, 2: 400})
        memory.add([exemplar(seed, label=seed % 2, priority=-seed, kept=9) for seed in range(100)])
        memory.add([exemplar(seed, label=2, priority=-seed, kept=9) for seed in range(3)])
        held = counts(memory)
        assert held[2] == 3
        assert abs(held[0] - 3 * held[1]) <= 3  # one exemplar of the smaller class is three of the larger


def test_the_order_of_eviction_is_the_reference_order_of_the_quota(tmp_path):
    quota = Quota(unit="bytes", weights={0: 3, 2: 0.5})
    with create(tmp_path, max_bytes="300kB") as memory:
        memory.weigh(quota.weights)
        memory.add([exemplar(seed, label=seed % 3, priority=(7 * seed) % 11) for seed in range(90)])
        memory.commit()
        order = memory.slots[eviction_order(memory.labels, memory.priorities, memory.sizes, quota)]
        gone = memory.resize("30kB")
        assert len(gone) > 10
        assert sorted(order[: len(gone)].tolist()) == gone.tolist()


def test_a_function_gets_the_summary_and_its_weights_are_stored(tmp_path):
    with create(tmp_path, max_bytes="200kB") as memory:
        memory.add([exemplar(seed, label=min(seed, 1)) for seed in range(6)])
        memory.weigh({1: 8, 4: 2})
        memory.weigh(lambda summary: {label: held.exemplars for label, held in summary.items()})
        assert memory.quota == Quota(weights={1: 5, 4: 2})  # class 0: one exemplar, weight 1 is not written


def test_the_quota_holds_after_reopening_and_readers_see_it_after_refresh(tmp_path):
    quota = Quota(unit="counts", weights={-5: 0.25, 2**62: 7})
    memory, reader = create(tmp_path, max_bytes="100kB", quota="counts"), ExemplarMemory.open(tmp_path)
    memory.weigh(quota.weights)
    assert reader.quota == Quota(unit="counts")
    reader.refresh()
    assert reader.quota == quota
    memory.close()
    assert ExemplarMemory.open(tmp_path).quota == quota
    with ExemplarMemory.open(tmp_path, mode="r+", **OPTIONS) as memory:
        memory.resize("90kB")
        memory.charge("means", 10)
        memory.weigh({2**62: 1})
    assert ExemplarMemory.open(tmp_path).quota == Quota(unit="counts", weights={-5: 0.25})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({0: 0}, r"weight of class 0: expected 1e-12\.\.1000000000000\.0, got 0"),
        ({0: -1.0}, "got -1.0"),
        ({0: float("nan")}, "got nan"),
        ({0: float("inf")}, "got inf"),
        ({0: 1e-13}, "got 1e-13"),
        ({0: "3"}, "got '3'"),
        ({0: True}, "got True"),
        ({0: None}, "got None"),
        ({"cat": 1}, "label of a weight must be an integer of 64 bits, got 'cat'"),
        ({2**63: 2}, "64 bits"),
        ({True: 2}, "64 bits"),
    ],
)
def test_what_is_no_weight_is_refused_and_nothing_changed(tmp_path, weights, message):
    with create(tmp_path, max_bytes="60kB") as memory:
        memory.weigh({5: 3})
        with pytest.raises(SchemaError, match=message):
            memory.weigh({4: 2.0} | weights)
        assert memory.quota == Quota(weights={5: 3})


def test_quotas_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(SchemaError, match=r"unknown quota 'tokens'; choose one of \['bytes', 'counts'\]"):
        create(tmp_path, max_bytes="60kB", quota="tokens")
    with pytest.raises(SchemaError, match="knows no classes"):
        create(tmp_path, max_bytes="60kB", quota="counts", eviction="by_priority")
    with create(tmp_path, max_bytes="60kB", eviction="by_priority") as memory:
        with pytest.raises(SchemaError, match="knows no classes"):
            memory.weigh({1: 2})
        with pytest.raises(ReadOnlyError):
            ExemplarMemory.open(tmp_path).weigh({1: 2})
