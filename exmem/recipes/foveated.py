"""Foveated exemplars: fine where the score is high, coarse elsewhere."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exmem.errors import SchemaError
from exmem.recipes.base import exemplars_of
from exmem.recipes.masking import Masking
from exmem.recipes.scales import check_scales, compose_scales, patches_at, scale_codec
from exmem.recipes.whole import resized, restored_picture
from exmem.tokens import Exemplar, Schema, TokenSet, TokenSpec
from exmem.tokens.tensors import TensorBatch

__all__ = ["FoveatedPicture", "FoveatedTokens", "scale_name"]


def scale_name(scale: int, patch: int) -> str:
    """Name the modality that holds the patches of a scale.

    Parameters
    ----------
    scale : int
        Side of a stored patch in pixels.
    patch : int
        Side of a patch of the backbone.

    Returns
    -------
    str
        `image` for the backbone's own scale, else such as `image_7`.
    """
    return "image" if scale == patch else f"image_{scale}"


class FoveatedTokens:
    """One picture as token sets at several scales; each position is held at one of them, or dropped.

    The keep rule says what is stored at the finest scale. The other positions go by falling score to the next scales,
    in the given shares; what is left over is dropped. (How positions are shared out is a choice.)

    Parameters
    ----------
    masking : Masking
        Scores, and says what is kept at the finest scale.
    scales : sequence of int
        Sides of a stored patch in pixels, finest first.
    shares : sequence of float
        For each further scale, its share of the positions that are not at the finest; together at most 1.
    quality : int
        JPEG quality.

    Raises
    ------
    SchemaError
        If scales or shares are out of range.
    """

    passes = 1

    def __init__(self, masking: Masking, *, scales: Sequence[int], shares: Sequence[float], quality: int) -> None:
        check_scales(scales, masking.backbone.patch)
        if len(shares) != len(scales) - 1 or not all(share >= 0 for share in shares) or sum(shares) > 1 + 1e-9:
            raise SchemaError(
                f"expected one share of 0 or more for each of the {len(scales) - 1} coarser scales, together at most "
                f"1, got {list(shares)}"
            )
        self.masking, self.scales, self.shares, self.quality = masking, tuple(scales), tuple(shares), quality

    def schema(self) -> Schema:
        """Return a modality for each scale, and text tokens."""
        backbone = self.masking.backbone
        specs = backbone.token_specs()
        found = {
            scale_name(scale, backbone.patch): TokenSpec(
                positions=specs["image"].positions,
                shape=(scale, scale, 3),
                codec=scale_codec(scale, self.quality),
            )
            for scale in self.scales
        }
        return Schema(found | ({"text": specs["text"]} if self.masking.keeps_text else {}))

    def make(
        self,
        images: NDArray[np.uint8],
        texts: Sequence[str],
        labels: NDArray[np.int64],
        priorities: NDArray[np.float64],
    ) -> list[Exemplar]:
        """Score, and cut at the scales; see `Recipe.make`."""
        backbone, masked, found = self.masking.backbone, self.masking(images, texts, labels), []
        for row, image in enumerate(images):
            level = self._levels(masked.maps.scores["image"][row], masked.keep["image"][row])
            own = {}
            for index, scale in enumerate(self.scales):
                patches = patches_at(image, backbone.grid, scale)
                own[scale_name(scale, backbone.patch)] = TokenSet.kept(patches, level == index)
            found.append(own | ({"text": masked.words(row)} if self.masking.keeps_text else {}))
        return exemplars_of(found, labels, priorities)

    def restore(self, batch: TensorBatch) -> TensorBatch:
        """Put the scales together; see `Recipe.restore`."""
        backbone = self.masking.backbone
        names = {scale_name(scale, backbone.patch): scale for scale in self.scales}
        parts = [(scale, batch.tokens[name]) for name, scale in names.items()]
        tokens = {name: own for name, own in batch.tokens.items() if name not in names}
        tokens["image"] = compose_scales(parts, backbone.grid, backbone.patch)
        return dataclasses.replace(batch, tokens=tokens)

    def _levels(self, scores: NDArray[np.float32], finest: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the index of each position's scale; the number of scales where it is dropped."""
        level = np.full(len(scores), len(self.scales), np.int64)
        level[finest] = 0
        others = np.flatnonzero(~finest)
        others = others[np.argsort(-scores[others], kind="stable")]
        ends = np.round(np.cumsum(self.shares) * len(others)).astype(np.int64).tolist()
        for index, (start, end) in enumerate(zip([0, *ends], ends, strict=False), start=1):
            level[others[start:end]] = index
        return level


class FoveatedPicture:
    """The whole picture in place, fine where tokens are kept and smoothed elsewhere, as one JPEG.

    A codec spends few bits on what is smooth, and none on where the tokens are; so neighbours stay together and nothing
    is padded. Only the codec knows what smoothing saves: on the demo data a budget holds half as many again as of token
    sets at two scales, at about the same accuracy (`bench/report`).

    Parameters
    ----------
    masking : Masking
        Scores, and says where the picture stays fine.
    size : tuple of int
        Height and width that are stored, in pixels.
    coarse : int
        The rest is scaled down by this factor, and up again, before it is encoded.
    quality : int
        JPEG quality.

    Raises
    ------
    SchemaError
        If the factor is below 1 or leaves nothing.
    """

    passes = 1

    def __init__(self, masking: Masking, *, size: tuple[int, int], coarse: int, quality: int) -> None:
        if not 1 <= coarse <= min(size):
            raise SchemaError(f"coarse must be in 1..{min(size)} (the smaller side that is stored), got {coarse}")
        self.masking, self.size, self.coarse, self.quality = masking, size, coarse, quality

    def schema(self) -> Schema:
        """Return one picture, and text tokens."""
        codec = {"id": "patch_jpeg", "quality": self.quality}
        found = {"image": TokenSpec(positions=1, shape=(*self.size, 3), codec=codec)}
        texts = {"text": self.masking.backbone.token_specs()["text"]} if self.masking.keeps_text else {}
        return Schema(found | texts)

    def make(
        self,
        images: NDArray[np.uint8],
        texts: Sequence[str],
        labels: NDArray[np.int64],
        priorities: NDArray[np.float64],
    ) -> list[Exemplar]:
        """Score, and smooth what is not kept; see `Recipe.make`."""
        masked, found = self.masking(images, texts, labels), []
        for row, image in enumerate(images):
            picture = self._foveated(image, masked.keep["image"][row])
            own = {"image": TokenSet.dense(picture[None])}
            found.append(own | ({"text": masked.words(row)} if self.masking.keeps_text else {}))
        return exemplars_of(found, labels, priorities)

    def restore(self, batch: TensorBatch) -> TensorBatch:
        """Scale pictures up and cut them into patches; see `Recipe.restore`."""
        return restored_picture(batch, self.masking.backbone)

    def _foveated(self, image: NDArray[np.uint8], keep: NDArray[np.bool_]) -> NDArray[np.uint8]:
        height, width = self.size
        fine = resized(image, self.size)
        smooth = resized(resized(fine, (height // self.coarse, width // self.coarse)), self.size)
        rows, columns = self.masking.backbone.grid
        kept = keep.reshape(rows, columns)[np.arange(height) * rows // height][:, np.arange(width) * columns // width]
        return np.where(kept[..., None], fine, smooth)
