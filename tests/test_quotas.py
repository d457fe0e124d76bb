"""Quotas of a memory: who loses first, what is written down, and what a reduction leaves."""

import json
import shutil

import numpy as np
import pytest

from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec
from exmem.budget import Quota
from exmem.errors import BudgetTooSmallError, ReadOnlyError, SchemaError
from exmem.portable import export_folder, import_folder
from exmem.upkeep import compact
from tests.exemplars import crop, exemplar, folder_bytes, schema
from tests.reference_eviction import eviction_order

OPTIONS = {"durable": False, "threads": 1}


def create(folder, *, max_bytes, codec="patch_jpeg", **options):
    return ExemplarMemory.create(folder, schema=schema(codec), max_bytes=max_bytes, **OPTIONS, **options)


def counts(memory):
    return {label: held.exemplars for label, held in memory.summary().items()}


# What they do ------------------------------------------------------------------------------------------------------


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
        gone = memory.resize("60kB")
        assert len(gone) > 10
        assert sorted(order[: len(gone)].tolist()) == gone.tolist()


@pytest.mark.parametrize("unit", ["bytes", "counts"])
def test_the_quota_of_a_summary_is_all_there_is_and_follows_the_weights(tmp_path, unit):
    with create(tmp_path, max_bytes="100kB", codec="raw", quota=unit) as memory:
        memory.weigh({0: 2})
        memory.add([exemplar(seed, label=seed % 3, priority=-seed, kept=2 + 3 * (seed % 3)) for seed in range(90)])
        summary, sizes = memory.summary(), memory.sizes
        overhead = sum(memory._store.measure()) - int(sizes.sum())
        assert sum(held.quota_bytes for held in summary.values()) == min(100_000 - overhead, int(sizes.sum()))
        assert all(abs(held.payload_bytes - held.quota_bytes) < 2 * sizes.max() for held in summary.values())


def test_a_function_gets_the_summary_and_its_weights_are_stored(tmp_path):
    with create(tmp_path, max_bytes="200kB") as memory:
        memory.add([exemplar(seed, label=min(seed, 1)) for seed in range(6)])
        memory.weigh({1: 8, 4: 2})
        memory.weigh(lambda summary: {label: held.exemplars for label, held in summary.items()})
        assert memory.quota == Quota(weights={1: 5, 4: 2})  # class 0: one exemplar, weight 1 is not written


# What is written down ----------------------------------------------------------------------------------------------


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


def test_a_memory_of_equal_bytes_is_written_as_before_there_were_quotas(tmp_path):
    with create(tmp_path, max_bytes="100kB") as memory:
        before = (tmp_path / "zarr.json").read_bytes()
        memory.weigh({3: 2.0})
        assert b'"quota":{"unit":"bytes","weights":{"3":2.0}}' in (tmp_path / "zarr.json").read_bytes()
        memory.weigh({3: 1})
        assert (tmp_path / "zarr.json").read_bytes() == before
    assert set(json.loads(before)["attributes"]["exmem"]) == {
        "format", "max_bytes", "charges", "eviction", "schema", "checksum"
    }  # fmt: skip


def test_compacting_exporting_and_importing_keep_quota_weights_and_eviction(tmp_path):
    quota = Quota(unit="counts", weights={0: 2, 1: 0.5})
    with create(tmp_path / "m", max_bytes="200kB", codec="lossless", quota="counts") as memory:
        memory.weigh(quota.weights)
        memory.charge("means", 100)
        memory.add([exemplar(seed, label=seed % 2, priority=-seed, kept=4) for seed in range(60)])
        memory.commit()
        export_folder(memory, tmp_path / "out")
        before = len(memory)
    compact(tmp_path / "m")
    with ExemplarMemory.open(tmp_path / "m") as memory:
        assert (memory.quota, memory.charges, len(memory)) == (quota, {"means": 100}, before)
    with import_folder(tmp_path / "out", tmp_path / "again", max_bytes="80kB") as memory:
        assert memory.quota == quota
        assert len(memory) < before
        numbers = counts(memory)
        assert abs(numbers[0] - 4 * numbers[1]) <= 4  # what did not fit went by the weights
    with create(tmp_path / "stream", max_bytes="100kB", eviction="by_priority") as memory:
        export_folder(memory, tmp_path / "stream-out")
    with import_folder(tmp_path / "stream-out", tmp_path / "stream-again") as memory:
        assert memory.eviction == "by_priority"


def test_many_weights_evict_what_their_bytes_need_and_never_exceed_the_budget(tmp_path):
    with create(tmp_path, max_bytes="60kB") as memory:
        memory.add([exemplar(seed, label=seed % 3, priority=-seed) for seed in range(200)])
        memory.commit()
        before = len(memory)
        gone = memory.weigh({label: label + 0.5 for label in range(400)})
        assert 0 < len(gone) < before
        assert len(memory) == before - len(gone)
        assert folder_bytes(tmp_path) <= 60_000
        memory.add([exemplar(seed, label=7, priority=9) for seed in range(5)])
        memory.commit()
        assert folder_bytes(tmp_path) <= 60_000
        with pytest.raises(BudgetTooSmallError, match=r"weights of 3,000 classes: .* nothing was changed"):
            memory.weigh(dict.fromkeys(range(3000), 2.5))
        assert len(memory.quota.weights) == 400


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({0: 0}, r"weight of class 0: expected 1e-12\.\.1e\+?12|got 0"),
        ({0: -1.0}, "got -1.0"),
        ({0: float("nan")}, "got nan"),
        ({0: float("inf")}, "got inf"),
        ({0: 1e-13}, "got 1e-13"),
        ({0: "3"}, "got '3'"),
        ({0: True}, "got True"),
        ({0: None}, "got None"),
        ({"cat": 1}, "64 bits as the label of a weight, got 'cat'"),
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


