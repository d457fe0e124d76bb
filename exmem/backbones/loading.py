"""What is loaded from a hub name or a local folder."""

import os
from typing import Any

from exmem.errors import DataError

__all__ = ["pixel_statistics", "pretrained"]

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pretrained(kind: Any, name: str | os.PathLike[str], **options: Any) -> Any:
    """Load a model or tokenizer of transformers; DataError if the name or folder holds nothing of that kind."""
    try:
        return kind.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name}: expected a hub name or a local folder that {kind.__name__} can load, got: {reason}"
        ) from error


def pixel_statistics(name: str | os.PathLike[str]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of pixels 0..1 by a model's own preprocessing, else those of ImageNet."""
    from transformers import ImageProcessingMixin

    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(str(name))
        return tuple(settings["image_mean"]), tuple(settings["image_std"])
    except (OSError, KeyError):
        return _IMAGENET
