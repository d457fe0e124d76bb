"""Pictures as patches and back."""

import numpy as np
import pytest

from exmem.backbones import patchify, unpatchify
from exmem.errors import InvalidExemplarError
from tests.exemplars import photographs


def test_patches_go_together_again():
    pictures = np.stack([photo[:32, :48] for photo in photographs()])
    np.testing.assert_array_equal(unpatchify(patchify(pictures, 8), (4, 6)), pictures)
    np.testing.assert_array_equal(patchify(pictures, 8)[0, 7], pictures[0, 8:16, 8:16])
    with pytest.raises(InvalidExemplarError, match="multiples of 5"):
        patchify(pictures, 5)
