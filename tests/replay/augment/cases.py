"""Batches of real crops, 32 x 64 pixels, at three scales with a text; and an option set for every augmentation."""

import numpy as np
import torch

from exmem import TokenSet
from exmem.replay.augment import AUGMENTATIONS
from exmem.tokens import PaddedTokens
from exmem.tokens.patches import cut_patches
from exmem.tokens.tensors import TensorBatch, TokenTensors
from tests.exemplars import crop

GRIDS = {"image": (4, 8), "coarse": (2, 4), "whole": (1, 1)}
SIDES = {"image": 8, "coarse": 16}
TEXT, SPECIAL = 10, (1, 2)
OPTIONS = {
    "colour_jitter": {},
    "flip": {"grids": GRIDS},
    "image_exchange": {},
    "patch_paste": {"ratio": 0.6},
    "text_exchange": {},
    "token_dropout": {"modalities": ("image", "text", "whole"), "protected_ids": SPECIAL, "probability": 0.5},
}


def made(name, **options):
    return AUGMENTATIONS.make(name, **(OPTIONS[name] | options))


def image_of(seed):
    return crop(seed, 64)[:32]


def padded(sets):
    """Token sets as one padded modality."""
    width = max(map(len, sets))
    values = np.zeros((len(sets), width, *sets[0].values.shape[1:]), sets[0].values.dtype)
    positions, keep = np.zeros((len(sets), width), np.int64), np.zeros((len(sets), width), np.bool_)
    for row, tokens in enumerate(sets):
        count = len(tokens)
        values[row, :count], positions[row, :count], keep[row, :count] = tokens.values, tokens.positions, True
    return TokenTensors.from_numpy(PaddedTokens(values, positions, keep))


def token_set(seed, name, *, whole=False):
    rng = np.random.default_rng([seed, len(name)])
    if name == "whole":
        return TokenSet.dense(image_of(seed)[None])
    if name == "text":
        dense = rng.integers(0, 8, TEXT).astype(np.int32)
    else:
        dense = cut_patches(image_of(seed)[None], SIDES[name])[0]
    count = len(dense) if whole else int(rng.integers(0, len(dense) + 1))
    positions = np.sort(rng.choice(len(dense), count, replace=False))
    return TokenSet(positions, dense[positions])


def with_unknown(tokens, seed):
    unknown = torch.rand(tokens.valid.shape, generator=torch.Generator().manual_seed(seed)) < 0.3
    unknown &= tokens.valid
    values = tokens.values.masked_fill(unknown[:, :, None, None, None], 0)
    return TokenTensors(values, tokens.positions, tokens.valid, unknown)


def batch(seeds, labels, *, names=("image", "coarse", "whole", "text"), unknown=False, whole=False):
    tokens = {name: padded([token_set(seed, name, whole=whole) for seed in seeds]) for name in names}
    if unknown and "image" in tokens:
        tokens["image"] = with_unknown(tokens["image"], seeds[0])
    return TensorBatch(tokens, torch.tensor(labels), {"task": torch.tensor(seeds)})


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def contents(tokens, row):
    """Position -> bytes of the value, and whether it is known."""
    unknown = torch.zeros_like(tokens.valid) if tokens.unknown is None else tokens.unknown
    kept = tokens.valid[row]
    return {
        int(position): (value.numpy().tobytes(), bool(hidden))
        for position, value, hidden in zip(
            tokens.positions[row][kept], tokens.values[row][kept], unknown[row][kept], strict=True
        )
    }
