"""Configuration of the loop: how a phase is trained, and how exemplars are replayed in it."""

import dataclasses
from typing import Annotated, Any, Literal

import torch
import tyro

from exmem.registry import Part
from exmem.replay import SAMPLERS
from exmem.replay.augment import AUGMENTATIONS
from exmem.tokens.checks import flag, whole_number
from exmem.train.checks import check_choices, check_count, check_number

__all__ = ["GIVEN", "LoopConfig"]

GIVEN = frozenset({"count", "features", "grids", "rng", "values"})
"""Options of parts that the trainer gives."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How a phase is trained, and how exemplars are replayed in it.

    Parameters
    ----------
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
    warmup : float
        Share of a phase in which the learning rate rises to its highest, 0 or more and below 1.
    clip_norm : float, optional
        Largest norm of the gradient of a step; longer ones are scaled down. No limit when left out.
    ema : float
        Decay of a running mean of what is trained, above 0 and below 1, which takes its place after each phase (0.99
        averages some 100 steps); 0 turns it off.
    accumulation : int
        Parts in which a step is computed, one after the other: as many times less memory for the same step.
    precision : {"float32", "bfloat16"}
        In what the blocks of the backbone compute; their weights, the head and sums stay in float32.
    compile : bool
        Whether the tuned blocks are compiled: a minute at the beginning, for faster steps. May be changed when a run
        is continued.
    joint : bool
        Whether each phase learns all classes seen so far, from all their examples: the upper bound, which stores
        nothing (recipe none).
    sampler : str
        How exemplars are drawn: balanced over the classes, or uniform.
    candidates : int
        Exemplars that are drawn for each that is replayed; those with the highest loss are taken (as MIR does, Aljundi
        et al. 2019, by the loss itself and not by its rise).
    augment : tuple of Part
        What replayed exemplars go through, in order: text_exchange, image_exchange, patch_paste, token_dropout, flip,
        colour_jitter, each with its options, as in `token_dropout:ratio=0.5`. All but text_exchange and token_dropout
        need exemplars to be embedded anew at each step.
    stored_form : float
        Chance of a new example to be shown as it would be stored (masked, or scaled down), 0..1, so that the model
        knows such input and cannot learn that it means an old class.
    stored_masks : {"scores", "random"}
        Whether those are made by the recipe, or by random masks.
    random_ratio : float
        Share of the patches that random masks keep, above 0 and at most 1.
    pruned : {"auto", "always", "never"}
        Whether the learner sees only those image tokens that the recipe keeps: in training, replay and test. They are
        chosen where the tuned blocks begin, by the backbone as it is before any tuning. auto is always with a recipe
        that stores hidden tokens, where pruning costs nothing, and never with others.
    test_stored_form : bool
        Also measure on test examples as they would be stored.
    keep_hidden : bool
        Compute the frozen part once per example and keep the result: fast, but it takes about 2 bytes times tokens
        times width per example in RAM and in the cache on disk. May be changed when a run is continued, but must be on
        where the learner sees kept tokens only (pruned).
    num_workers : int
        Worker processes that read exemplars when hidden tokens are not kept. May be changed when a run is continued.
    """

    epochs: int = 5
    batch: int = 64
    replay_batch: int = 64
    lr: float = 1e-3
    weight_decay: float = 1e-4
    warmup: float = 0.0
    clip_norm: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    ema: float = 0.0
    accumulation: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    joint: bool = False
    sampler: str = "balanced"
    candidates: int = 1
    augment: tuple[Part, ...] = ()
    stored_form: float = 0.0
    stored_masks: Literal["scores", "random"] = "scores"
    random_ratio: float = 0.35
    pruned: Literal["auto", "always", "never"] = "auto"
    test_stored_form: bool = False
    keep_hidden: bool = True
    num_workers: int = 0

    def __post_init__(self) -> None:
        check_choices(self, "loop")
        check_count(self, "loop", "epochs", "batch", "replay_batch", "accumulation", "candidates")
        whole_number(self.num_workers, "loop.num_workers")
        check_number(self, "loop", "lr", above=0)
        check_number(self, "loop", "weight_decay", least=0)
        check_number(self, "loop", "warmup", least=0, below=1)
        if self.clip_norm is not None:
            check_number(self, "loop", "clip_norm", above=0)
        check_number(self, "loop", "ema", least=0, below=1)
        check_number(self, "loop", "stored_form", least=0, most=1)
        check_number(self, "loop", "random_ratio", above=0, most=1)
        object.__setattr__(self, "augment", tuple(map(Part.of, self.augment)))
        for part in self.augment:
            AUGMENTATIONS.check(part.name, part.kwargs, given=GIVEN)
            grids: dict[str, Any] = {"grids": {}} if "grids" in AUGMENTATIONS.options(part.name) else {}
            AUGMENTATIONS.make(part.name, **grids, **part.kwargs)  # a value out of range is told here, not at replay
        SAMPLERS.check(self.sampler, ())
        for name in ("compile", "joint", "test_stored_form", "keep_hidden"):
            flag(getattr(self, name), f"loop.{name}")

    @property
    def dtype(self) -> torch.dtype:
        """In what the blocks of the backbone compute."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32
