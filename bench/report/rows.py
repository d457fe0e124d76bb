"""The rows of the report: what is compared with what."""

import dataclasses
from typing import Any

from exmem.train.config import TrainConfig

BASE: dict[str, Any] = {
    "first_classes": 4,
    "increments": (3,),
    "image_size": 112,
    "tuned_blocks": 1,
    "score_layers": (-3,),
    "epochs": 3,
    "recipe": "masked",
    "quality": 75,
    "text_rule": "lost_patches",
    "fill": "drop",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a table: what it changes against the base."""

    group: str
    name: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    stored_test: bool = False
    only: str | None = None  # runs of the trainer with these modalities alone

    @property
    def key(self) -> str:
        return f"{self.group} / {self.name}"

    def config(self, **more: Any) -> TrainConfig:
        return TrainConfig(**(BASE | self.options | more))


def whole(recipe: str, quality: int) -> dict[str, Any]:
    return {"recipe": recipe, "quality": quality}


SCORERS: dict[str, dict[str, Any]] = {
    "random": {"scorer": "random"},
    "centre": {"scorer": "centre"},
    "cls_attention, last layer": {"score_layers": (-1,)},
    "cls_attention, third from last": {},
    "cls_attention, mean of layers 8-11": {"score_layers": (-5, -4, -3, -2)},
    "cls_attention, mean of all layers": {"score_layers": tuple(range(12))},
    "attention_rollout": {"scorer": "attention_rollout"},
    "attention_value_norm, last layer": {"scorer": "attention_value_norm", "score_layers": (-1,)},
    "attention_value_norm, third from last": {"scorer": "attention_value_norm"},
    "grad_attention": {"scorer": "grad_attention"},
    "cls_diverse, third from last": {"scorer": "cls_diverse"},
    "cim_box, third from last": {"scorer": "cim_box"},
}
RATIO = {"keep_rule": "keep_ratio", "keep_ratio": 0.35}
WINDOW = {"recipe": "foveated_picture", "quality": 30}
HALF = whole("half_jpeg", 30)

PROBE: tuple[Row, ...] = (
    Row("whole pictures", "raw pixels", {"recipe": "raw"}),
    Row("whole pictures", "JPEG q75", whole("jpeg", 75)),
    Row("whole pictures", "JPEG q30", whole("jpeg", 30)),
    Row("whole pictures", "half, q75", whole("half_jpeg", 75)),
    Row("whole pictures", "half, q30", HALF, stored_test=True),
    Row("whole pictures", "third, q75", whole("third_jpeg", 75)),
    Row("whole pictures", "third, q30", whole("third_jpeg", 30)),
    Row("whole pictures", "quarter, q75", whole("quarter_jpeg", 75), stored_test=True),
    Row("whole pictures", "quarter, q30", whole("quarter_jpeg", 30)),
    Row("one modality", "text alone", {"recipe": "text"}),
    Row("one modality", "half, q30, without text", HALF | {"text_rule": "none"}),
    *(Row("scorers, mean_threshold", name, own, name == "random") for name, own in SCORERS.items()),
    *(Row("scorers, keep_ratio 0.35", name, own | RATIO) for name, own in SCORERS.items()),
    Row("keep rules", "cumulative, 0.7 of the score", {"keep_rule": "cumulative"}),
    Row("keep rules", "top_k, 22", {"keep_rule": "top_k", "keep_patches": 22}),
    Row("keep rules", "fit_bytes, 700", {"keep_rule": "fit_bytes", "exemplar_bytes": 700}),
    Row("keep rules", "mean_threshold at q30", {"quality": 30}, stored_test=True),
    Row("text rules", "lost_patches, image to text", {"text_direction": "image_to_text"}),
    Row("text rules", "lost_patches, both directions", {"text_direction": "both"}),
    Row("text rules", "lost_patches, 0.5 of the mean", {"text_threshold": 0.5}),
    Row("text rules", "lost_patches, 1.5 of the mean", {"text_threshold": 1.5}),
    Row("text rules", "all", {"text_rule": "all"}),
    Row("text rules", "none", {"text_rule": "none"}),
    *(
        Row("fills", f"{fill}, q30", {"fill": fill, "quality": 30})
        for fill in ("zero", "mean", "class_mean", "thumbnail", "mask_token")
    ),
    Row("foveation", "tokens 14/7/4 px, q75", {"recipe": "foveated"}),
    Row("foveation", "tokens 14/7/4 px, q30", {"recipe": "foveated", "quality": 30}),
    Row(
        "foveation",
        "tokens 7/4 px, q30",
        {"recipe": "foveated", "quality": 30} | {"scale_factors": (2, 4)} | {"scale_shares": (1.0,)},
    ),
    Row(
        "foveation",
        "tokens 14/4 px, rest half dropped, q30",
        {"recipe": "foveated", "quality": 30} | {"scale_factors": (1, 4), "scale_shares": (0.5,)},
    ),
    Row("foveation", "picture in place, half, coarse 4, q30", WINDOW, stored_test=True),
    Row("foveation", "picture in place, half, coarse 2, q30", WINDOW | {"coarse": 2}),
    Row("foveation", "picture in place, half, coarse 14, q30", WINDOW | {"coarse": 14}),
    Row("foveation", "picture in place, half, coarse 4, q50", WINDOW | {"quality": 50}),
    Row("foveation", "picture in place, random mask, coarse 4, q30", WINDOW | {"scorer": "random"}),
    Row("rate-aware", "700 B, scales 14/7/4, q30 or q60", {"recipe": "rate_aware", "exemplar_bytes": 700}),
    Row(
        "rate-aware",
        "700 B, scales 14/7/4, q30 or q60, mean fill",
        {"recipe": "rate_aware", "exemplar_bytes": 700, "fill": "mean"},
    ),
    Row(
        "rate-aware",
        "500 B, scales 7/4, q30",
        {"recipe": "rate_aware", "exemplar_bytes": 500} | {"scale_factors": (2, 4), "qualities": (30,)},
    ),
    Row("whole text", "masked, mean, q30", {"fill": "mean", "quality": 30, "text_rule": "all"}),
    Row(
        "whole text",
        "tokens 7/4 px, q30",
        {"recipe": "foveated", "quality": 30, "scale_factors": (2, 4), "scale_shares": (1.0,), "text_rule": "all"},
    ),
    Row("whole text", "picture in place, half, coarse 2, q30", WINDOW | {"coarse": 2, "text_rule": "all"}),
    *(
        Row("selection, half q30", rule, HALF | {"selection": rule})
        for rule in ("closest_to_mean", "k_centre", "random", "reservoir", "loss", "entropy")
    ),
    Row("selection, half q30", "herding on what is stored", HALF | {"selection_form": "stored"}),
    Row("selection, half q30", "herding, equal counts", HALF | {"quota": "counts"}),
    Row("selection, masked", "random", {"selection": "random"}),
    Row("selection, masked", "herding on what is stored", {"selection_form": "stored"}),
)

MASKED = {"quality": 30}
TRAINED: tuple[Row, ...] = (
    Row("recipes", "half, q30", HALF, stored_test=True),
    Row("recipes", "masked, q30", MASKED, stored_test=True),
    Row("recipes", "picture in place, coarse 4, q30", WINDOW),
    Row("masked training", "masked, new by scores 0.5", MASKED | {"new_stored_form": 0.5}, stored_test=True),
    Row(
        "masked training",
        "masked, new by random 0.5",
        MASKED | {"new_stored_form": 0.5, "new_masks": "random"},
        stored_test=True,
    ),
    Row("masked training", "half, new as stored 0.5", HALF | {"new_stored_form": 0.5}, stored_test=True),
    Row("fills", "masked, mean", MASKED | {"fill": "mean"}),
    Row("augmentations", "half, token_dropout", HALF | {"augmentations": ("token_dropout",)}),
    Row("augmentations", "half, text_exchange", HALF | {"augmentations": ("text_exchange",)}, only="both"),
    Row(
        "augmentations", "half, flip + colour_jitter", HALF | {"augmentations": ("flip", "colour_jitter")}, only="image"
    ),
    Row("augmentations", "masked, image_exchange", MASKED | {"augmentations": ("image_exchange",)}, only="both"),
    Row("augmentations", "masked, patch_paste", MASKED | {"augmentations": ("patch_paste",)}, only="image"),
)
