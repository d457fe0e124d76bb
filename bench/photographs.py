"""Masked photographs, and memories of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec
from exmem.codecs import PayloadCodec, get_codec
from tests.exemplars import patches

__all__ = ["BATCH", "COUNT", "GRID", "KEPT", "PATCH", "SPEC", "fill", "masked"]

GRID, PATCH, BATCH, COUNT = 12, 32, 64, 256
KEPT = 58  # 40 % of 144
SPEC = TokenSpec(positions=GRID * GRID, shape=(PATCH, PATCH, 3), codec="patch_jpeg")


def masked(seed: int, *, grid: int = GRID, patch: int = PATCH, kept: int = KEPT) -> TokenSet:
    """Some patches of a crop."""
    keep = np.zeros(grid * grid, np.bool_)
    keep[np.random.default_rng(seed).choice(grid * grid, kept, replace=False)] = True
    return TokenSet.kept(patches(seed, grid=grid, patch=patch), keep)


def fill(
    folder: Path, codec: str, *, given: Sequence[Exemplar] = (), max_bytes: str = "64MB"
) -> tuple[Sequence[Exemplar], PayloadCodec, list[bytes]]:
    """256 exemplars: 384 px crops of photographs, 32 px patches, 40 % kept; them, the bare codec and its payloads."""
    spec = TokenSpec(positions=SPEC.positions, shape=SPEC.shape, codec=codec)
    given = given or [Exemplar({"image": masked(seed)}, label=seed % 10) for seed in range(COUNT)]
    with ExemplarMemory.create(
        folder, schema=Schema({"image": spec}), max_bytes=max_bytes, threads=2, durable=False
    ) as memory:
        memory.add(given)
        assert len(memory) == len(given)
    bare = get_codec(spec.codec, shape=spec.shape, dtype=spec.dtype)
    return given, bare, [bare.encode(exemplar.tokens["image"].values) for exemplar in given]
