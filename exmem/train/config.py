"""Configuration of a training run; light to import."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from exmem.budget import parse_bytes
from exmem.errors import SchemaError

__all__ = ["RecipeName", "TrainConfig"]

RecipeName = Literal["masked", "jpeg", "half_jpeg", "raw", "none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides the numbers of a run.

    Parameters
    ----------
    first_classes : int
        Classes of the first phase.
    increments : tuple of int
        Classes of the later phases. The last number repeats until no class is left, and the last phase may be smaller;
        several numbers make an uneven split.
    class_seed : int
        Seed of the order of the classes.
    seed : int
        Seed of everything else.
    recipe : {"masked", "jpeg", "half_jpeg", "raw", "none"}
        What is kept of an exemplar: the image patches and text tokens that matter, the whole picture as JPEG, as JPEG
        of half the side, as raw pixels; or no memory at all (fine-tuning).
    max_bytes : str
        Strict budget of the memory on disk, such as 64MB or 1.5GiB.
    quality : int
        JPEG quality of stored pictures, 1..100.
    scorer : str
        Scorer of the masked recipe: cls_attention or random.
    score_layers : tuple of int
        Layers whose attention is averaged; negative ones count from the last.
    keep_rule : str
        mean_threshold (the paper's) or top_k.
    keep_patches : int
        Patches kept by top_k.
    text_rule : str
        lost_patches (the paper's) or all.
    fill : str
        What becomes of dropped patches at replay: drop or zero.
    selection : {"herding", "random"}
        Which examples become exemplars.
    exchange_text : float
        Chance of a replayed exemplar to take the text of another of its class, 0..1.
    sampler : str
        How exemplars are drawn at replay: balanced over the classes, or uniform.
    backbone : {"joint", "vilt"}
        Family of the backbone.
    vision : str, optional
        Hub name or folder of the vision model, or of the whole ViLT; the packaged DINOv2-S for joint when left out.
    text : str, optional
        Hub name or folder of the text encoder of joint; the packaged MiniLM when left out.
    image_size : int
        Side of the pictures in pixels, a multiple of the patch side.
    tuned_blocks : int
        Last transformer blocks that are tuned; the blocks below are frozen.
    max_text : int
        Most text tokens, special ones included.
    lora_rank : int
        Rank of the LoRA adapter.
    lora_alpha : int
        Scale of the LoRA adapter.
    epochs : int
        Passes over the new data of a phase.
    batch : int
        New examples of a step.
    replay_batch : int
        Replayed exemplars of a step.
    lr : float
        Highest learning rate of AdamW; it falls to zero over a phase by a cosine.
    weight_decay : float
        Weight decay of AdamW.
    distill_weight : float
        Weight of the distillation on old classes; 0 turns it off.
    temperature : float
        Temperature of the distillation.
    cache_features : bool
        Compute the frozen part once per picture and keep the result: fast, but it takes about 2 bytes times tokens
        times width per picture in RAM and on disk.
    num_workers : int
        Worker processes that read exemplars when features are not cached.

    Raises
    ------
    SchemaError
        If a value is out of range.
    """

    first_classes: int
    increments: tuple[int, ...]
    class_seed: int = 0
    seed: int = 0
    recipe: RecipeName = "masked"
    max_bytes: str = "64MB"
    quality: int = 75
    scorer: str = "cls_attention"
    score_layers: tuple[int, ...] = (-1,)
    keep_rule: str = "mean_threshold"
    keep_patches: int = 32
    text_rule: str = "lost_patches"
    fill: str = "drop"
    selection: Literal["herding", "random"] = "herding"
    exchange_text: float = 0.0
    sampler: str = "balanced"
    backbone: Literal["joint", "vilt"] = "joint"
    vision: str | None = None
    text: str | None = None
    image_size: int = 224
    tuned_blocks: int = 2
    max_text: int = 32
    lora_rank: int = 16
    lora_alpha: int = 16
    epochs: int = 5
    batch: int = 64
    replay_batch: int = 64
    lr: float = 1e-3
    weight_decay: float = 1e-4
    distill_weight: float = 1.0
    temperature: float = 2.0
    cache_features: bool = True
    num_workers: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            choices = get_args(field.type)
            value = getattr(self, field.name)
            if choices and all(isinstance(choice, str) for choice in choices) and value not in choices:
                raise SchemaError(f"{field.name}: unknown {value!r}; choose one of {sorted(choices)}")
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise SchemaError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if not self.increments or min(self.increments) < 1:
            raise SchemaError(f"increments must be numbers of 1 or more, got {self.increments}")
        for name in ("lr", "temperature", "lora_alpha"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise SchemaError(f"{name} must be above 0, got {value}")
        for name in ("weight_decay", "distill_weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise SchemaError(f"{name} must be 0 or more, got {value}")
        if not 0 <= self.exchange_text <= 1:
            raise SchemaError(f"exchange_text must be in 0..1, got {self.exchange_text}")
        if not 1 <= self.quality <= 100:
            raise SchemaError(f"quality must be in 1..100, got {self.quality}")
        parse_bytes(self.max_bytes)

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as plain JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """Read a configuration back.

        Parameters
        ----------
        values : mapping
            What `to_json` returned, or a part of it.

        Returns
        -------
        TrainConfig
            The configuration.

        Raises
        ------
        SchemaError
            If a key is unknown, a required one is missing, or a value is out of range.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise SchemaError(f"unknown keys {unknown}; known are {sorted(known)}")
        required = [name for name, field in known.items() if field.default is dataclasses.MISSING]
        missing = [name for name in required if name not in values]
        if missing:
            raise SchemaError(f"the configuration lacks {missing}")
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**plain)

    def differences(self, other: "TrainConfig") -> list[str]:
        """Name the fields in which two configurations differ.

        Parameters
        ----------
        other : TrainConfig
            Another configuration.

        Returns
        -------
        list of str
            One `field: mine, theirs` each.
        """
        return [
            f"{name}: {value!r}, {getattr(other, name)!r}"
            for name, value in vars(self).items()
            if value != getattr(other, name)
        ]


_POSITIVE = (
    "first_classes",
    "keep_patches",
    "tuned_blocks",
    "max_text",
    "image_size",
    "lora_rank",
    "epochs",
    "batch",
    "replay_batch",
)
