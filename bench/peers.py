"""How people read such exemplars with Hugging Face `datasets`."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bench.photographs import BATCH, KEPT, PATCH
from exmem import TokenSet

__all__ = ["from_datasets"]


def from_datasets(
    folder: Path, sets: Sequence[TokenSet]
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None:
    """Save values and positions to an Arrow file, return what reads a batch of them; None if it is not installed."""
    if importlib.util.find_spec("datasets") is None:
        return None
    import datasets

    content = {
        "values": [tokens.values.tobytes() for tokens in sets],
        "positions": [tokens.positions.tobytes() for tokens in sets],
    }
    datasets.Dataset.from_dict(content).save_to_disk(folder)
    dataset = datasets.load_from_disk(folder)

    def read(picks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = dataset[picks.tolist()]
        values, places = (b"".join(found[name]) for name in ("values", "positions"))
        shape = BATCH, KEPT, PATCH, PATCH, 3
        return np.frombuffer(values, np.uint8).reshape(shape), np.frombuffer(places, np.int64).reshape(BATCH, KEPT)

    return read
