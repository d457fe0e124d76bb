"""The reference incremental trainer."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exmem.train.config import TrainConfig

__all__ = ["TrainConfig"]


def __getattr__(name: str) -> Any:
    """Import the configuration, which needs torch, when it is asked for: reading data needs none."""
    if name == "TrainConfig":
        from exmem.train.config import TrainConfig

        return TrainConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
