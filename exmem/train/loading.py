"""The backbone that options name, with the packaged weights where none are given."""

from collections.abc import Callable
from pathlib import Path

import torch

from exmem.backbones import Backbone, load_backbone
from exmem.data import dinov2_small, minilm
from exmem.errors import ExmemError
from exmem.train.config import TrainConfig

__all__ = ["configured_backbone", "load_weights"]


def configured_backbone(config: TrainConfig, progress: Callable[[str], None]) -> Backbone:
    """Load the backbone that a run starts with.

    Parameters
    ----------
    config : TrainConfig
        Names it.
    progress : callable
        Told what is being fetched.

    Returns
    -------
    Backbone
        The backbone.
    """
    backbone = load_weights(
        config.backbone,
        vision=config.vision,
        text=config.text,
        image_size=config.image_size,
        trainable_blocks=config.tuned_blocks,
        max_text=config.max_text,
        seed=config.seed,
        progress=progress,
    )
    if config.modalities != "both":
        backbone.restrict(config.modalities)
    return backbone


def load_weights(
    kind: str,
    *,
    vision: str | None,
    text: str | None,
    image_size: int,
    trainable_blocks: int,
    max_text: int,
    seed: int,
    progress: Callable[[str], None],
) -> Backbone:
    """Load a backbone; the packaged DINOv2-S and MiniLM stand in for models that are not named, where they fit.

    Parameters
    ----------
    kind : str
        Family of the backbone.
    vision : str or None
        Hub name or folder of the vision model, or of the whole model where image and text are one.
    text : str or None
        Hub name or folder of the text encoder of joint and bert.
    image_size : int
        Side of the pictures in pixels.
    trainable_blocks : int
        Last blocks that are tuned.
    max_text : int
        Most text tokens, special ones included.
    seed : int
        Seed of weights that a checkpoint lacks.
    progress : callable
        Told what is being fetched.

    Returns
    -------
    Backbone
        The backbone.

    Raises
    ------
    ExmemError
        If the family needs weights of its own and none are named.
    """
    names: list[str | Path] = []
    if kind != "bert":
        if vision is None and kind not in {"joint", "vit", "dinov2"}:
            raise ExmemError(f"{kind} needs weights: give --vision a hub name or a folder")
        names.append(vision or dinov2_small(progress=progress))
    if kind in {"joint", "bert"}:
        names.append(text or minilm(progress=progress))
    torch.manual_seed(seed)
    return load_backbone(kind, *names, image_size=image_size, trainable_blocks=trainable_blocks, max_text=max_text)
