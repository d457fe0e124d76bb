"""Recipes that store what a backbone made of an example: of which layer, of which weights, and how it is made."""

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from exmem.backbones import Backbone, Hidden
from exmem.backbones.blocks import scaled
from exmem.errors import SchemaError
from exmem.recipes.frame import Frame
from exmem.recipes.plain import PlainImages
from exmem.recipes.recipe import Recipe
from exmem.recipes.scoring import Masked
from exmem.tokens.tensors import TensorBatch

__all__ = ["at_level", "frame_of", "pruned", "weights_key"]


def frame_of(recipe: Recipe, backbone: Backbone | PlainImages) -> Frame | None:
    """Return what the stored images of a recipe become; None where it stores none.

    SchemaError if a backbone is needed, or this one cannot replay what is stored.
    """
    if recipe.level == "none":
        return None
    frame = Frame(grid=backbone.grid, patch=backbone.patch)
    if recipe.level == "pixels":
        return frame
    if isinstance(backbone, PlainImages):
        raise SchemaError(f"recipe {recipe.name!r} stores what a backbone makes of images; bind it to one")
    if recipe.level == "features":
        if "features" in recipe.extras:
            raise SchemaError(f"recipe {recipe.name!r} stores features already; leave them out of the extras")
        return dataclasses.replace(frame, features=backbone.feature_dim)
    if backbone.num_prefix is None or not backbone.text_is_separate:
        raise SchemaError(
            f"recipe {recipe.name!r} stores hidden tokens of images, and {type(backbone).__name__} has no tower for "
            "images alone; use joint, vit, dinov2, clip or siglip, or a recipe of pixels or features"
        )
    most, layer = backbone.first_tuned_layer, recipe.image.kwargs.get("layer")
    if layer is not None and layer > most:
        raise SchemaError(f"image 'hidden:layer={layer}': the blocks from {most} on are tuned; choose at most {most}")
    layer = most if layer is None else layer
    return dataclasses.replace(frame, layer=layer, prefix=backbone.num_prefix, width=backbone.width)


def weights_key(backbone: Backbone, frame: Frame) -> str:
    """Name the weights that made what is stored, all of them for features, those below the layer for hidden tokens.

    And how pixels were normalised, and for features how many tokens of a text are seen.
    """
    seen = [*backbone.pixel_mean.tolist(), *backbone.pixel_std.tolist()]  # what pixels are before the first weight
    seen += [backbone.max_text] if frame.features else []
    digest = hashlib.blake2b(json.dumps(seen).encode(), digest_size=8)
    weights = backbone.state_dict() if frame.features else backbone.trunk_weights(frame.layer or 0)
    for name, tensor in sorted(weights.items()):
        other = weights.get(name.replace("lora_A", "lora_B"))
        if "lora_" in name and (other is None or not other.any()):
            continue  # an adapter that changes nothing yet
        digest.update(f"{name.replace('.base_layer', '')} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.inference_mode()
def at_level(
    recipe: Recipe,
    frame: Frame | None,
    backbone: Any,
    masked: Masked,
    *,
    hidden: Hidden | None,
    features: NDArray[Any] | None,
) -> Masked:
    """Add what the form of a recipe stores besides patches: hidden tokens that are kept, or features.

    `hidden` and `features` are what is known of the batch: its tokens above all frozen blocks, its features.
    """
    if frame is None or recipe.level == "pixels":
        return masked
    if recipe.level == "features" and features is not None:
        return masked._replace(features=features)
    known = hidden if hidden is not None else masked.maps.hidden
    batch = TensorBatch.from_numpy(masked.tokens)
    if recipe.level == "features":
        encoded = backbone.encode(backbone.embed(batch) if known is None else known)
        return masked._replace(features=scaled(encoded).cpu().float().numpy())
    if known is None or frame.layer != backbone.first_tuned_layer:
        known = backbone.embed(batch, until=frame.layer)
    return masked._replace(hidden=pruned(recipe, known.to("cpu"), masked.keep["image"], masked.maps.scores["image"]))


def pruned(recipe: Recipe, hidden: Hidden, keep: NDArray[np.bool_], scores: NDArray[np.float32]) -> Hidden:
    """Drop the image tokens that are not kept, or fuse them where the recipe says so; keep and scores (B, L)."""
    fused_by = torch.from_numpy(scores) if recipe.image.kwargs.get("fuse") else None
    return hidden.pruned(torch.from_numpy(keep), fused_by=fused_by)
