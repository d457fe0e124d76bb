"""The whole image in place, fine where tokens are kept and smoothed elsewhere."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from exmem.errors import SchemaError
from exmem.recipes.forms.contract import Form
from exmem.recipes.forms.scaled import Scaled, part_of_size, resized, whole_image
from exmem.recipes.frame import Frame
from exmem.recipes.scoring import Masked
from exmem.tokens import TokenSet, TokenSpec
from exmem.tokens.checks import whole_number
from exmem.tokens.tensors import TokenTensors

__all__ = ["Smoothed"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Smoothed(Form):
    """One image whose dropped patches are smooth: a codec spends few bits there, and none on where the tokens are.

    Neighbours stay together and nothing is padded. Only the codec knows what smoothing saves: on the demo data a budget
    holds half as many again as of token sets at two scales, at about the same accuracy (`bench/results/first.md`).

    Parameters
    ----------
    divisor : float
        The sides that are stored are divided by this.
    coarse : int
        What is not kept is scaled down by this factor, and up again.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"codec", "keep", "scorer"})
    divisor: float = 2
    coarse: int = 4

    def __post_init__(self) -> None:
        Scaled(divisor=self.divisor)
        whole_number(self.coarse, "coarse", least=1)

    @override
    def specs(self, frame: Frame, codec: Mapping[str, Any]) -> dict[str, TokenSpec]:
        stored = part_of_size(frame, self.divisor)
        if not 1 <= self.coarse <= min(stored):
            raise SchemaError(f"coarse must be in 1..{min(stored)}, the smaller side that is stored, got {self.coarse}")
        return {"image": TokenSpec(positions=1, shape=(*stored, 3), codec=codec)}

    @override
    def make(
        self, image: NDArray[np.uint8], masked: Masked, row: int, *, frame: Frame, codec: Mapping[str, Any]
    ) -> dict[str, TokenSet]:
        height, width = part_of_size(frame, self.divisor)
        fine = resized(image, (height, width))
        smooth = resized(resized(fine, (height // self.coarse, width // self.coarse)), (height, width))
        (rows, columns), keep = frame.grid, masked.keep["image"][row]
        kept = keep.reshape(rows, columns)[np.arange(height) * rows // height][:, np.arange(width) * columns // width]
        return {"image": TokenSet.dense(np.where(kept[..., None], fine, smooth)[None])}

    @override
    def restore(self, tokens: Mapping[str, TokenTensors], frame: Frame) -> dict[str, TokenTensors]:
        return {**tokens, "image": whole_image(tokens["image"], frame)}
