"""Which options of a run go together."""

from typing import TYPE_CHECKING

from exmem.errors import SchemaError
from exmem.masking.scorers import SCORERS
from exmem.recipes.recipe import SCORELESS
from exmem.tokens.checks import shown
from exmem.train.reading import plain

if TYPE_CHECKING:
    from exmem.train.config import TrainConfig

__all__ = ["ON_HIDDEN", "check_combinations"]

ON_HIDDEN = frozenset({"text_exchange", "token_dropout"})
"""Augmentations that need no pixels."""


def check_combinations(config: "TrainConfig") -> None:
    """Refuse options that have no effect, cannot be, or would be wrong beside the others (SchemaError)."""
    _check_used(config)
    _check_method(config)
    _check_stored_form(config)
    _check_levels(config)


def _check_used(config: "TrainConfig") -> None:
    """Refuse options that were given and have no effect beside the others."""
    loop, recipe, backbone = config.loop, config.recipe, config.backbone
    random_masks = loop.stored_form > 0 and loop.stored_masks == "random"
    drops = "fill" in recipe.form().uses or random_masks or (recipe.level == "pixels" and bool(loop.augment))
    replay = (
        "quota",
        "selection",
        "ranked_form",
        "loop.augment",
        "loop.sampler",
        "loop.candidates",
        "method.corrected",
    )
    for acts, reason, names in (
        (not recipe.is_empty, f"recipe {recipe.name!r} stores nothing", replay),
        (drops, f"image {str(recipe.image)!r} drops no tokens, and nothing else does", ("recipe.fill",)),
        (loop.stored_form > 0, "loop.stored_form is 0", ("loop.stored_masks",)),
        (random_masks, "no masks are random (loop.stored_form, loop.stored_masks)", ("loop.random_ratio",)),
        (config.method.distill_weight > 0, "method.distill_weight is 0", ("method.temperature",)),
        (config.tuner.phases != "none", "tuner.phases is none", ("tuner.adapter", "tuner.charged")),
        (config.method.dark_weight > 0, "method.dark_weight is 0", ("method.dark_update",)),
        (
            config.tuned_phases == "all",
            "no phase but the first is tuned",
            ("method.asymmetric", "method.aligned", "method.corrected", "loop.candidates"),
        ),
        (
            config.tuned_phases != "none",
            "no phase is tuned",
            (
                "method.label_smoothing",
                "loop.warmup",
                "loop.clip_norm",
                "loop.ema",
                "loop.accumulation",
                "loop.compile",
                "loop.joint",
            ),
        ),
        (backbone.family != "bert", "bert sees no images", ("backbone.vision",)),
        (backbone.family in {"joint", "bert"}, f"{backbone.family} has no text encoder apart", ("backbone.text",)),
    ):
        for name in () if acts else names:
            group, _, option = f".{name}".rpartition(".")
            part = getattr(config, group[1:]) if group else config
            value = getattr(part, option)
            if value != type(part).__dataclass_fields__[option].default:
                raise SchemaError(f"{name} {shown(plain(value))} has no effect: {reason}; leave it out")


def _check_method(config: "TrainConfig") -> None:
    """Refuse what a method cannot do beside another option."""
    loop, method = config.loop, config.method
    if loop.joint and not config.recipe.is_empty:
        raise SchemaError(
            f"loop.joint learns from all examples of earlier phases and stores none, recipe {config.recipe.name!r} "
            "does; use recipe none"
        )
    if loop.joint and (config.keeps_sums or config.tuned_phases != "all" or method.asymmetric or method.aligned):
        raise SchemaError(
            "loop.joint learns all classes anew in each phase; leave out method.asymmetric, method.aligned, a "
            "tuner.phases other than all, and heads that keep sums, which see all examples anyway"
        )
    if method.corrected and method.head.name != "linear":
        raise SchemaError(f"method.corrected corrects the linear head, and {method.head.name!r} classifies; use linear")
    if method.aligned and method.head.name == "cosine":
        raise SchemaError("method.aligned shortens weights, whose length a cosine does not see; leave it out")
    if method.corrected and not (loop.keep_hidden and {part.name for part in loop.augment} <= ON_HIDDEN):
        raise SchemaError(
            "method.corrected holds exemplars back from replay, which needs loop.keep_hidden and augmentations of "
            f"hidden tokens ({', '.join(sorted(ON_HIDDEN))})"
        )


