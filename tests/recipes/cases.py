"""Recipes as configurations make them, backbones that they are tried on, and pictures."""

import numpy as np
import torch
from exmem.train.making import make_recipe
from PIL import Image

from exmem import TokenBatch
from exmem.masking import KEEP_RULES, TEXT_RULES, ScoreMaps
from exmem.masking.scorers import CentreScores
from exmem.recipes import Masking
from exmem.tokens.tensors import TensorBatch
from exmem.train.config import TrainConfig
from tests.backbones.models import load
from tests.exemplars import photographs

SIZE, PATCH, LENGTH = (32, 48), 8, 24
TEXTS = ["temple roof red", "leaf", "flower leaf red roof temple", ""]
LABELS = np.array([3, 5, 3, 4])
PRIORITIES = np.array([0.0, -1.0, -2.0, -3.0])

RECIPES = {
    "masked": {},
    "masked, thumbnail": {"recipe": "masked", "fill": "thumbnail", "thumbnail": 12},
    "masked, fit_bytes": {"recipe": "masked", "keep_rule": "fit_bytes", "exemplar_bytes": 300},
    "foveated": {},
    "foveated, a part dropped": {"recipe": "foveated", "scale_factors": (1, 4), "scale_shares": (0.5,)},
    "foveated, all coarse": {"recipe": "foveated", "scale_factors": (2, 4), "scale_shares": (1.0,)},
    "foveated_picture": {},
    "rate_aware": {"exemplar_bytes": 120},
    "jpeg": {},
    "half_jpeg": {},
    "third_jpeg": {},
    "quarter_jpeg": {},
    "raw": {},
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


def config(**options):
    return TrainConfig(**({"first_classes": 2, "increments": (1,), "quality": 90} | options))


def recipe_of(name, backbone, **more):
    return make_recipe(config(**({"recipe": name} | RECIPES[name] | more)), backbone)


def fits(name, backbone):
    """Whether a backbone sees what a recipe stores."""
    return ("text" if name == "text" else "image") in backbone.token_specs()


def pictures(size=SIZE, count=4):
    """Parts of two photographs, scaled so that they show things rather than a smear."""
    height, width = size
    found = []
    for seed in range(count):
        part = photographs()[seed % 2][150 + 20 * seed : 400, 100 + 50 * seed : 500 + 40 * seed]
        found.append(np.asarray(Image.fromarray(part).resize((width, height), Image.Resampling.BICUBIC)))
    return np.stack(found)


def smooth(size=SIZE, count=4):
    """The same without what is finer than four pixels."""
    height, width = size
    small = [Image.fromarray(one) for one in pictures((height // 4, width // 4), count)]
    return np.stack([np.asarray(one.resize((width, height), Image.Resampling.BICUBIC)) for one in small])


def made(recipe, images=None, rows=slice(None)):
    images = pictures() if images is None else images
    return recipe.make(images[rows], TEXTS[rows], LABELS[rows], PRIORITIES[rows])


def restored(recipe, exemplars):
    """Tokens of the backbone, without a memory between."""
    return recipe.restore(TensorBatch.from_numpy(TokenBatch.of(exemplars)))


def psnr(found, expected):
    """Peak signal-to-noise ratio in dB of uint8 values."""
    error = np.mean((np.asarray(found, np.float64) - np.asarray(expected, np.float64)) ** 2)
    return np.inf if error == 0 else 10 * np.log10(255**2 / error)


class FixedScores:
    """Image scores that are given, the same for each row; texts as the centre scores say."""

    def __init__(self, scores):
        self.scores = np.asarray(scores, np.float32)

    def __call__(self, model, batch):
        found = CentreScores()(model, batch)
        image = np.broadcast_to(self.scores, found.scores["image"].shape).copy()
        return ScoreMaps({**found.scores, "image": image}, found.valid, found.text_to_image, found.image_to_text)


def masking_of(backbone, scores, *, keep_rule="mean_threshold", text_rule="all", **options):
    return Masking(
        backbone,
        scorer=FixedScores(scores) if isinstance(scores, list | np.ndarray) else scores,
        keep_rule=KEEP_RULES.make(keep_rule, **options),
        text_rule=None if text_rule is None else TEXT_RULES.make(text_rule),
    )


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
