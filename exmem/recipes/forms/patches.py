"""The image patches with high scores, each at its place (Lee et al. 2024)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from exmem.recipes.forms.contract import Form
from exmem.recipes.forms.scaled import resized
from exmem.recipes.frame import Frame
from exmem.recipes.scoring import Masked
from exmem.tokens import TokenSet, TokenSpec
from exmem.tokens.checks import whole_number
from exmem.tokens.tensors import TokenTensors

__all__ = ["Patches"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patches(Form):
    """The kept patches.

    Parameters
    ----------
    thumbnail : int
        Side of a thumbnail of the whole image that is stored besides, for the fill of that name; 0 for none.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"codec", "fill", "keep", "scorer"})
    thumbnail: int = 0

    def __post_init__(self) -> None:
        whole_number(self.thumbnail, "thumbnail", most=2**12)

    @override
    def specs(self, frame: Frame, codec: Mapping[str, Any]) -> dict[str, TokenSpec]:
        specs = {"image": TokenSpec(grid=frame.grid, shape=(frame.patch, frame.patch, 3), codec=codec)}
        if self.thumbnail:
            specs["thumbnail"] = TokenSpec(positions=1, shape=(self.thumbnail, self.thumbnail, 3), codec=codec)
        return specs

    @override
    def make(
        self, image: NDArray[np.uint8], masked: Masked, row: int, *, frame: Frame, codec: Mapping[str, Any]
    ) -> dict[str, TokenSet]:
        tokens = {"image": TokenSet.kept(masked.tokens.tokens["image"].values[row], masked.keep["image"][row])}
        if self.thumbnail:
            tokens["thumbnail"] = TokenSet.dense(resized(image, (self.thumbnail, self.thumbnail))[None])
        return tokens

    @override
    def restore(self, tokens: Mapping[str, TokenTensors], frame: Frame) -> dict[str, TokenTensors]:
        return dict(tokens)
