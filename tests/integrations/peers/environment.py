"""What the peers need before they are imported, and where their sources are."""

import os
from pathlib import Path
from typing import Any

from torch import library

__all__ = ["peer_source", "prepare"]

_kept: list[Any] = []


def prepare() -> None:
    """Let torchvision be imported beside a torch that was built for CPUs, by defining the operators that it expects."""
    if _kept:
        return
    operators = library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(operators)  # they go with it


def peer_source(name: str) -> Path | None:
    """The folder of a peer's source in that of the environment variable EXMEM_PEERS; None where it is missing."""
    folder = Path(os.environ.get("EXMEM_PEERS", "")) / name
    return folder if os.environ.get("EXMEM_PEERS") and folder.is_dir() else None
