"""A batch of exemplars as a model sees them."""

import dataclasses
import math

from torch import Tensor

from exmem.errors import SchemaError
from exmem.recipes import FILLS, FillContext
from exmem.replay.augment.base import is_image
from exmem.tokens.patches import join_patches
from exmem.tokens.tensors import TensorBatch

__all__ = ["ReplayBatch"]


@dataclasses.dataclass(frozen=True, eq=False)
class ReplayBatch(TensorBatch):
    """Restored exemplars: what a backbone of sparse tokens eats, and `images` for those who have a CNN.

    Parameters
    ----------
    tokens : mapping of str to TokenTensors
        One entry per modality; `image` holds patches of the frame.
    labels : Tensor, shape (B,), int64
        Classes.
    extras : mapping of str to Tensor, shape (B, ...)
        Extra fields.
    priorities : Tensor, shape (B,), float64, optional
        Ranks within the class.
    slots : Tensor, shape (B,), int64, optional
        Their slots: for `memory.update`.
    layer : int, optional
        Blocks that the image tokens went through; None for patches.
    grid : tuple of int, optional
        Rows and columns of patches; None where the memory holds no images, or does not say where patches stand.
    """

    grid: tuple[int, int] | None = None

    def images(self, fill: str = "mean") -> Tensor:
        """Return whole images.

        Parameters
        ----------
        fill : str
            What stands where patches were dropped, a key of `FILLS` that gives them a value: mean, zero or thumbnail;
            nothing where the loader filled them already.

        Returns
        -------
        Tensor, shape (B, 3, H, W), uint8
            The images, channels first.

        Raises
        ------
        SchemaError
            If there are no images, or the fill leaves patches without a value.
        """
        if "image" not in self.tokens:
            raise SchemaError(f"expected image patches, got {sorted(self.tokens)}; this memory holds no images")
        if self.layer is not None:
            raise SchemaError("this memory holds hidden tokens, not pixels; a backbone takes them: backbone(batch)")
        if self.grid is None or not is_image(self.tokens["image"]):
            shape = tuple(self.tokens["image"].values.shape[2:])
            raise SchemaError(
                f"expected image patches (h, w, 3) on a grid, got tokens of shape {shape}, grid {self.grid}; give the "
                "TokenSpec a grid=(rows, columns)"
            )
        length, fill_dropped, image = math.prod(self.grid), FILLS[fill], self.tokens["image"]
        if image.valid.shape[1] != length or not bool(image.valid.all()):
            image = fill_dropped(self, FillContext(length=length, grid=self.grid)).tokens["image"]
        if image.valid.shape[1] != length or not bool(image.valid.all()) or image.unknown is not None:
            raise SchemaError(f"fill {fill!r} leaves patches without a value; choose mean, zero or thumbnail")
        images: Tensor = join_patches(image.values, self.grid).permute(0, 3, 1, 2)
        return images
