"""What is loaded from a hub name or a local folder."""

import os
from typing import Any

from exmem.errors import DataError

__all__ = ["pixel_statistics", "pretrained"]

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pretrained(kind: Any, name: str | os.PathLike[str], **options: Any) -> Any:
    """Load a model or tokenizer of transformers.

    Parameters
    ----------
    kind : type
        A class with `from_pretrained`.
    name : str or path
        Hub name or local folder.
    **options : object
        Options of `from_pretrained`.

    Returns
    -------
    object
        What was loaded.

    Raises
    ------
    DataError
        If there is nothing of that kind.
    """
    try:
        return kind.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name}: expected a hub name or a local folder that {kind.__name__} can load, got: {reason}"
        ) from error


def pixel_statistics(name: str | os.PathLike[str]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation that a model's own preprocessing uses, else those of ImageNet.

    Parameters
    ----------
    name : str or path
        Hub name or local folder.

    Returns
    -------
    mean : tuple of float
        One value per channel, for pixels 0..1.
    std : tuple of float
        One value per channel.
    """
    from transformers import ImageProcessingMixin

    try:
        found, _ = ImageProcessingMixin.get_image_processor_dict(str(name))
        return tuple(found["image_mean"]), tuple(found["image_std"])
    except (OSError, KeyError):
        return _IMAGENET