def _check_stored_form(config: "TrainConfig") -> None:
    """Refuse stored forms of new or of test examples that there are not, or that would tell the class."""
    loop, recipe = config.loop, config.recipe
    made_by_recipe = loop.stored_form > 0 and loop.stored_masks == "scores"
    explains_class = "objective" in SCORERS.options(recipe.scorer.name)
    if recipe.is_empty and (made_by_recipe or loop.test_stored_form):
        raise SchemaError(
            f"recipe {recipe.name!r} stores nothing, so no example has a stored form; choose a recipe, or "
            "loop.stored_masks='random' and no loop.test_stored_form"
        )
    if explains_class and made_by_recipe:
        raise SchemaError(
            f"{recipe.scorer} explains the classifier, which knows nothing of new classes before their phase; use "
            "loop.stored_masks='random' or another scorer with loop.stored_form"
        )
    if explains_class and loop.test_stored_form:
        raise SchemaError(
            f"{recipe.scorer} explains the true class, so the masks of test examples would tell their labels; use "
            "another scorer with loop.test_stored_form"
        )
    if recipe.fill.name == "class_mean" and loop.test_stored_form:
        raise SchemaError(
            "class_mean fills with the mean colour of the true class, so test examples would show their labels; "
            "use another fill with loop.test_stored_form"
        )


def _check_levels(config: "TrainConfig") -> None:
    """Refuse what would be wrong, or cannot be, with what is stored and when blocks are tuned."""
    loop, recipe, head = config.loop, config.recipe, config.method.head.name
    if config.tuned_phases == "all" and recipe.level == "features":
        raise SchemaError(
            f"recipe {recipe.name!r} stores features, which tuning makes stale; use tuner.phases none or first"
        )
    if config.tuned_phases == "all" and config.keeps_sums:
        raise SchemaError(
            f"head {head!r} keeps sums of features, which tuning makes wrong; use tuner.phases none or first"
        )
    if config.tuned_phases != "all":
        asked = {
            f"head {head!r}": config.method.trains_head,
            "extras 'logits'": "logits" in recipe.extras,
            f"selection {config.selection.name!r}": config.selection.name in {"loss", "entropy"},
            f"scorer {recipe.scorer.name!r}": "objective" in SCORERS.options(recipe.scorer.name),
        }
        if wrong := [name for name, is_asked in asked.items() if is_asked]:
            raise SchemaError(
                f"{wrong[0]} needs the linear head, which is trained with the blocks; tuner.phases is "
                f"{config.tuned_phases}, use all"
            )
    if config.method.dark_weight and "logits" not in recipe.extras:
        raise SchemaError(
            f"method.dark_weight {config.method.dark_weight:g} needs the logits of exemplars, which recipe "
            f"{recipe.name!r} does not store; use recipe.extras logits"
        )
    if recipe.level in {"hidden", "features"}:
        strange = sorted({part.name for part in loop.augment} - ON_HIDDEN)
        if recipe.level == "features":
            strange = sorted(part.name for part in loop.augment)
            if loop.stored_form or loop.test_stored_form or config.ranked_form == "stored":
                raise SchemaError(f"recipe {recipe.name!r} stores features: no example can be shown as stored")
        if strange:
            raise SchemaError(f"augmentation {strange[0]!r} needs what recipe {recipe.name!r} does not store")
    if config.prunes:
        pruned_alike = recipe.level == "hidden" or (recipe.image.name == "patches" and recipe.fill.name == "drop")
        if not (pruned_alike and recipe.text.name in SCORELESS and loop.keep_hidden):
            raise SchemaError(
                f"loop.pruned {loop.pruned!r} shows the learner kept tokens only: that needs image hidden, or patches "
                "with fill drop, text all or none, and loop.keep_hidden; choose these, or never"
            )
        if loop.stored_form and loop.stored_masks == "random":
            raise SchemaError("loop.stored_masks 'random' shows other tokens than loop.pruned does; leave out one")
