"""A tiny random backbone and a small folder of real pictures, for tests of the trainer."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import BertConfig, BertModel, BertTokenizer, ViltConfig, ViltModel, ViTConfig, ViTModel

from exmem.backbones import Joint
from exmem.train.config import TrainConfig
from exmem.train.folder import RunFolder
from exmem.train.trainer import Trainer
from tests.exemplars import crop

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "temple", "flower", "red", "roof", "leaf", "garden", "stone"]
SIDE, CLASSES = 32, 4
CONFIG = {"first_classes": 2, "increments": (1,), "max_bytes": "40kB", "tuned_blocks": 1, "epochs": 1}
CONFIG |= {"recipe": "masked", "quality": 75, "text_rule": "lost_patches"}
CONFIG |= {"batch": 8, "replay_batch": 8, "lora_rank": 2, "max_text": 8, "image_size": SIDE}
_SIZES = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}


def write_imagefolder(folder: Path) -> Path:
    """Crops of two photographs, in four classes of eight and three examples."""
    for split, count in (("train", 8), ("test", 3)):
        rows = []
        (folder / split).mkdir(parents=True)
        for label in range(CLASSES):
            for index in range(count):
                picture = crop(label % 2 + 2 * (100 * label + index + 50 * (split == "test")), 48)
                name = f"{label}-{index}.png"
                Image.fromarray(np.roll(picture, label, axis=2)).save(folder / split / name)
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


def start(folder, make_backbone, data, **options):
    """A trainer of three short phases, unless options say otherwise."""
    config = TrainConfig(**(CONFIG | options))
    return Trainer(RunFolder(folder), config, make_backbone(), train=data[0], test=data[1])
