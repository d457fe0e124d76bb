"""bfloat16."""

import numpy as np
import pytest

from exmem.codecs import BFloat16
from exmem.errors import CodecError


@pytest.mark.torch
def test_it_rounds_as_torch_does():
    import torch  # the other tests of codecs need none

    given = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    given[0] = [1.00390625, 1.01171875, 0, -0.0, 3.38e38, 1e-38, -1.00390625, 1e-42]  # ties, limits, subnormal
    codec = BFloat16(shape=(8,))
    expected = torch.from_numpy(given).to(torch.bfloat16).to(torch.float32).numpy()
    np.testing.assert_array_equal(codec.decode(codec.encode(given)), expected)


def test_what_would_become_infinite_is_refused():
    with pytest.raises(CodecError, match="within"):
        BFloat16(shape=(1,), dtype="float64").encode(np.array([[1e39]]))
