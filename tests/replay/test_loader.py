"""Batches for torch: passes, worker processes, ranks, continuing in the middle, and following commits."""

import copy
import os
import pickle
import sys
import threading
import time
import weakref

import accelerate
import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing
import zarr

from exmem import ExemplarMemory
from exmem.errors import SchemaError, StaleSnapshotError
from exmem.replay import ReplayDataset, replay_loader
from exmem.replay.augment import TextExchange
from tests.replay.cases import SlowFlip, create, flat, note_worker, numbered, tasks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory") / "m"
    create(folder).close()
    return folder


WORKERS = [
    pytest.param({"num_workers": 0}, id="here"),
    pytest.param({"num_workers": 2}, id="workers"),
    pytest.param({"num_workers": 2, "persistent_workers": False}, id="workers that end with each pass"),
]
some_workers = pytest.mark.parametrize("workers", WORKERS)


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_started_either_way_give_the_same_batches(folder, context):
    options = {"batch": 8, "sampler": "balanced", "seed": 3}
    here = replay_loader(folder, **options)
    there = replay_loader(folder, **options, num_workers=2, multiprocessing_context=context)
    first, second = tasks(here), tasks(here)
    assert tasks(there) == first
    assert tasks(there) == second, "and the next pass"


@pytest.mark.parametrize("augment", [SlowFlip(), TextExchange()], ids=["flip", "text"])
def test_augmentation_does_not_depend_on_the_number_of_workers(folder, augment):
    options = {"batch": 8, "seed": 4, "augment": augment, "fill": "mean"}
    here, there = replay_loader(folder, **options), replay_loader(folder, **options, num_workers=2)
    plain = replay_loader(folder, batch=8, seed=4, fill="mean")
    changed = False
    for one, two, three in zip(here, there, plain, strict=True):
        for name, tokens in one.tokens.items():
            assert torch.equal(tokens.values, two.tokens[name].values)
            changed |= not torch.equal(tokens.values, three.tokens[name].values)
    assert changed


def test_passes_differ_without_being_told_and_follow_from_seed_and_number(folder):
    loader, again = replay_loader(folder, batch=8, seed=3), replay_loader(folder, batch=8, seed=3)
    passes = [tasks(loader) for _ in range(4)]
    assert all(sorted(flat(one)) == [*range(40)] for one in passes)
    assert len({str(one) for one in passes}) == 4
    again.set_epoch(2)
    assert [tasks(again), tasks(again)] == passes[2:], "it goes on from there"
    again.set_epoch(0)
    assert tasks(again) == passes[0]
    assert tasks(replay_loader(folder, batch=8, seed=4)) != passes[0]
    with pytest.raises(SchemaError, match="epoch must be an integer"):
        again.set_epoch(-1)


@some_workers
def test_a_pass_that_was_left_costs_the_next_one_nothing(folder, workers):
    options = {"batch": 4, "seed": 5}
    expected = [tasks(replay_loader(folder, **options) if not number else at(folder, number)) for number in range(6)]
    loader = replay_loader(folder, **options, **workers)
    for batch in loader:
        assert tasks([batch]) == expected[0][:1]
        break
    assert tasks(loader) == expected[1]
    assert tasks(batch for _, batch in zip(range(3), loader, strict=False)) == expected[2][:3]
    assert tasks(batch for batch, _ in zip(loader, range(2), strict=False)) == expected[3][:2]
    assert tasks([next(iter(loader))]) == expected[4][:1]
    assert tasks(loader) == expected[5]
    assert sorted(flat(expected[5])) == [*range(40)]


@some_workers
def test_two_iterations_at_once_are_refused_instead_of_sharing_out_one_pass(folder, workers):
    loader = replay_loader(folder, batch=4, **workers)
    with pytest.raises(SchemaError, match="another iteration of this loader has begun; make a loader for each"):
        list(zip(loader, loader, strict=False))
    assert sorted(flat(tasks(loader))) == [*range(40)]


def at(folder, number):
    """The loader of the same options at a pass."""
    loader = replay_loader(folder, batch=4, seed=5)
    loader.set_epoch(number)
    return loader


@some_workers
def test_a_pass_is_continued_behind_the_batches_that_were_taken(folder, workers):
    options = {"batch": 4, "length": 60, "seed": 5, "augment": SlowFlip()}
    loader = replay_loader(folder, **options, **workers)
    loader.set_epoch(2)
    whole, following = list(loader), list(loader)
    loader.set_epoch(2)
    batches = iter(loader)
    first = [next(batches) for _ in range(6)]
    time.sleep(0.05)  # workers read ahead of what is taken
    state = pickle.loads(pickle.dumps(loader.state_dict()))
    assert (state["pass"], state["batches"]) == (2, 6)
    other = replay_loader(folder, **options)
    other.load_state_dict(state)
    again = iter(other)
    second = [next(again) for _ in range(3)]
    third = replay_loader(folder, **options, **workers)
    third.load_state_dict(other.state_dict())
    continued = [*first, *second, *third, *third]
    assert tasks(continued) == tasks([*whole, *following])
    for one, two in zip(continued, [*whole, *following], strict=True):
        assert torch.equal(one.tokens["image"].values, two.tokens["image"].values), "augmented alike"


