"""Exemplars as named tensors, with decoded ones in RAM: alone and in combination, at the brim."""

import contextlib
import copy
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from exmem import ExemplarMemory, parse_bytes
from exmem.errors import DataError, ExmemError, InvalidExemplarError, LockedError, SchemaError
from exmem.integrations.samples.decoded import DecodedExemplars
from exmem.integrations.samples.fields import FieldSpec, raw_bytes
from exmem.integrations.samples.memory import FieldMemory
from exmem.recipes import Recipe


def images(count: int, *, first: int = 0, size: int = 16, channels: int = 3) -> Tensor:
    """Flat colours with a corner, uint8 (N, C, H, W), each its own."""
    values = torch.arange(first, first + count, dtype=torch.int64).remainder(251).to(torch.uint8)
    made = values[:, None, None, None].expand(count, channels, size, size).clone()
    made[:, 0, 0, 0] = 255
    return made


def floats(count: int, **options: int) -> Tensor:
    return images(count, **options).float() / 255


@pytest.mark.parametrize("form", ["uint8", "float32", "float16", "channels last", "grey", "grey last"])
def test_images_come_back_as_they_were_given(form: str) -> None:
    given = images(5, channels=1 if form.startswith("grey") else 3)
    if form.startswith("float"):
        given = given.to(getattr(torch, form)) / 255
    if form.endswith("last"):
        given = given.permute(0, 2, 3, 1).contiguous()
    memory = FieldMemory(max_exemplars=9, recipe="raw")
    report = memory.add({"image": given}, labels=np.arange(5))
    taken = memory.read(report.slots)["image"]
    assert taken.dtype == given.dtype
    torch.testing.assert_close(taken, given, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(7,), (), (2, 3, 4, 5)])
def test_without_a_recipe_any_tensor_is_exact(shape: tuple[int, ...]) -> None:
    given = torch.randn(6, *shape, dtype=torch.float64)
    memory = FieldMemory(max_exemplars=9, recipe=None)
    assert torch.equal(memory.read(memory.add({"image": given}).slots)["image"], given)


def test_texts_and_extras_come_back_in_the_order_that_is_asked_for() -> None:
    ids = torch.tensor([[5, 0, 7, 0], [0, 0, 0, 0], [1, 2, 3, 4]], dtype=torch.int64)
    memory = FieldMemory(max_exemplars=9, recipe="jpeg")
    report = memory.add({"image": images(3), "text": ids, "logits": torch.arange(6.0).reshape(3, 2)}, [2, 1, 0])
    taken = memory.read(report.slots[[2, 0, 0]])
    assert torch.equal(taken["text"], ids[[2, 0, 0]])
    assert torch.equal(taken["logits"], torch.arange(6.0).reshape(3, 2)[[2, 0, 0]])


@pytest.mark.parametrize("ram", ["0B", "2kB", "1MB"])
def test_what_is_read_does_not_depend_on_what_fits_in_ram(ram: str) -> None:
    memory = FieldMemory(max_exemplars=60, recipe="raw", ram_bytes=ram, quota="counts")
    everything: dict[int, Tensor] = {}
    for turn in range(6):
        given = images(20, first=20 * turn)
        report = memory.add({"image": given}, labels=np.full(20, turn), priorities=-np.arange(20))
        everything |= {int(slot): image for slot, image in zip(report.slots, given, strict=True) if slot >= 0}
        slots = np.random.default_rng(turn).permutation(memory.slots)
        assert torch.equal(memory.read(slots)["image"], torch.stack([everything[slot] for slot in slots.tolist()]))
        assert memory.decoded.ram_bytes <= 8 * 240 + parse_bytes(ram)
    assert len(memory) == 60


def test_what_was_discarded_is_not_read_from_ram() -> None:
    memory = FieldMemory(max_exemplars=9, recipe="raw")
    memory.add({"image": images(2)})
    memory.commit()
    gone = memory.add({"image": images(1, first=50)}).slots
    memory.read(memory.slots)
    memory.discard()
    again = memory.add({"image": images(1, first=99)}).slots
    assert np.array_equal(again, gone)  # slots of what was discarded are given out again
    assert torch.equal(memory.read(again)["image"], images(1, first=99))


