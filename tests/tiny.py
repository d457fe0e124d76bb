"""A tiny random backbone and a small folder of real images, for tests of the trainer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BertConfig, BertModel, BertTokenizer, ViltConfig, ViltModel, ViTConfig, ViTModel

from exmem.backbones import Joint
from exmem.recipes import Recipe
from exmem.train.config import TrainConfig
from exmem.train.folder import RunFolder
from exmem.train.trainer import Trainer
from tests.exemplars import crop

torch.set_num_threads(1)  # of such models, threads only wait for each other

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "temple", "flower", "red", "roof", "leaf", "garden", "stone"]
SIDE, CLASSES = 32, 4
CONFIG: dict[str, Any] = {
    "recipe": {"name": "masked", "image": "patches", "codec": "patch_jpeg:quality=75", "text": "lost_patches"},
    "max_bytes": "40kB",
    "data": {"first_classes": 2, "increments": [1]},
    "backbone": {"image_size": SIDE, "max_text": 8},
    "tuner": {"blocks": 1},
    "loop": {"epochs": 1, "batch": 8, "replay_batch": 8},
}
_SIZES = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}


def write_imagefolder(folder: Path) -> Path:
    """Crops of two photographs, in four classes of eight and three examples."""
    for split, count in (("train", 8), ("test", 3)):
        rows = []
        (folder / split).mkdir(parents=True)
        for label in range(CLASSES):
            for index in range(count):
                image = crop(label % 2 + 2 * (100 * label + index + 50 * (split == "test")), 48)
                name = f"{label}-{index}.png"
                Image.fromarray(np.roll(image, label, axis=2)).save(folder / split / name)
                text = f"{WORDS[5 + label]} {WORDS[7 + index % 5]} stone"
                rows.append(json.dumps({"file_name": name, "text": text, "label": f"class{label}"}) + "\n")
        (folder / split / "metadata.jsonl").write_text("".join(rows))
    return folder


def write_models(folder: Path) -> tuple[Path, Path]:
    """A vision model and a text encoder with its tokenizer, as `from_pretrained` takes them."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    vision = ViTModel(ViTConfig(num_hidden_layers=2, image_size=SIDE, patch_size=8, **_SIZES), add_pooling_layer=False)
    text = BertModel(BertConfig(vocab_size=len(WORDS), num_hidden_layers=1, **_SIZES), add_pooling_layer=False)
    vision.save_pretrained(folder / "vision")
    text.save_pretrained(folder / "text")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder / "text")
    return folder / "vision", folder / "text"


def write_vilt(folder: Path) -> Path:
    """A ViLT of two blocks with its tokenizer, as `from_pretrained` takes it."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    sizes = {**_SIZES, "num_hidden_layers": 2, "image_size": SIDE, "patch_size": 8, "vocab_size": len(WORDS)}
    ViltModel(ViltConfig(max_position_embeddings=8, **sizes), add_pooling_layer=False).save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def load_joint(models: tuple[Path, Path], *, blocks: int = 1) -> Joint:
    """The backbone of those models, fresh each time."""
    return Joint.from_pretrained(*models, image_size=SIDE, trainable_blocks=blocks, max_text=8)


def refined(parts: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A recipe with changes, without the parts that have no effect beside them."""
    stored = Recipe.from_json({key: part for key, part in (parts | changes).items() if key in {"image", "text"}})
    return {key: part for key, part in parts.items() if key not in stored.unused} | changes


def config_of(recipe: str | dict[str, Any] | None = None, **options: Any) -> TrainConfig:
    """Three short phases; a recipe by name, or what changes in the masked one; a group of options keeps the others."""
    document = {**CONFIG, "recipe": recipe if isinstance(recipe, str) else refined(CONFIG["recipe"], recipe or {})}
    for name, value in options.items():
        document[name] = {**document.get(name, {}), **value} if isinstance(value, dict) else value
    return TrainConfig.from_json(document)


def start(folder, make_backbone, examples, recipe=None, /, ranks=None, **options):
    """A trainer of three short phases, unless options say otherwise."""
    config = config_of(recipe, **options)
    return Trainer(RunFolder(folder), config, make_backbone(), train=examples[0], test=examples[1], ranks=ranks)
