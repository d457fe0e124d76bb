"""What a configuration stands for: its backbone, its data, its recipe bound to a learner."""

import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from exmem.backbones import Backbone, load_backbone
from exmem.errors import SchemaError
from exmem.recipes import BoundRecipe, Recipe
from exmem.train.config import TrainConfig
from exmem.train.data import ImageText, load_imagefolder
from exmem.train.learner import Learner

__all__ = [
    "bind_random_masks",
    "bind_recipe",
    "check_budget",
    "create_memory",
    "folder_bytes",
    "load_run_backbone",
    "load_run_data",
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


def load_run_data(config: TrainConfig, folder: Path) -> tuple[ImageText, ImageText]:
    """Load what a run learns from and is tested with; texts may lack where the learner sees none."""
    data = config.data
    return load_imagefolder(
        folder,
        text_column=data.text_column,
        label_column=data.label_column,
        needs_text=data.modalities != "image",
    )


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


def create_memory(config: TrainConfig, bound: BoundRecipe, folder: Path) -> None:
    """Make the empty memory of a run."""
    unit: Literal["bytes", "counts"] = "counts" if config.quota == "counts" else "bytes"
    bound.create_memory(folder, max_bytes=config.max_bytes, quota=unit).close()


def check_budget(config: TrainConfig, bound: BoundRecipe) -> None:
    """Raise BudgetTooSmallError where the memory of a run could not even be made."""
    with tempfile.TemporaryDirectory() as folder:
        create_memory(config, bound, Path(folder))


def folder_bytes(path: Path) -> int:
    """Count the bytes of all files below a folder, as the file system has them; 0 when there is none."""
    return sum(Path(folder, name).lstat().st_size for folder, _, names in os.walk(path) for name in names)
