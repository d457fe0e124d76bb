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

    level: ClassVar[str] = "pixels"
    """What is stored: pixels, hidden (tokens of a frozen layer), features (what a classifier sees), or none."""

    uses: ClassVar[frozenset[str]]
    """The parts of a recipe that it needs: codec if it stores an image, scorer, keep, and fill if it drops tokens."""

    def specs(self, frame: Frame, codec: Mapping[str, Any]) -> dict[str, TokenSpec]:
        """Return its modalities.

        Parameters
        ----------
        frame : Frame
            Where patches stand.
        codec : mapping
            Configuration of the payload codec of the pixels.

        Returns
        -------
        dict of str to TokenSpec
            None for a form that stores no image.

        Raises
        ------
        SchemaError
            If an option does not fit the frame.
        """

    def make(
        self, image: NDArray[np.uint8], masked: Masked, row: int, *, frame: Frame, codec: Mapping[str, Any]
    ) -> dict[str, TokenSet]:
        """Make the token sets of an image.

        Parameters
        ----------
        image : ndarray, shape (H, W, 3), uint8
            As large as the frame.
        masked : Masked
            The batch that it is of.
        row : int
            Its row there.
        frame : Frame
            Where patches stand.
        codec : mapping
            Configuration of the payload codec of the pixels.

        Returns
        -------
        dict of str to TokenSet
            One for each of its modalities; `text` too, if the form decides what is kept of it.
        """

    def restore(self, tokens: Mapping[str, TokenTensors], frame: Frame) -> dict[str, TokenTensors]:
        """Turn its modalities into what a backbone takes.

        Parameters
        ----------
        tokens : mapping of str to TokenTensors
            All modalities of a batch.
        frame : Frame
            Where patches stand.

        Returns
        -------
        dict of str to TokenTensors
            All modalities: of pixels, `image` as patches (B, K, patch, patch, 3), and what was dropped stays away; of
            hidden tokens, `prefix` and `image`; or `features` (B, 1, D).
        """
