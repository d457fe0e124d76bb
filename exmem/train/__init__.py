"""The reference incremental trainer."""

from exmem.train.config import RecipeName, TrainConfig

__all__ = ["RecipeName", "TrainConfig"]
