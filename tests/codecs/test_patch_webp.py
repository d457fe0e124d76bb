"""Lossless WebP mosaics."""

import numpy as np
import pytest

from exmem.codecs import PatchWebp, get_codec
from exmem.errors import CodecError
from tests.exemplars import patches


@pytest.mark.parametrize("patch", [14, 16, 32])
def test_it_is_far_smaller_than_zstd_on_photographs(patch):
    given = np.concatenate([patches(seed, grid=4, patch=patch) for seed in range(4)])
    zstd = get_codec({"id": "lossless"}, shape=given.shape[1:], dtype="uint8")
    assert len(PatchWebp(shape=given.shape[1:]).encode(given)) < 0.75 * len(zstd.encode(given))


def test_a_picture_of_another_size_is_refused_before_it_is_decoded():
    one, other = PatchWebp(shape=(16, 16, 3)), PatchWebp(shape=(16, 32, 3))
    payload = other.encode(np.zeros((4, 16, 32, 3), np.uint8))
    with pytest.raises(CodecError, match=r"an image of \(64, 32\), not \(64, 16\)"):
        one.decode_into(payload, np.zeros((4, 16, 16, 3), np.uint8))