def test_a_state_goes_on_in_the_middle_of_an_endless_iteration(folder):
    options = {"batch": 16, "seed": 5, "endless": True}
    loader = iter(replay_loader(folder, **options))
    expected = tasks(next(loader) for _ in range(9))
    first = replay_loader(folder, **options)
    batches = iter(first)
    taken = tasks(next(batches) for _ in range(5))
    second = replay_loader(folder, **options)
    second.load_state_dict(first.state_dict())
    batches = iter(second)
    assert taken + tasks(next(batches) for _ in range(4)) == expected
    assert sorted(flat(expected[:3])) == sorted(flat(expected[3:6])) == [*range(40)]


def test_a_finished_pass_is_followed_by_the_next_one_also_from_a_state(folder):
    loader = replay_loader(folder, batch=16, seed=5)
    expected = [tasks(loader), tasks(loader)]
    first, second = replay_loader(folder, batch=16, seed=5), replay_loader(folder, batch=16, seed=5)
    assert tasks(first) == expected[0]
    second.load_state_dict(first.state_dict())
    assert tasks(second) == expected[1]


def test_a_state_of_another_memory_is_refused_in_the_middle_of_a_pass_until_one_begins_anew(tmp_path):
    with create(tmp_path / "m") as memory:
        loader = replay_loader(memory, batch=8, seed=1)
        batches = iter(loader)
        next(batches)
        middle = loader.state_dict()
        list(batches)
        end = loader.state_dict()
        memory.add([numbered(40)])
        memory.commit()
        later = replay_loader(memory, batch=8, seed=1)
        later.load_state_dict(middle)
        with pytest.raises(StaleSnapshotError, match=r"the pass was left at generation .* call set_epoch to begin"):
            next(iter(later))
        later.set_epoch(middle["pass"])
        assert sorted(flat(tasks(later))) == [*range(41)]
        later.load_state_dict(end)
        assert sorted(flat(tasks(later))) == [*range(41)], "between passes nothing is lost"


@pytest.mark.parametrize("wrong", [None, 3, {}, {"pass": 1}, {"pass": 0, "batches": -1, "generation": 0}])
def test_what_is_no_state_is_refused(folder, wrong):
    with pytest.raises(SchemaError, match=r"state|batches"):
        replay_loader(folder, batch=4).load_state_dict(wrong)


@some_workers
def test_each_pass_draws_from_what_is_committed_when_it_begins(tmp_path, workers):
    with create(tmp_path / "m", count=10) as memory:
        following = replay_loader(memory, batch=4, **workers)
        fixed = replay_loader(memory, batch=4, follow=False, **workers)
        endless = iter(replay_loader(memory, batch=5, endless=True, **workers))
        assert sorted(flat(tasks(next(endless) for _ in range(2)))) == [*range(10)]
        memory.add([numbered(10), numbered(11)])
        assert len(following) == 3
        assert sorted(flat(tasks(following))) == [*range(10)], "not yet committed"
        memory.commit()
        assert sorted(flat(tasks(following))) == [*range(12)]
        assert sorted(flat(tasks(next(endless) for _ in range(3)))) == [*range(12)]
        assert sorted(flat(tasks(fixed))) == [*range(10)]
        memory.evict(memory.slots[:2])
        assert sorted(flat(tasks(following))) == [*range(2, 12)]


@some_workers
def test_others_stand_in_for_what_is_evicted_while_a_pass_runs(tmp_path, workers):
    with create(tmp_path / "m") as memory:
        loader = replay_loader(memory, batch=2, seed=1, **workers)
        batches = iter(loader)
        seen = flat(tasks([next(batches)]))
        memory.evict(memory.slots[3:])
        memory.add([numbered(number) for number in range(50, 60)])
        memory.commit()
        seen += flat(tasks(batches))
        assert len(seen) == 40
        assert {*seen} <= {*range(40), *range(50, 60)}
        assert sorted(flat(tasks(loader))) == [0, 1, 2, *range(50, 60)]


@some_workers
def test_without_following_what_is_evicted_is_read_or_ends_the_pass_in_words(tmp_path, workers):
    with create(tmp_path / "m") as memory:
        batches = iter(replay_loader(memory, batch=2, seed=1, follow=False, **workers))
        seen = flat(tasks([next(batches)]))
        memory.evict(memory.slots)
        memory.add([numbered(number) for number in range(50, 60)])
        memory.commit()
        try:
            seen += flat(tasks(batches))
            assert sorted(seen) == [*range(40)], "the snapshot to its end"
        except StaleSnapshotError as error:
            assert "begin a new pass" in str(error)  # noqa: PT017 - either is right


