"""How long a training step takes from what is stored: half-size JPEG against hidden tokens.

    python -m bench.steps [--modalities both]

Median milliseconds of a step of 64 exemplars, from the memory to the gradients of the last block, the recipes in turn;
the demo data, image only unless told otherwise.
"""

import argparse
import contextlib
import tempfile
import time

import numpy as np
from torch import manual_seed

from exmem.backbones import Backbone, load_backbone
from exmem.cli.demo.stickers import StickersConfig, build_stickers
from exmem.recipes import BoundRecipe
from exmem.replay import Pipeline
from exmem.tokens.tensors import TensorBatch
from exmem.train.data import ImageText, load_data
from exmem.train.learner import Learner
from exmem.train.method_config import MethodConfig
from exmem.train.tuners.lora import Lora

_STEP = 64  # exemplars
_STEPS = 9


def steps(backbone: Backbone, train: ImageText) -> dict[str, float]:
    """Median milliseconds of a step by recipe, the recipes in turn."""
    chosen = np.arange(0, len(train) - 1, 6)[:256]
    learner = Learner(backbone, Lora(rank=16, alpha=16))
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
        for turn in range(_STEPS):
            for name, (memory, pipeline) in memories.items():
                slots = np.random.default_rng(turn).choice(memory.slots, _STEP, replace=False)
                began = time.perf_counter()
                batch = pipeline(TensorBatch.from_numpy(memory.read(slots)))
                learner.loss(backbone.embed(batch), batch.labels, method=MethodConfig()).backward()
                seconds[name].append(time.perf_counter() - began)
    return {name: 1000 * float(np.median(values)) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modalities", choices=["image", "both"], default="image")
    asked = parser.parse_args()
    train, _ = load_data(build_stickers(StickersConfig(num_classes=22, max_train=70, max_test=25)))
    seen = ("image",) if asked.modalities == "image" else ()
    manual_seed(0)
    print(steps(load_backbone("joint", image_size=112, trainable_blocks=1, modalities=seen), train))


if __name__ == "__main__":
    main()
