"""Quotas of a memory: what is written down, what compacting and exporting keep, what a reduction leaves."""

import shutil

import numpy as np
import pytest

from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec
from exmem.errors import BudgetTooSmallError
from exmem.memory.export import export_folder, import_folder
from exmem.memory.maintenance import compact
from exmem.memory.quota import Quota
from tests.exemplars import crop, exemplar, folder_bytes, schema
from tests.memory.reference_eviction import eviction_order

OPTIONS = {"durable": False, "threads": 1}


def create(folder, *, max_bytes, codec="patch_jpeg", **options):
    return ExemplarMemory.create(folder, schema=schema(codec), max_bytes=max_bytes, **OPTIONS, **options)


def counts(memory):
    return {label: held.exemplars for label, held in memory.summary().items()}


@pytest.mark.parametrize("unit", ["bytes", "counts"])
def test_the_quota_of_a_summary_is_all_there_is_and_follows_the_weights(tmp_path, unit):
    with create(tmp_path, max_bytes="100kB", codec="raw", quota=unit) as memory:
        memory.weigh({0: 2})
        memory.add([exemplar(seed, label=seed % 3, priority=-seed, kept=2 + 3 * (seed % 3)) for seed in range(90)])
        memory.commit()
        summary, sizes = memory.summary(), memory.sizes
        overhead = max(0, memory.used_bytes - int(sizes.sum()))  # rows are accounted uncompressed: it may be below 0
        assert sum(held.quota_bytes for held in summary.values()) == min(100_000 - overhead, int(sizes.sum()))
        assert all(abs(held.payload_bytes - held.quota_bytes) < 2 * sizes.max() for held in summary.values())


def test_a_weight_of_one_is_not_written(tmp_path):
    with create(tmp_path, max_bytes="100kB") as memory:
        before = (tmp_path / "zarr.json").read_bytes()
        memory.weigh({3: 2.0})
        assert b'"quota":{"unit":"bytes","weights":{"3":2.0}}' in (tmp_path / "zarr.json").read_bytes()
        memory.weigh({3: 1})
        assert (tmp_path / "zarr.json").read_bytes() == before


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
        with pytest.raises(BudgetTooSmallError, match=r"weights of 3,000 classes: .* bytes are left"):
            memory.weigh(dict.fromkeys(range(3000), 2.5))
        assert len(memory.quota.weights) == 400


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
    """24 kB of features: more than half a segment in the budgets below, so each has its own."""
    values = crop(seed, 64).reshape(1, -1)[:, :6000].astype(np.float32)
    return Exemplar({"x": TokenSet([0], values)}, label=label, priority=-rank)


@pytest.mark.parametrize("quota", QUOTAS, ids=str)
def test_where_each_exemplar_has_its_own_segment_a_reduction_leaves_exactly_what_a_fresh_memory_keeps(tmp_path, quota):
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
def test_where_exemplars_share_segments_it_differs_by_the_bytes_of_the_layout_alone(tmp_path, quota):
    def make(seed, label, rank):
        return exemplar(seed, label=label, priority=-rank)

    found, bytes_of = [], {}
    for name, start in (("fresh", "150kB"), ("resized", "400kB")):
        with filled(tmp_path / name, make, spec=schema(), max_bytes=start, quota=quota, ranks=60) as memory:
            memory.resize("150kB")
            found.append(held(memory))
            pairs = zip(memory.labels.tolist(), memory.priorities.tolist(), strict=True)
            bytes_of |= dict(zip(pairs, memory.sizes.tolist(), strict=True))
    for one, other in (found, found[::-1]):
        assert sum(bytes_of[pair] for pair in one - other) <= 0.03 * 150_000 + 2 * max(bytes_of.values())
    assert len(found[0] ^ found[1]) < 0.05 * len(found[0])


def test_no_more_goes_than_has_to(tmp_path):
    with create(tmp_path / "m", max_bytes="400kB") as memory:
        memory.add([exemplar(seed, label=seed % 3, priority=-seed) for seed in range(300)])
    shutil.copytree(tmp_path / "m", tmp_path / "by hand")
    with ExemplarMemory.open(tmp_path / "m", mode="r+", **OPTIONS) as memory:
        order = memory.slots[eviction_order(memory.labels, memory.priorities, memory.sizes)]
        gone = memory.resize("100kB")
    with ExemplarMemory.open(tmp_path / "by hand", mode="r+", **OPTIONS) as memory:
        memory.evict(order[: len(gone) - 1])
        more = memory.resize("100kB").tolist()
    assert more == sorted(order[len(gone) - 1 :][: len(more)].tolist())
    assert len(more) <= 2  # one, but for the bytes of the layout
