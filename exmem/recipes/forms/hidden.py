"""What the frozen trunk makes of an image: replay starts above it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from exmem.errors import SchemaError
from exmem.recipes.forms.contract import Form
from exmem.recipes.frame import Frame
from exmem.recipes.scoring import Masked
from exmem.tokens import TokenSet, TokenSpec
from exmem.tokens.checks import flag, whole_number
from exmem.tokens.tensors import TokenTensors

__all__ = ["HiddenTokens"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HiddenTokens(Form):
    """Tokens of a frozen layer: all prefix tokens, and the kept image tokens at their places.

    A backbone whose blocks up to that layer are tuned cannot replay them. Texts are stored as ids, so the backbone must
    keep them apart from the image below its tuned blocks.

    Parameters
    ----------
    layer : int, optional
        Blocks of the image that they went through; all frozen ones when left out, and replay runs no block of these.
    fuse : bool
        Whether one more token stands for those that are dropped (`Hidden.pruned`).
    """

    level: ClassVar[str] = "hidden"
    uses: ClassVar[frozenset[str]] = frozenset({"codec", "keep", "scorer"})
    layer: int | None = None
    fuse: bool = False

    def __post_init__(self) -> None:
        flag(self.fuse, "fuse")
        if self.layer is not None:
            whole_number(self.layer, "layer", most=2**14)

    @override
    def specs(self, frame: Frame, codec: Mapping[str, Any]) -> dict[str, TokenSpec]:
        """Return one modality for both, prefix tokens first: the tables of a trained codec are then stored once."""
        positions = frame.prefix + frame.length
        return {"hidden": TokenSpec(positions=positions, shape=(frame.width,), dtype="float32", codec=codec)}

    @override
    def make(
        self, image: NDArray[np.uint8], masked: Masked, row: int, *, frame: Frame, codec: Mapping[str, Any]
    ) -> dict[str, TokenSet]:
        assert masked.hidden is not None, "the recipe gives those that are kept to a form of this level"
        kept, held = masked.hidden.image, masked.hidden.image.valid[row]
        values = torch.cat([masked.hidden.prefix[row], kept.values[row][held]]).detach().float().numpy()
        places = np.concatenate([np.arange(frame.prefix), frame.prefix + kept.positions[row][held].numpy()])
        return {"hidden": TokenSet(places, values)}

    @override
    def restore(self, tokens: Mapping[str, TokenTensors], frame: Frame) -> dict[str, TokenTensors]:
        others = {name: held for name, held in tokens.items() if name != "hidden"}
        hidden, first = tokens["hidden"], frame.prefix
        expected = torch.arange(first, device=hidden.positions.device)
        if hidden.valid.shape[1] < first or not bool(
            (hidden.valid[:, :first] & (hidden.positions[:, :first] == expected)).all()
        ):
            raise SchemaError(f"expected {first} prefix tokens in each exemplar, and some lack them")
        valid = hidden.valid[:, first:]
        image = TokenTensors(hidden.values[:, first:], (hidden.positions[:, first:] - first) * valid, valid)
        return {**others, "prefix": TokenTensors.dense(hidden.values[:, :first]), "image": image}
