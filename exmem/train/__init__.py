"""The reference incremental trainer."""

from exmem.train.config import TrainConfig

__all__ = ["TrainConfig"]
