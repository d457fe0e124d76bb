"""Batches for torch: worker processes, ranks, and continuing in the middle of a pass."""

import pickle
import sys

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing

from exmem import ExemplarMemory
from exmem.errors import SchemaError
from exmem.replay import ReplayDataset, replay_loader
from tests.exemplars import exemplar, schema


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory") / "m"
    with ExemplarMemory.create(folder, schema=schema("raw"), max_bytes="1MB", durable=False) as memory:
        memory.add([exemplar(seed, label=seed % 3) for seed in range(40)])
    return folder


def tasks(batches):
    """Which exemplars came, by the number that each carries."""
    return [batch.extras["task"].tolist() for batch in batches]


def flat(parts):
    return [value for part in parts for value in part]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_started_either_way_give_the_same_batches(folder, context):
    expected = tasks(replay_loader(folder, batch=8, sampler="balanced", seed=3))
    loader = replay_loader(folder, batch=8, sampler="balanced", seed=3, num_workers=2, multiprocessing_context=context)
    assert tasks(loader) == expected
    assert tasks(loader) == expected, "the same pass twice"
    loader.set_epoch(1)
    assert tasks(loader) != expected


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_is_continued_behind_the_batches_that_were_taken(folder, workers):
    options = {"batch": 4, "length": 60, "seed": 5, "num_workers": workers}
    loader = replay_loader(folder, **options)
    loader.set_epoch(2)
    whole = tasks(loader)
    loader.set_epoch(2)
    batches = iter(loader)
    first = tasks(next(batches) for _ in range(6))
    state = pickle.loads(pickle.dumps(loader.state_dict()))
    assert state == {"epoch": 2, "done": 24}
    other = replay_loader(folder, **options)
    other.load_state_dict(state)
    again = iter(other)
    second = tasks(next(again) for _ in range(3))
    state = other.state_dict()
    assert state == {"epoch": 2, "done": 36}
    third = replay_loader(folder, **options)
    third.load_state_dict(state)
    assert first + second + tasks(third) == whole


def test_ranks_draw_disjoint_shares_of_the_same_length(folder):
    shares = [flat(tasks(replay_loader(folder, batch=4, length=39, seed=1, share=(rank, 2)))) for rank in (0, 1)]
    assert [len(share) for share in shares] == [19, 19]
    assert not set(shares[0]) & set(shares[1])
    with pytest.raises(SchemaError, match="rank"):
        replay_loader(folder, batch=4, share=(2, 2))


def one_rank(rank, port, folder, queue):
    import os

    import torch.distributed as distributed

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    loader = replay_loader(folder, batch=5, seed=7, share=(rank, 2))
    drawn = torch.cat([batch.extras["task"].long() for batch in loader])
    every = [torch.zeros_like(drawn) for _ in range(2)]
    distributed.all_gather(every, drawn)
    queue.put((rank, [part.tolist() for part in every]))
    distributed.barrier()
    distributed.destroy_process_group()


def test_two_ranks_of_a_process_group_share_a_pass(folder):
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    ranks = [context.Process(target=one_rank, args=(rank, port, str(folder), queue)) for rank in (0, 1)]
    for rank in ranks:
        rank.start()
    found = dict(queue.get(timeout=120) for _ in ranks)
    for rank in ranks:
        rank.join(60)
        assert rank.exitcode == 0
    assert found[0] == found[1]
    assert sorted(flat(found[0])) == list(range(40))


def test_batches_can_be_pinned(folder, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: tensor.clone())
    batch = ReplayDataset(folder)[3]
    pinned = batch.pin_memory()
    np.testing.assert_array_equal(pinned.tokens["image"].values, batch.tokens["image"].values)
    assert pinned.tokens["image"].values is not batch.tokens["image"].values
    assert pinned.labels.tolist() == batch.labels.tolist()
    assert sys.getsizeof(pickle.dumps(ReplayDataset(folder))) < 2000, "a data set carries no exemplars"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_iteration_after_one_that_was_left_begins_the_pass_anew(folder, workers):
    loader = replay_loader(folder, batch=8, seed=5, num_workers=workers)
    whole = tasks(loader)
    for _ in range(6):
        assert tasks([next(iter(loader))]) == whole[:1]
    for batch in loader:
        assert batch.extras["task"].tolist() == whole[0]
        break
    state = loader.state_dict()
    assert state == {"epoch": 0, "done": 8}
    assert tasks(loader) == whole
    loader.load_state_dict(state)
    assert tasks(loader) == whole[1:]
    assert tasks(loader) == whole


def test_batches_say_of_which_exemplars_they_are(folder):
    with ExemplarMemory.open(folder) as memory:
        for batch in replay_loader(folder, batch=16, seed=1, num_workers=2):
            read = memory.read(batch.slots.numpy())
            assert read.extras["task"].tolist() == batch.extras["task"].tolist()
            assert read.priorities.tolist() == batch.priorities.tolist()
            assert batch.to("cpu").slots.tolist() == batch.slots.tolist()


def test_options_that_the_loader_sets_itself_are_refused(folder):
    with pytest.raises(SchemaError, match="sets batch_size itself"):
        replay_loader(folder, batch=8, batch_size=4)
    loader = replay_loader(folder, batch=8, num_workers=1, persistent_workers=False)
    assert not loader.persistent_workers
