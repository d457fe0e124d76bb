"""A memory inside Lightning: two phases, full memories, interrupts, resuming, workers; run where there is Lightning."""

import functools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.integrations.diffs import loops
from tests.integrations.learners import BOUND, EACH, Linear, accuracy, as_input, flat, held, raw_examples

lightning = pytest.importorskip("lightning.pytorch")

from exmem.integrations.lightning import ReplayCallback  # noqa: E402 - it imports Lightning

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers, loggers and lengths


class Module(lightning.LightningModule):
    """Somebody's module, which knows nothing of replay."""

    def __init__(self):
        super().__init__()
        self.model, self.batches, self.validated = Linear(), [], []

    def training_step(self, batch, index):
        self.batches.append(flat(batch))
        return self.model(**batch)["loss"]

    def validation_step(self, batch, index):
        self.validated.append(len(batch["labels"]))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 2e-3)


class Interrupt(lightning.Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if trainer.global_step == 5:
            raise KeyboardInterrupt


def fit(place, module, rows, memory=None, phase=0, *, workers=0, more=(), resume=None, **arguments):
    loader = DataLoader([as_input(row) for row in rows], batch_size=4, shuffle=True, num_workers=workers)
    replay = [] if memory is None else [ReplayCallback(memory, rows, loader, phase=phase, transform=as_input, replay=4)]
    trainer = lightning.Trainer(
        default_root_dir=place,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*replay, *more],
        **{"max_epochs": 2, "enable_checkpointing": False, **arguments},
    )
    trainer.fit(module, loader, DataLoader([as_input(row) for row in rows], batch_size=4), ckpt_path=resume)
    assert type(loader.collate_fn).__name__ == "function", "the loader is as it was"
    return trainer


@pytest.fixture
def memory(tmp_path):
    with BOUND.create_memory(tmp_path / "memory", max_bytes="100kB", durable=False) as memory:
        yield memory


def test_a_loop_of_two_phases_forgets_less_with_replay_than_without(memory, tmp_path):
    remembered = {}
    for name in ("without", "with"):
        module = Module()
        for phase, classes in enumerate([[0, 1], [2, 3]]):
            fit(tmp_path, module, raw_examples(classes), memory if name == "with" else None, phase)
        remembered[name] = accuracy(module.model, [0, 1])
        assert accuracy(module.model, [2, 3]) > 0.9
    assert remembered["without"] < 0.3
    assert remembered["with"] > 0.9
    assert np.bincount(memory.labels).tolist() == [EACH] * 4


@pytest.mark.parametrize("workers", [0, 2])
def test_each_batch_of_the_second_phase_replays_as_many_and_validation_none(memory, tmp_path, workers):
    for phase, classes in enumerate([[0, 1], [2, 3]]):
        module = Module()
        fit(tmp_path, module, raw_examples(classes), memory, phase, workers=workers)
        assert {len(batch) for batch in module.batches} == {4 + 4 * phase}
        assert set(module.validated) == {4}
    replayed = [mark for batch in module.batches for label, mark in batch[4:] if label < 2]
    epochs = replayed[: len(replayed) // 2], replayed[len(replayed) // 2 :]
    assert [len(set(epoch)) for epoch in epochs] == [2 * EACH] * 2, "8 batches of 4 are all 32"
    assert epochs[0] != epochs[1]


def test_a_memory_that_is_full_gives_way_to_the_second_phase_by_its_policy(tmp_path):
    with BOUND.create_memory(tmp_path / "full", max_bytes="13kB", durable=False) as memory:
        for phase, classes in enumerate([[0, 1], [2, 3]]):
            fit(tmp_path, Module(), raw_examples(classes, each=40), memory, phase, max_epochs=1)
            counts = np.bincount(memory.labels)
            assert len(counts) == 2 * phase + 2
            assert 0.5 * counts.max() < counts.min() < 40
            assert memory.used_bytes <= memory.max_bytes


def test_an_interrupt_changes_nothing_and_a_phase_that_is_over_is_stored_once(memory, tmp_path):
    fit(tmp_path, Module(), raw_examples([0, 1]), memory, 0)
    rows, before = raw_examples([2, 3]), held(memory)
    with pytest.raises(SystemExit):
        fit(tmp_path, Module(), rows, memory, 1, more=[Interrupt()])
    assert held(memory) == before
    fit(tmp_path, Module(), rows, memory, 1, fast_dev_run=True)
    assert held(memory) == before, "a dry run stores nothing"
    trainer = fit(tmp_path, Module(), rows, None, enable_checkpointing=True)
    checkpoint = trainer.checkpoint_callback.best_model_path
    fit(tmp_path, Module(), rows, memory, 1, resume=checkpoint)
    after = held(memory)
    assert len(memory) == 4 * EACH, "trained to its end before, and stored now"
    fit(tmp_path, Module(), rows, memory, 1, resume=checkpoint)
    assert held(memory) == after


def test_a_phase_is_resumed_with_replay(memory, tmp_path):
    fit(tmp_path, Module(), raw_examples([0, 1]), memory, 0)
    rows = raw_examples([2, 3])
    trainer = fit(tmp_path, Module(), rows, None, enable_checkpointing=True, max_epochs=1)
    module = Module()
    checkpoint = trainer.checkpoint_callback.best_model_path
    fit(tmp_path, module, rows, memory, 1, resume=checkpoint, max_epochs=2)
    assert [len(batch) for batch in module.batches] == [8] * 8, "one epoch of two"
    assert len(memory) == 4 * EACH


def test_the_loop_of_the_page_runs_before_and_after(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    remembered = []
    for script in loops()["Lightning"][:2]:
        module = Module()
        quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
        names = {
            "DataLoader": DataLoader,
            "Trainer": functools.partial(lightning.Trainer, **quiet),
            "module": module,
            "phases": [raw_examples([0, 1], each=40), raw_examples([2, 3], each=40)],
            "transform": as_input,
        }
        exec(script, names)
        remembered.append(accuracy(module.model, [0, 1]))
    names["memory"].close()
    assert remembered[0] < 0.5 < 0.8 < remembered[1]
