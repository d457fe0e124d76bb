"""The recipe that a configuration names."""

from exmem.backbones import Backbone
from exmem.masking import get_keep_rule, get_scorer, get_text_rule
from exmem.recipes import MaskedTokens, Recipe, WholePicture
from exmem.train.config import TrainConfig

__all__ = ["make_recipe"]


def make_recipe(config: TrainConfig, backbone: Backbone) -> Recipe | None:
    """Make the recipe of a run.

    Parameters
    ----------
    config : TrainConfig
        Names it.
    backbone : Backbone
        The backbone.

    Returns
    -------
    Recipe or None
        None for `none`: no memory.
    """
    jpeg = {"id": "patch_jpeg", "quality": config.quality}
    size = backbone.image_size
    if config.recipe == "none":
        return None
    if config.recipe == "raw":
        return WholePicture(backbone, side=size, codec="raw")
    if config.recipe == "jpeg":
        return WholePicture(backbone, side=size, codec=jpeg)
    if config.recipe == "half_jpeg":
        return WholePicture(backbone, side=size // 2, codec=jpeg)
    options = {"layers": config.score_layers} if config.scorer == "cls_attention" else {"seed": config.seed}
    rule = {"k": config.keep_patches} if config.keep_rule == "top_k" else {}
    return MaskedTokens(
        backbone,
        scorer=get_scorer(config.scorer, **options),
        keep_rule=get_keep_rule(config.keep_rule, **rule),
        text_rule=get_text_rule(config.text_rule),
        quality=config.quality,
    )
