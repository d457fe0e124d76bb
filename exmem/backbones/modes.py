"""Training and evaluation mode of modules whose weights are frozen in part."""

import contextlib
from collections.abc import Iterator

from torch import nn

__all__ = ["evaluating", "keep_frozen_still"]


def keep_frozen_still(module: nn.Module) -> None:
    """Put modules all of whose weights are frozen into evaluation: dropout there would change what was stored."""
    weights = [*module.parameters()]
    if not weights:
        return
    if not any(weight.requires_grad for weight in weights):
        for part in module.modules():
            part.training = False
        return
    for child in module.children():
        keep_frozen_still(child)


@contextlib.contextmanager
def evaluating(model: object) -> Iterator[None]:
    """Have a model in evaluation for a while, if it is a module; each part of it is then as it was."""
    modes = [(part, part.training) for part in model.modules()] if isinstance(model, nn.Module) else []
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
