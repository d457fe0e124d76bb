"""The trainer on a tiny random backbone and real pictures: kept within the budget, and continued after a kill."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from transformers import BertConfig, BertModel, BertTokenizer, ViTConfig, ViTModel

from exmem import ExemplarMemory
from exmem.backbones import Joint
from exmem.data import load_imagefolder
from exmem.errors import DataError
from exmem.train.config import TrainConfig
from exmem.train.folder import RunFolder
from exmem.train.trainer import Trainer, folder_bytes
from tests.exemplars import crop

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "temple", "flower", "red", "roof", "leaf", "garden", "stone"]
CONFIG = {"first_classes": 2, "increments": (1,), "max_bytes": "40kB", "image_size": 32, "tuned_blocks": 1, "epochs": 1}
CONFIG |= {"batch": 8, "replay_batch": 8, "lora_rank": 2, "max_text": 8}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for split, count in (("train", 8), ("test", 3)):
        rows = []
        for label in range(4):
            for index in range(count):
                name = f"{label}-{index}.png"
                (folder / split).mkdir(exist_ok=True)
                picture = crop(label % 2 + 2 * (100 * label + index + 50 * (split == "test")), 48)
                Image.fromarray(np.roll(picture, label, axis=2)).save(folder / split / name)
                text = f"{WORDS[5 + label]} {WORDS[7 + index % 5]} stone"
                rows.append(json.dumps({"file_name": name, "text": text, "label": f"class{label}"}) + "\n")
        (folder / split / "metadata.jsonl").write_text("".join(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXMEM_CACHE", str(tmp_path_factory.mktemp("cache")))
        return load_imagefolder(folder)


@pytest.fixture
def backbone(tmp_path):
    torch.manual_seed(0)
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    vision = ViTModel(ViTConfig(num_hidden_layers=2, image_size=32, patch_size=8, **sizes), add_pooling_layer=False)
    text = BertModel(BertConfig(vocab_size=len(WORDS), num_hidden_layers=1, **sizes), add_pooling_layer=False)
    tokenizer = BertTokenizer(str(tmp_path / "vocab.txt"))
    return lambda: Joint(_copy(vision), _copy(text), tokenizer, image_size=32, trainable_blocks=1, max_text=8)


def _copy(module):
    import copy

    return copy.deepcopy(module)


def start(folder, backbone, data, **options):
    config = TrainConfig(**(CONFIG | options))
    return Trainer(RunFolder(folder), config, backbone(), train=data[0], test=data[1])


def numbers(entries):
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in entries]


@pytest.mark.parametrize("recipe", ["masked", "jpeg", "half_jpeg", "raw", "none"])
def test_every_recipe_runs_within_its_budget(tmp_path, backbone, data, recipe):
    entries = start(tmp_path / "run", backbone, data, recipe=recipe).run(Console(quiet=True))
    assert [entry["phase"] for entry in entries] == [0, 1, 2]
    assert folder_bytes(tmp_path / "run" / "memory") <= 40_000
    assert (entries[-1]["exemplars"] > 0) == (recipe != "none")
    assert entries[-1]["disk_bytes"] == folder_bytes(tmp_path / "run" / "memory")


@pytest.mark.parametrize("options", [{}, {"cache_features": False, "exchange_text": 0.5}, {"recipe": "none"}])
@pytest.mark.parametrize("where", ["_train", "_store", "_measure", "_learnt_means"])
def test_a_run_that_was_cut_off_ends_with_the_same_numbers(tmp_path, backbone, data, monkeypatch, where, options):
    if (where == "_store") == (options == {"recipe": "none"}) or (where == "_learnt_means" and "recipe" not in options):
        pytest.skip("this recipe has no such step")
    expected = start(tmp_path / "whole", backbone, data, **options).run(Console(quiet=True))
    step = getattr(Trainer, where)

    def cut_off(self, phase, *arguments):
        found = step(self, phase, *arguments)
        if phase == 1:
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, where, cut_off)
        trainer = start(tmp_path / "cut", backbone, data, **options)
        with pytest.raises(KeyboardInterrupt):
            trainer.run(Console(quiet=True))
    found = start(tmp_path / "cut", backbone, data, **options).run(Console(quiet=True))
    assert numbers(found) == numbers(expected)
    if "recipe" not in options:
        one, two = (ExemplarMemory.open(tmp_path / name / "memory") for name in ("whole", "cut"))
        np.testing.assert_array_equal(one.slots, two.slots)
        np.testing.assert_array_equal(one.labels, two.labels)


def test_a_folder_of_another_run_is_refused_and_says_what_differs(tmp_path, backbone, data):
    start(tmp_path / "run", backbone, data, recipe="none").run(Console(quiet=True))
    with pytest.raises(DataError, match=r"epochs: 1, 2"):
        start(tmp_path / "run", backbone, data, recipe="none", epochs=2).run(Console(quiet=True))
