"""TorchRL's buffers, samplers and writers with a storage of bytes: round trips, the brim, and TorchRL's own tests."""

import copy
import os
import pickle
import re
import subprocess
import sys
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integrations.peers.environment import peer_source
from tests.integrations.peers.torchrl_extension import has_trees

pytest.importorskip("torchrl")

from tensordict import TensorDict, assert_close, is_tensor_collection, tensorclass
from torch.utils._pytree import tree_flatten
from torchrl.data import (
    PrioritizedSampler,
    ReplayBuffer,
    SamplerWithoutReplacement,
    SliceSampler,
    TensorDictMaxValueWriter,
    TensorDictPrioritizedReplayBuffer,
    TensorDictReplayBuffer,
)

from exmem import ExemplarMemory
from exmem.errors import BudgetError, DataError, InvalidExemplarError, SchemaError
from exmem.integrations.samples.ring_memory import RingMemory
from exmem.integrations.torchrl import ExmemStorage
from exmem.integrations.torchrl.entries import EntryForm

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.slow,
]  # TorchRL and tensordict warn of what they renamed

needs_trees = pytest.mark.skipif(
    not has_trees(), reason="TorchRL's wheel is of another torch: see torchrl_extension.py"
)
Pair = namedtuple("Pair", ["left", "right"])


@tensorclass
class Inner:
    value: torch.Tensor


@tensorclass
class Outer:
    pixels: torch.Tensor
    inner: Inner
    name: str
    missing: torch.Tensor | None = None


def steps(count: int, *, first: int = 0, noise: bool = False, size: int = 16) -> TensorDict:
    """Transitions that know their number, with an image that JPEG makes small, or not."""
    number = torch.arange(first, first + count)
    pixels = (number % 200).to(torch.uint8)[:, None, None, None].expand(count, 3, size, size).clone()
    if noise:
        pixels = torch.randint(0, 256, pixels.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(first))
    following = {"reward": number[:, None].float(), "done": torch.zeros(count, 1, dtype=torch.bool)}
    return TensorDict({"pixels": pixels, "number": number, "next": following}, [count])


def kinds() -> dict[str, Any]:
    """A batch of five entries of each kind."""
    five = torch.arange(5)
    return {
        "tensor": torch.randn(5, 3),
        "scalars": five.double(),
        "bfloat16": torch.randn(5, 2).bfloat16(),
        "complex": torch.randn(5, 2, dtype=torch.complex64),
        "tensordict": TensorDict({"a": five, "b": {"c": torch.randn(5, 2, 3), "D-e f": five > 2}}, [5]),
        "wide": TensorDict({"a": torch.randn(5, 4), "n": TensorDict({"b": torch.randn(5, 4, 2)}, [5, 4])}, [5]),
        "reserved": TensorDict(dict.fromkeys(("label", "priority", "image", "text", "x" * 99, "x" * 98), five), [5]),
        "empty field": TensorDict({"a": five, "nothing": torch.zeros(5, 0, 3)}, [5]),
        "text": TensorDict({"a": five, "env": "Pong"}, [5]),
        "tensorclass": Outer(
            pixels=torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8),
            inner=Inner(value=torch.randn(5), batch_size=[5]),
            name="some",
            batch_size=[5],
        ),
        "tree": OrderedDict({"a": [five, (torch.randn(5, 2),)], "b": Pair(five, {30: five})}),
    }


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if is_tensor_collection(one):
        assert one.batch_size == other.batch_size
        if isinstance(one, Outer):
            assert (one.name, one.missing) == (other.name, other.missing)
            assert isinstance(one.inner, Inner)
        assert_close(one, other, rtol=0, atol=0)
        return
    (given, form), (taken, same) = tree_flatten(one), tree_flatten(other)
    assert len(given) == len(taken)
    assert str(form) == str(same)
    for tensor, again in zip(given, taken, strict=True):
        assert tensor.dtype == again.dtype
        assert torch.equal(tensor, again)


def numbers(buffer: ReplayBuffer) -> list[int]:
    held: list[int] = buffer[:]["number"].tolist()
    return held


