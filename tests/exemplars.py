"""Real exemplars for tests: patches of two photographs, with made-up text."""

import functools
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exmem import Exemplar, ExtraSpec, Schema, TokenSet, TokenSpec

GRID, PATCH, TEXT = 4, 16, 12


@functools.cache
def photographs() -> list[NDArray[np.uint8]]:
    """The two photographs that scikit-learn carries, (427, 640, 3) uint8 each."""
    from sklearn.datasets import load_sample_images  # takes a second, and many processes need no photograph

    return [np.asarray(image) for image in load_sample_images().images]


def crop(seed: int, side: int) -> NDArray[np.uint8]:
    """A square of a photograph."""
    rng = np.random.default_rng(seed)
    photo = photographs()[seed % 2]
    top, left = (int(rng.integers(0, length - side + 1)) for length in photo.shape[:2])
    return photo[top : top + side, left : left + side].copy()


def patches(seed: int, *, grid: int = GRID, patch: int = PATCH) -> NDArray[np.uint8]:
    """All patches of a crop, (grid * grid, patch, patch, 3) uint8."""
    tiles = crop(seed, grid * patch).reshape(grid, patch, grid, patch, 3)
    return np.ascontiguousarray(tiles.transpose(0, 2, 1, 3, 4)).reshape(-1, patch, patch, 3)


def schema(codec: str = "patch_jpeg") -> Schema:
    return Schema(
        {
            "image": TokenSpec(positions=GRID * GRID, shape=(PATCH, PATCH, 3), codec=codec),
            "text": TokenSpec(positions=TEXT, dtype="int32"),
        },
        {"task": ExtraSpec(dtype="int16"), "embedding": ExtraSpec(shape=(4,), dtype="float32")},
    )


def exemplar(seed: int, *, label: int = 0, priority: float = 0.0, kept: int | None = None) -> Exemplar:
    rng = np.random.default_rng(1000 + seed)
    count = int(rng.integers(1, GRID * GRID + 1)) if kept is None else kept
    image = np.sort(rng.choice(GRID * GRID, count, replace=False))
    text = np.sort(rng.choice(TEXT, int(rng.integers(0, TEXT + 1)), replace=False))
    return Exemplar(
        {
            "image": TokenSet(image, patches(seed)[image]),
            "text": TokenSet(text, rng.integers(0, 30_000, len(text)).astype(np.int32)),
        },
        label=label,
        priority=priority,
        extras={"task": np.int16(seed % 100), "embedding": rng.normal(size=4).astype(np.float32)},
    )


def folder_bytes(path: Path) -> int:
    """Bytes as the file system counts them: the sizes of all files below a folder."""
    total, folders = 0, [os.fspath(path)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            continue
    return total


def assert_same(found: Exemplar, expected: Exemplar, *, exact: bool = True) -> None:
    assert found.label == expected.label
    assert found.priority == expected.priority
    assert set(found.tokens) == set(expected.tokens)
    for name, tokens in expected.tokens.items():
        np.testing.assert_array_equal(found.tokens[name].positions, tokens.positions)
        if exact:
            np.testing.assert_array_equal(found.tokens[name].values, tokens.values)
    for name, value in expected.extras.items():
        np.testing.assert_array_equal(found.extras[name], value)