def test_a_full_memory_is_replayed_without_end_while_it_is_filled(tmp_path):
    with create(tmp_path / "m") as memory:
        memory.resize(memory.used_bytes * 3 // 4)
        batches = iter(replay_loader(memory, batch=4, endless=True))
        for step in range(30):
            assert 1 <= len(next(batches)) <= 4
            memory.add([numbered(100 + 4 * step + more) for more in range(4)])
            memory.commit()


def test_a_loader_that_is_dropped_ends_its_workers_at_once(folder):
    loader = replay_loader(folder, batch=4, num_workers=1)
    next(iter(loader))
    begun = weakref.ref(loader)
    del loader
    assert begun() is None, "nothing but its owner holds it"


def test_a_copy_of_a_loader_draws_passes_of_its_own(folder):
    loader = replay_loader(folder, batch=8)
    assert sorted(flat(tasks(copy.deepcopy(loader)))) == sorted(flat(tasks(loader))) == [*range(40)]


def test_ranks_draw_disjoint_shares_of_equal_batches_that_cover_the_pass(folder):
    loaders = [replay_loader(folder, batch=4, seed=1, share=(rank, 3)) for rank in range(3)]
    shares = [tasks(loader) for loader in loaders]
    assert [len(loader) for loader in loaders] == [4, 4, 4]
    assert [[len(batch) for batch in share] for share in shares] == [[4, 4, 4, 2]] * 3
    drawn = flat(flat(shares))
    assert {*drawn} == {*range(40)}
    assert len(drawn) == 42, "what does not divide by three is drawn again"
    even = [flat(tasks(replay_loader(folder, batch=4, seed=1, length=39, share=(rank, 3)))) for rank in range(3)]
    assert [len(share) for share in even] == [13] * 3
    assert len({*flat(even)}) == 39


@pytest.mark.parametrize("sampler", ["uniform", "balanced"])
def test_more_ranks_than_exemplars_have_as_many_batches_each(tmp_path, sampler):
    create(tmp_path / "m", count=3).close()
    options = {"batch": 4, "sampler": sampler}
    shares = [flat(tasks(replay_loader(tmp_path / "m", **options, share=(rank, 8)))) for rank in range(8)]
    assert [len(share) for share in shares] == [1] * 8
    assert {*flat(shares)} == {0, 1, 2}


@pytest.mark.parametrize("share", [(2, 2), (-1, 2), (0, 0), (0.5, 2)])
def test_a_rank_outside_the_ranks_is_refused(folder, share):
    with pytest.raises(SchemaError, match="share"):
        replay_loader(folder, batch=4, share=share)


def one_rank(rank, port, folder, queue):
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


@pytest.mark.slow
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
    gathered = dict(queue.get(timeout=120) for _ in ranks)
    for rank in ranks:
        rank.join(60)
        assert rank.exitcode == 0
    assert gathered[0] == gathered[1]
    assert sorted(flat(gathered[0])) == [*range(40)]


def test_batches_can_be_pinned_and_a_data_set_carries_no_exemplars(folder, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: tensor.clone())
    batch = next(iter(replay_loader(folder, batch=3)))
    pinned = batch.pin_memory()
    np.testing.assert_array_equal(pinned.tokens["image"].values, batch.tokens["image"].values)
    assert pinned.tokens["image"].values is not batch.tokens["image"].values
    assert (pinned.labels.tolist(), pinned.grid) == (batch.labels.tolist(), batch.grid)
    assert sys.getsizeof(pickle.dumps(ReplayDataset(folder))) < 3000


def test_batches_say_of_which_exemplars_they_are(folder):
    with ExemplarMemory.open(folder) as memory:
        for batch in replay_loader(folder, batch=16, seed=1, num_workers=2):
            read = memory.read(batch.slots.numpy())
            assert read.extras["task"].tolist() == batch.extras["task"].tolist()
            assert read.priorities.tolist() == batch.priorities.tolist()
            assert batch.to("cpu").slots.tolist() == batch.slots.tolist()


@pytest.mark.parametrize("name", ["dataset", "batch_size", "batch_sampler", "collate_fn", "drop_last", "shuffle"])
def test_options_that_the_loader_sets_itself_are_refused(folder, name):
    with pytest.raises(SchemaError, match=rf"replay_loader sets {name} itself; give batch=, sampler= and length="):
        replay_loader(folder, batch=8, **{name: None})


@pytest.mark.slow
def test_other_options_of_a_data_loader_pass_through(folder):
    options = {
        "num_workers": 2,
        "prefetch_factor": 4,
        "pin_memory": False,
        "persistent_workers": True,
        "timeout": 60,
        "worker_init_fn": note_worker,
        "multiprocessing_context": "spawn",
        "generator": torch.Generator(),
    }
    loader = replay_loader(folder, batch=8, seed=2, **options)
    assert tasks(loader) == tasks(replay_loader(folder, batch=8, seed=2))
    assert {name: getattr(loader._loader, name) for name in ("prefetch_factor", "timeout", "persistent_workers")} == {
        "prefetch_factor": 4,
        "timeout": 60,
        "persistent_workers": True,
    }
    with pytest.raises(TypeError, match="no_such_option"):
        replay_loader(folder, batch=8, no_such_option=1)


@pytest.mark.slow
def test_workers_that_start_elsewhere_find_the_memory_of_a_relative_path(tmp_path, monkeypatch):
    create(tmp_path / "m").close()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    loader = replay_loader("m", batch=8, num_workers=1, multiprocessing_context="spawn")
    dataset = ReplayDataset("m", fields=("slot",))
    monkeypatch.chdir(tmp_path / "other")
    assert sorted(flat(tasks(loader))) == [*range(40)]
    assert pickle.loads(pickle.dumps(dataset))[3] == (3,)


def test_a_memory_that_is_open_for_writing_is_read_beside_it(tmp_path):
    with create(tmp_path / "m") as memory:
        for workers in (0, 2):
            assert sorted(flat(tasks(replay_loader(memory, batch=8, num_workers=workers)))) == [*range(40)]
        memory.add([numbered(40)])
        memory.commit()
        assert len(memory) == 41


def test_a_store_in_memory_is_loaded_without_workers():
    with create(zarr.storage.MemoryStore(), count=10) as memory:
        loader = replay_loader(memory, batch=4)
        assert sorted(flat(tasks(loader))) == [*range(10)]
        memory.add([numbered(10)])
        memory.commit()
        assert sorted(flat(tasks(loader))) == [*range(11)]


def test_accelerate_hands_it_back_as_it_is(folder):
    loader = replay_loader(folder, batch=8)
    assert accelerate.Accelerator(cpu=True).prepare(loader) is loader


def test_length_and_number_of_batches_are_as_worked_out_by_hand(folder):
    assert [len(replay_loader(folder, batch=8, length=length)) for length in (None, 1, 8, 9, 100)] == [5, 1, 1, 2, 13]
    assert [len(batch) for batch in replay_loader(folder, batch=8, length=9)] == [8, 1]
    twice = flat(tasks(replay_loader(folder, batch=8, length=80)))
    assert sorted(twice[:40]) == sorted(twice[40:]) == [*range(40)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch": 0}, "batch must be"),
        ({"length": 0}, "length must be"),
        ({"seed": -1}, "seed must be"),
        ({"sampler": "unifrm"}, "unknown sampler"),
    ],
)
def test_options_out_of_range_are_named(folder, wrong, message):
    with pytest.raises(SchemaError, match=message):
        replay_loader(folder, **({"batch": 4} | wrong))


