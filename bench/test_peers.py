"""The same exemplars in what people use today: random batches of 64, and bytes on disk (or in RAM) an exemplar.

Needs the extra `peers`; a peer that is not installed is skipped and says so.
"""

import numpy as np
import pytest

from bench.peers import from_datasets
from bench.photographs import BATCH, COUNT, GRID, KEPT, PATCH, fill
from bench.timing import interleaved
from exmem import ExemplarMemory, TokenSet
from tests.exemplars import folder_bytes

SHAPE = (KEPT, PATCH, PATCH, 3)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peers") / "memory"
    given, _, _ = fill(folder, "raw")
    values = np.stack([exemplar.tokens["image"].values for exemplar in given])
    positions = np.stack([exemplar.tokens["image"].positions for exemplar in given])
    return ExemplarMemory.open(folder, threads=2), values, positions


def compare(benchmark, ours, read, nbytes):
    """Time a peer's `read(picks)` beside ours; both return patches (64, K, p, p, 3) and positions."""
    memory, values, positions = ours
    slots = memory.slots
    picks = np.random.default_rng(1).choice(COUNT, BATCH, replace=False)

    def mine():
        tokens = memory.read(slots[picks]).tokens["image"]
        return tokens.values, tokens.positions

    for side in (mine, lambda: read(picks)):
        found, places = side()
        np.testing.assert_array_equal(np.asarray(found).reshape(BATCH, *SHAPE), values[picks])
        np.testing.assert_array_equal(np.asarray(places).reshape(BATCH, KEPT), positions[picks])
    us, them = interleaved(mine, lambda: read(picks))
    benchmark.extra_info["exmem_is_times_faster"] = round(them / us, 2)
    benchmark.extra_info["peer_exemplars_a_second"] = round(BATCH / them)
    benchmark.extra_info["peer_bytes_an_exemplar"] = round(nbytes / COUNT)
    benchmark.extra_info["exmem_bytes_an_exemplar"] = round(memory.used_bytes / COUNT)
    benchmark(read, picks)


def test_a_float32_tensor_buffer_as_in_mammoth(benchmark, ours):
    """Whole pictures as float32 in RAM, indexed: nothing is stored, nothing is sparse."""
    import torch

    _, values, positions = ours
    dense = torch.zeros(COUNT, GRID * GRID, PATCH, PATCH, 3)
    for row in range(COUNT):
        dense[row, torch.from_numpy(positions[row])] = torch.from_numpy(values[row]).float()

    def read(picks):
        batch = dense[torch.from_numpy(picks)]
        places = torch.from_numpy(positions[picks])
        return batch.gather(1, places[..., None, None, None].expand(-1, -1, PATCH, PATCH, 3)).to(torch.uint8), places

    compare(benchmark, ours, read, dense.nbytes)


def test_torchrl_lazy_memmap_storage(benchmark, ours, tmp_path):
    torchrl = pytest.importorskip("torchrl.data")
    import torch
    from tensordict import TensorDict

    _, values, positions = ours
    storage = torchrl.LazyMemmapStorage(COUNT, scratch_dir=tmp_path / "storage")
    content = {"values": torch.from_numpy(values), "positions": torch.from_numpy(positions)}
    storage.set(range(COUNT), TensorDict(content, batch_size=[COUNT]))

    def read(picks):
        found = storage.get(torch.from_numpy(picks))
        return found["values"], found["positions"]

    compare(benchmark, ours, read, folder_bytes(tmp_path))


def test_lance(benchmark, ours, tmp_path):
    lance = pytest.importorskip("lance")
    import pyarrow

    _, values, positions = ours
    table = pyarrow.table(
        {
            "values": pyarrow.array([value.tobytes() for value in values], pyarrow.large_binary()),
            "positions": pyarrow.array([place.tobytes() for place in positions], pyarrow.binary()),
        }
    )
    dataset = lance.write_dataset(table, tmp_path / "lance")

    def read(picks):
        found = dataset.take(picks.tolist())
        buffers = (b"".join(found[name].to_pylist()) for name in ("values", "positions"))
        return np.frombuffer(next(buffers), np.uint8), np.frombuffer(next(buffers), np.int64)

    compare(benchmark, ours, read, folder_bytes(tmp_path))


def test_hugging_face_datasets(benchmark, ours, tmp_path):
    pytest.importorskip("datasets")
    _, values, positions = ours
    sets = [TokenSet(place, value) for place, value in zip(positions, values, strict=True)]
    compare(benchmark, ours, from_datasets(tmp_path / "arrow", sets), folder_bytes(tmp_path))
