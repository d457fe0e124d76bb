"""The parts that a configuration names: recipe, fill and augmentations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from exmem.backbones import Backbone, load_backbone
from exmem.codecs import get_codec
from exmem.errors import SchemaError
from exmem.masking import KEEP_RULES, TEXT_RULES
from exmem.masking.scorers import SCORERS, Objective, RandomScores, Scorer
from exmem.masking.scorers.attention_pass import chosen_layers
from exmem.recipes import (
    FoveatedPicture,
    FoveatedTokens,
    MaskedTokens,
    Masking,
    RateAware,
    Recipe,
    TextOnly,
    WholePicture,
)
from exmem.replay import FILLS, SAMPLERS
from exmem.replay.augment import AUGMENTATIONS, Compose
from exmem.selection import SELECTIONS
from exmem.train.config import TrainConfig

__all__ = ["ON_STREAMS", "configured_backbone", "make_augmentation", "make_random_masks", "make_recipe"]

ON_STREAMS = frozenset({"text_exchange", "token_dropout"})  # augmentations that hidden states can go through

_REGISTRIES: dict[str, Mapping[str, object]] = {
    "fill": FILLS,
    "keep_rule": KEEP_RULES,
    "sampler": SAMPLERS,
    "scorer": SCORERS,
    "selection": SELECTIONS,
    "text_rule": TEXT_RULES,
}
_PARTS = {"jpeg": 1, "half_jpeg": 2, "third_jpeg": 3, "quarter_jpeg": 4}  # of the side of a whole picture


def configured_backbone(config: TrainConfig, progress: Callable[[str], None]) -> Backbone:
    """Load the backbone of a run; what its modalities leave out is not seen."""
    vision = [] if config.backbone == "bert" else [config.vision]
    text = [config.text] if config.backbone in {"joint", "bert"} else []
    return load_backbone(
        config.backbone,
        *vision,
        *text,
        modalities=() if config.modalities == "both" else (config.modalities,),
        seed=config.seed,
        progress=progress,
        image_size=config.image_size,
        trainable_blocks=config.tuned_blocks,
        max_text=config.max_text,
    )


def make_recipe(config: TrainConfig, backbone: Backbone, objective: Objective | None = None) -> Recipe | None:
    """Make the recipe of a run.

    Parameters
    ----------
    config : TrainConfig
        Names it.
    backbone : Backbone
        The backbone.
    objective : callable, optional
        What the scorer `grad_attention` explains; its own default when left out.

    Returns
    -------
    Recipe or None
        None for `none`: no memory.

    Raises
    ------
    SchemaError
        If a part that the configuration names is unknown, in the recipe or elsewhere, or an option does not go with the
        recipe or the backbone.
    """
    _check_names(config)
    if config.recipe == "none":
        return None
    if config.recipe == "text":
        return TextOnly(backbone)
    if "image" not in backbone.token_specs():
        raise SchemaError(f"recipe {config.recipe!r} stores pictures, and this learner sees none; use recipe 'text'")
    jpeg = {"id": "patch_jpeg", "quality": config.quality}
    height, width = backbone.picture_size
    if config.recipe in {*_PARTS, "raw"}:
        part = _PARTS.get(config.recipe, 1)
        codec = "raw" if config.recipe == "raw" else jpeg
        size = (round(height / part), round(width / part))
        # No patch is lost, so lost_patches has no reason to drop a word.
        return WholePicture(backbone, size=size, codec=codec, text=config.text_rule != "none")
    if config.fill == "mask_token" and not backbone.has_mask_token:
        raise SchemaError(f"fill 'mask_token': {type(backbone).__name__} has no mask token here; choose another fill")
    masking = _masking(config, backbone, _scorer(config, backbone, objective))
    scales = [max(1, round(backbone.patch / factor)) for factor in config.scale_factors]
    if config.recipe == "foveated":
        return FoveatedTokens(masking, scales=scales, shares=config.scale_shares, quality=config.quality)
    if config.recipe == "foveated_picture":
        size = (height // 2, width // 2)
        return FoveatedPicture(masking, size=size, coarse=config.coarse, quality=config.quality)
    if config.recipe == "rate_aware":
        return RateAware(masking, scales=scales, qualities=config.qualities, max_bytes=config.exemplar_bytes)
    return _masked_tokens(config, masking)


def make_random_masks(config: TrainConfig, backbone: Backbone) -> MaskedTokens:
    """Make what masks new examples at random: `keep_ratio` of the patches, whatever the recipe keeps.

    Parameters
    ----------
    config : TrainConfig
        Says how many are kept.
    backbone : Backbone
        The backbone.

    Returns
    -------
    MaskedTokens
        A recipe that stores nothing.

    Raises
    ------
    SchemaError
        If the backbone sees no pictures.
    """
    if "image" not in backbone.token_specs():
        raise SchemaError("new_masks 'random' masks patches, and this learner sees none; use new_masks 'scores'")
    rule = KEEP_RULES.make("keep_ratio", ratio=config.keep_ratio)
    masking = Masking(backbone, scorer=RandomScores(seed=config.seed), keep_rule=rule, text_rule=TEXT_RULES.make("all"))
    return _masked_tokens(config, masking)


def make_augmentation(config: TrainConfig, backbone: Backbone, modalities: Sequence[str]) -> Compose:
    """Make the augmentations of a run.

    Parameters
    ----------
    config : TrainConfig
        Names them.
    backbone : Backbone
        The backbone.
    modalities : sequence of str
        Modalities of restored exemplars.

    Returns
    -------
    Compose
        One after the other.
    """
    chance = config.augment_probability
    grids = {"image": backbone.grid} | ({"thumbnail": (1, 1)} if "thumbnail" in modalities else {})
    options: dict[str, dict[str, Any]] = {
        "flip": {"grids": grids},
        "token_dropout": {"ratio": config.drop_ratio},
    }
    return Compose(
        [AUGMENTATIONS.make(name, probability=chance, **options.get(name, {})) for name in config.augmentations]
    )


def _check_names(config: TrainConfig) -> None:
    # Some are looked up only after the first phase: too late to learn that one is unknown.
    named = [(field, getattr(config, field), known) for field, known in _REGISTRIES.items()]
    named += [("augmentations", name, AUGMENTATIONS) for name in config.augmentations]
    for field, name, known in named:
        if name not in known:
            raise SchemaError(f"{field}: unknown {name!r}; choose one of {sorted(known)}")


def _masked_tokens(config: TrainConfig, masking: Masking) -> MaskedTokens:
    thumbnail = config.thumbnail if config.fill == "thumbnail" else 0
    return MaskedTokens(masking, quality=config.quality, thumbnail=thumbnail)


def _masking(config: TrainConfig, backbone: Backbone, scorer: Scorer) -> Masking:
    rules: dict[str, dict[str, Any]] = {
        "cumulative": {"mass": config.keep_mass},
        "fit_bytes": {"max_bytes": config.exemplar_bytes},
        "keep_ratio": {"ratio": config.keep_ratio},
        "top_k": {"k": config.keep_patches},
    }
    keep_rule = KEEP_RULES.make(config.keep_rule, **rules.get(config.keep_rule, {}))
    texts: dict[str, dict[str, Any]] = {
        "keep_ratio": {"ratio": config.text_keep_ratio},
        "lost_patches": {
            "direction": config.text_direction,
            "cls_threshold": config.text_threshold,
            "lost_threshold": config.text_threshold,
        },
    }
    text_rule = TEXT_RULES.make(config.text_rule, **texts.get(config.text_rule, {}))
    spec = backbone.token_specs()["image"]
    if config.keep_rule == "top_k" and config.keep_patches > spec.positions:
        raise SchemaError(
            f"keep_patches must be at most {spec.positions}, the patches of a picture, got {config.keep_patches}"
        )
    codec = {"id": "patch_jpeg", "quality": config.quality}
    measures = config.keep_rule == "fit_bytes"
    return Masking(
        backbone,
        scorer=scorer,
        keep_rule=keep_rule,
        text_rule=None if config.text_rule == "none" else text_rule,
        codec=get_codec(codec, shape=spec.shape, dtype=spec.dtype) if measures else None,
    )


def _scorer(config: TrainConfig, backbone: Backbone, objective: Objective | None) -> Scorer:
    layered = {"layers": config.score_layers}
    options: dict[str, dict[str, Any]] = {
        "attention_value_norm": layered,
        "cim_box": layered,
        "cls_attention": layered,
        "cls_diverse": layered,
        "grad_attention": {"objective": objective},
        "random": {"seed": config.seed},
    }
    own = options.get(config.scorer, {})
    if "layers" in own:
        chosen_layers(own["layers"], len(backbone.attention_taps()))  # refused here, not after the first phase
    return SCORERS.make(config.scorer, **own)
