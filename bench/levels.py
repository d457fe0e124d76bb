"""What a byte buys at every level: pixels, hidden tokens, features.

    python -m bench.levels OUT [--modalities both] [--steps]

Writes `levels.md` and `levels.png`: the frozen probe on the demo data, image only unless told otherwise, three seeds. A
seed may choose from three quarters of the training images; a real memory of each budget says which exemplars fit; a
logistic regression is fitted on nothing else and tested on all test images. With `--steps` it prints how long a
training step of 64 exemplars takes, from the memory to the gradients of the last block, from half-size JPEG and from
hidden tokens.
"""

import argparse
import contextlib
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers

from exmem.backbones import Backbone, load_backbone
from exmem.cli.demo.stickers import StickersConfig, build_stickers
from exmem.recipes import BoundRecipe, Recipe
from exmem.replay import Pipeline
from exmem.report.advice import draw_advice
from exmem.store import format_bytes
from exmem.tokens.tensors import TensorBatch
from exmem.train.data import ImageText, load_imagefolder
from exmem.train.learner import Learner
from exmem.train.probe import Measured, Probe

BUDGETS = (60_000, 125_000, 250_000, 500_000, 750_000, 1_000_000)
SEEDS = (0, 1, 2)
_STEP = 64  # exemplars
_DRAW = 0.75  # of the training images that a seed may choose from


def rows() -> dict[str, Recipe]:
    jpeg, hidden, features = Recipe.of("half_jpeg"), Recipe.of("hidden"), Recipe.of("features")
    table = {
        "half side, JPEG q30": jpeg,
        "third of the side, JPEG q30": Recipe.of("third_jpeg"),
        "quarter of the side, JPEG q75": Recipe.of("quarter_jpeg").refined(codec="patch_jpeg:quality=75"),
        "whole, JPEG q30": Recipe.of("jpeg"),
        "masked patches, third from last, q30": Recipe.of("masked").refined(scorer="cls_attention:layers=[-3]"),
        "masked patches, mean fill, random": Recipe.of("masked").refined(scorer="random", fill="mean"),
    }
    for k in (4, 8, 16):
        table[f"hidden, {k} by attention"] = hidden.refined(keep=f"top_k:k={k}")
        table[f"hidden, {k} at random"] = hidden.refined(keep=f"top_k:k={k}", scorer="random")
    table["hidden, 8 by attention, the rest fused"] = hidden.refined(image="hidden:fuse=true")
    table["hidden, 8 by attention, pq of 64 x 256"] = hidden.refined(codec="pq:parts=64")
    table["hidden, 8 by attention, 2 bits a channel"] = hidden.refined(codec="scalar:bits=2")
    for bits in (1, 2, 4, 8):
        table[f"features, {bits} bits a channel"] = features.refined(codec=f"scalar:bits={bits}")
    table["features, 2 bits, scales a token"] = features.refined(codec="scalar:bits=2,scales=token")
    table["features, pq of 96 x 256, shared"] = features.refined(codec="pq:parts=96,shared=true")
    return {name: recipe.refined(name=name) for name, recipe in table.items()}


def drawn(labels: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    groups = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    return np.sort(np.concatenate([group[: round(_DRAW * len(group))] for group in groups]))


def measure(make: Callable[[], Backbone], train: ImageText, test: ImageText) -> dict[str, list[list[Measured]]]:
    found: dict[str, list[list[Measured]]] = {}
    for seed in SEEDS:
        probe = Probe(make(), train, drawn(train.labels, seed), seed=seed, test=test, advance=lambda _: None)
        for name, recipe in rows().items():
            found.setdefault(name, []).append(probe.measure(recipe, BUDGETS, lambda _: None))
            print(seed, name, [f"{one.accuracy:.3f}" for one in found[name][-1]], file=sys.stderr, flush=True)
    return found


def table(found: dict[str, list[list[Measured]]]) -> str:
    head = ["recipe", "bytes each", *map(format_bytes, BUDGETS), "step of 64, ms"]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for name, seeds in found.items():
        cells = []
        for at in range(len(BUDGETS)):
            values = [100 * ones[at].accuracy for ones in seeds if ones[at].accuracies]
            held = round(np.mean([ones[at].exemplars for ones in seeds]))
            cells.append(f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f} ({held:,})" if values else "-")
        each = np.mean([ones[-1].exemplar_bytes for ones in seeds])
        step = np.median([ones[0].step_ms for ones in seeds])
        lines.append("| " + " | ".join([name, f"{each:,.0f}", *cells, f"{step:,.0f}"]) + " |")
    return "\n".join(lines)


def steps(backbone: Backbone, train: ImageText) -> dict[str, float]:
    """Median milliseconds of a step by recipe, the recipes in turn."""
    chosen = np.arange(0, len(train) - 1, 6)[:256]
    learner = Learner(backbone, rank=16, alpha=16)
    learner.grow(range(len(train.class_names)))
    images, texts = train.images(chosen, backbone.image_sides), [train.texts[row] for row in chosen.tolist()]
    with contextlib.ExitStack() as stack:
        memories = {}
        for name in ("half_jpeg", "hidden"):
            bound = BoundRecipe(name, backbone)
            exemplars = bound.make(images, texts, train.labels[chosen])
            place = stack.enter_context(tempfile.TemporaryDirectory())
            memory = bound.create_memory(place, max_bytes="64MB", samples=exemplars, durable=False)
            memory.add(exemplars)
            memory.commit()
            memories[name] = stack.enter_context(memory), Pipeline(bound.restore)
        seconds: dict[str, list[float]] = {name: [] for name in memories}
        for turn in range(9):
            for name, (memory, pipeline) in memories.items():
                slots = np.random.default_rng(turn).choice(memory.slots, _STEP, replace=False)
                began = time.perf_counter()
                batch = pipeline(TensorBatch.from_numpy(memory.read(slots)))
                learner.loss(backbone.embed(batch), batch.labels, teacher={}, weight=0, temperature=1).backward()
                seconds[name].append(time.perf_counter() - began)
    return {name: 1000 * float(np.median(values)) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--modalities", choices=["image", "both"], default="image")
    parser.add_argument("--steps", action="store_true")
    asked = parser.parse_args()
    train, test = load_imagefolder(build_stickers(StickersConfig(num_classes=22, max_train=70, max_test=25)))
    seen = ("image",) if asked.modalities == "image" else ()

    def make() -> Backbone:
        return load_backbone("joint", image_size=112, trainable_blocks=1, modalities=seen)

    if asked.steps:
        print(steps(make(), train))
        return
    found = measure(make, train, test)
    asked.out.mkdir(parents=True, exist_ok=True)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}"
    told = f"Accuracy in per cent, mean and standard deviation of seeds {SEEDS}, and exemplars that fit; {versions}."
    (asked.out / "levels.md").write_text(f"{told}\n\n{table(found)}\n")
    draw_advice([seeds[0] for seeds in found.values()], asked.out / "levels.png")


if __name__ == "__main__":
    main()