@pytest.mark.parametrize("kind", list(kinds()))
@pytest.mark.parametrize("way", ["get", "dumps", "state_dict", "torch.save", "pickle", "deepcopy", "place"])
def test_every_kind_of_entry_comes_back(kind: str, way: str, tmp_path: Path) -> None:
    batch = kinds()[kind]
    storage = ExmemStorage(9, tmp_path / "place" if way == "place" else None)
    storage.set(range(5), batch)
    other = ExmemStorage(9)
    if way == "get":
        other = storage
    elif way == "dumps":
        storage.dumps(tmp_path / "dump")
        other.loads(tmp_path / "dump")
    elif way == "state_dict":
        other.load_state_dict(storage.state_dict())
    elif way == "torch.save":
        torch.save(storage.state_dict(), tmp_path / "file")
        other.load_state_dict(torch.load(tmp_path / "file", weights_only=True))
    elif way == "place":
        storage.close()
        other = ExmemStorage(9, tmp_path / "place")
    else:
        other = pickle.loads(pickle.dumps(storage)) if way == "pickle" else copy.deepcopy(storage)
    assert len(other) == 5
    assert_same(other.get(torch.arange(5)), batch)
    assert_same(
        other.get(3),
        EntryForm.of(batch, None).entries(
            {name: held[3:4] for name, held in EntryForm.of(batch, None).fields(batch).items()}, (), torch.device("cpu")
        ),
    )


@pytest.mark.parametrize("image", [None, "pixels"])
@pytest.mark.parametrize("way", ["dumps", "state_dict", "place"])
def test_a_buffer_goes_on_after_it_was_saved_in_the_second_round(image: str | None, way: str, tmp_path: Path) -> None:
    def made(name: str) -> TensorDictReplayBuffer:
        place = tmp_path / "place" if way == "place" else None
        storage = ExmemStorage(20, place, image=image, recipe="raw")
        return TensorDictReplayBuffer(storage=storage, sampler=SamplerWithoutReplacement(), batch_size=5)

    buffer = made("first")
    for start in range(0, 35, 7):
        buffer.extend(steps(7, first=start))
    before = buffer[:].clone()
    if way == "state_dict":
        state = buffer.state_dict()
    else:
        buffer.dumps(tmp_path / "dump")
    other = made("second") if way != "place" else None
    if way == "place":
        buffer.storage.close()
        other = made("second")
        assert_close(other[:], before)
    assert other is not None
    if way == "state_dict":
        other.load_state_dict(state)
    else:
        other.loads(tmp_path / "dump")
    assert_close(other[:], before)
    other.extend(steps(7, first=35))
    assert sorted(numbers(other)) == list(range(22, 42))


