"""Nothing of the image: exemplars of text alone."""

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

__all__ = ["NoImage"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoImage(Form):
    """No modality at all."""

    level: ClassVar[str] = "none"
    uses: ClassVar[frozenset[str]] = frozenset()

    @override
    def specs(self, frame: Frame, codec: Mapping[str, Any]) -> dict[str, TokenSpec]:
        return {}

    @override
    def make(
        self, image: NDArray[np.uint8], masked: Masked, row: int, *, frame: Frame, codec: Mapping[str, Any]
    ) -> dict[str, TokenSet]:
        return {}

    @override
    def restore(self, tokens: Mapping[str, TokenTensors], frame: Frame) -> dict[str, TokenTensors]:
        return dict(tokens)