# What a reduction leaves -------------------------------------------------------------------------------------------

QUOTAS = [Quota(), Quota(unit="counts"), Quota(weights={0: 24, 1: 8, 2: 2}), Quota(unit="counts", weights={0: 5, 2: 3})]


def filled(folder, make, *, spec, max_bytes, quota, ranks):
    """Four phases of three new classes, each in three adds of better ranks before worse; weights before exemplars."""
    memory = ExemplarMemory.create(folder, schema=spec, max_bytes=max_bytes, quota=quota.unit, **OPTIONS)
    for phase in range(4):
        labels = range(3 * phase, 3 * phase + 3)
        memory.weigh({label: quota.weights.get(label % 3, 1.0) for label in labels})
        new = [make(1000 * label + rank, label, rank) for rank in range(ranks) for label in labels]
        for part in range(3):
            memory.add(new[part * len(new) // 3 : (part + 1) * len(new) // 3])
            memory.commit()
    return memory


def held(memory):
    return set(zip(memory.labels.tolist(), memory.priorities.tolist(), strict=True))


def large(seed, label, rank):
    """24 kB of features: more than half a shard in the budgets below, so each has its own."""
    values = crop(seed, 64).reshape(1, -1)[:, :6000].astype(np.float32)
    return Exemplar({"x": TokenSet([0], values)}, label=label, priority=-rank)


@pytest.mark.parametrize("quota", QUOTAS, ids=str)
def test_where_each_exemplar_has_its_own_shard_a_reduction_leaves_exactly_what_a_fresh_memory_keeps(tmp_path, quota):
    spec = Schema({"x": TokenSpec(positions=1, shape=(6000,), dtype="float32", codec="raw")})
    options = {"spec": spec, "quota": quota, "ranks": 12}
    with filled(tmp_path / "fresh", large, max_bytes="500kB", **options) as fresh:
        expected = held(fresh)
    assert 15 < len(expected) < 25
    for name, start, steps in (("once", "1MB", ["500kB"]), ("twice", "1.2MB", ["800kB", "500kB"])):
        with filled(tmp_path / name, large, max_bytes=start, **options) as memory:
            for step in steps:
                memory.resize(step)
            assert held(memory) == expected


@pytest.mark.parametrize("quota", QUOTAS, ids=str)
def test_where_exemplars_share_shards_it_differs_by_the_bytes_of_the_layout_alone(tmp_path, quota):
    def make(seed, label, rank):
        return exemplar(seed, label=label, priority=-rank)

    found, overheads, bytes_of = [], [], {}
    for name, start in (("fresh", "150kB"), ("resized", "400kB")):
        with filled(tmp_path / name, make, spec=schema(), max_bytes=start, quota=quota, ranks=60) as memory:
            memory.resize("150kB")
            found.append(held(memory))
            overheads.append(sum(memory._store.measure()) - int(memory.sizes.sum()))
            pairs = zip(memory.labels.tolist(), memory.priorities.tolist(), strict=True)
            bytes_of |= dict(zip(pairs, memory.sizes.tolist(), strict=True))
    # Neither leaves room for one more: its bytes, and as much again where it makes the largest shard larger.
    most = abs(overheads[0] - overheads[1]) + 2 * max(bytes_of.values())
    for one, other in (found, found[::-1]):
        assert sum(bytes_of[pair] for pair in one - other) <= most
    assert len(found[0] ^ found[1]) < 0.05 * len(found[0])


def test_no_more_goes_than_has_to(tmp_path):
    """Evicting frees more than the bytes of the exemplars: the largest shard shrinks, and its reserve with it."""
    with create(tmp_path / "m", max_bytes="400kB") as memory:
        memory.add([exemplar(seed, label=seed % 3, priority=-seed) for seed in range(300)])
        memory.commit()
        memory.close()
    shutil.copytree(tmp_path / "m", tmp_path / "by hand")
    with ExemplarMemory.open(tmp_path / "m", mode="r+", **OPTIONS) as memory:
        order = memory.slots[eviction_order(memory.labels, memory.priorities, memory.sizes)]
        gone = memory.resize("100kB")
    with ExemplarMemory.open(tmp_path / "by hand", mode="r+", **OPTIONS) as memory:
        memory.evict(order[: len(gone) - 1])
        assert sum(memory._store.measure()) > 100_000
        memory.evict(order[len(gone) - 1 : len(gone)])
        assert sum(memory._store.measure()) <= 100_000