def test_an_update_is_read() -> None:
    memory = FieldMemory(max_exemplars=9, recipe="raw")
    slots = memory.add({"image": images(3), "logits": torch.zeros(3, 2)}).slots
    memory.read(slots)
    memory.update(slots[1:], {"logits": torch.ones(2, 2)})
    assert memory.read(slots)["logits"].sum(1).tolist() == [0, 2, 2]


def test_a_limit_in_samples_is_a_budget_in_which_they_fit_uncompressed() -> None:
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 3, 16, 16), dtype=np.uint8))
    memory = FieldMemory(max_exemplars=40, recipe="raw")
    memory.add({"image": noise, "logits": torch.randn(40, 10)})
    assert len(memory) == 40
    fields = {"image": FieldSpec((3, 16, 16), "uint8"), "logits": FieldSpec((10,), "float32")}
    assert memory.memory.max_bytes == raw_bytes(40, fields) == 4 * (40 * (768 + 40 + 320) + 65_536)


def test_bytes_limit_before_samples_do() -> None:
    memory = FieldMemory(max_bytes="20kB", max_exemplars=1000, recipe="raw")
    for turn in range(5):
        memory.add({"image": images(20, first=20 * turn)}, labels=np.arange(20) % 4)
        memory.commit()
        assert memory.memory.used_bytes <= 20_000
    assert 5 < len(memory) < 30


def test_a_stream_is_a_sample_of_all_that_came_whatever_the_size_of_batches() -> None:
    def held(batch: int) -> list[int]:
        memory = FieldMemory(max_exemplars=10, recipe=None, eviction="by_priority", seed=3)
        for start in range(0, 120, batch):
            memory.add({"image": torch.arange(start, start + batch)})
        assert memory.seen == 120
        return sorted(memory.read(memory.slots)["image"].tolist())

    assert held(1) == held(8) == held(120)


def test_a_sample_that_does_not_fit_the_others_changes_nothing() -> None:
    memory = FieldMemory(max_exemplars=4, recipe="raw", eviction="by_priority", seed=0)
    memory.add({"image": floats(4)})
    before = memory.slots, memory.seen
    for wrong in (floats(2, size=8), floats(2) + 0.5, floats(2, channels=1), images(2), floats(2) * float("nan")):
        for _ in range(50):  # most of them would not be held
            with pytest.raises(InvalidExemplarError, match="image: expected"):
                memory.add({"image": wrong})
        assert memory.seen == before[1], "nothing has arrived"
    assert np.array_equal(memory.slots, before[0])
    with pytest.raises(InvalidExemplarError, match="expected the fields"):
        memory.add({"image": floats(1), "logits": torch.zeros(1, 2)})
    with pytest.raises(InvalidExemplarError, match="labels: expected 2"):
        memory.add({"image": floats(2)}, labels=[1])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image": torch.zeros(2, 5)}, "recipe=None stores any tensor"),
        ({"image": torch.zeros(2, 3, 8, 8, dtype=torch.int64)}, "recipe=None stores any tensor"),
        ({"logits": torch.zeros(2, 5)}, "expected a field 'image'"),
        ({"image": images(2), "text": torch.zeros(2, 5)}, "rows of token ids"),
    ],
)
def test_what_cannot_be_stored_is_told_and_makes_no_memory(
    given: dict[str, Tensor], message: str, tmp_path: Path
) -> None:
    memory = FieldMemory(tmp_path / "memory", max_bytes="1MB")
    with pytest.raises(SchemaError, match=message):
        memory.add(given)
    assert not (tmp_path / "memory").exists()
    memory.add({"image": images(2)})
    assert len(memory) == 2


