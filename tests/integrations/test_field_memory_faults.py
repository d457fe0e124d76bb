"""Exemplars as named tensors where calls are refused or cut short, and for those who read meanwhile."""

import contextlib
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from exmem import ExemplarMemory
from exmem.errors import (
    DataWarning,
    InvalidExemplarError,
    LockedError,
    SchemaError,
    StaleSnapshotError,
    StoreExistsError,
    StoreIOError,
)
from exmem.integrations.samples.images import fitted
from exmem.integrations.samples.memory import FieldMemory
from exmem.store.mirror import mirror
from tests.integrations.test_field_memory import images

LIMIT: dict[str, Any] = {"max_bytes": "60kB", "recipe": "raw", "durable": False}


def first_pixels(memory: FieldMemory) -> list[int]:
    values: list[int] = memory.read(memory.slots)["image"][:, 1, 1, 1].tolist()
    return values


def stored_pixels(memory: FieldMemory) -> list[int]:
    values: list[int] = memory.decoded.read_once(memory.slots)["image"][:, 1, 1, 1].tolist()
    return values


def test_who_reads_a_place_is_told_that_another_memory_was_restored_there(tmp_path: Path) -> None:
    memory = FieldMemory(tmp_path / "m", **LIMIT)
    memory.add({"image": images(3, first=10)}, [1, 1, 1])
    snapshot = memory.snapshot()
    memory.add({"image": images(3, first=20)}, [2, 2, 2])
    memory.commit()
    reader = ExemplarMemory.open(tmp_path / "m")
    mirror(tmp_path / "m", tmp_path / "mirror")
    memory.restore(snapshot)
    memory.add({"image": images(3, first=30)}, [3, 3, 3])
    memory.commit()
    assert reader.generation == memory.memory.generation
    with pytest.raises(StaleSnapshotError, match="another store was made"):
        reader.read(reader.slots)
    reader.refresh()
    assert reader.labels.tolist() == [1, 1, 1, 3, 3, 3]
    held = ExemplarMemory.open(tmp_path / "m")
    found, expected = (one.read(held.slots).tokens["image"].values for one in (reader, held))
    assert np.array_equal(found, expected)
    with pytest.raises(StoreExistsError, match="mirrors another memory"):
        mirror(tmp_path / "m", tmp_path / "mirror")


def test_an_update_that_is_cut_short_is_read_as_it_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = FieldMemory(**LIMIT)
    slots = memory.add({"image": images(6), "logits": torch.zeros(6, 2)}).slots
    memory.read(slots)
    update = ExemplarMemory.update

    def half(self: ExemplarMemory, given: Any, *, extras: dict[str, Any]) -> Any:
        update(self, given[:3], extras={name: values[:3] for name, values in extras.items()})
        raise StoreIOError("the disk is full")

    monkeypatch.setattr(ExemplarMemory, "update", half)
    with pytest.raises(StoreIOError):
        memory.update(slots, {"logits": torch.ones(6, 2)})
    assert memory.read(slots)["logits"][:, 0].tolist() == [1, 1, 1, 0, 0, 0]


