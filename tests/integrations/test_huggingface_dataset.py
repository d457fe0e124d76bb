"""A memory as a `datasets.IterableDataset`: passes, ranks and workers, states, types."""

import pickle

import datasets
import numpy as np
import pytest
import torch
from datasets.distributed import split_dataset_by_node
from PIL import Image
from torch.utils.data import DataLoader

from exmem import ExemplarMemory, Schema, TokenSpec
from exmem.errors import SchemaError, StaleSnapshotError
from exmem.integrations.huggingface import iterable_dataset
from tests.exemplars import exemplar, schema
from tests.integrations.learners import BOUND

COUNT = 41


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A memory of images, texts and extras, of three classes."""
    folder = tmp_path_factory.mktemp("rows") / "m"
    with ExemplarMemory.create(folder, schema=gridded(), max_bytes="2MB", durable=False) as memory:
        memory.add([exemplar(number, label=number % 3) for number in range(COUNT)])
    return folder


def gridded():
    """The schema of the tests, of images of which the places are known."""
    given = schema("raw")
    image = TokenSpec(positions=16, shape=(16, 16, 3), dtype="uint8", grid=(4, 4))
    return Schema({**given.modalities, "image": image}, given.extras)


def slots(rows):
    return [row["slot"] for row in rows]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_and_workers_together_see_each_exemplar_of_a_pass_once(folder, workers, ranks):
    seen = []
    for rank in range(ranks):
        rows = split_dataset_by_node(iterable_dataset(folder, fields=["slot"], seed=3), rank, ranks)
        rows.set_epoch(2)
        seen += [
            slot for batch in DataLoader(rows, batch_size=4, num_workers=workers) for slot in batch["slot"].tolist()
        ]
    assert sorted(seen) == [*range(COUNT)]


def test_passes_follow_from_the_epoch_and_differ(folder):
    rows, again = (iterable_dataset(folder, fields=["slot"], seed=3) for _ in range(2))
    passes = []
    for epoch in range(3):
        rows.set_epoch(epoch)
        passes.append(slots(rows))
        assert slots(rows) == passes[-1], "an epoch is one order"
    again.set_epoch(1)
    assert slots(again) == passes[1]
    assert len({str(one) for one in passes}) == 3
    assert all(sorted(one) == [*range(COUNT)] for one in passes)
    assert slots(iterable_dataset(folder, fields=["slot"], seed=4)) != passes[0]


def test_a_pass_that_was_left_goes_on_from_its_state_and_costs_the_next_one_nothing(folder):
    rows = iterable_dataset(folder, fields=["slot"], batch=4)
    whole = slots(rows)
    taken = []
    for row in rows:
        taken.append(row["slot"])
        if len(taken) == 11:
            break
    state = rows.state_dict()
    assert slots(rows) == whole
    again = iterable_dataset(folder, fields=["slot"], batch=4)
    again.load_state_dict(state)
    assert taken + slots(again) == whole


def test_a_state_of_another_generation_of_the_memory_is_refused(tmp_path):
    with ExemplarMemory.create(tmp_path / "m", schema=gridded(), max_bytes="2MB", durable=False) as memory:
        memory.add([exemplar(number) for number in range(8)])
        memory.commit()
        rows = iterable_dataset(memory, fields=["slot"])
        next(iter(rows))
        state = rows.state_dict()
        memory.add([exemplar(9)])
        memory.commit()
        later = iterable_dataset(memory, fields=["slot"])
        later.load_state_dict(state)
        with pytest.raises(StaleSnapshotError, match="generation 1 of the memory, which is at 2"):
            next(iter(later))
        assert len(slots(rows)) == 8, "it shows what was committed when it was made"
        memory.evict(memory.slots[:3])
        with pytest.raises(StaleSnapshotError, match="begin a new pass"):
            slots(rows)


def test_an_endless_data_set_goes_on_with_another_pass(folder):
    rows = iter(iterable_dataset(folder, fields=["slot"], endless=True))
    passes = [[next(rows)["slot"] for _ in range(COUNT)] for _ in range(3)]
    assert all(sorted(one) == [*range(COUNT)] for one in passes)
    assert len({str(one) for one in passes}) == 3


def test_a_balanced_pass_has_as_many_of_each_class(tmp_path):
    with ExemplarMemory.create(tmp_path / "m", schema=gridded(), max_bytes="2MB", durable=False) as memory:
        memory.add([exemplar(number, label=int(number < 4)) for number in range(24)])
        memory.commit()
        labels = [row["label"] for row in iterable_dataset(memory, fields=["label"], sampler="balanced")]
    assert np.bincount(labels).tolist() == [12, 12]


def test_every_field_has_the_type_that_is_declared_in_every_format(folder):
    names = ["image", "label", "slot", "text", "text_valid", "task", "embedding"]
    rows = iterable_dataset(folder, fields=names)
    assert rows.column_names == names
    row = next(iter(rows))
    assert isinstance(row["image"], Image.Image)
    assert row["image"].size == (64, 64)
    with ExemplarMemory.open(folder) as memory:
        stored = memory.read([row["slot"]])
    assert row["label"] == stored.labels[0]
    assert row["task"] == stored.extras["task"][0]
    np.testing.assert_array_equal(row["embedding"], stored.extras["embedding"][0])
    valid = stored.tokens["text"].valid[0]
    np.testing.assert_array_equal(np.flatnonzero(row["text_valid"]), stored.tokens["text"].positions[0][valid])
    np.testing.assert_array_equal(row["text"][row["text_valid"]], stored.tokens["text"].values[0][valid])
    tensors = next(iter(rows.with_format("torch")))
    assert (tensors["image"].dtype, tuple(tensors["image"].shape)) == (torch.uint8, (3, 64, 64))
    np.testing.assert_array_equal(tensors["image"].permute(1, 2, 0), np.asarray(row["image"]))
    assert tuple(tensors["text"].shape) == (12,)
    table = datasets.Dataset.from_list([*rows.take(5)], features=rows.features)
    assert table[0]["label"] == row["label"], "rows are of the features that are declared"


def test_a_data_set_is_pickled_mapped_and_mixed_with_another(folder):
    rows = iterable_dataset(folder, fields=["slot", "label"])
    assert slots(pickle.loads(pickle.dumps(rows))) == slots(rows)
    assert [row["twice"] for row in rows.map(lambda row: {"twice": 2 * row["slot"]})] == [
        2 * one for one in slots(rows)
    ]
    new = datasets.Dataset.from_dict({"slot": [-1] * 5, "label": [0] * 5}).to_iterable_dataset()
    mixed = slots(datasets.interleave_datasets([new, iterable_dataset(folder, fields=["slot", "label"], endless=True)]))
    assert mixed[:10:2] == [-1] * 5
    assert -1 not in mixed[1:10:2]


def test_what_cannot_be_shown_is_refused(folder, tmp_path):
    with pytest.raises(SchemaError, match="no field"):
        iterable_dataset(folder, fields=["colour"])
    with pytest.raises(ValueError, match="unknown sampler"):
        iterable_dataset(folder, sampler="balance")
    with pytest.raises(SchemaError, match="num_shards"):
        iterable_dataset(folder, num_shards=0)
    with BOUND.create_memory(tmp_path / "m", max_bytes="100kB") as memory, pytest.raises(SchemaError, match="add and"):
        iterable_dataset(memory)
