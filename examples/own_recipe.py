"""A recipe of one's own as a file: measured beside others at equal bytes, then used; the memory records it."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from transformers import ViTConfig, ViTModel, set_seed

from exmem import ExemplarMemory
from exmem.recipes import BoundRecipe, PlainImages, Recipe
from exmem.replay import replay_loader

RECIPE = """
image: {name: patches, thumbnail: 16}  # kept patches, and a small version of the whole image
scorer: centre
keep: {name: keep_ratio, ratio: 0.25}
codec: {name: patch_jpeg, quality: 30}
fill: thumbnail                        # what stands where patches were dropped
"""
TRADEOFF = """
data: {digits: {folder: digits, modalities: image}}
recipes: [half_jpeg, thumbnail.yaml]
budgets: [10kB, 40kB]
seeds: [0]
base:
  backbone: {family: vit, vision: vit, image_size: 64}
  tuner: {blocks: 1}
"""


def write_digits(folder):
    """Write 40 handwritten digits of each class, 64 pixels wide, as a folder that `exmem` reads."""
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images[:400], digits.target[:400], strict=True)):
        place = folder / ("test" if number % 4 == 0 else "train") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        pixels = Image.fromarray((image * 15).astype(np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
        pixels.convert("RGB").save(place / f"{number}.png")


def write_vit(folder):
    """Write a small ViT with random weights: what it sees is poor, but it needs no network."""
    set_seed(0)
    sizes = {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 256, "num_hidden_layers": 2}
    ViTModel(ViTConfig(image_size=64, patch_size=16, initializer_range=0.1, **sizes)).save_pretrained(folder)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_digits(folder / "digits")
        write_vit(folder / "vit")
        (folder / "thumbnail.yaml").write_text(RECIPE)
        (folder / "tradeoff.yaml").write_text(TRADEOFF)
        command = "exmem tradeoff tradeoff.yaml --out out"
        print(f"$ {command}", flush=True)
        subprocess.run([sys.executable, "-m", *command.split()], cwd=folder, check=True)

        bound = BoundRecipe(Recipe.of(folder / "thumbnail.yaml"), PlainImages(size=64, patch=16))
        image = np.asarray(Image.open(next((folder / "digits/train/0").iterdir())))
        with bound.create_memory(folder / "memory", max_bytes="40kB") as memory:
            memory.add(bound.make(image[None], None, labels=[0]))
        memory = ExemplarMemory.open(folder / "memory")
        print(memory.schema.recipe["recipe"])
        for batch in replay_loader(memory, batch=1):  # restored and filled as the memory says
            print(f"whole images again: {tuple(batch.images().shape)}, in {memory.sizes[0]} bytes")