def test_slots_that_are_given_again_after_an_interrupted_discard_are_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = FieldMemory(**LIMIT)
    memory.add({"image": images(2, first=1)})
    memory.commit()
    memory.add({"image": images(2, first=5)})
    assert first_pixels(memory) == [1, 2, 5, 6]
    discard = ExemplarMemory.discard

    def interrupted(self: ExemplarMemory) -> None:
        discard(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(ExemplarMemory, "discard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        memory.discard()
    memory.add({"image": images(2, first=9)})
    assert first_pixels(memory) == stored_pixels(memory) == [1, 2, 9, 10]


STEPS = ("rename", "mkdir", "rmtree", "create", "annotate", "close", "open", "discard", "renew", "resize")


@pytest.mark.parametrize("call", ["clear", "first add", "restore"])
@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "interrupted"])
@pytest.mark.parametrize("before", [True, False], ids=["before a step", "after it"])
def test_a_call_that_ends_anywhere_leaves_what_was_or_what_was_to_be(
    call: str, is_killed: bool, before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(FieldMemory(**LIMIT)) as other:
        other.add({"image": images(4, first=50)})
        snapshot = other.snapshot()
    old = [] if call == "first add" else [1, 2, 3]
    expected = {"clear": [], "first add": [50, 51], "restore": [50, 51, 52, 53]}[call]

    def called(memory: FieldMemory) -> None:
        if call == "clear":
            memory.clear()
        elif call == "restore":
            memory.restore(snapshot)
        else:
            memory.add({"image": images(2, first=50)})
            memory.commit()

    outcomes = set()
    for at in range(1, 40):
        place = tmp_path / str(at) / "m"
        place.parent.mkdir()
        memory = FieldMemory(place, **LIMIT)
        if old:
            memory.add({"image": images(3, first=1)})
            memory.commit()
        if _ended(memory, called, at, monkeypatch, before=before) < at:
            break
        if is_killed:
            del memory
            gc.collect()  # a killed process does not hold the lock
            memory = FieldMemory(place, **LIMIT)
        memory.add({"image": images(1, first=99)})
        memory.commit()
        *found, new = first_pixels(memory)
        assert new == 99
        assert found in (old, expected), at
        outcomes.add(tuple(found))
        memory.close()
        FieldMemory(place, **LIMIT).close()
        assert [path.name for path in place.parent.iterdir()] == ["m"]
    assert at > 4, "there are steps"
    assert tuple(old) in outcomes
    assert tuple(expected) in outcomes or call == "first add", "it has no step behind its commit"


def _ended(memory: FieldMemory, call: Any, at: int, monkeypatch: pytest.MonkeyPatch, *, before: bool) -> int:
    """Interrupt a call at one of its steps; return how many there were."""
    count, place = 0, str(memory._root().parent)
    gc.collect()  # an interrupt in a finaliser would be dropped

    def counted(function: Any) -> Any:
        def step(*args: Any, **options: Any) -> Any:
            nonlocal count
            if not str(getattr(args[0], "location", args[0])).startswith(place):  # of what another test left
                return function(*args, **options)
            count += 1
            if before and count == at:
                raise KeyboardInterrupt
            done = function(*args, **options)
            if not before and count == at:
                raise KeyboardInterrupt
            return done

        return step

    with monkeypatch.context() as patch:
        for name in ("rename", "mkdir"):
            patch.setattr(Path, name, counted(getattr(Path, name)))
        patch.setattr("exmem.integrations.samples.folders.shutil.rmtree", counted(_remove))
        for name in ("annotate", "close", "discard", "renew", "resize"):
            patch.setattr(ExemplarMemory, name, counted(getattr(ExemplarMemory, name)))
        for name in ("create", "open"):
            patch.setattr(ExemplarMemory, name, counted(getattr(ExemplarMemory, name)))
        with contextlib.suppress(KeyboardInterrupt):
            call(memory)
    return count


def _remove(path: Path, **_: Any) -> None:
    for held in sorted(Path(path).rglob("*"), reverse=True):
        held.rmdir() if held.is_dir() else held.unlink()
    Path(path).rmdir()


def test_of_two_who_make_a_memory_at_one_place_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (FieldMemory(tmp_path / "m", **LIMIT) for _ in range(2))
    annotate = ExemplarMemory.annotate

    def meanwhile(self: ExemplarMemory, **options: Any) -> Any:
        monkeypatch.undo()
        annotate(self, **options)
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "made").touch()

    monkeypatch.setattr(ExemplarMemory, "annotate", meanwhile)
    with pytest.raises(StoreExistsError, match="another process made something there"):
        one.add({"image": images(2)})
    (tmp_path / "m" / "made").unlink()
    other.add({"image": images(3)})
    with pytest.raises(LockedError):
        one.add({"image": images(2)})
    assert len(other) == 3


def test_what_an_earlier_clear_could_not_remove_is_not_in_the_way(tmp_path: Path) -> None:
    memory = FieldMemory(tmp_path / "m", **LIMIT)
    memory.add({"image": images(2)})
    (tmp_path / ".m.restoring" / "gone").mkdir(parents=True)
    (tmp_path / ".m.restoring" / "gone" / "left").touch()
    memory.clear()
    memory.add({"image": images(3)})
    assert len(memory) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "real").symlink_to(tmp_path / "disk" / "m")
    memory = FieldMemory(tmp_path / "real", **LIMIT)
    memory.add({"image": images(3)})
    memory.restore(memory.snapshot())
    assert len(memory) == 3
    memory.clear()
    memory.add({"image": images(2)})
    memory.commit()
    assert (tmp_path / "real").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["m"]
    assert len(ExemplarMemory.open(tmp_path / "disk" / "m")) == 2


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64", "bfloat16", "complex64"])
def test_a_dtype_that_cannot_be_kept_is_refused_by_the_name_of_its_field(dtype: str) -> None:
    memory = FieldMemory(max_bytes="60kB", recipe=None)
    with pytest.raises(SchemaError, match=f"image: expected one of bool, uint8.*got {dtype}; convert it"):
        memory.add({"image": torch.zeros(3, 4).to(getattr(torch, dtype))})
    assert not memory.exists
    memory.add({"image": torch.zeros(3, 4)})
    assert len(memory) == 3


def test_arrays_that_run_backwards_are_taken_and_single_values_refused() -> None:
    memory = FieldMemory(max_bytes="60kB", recipe=None)
    given = np.arange(12.0).reshape(3, 4)[::-1, ::-1]
    slots = memory.add({"image": given}).slots
    assert memory.read(slots)["image"].tolist() == given.tolist()
    with pytest.raises(InvalidExemplarError, match="image: expected one value for each sample"):
        memory.add({"image": torch.tensor(1.0)})
    with pytest.raises(InvalidExemplarError, match="labels: expected 3 integers of 64 bits"):
        memory.add({"image": given}, np.full(3, 2**63, np.uint64))


@pytest.mark.filterwarnings("error")
def test_what_lies_behind_an_image_is_told_to_be_lost() -> None:
    pixels = np.full((8, 8, 4), 255, np.uint8)
    fitted(Image.fromarray(pixels), None)
    pixels[0, 0, 3] = 0
    fitted(Image.fromarray(pixels), None, mode="RGBA")
    for image in (Image.fromarray(pixels), Image.fromarray(pixels).quantize(4)):
        with pytest.raises(DataWarning, match="an image is partly transparent, which is not stored"):
            fitted(image, None)
