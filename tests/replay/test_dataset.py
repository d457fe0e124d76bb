"""A memory as a data set of numbered tuples, beside others."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from exmem import ExemplarMemory, Schema, TokenSpec
from exmem.errors import SchemaError
from exmem.replay import ReplayDataset, replay_loader
from tests.exemplars import TEXT, exemplar
from tests.replay.cases import create, numbered


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory") / "m"
    create(folder, count=20).close()
    return folder


def test_it_holds_every_exemplar_once_in_the_order_of_slots(folder):
    dataset = ReplayDataset(folder, fields=("slot", "label", "task"))
    assert len(dataset) == 20
    assert [dataset[index][:2] for index in range(20)] == [(number, number % 3) for number in range(20)]
    assert [int(dataset[index][2]) for index in range(20)] == [*range(20)]


def test_an_image_is_that_of_the_loader_and_a_text_stands_at_its_places(folder):
    dataset = ReplayDataset(folder, fields=("image", "text", "text_valid", "embedding"), fill="zero")
    batches = {batch.slots.item(): batch for batch in replay_loader(folder, batch=1)}
    for index in range(20):
        image, text, valid, embedding = dataset[index]
        assert (image.shape, image.dtype) == ((3, 64, 64), torch.uint8)
        assert torch.equal(image, batches[index].images("zero")[0])
        tokens = numbered(index).tokens["text"]
        expected = np.zeros(TEXT, np.int32)
        expected[tokens.positions] = tokens.values
        assert text.tolist() == expected.tolist()
        assert text.dtype == torch.int32
        assert np.flatnonzero(valid).tolist() == tokens.positions.tolist()
        np.testing.assert_array_equal(embedding, exemplar(index).extras["embedding"])


class Numbered(Dataset):
    """Twelve grey images of class 9, an int, as torchvision's data sets give it."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.full((3, 64, 64), 7, dtype=torch.uint8), 9


TENSORS = TensorDataset(torch.full((12, 3, 64, 64), 7, dtype=torch.uint8), torch.full((12,), 9))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("new", "target_transform"), [(Numbered(), None), (TENSORS, torch.tensor)])
def test_it_stands_beside_other_data_sets_under_shuffling_and_default_collation(folder, workers, new, target_transform):
    both = ConcatDataset([ReplayDataset(folder, target_transform=target_transform), new])
    loader = DataLoader(both, batch_size=8, shuffle=True, num_workers=workers)
    labels = []
    for images, classes in loader:
        assert (images.dtype, classes.dtype) == (torch.uint8, torch.int64)
        assert (images == 7).flatten(1).all(1).equal(classes == 9)
        labels += classes.tolist()
    assert sorted(labels) == sorted([number % 3 for number in range(20)] + [9] * 12)


def test_every_field_goes_through_the_default_collation(folder):
    fields = ("image", "text", "text_valid", "label", "slot", "task", "embedding")
    loader = DataLoader(ReplayDataset(folder, fields=fields), batch_size=5, shuffle=True, num_workers=2)
    for image, text, valid, label, slot, task, embedding in loader:
        assert image.shape == (5, 3, 64, 64)
        assert text.shape == valid.shape == (5, TEXT)
        assert label.tolist() == (slot % 3).tolist()
        assert task.tolist() == slot.tolist()
        assert embedding.shape == (5, 4)


def test_several_are_read_at_once_as_one_by_one(folder):
    dataset = ReplayDataset(folder, fields=("slot", "label"))
    assert dataset.__getitems__([3, 0, 3, -1]) == [dataset[3], dataset[0], dataset[3], dataset[19]]
    assert dataset.__getitems__([]) == []
    assert [item[0] for item in Subset(dataset, [4, 2])] == [4, 2]
    assert dataset[np.int64(2)] == dataset[torch.tensor(2)] == dataset[2]


@pytest.mark.parametrize("index", [20, -21, 10**9])
def test_an_index_outside_is_an_index_error(folder, index):
    with pytest.raises(IndexError, match=rf"index {index} is outside 0\.\.19"):
        ReplayDataset(folder)[index]


def test_iterating_ends(folder):
    assert [label for (label,) in ReplayDataset(folder, fields=("label",))] == [number % 3 for number in range(20)]


def test_a_copy_and_a_pickle_show_the_same(folder):
    dataset = ReplayDataset(folder, fields=("slot", "image"))
    for other in (pickle.loads(pickle.dumps(dataset)), copy.copy(dataset)):
        assert len(other) == 20
        assert other[5][0] == 5
        assert torch.equal(other[5][1], dataset[5][1])


def test_images_are_transformed_and_all_else_is_not(folder):
    dataset = ReplayDataset(folder, fields=("image", "label"), transform=lambda image: image.float().mean())
    assert dataset[1] == (ReplayDataset(folder)[1][0].float().mean(), 1)


def test_it_shows_what_was_committed_when_it_was_made_until_it_is_refreshed(tmp_path):
    with create(tmp_path / "m", count=4) as memory:
        dataset = ReplayDataset(memory, fields=("slot",))
        memory.add([numbered(4)])
        memory.commit()
        assert len(dataset) == 4
        assert dataset[-1] == (3,)
        dataset.refresh()
        assert len(dataset) == 5
        assert pickle.loads(pickle.dumps(dataset))[-1] == (4,)


def test_a_field_that_there_is_not_is_told_with_the_others(folder, tmp_path):
    with pytest.raises(SchemaError, match=r"no field \['logits'\]; choose of \['embedding', 'image', 'label', 'slot'"):
        ReplayDataset(folder, fields=("image", "logits"))
    with pytest.raises(SchemaError, match="unknown fill 'grey'"):
        ReplayDataset(folder, fill="grey")
    features = Schema({"seen": TokenSpec(positions=4, shape=(5,), dtype="float32", codec="raw")})
    ExemplarMemory.create(tmp_path / "m", schema=features, max_bytes="100kB").close()
    with pytest.raises(SchemaError, match=r"no field \['image'\]; choose of \['label', 'seen', 'seen_valid', 'slot'\]"):
        ReplayDataset(tmp_path / "m")
