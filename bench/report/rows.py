"""The rows of the report: what is compared with what."""

import dataclasses
from typing import Any

from exmem.recipes import Recipe
from exmem.train.config import TrainConfig

BASE: dict[str, Any] = {
    "recipe": {
        "name": "masked",
        "image": "patches",
        "scorer": "cls_attention:layers=[-3]",
        "text": "lost_patches",
        "codec": "patch_jpeg:quality=75",
    },
    "data": {"first_classes": 4, "increments": [3]},
    "backbone": {"image_size": 112},
    "tuner": {"blocks": 1},
    "loop": {"epochs": 3},
}


def merged(document: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """A configuration with other options; groups, and the recipe, keep what is not named."""
    groups = {
        key: {**document.get(key, {}), **value} if isinstance(value, dict) else value for key, value in more.items()
    }
    return document | groups


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
        document = merged(merged(BASE, self.options), more)
        parts = document["recipe"]
        stored = Recipe.from_json({name: parts[name] for name in ("image", "text")})
        used = {name: part for name, part in parts.items() if name not in stored.unused}  # of the base, some have none
        return TrainConfig.from_json(document | {"recipe": used})


def recipe(**parts: Any) -> dict[str, Any]:
    return {"recipe": parts}


def whole(divisor: int, quality: int) -> dict[str, Any]:
    return recipe(image=f"scaled:divisor={divisor}", text="all", codec=jpeg(quality))


def jpeg(quality: int) -> str:
    return f"patch_jpeg:quality={quality}"


SCORERS: dict[str, str] = {
    "random": "random",
    "centre": "centre",
    "cls_attention, last layer": "cls_attention:layers=[-1]",
    "cls_attention, third from last": "cls_attention:layers=[-3]",
    "cls_attention, mean of layers 8-11": "cls_attention:layers=[-5,-4,-3,-2]",
    "cls_attention, mean of all layers": f"cls_attention:layers={[*range(12)]}",
    "attention_rollout": "attention_rollout",
    "attention_value_norm, last layer": "attention_value_norm:layers=[-1]",
    "attention_value_norm, third from last": "attention_value_norm:layers=[-3]",
    "grad_attention": "grad_attention",
    "cls_diverse, third from last": "cls_diverse:layers=[-3]",
    "cim_box, third from last": "cim_box:layers=[-3]",
}
RATIO, Q30 = "keep_ratio:ratio=0.35", {"codec": jpeg(30)}
WINDOW = {"image": "smoothed:coarse=4", **Q30}
HALF = whole(2, 30)
TWO_SCALES = "scales:factors=[2,4],shares=[1.0]"
PICTURE = "picture in place, half,"

PROBE: tuple[Row, ...] = (
    Row("whole pictures", "raw pixels", recipe(image="scaled", text="all", codec="raw")),
    Row("whole pictures", "JPEG q75", whole(1, 75)),
    Row("whole pictures", "JPEG q30", whole(1, 30)),
    Row("whole pictures", "half, q75", whole(2, 75)),
    Row("whole pictures", "half, q30", HALF, stored_test=True),
    Row("whole pictures", "third, q75", whole(3, 75)),
    Row("whole pictures", "third, q30", whole(3, 30)),
    Row("whole pictures", "quarter, q75", whole(4, 75), stored_test=True),
    Row("whole pictures", "quarter, q30", whole(4, 30)),
    Row("one modality", "text alone", recipe(image="none", text="all")),
    Row("one modality", "half, q30, without text", merged(HALF, recipe(text="none"))),
    *(
        Row("scorers, mean_threshold", name, recipe(scorer=scorer), name == "random")
        for name, scorer in SCORERS.items()
    ),
    *(Row("scorers, keep_ratio 0.35", name, recipe(scorer=scorer, keep=RATIO)) for name, scorer in SCORERS.items()),
    Row("keep rules", "cumulative, 0.7 of the score", recipe(keep="cumulative:mass=0.7")),
    Row("keep rules", "top_k, 22", recipe(keep="top_k:k=22")),
    Row("keep rules", "fit_bytes, 700", recipe(keep="fit_bytes:max_bytes=700")),
    Row("keep rules", "mean_threshold at q30", recipe(**Q30), stored_test=True),
    Row("text rules", "lost_patches, image to text", recipe(text="lost_patches:direction=image_to_text")),
    Row("text rules", "lost_patches, both directions", recipe(text="lost_patches:direction=both")),
    *(
        Row(
            "text rules",
            f"lost_patches, {factor} of the mean",
            recipe(text=f"lost_patches:cls_threshold={factor},lost_threshold={factor}"),
        )
        for factor in (0.5, 1.5)
    ),
    Row("text rules", "all", recipe(text="all")),
    Row("text rules", "none", recipe(text="none")),
    *(
        Row("fills", f"{fill}, q30", recipe(fill=fill, image=f"patches:thumbnail={side}", **Q30))
        for fill, side in (("zero", 0), ("mean", 0), ("class_mean", 0), ("thumbnail", 28), ("mask_token", 0))
    ),
    Row("foveation", "tokens 14/7/4 px, q75", recipe(image="scales")),
    Row("foveation", "tokens 14/7/4 px, q30", recipe(image="scales", **Q30)),
    Row("foveation", "tokens 7/4 px, q30", recipe(image=TWO_SCALES, **Q30)),
    Row(
        "foveation",
        "tokens 14/4 px, rest half dropped, q30",
        recipe(image="scales:factors=[1,4],shares=[0.5]", **Q30),
    ),
    Row("foveation", f"{PICTURE} coarse 4, q30", recipe(**WINDOW), stored_test=True),
    Row("foveation", f"{PICTURE} coarse 2, q30", recipe(image="smoothed:coarse=2", **Q30)),
    Row("foveation", f"{PICTURE} coarse 14, q30", recipe(image="smoothed:coarse=14", **Q30)),
    Row("foveation", f"{PICTURE} coarse 4, q50", recipe(image="smoothed:coarse=4", codec=jpeg(50))),
    Row("foveation", "picture in place, random mask, coarse 4, q30", recipe(**WINDOW, scorer="random")),
    Row("rate-aware", "700 B, scales 14/7/4, q30 or q60", recipe(image="rate:max_bytes=700")),
    Row(
        "rate-aware",
        "700 B, scales 14/7/4, q30 or q60, mean fill",
        recipe(image="rate:max_bytes=700", fill="mean"),
    ),
    Row("rate-aware", "500 B, scales 7/4, q30", recipe(image="rate:max_bytes=500,factors=[2,4],qualities=[30]")),
    Row("whole text", "masked, mean, q30", recipe(fill="mean", text="all", **Q30)),
    Row("whole text", "tokens 7/4 px, q30", recipe(image=TWO_SCALES, text="all", **Q30)),
    Row("whole text", f"{PICTURE} coarse 2, q30", recipe(image="smoothed:coarse=2", text="all", **Q30)),
    *(
        Row("selection, half q30", rule, HALF | {"selection": rule})
        for rule in ("closest_to_mean", "k_centre", "random", "reservoir", "loss", "entropy")
    ),
    Row("selection, half q30", "herding on what is stored", HALF | {"ranked_form": "stored"}),
    Row("selection, half q30", "herding, equal counts", HALF | {"quota": "counts"}),
    Row("selection, masked", "random", {"selection": "random"}),
    Row("selection, masked", "herding on what is stored", {"ranked_form": "stored"}),
)

MASKED = recipe(**Q30)


def replayed(*names: str) -> dict[str, Any]:
    return {"loop": {"augment": [f"{name}:probability=0.5" for name in names]}}


TRAINED: tuple[Row, ...] = (
    Row("recipes", "half, q30", HALF, stored_test=True),
    Row("recipes", "masked, q30", MASKED, stored_test=True),
    Row("recipes", "picture in place, coarse 4, q30", recipe(**WINDOW)),
    Row("masked training", "masked, new by scores 0.5", MASKED | {"loop": {"stored_form": 0.5}}, stored_test=True),
    Row(
        "masked training",
        "masked, new by random 0.5",
        MASKED | {"loop": {"stored_form": 0.5, "stored_masks": "random"}},
        stored_test=True,
    ),
    Row("masked training", "half, new as stored 0.5", HALF | {"loop": {"stored_form": 0.5}}, stored_test=True),
    Row("fills", "masked, mean", recipe(fill="mean", **Q30)),
    Row("augmentations", "half, token_dropout", HALF | replayed("token_dropout")),
    Row("augmentations", "half, text_exchange", HALF | replayed("text_exchange"), only="both"),
    Row("augmentations", "half, flip + colour_jitter", HALF | replayed("flip", "colour_jitter"), only="image"),
    Row("augmentations", "masked, image_exchange", MASKED | replayed("image_exchange"), only="both"),
    Row("augmentations", "masked, patch_paste", MASKED | replayed("patch_paste"), only="image"),
)
