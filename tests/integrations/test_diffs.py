"""The loops of the page on embedding run, before and after, and ours differ by a few lines."""

import datasets
import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from exmem import ExemplarMemory
from tests.integrations.diffs import MOST_LINES, loops
from tests.integrations.learners import EACH, Linear, accuracy, as_input, raw_examples


def test_a_reader_changes_a_few_lines():
    assert {"Plain PyTorch", "Hugging Face Trainer", "Lightning"} <= set(loops())
    assert not {name: lines for name, (_, _, lines) in loops().items() if lines > MOST_LINES}


def test_the_loop_of_plain_pytorch_runs_before_and_after(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    remembered = []
    for script in loops()["Plain PyTorch"][:2]:
        linear = Linear()
        names = {
            "DataLoader": DataLoader,
            "cross_entropy": cross_entropy,
            "model": lambda inputs, linear=linear: linear(inputs)["logits"],
            "optimizer": torch.optim.AdamW(linear.parameters(), 2e-3),
            "phases": [raw_examples([0, 1], each=160), raw_examples([2, 3], each=160)],
            "transform": as_input,
        }
        exec(script, names)
        remembered.append(accuracy(linear, [0, 1]))
    names["memory"].close()
    assert remembered[0] < 0.5 < 0.8 < remembered[1]
    assert 100 < np.bincount(ExemplarMemory.open("memory").labels).min() < 160, "the memory is full"


def test_the_loop_of_a_trainer_runs_before_and_after(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    remembered = []
    for script in loops()["Hugging Face Trainer"][:2]:
        model = Linear()
        names = {
            "Trainer": Trainer,
            "arguments": TrainingArguments(
                output_dir=tmp_path / "run",
                num_train_epochs=4,
                learning_rate=2e-3,
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
                dataloader_pin_memory=False,
                save_strategy="no",
            ),
            "model": model,
            "phases": [datasets.Dataset.from_list(raw_examples(classes)) for classes in ([0, 1], [2, 3])],
            "transform": as_input,
        }
        exec(script, names)
        remembered.append(accuracy(model, [0, 1]))
    names["memory"].close()
    assert remembered[0] < 0.5 < 0.8 < remembered[1]
    assert np.bincount(ExemplarMemory.open("memory").labels).tolist() == [EACH] * 4
