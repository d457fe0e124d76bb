"""A recipe of one's own beside those of exmem, in a small trade-off: a scorer that keeps the patches with most ink."""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from transformers import ViTConfig, ViTModel, set_seed

from exmem.masking import ScoreMaps
from exmem.report.tradeoff import Design, Processes, Setup, Tradeoff, summaries

CONFIG = """
data: {digits: {folder: digits, modalities: image}}
own: {scorer: {ink: own_recipe.ink}}   # this module: it lies beside the configuration
recipes:
  - half_jpeg
  - {of: masked, name: ink, scorer: ink, keep: "keep_ratio:ratio=0.5"}
budgets: [10kB, 40kB]
seeds: [0, 1]
base:
  backbone: {family: vit, vision: VISION, image_size: 32}
  tuner: {blocks: 1}
"""


def ink(model, batch, *, hidden=None):
    """Score each patch by how far its pixels are from the mean of the image, shape (B, L)."""
    image = batch.tokens["image"]
    pixels = image.values.float().flatten(2)  # (B, L, values of a patch)
    scores = (pixels - pixels.mean((1, 2), keepdim=True)).abs().mean(2)
    return ScoreMaps({"image": scores.numpy()}, {"image": image.valid.numpy()})


def write_digits(folder):
    """Write 40 handwritten digits of each class, 32 pixels wide, as a folder that `exmem` reads."""
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images[:400], digits.target, strict=False)):
        place = folder / ("test" if number % 4 == 0 else "train") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        pixels = (image * 15).astype(np.uint8).repeat(4, 0).repeat(4, 1)
        Image.fromarray(pixels).convert("RGB").save(place / f"{number}.png")


if __name__ == "__main__":  # worker processes import this file
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_digits(folder / "digits")
        set_seed(0)
        sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "num_hidden_layers": 2}
        ViTModel(ViTConfig(image_size=32, patch_size=8, **sizes)).save_pretrained(folder / "vit")  # no real backbone
        (folder / "own_recipe.py").write_text(Path(__file__).read_text())
        (folder / "config.yaml").write_text(CONFIG.replace("VISION", str(folder / "vit")))
        sweep = Tradeoff(Design.read(folder / "config.yaml"), folder / "out")
        setup = Setup(sweep.out, folder, sweep.design.own, threads=1)
        for summary in summaries(sweep.run(Processes(setup, 1)), sweep.cells):
            print(summary.title, *[summary.columns, *summary.rows], sep="\n")
