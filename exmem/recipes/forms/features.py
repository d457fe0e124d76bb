"""What a classifier sees of an example: replay starts at the head."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from exmem.recipes.forms.contract import Form
from exmem.recipes.frame import Frame
from exmem.recipes.scoring import Masked
from exmem.tokens import TokenSet, TokenSpec
from exmem.tokens.tensors import TokenTensors

__all__ = ["Features"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features(Form):
    """The feature of an example, image and text together, each scaled to mean 0 and variance 1.

    It is right as long as the backbone stays as it was; `BoundRecipe.check` says when it was tuned since.
    """

    level: ClassVar[str] = "features"
    uses: ClassVar[frozenset[str]] = frozenset({"codec"})

    @override
    def specs(self, frame: Frame, codec: Mapping[str, Any]) -> dict[str, TokenSpec]:
        return {"features": TokenSpec(positions=1, shape=(frame.features,), dtype="float32", codec=codec)}

    @override
    def make(
        self, image: NDArray[np.uint8], masked: Masked, row: int, *, frame: Frame, codec: Mapping[str, Any]
    ) -> dict[str, TokenSet]:
        assert masked.features is not None, "the recipe gives them to a form of this level"
        return {"features": TokenSet.dense(masked.features[row][None])}

    @override
    def restore(self, tokens: Mapping[str, TokenTensors], frame: Frame) -> dict[str, TokenTensors]:
        return dict(tokens)
