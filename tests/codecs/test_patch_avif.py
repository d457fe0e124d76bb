"""AVIF mosaics."""

import numpy as np

from exmem.codecs import PatchAvif, PatchJpeg
from tests.codecs.test_patch_jpeg import psnr
from tests.exemplars import patches


def test_it_is_smaller_than_jpeg_and_no_worse_on_photographs():
    given = np.concatenate([patches(seed, grid=4, patch=32) for seed in range(4)])
    jpeg, avif = PatchJpeg(shape=(32, 32, 3)), PatchAvif(shape=(32, 32, 3))
    one, two = jpeg.encode(given), avif.encode(given)
    assert len(two) < len(one)
    assert psnr(avif.decode(two), given) > psnr(jpeg.decode(one), given)
