"""Selection, keep rules, replay and text exchange."""

import numpy as np
import pytest
import torch

from exmem import ExemplarMemory
from exmem.errors import InvalidExemplarError, SchemaError
from exmem.replay import BalancedSampler, ReplayDataset, UniformSampler, replay_loader
from exmem.replay.augment import TextExchange, class_partners
from exmem.selection import Reservoir, herding, random_order
from exmem.tokens.tensors import TensorBatch
from tests.exemplars import assert_same, exemplar, schema


@pytest.fixture
def memory(tmp_path):
    with ExemplarMemory.create(tmp_path / "memory", schema=schema(codec="raw"), max_bytes="1MB") as memory:
        memory.add([exemplar(seed, label=int(seed < 2), priority=-seed) for seed in range(12)])
    return tmp_path / "memory"


def test_herding_follows_the_class_mean_and_is_prefix_nested():
    features = np.random.default_rng(0).normal(size=(20, 5)) + 1
    order = herding(features)
    assert sorted(order.tolist()) == list(range(20))
    np.testing.assert_array_equal(herding(features, count=7), order[:7])
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    far = np.linalg.norm(rows[random_order(20, np.random.default_rng(1))[:5]].mean(0) - rows.mean(0))
    assert np.linalg.norm(rows[order[:5]].mean(0) - rows.mean(0)) < far
    assert herding(features[:0]).tolist() == []
    with pytest.raises(InvalidExemplarError, match="without NaN"):
        herding(np.array([[np.nan]]))


def test_a_reservoir_holds_each_arrival_equally_often():
    held = np.zeros(10)
    for seed in range(3000):
        places, reservoir = {}, Reservoir(3, seed=seed)
        for item in range(10):
            place = reservoir.offer()
            if place is not None:
                places[place] = item
        held[list(places.values())] += 1
    # 3000 draws of probability 0.3: standard deviation 25, so five of them
    assert np.abs(held - 900).max() < 126


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_the_number_of_workers(memory, workers):
    loader = replay_loader(memory, batch=4, sampler="balanced", length=12, num_workers=workers, seed=5)
    labels = torch.cat([batch.labels for batch in loader])
    again = BalancedSampler(ExemplarMemory.open(memory).slots, ExemplarMemory.open(memory).labels, length=12, seed=5)
    expected = ExemplarMemory.open(memory).read(np.array(list(again))).labels
    np.testing.assert_array_equal(labels.numpy(), expected)
    assert labels.sum() == 6  # class 1 has two of the twelve exemplars


def test_a_uniform_pass_draws_each_exemplar_once_and_can_be_continued():
    sampler = UniformSampler(np.arange(10), np.zeros(10, np.int64), seed=1)
    whole = list(sampler)
    assert sorted(whole) == list(range(10))
    draws = iter(sampler)
    first = [next(draws) for _ in range(4)]
    other = UniformSampler(np.arange(10), np.zeros(10, np.int64), seed=1)
    other.load_state_dict(sampler.state_dict())
    assert first + list(other) == whole
    sampler.set_epoch(1)
    assert list(sampler) != whole


def test_fills_keep_places_and_values(memory):
    dropped, dense = ReplayDataset(memory)[3].tokens["image"], ReplayDataset(memory, fill="zero")[3].tokens["image"]
    assert dense.values.shape[1] == 16
    kept = dropped.positions[0][dropped.valid[0]]
    torch.testing.assert_close(dense.values[0, kept], dropped.values[0][dropped.valid[0]])
    assert dense.values[0].flatten(1).sum(1).count_nonzero() <= len(kept)
    with pytest.raises(SchemaError, match="unknown fill"):
        ReplayDataset(memory, fill="grey")


def test_texts_are_exchanged_within_a_class_only(memory):
    stored = ExemplarMemory.open(memory).read(np.arange(12))
    assert_same(stored.exemplar(2), exemplar(2, label=0, priority=-2))
    batch = TensorBatch.from_numpy(stored)
    generator = torch.Generator().manual_seed(0)
    partners = class_partners(batch.labels, probability=1.0, generator=generator)
    assert (partners != torch.arange(12)).all()
    assert (batch.labels[partners] == batch.labels).all()
    same = TextExchange(probability=0.0)(batch, generator=generator)
    torch.testing.assert_close(same.tokens["text"].values, batch.tokens["text"].values)
    with pytest.raises(SchemaError, match=r"0\.\.1"):
        class_partners(batch.labels, probability=1.5, generator=generator)