@pytest.mark.parametrize("recipe", ["hidden", "features", "none", "text"])
def test_a_recipe_without_pixels_is_refused(recipe: str) -> None:
    with pytest.raises(SchemaError, match=r"bind it to one|stores nothing|sees none"):
        FieldMemory(max_bytes="1MB", recipe=recipe).add({"image": images(2)})


def test_a_memory_goes_on_where_it_is_and_with_what_made_it(tmp_path: Path) -> None:
    place = tmp_path / "memory"
    memory = FieldMemory(place, max_bytes="60kB", recipe="jpeg", eviction="by_priority", seed=1)
    memory.add({"image": floats(30), "logits": torch.randn(30, 3)}, labels=np.arange(30) % 3)
    expected = memory.read(memory.slots)
    with pytest.raises(LockedError):
        FieldMemory(place, max_bytes="60kB", eviction="by_priority", seed=1)
    memory.close()
    again = FieldMemory(place, max_bytes="60kB", recipe="jpeg", eviction="by_priority", seed=1)
    for name, values in again.read(again.slots).items():
        assert torch.equal(values, expected[name])
    assert again.seen == 30
    again.close()
    with pytest.raises(SchemaError, match="made with a recipe of name 'jpeg'"):
        FieldMemory(place, max_bytes="60kB", recipe="raw", eviction="by_priority", seed=1)
    with pytest.raises(SchemaError, match="made with eviction"):
        FieldMemory(place, max_bytes="60kB", recipe="jpeg")
    smaller = FieldMemory(place, max_bytes="9kB", recipe="jpeg", eviction="by_priority", seed=1)
    assert 0 < len(smaller) < 30
    assert smaller.memory.used_bytes <= 9_000


def test_a_memory_that_no_adapter_made_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    from exmem import Exemplar, Schema, TokenSet, TokenSpec

    schema = Schema({"image": TokenSpec(positions=1, shape=(4,), dtype="float32")})
    with ExemplarMemory.create(tmp_path / "m", schema=schema, max_bytes="1MB") as memory:
        memory.add([Exemplar({"image": TokenSet.dense(np.zeros((1, 4), np.float32))}, label=0)])
    with pytest.raises(SchemaError, match="notes no fields"):
        FieldMemory(tmp_path / "m", max_bytes="1MB", recipe=None)
    assert len(ExemplarMemory.open(tmp_path / "m")) == 1


@pytest.mark.parametrize("recipe", ["jpeg", None])
def test_a_copy_and_a_pickle_are_memories_of_their_own(recipe: str | None) -> None:
    memory = FieldMemory(max_exemplars=12, recipe=recipe, eviction="by_priority", seed=4)
    memory.add({"image": floats(40)})
    expected = memory.read(memory.slots)["image"]
    for other in (copy.deepcopy(memory), pickle.loads(pickle.dumps(memory))):
        assert torch.equal(other.read(other.slots)["image"], expected)
        assert other.seen == 40
        other.add({"image": floats(40, first=100)})
        assert other.seen == 80
    assert memory.seen == 40
    assert torch.equal(memory.read(memory.slots)["image"], expected)


def test_a_pickle_of_what_holds_nothing_yet_begins_anew() -> None:
    other = pickle.loads(pickle.dumps(FieldMemory(max_exemplars=3, recipe=None)))
    assert len(other) == 0
    assert not other.exists
    other.add({"image": torch.zeros(2, 5)})
    assert len(other) == 2


