"""What a memory promises its callers, call by call."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore, MemoryStore

from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec
from exmem.errors import (
    BudgetTooSmallError,
    CodecError,
    CorruptExemplarError,
    ExemplarTooLargeError,
    FormatError,
    InvalidExemplarError,
    LockedError,
    ReadOnlyError,
    SchemaError,
    StaleSnapshotError,
    StoreExistsError,
    StoreIOError,
    StoreNotFoundError,
    UnknownSlotError,
)
from tests.exemplars import assert_same, exemplar, folder_bytes, schema


@pytest.fixture
def made(tmp_path):
    """A memory of ten exemplars, lossless, open for writing, and what was put in."""
    given = [exemplar(seed, label=seed % 3, priority=-seed) for seed in range(10)]
    with ExemplarMemory.create(tmp_path / "m", schema=schema("lossless"), max_bytes="200kB") as memory:
        report = memory.add(given)
        memory.commit()
        yield memory, dict(zip(report.slots.tolist(), given, strict=True))


def test_everything_added_is_read_back_bit_for_bit_also_after_reopening(made):
    memory, held = made
    for _ in range(2):
        assert memory.slots.tolist() == sorted(held)
        for found, expected in zip(memory.read(memory.slots), held.values(), strict=True):
            assert_same(found, expected)
        memory.close()
        memory = ExemplarMemory.open(memory.location)


def test_read_returns_rows_in_the_order_asked_and_repeats(made):
    memory, held = made
    batch = memory.read([7, 2, 7])
    for row, slot in enumerate([7, 2, 7]):
        assert_same(batch.exemplar(row), held[slot])
    assert batch.tokens["image"].values.shape[1] == max(len(held[s].tokens["image"]) for s in (7, 2))


def test_reading_no_slots_gives_an_empty_batch(made):
    memory, _ = made
    batch = memory.read([])
    assert len(batch) == 0
    assert batch.tokens["image"].values.shape == (0, 0, 16, 16, 3)


def test_labels_and_priorities_follow_the_slots(made):
    memory, held = made
    assert memory.labels.tolist() == [held[slot].label for slot in memory.slots.tolist()]
    assert memory.priorities.tolist() == [held[slot].priority for slot in memory.slots.tolist()]


def test_used_bytes_are_the_bytes_of_the_folder(made):
    memory, _ = made
    assert memory.used_bytes == folder_bytes(memory.location)
    before = memory.used_bytes
    memory.charge("class means", 1234)
    assert memory.used_bytes - 1234 == folder_bytes(memory.location)
    assert memory.used_bytes > before + 1234
    assert memory.charges == {"class means": 1234}
    memory.charge("class means", 0)
    assert memory.used_bytes == before


def test_a_batch_can_be_added_as_it_was_read(made, tmp_path):
    memory, held = made
    with ExemplarMemory.create(tmp_path / "copy", schema=memory.schema, max_bytes="200kB") as copy:
        copy.add(memory.read(memory.slots))
        copy.commit()
        for found, expected in zip(copy.read(copy.slots), held.values(), strict=True):
            assert_same(found, expected)


def test_evicted_slots_are_gone_and_never_given_out_again(made):
    memory, held = made
    memory.evict([9, 4])
    assert memory.slots.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    with pytest.raises(UnknownSlotError, match=r"\[4\]"):
        memory.read([3, 4])
    report = memory.add([exemplar(99)])
    memory.commit()
    assert report.slots[0] > 9
    assert_same(memory.read([3]).exemplar(0), held[3])


def test_evicting_an_unknown_slot_evicts_nothing(made):
    memory, _ = made
    with pytest.raises(UnknownSlotError):
        memory.evict([0, 77])
    assert len(memory) == 10


def test_evicting_everything_leaves_only_metadata(made):
    memory, _ = made
    full = memory.used_bytes
    memory.evict(memory.slots)
    assert len(memory) == 0
    assert memory.used_bytes < full / 5
    names = {name for _, _, names in os.walk(memory.location) for name in names}
    assert names == {"zarr.json"}


def test_staged_exemplars_are_not_visible_before_commit_and_can_be_discarded(made):
    memory, _ = made
    report = memory.add([exemplar(50, label=8)])
    reader = ExemplarMemory.open(memory.location)
    assert (len(memory), len(reader)) == (11, 10)
    assert_same(memory.read(report.slots).exemplar(0), exemplar(50, label=8))
    with pytest.raises(UnknownSlotError):
        reader.read(report.slots)
    memory.discard()
    assert len(memory) == 10
    memory.commit()
    reader.refresh()
    assert len(reader) == 10


def test_an_error_in_the_block_discards_what_is_staged(tmp_path):
    def fail_after_an_add():
        with ExemplarMemory.create(tmp_path, schema=schema(), max_bytes="100kB") as memory:
            memory.add([exemplar(0)])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_after_an_add()
    assert len(ExemplarMemory.open(tmp_path)) == 0


def test_full_segments_of_a_discarded_add_are_removed_from_the_disk(tmp_path):
    with ExemplarMemory.create(tmp_path, schema=schema("raw"), max_bytes="4MB") as memory:
        memory.add([exemplar(seed, kept=16) for seed in range(5)])
        memory.commit()
        before = folder_bytes(tmp_path)
        memory.add([exemplar(seed, kept=16) for seed in range(60)])
        assert folder_bytes(tmp_path) > before + 300_000
        memory.discard()
        assert abs(folder_bytes(tmp_path) - before) < 10  # the digits of the next slot
        assert memory.used_bytes == folder_bytes(tmp_path)


def test_a_reader_keeps_its_snapshot_until_refresh(made):
    memory, held = made
    reader = ExemplarMemory.open(memory.location)
    memory.evict([0])
    memory.add([exemplar(60)])
    memory.commit()
    assert len(reader) == 10
    reader.refresh()
    assert reader.slots.tolist() == memory.slots.tolist()
    assert_same(reader.read([5]).exemplar(0), held[5])


def test_a_reader_is_told_to_refresh_when_its_snapshot_was_reclaimed(made):
    memory, _ = made
    reader = ExemplarMemory.open(memory.location)
    memory.evict([0])
    with pytest.raises(StaleSnapshotError, match="refresh"):
        reader.read([0])
    reader.refresh()
    assert 0 not in reader.slots


def test_over_budget_the_largest_class_loses_its_lowest_priorities(tmp_path):
    with ExemplarMemory.create(tmp_path, schema=schema("raw"), max_bytes="150kB") as memory:
        memory.add([exemplar(seed, label=1, priority=seed, kept=16) for seed in range(8)])
        report = memory.add([exemplar(seed, label=2, priority=seed, kept=16) for seed in range(4)])
        memory.commit()
        assert (report.slots >= 0).all()
        assert report.evicted.tolist() == list(range(len(report.evicted)))  # priority rises with the slot
        assert len(report.evicted) > 0
        counts = {label: held.exemplars for label, held in memory.summary().items()}
        assert counts == {1: 8 - len(report.evicted), 2: 4}
        assert memory.free_bytes < 13_000  # no more was evicted than needed: not one exemplar more would fit


def test_exemplars_that_rank_below_what_is_kept_are_reported_not_stored(tmp_path):
    with ExemplarMemory.create(tmp_path, schema=schema("raw"), max_bytes="100kB") as memory:
        memory.add([exemplar(seed, priority=10, kept=16) for seed in range(3)])
        report = memory.add([exemplar(seed, priority=-seed, kept=16) for seed in range(10)])
        stored = report.slots >= 0
        assert stored.sum() < 10
        assert (np.diff(stored.astype(int)) <= 0).all()  # the best of the new ones, and only they
        assert len(report.evicted) == 0


def test_plan_add_says_what_add_does_and_changes_nothing(tmp_path):
    with ExemplarMemory.create(tmp_path, schema=schema(), max_bytes="41kB") as memory:
        memory.add([exemplar(seed, label=1, priority=seed) for seed in range(40)])
        memory.commit()
        new = [exemplar(seed, label=2, priority=seed) for seed in range(40)]
        before = (folder_bytes(tmp_path), memory.slots.tolist())
        plan = memory.plan_add(new)
        assert (folder_bytes(tmp_path), memory.slots.tolist()) == before
        report = memory.add(new)
        assert report.evicted.tolist() == plan.victims.tolist()
        assert np.flatnonzero(report.slots >= 0).tolist() == plan.admitted.tolist()
        assert 0 < len(plan.admitted) < 40


def test_following_a_plan_in_steps_gives_the_same_memory_as_adding(tmp_path):
    new = [exemplar(seed, label=2, priority=seed) for seed in range(40)]
    for name in ("steps", "once"):
        with ExemplarMemory.create(tmp_path / name, schema=schema(), max_bytes="41kB") as memory:
            memory.add([exemplar(seed, label=1, priority=seed) for seed in range(40)])
            memory.commit()
            if name == "once":
                memory.add(new)
                continue
            plan = memory.plan_add(new)
            memory.evict(plan.victims)
            report = memory.add([new[index] for index in plan.admitted])
            assert len(report.evicted) == 0
            assert (report.slots >= 0).all()
    first, second = (ExemplarMemory.open(tmp_path / name) for name in ("steps", "once"))
    assert first.slots.tolist() == second.slots.tolist()


@pytest.mark.parametrize("max_bytes", range(34_000, 60_000, 2_600))
def test_an_add_keeps_at_most_one_less_than_was_planned(tmp_path, max_bytes):
    with ExemplarMemory.create(tmp_path, schema=schema(), max_bytes=max_bytes, durable=False) as memory:
        memory.add([exemplar(seed, label=1, priority=seed) for seed in range(40)])
        memory.commit()
        new = [exemplar(seed, label=2, priority=seed) for seed in range(40)]
        plan = memory.plan_add(new)
        report = memory.add(new)
        admitted = np.flatnonzero(report.slots >= 0)
        assert set(plan.victims) <= set(report.evicted)
        assert set(admitted) <= set(plan.admitted)
        assert len(report.evicted) - len(plan.victims) + len(plan.admitted) - len(admitted) <= 1


def test_resizing_down_keeps_what_a_fresh_memory_of_that_size_would_keep(tmp_path):
    given = [exemplar(seed, label=seed % 3, priority=(seed * 7) % 31) for seed in range(60)]
    with ExemplarMemory.create(tmp_path / "large", schema=schema(), max_bytes="300kB") as large:
        large.add(given)
        large.commit()
        large.resize("80kB")
        kept = sorted(zip(large.labels.tolist(), large.priorities.tolist(), strict=True))
        assert folder_bytes(tmp_path / "large") <= 80_000
        assert large.max_bytes == 80_000
    with ExemplarMemory.create(tmp_path / "fresh", schema=schema(), max_bytes="80kB") as fresh:
        fresh.add(given)
        found = sorted(zip(fresh.labels.tolist(), fresh.priorities.tolist(), strict=True))
    # The fresh memory has other segments, so its overhead differs by a little; one exemplar a class may differ.
    assert len(set(kept) ^ set(found)) <= 3
    assert set(kept) <= set(found) or set(found) <= set(kept)


def test_resizing_up_makes_room(made):
    memory, _ = made
    free = memory.free_bytes
    assert memory.resize("400kB").tolist() == []
    assert memory.free_bytes == pytest.approx(free + 200_000, abs=10)


def test_a_charge_evicts_to_make_room(made):
    memory, _ = made
    assert len(memory.charge("means", memory.free_bytes + 5000)) > 0
    assert memory.used_bytes <= memory.max_bytes


def test_a_charge_that_cannot_fit_changes_nothing(made):
    memory, _ = made
    with pytest.raises(BudgetTooSmallError, match="an empty store of this schema needs"):
        memory.charge("means", 300_000)
    with pytest.raises(BudgetTooSmallError, match="an empty store of this schema needs"):
        memory.resize(1000)
    with pytest.raises(SchemaError):
        memory.charge("means", -1)
    assert (len(memory), memory.charges, memory.max_bytes) == (10, {}, 200_000)


def test_same_inputs_give_the_same_bytes_on_disk_whatever_the_threads(tmp_path, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda length: "0" * 2 * length)  # the name of the store
    contents = []
    for name in ("a", "b"):
        with ExemplarMemory.create(tmp_path / name, schema=schema(), max_bytes="60kB", threads=1 + (name == "b")) as m:
            for phase in range(4):
                m.add([exemplar(seed, label=phase, priority=-seed) for seed in range(phase * 20, phase * 20 + 20)])
                m.commit()
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    assert contents[0] == contents[1]


# Bad input: a typed error that says what to do, and nothing changed -----------------------------------------------


def broken(**change):
    good = exemplar(0)
    parts = {"tokens": good.tokens, "label": 0, "priority": 0.0, "extras": good.extras}
    return Exemplar(**(parts | change))


def image(positions, values):
    return {"tokens": exemplar(0).tokens | {"image": TokenSet(positions, values)}}


PATCH = np.zeros((1, 16, 16, 3), np.uint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": {}}, "expected the modalities"),
        ({"tokens": exemplar(0).tokens | {"audio": TokenSet([0], [1])}}, "audio"),
        ({"extras": {}}, "expected the extra fields"),
        ({"extras": exemplar(0).extras | {"embedding": np.zeros(5, np.float32)}}, r"shape \(4,\)"),
        ({"extras": exemplar(0).extras | {"task": 1.5}}, "'task'"),
        ({"label": 1.5}, "label must be an integer"),
        ({"label": 2**63}, "64 bits"),
        ({"priority": float("nan")}, "not NaN"),
        ({"priority": "high"}, "not NaN"),
        (image([16], PATCH), r"outside 0\.\.15"),
        (image([0], PATCH.astype(np.float32)), "float32"),
        (image([0], PATCH[:, :8]), r"\(1, 8, 16, 3\)"),
        ({"tokens": exemplar(0).tokens | {"image": 3}}, "expected a TokenSet"),
    ],
)
def test_an_exemplar_that_does_not_fit_the_schema_is_refused_and_nothing_is_stored(made, change, message):
    memory, _ = made
    before = memory.slots.tolist(), memory.used_bytes
    with pytest.raises(InvalidExemplarError, match=message):
        memory.add([exemplar(1), broken(**change)])
    assert (memory.slots.tolist(), memory.used_bytes) == before


def test_something_that_is_no_exemplar_is_refused(made):
    memory, _ = made
    with pytest.raises(InvalidExemplarError, match="expected an Exemplar, got int"):
        memory.add([3])


def test_an_exemplar_too_large_for_the_budget_is_refused_and_nothing_is_evicted(tmp_path):
    spec = Schema({"image": TokenSpec(positions=1, shape=(100, 100, 3), codec="raw")})
    with ExemplarMemory.create(tmp_path, schema=spec, max_bytes="50kB") as memory:
        small = Exemplar({"image": TokenSet([], np.zeros((0, 100, 100, 3), np.uint8))}, label=0)
        memory.add([small])
        memory.resize("30kB")
        with pytest.raises(ExemplarTooLargeError, match=r"30,\d\d\d bytes needs a budget of"):
            memory.add([Exemplar({"image": TokenSet([0], np.zeros((1, 100, 100, 3), np.uint8))}, label=0)])
        assert len(memory) == 1


def test_a_budget_below_the_minimum_is_refused_and_the_minimum_is_enough(tmp_path):
    with pytest.raises(BudgetTooSmallError, match="give at least") as caught:
        ExemplarMemory.create(tmp_path / "m", schema=schema(), max_bytes=1000)
    assert not (tmp_path / "m").exists()
    minimum = int(str(caught.value).split("needs ")[1].split(" ")[0].replace(",", ""))
    with pytest.raises(BudgetTooSmallError):
        ExemplarMemory.create(tmp_path / "m", schema=schema(), max_bytes=minimum - 1)
    assert not (tmp_path / "m").exists()
    ExemplarMemory.create(tmp_path / "m", schema=schema(), max_bytes=minimum).close()
    assert folder_bytes(tmp_path / "m") <= minimum


def test_adding_a_batch_of_no_exemplars_changes_nothing(tmp_path):
    with ExemplarMemory.create(tmp_path, schema=Schema.images(size=16, patch=8), max_bytes="50kB") as memory:
        report = memory.add_batch({"image": np.zeros((0, 4, 8, 8, 3), np.uint8)}, [])
        assert (len(report.slots), len(memory), memory.next_slot) == (0, 0, 0)


def test_create_refuses_a_folder_that_is_not_empty(tmp_path, made):
    memory, _ = made
    with pytest.raises(StoreExistsError, match="not empty"):
        ExemplarMemory.create(memory.location, schema=schema(), max_bytes="100kB")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(StoreExistsError, match=r"a\.txt"):
        ExemplarMemory.create(tmp_path / "notes", schema=schema(), max_bytes="100kB")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["a.txt"]


def test_open_refuses_what_is_no_store(tmp_path):
    with pytest.raises(StoreNotFoundError, match="create one first"):
        ExemplarMemory.open(tmp_path / "nothing")
    zarr.create_group(tmp_path / "other")
    with pytest.raises(FormatError, match="no exmem store"):
        ExemplarMemory.open(tmp_path / "other")
    with pytest.raises(SchemaError, match="choose one of"):
        ExemplarMemory.open(tmp_path, mode="w")


def test_an_unknown_format_version_is_refused_before_anything_else_is_read(made):
    memory, _ = made
    memory.close()
    root = Path(memory.location, "zarr.json")
    text = root.read_text()
    assert '"format":1' in text
    root.write_text(text.replace('"format":1', '"format":2').replace('"schema"', '"plan"'))
    with pytest.raises(FormatError, match="format 2"):
        ExemplarMemory.open(memory.location)


def test_a_codec_that_cannot_take_the_tokens_is_refused_at_create(tmp_path):
    for spec in (
        TokenSpec(positions=4, shape=(8,), dtype="float32", codec="patch_jpeg"),
        TokenSpec(positions=5000, shape=(16, 16, 3), codec="patch_jpeg"),
        TokenSpec(positions=4, codec="no_such"),
    ):
        with pytest.raises(CodecError, match="modality 'x'"):
            ExemplarMemory.create(tmp_path / "m", schema=Schema({"x": spec}), max_bytes="1MB")
    assert not (tmp_path / "m").exists()


def test_a_memory_opened_for_reading_refuses_changes(made):
    memory, _ = made
    reader = ExemplarMemory.open(memory.location)
    for change in (
        lambda: reader.add([exemplar(0)]),
        lambda: reader.plan_add([exemplar(0)]),
        lambda: reader.evict([0]),
        reader.commit,
        reader.discard,
        lambda: reader.resize("1MB"),
        lambda: reader.charge("x", 1),
    ):
        with pytest.raises(ReadOnlyError, match=r"mode 'r\+'"):
            change()
    memory.close()
    with pytest.raises(ReadOnlyError, match="closed"):
        memory.add([exemplar(0)])


def test_a_second_writer_is_refused_with_the_pid_of_the_first(made):
    memory, _ = made
    with pytest.raises(LockedError, match=f"process {os.getpid()} on "):
        ExemplarMemory.open(memory.location, mode="r+")


def test_damage_names_the_exemplar_and_the_file_and_spares_the_others(made):
    memory, held = made
    memory.close()
    shard = max(Path(memory.location).glob("e*/image/c.*"), key=lambda path: path.stat().st_size)
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    reader = ExemplarMemory.open(memory.location)
    damaged = []
    for slot in reader.slots.tolist():
        try:
            assert_same(reader.read([slot]).exemplar(0), held[slot])
        except CorruptExemplarError as error:
            damaged.append(slot)
            assert f"exemplar {slot} is damaged" in str(error)  # noqa: PT017
            assert shard.relative_to(memory.location).as_posix() in str(error)  # noqa: PT017
    assert len(damaged) == 1


@pytest.mark.parametrize("make", [MemoryStore, lambda: None], ids=["memory", "local"])
def test_any_zarr_store_can_be_passed_in(make, tmp_path):
    store = make() or LocalStore(tmp_path / "zarr")
    given = [exemplar(seed, label=seed) for seed in range(5)]
    with ExemplarMemory.create(store, schema=schema("lossless"), max_bytes="100kB") as memory:
        memory.add(given)
        memory.commit()
        memory.evict([1])
        assert len(memory) == 4
    reader = ExemplarMemory.open(store)
    for found, slot in zip(reader.read(reader.slots), [0, 2, 3, 4], strict=True):
        assert_same(found, given[slot])


def test_a_full_disk_leaves_the_committed_state_and_the_memory_usable(made, monkeypatch):
    memory, held = made
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        raise OSError(28, "No space left on device")

    memory.add([exemplar(70)])
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreIOError, match="disk is full"):
        memory.commit()
    assert calls
    monkeypatch.setattr(os, "fsync", real)
    assert len(ExemplarMemory.open(memory.location)) == 10
    memory.commit()
    reader = ExemplarMemory.open(memory.location)
    assert len(reader) == 11
    assert_same(reader.read([3]).exemplar(0), held[3])
    assert not [name for _, _, names in os.walk(memory.location) for name in names if name.startswith(".tmp")]


def test_a_folder_that_cannot_be_written_is_a_read_only_error(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(ReadOnlyError, match="permissions"):
        ExemplarMemory.create(tmp_path / "m", schema=schema(), max_bytes="100kB")


def test_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(CorruptExemplarError("exemplar 3 is damaged")))
    assert (type(error), str(error)) == (CorruptExemplarError, "exemplar 3 is damaged")


def test_a_resize_below_what_foreign_files_leave_is_refused_and_evicts_nothing(tmp_path):
    with ExemplarMemory.create(tmp_path / "m", schema=schema(), max_bytes="200kB", durable=False) as memory:
        memory.add([exemplar(seed, label=seed % 2) for seed in range(10)])
    (tmp_path / "m" / "notes.txt").write_bytes(bytes(40_000))
    with ExemplarMemory.open(tmp_path / "m", "r+", durable=False) as memory:
        with pytest.raises(BudgetTooSmallError, match="not of this memory"):
            memory.resize(30_000)
        assert (len(memory), memory.max_bytes) == (10, 200_000)


def test_larger_segments_are_fewer_files_until_the_budget_chooses_anew(tmp_path):
    given = [exemplar(seed, label=seed % 2) for seed in range(40)]

    def files():
        return sum(path.is_file() for path in (tmp_path / "m").rglob("*"))

    with ExemplarMemory.create(tmp_path / "m", schema=schema("lossless"), max_bytes="2MB", durable=False) as memory:
        memory.resize(segment_bytes=500_000)
        slots = memory.add(given).slots
        memory.commit()
        few = files()
        memory.resize(2_000_000)  # the budget it has
        assert files() == few
        memory.resize("1.99MB")
        assert few < files() / 2
        for seed, slot in enumerate(slots.tolist()):
            assert_same(memory.read([slot]).exemplar(0), given[seed])
        for wrong in (0, 1023, 2**24 + 1, 2.5, "4kB"):
            with pytest.raises(SchemaError, match="segment_bytes must be an integer of 1024"):
                memory.resize(segment_bytes=wrong)
        with pytest.raises(BudgetTooSmallError):
            memory.resize(segment_bytes=2**21)
        assert len(memory) == 40
