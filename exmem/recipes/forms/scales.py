"""Image tokens at several scales: fine where the score is high, coarse elsewhere."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from exmem.errors import SchemaError
from exmem.recipes.forms.composing import (
    check_factors,
    compose_scales,
    patch_sides,
    patches_at,
    scale_codec,
    scale_name,
)
from exmem.recipes.forms.contract import Form
from exmem.recipes.frame import Frame
from exmem.recipes.scoring import Masked
from exmem.tokens import TokenSet, TokenSpec
from exmem.tokens.checks import real_number
from exmem.tokens.tensors import TokenTensors

__all__ = ["Scales"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scales(Form):
    """One image as token sets at several scales; each position is held at one of them, or dropped.

    The keep rule says what is stored at the finest scale. The other positions go by falling score to the next scales,
    in the given shares; what is left over is dropped. (How positions are shared out is a choice.)

    Parameters
    ----------
    factors : tuple of int
        The side of a patch is divided by these, finest first.
    shares : tuple of float
        For each further scale, its share of the positions that are not at the finest; together at most 1.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"codec", "fill", "keep", "scorer"})
    factors: tuple[int, ...] = (1, 2, 4)
    shares: tuple[float, ...] = (0.5, 0.5)

    def __post_init__(self) -> None:
        shares = [real_number(share, "each share") for share in self.shares]
        check_factors(self.factors)
        if len(shares) != len(self.factors) - 1 or not all(share >= 0 for share in shares) or sum(shares) > 1 + 1e-9:
            raise SchemaError(
                f"expected one share of 0 or more for each of the {len(self.factors) - 1} coarser scales, together at "
                f"most 1, got {list(shares)}"
            )

    @override
    def specs(self, frame: Frame, codec: Mapping[str, Any]) -> dict[str, TokenSpec]:
        return {
            scale_name(side, frame.patch): TokenSpec(
                grid=frame.grid, shape=(side, side, 3), codec=scale_codec(side, codec)
            )
            for side in patch_sides(self.factors, frame.patch)
        }

    @override
    def make(
        self, image: NDArray[np.uint8], masked: Masked, row: int, *, frame: Frame, codec: Mapping[str, Any]
    ) -> dict[str, TokenSet]:
        level = self._levels(masked.maps.scores["image"][row], masked.keep["image"][row])
        return {
            scale_name(side, frame.patch): TokenSet.kept(patches_at(image, frame.grid, side), level == index)
            for index, side in enumerate(patch_sides(self.factors, frame.patch))
        }

    @override
    def restore(self, tokens: Mapping[str, TokenTensors], frame: Frame) -> dict[str, TokenTensors]:
        sides = {scale_name(side, frame.patch): side for side in patch_sides(self.factors, frame.patch)}
        restored = {name: values for name, values in tokens.items() if name not in sides}
        layers = [(side, tokens[name]) for name, side in sides.items()]
        return {**restored, "image": compose_scales(layers, frame.grid, frame.patch)}

    def _levels(self, scores: NDArray[np.float32], finest: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the index of each position's scale; the number of scales where it is dropped."""
        level = np.full(len(scores), len(self.factors), np.int64)
        level[finest] = 0
        others = np.flatnonzero(~finest)
        others = others[np.argsort(-scores[others], kind="stable")]
        ends = np.round(np.cumsum(self.shares) * len(others)).astype(np.int64).tolist()
        for index, (start, end) in enumerate(zip([0, *ends], ends, strict=False), start=1):
            level[others[start:end]] = index
        return level
