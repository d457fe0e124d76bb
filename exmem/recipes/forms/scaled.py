"""The whole image at a part of its size."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from exmem.errors import SchemaError
from exmem.recipes.forms.contract import Form
from exmem.recipes.frame import Frame
from exmem.recipes.scoring import Masked
from exmem.tokens import TokenSet, TokenSpec
from exmem.tokens.checks import real_number
from exmem.tokens.patches import cut_patches
from exmem.tokens.tensors import TokenTensors, upsampled

__all__ = ["Scaled", "part_of_size", "resized", "whole_image"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaled(Form):
    """The whole image, smaller.

    Parameters
    ----------
    divisor : float
        Its sides are divided by this, 1 or more, and rounded.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"codec"})
    divisor: float = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(real_number(self.divisor, "divisor")) and self.divisor >= 1):
            raise SchemaError(f"divisor must be 1 or more, got {self.divisor}")

    @override
    def specs(self, frame: Frame, codec: Mapping[str, Any]) -> dict[str, TokenSpec]:
        return {"image": TokenSpec(positions=1, shape=(*part_of_size(frame, self.divisor), 3), codec=codec)}

    @override
    def make(
        self, image: NDArray[np.uint8], masked: Masked, row: int, *, frame: Frame, codec: Mapping[str, Any]
    ) -> dict[str, TokenSet]:
        return {"image": TokenSet.dense(resized(image, part_of_size(frame, self.divisor))[None])}

    @override
    def restore(self, tokens: Mapping[str, TokenTensors], frame: Frame) -> dict[str, TokenTensors]:
        return {**tokens, "image": whole_image(tokens["image"], frame)}


def part_of_size(frame: Frame, divisor: float) -> tuple[int, int]:
    """Return height and width of a whole image, divided and rounded; SchemaError if nothing is left."""
    height, width = (round(side / divisor) for side in frame.size)
    if min(height, width) < 1:
        raise SchemaError(f"divisor {divisor:g} leaves nothing of images of {frame.size[0]} x {frame.size[1]}")
    return height, width


def whole_image(tokens: TokenTensors, frame: Frame) -> TokenTensors:
    """Scale images, the only token of each row, up to the frame and cut them into its patches."""
    return TokenTensors.dense(cut_patches(upsampled(tokens.values, frame.size)[:, 0], frame.patch))


def resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale an image (H, W, 3) to a height and width, bicubic; the same one where the size is its own."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
