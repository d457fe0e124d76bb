"""What a configuration stands for: its backbone, its data, its recipe bound to a learner."""

import copy
import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from exmem.backbones import Backbone, load_backbone
from exmem.errors import BudgetTooSmallError, SchemaError
from exmem.memory import ExemplarMemory
from exmem.recipes import BoundRecipe, Recipe
from exmem.store import parse_bytes
from exmem.tokens import Exemplar, Schema
from exmem.train.codecs import trained_codec
from exmem.train.config import TrainConfig
from exmem.train.data import Columns, ImageText, load_data
from exmem.train.learner import Learner
from exmem.train.methods.fitting import head_bytes

__all__ = [
    "bind_random_masks",
    "bind_recipe",
    "charge",
    "charged_bytes",
    "check_budget",
    "columns_of",
    "create_memory",
    "folder_bytes",
    "load_run_backbone",
    "load_run_data",
    "make_learner",
    "tell_cut_texts",
]


def load_run_backbone(config: TrainConfig, progress: Any = None) -> Backbone:
    """Load the backbone of a configuration; what its modalities leave out is not seen."""
    seen = config.data.modalities
    return load_backbone(
        config.backbone.family,
        *config.backbone.names,
        modalities=() if seen == "both" else (seen,),
        seed=config.seed,
        progress=progress,
        image_size=config.backbone.image_size,
        trainable_blocks=config.tuner.blocks,
        max_text=config.backbone.max_text,
    )


def columns_of(config: TrainConfig) -> Columns:
    """Return which columns a run reads; texts may lack where the learner sees none, images too."""
    data, family = config.data, config.backbone.family
    return Columns(
        text=data.text_column,
        label=data.label_column,
        image=data.image_column,
        split=data.split_column,
        needs_text=data.modalities != "image",
        needs_image=data.modalities != "text" and family != "bert",
    )


def make_learner(config: TrainConfig, backbone: Backbone) -> Learner:
    """Make the learner of a configuration of a fresh backbone."""
    return Learner(backbone, config.make_tuner(), cosine=config.method.head.name == "cosine")


def load_run_data(
    config: TrainConfig, place: Path, advance: Callable[[int, int], None] | None = None
) -> tuple[ImageText, ImageText]:
    """Load what a run learns from and is tested with; `advance` as in `load_data`."""
    data = config.data
    return load_data(place, columns_of(config), layout=data.layout, skip_bad=data.skip_bad, advance=advance)


def bind_recipe(config: TrainConfig, learner: Learner, *, num_classes: int) -> BoundRecipe | None:
    """Bind the recipe of a configuration to a learner; None where nothing is stored."""
    if config.recipe.is_empty:
        return None
    return BoundRecipe(
        config.recipe,
        learner.backbone,
        objective=learner.true_logits,
        seed=config.seed,
        num_classes=num_classes,
    )


def bind_random_masks(config: TrainConfig, backbone: Backbone) -> BoundRecipe:
    """Bind what masks new examples at random, whatever the recipe keeps; it goes with the recipe's fill."""
    if "image" not in backbone.token_specs():
        raise SchemaError(
            "loop.stored_masks='random' masks images, and this learner sees none; use loop.stored_masks='scores'"
        )
    masks = Recipe.of("masked").refined(
        image={"name": "patches", "thumbnail": config.recipe.image.kwargs.get("thumbnail", 0)},
        scorer="random",
        keep={"name": "keep_ratio", "ratio": config.loop.random_ratio},
        text="all",
        fill=config.recipe.fill,
    )
    return BoundRecipe(masks, backbone, seed=config.seed)


def create_memory(config: TrainConfig, bound: BoundRecipe, folder: Path, samples: Sequence[Exemplar] = ()) -> None:
    """Make the empty memory of a run."""
    unit: Literal["bytes", "counts"] = "counts" if config.quota == "counts" else "bytes"
    codec = trained_codec(bound, samples)
    bound.create_memory(folder, max_bytes=config.max_bytes, samples=samples, codec=codec, quota=unit).close()


def charged_bytes(config: TrainConfig, backbone: Backbone, classes: int) -> dict[str, int]:
    """Return what a run keeps beside its memory and charges to it; the backbone is fresh."""
    charges = {"head": head_bytes(config.method.head, width=backbone.feature_dim, classes=classes), "adapter": 0}
    if config.tuner.charged:
        charges["adapter"] = make_learner(config, copy.deepcopy(backbone)).adapter_bytes
    return charges


def check_budget(config: TrainConfig, bound: BoundRecipe | None, charges: Mapping[str, int]) -> None:
    """Raise BudgetTooSmallError where what is charged, or an empty memory beside it, is more than the budget of a run.

    Tables of a codec that is trained come on top: how large they are, is known when it is.
    """
    kept, most = sum(charges.values()), parse_bytes(config.max_bytes)
    if kept > most:
        named = {"head": config.method.head.name, "adapter": config.tuner.adapter.name}
        parts = [f"{part} {named[part]!r} keeps {nbytes:,} bytes" for part, nbytes in charges.items() if nbytes]
        raise BudgetTooSmallError(
            f"max_bytes {config.max_bytes}: {' and '.join(parts)} between phases, which count; raise max_bytes, or use "
            "another head or adapter"
        )
    if bound is None:
        return
    specs = bound.schema.modalities
    if bound.is_trained:  # as if with a codec that has no tables
        specs = {name: dataclasses.replace(spec, codec="lossless") for name, spec in specs.items()}
    with tempfile.TemporaryDirectory() as folder:
        schema = Schema(specs, bound.schema.extras, bound.schema.recipe)
        with ExemplarMemory.create(folder, schema=schema, max_bytes=most) as memory:
            charge(memory, charges)


def charge(memory: ExemplarMemory, charges: Mapping[str, int]) -> None:
    """Charge a memory; what is charged already stays."""
    for name, nbytes in charges.items():
        if nbytes:
            memory.charge(name, nbytes)


def tell_cut_texts(console: Console, backbone: Backbone, texts: Sequence[str]) -> None:
    """Say how many texts are longer than a learner sees, if any."""
    most = backbone.max_text
    if "text" in backbone.token_specs() and (cut := backbone.count_cut(texts)):
        console.print(
            f"texts: {cut:,} of {len(texts):,} are of more than {most:,} tokens and are cut to {most:,}; a higher "
            "backbone.max_text keeps more",
            highlight=False,
            soft_wrap=True,
        )


def folder_bytes(path: Path) -> int:
    """Count the bytes of all files below a folder, as the file system has them; 0 when there is none."""
    return sum(Path(folder, name).lstat().st_size for folder, _, names in os.walk(path) for name in names)
