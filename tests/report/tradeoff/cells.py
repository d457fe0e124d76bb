"""A cell for tests that run none."""

from exmem.report.tradeoff.cells import Cell
from exmem.train.config import TrainConfig


def cell(**changes):
    """A probe of half_jpeg; nothing of it is real."""
    names = {"kind": "probe", "data": "own", "recipe": "half_jpeg", "method": "default", "budget": "20 kB", "seed": 0}
    config = TrainConfig(max_bytes="20000").to_json()
    return Cell(**{**names, "folder": "nowhere", "keys": ("train", "test"), "config": config, **changes})
