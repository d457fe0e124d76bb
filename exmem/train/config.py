"""Configuration of a training run; light to import."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from exmem.errors import SchemaError
from exmem.store import parse_bytes

__all__ = ["RecipeName", "TrainConfig"]

RecipeName = Literal[
    "masked",
    "foveated",
    "foveated_picture",
    "rate_aware",
    "jpeg",
    "half_jpeg",
    "third_jpeg",
    "quarter_jpeg",
    "raw",
    "text",
    "none",
]


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
    modalities : {"both", "image", "text"}
        What the learner sees of an example, when it is trained, replayed and tested.
    recipe : str
        What is kept of an exemplar. masked: the image patches and text tokens that matter (the paper's); foveated:
        patches at several scales, fine where the score is high; foveated_picture: the whole picture in place, smoothed
        where the score is low; rate_aware: tokens, scales and quality that keep the most score in exemplar_bytes; jpeg,
        half_jpeg, third_jpeg, quarter_jpeg: the whole picture as JPEG at full or a part of the side; raw: its pixels;
        text: the text alone; none: no memory at all (fine-tuning). The defaults of recipe, quality and text_rule are
        what did best at equal bytes on the demo data, not what the paper does.
    max_bytes : str
        Strict budget of the memory on disk, such as 64MB or 1.5GiB.
    quota : {"bytes", "counts", "frequency"}
        How classes share it: equal bytes, equal counts, or bytes in proportion to their training examples.
    quality : int
        JPEG quality of stored pictures, 1..100.
    qualities : tuple of int
        JPEG qualities that rate_aware chooses from.
    exemplar_bytes : int
        Payload bytes of an exemplar, text included, for rate_aware; payload bytes of the kept patches alone, at the
        backbone's own patch size, for the keep rule fit_bytes.
    scorer : str
        What gives tokens an importance in the recipes that mask (masked, foveated, foveated_picture, rate_aware):
        cls_attention, attention_rollout, attention_value_norm, grad_attention, cls_diverse, cim_box, centre or random.
        grad_attention explains the true class.
    score_layers : tuple of int
        Layers that the scorer looks at; negative ones count from the last. attention_rollout and grad_attention take
        all, centre and random none, whatever is given here.
    keep_rule : str
        Which patches the recipes that mask keep (at the finest scale): mean_threshold (the paper's), keep_ratio, top_k,
        cumulative or fit_bytes. In rate_aware it decides for the text rule only, which asks what the image lost.
    keep_patches : int
        Patches kept by top_k.
    keep_ratio : float
        Share of the patches kept by keep_ratio, and by random masks of new examples, above 0 and at most 1.
    keep_mass : float
        Share of the score kept by cumulative, above 0 and at most 1.
    scale_factors : tuple of int
        Scales of foveated and rate_aware: the side of a patch is divided by these, finest first.
    scale_shares : tuple of float
        Of the patches that foveated does not keep at the finest scale, the share of each further scale; the rest is
        dropped.
    coarse : int
        foveated_picture stores half the side and smooths what is not kept by this factor.
    thumbnail : int
        Side of the thumbnail that masked stores besides when the fill is thumbnail.
    text_rule : str
        lost_patches (the paper's), keep_ratio (the words of the highest scores), all, or none: exemplars without text.
        Recipes that do not mask score nothing: they store the whole text unless it is none.
    text_direction : {"text_to_image", "image_to_text", "both"}
        Which attention between words and lost patches lost_patches looks at.
    text_threshold : float
        Its threshold in multiples of the mean; 1 is our reading of the paper.
    text_keep_ratio : float
        Share of the words that the text rule keep_ratio keeps, 0..1.
    fill : str
        What becomes of dropped patches at replay: drop, zero, mean, class_mean, thumbnail (recipe masked only) or
        mask_token (backbones that have one; that of the packaged DINOv2-S was not published and is zeros). Whole
        pictures and foveated_picture drop none.
    selection : str
        Which examples become exemplars: herding, closest_to_mean, k_centre, random, reservoir, loss or entropy.
    selection_form : {"full", "stored"}
        Whether they are ranked by the features of the full example or of what would be stored of it.
    augmentations : tuple of str
        What replayed exemplars go through, in order: text_exchange, image_exchange, patch_paste, token_dropout, flip,
        colour_jitter. All but text_exchange and token_dropout need exemplars to be embedded anew at each step. One that
        finds nothing to change, such as patch_paste where no patch was dropped, leaves exemplars as they are.
    augment_probability : float
        Chance of each exemplar for each augmentation, 0..1.
    drop_ratio : float
        Share of the image tokens that token_dropout drops, 0..1.
    new_stored_form : float
        Chance of a new example to be shown as it would be stored (masked, or scaled down), 0..1, so that the model
        knows such input and cannot learn that it means an old class.
    new_masks : {"scores", "random"}
        Whether those are made by the recipe, or by random masks of keep_ratio.
    test_stored_form : bool
        Also measure on test examples as they would be stored.
    sampler : str
        How exemplars are drawn at replay: balanced over the classes, or uniform.
    backbone : {"joint", "vilt", "clip", "siglip", "vit", "dinov2", "bert"}
        Family of the backbone.
    vision : str, optional
        Hub name or folder of the vision model, or of the whole model of a family with one; the packaged DINOv2-S for
        joint, vit and dinov2 when left out.
    text : str, optional
        Hub name or folder of the text encoder of joint, or of bert; the packaged MiniLM when left out.
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
        If a value is out of range, or options do not go together.
    """

    first_classes: int
    increments: tuple[int, ...]
    class_seed: int = 0
    seed: int = 0
    modalities: Literal["both", "image", "text"] = "both"
    recipe: RecipeName = "half_jpeg"
    max_bytes: str = "64MB"
    quota: Literal["bytes", "counts", "frequency"] = "bytes"
    quality: int = 30
    qualities: tuple[int, ...] = (30, 60)
    exemplar_bytes: int = 1000
    scorer: str = "cls_attention"
    score_layers: tuple[int, ...] = (-1,)
    keep_rule: str = "mean_threshold"
    keep_patches: int = 32
    keep_ratio: float = 0.35
    keep_mass: float = 0.7
    scale_factors: tuple[int, ...] = (1, 2, 4)
    scale_shares: tuple[float, ...] = (0.5, 0.5)
    coarse: int = 4
    thumbnail: int = 28
    text_rule: str = "all"
    text_direction: Literal["text_to_image", "image_to_text", "both"] = "text_to_image"
    text_threshold: float = 1.0
    text_keep_ratio: float = 0.35
    fill: str = "drop"
    selection: str = "herding"
    selection_form: Literal["full", "stored"] = "full"
    augmentations: tuple[str, ...] = ()
    augment_probability: float = 0.5
    drop_ratio: float = 0.5
    new_stored_form: float = 0.0
    new_masks: Literal["scores", "random"] = "scores"
    test_stored_form: bool = False
    sampler: str = "balanced"
    backbone: Literal["joint", "vilt", "clip", "siglip", "vit", "dinov2", "bert"] = "joint"
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
        for name in ("keep_mass", "keep_ratio", "text_keep_ratio", "lr", "temperature", "lora_alpha"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise SchemaError(f"{name} must be above 0, got {value}")
        for name in ("distill_weight", "text_threshold", "weight_decay"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise SchemaError(f"{name} must be 0 or more, got {value}")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise SchemaError(f"{name} must be in 0..1, got {getattr(self, name)}")
        if min(self.scale_factors, default=0) < 1:
            raise SchemaError(f"scale_factors must be numbers of 1 or more, got {self.scale_factors}")
        wrong = [quality for quality in (self.quality, *self.qualities) if not 1 <= quality <= 100]
        if wrong:
            raise SchemaError(f"quality and qualities must be in 1..100, got {wrong}")
        parse_bytes(self.max_bytes)
        self._check_combinations()

    def _check_combinations(self) -> None:
        made_by_recipe = self.new_stored_form > 0 and self.new_masks == "scores"
        if self.recipe == "none" and (made_by_recipe or self.test_stored_form):
            raise SchemaError(
                "recipe 'none' stores nothing, so no example has a stored form; choose a recipe, or new_masks='random' "
                "and no test_stored_form"
            )
        if self.recipe == "text" and self.text_rule == "none":
            raise SchemaError("recipe 'text' and text_rule 'none' leave nothing to store; change one of them")
        if self.fill == "thumbnail" and self.recipe != "masked":
            raise SchemaError(
                "fill 'thumbnail' needs recipe 'masked', the only one that stores a thumbnail, got "
                f"{self.recipe!r}; choose another fill or recipe"
            )
        if self.scorer == "grad_attention" and made_by_recipe:
            raise SchemaError(
                "grad_attention explains the classifier, which knows nothing of new classes before their phase; use "
                "new_masks='random' or another scorer with new_stored_form"
            )
        if self.scorer == "grad_attention" and self.test_stored_form:
            raise SchemaError(
                "grad_attention explains the true class, so the masks of test examples would tell their labels; use "
                "another scorer with test_stored_form"
            )
        if self.fill == "class_mean" and self.test_stored_form:
            raise SchemaError(
                "class_mean fills with the mean colour of the true class, so test examples would show their labels; "
                "use another fill with test_stored_form"
            )

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


_SHARES = ("augment_probability", "drop_ratio", "keep_mass", "keep_ratio", "new_stored_form", "text_keep_ratio")
_POSITIVE = (
    "coarse",
    "exemplar_bytes",
    "first_classes",
    "keep_patches",
    "thumbnail",
    "tuned_blocks",
    "max_text",
    "image_size",
    "lora_rank",
    "epochs",
    "batch",
    "replay_batch",
)
