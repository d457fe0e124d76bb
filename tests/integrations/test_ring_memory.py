"""Exemplars by index under a budget of bytes: every index holds what was written there last, or is told to be gone."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from exmem.errors import BudgetError, ExemplarTooLargeError, InvalidExemplarError
from exmem.integrations.samples.memory import FieldMemory
from exmem.integrations.samples.ring import Ring
from exmem.integrations.samples.ring_memory import UNLIMITED, RingMemory

BUDGET = 120_000


def made(folder: Path, *, max_bytes: int = BUDGET, most: int = UNLIMITED) -> RingMemory:
    limit = None if most == UNLIMITED else most
    fields = FieldMemory(
        folder, max_bytes=max_bytes, max_exemplars=limit, recipe=None, eviction="by_priority", ram_bytes="1MB"
    )
    return RingMemory(fields, most)


def values(numbers: list[int] | range, *, noise: bool) -> dict[str, Tensor]:
    """Exemplars that know their number, of few bytes or of about 1,500."""
    count = len(numbers)
    image = torch.zeros(count, 1500, dtype=torch.uint8)
    if noise:
        image = torch.from_numpy(np.random.default_rng(numbers[0]).integers(0, 256, (count, 1500), np.uint8))
    return {"image": image, "number": torch.tensor(list(numbers))}


def disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def numbers_of(ring: RingMemory) -> list[int]:
    return ring.fields.read(ring.slots)["number"].tolist() if len(ring) else []


def write(ring: RingMemory, cursor: int, numbers: range, *, noise: bool) -> int:
    """Write as a ring does, and return its next cursor."""
    ring.foresee(len(numbers))
    room = ring.max_size
    index = (cursor + np.arange(len(numbers))) % room
    ring.put(ring.indices(index, len(numbers)), values(numbers, noise=noise))
    return (cursor + len(numbers)) % room


@pytest.mark.parametrize("sizes", [[False], [True], [False, True], [True, False], [False, True, False]])
@pytest.mark.parametrize("batch", [1, 7, 40])
@pytest.mark.filterwarnings("ignore:.*bytes hold")
def test_new_exemplars_are_never_lost_and_the_budget_holds(tmp_path: Path, sizes: list[bool], batch: int) -> None:
    ring, cursor, number = made(tmp_path / "memory"), 0, 0
    for noise in sizes:
        for _ in range(280 // batch):
            coming = range(number, number + batch)
            cursor, number = write(ring, cursor, coming, noise=noise), number + batch
            held = numbers_of(ring)
            assert set(coming) <= set(held)
            assert len(held) == len(ring) == len(set(held)) <= ring.max_size
            assert disk_bytes(tmp_path / "memory") <= BUDGET
    assert len(ring) > 30


@pytest.mark.filterwarnings("ignore:.*bytes hold")
def test_a_ring_that_is_full_holds_the_last_exemplars_and_its_length_stays(tmp_path: Path) -> None:
    ring, cursor = made(tmp_path / "memory"), 0
    for start in range(0, 600, 20):
        cursor = write(ring, cursor, range(start, start + 20), noise=True)
    room = ring.max_size
    assert 50 < room == len(ring) < 100
    assert sorted(numbers_of(ring)) == list(range(600 - room, 600))


def test_a_smaller_ring_than_was_asked_for_is_told(tmp_path: Path) -> None:
    ring = made(tmp_path / "memory", most=500)
    cursor = write(ring, 0, range(60), noise=True)
    with pytest.warns(UserWarning, match=r"120,000 bytes hold \d\d entries like these, not 500"):
        write(ring, cursor, range(60, 100), noise=True)


def test_without_a_number_asked_for_a_full_ring_is_no_news(tmp_path: Path) -> None:
    ring, cursor = made(tmp_path / "memory"), 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for start in range(0, 200, 10):
            cursor = write(ring, cursor, range(start, start + 10), noise=True)


def test_entries_that_go_are_those_of_the_highest_indices_and_are_told(tmp_path: Path) -> None:
    ring = made(tmp_path / "memory")
    ring.put(np.arange(400), values(range(400), noise=False))
    before = numbers_of(ring)
    with pytest.warns(UserWarning, match="entries of the highest indices went") as told:
        ring.put(np.arange(60), values(range(1000, 1060), noise=True))
    held = numbers_of(ring)
    assert held == [*range(1000, 1060), *before[60 : len(held)]]
    assert f"{400 - len(held):,} entries" in str(told[0].message)


@pytest.mark.filterwarnings("ignore:.*bytes hold")
def test_more_exemplars_at_once_than_fit_leave_the_last_ones(tmp_path: Path) -> None:
    ring = made(tmp_path / "memory")
    moved = ring.put(np.arange(300), values(range(300), noise=True))
    held = numbers_of(ring)
    assert sorted(held) == list(range(300 - len(held), 300))
    assert len(moved)
    assert len(held) == ring.max_size
    assert disk_bytes(tmp_path / "memory") <= BUDGET


@pytest.mark.parametrize("most", [1, 3, 50, 400])
@pytest.mark.parametrize("noise", [True, False])
def test_the_budget_of_a_count_never_binds(tmp_path: Path, most: int, noise: bool) -> None:
    fields = FieldMemory(tmp_path / "memory", max_exemplars=most, recipe=None, eviction="by_priority")
    ring, cursor, number = RingMemory(fields, most), 0, 0
    for batch in [most, 1, 1, most, max(1, most // 3), 2 * most, 1]:
        cursor, number = write(ring, cursor, range(number, number + batch), noise=noise), number + batch
        assert ring.max_size == len(ring) == most
    assert sorted(numbers_of(ring)) == list(range(number - most, number))


def test_a_caller_that_remembers_indices_is_refused_before_anything_changes(tmp_path: Path) -> None:
    ring = made(tmp_path / "memory")
    ring.put(np.arange(60), values(range(60), noise=True), remembers=True)
    with pytest.raises(BudgetError, match="cannot follow a ring that shrinks; give max_size=60"):
        ring.put(np.arange(60, 120), values(range(60, 120), noise=True), remembers=True)
    assert numbers_of(ring) == list(range(60))
    ring.put(np.arange(10), values(range(500, 510), noise=True), remembers=True)
    assert numbers_of(ring) == [*range(500, 510), *range(10, 60)]


def test_an_exemplar_that_the_budget_never_holds_changes_nothing(tmp_path: Path) -> None:
    ring = made(tmp_path / "memory", max_bytes=24_000)
    flat = {"image": torch.zeros(4, 20_000, dtype=torch.uint8), "number": torch.arange(4)}
    ring.put(np.arange(4), flat)
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 20_000), np.uint8))
    with pytest.raises(ExemplarTooLargeError):
        ring.put(np.array([4]), {"image": noise, "number": torch.tensor([4])})
    assert numbers_of(ring) == [0, 1, 2, 3]


def test_an_add_that_fails_after_the_eviction_leaves_a_ring_without_gaps(tmp_path: Path, monkeypatch) -> None:
    ring = made(tmp_path / "memory")
    ring.put(np.arange(20), values(range(20), noise=True))

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(FieldMemory, "add_encoded", fail)
        with pytest.raises(KeyboardInterrupt):
            ring.put(np.arange(3), values(range(50, 53), noise=True))
    assert numbers_of(ring) == [17, 18, 19, *range(3, 17)]
    moved = ring.put(np.array([5]), values(range(90, 91), noise=True))
    assert moved.tolist() == [0, 1, 2]  # told late, for the call that moved them told of nothing


def test_a_wrong_exemplar_evicts_nothing(tmp_path: Path) -> None:
    ring = made(tmp_path / "memory")
    ring.put(np.arange(20), values(range(20), noise=True))
    with pytest.raises(InvalidExemplarError):
        ring.put(np.arange(3), {"image": torch.zeros(3, 7, dtype=torch.uint8), "number": torch.arange(3)})
    assert numbers_of(ring) == list(range(20))


@pytest.mark.parametrize("index", [[25], [20, 22], [-21], [500]])
def test_an_index_that_is_not_there_and_does_not_follow_is_refused(tmp_path: Path, index: list[int]) -> None:
    ring = made(tmp_path / "memory", most=100)
    ring.put(np.arange(20), values(range(20), noise=True))
    with pytest.raises(IndexError, match="expected"):
        ring.indices(np.array(index), len(index))


def test_a_killed_writer_leaves_a_ring_without_gaps(tmp_path: Path) -> None:
    ring = made(tmp_path / "memory")
    ring.put(np.arange(20), values(range(20), noise=True))
    ring.commit()
    ring.put(np.array([2, 3]), values(range(50, 52), noise=True))  # the old ones went at once, these are not committed
    ring.fields.discard()
    again = RingMemory(ring.fields, UNLIMITED)
    again.take_up()
    assert numbers_of(again) == [0, 1, 18, 19, *range(4, 18)] or sorted(numbers_of(again)) == [0, 1, *range(4, 20)]


def test_of_two_exemplars_of_one_index_the_newer_one_counts() -> None:
    ring = Ring.of(np.array([3, 4, 7, 8, 9]), np.array([0, 1, 1, 4, 900]))
    assert ring.slots.tolist() == [3, 7, 4, 9, 8]