def test_restoring_goes_back_to_the_snapshot_in_the_same_place(tmp_path: Path) -> None:
    memory = FieldMemory(tmp_path / "m", max_bytes="50kB", recipe="raw")
    memory.add({"image": images(6)}, labels=np.arange(6))
    data, expected = memory.snapshot(), memory.read(memory.slots)["image"]
    memory.add({"image": images(60, first=90)}, labels=np.arange(60) % 6)
    memory.restore(data)
    assert torch.equal(memory.read(memory.slots)["image"], expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"], "nothing is left beside it"
    memory.add({"image": images(3, first=30)}, labels=[7, 8, 9])
    assert len(memory) == 9


def test_what_is_no_snapshot_is_told_and_the_memory_stays(tmp_path: Path) -> None:
    memory = FieldMemory(tmp_path / "m", max_bytes="50kB", recipe="raw")
    memory.add({"image": images(6)})
    with pytest.raises(DataError, match="snapshot"):
        memory.restore(b"no tar file" * 100)
    assert len(memory) == 6
    memory.add({"image": images(6, first=9)})
    assert len(memory) == 12


class OneBatch(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __init__(self, decoded: DecodedExemplars, slots: np.ndarray) -> None:
        self.decoded, self.slots = decoded, slots

    def __getitem__(self, index: int) -> Tensor:
        return self.decoded.read(self.slots)["image"]

    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_loader_read_what_is_committed(method: str) -> None:
    memory = FieldMemory(max_exemplars=9, recipe="raw")
    memory.add({"image": images(5)})
    memory.commit()
    memory.read(memory.slots[:2])  # some are decoded here already
    dataset = OneBatch(memory.decoded, memory.slots[::-1].copy())
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context=method)
    for taken in loader:
        assert torch.equal(taken, images(5).flip(0))


def test_a_forked_child_does_not_remove_the_folder_of_its_parent() -> None:
    memory = FieldMemory(max_exemplars=9, recipe="raw")
    memory.add({"image": images(5)})
    pid = os.fork()
    if pid == 0:
        del memory
        os._exit(0)
    os.waitpid(pid, 0)
    memory.commit()
    assert torch.equal(memory.read(memory.slots)["image"], images(5))


def test_a_folder_of_its_own_goes_with_the_memory() -> None:
    memory = FieldMemory(max_exemplars=9, recipe="raw")
    memory.add({"image": images(5)})
    folder = Path(memory.memory.location)
    assert folder.exists()
    del memory
    assert not folder.exists()


def test_a_recipe_that_masks_fills_what_was_dropped_with_the_mean_colour() -> None:
    recipe = Recipe.of("masked").refined(scorer="centre", keep="keep_ratio:ratio=0.5", codec="raw", fill="mean")
    memory = FieldMemory(max_bytes="1MB", recipe=recipe)
    taken = memory.read(memory.add({"image": images(3, size=32)}).slots)["image"]
    assert taken.shape == (3, 3, 32, 32)
    assert torch.equal(taken[:, :, 12:20, 12:20], images(3, size=32)[:, :, 12:20, 12:20])


def test_a_memory_without_any_limit_is_refused() -> None:
    with pytest.raises(SchemaError, match="something must limit"):
        FieldMemory(recipe=None)


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("limits", [{"max_bytes": "20kB"}, {"max_exemplars": 5}])
def test_a_restored_snapshot_is_within_the_limits_of_the_place(limits: dict[str, Any], tmp_path: Path) -> None:
    large = FieldMemory(max_bytes="1MB", recipe="raw")
    large.add({"image": images(150)}, labels=np.arange(150) % 5)
    memory = FieldMemory(tmp_path / "m", recipe="raw", **limits)
    memory.restore(large.snapshot())
    assert 0 < len(memory) < 150
    assert len(memory) <= limits.get("max_exemplars", 150)
    assert bytes_below(tmp_path / "m") <= memory.memory.max_bytes


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"recipe": "jpeg"}, r"a recipe of name 'jpeg', codec .*got a recipe of name 'raw', codec"),
        ({"recipe": None}, "no recipe"),
        ({"recipe": "raw", "eviction": "by_priority"}, "eviction"),
        ({"recipe": "raw", "max_bytes": "9MB"}, "refused by the adapter"),
    ],
)
def test_a_snapshot_that_does_not_suit_changes_nothing(other: dict[str, Any], message: str, tmp_path: Path) -> None:
    made_otherwise = FieldMemory(**{"max_bytes": "1MB", **other})
    made_otherwise.add({"image": images(9)})
    memory = FieldMemory(tmp_path / "m", max_bytes="50kB", recipe="raw")
    memory.add({"image": images(6)})
    expected = memory.read(memory.slots)["image"]

    def refuse(restored: ExemplarMemory) -> None:
        raise SchemaError("refused by the adapter")

    with pytest.raises(SchemaError, match=message):
        memory.restore(made_otherwise.snapshot(), check=refuse)
    assert torch.equal(memory.read(memory.slots)["image"], expected)
    memory.add({"image": images(6, first=9)})
    assert len(memory) == 12
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("at", range(1, 7))
def test_a_kill_in_the_middle_of_a_restore_leaves_the_one_or_the_other(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = FieldMemory(max_bytes="50kB", recipe="raw")
    new.add({"image": images(4)})
    memory = FieldMemory(tmp_path / "m", max_bytes="50kB", recipe="raw")
    memory.add({"image": images(7)})
    memory.commit()
    steps = []

    def counted(function: Any) -> Any:
        def step(*args: Any, **options: Any) -> Any:
            steps.append(function.__name__)
            if len(steps) == at:
                raise KeyboardInterrupt  # nothing of what follows is done, as after a kill
            return function(*args, **options)

        return step

    monkeypatch.setattr(Path, "rename", counted(Path.rename))
    monkeypatch.setattr(Path, "mkdir", counted(Path.mkdir))
    monkeypatch.setattr("exmem.integrations.samples.folders.shutil.rmtree", counted(lambda *args, **options: None))
    with contextlib.suppress(KeyboardInterrupt):
        memory.restore(new.snapshot())
    monkeypatch.undo()
    with contextlib.suppress(ExmemError):
        memory.close()  # a killed process does not hold the lock
    again = FieldMemory(tmp_path / "m", max_bytes="50kB", recipe="raw")
    assert len(again) in {4, 7}
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_first_samples_that_are_refused_do_not_decide_what_samples_hold(tmp_path: Path) -> None:
    memory = FieldMemory(tmp_path / "m", max_bytes="12kB", recipe="raw")
    for wrong, labels in ((images(1, size=128), [0]), (floats(2) + 0.5, [0, 1]), (images(2), [0])):
        with pytest.raises(ExmemError):
            memory.add({"image": wrong}, labels)
        assert not memory.exists
        assert not (tmp_path / "m").exists()
    memory.add({"image": images(2)})
    assert len(memory) == 2


def test_limits_are_those_that_were_given_last(tmp_path: Path) -> None:
    with contextlib.closing(FieldMemory(tmp_path / "m", max_bytes="50kB", max_exemplars=3, recipe="raw")) as memory:
        memory.add({"image": images(9)})
        assert len(memory) == 3
    with contextlib.closing(FieldMemory(tmp_path / "m", max_bytes="40kB", recipe="raw")) as memory:
        memory.add({"image": images(9)})
        assert len(memory) == 12
        assert memory.memory.max_bytes == 40_000
    again = FieldMemory(tmp_path / "m", max_exemplars=5, recipe="raw")
    assert len(again) == 5
    assert again.memory.max_bytes == raw_bytes(5, again.fields)


def test_a_memory_of_a_count_is_few_files_whose_bytes_are_those_of_what_it_holds() -> None:
    memory = FieldMemory(max_exemplars=200, recipe="raw", eviction="by_priority", seed=0)
    for turn in range(100):
        memory.add({"image": images(32, first=turn)})
    memory.commit()
    held = int(memory.memory.sizes.sum())
    assert len(memory) == 200
    assert memory.memory.used_bytes < 2.2 * held, "as many bytes again may lie with evicted exemplars, and a segment"
    taken = memory.read(memory.slots)["image"]
    snapshot = memory.snapshot()
    assert len(snapshot) < 1.1 * held
    assert memory.memory.used_bytes < 1.1 * held, "a snapshot takes none along"
    assert len(zipfile.ZipFile(io.BytesIO(snapshot)).namelist()) < 30
    again = FieldMemory(max_exemplars=200, recipe="raw", eviction="by_priority", seed=0)
    again.restore(snapshot)
    assert torch.equal(again.read(again.slots)["image"], taken)