def test_a_memory_without_exemplars_is_refused(tmp_path):
    create(tmp_path / "m", count=0).close()
    with pytest.raises(SchemaError, match="holds no exemplar to draw; add and commit some first"):
        replay_loader(tmp_path / "m", batch=4)


@pytest.mark.parametrize("ahead", [0, 1, 3, 99])
def test_batches_that_are_read_ahead_are_the_same(folder, ahead):
    options = {"batch": 4, "seed": 3, "fill": "mean"}
    loader, plain = replay_loader(folder, **options, ahead=ahead), replay_loader(folder, **options, ahead=0)
    for _ in range(2):
        mine, others = list(loader), list(plain)
        assert len(mine) == len(others) > 1
        for one, other in zip(mine, others, strict=True):
            assert torch.equal(one.images(), other.images())
            assert torch.equal(one.labels, other.labels)
    taken = iter(loader)
    next(taken)
    state = loader.state_dict()
    assert state["batches"] == 1, "what was read ahead was not taken"
    taken.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("exmem-replay")]


def test_a_failure_of_what_reads_ahead_is_raised_where_its_batch_is_asked_for(folder, monkeypatch):
    loader = replay_loader(folder, batch=4, ahead=2)
    read, calls = loader._read, []

    def failing(request):
        calls.append(request)
        if len(calls) == 2:
            raise RuntimeError("the second cannot be read")
        return read(request)

    monkeypatch.setattr(loader, "_read", failing)
    taken = iter(loader)
    next(taken)
    with pytest.raises(RuntimeError, match="the second cannot be read"):
        next(taken)
    monkeypatch.undo()
    assert len(list(loader)) == len(loader)
