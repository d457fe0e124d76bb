"""A memory inside `transformers.Trainer`: two phases, full memories, resuming, workers, texts."""

import datasets
import numpy as np
import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from exmem.integrations.huggingface import ReplayCallback
from exmem.recipes import BoundRecipe
from tests.backbones.models import load
from tests.exemplars import folder_bytes
from tests.integrations.learners import BOUND, EACH, Linear, accuracy, as_input, flat, held, raw_examples


class Recording(Trainer):
    """A Trainer that notes what its model is given."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.batches = [*getattr(self, "batches", []), flat(inputs)]
        return super().training_step(model, inputs, num_items_in_batch)

    def prediction_step(self, model, inputs, *args, **kwargs):
        self.evaluated = [*getattr(self, "evaluated", []), len(inputs["labels"])]
        return super().prediction_step(model, inputs, *args, **kwargs)


class Interrupt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def train(place, model, rows, *callbacks, resume=None, transform=as_input, evaluate=None, **arguments):
    """One phase of a Trainer, of 16 batches or so; `rows` are raw, or a data set of what the model takes."""
    arguments = {"num_train_epochs": 2, "save_strategy": "no", "remove_unused_columns": False, **arguments}
    trainer = Recording(
        model,
        TrainingArguments(
            output_dir=place,
            per_device_train_batch_size=4,
            per_device_eval_batch_size=4,
            learning_rate=2e-3,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            dataloader_pin_memory=False,
            logging_strategy="no",
            **arguments,
        ),
        train_dataset=rows if isinstance(rows, datasets.Dataset) else [transform(row) for row in rows],
        eval_dataset=None if evaluate is None else [transform(row) for row in evaluate],
        callbacks=[*callbacks],
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def replaying(memory, rows, phase, **options):
    return ReplayCallback(memory, rows, phase=phase, **{"transform": as_input, "replay": 4, **options})


def test_a_loop_of_two_phases_forgets_less_with_replay_than_without(memory, tmp_path):
    remembered = {}
    for name in ("without", "with"):
        model = Linear()
        for phase, classes in enumerate([[0, 1], [2, 3]]):
            rows = raw_examples(classes)
            train(tmp_path, model, rows, *([replaying(memory, rows, phase)] if name == "with" else []))
        remembered[name] = accuracy(model, [0, 1])
        assert accuracy(model, [2, 3]) > 0.9
    assert remembered["without"] < 0.3
    assert remembered["with"] > 0.9
    assert sorted(set(memory.labels.tolist())) == [0, 1, 2, 3]


def test_the_first_phase_replays_nothing_and_each_batch_of_the_second_as_many_as_were_asked_for(memory, tmp_path):
    for phase, classes in enumerate([[0, 1], [2, 3]]):
        rows = raw_examples(classes)
        batches = train(tmp_path, Linear(), rows, replaying(memory, rows, phase)).batches
        assert len(batches) == 2 * 2 * EACH // 4
        assert {len(batch) for batch in batches} == {4 + 4 * phase}
        for batch in batches:
            labels = [label for label, _ in batch]
            assert set(labels[:4]) <= set(classes), "the new ones come first"
            assert sorted(labels[4:]) == ([0, 0, 1, 1] if phase else []), "balanced over the classes"
    assert len({mark for batch in batches for _, mark in batch[4:]}) == 2 * EACH, "all of them in 16 batches"


def test_a_memory_that_is_full_gives_way_to_the_second_phase_by_its_policy(tmp_path):
    with BOUND.create_memory(tmp_path / "full", max_bytes="13kB", durable=False) as memory:
        for phase, classes in enumerate([[0, 1], [2, 3], [4, 5]]):
            rows = raw_examples(classes, each=40)
            train(tmp_path, Linear(), rows, replaying(memory, rows, phase), num_train_epochs=1)
            assert folder_bytes(tmp_path / "full") <= memory.max_bytes
            counts = np.bincount(memory.labels)
            assert len(memory) < 40 * 2 * (phase + 1), "or it is not full"
            assert len(counts) == 2 * phase + 2
            assert counts.min() > 0.5 * counts.max(), "equal shares, in bytes"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("accumulated", [1, 3])
def test_a_phase_that_is_resumed_replays_what_it_would_have_and_is_stored_once(
    after_one, tmp_path, workers, accumulated
):
    rows, before = raw_examples([2, 3]), held(after_one)
    arguments = {
        "save_strategy": "steps",
        "save_steps": 2,
        "dataloader_num_workers": workers,
        "gradient_accumulation_steps": accumulated,
    }
    model = Linear()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", model, rows, replaying(after_one, rows, 1), Interrupt(5), **arguments)
    assert held(after_one) == before, "an interrupt changes nothing"
    rest = train(tmp_path / "run", model, rows, replaying(after_one, rows, 1), resume=True, **arguments).batches
    with BOUND.create_memory(tmp_path / "other", max_bytes="100kB", durable=False) as other:
        ReplayCallback(other, raw_examples([0, 1]), phase=0).replay.add()
        whole = train(tmp_path / "whole", Linear(), rows, replaying(other, rows, 1), **arguments).batches
        taken = {1: 4, 3: 8 + 3}[accumulated]  # by 4 steps; an epoch of 8 batches ends with a step of two
        assert rest == whole[taken:]
        assert held(other) == held(after_one)
    after = held(after_one)
    train(tmp_path / "run", model, rows, replaying(after_one, rows, 1), resume=True, **arguments)
    assert held(after_one) == after, "a phase that is over is not stored again"


def test_batches_are_the_same_for_any_number_of_workers_and_differ_between_epochs(after_one, tmp_path):
    rows = raw_examples([2, 3])
    drawn = {}
    for workers, persistent in ((0, False), (2, False), (2, True)):
        callback = replaying(after_one, rows, 1)
        callback.on_train_end = lambda *args, **kwargs: None  # the next one is to find the same memory
        arguments = {"dataloader_num_workers": workers, "dataloader_persistent_workers": persistent}
        drawn[workers, persistent] = train(tmp_path, Linear(), rows, callback, **arguments).batches
    assert drawn[0, False] == drawn[2, False] == drawn[2, True]
    replayed = [batch[4:] for batch in drawn[0, False]]
    assert replayed[:8] != replayed[8:]


def test_evaluation_replays_nothing(after_one, tmp_path):
    rows = raw_examples([2, 3])
    options = {"evaluate": rows, "eval_strategy": "epoch", "eval_on_start": True}
    trainer = train(tmp_path, Linear(), rows, replaying(after_one, rows, 1), **options)
    assert set(trainer.evaluated) == {4}
    assert {len(batch) for batch in trainer.batches} == {8}


def test_training_that_ends_early_stores_its_phase(after_one, tmp_path):
    rows = raw_examples([2, 3])
    train(tmp_path, Linear(), rows, replaying(after_one, rows, 1), max_steps=3)
    assert sorted(set(after_one.labels.tolist())) == [0, 1, 2, 3]


def test_a_data_set_with_a_batched_transform_and_its_own_columns_is_replayed_as_it_is(memory, tmp_path):
    def transform(rows):
        pairs = zip(rows["img"], rows["fine"], strict=True)
        inputs = [as_input({"image": image, "label": label}) for image, label in pairs]
        return {name: [one[name] for one in inputs] for name in inputs[0]}

    for phase, classes in enumerate([[0, 1], [2, 3]]):
        rows = datasets.Dataset.from_list(
            [{"img": row["image"], "fine": row["label"]} for row in raw_examples(classes)]
        )
        options = {"columns": {"image": "img", "label": "fine"}, "transform": transform, "batched": True}
        callback = ReplayCallback(memory, rows, phase=phase, **options)
        trainer = train(tmp_path, Linear(), rows.with_transform(transform), callback, max_steps=2)
        assert {len(batch) for batch in trainer.batches} == {4 + 16 * phase}
    assert np.bincount(memory.labels).tolist() == [EACH] * 4


def test_a_mapped_data_set_whose_columns_are_lists_is_replayed_in_the_same_types(after_one, tmp_path):
    rows = datasets.Dataset.from_list(raw_examples([2, 3]))
    callback = ReplayCallback(after_one, rows, phase=1, transform=as_input)
    options = {"max_steps": 2, "remove_unused_columns": True}  # the default: columns that the model does not take go
    trainer = train(tmp_path, Linear(), rows.map(as_input), callback, **options)
    assert {len(batch) for batch in trainer.batches} == {4 + 16}


def test_texts_go_through_the_tokenizer_and_the_users_own_preprocessing(written, tmp_path):
    backbone = load("bert", written["bert"])
    bound = BoundRecipe("text", backbone)
    tokenizer = backbone.tokenizer

    def tokenized(row):
        ids = tokenizer(row["text"], padding="max_length", max_length=8)["input_ids"]
        return {"input_ids": ids, "labels": row["label"]}

    class Bag(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words = torch.nn.EmbeddingBag(10, 4)

        def forward(self, input_ids, labels):
            return {"loss": torch.nn.functional.cross_entropy(self.words(input_ids), labels)}

    words = ["temple roof", "flower leaf", "red temple", "leaf red"]
    with bound.create_memory(tmp_path / "m", max_bytes="100kB", durable=False) as memory:
        for phase, classes in enumerate([[0, 1], [2, 3]]):
            rows = [{"text": words[label], "label": label} for label in classes for _ in range(8)]
            callback = ReplayCallback(memory, rows, phase=phase, make=bound, transform=tokenized, replay=4)
            batches = train(tmp_path / "run", Bag(), rows, callback, transform=tokenized).batches
        known = {flat_text(tokenized({"text": text, "label": label})) for label, text in enumerate(words)}
        assert {example for batch in batches for example in batch} == known, "old ones come as they were"


def flat_text(inputs):
    return inputs["labels"], float(sum(inputs["input_ids"]))
