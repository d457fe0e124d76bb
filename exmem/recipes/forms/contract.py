"""The contract of an image form."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from exmem.recipes.frame import Frame
from exmem.recipes.scoring import Masked
from exmem.tokens import TokenSet, TokenSpec
from exmem.tokens.tensors import TokenTensors

__all__ = ["Form"]


class Form(Protocol):
    """What is stored of an image: a frozen dataclass whose fields are the options."""

    stores_image: ClassVar[bool] = True
    needs_scores: ClassVar[bool]
    """Whether tokens are scored for it and the keep rule asked; else every token counts as kept."""

    def specs(self, frame: Frame, codec: Mapping[str, Any]) -> dict[str, TokenSpec]:
        """Return its modalities; SchemaError if an option does not fit the frame."""

    def make(
        self, image: NDArray[np.uint8], masked: Masked, row: int, *, frame: Frame, codec: Mapping[str, Any]
    ) -> dict[str, TokenSet]:
        """Return the token sets of an image (H, W, 3) that is a row of a masked batch; of `text` too, if it decides."""

    def restore(self, tokens: Mapping[str, TokenTensors], frame: Frame) -> dict[str, TokenTensors]:
        """Return all modalities with `image` as patches of the frame; what was dropped stays away."""
