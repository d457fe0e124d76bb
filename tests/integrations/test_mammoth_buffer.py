"""The buffer for mammoth without mammoth: alone and in combination, at the brim."""

import copy
import itertools
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from exmem import ExemplarMemory
from exmem.errors import (
    BudgetError,
    DataError,
    InvalidExemplarError,
    SchemaError,
    StoreIOError,
)
from exmem.integrations.mammoth import Buffer
from exmem.integrations.mammoth.memory import WAITING
from exmem.memory.reservoir import arrival_keys


def images(count: int, *, first: int = 0, channels: int = 3, size: int = 8) -> Tensor:
    """Floats of 0..1 as ToTensor makes them; the number of each, up to 65,535, stands in its first two pixels."""
    numbers = torch.arange(first, first + count)
    made = torch.zeros((count, channels, size, size), dtype=torch.uint8)
    made[:, :, 0, 0] = (numbers // 256).to(torch.uint8)[:, None]
    made[:, :, 0, 1] = (numbers % 256).to(torch.uint8)[:, None]
    return made.float().div(255)


def numbers_of(examples: Tensor) -> list[int]:
    pixels = examples.mul(255).round().long()
    return (pixels[:, 0, 0, 0] * 256 + pixels[:, 0, 0, 1]).tolist()


def filled(buffer: Buffer, count: int, *, first: int = 0, step: int = 8, classes: int = 5) -> Buffer:
    """Let examples come, logits 0.5 more than their number."""
    for start in range(first, first + count, step):
        numbers = torch.arange(start, min(start + step, first + count))
        scored = buffer.sample_selection_strategy in {"abs", "labrs", "lars"}
        buffer.add_data(
            images(len(numbers), first=start),
            labels=numbers % classes,
            logits=(numbers + 0.5)[:, None].expand(-1, 3),
            sample_selection_scores=numbers.float() if scored else None,
        )
    return buffer


def held(buffer: Buffer) -> list[int]:
    """The numbers of the exemplars; checks that nothing was mixed up."""
    examples, labels, logits = buffer.get_all_data()
    numbers = numbers_of(examples)
    assert labels.tolist() == [number % 5 for number in numbers]
    assert logits[:, 0].tolist() == [number + 0.5 for number in numbers]
    return numbers


def loaded(state: dict[str, Tensor], buffer: Buffer) -> Buffer:
    """What mammoth does with a checkpoint."""
    assert buffer.buffer_size == state["examples"].shape[0]
    for name, value in state.items():
        setattr(buffer, name, value)
    buffer.attributes = list(state)
    buffer.num_seen_examples = state["examples"].shape[0]
    return buffer


STRATEGIES = ["reservoir", "balancoir", "lars", "labrs", "abs"]


class Tasks:
    """A data set of mammoth at its second task of two classes."""

    def get_offsets(self) -> tuple[int, int]:
        return 2, 4


def made(strategy: str = "reservoir", size: int = 40, **options: object) -> Buffer:
    return Buffer(size, "cpu", strategy, dataset=Tasks(), **{"recipe": "raw", "seed": 5, **options})


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_count_holds_at_the_brim_and_is_reached(strategy: str) -> None:
    buffer = made(strategy)
    for start in range(0, 600, 50):
        filled(buffer, 50, first=start)
        assert len(buffer) == min(40, start + 50)
        assert buffer.num_seen_examples == start + 50
        assert buffer.memory.used_bytes <= buffer.memory.max_bytes
    numbers = held(buffer)
    assert len(set(numbers)) == 40
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_bytes_hold_where_they_are_the_limit(strategy: str) -> None:
    buffer = made(strategy, 5000, max_bytes="40kB")
    filled(buffer, 700)
    assert buffer.memory.used_bytes <= 40_000
    assert 40 < len(held(buffer)) < 200
    assert buffer.is_full()
    assert len(buffer.examples) == len(buffer)
    assert buffer.num_seen_examples == 700


def test_what_waits_changes_nothing_of_the_sample() -> None:
    buffer = filled(made(), 1000)
    highest = np.argsort(-arrival_keys(5, 0, 1000))[:40]
    assert held(buffer) == sorted(highest.tolist())


def test_arrivals_wait_where_the_buffer_is_full_and_are_counted() -> None:
    buffer = filled(made(), 40)
    generation = buffer.memory.generation
    filled(buffer, WAITING - 8, first=40)
    assert (buffer.memory.generation, buffer.num_seen_examples, len(buffer)) == (generation, WAITING + 32, 40)
    filled(buffer, 8, first=WAITING + 32)
    assert buffer.memory.generation > generation
    assert held(buffer) == sorted(np.argsort(-arrival_keys(5, 0, WAITING + 40))[:40].tolist())


def test_classes_are_balanced_and_of_each_a_uniform_sample_is_kept() -> None:
    buffer = made("balancoir", 30)
    numbers = np.concatenate([np.arange(0, 900, 5), np.arange(1, 300, 5), np.arange(2, 60, 5)])
    keys = arrival_keys(5, 0, len(numbers))
    for start in range(0, len(numbers), 10):
        some = numbers[start : start + 10]
        examples = torch.cat([images(1, first=number) for number in some.tolist()])
        buffer.add_data(examples, torch.from_numpy(some % 5), torch.from_numpy(some + 0.5)[:, None].expand(-1, 3))
    kept = np.array(held(buffer))
    assert np.bincount(kept % 5, minlength=3).tolist() == [10, 10, 10]
    for label in range(2):
        its = numbers % 5 == label
        assert sorted(kept[kept % 5 == label]) == sorted(numbers[its][np.argsort(-keys[its])[:10]])


def test_high_scores_go_first_and_new_ones_are_kept_with_the_buffer() -> None:
    buffer = made("lars")
    for start in range(0, 2000, 50):
        numbers = torch.arange(start, start + 50)
        buffer.add_data(images(50, first=start), sample_selection_scores=(numbers % 2).float())
    odd = torch.tensor(numbers_of(buffer.examples[:])) % 2
    assert odd.float().mean() < 0.25
    buffer.sample_selection_fn.update(torch.arange(40), 1 - odd)
    again = pickle.loads(pickle.dumps(buffer))
    assert np.array_equal(again._held._scores(), 1 - odd.numpy())


def test_with_classes_and_scores_the_rare_class_stays() -> None:
    buffer = made("labrs")
    for start in range(0, 1000, 50):
        numbers = torch.arange(start, start + 50)
        rare = (numbers % 10 == 0).long()
        buffer.add_data(images(50, first=start), rare, sample_selection_scores=torch.ones(50))
    assert buffer.labels.sum() > 12  # a uniform sample has 4


def test_of_past_tasks_low_scores_go_and_of_this_one_high_ones() -> None:
    buffer = made("abs", 40)
    for start in range(0, 1000, 50):
        numbers = torch.arange(start, start + 50)
        buffer.add_data(images(50, first=start), numbers % 4, sample_selection_scores=(numbers // 4 % 2).float())
    numbers = np.array(numbers_of(buffer.examples))
    past = numbers % 4 < 2
    assert np.mean(numbers[past] // 4 % 2) > 0.7
    assert np.mean(numbers[~past] // 4 % 2) < 0.3


@pytest.mark.parametrize("form", ["colour", "grey", "features"])
def test_what_was_given_comes_back_bit_for_bit(form: str) -> None:
    given = torch.randn(9, 7) if form == "features" else images(9, channels=1 if form == "grey" else 3)
    buffer = Buffer(20, recipe=None if form == "features" else "raw")
    buffer.add_data(given, torch.arange(9), None, torch.ones(9) * 3, None, torch.arange(9) + 1)
    examples, labels, tasks, true = buffer.get_all_data()
    assert torch.equal(examples, given)
    assert (labels.dtype, tasks.dtype, true.dtype) == (torch.int64,) * 3
    assert (labels.tolist(), tasks.tolist(), true.tolist()) == (list(range(9)), [3] * 9, list(range(1, 10)))
    assert buffer.used_attributes == ["examples", "labels", "task_labels", "true_labels"]
    assert not hasattr(buffer, "logits")
    assert buffer.examples.shape[0] == 20
    assert not buffer.examples[9:].any()


@pytest.mark.parametrize(
    ("examples", "why"),
    [
        (images(4).mul(255).to(torch.uint8), "floats of 0..1"),
        (images(4).sub(0.5), "before they are normalised"),
        (images(4).mul(torch.nan), "before they are normalised"),
        (images(4, size=16), r"expected uint8 of shape \(4, 3, 8, 8\)"),
    ],
)
def test_examples_of_another_kind_are_refused_and_none_came(examples: Tensor, why: str) -> None:
    buffer = filled(made(), 60)
    with pytest.raises(InvalidExemplarError, match=why):
        buffer.add_data(examples.expand(4, 3, *examples.shape[2:]), torch.arange(4), torch.zeros(4, 3))
    assert buffer.num_seen_examples == 60
    filled(buffer, 400, first=60)
    assert held(buffer) == sorted(np.argsort(-arrival_keys(5, 0, 460))[:40].tolist())


def test_attributes_that_come_or_go_are_refused_until_it_is_empty() -> None:
    buffer = filled(made(), 60)
    with pytest.raises(InvalidExemplarError, match=r"got \[\]; give the same"):
        buffer.add_data(images(1), torch.zeros(1))
    with pytest.raises(InvalidExemplarError, match="labels were given"):
        buffer.add_data(images(1), logits=torch.zeros(1, 3))
    with pytest.raises(InvalidExemplarError, match="expected 2 values of each"):
        buffer.add_data(images(2), torch.zeros(1), torch.zeros(2, 3))
    with pytest.raises(InvalidExemplarError, match="attention maps"):
        buffer.add_data(images(2), attention_maps=[torch.zeros(2)])
    with pytest.raises(InvalidExemplarError, match="needs sample_selection_scores"):
        made("lars").add_data(images(2))
    buffer.empty()
    assert (len(buffer), buffer.num_seen_examples, buffer.used_attributes) == (0, 0, [])
    assert buffer.is_empty()
    buffer.add_data(images(3, size=16))
    assert buffer.used_attributes == ["examples"]
    assert buffer.get_data(9)[0].shape == (3, 3, 16, 16)


def test_indexes_hold_until_the_next_add_and_writes_are_seen_at_once() -> None:
    buffer = filled(made(), 300)
    indexes, *_ = buffer.get_data(10, return_index=True)
    logits = buffer.logits
    logits[indexes] = -1
    assert (buffer.get_data_by_index(indexes)[2] == -1).all()
    assert (buffer.logits == -1).any(1).sum() == 10
    numbers = set(numbers_of(buffer.get_data_by_index(indexes)[0]))
    filled(buffer, 300, first=300)
    examples, _, after = buffer.get_all_data()
    assert buffer.logits is logits
    for number, value in zip(numbers_of(examples), after[:, 0].tolist(), strict=True):
        assert value == (-1 if number in numbers else number + 0.5)
    copied = loaded(buffer.serialize(), made(seed=None))
    assert torch.equal(copied.get_all_data()[2], after)


@pytest.mark.parametrize("name", ["examples", "labels"])
def test_what_cannot_be_written_refuses_it(name: str) -> None:
    buffer = filled(made(), 60)
    tensor = getattr(buffer, name)
    with pytest.raises(SchemaError, match="cannot be changed in place"):
        tensor[3] = 0
    with pytest.raises(SchemaError, match="cannot be changed in place"):
        tensor[:5].zero_()
    with pytest.raises(SchemaError, match="cannot be changed in place"):
        tensor += 1
    computed = tensor[[1, 2]] * 2
    computed[0] = 1  # a tensor of its own
    assert type(computed) is Tensor


@pytest.mark.parametrize("strategy", [*STRATEGIES, "unlimited"])
@pytest.mark.parametrize("count", [10, 333])
def test_a_checkpoint_goes_on_as_if_nothing_had_happened(strategy: str, count: int, tmp_path: Path) -> None:
    buffer = filled(made(strategy), count)
    torch.save(buffer.serialize(), tmp_path / "checkpoint.pt")
    again = loaded(torch.load(tmp_path / "checkpoint.pt", weights_only=True), made(strategy, seed=None))
    assert again.num_seen_examples == count
    assert held(again) == held(buffer)
    assert held(filled(again, 300, first=count)) == held(filled(buffer, 300, first=count))


def test_a_checkpoint_of_something_else_is_refused() -> None:
    buffer = made()
    with pytest.raises(SchemaError, match="how many of its rows"):
        loaded({"examples": images(40)}, buffer)
    with pytest.raises(DataError, match="serialize"):
        buffer.exmem = torch.arange(5)
    with pytest.raises(SchemaError, match="attributes are"):
        buffer.attributes = ["examples", "colours"]
    with pytest.raises(SchemaError, match="eviction"):
        loaded(filled(made(), 60).serialize(), made("balancoir"))
    with pytest.raises(SchemaError, match="strategy"):
        loaded(filled(made("labrs"), 60).serialize(), made("lars"))
    with pytest.raises(SchemaError, match="is counted"):
        filled(buffer, 10).num_seen_examples = 7
    buffer.num_seen_examples = 0
    assert buffer.is_empty()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_copies_are_independent(strategy: str) -> None:
    buffer = filled(made(strategy), 100)
    copies = [copy.deepcopy(buffer).to("cpu"), pickle.loads(pickle.dumps(buffer))]
    filled(buffer, 500, first=100)
    for other in copies:
        assert (other.num_seen_examples, len(other), other.examples.shape[0]) == (100, 40, 40)
        assert max(held(other)) < 100
        assert held(filled(other, 500, first=100)) == held(buffer)


def test_a_place_goes_on_in_another_process_and_is_read_meanwhile(tmp_path: Path) -> None:
    script = (
        "import torch, sys; from exmem.integrations.mammoth import Buffer\n"
        "from tests.integrations.test_mammoth_buffer import filled\n"
        "buffer = filled(Buffer(40, recipe='raw', seed=5, place=sys.argv[1]), 90)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "memory")], check=True)
    with ExemplarMemory.open(tmp_path / "memory") as reader:
        assert len(reader) == 40
        buffer = made(place=tmp_path / "memory", seed=None)  # the lock went with the process
        assert (buffer.num_seen_examples, buffer.is_full()) == (90, True)
        expected = held(filled(made(), 390))
        assert held(filled(buffer, 300, first=90)) == expected
        buffer.commit()
        reader.refresh()
        assert set(reader.slots) == set(buffer.memory.slots)
    buffer.close()
    with pytest.raises(SchemaError, match="strategy"):
        made("lars", place=tmp_path / "memory", seed=None)
    with pytest.raises(SchemaError, match="leave the seed out"):
        made(place=tmp_path / "memory", seed=6)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_sizes_change_while_it_is_full(strategy: str) -> None:
    buffer = filled(made(strategy), 300)
    buffer.buffer_size = 15
    assert (len(held(buffer)), buffer.buffer_size) == (15, 15)
    filled(buffer, 300, first=300)
    assert len(held(buffer)) == 15
    buffer.buffer_size = 60
    filled(buffer, 3000, first=600, step=100)
    assert len(held(buffer)) <= 60
    assert buffer.memory.used_bytes <= buffer.memory.max_bytes


def test_an_add_that_fails_is_offered_once_more_and_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = filled(made(), 40)
    with monkeypatch.context() as patched:

        def fails(*given: object) -> None:
            raise StoreIOError("no space")

        patched.setattr(buffer._held.fields, "offer", fails)
        with pytest.raises(StoreIOError):
            filled(buffer, WAITING, first=40)
        assert (len(buffer), buffer.num_seen_examples) == (40, 40 + WAITING)
    with monkeypatch.context() as patched:
        offer = buffer._held.fields.offer

        def interrupted(*given: object) -> None:
            offer(*given)
            raise KeyboardInterrupt

        patched.setattr(buffer._held.fields, "offer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            filled(buffer, 8, first=40 + WAITING)
    assert buffer.num_seen_examples == 48 + WAITING
    assert held(buffer) == sorted(np.argsort(-arrival_keys(5, 0, 48 + WAITING))[:40].tolist())


def test_examples_larger_than_the_budget_are_refused_and_others_come_in() -> None:
    buffer = Buffer(100, max_bytes="20kB", recipe="raw")
    with pytest.raises(BudgetError):
        buffer.add_data(torch.rand(3, 3, 128, 128).mul(255).round().div(255), torch.arange(3))
    assert len(buffer) == 0
    buffer.empty()
    assert len(held(filled(buffer, 100))) > 0


def test_draws_are_those_that_mammoth_would_have_made() -> None:
    buffer = filled(Buffer(100, recipe="raw"), 60)
    np.random.seed(3)  # noqa: NPY002  # as mammoth does
    expected = np.random.choice(60, size=10, replace=False)  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    examples, _, _ = buffer.get_data(10)
    assert numbers_of(examples) == expected.tolist()
    assert sorted(numbers_of(buffer.get_data(1000)[0])) == list(range(60))


def test_a_task_can_be_left_out_and_transforms_are_applied_to_each_example() -> None:
    buffer = filled(Buffer(100, recipe="raw"), 60)
    indexes, plain, changed, labels, _ = buffer.get_data(
        40,
        transform=lambda image: image + 1 if image.ndim == 3 else None,
        return_index=True,
        mask_task_out=1,
        cpt=2,
        return_not_aug=True,
        not_aug_transform=lambda image: image * 2,
    )
    assert len(labels) == 36
    assert set(labels.tolist()) == {0, 1, 4}
    original = buffer.get_data_by_index(indexes)[0]
    assert torch.equal(plain, original * 2)
    assert torch.equal(changed, original + 1)
    assert numbers_of(buffer.get_data(2, force_indexes=[7, 3])[0]) == [7, 3]
    with pytest.raises(SchemaError, match="task labels, or labels and cpt"):
        buffer.get_data(4, mask_task_out=1)
    with pytest.raises(SchemaError, match="the buffer is empty"):
        Buffer(9).get_data(4)


def test_balanced_draws_take_as_many_of_each_class() -> None:
    buffer = Buffer(100, recipe="raw")
    labels = torch.tensor([0] * 50 + [1] * 6 + [2] * 2)
    buffer.add_data(images(58), labels)
    assert np.bincount(buffer.get_balanced_data(6)[1]).tolist() == [2, 2, 2]
    assert sorted(np.bincount(buffer.get_balanced_data(12)[1], minlength=3).tolist()) == [0, 6, 6]
    assert np.bincount(buffer.get_balanced_data(20)[1]).tolist() == [20]
    assert len(np.unique(buffer.get_balanced_data(4, n_classes=2)[1])) == 2
    assert len(buffer.get_balanced_data(58)[1]) == 58


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_give_all_and_may_be_left(workers: int) -> None:
    buffer = filled(made(), 300)
    for _ in buffer.get_dataloader(SimpleNamespace(seed=0), 7, shuffle=True):
        break
    passes = [
        [numbers_of(examples) for examples, _, _ in buffer.get_dataloader(SimpleNamespace(seed=0), 7, shuffle=True)]
        for _ in range(2)
    ]
    assert passes[0] == passes[1]
    assert sorted(itertools.chain(*passes[0])) == held(buffer)
    batches = list(DataLoader(buffer, batch_size=8, num_workers=workers))
    assert [number for batch in batches for number in numbers_of(batch[0])] == held(buffer)
    assert [numbers_of(example[None])[0] for example, _, _ in buffer] == held(buffer)
    with pytest.raises(IndexError):
        buffer[40]


def test_options_that_are_unknown_are_refused() -> None:
    with pytest.raises(SchemaError, match=r"unknown options \['max_byte'\]"):
        Buffer(9, max_byte=4)
    with pytest.raises(SchemaError, match=r"choose one of .*'balancoir'.*'reservoir'"):
        Buffer(9, sample_selection_strategy="herding")
    with pytest.raises(SchemaError, match="give dataset="):
        Buffer(9, sample_selection_strategy="abs")
    with pytest.raises(SchemaError, match="expected 1 or more"):
        Buffer(-1)
    assert Buffer(-1, "cpu", "unlimited", n_tasks=5).buffer_size == 10**9
