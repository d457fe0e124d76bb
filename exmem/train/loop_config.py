"""Configuration of the loop: how a phase is trained, and how exemplars are replayed in it."""

import dataclasses
from typing import Annotated, Any, Literal

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
    sampler : str
        How exemplars are drawn: balanced over the classes, or uniform.
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
    sampler: str = "balanced"
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
        check_count(self, "loop", "epochs", "batch", "replay_batch")
        whole_number(self.num_workers, "loop.num_workers")
        check_number(self, "loop", "lr", above=0)
        check_number(self, "loop", "weight_decay", least=0)
        check_number(self, "loop", "warmup", least=0, most=0.99)
        if self.clip_norm is not None:
            check_number(self, "loop", "clip_norm", above=0)
        check_number(self, "loop", "stored_form", least=0, most=1)
        check_number(self, "loop", "random_ratio", above=0, most=1)
        object.__setattr__(self, "augment", tuple(map(Part.of, self.augment)))
        for part in self.augment:
            AUGMENTATIONS.check(part.name, part.kwargs, given=GIVEN)
            grids: dict[str, Any] = {"grids": {}} if "grids" in AUGMENTATIONS.options(part.name) else {}
            AUGMENTATIONS.make(part.name, **grids, **part.kwargs)  # a value out of range is told here, not at replay
        SAMPLERS.check(self.sampler, ())
        for name in ("test_stored_form", "keep_hidden"):
            flag(getattr(self, name), f"loop.{name}")