def test_another_process_goes_on_with_a_place(tmp_path: Path) -> None:
    storage = ExmemStorage(50, tmp_path / "place", image="pixels")
    buffer = TensorDictReplayBuffer(storage=storage, batch_size=8)
    buffer.extend(steps(30))
    buffer.dumps(tmp_path / "dump")
    storage.close()
    script = (
        "import sys; from torchrl.data import TensorDictReplayBuffer;"
        "from exmem.integrations.torchrl import ExmemStorage;"
        "from tests.integrations.peers.test_torchrl import steps;"
        "buffer = TensorDictReplayBuffer(storage=ExmemStorage(50, sys.argv[1], image='pixels'), batch_size=8);"
        "assert buffer[:]['number'].tolist() == list(range(30)); buffer.loads(sys.argv[2]);"
        "buffer.extend(steps(30, first=30)); assert len(buffer) == 50"
    )
    paths = [str(tmp_path / "place"), str(tmp_path / "dump")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", script, *paths], check=True, env=environment)
    again = TensorDictReplayBuffer(storage=ExmemStorage(50, tmp_path / "place", image="pixels"), batch_size=8)
    assert numbers(again) == [*range(50, 60), *range(10, 50)]


def test_the_image_goes_through_the_recipe_and_all_else_is_exact() -> None:
    buffer = TensorDictReplayBuffer(storage=ExmemStorage(100, image="pixels", recipe="jpeg"), batch_size=9)
    given = steps(100)
    buffer.extend(given)
    taken = buffer[:]
    assert torch.equal(taken["next", "reward"], given["next", "reward"])
    difference = (taken["pixels"].int() - given["pixels"].int()).abs().float().mean()
    assert 0 < difference < 4
    assert buffer.storage.memory.used_bytes < given["pixels"].nbytes / 3


@pytest.mark.parametrize("pattern", [[False], [True], [False, True], [True, False, True]])
@pytest.mark.parametrize("batch", [1, 16])
def test_at_the_brim_the_newest_are_there_and_the_bytes_hold(pattern: list[bool], batch: int, tmp_path: Path) -> None:
    storage = ExmemStorage(max_bytes=90_000, place=tmp_path / "place", image="pixels")
    buffer = TensorDictReplayBuffer(storage=storage, batch_size=32)
    number = 0
    for noise in pattern:
        for _ in range(160 // batch):
            index = buffer.extend(steps(batch, first=number, noise=noise))
            held, number = numbers(buffer), number + batch
            assert set(range(number - batch, number)) <= set(held)
            assert len(held) == len(buffer) == len(set(held))
            assert len(index) == batch
            assert sum(file.stat().st_size for file in (tmp_path / "place").rglob("*") if file.is_file()) <= 90_000
            sample = buffer.sample()
            assert [held[at] for at in sample["index"].reshape(32, -1)[:, 0].tolist()] == sample["number"].tolist()


@needs_trees
def test_priorities_find_their_entries_while_the_ring_shrinks_and_grows() -> None:
    storage = ExmemStorage(5000, max_bytes=30_000, image="pixels")
    sampler = PrioritizedSampler(5000, alpha=1.0, beta=1.0)
    buffer = TensorDictReplayBuffer(storage=storage, sampler=sampler, batch_size=64, priority_key="number")
    number, sizes = 0, set()
    for noise in (False, True, False):
        for _ in range(25):
            buffer.extend(steps(10, first=number, noise=noise))
            number += 10
            sample = buffer.sample()
            assert int(sample["index"].max()) < len(buffer)
            low = sample["number"] < number - 5
            sample["number"] = torch.where(low, 1e-6, 1e6)
            buffer.update_tensordict_priority(sample)
            sizes.add(storage.max_size)
    assert len(sizes) > 2


@needs_trees
def test_priorities_are_saved_beside_the_entries(tmp_path: Path) -> None:
    def made() -> TensorDictPrioritizedReplayBuffer:
        return TensorDictPrioritizedReplayBuffer(
            alpha=1.0, beta=1.0, storage=ExmemStorage(20), batch_size=200, priority_key="td_error"
        )

    buffer, other = made(), made()
    entries = steps(20).set("td_error", torch.full((20,), 1e-9))
    entries["td_error"][7] = 1e9
    buffer.extend(entries)
    buffer.dumps(tmp_path / "dump")
    other.loads(tmp_path / "dump")
    assert set(other.sample()["number"].tolist()) == {7}


def test_a_writer_that_keeps_the_best_is_refused_before_bytes_run_out() -> None:
    storage = ExmemStorage(400, max_bytes=60_000, image="pixels")
    buffer = TensorDictReplayBuffer(
        storage=storage, writer=TensorDictMaxValueWriter(rank_key=("next", "reward")), batch_size=8
    )
    buffer.extend(steps(40, noise=True))
    before = numbers(buffer)
    with pytest.raises(BudgetError, match="give max_size="):
        buffer.extend(steps(300, first=40, noise=True))
    assert numbers(buffer) == before


def test_a_writer_that_keeps_the_best_does_so_within_its_places() -> None:
    buffer = TensorDictReplayBuffer(
        storage=ExmemStorage(10), writer=TensorDictMaxValueWriter(rank_key=("next", "reward")), batch_size=8
    )
    for start in (20, 0, 30, 10):
        buffer.extend(steps(10, first=start))
        buffer.add(steps(1, first=start + 100)[0])
    assert sorted(numbers(buffer)) == [34, 35, 36, 37, 38, 39, 100, 110, 120, 130]


def test_slices_are_sampled_across_the_end_of_the_ring() -> None:
    sampler = SliceSampler(slice_len=4, end_key=("next", "done"), cache_values=True, strict_length=False)
    buffer = TensorDictReplayBuffer(storage=ExmemStorage(24), sampler=sampler, batch_size=16)
    for start in range(0, 60, 12):
        episode = steps(12, first=start)
        episode["next", "done"][-1] = True
        buffer.extend(episode)
    taken = buffer.sample()["number"].tolist()
    assert set(taken) <= set(range(36, 60))


def test_prefetched_samples_are_whole() -> None:
    buffer = TensorDictReplayBuffer(storage=ExmemStorage(40), batch_size=8, prefetch=3)
    buffer.extend(steps(40))
    for start in range(40, 400, 8):
        sample = buffer.sample()
        assert torch.equal(sample["next", "reward"][:, 0], sample["number"].float())
        buffer.extend(steps(8, first=start))


def test_what_is_read_is_a_copy_and_who_would_change_it_in_place_is_told() -> None:
    buffer = TensorDictReplayBuffer(storage=ExmemStorage(10), batch_size=4)
    buffer.extend(steps(10))
    with pytest.raises(RuntimeError, match="locked"):
        buffer["number"] = torch.zeros(10, dtype=torch.int64)
    with pytest.raises(NotImplementedError, match="copies"):
        buffer.set_("number", torch.zeros(10, dtype=torch.int64))
    buffer[torch.tensor([2, 5])] = buffer[torch.tensor([7, 8])]
    assert numbers(buffer) == [0, 1, 7, 3, 4, 8, 6, 7, 8, 9]
    buffer[3] = buffer[9]
    assert numbers(buffer)[3] == 9
    assert len(buffer) == 10


def test_a_buffer_that_is_emptied_begins_anew() -> None:
    buffer = TensorDictReplayBuffer(storage=ExmemStorage(max_bytes=60_000), batch_size=4)
    buffer.extend(steps(300, noise=True))
    full = buffer.storage.max_size
    buffer.empty()
    assert len(buffer) == 0
    assert buffer.storage.max_size > full
    buffer.extend(steps(10))
    assert numbers(buffer) == list(range(10))


def test_decoded_entries_take_no_more_ram_than_they_may() -> None:
    storage = ExmemStorage(400, ram_bytes="100kB")
    storage.set(range(400), steps(400, noise=True))
    for start in range(0, 400, 100):
        assert storage.get(torch.arange(start, start + 100))["number"].tolist() == list(range(start, start + 100))
    assert storage._ring.fields.decoded.ram_bytes < 110_000


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (TensorDict({"a": torch.zeros(2)}, [2]), "expected entries with"),
        (steps(2).set("extra", torch.zeros(2)), "extra"),
        (steps(2, size=8), "pixels.*expected uint8 of shape"),
        (steps(2).set("number", torch.zeros(2)), "expected int64"),
    ],
)
def test_entries_that_look_different_are_refused_and_nothing_changes(wrong: TensorDict, match: str) -> None:
    storage = ExmemStorage(10)
    storage.set(range(3), steps(3))
    with pytest.raises(InvalidExemplarError, match=match):
        storage.set(range(2), wrong)
    assert storage.get(slice(None))["number"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("cut", ["refused", "before it is stored", "after it"])
@pytest.mark.parametrize("held", [3, 8, 10])
def test_after_entries_that_were_refused_or_interrupted_the_writer_goes_on_where_it_was(
    cut: str, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = TensorDictReplayBuffer(storage=ExmemStorage(10, image=None), batch_size=4)
    buffer.extend(steps(held))
    put = RingMemory.put

    def interrupted(*given: Any, **options: Any) -> Any:
        if cut == "after it":
            put(*given, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if cut != "refused":
            patch.setattr(RingMemory, "put", interrupted)
        with pytest.raises((InvalidExemplarError, KeyboardInterrupt)):
            buffer.extend(steps(3, size=16 if cut != "refused" else 24))
    for first in range(held, held + 9, 3):
        buffer.extend(steps(3, first=first))
    assert sorted(numbers(buffer)) == [*range(held + 9 - len(buffer), held + 9)]
    assert len(buffer) == 10


def test_a_place_of_another_kind_is_refused(tmp_path: Path) -> None:
    ExmemStorage(10, tmp_path / "a", image="pixels").set(range(3), steps(3))
    with pytest.raises(SchemaError, match="made with the recipe"):
        ExmemStorage(10, tmp_path / "a")
    with pytest.raises(SchemaError, match="the image is"):
        ExmemStorage(10, tmp_path / "a", image=("next", "pixels"))
    with pytest.raises(SchemaError, match="give max_size, max_bytes or both"):
        ExmemStorage()


def test_a_dump_that_is_damaged_changes_nothing(tmp_path: Path) -> None:
    storage = ExmemStorage(10)
    storage.set(range(3), steps(3))
    storage.dumps(tmp_path)
    file = tmp_path / "storage.exmem"
    for damaged in (b"", b"{}\n" + file.read_bytes().partition(b"\n")[2], file.read_bytes()[:2000]):
        file.write_bytes(damaged)
        with pytest.raises(DataError):
            storage.loads(tmp_path)
        assert len(storage) == 3
        assert storage.get(slice(None))["number"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("given", [None, 5, [], {}, {"snapshot": torch.zeros(3), "ring": 1}])
def test_a_state_that_is_none_is_refused(given: Any) -> None:
    storage = ExmemStorage(10)
    storage.set(range(3), steps(3))
    with pytest.raises(DataError, match="expected what state_dict"):
        storage.load_state_dict(given)
    assert len(storage) == 3


def test_the_memory_says_what_its_fields_are(tmp_path: Path) -> None:
    storage = ExmemStorage(10, tmp_path / "place", image="pixels")
    storage.set(range(3), steps(3))
    storage.close()
    memory = ExemplarMemory.open(tmp_path / "place")
    assert set(memory.schema.extras) == {"number", "next_done", "next_reward"}
    assert memory.labels.tolist() == [0, 1, 2]


NOT_APPLICABLE = {
    "test_existsok_lazymemmap": "an ExmemStorage goes on with what is in its place",
    "test_load_state_dict_decouples_from_source": "loads the state of a TensorStorage, which is another format",
    "test_storage_dumps_loads and False-": "expects that trees cannot be loaded into a new storage: here they can",
    "test_extend_lazystack": "entries of several shapes in one, and how lazy stacks are written into tensors",
    "test_storage_inplace_writing_newkey": "adds a key to entries that are there: all entries hold the same",
    "test_storage_save_hook": "hooks that rearrange the tensors of a storage before they are saved",
    "across_processes or multiproc or shared_storage_multiprocess": "several processes write: here one does",
    "TestLazyStorages and (test_init or test_set)": "look at the tensors that a storage allocates",
    "test_extend_list_pytree": "the class of the error for a list of unlike entries (the rest of it is as here)",
    "Compressed or Cleanup": "other storages, and the files of a LazyMemmapStorage",
    "test_storage_mutation_revision_for_buffer_write_paths": "set_at_, set_ and update_ write into what was read",
    "test_replay_buffer_set_ or test_replay_buffer_set_at_ or test_replay_buffer_update_": "the same",
    "test_replay_buffer_read_write_all_in_order": "writes into what was read, which is locked: give it a clone()",
    "test_never_written_slot_is_stale": "reads an index that was never written: an IndexError here",
}


@pytest.mark.parametrize("file", ["test_storages", "test_writers", "test_prioritized", "test_rb_core", "test_samplers"])
@pytest.mark.timeout(3000)
def test_torchrls_own_tests_pass_with_ours_in_the_place_of_its_storages(file: str, tmp_path: Path) -> None:
    folder = peer_source("rl")
    if folder is None:
        pytest.skip("needs TorchRL's source: tests/integrations/peers/fetch.sh FOLDER, and EXMEM_PEERS=FOLDER")
    if file == "test_prioritized" and not has_trees():
        pytest.skip("TorchRL's wheel is of another torch: see torchrl_extension.py")
    options = ["-p", "no:cacheprovider", "-o", "addopts=", "-c", os.devnull, "-q", "-W", "ignore", "--tb=short"]
    others = " or ".join(f"({what})" for what in NOT_APPLICABLE)
    command = [sys.executable, "-m", "pytest", "-p", "tests.integrations.peers.torchrl_substitute", *options]
    tests = folder / "test" / "rb"
    done = subprocess.run(
        [*command, "--rootdir", str(tests), str(tests / f"{file}.py"), "-k", f"not ({others})"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 10
