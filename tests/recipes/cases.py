"""Recipes that are tried, backbones that they are tried on, and images."""

import dataclasses

import numpy as np
import torch
from PIL import Image

from exmem import TokenBatch
from exmem.masking import ScoreMaps
from exmem.masking.scorers import CentreScores
from exmem.recipes import BoundRecipe, Recipe
from exmem.tokens.tensors import TensorBatch
from tests.backbones.models import load
from tests.exemplars import photographs

SIZE, PATCH, LENGTH = (32, 48), 8, 24
TEXTS = ["temple roof red", "leaf", "flower leaf red roof temple", ""]
LABELS = np.array([3, 5, 3, 4])
PRIORITIES = np.array([0.0, -1.0, -2.0, -3.0])

FINE = "patch_jpeg:quality=90"
SCORED = {"scorer": "cls_attention:layers=[-2]", "keep": "top_k:k=8"}  # these backbones have three layers
RECIPES = {
    "masked": {},
    "masked, thumbnail": {"image": "patches:thumbnail=12", "fill": "thumbnail"},
    "masked, fit_bytes": {"keep": "fit_bytes:max_bytes=300"},
    "foveated": {},
    "foveated, a part dropped": {"image": "scales:factors=[1,4],shares=[0.5]"},
    "foveated, all coarse": {"image": "scales:factors=[2,4],shares=[1.0]"},
    "smoothed": {},
    "rate_aware": {"image": "rate:max_bytes=120"},
    "jpeg": {},
    "half_jpeg": {},
    "third_jpeg": {},
    "quarter_jpeg": {},
    "raw": {"codec": "raw"},
    "hidden": {"codec": "float16", **SCORED},
    "hidden, fused": {"image": "hidden:fuse=true", "codec": "int8", **SCORED},
    "hidden, of a lower layer": {"image": "hidden:layer=0", "codec": "lossless", **SCORED},
    "features": {"codec": "lossless"},
    "text": {},
}
PARTIAL = ("masked", "masked, thumbnail", "masked, fit_bytes", "foveated, a part dropped", "rate_aware")


def restricted(backbone, *modalities):
    backbone.restrict(*modalities)
    return backbone


FORMS = {
    "joint": lambda written: load("joint", written["joint"], size=SIZE),
    "joint of images": lambda written: restricted(load("joint", written["joint"], size=SIZE), "image"),
    "joint of texts": lambda written: restricted(load("joint", written["joint"], size=SIZE), "text"),
    "vilt": lambda written: load("vilt", written["vilt"], size=SIZE),
    "clip": lambda written: load("clip", written["clip"], size=SIZE),
    "vit": lambda written: load("vit", written["vit"], size=SIZE),
    "bert": lambda written: load("bert", written["bert"], size=SIZE),
}


def recipe_of(name, **changes):
    """A recipe of this table, its pixels, where it stores some, at a high quality, with other parts."""
    recipe = Recipe.of(name.split(",")[0])
    return recipe.refined(**(({"codec": FINE} if recipe.level == "pixels" else {}) | RECIPES[name] | changes))


def bound_of(name, backbone, **changes):
    return BoundRecipe(recipe_of(name, **changes), backbone)


def sharpest(name):
    """Changes that let a form keep what a smooth image holds."""
    form = recipe_of(name).image
    more = {"rate": {"qualities": [90]}, "smoothed": {"coarse": 2}}.get(form.name, {})
    return {"image": {"name": form.name, **form.kwargs, **more}}


def fits(name, backbone):
    """Whether a backbone sees what a recipe stores, and has a tower for images alone if it stores hidden tokens."""
    level = recipe_of(name).level
    tower = level != "hidden" or backbone.num_prefix is not None
    return level == "features" or (tower and ("text" if name == "text" else "image") in backbone.token_specs())


def images_of(size=SIZE, count=4):
    """Parts of two photographs, scaled so that they show things rather than a smear."""
    height, width = size
    images = []
    for seed in range(count):
        crop = photographs()[seed % 2][150 + 20 * seed : 400, 100 + 50 * seed : 500 + 40 * seed]
        images.append(np.asarray(Image.fromarray(crop).resize((width, height), Image.Resampling.BICUBIC)))
    return np.stack(images)


def smooth(size=SIZE, count=4):
    """The same without what is finer than four pixels."""
    height, width = size
    small = [Image.fromarray(one) for one in images_of((height // 4, width // 4), count)]
    return np.stack([np.asarray(one.resize((width, height), Image.Resampling.BICUBIC)) for one in small])


def made(bound, images=None, rows=slice(None)):
    images = images_of() if images is None else images
    return bound.make(images[rows], TEXTS[rows], LABELS[rows], PRIORITIES[rows])


def restored(bound, exemplars):
    """Tokens of the backbone, without a memory between."""
    return bound.restore(TensorBatch.from_numpy(TokenBatch.of(exemplars)))


def psnr(found, expected):
    """Peak signal-to-noise ratio in dB of uint8 values."""
    error = np.mean((np.asarray(found, np.float64) - np.asarray(expected, np.float64)) ** 2)
    return np.inf if error == 0 else 10 * np.log10(255**2 / error)


class FixedScores:
    """Image scores that are given, the same for each row; texts as the centre scores say."""

    def __init__(self, scores):
        self.scores = np.asarray(scores, np.float32)

    def __call__(self, model, batch, *, hidden=None):
        maps = CentreScores()(model, batch)
        image = np.broadcast_to(self.scores, maps.scores["image"].shape).copy()
        return ScoreMaps({**maps.scores, "image": image}, maps.valid, maps.text_to_image, maps.image_to_text)


def scored(bound, scores):
    """The same recipe with image scores that are given."""
    bound.masking = dataclasses.replace(bound.masking, scorer=FixedScores(scores))
    return bound


def rows_of(batch):
    """Each row of a tensor batch without padding, as arrays by modality."""
    return [
        {
            name: (tokens.positions[row][tokens.valid[row]].numpy(), tokens.values[row][tokens.valid[row]].numpy())
            for name, tokens in batch.tokens.items()
        }
        for row in range(len(batch))
    ]


def assert_packed(tokens):
    """Kept tokens are in front with increasing positions; padding is zero; no column is padding alone."""
    counts = tokens.valid.sum(1)
    assert torch.equal(tokens.valid, torch.arange(tokens.valid.shape[1]) < counts[:, None])
    assert tokens.valid.shape[1] == int(counts.max())
    for row, count in enumerate(counts.tolist()):
        assert (tokens.positions[row, :count].diff() > 0).all()
        assert not tokens.positions[row, count:].any()
        assert not tokens.values[row, count:].any()
