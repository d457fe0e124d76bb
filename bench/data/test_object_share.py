"""Stickers of one size: the share that is asked for is the share that is covered."""

import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from bench.data.object_share import covered, placed_at
from exmem.cli.demo.stickers.compose import sample_photographs

SIZE = 64


def disc():
    artwork = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0))
    ImageDraw.Draw(artwork).ellipse((0, 0, SIZE - 1, SIZE - 1), fill=(255, 0, 0, 255))
    return artwork


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5])
def test_the_sticker_covers_its_share_on_the_same_background(share):
    shares = []
    image = placed_at(share, shares)(disc(), SIZE, random.Random(3), sample_photographs())
    other = placed_at(0.1, [])(disc(), SIZE, random.Random(3), sample_photographs())
    assert share <= shares[0] < share + 0.04  # a pixel more of the side covers at most 4 % of 64 px more
    assert image.size == (SIZE, SIZE)
    alike = np.mean((np.asarray(image) == np.asarray(other)).all(axis=2))
    assert alike > 1 - share - 0.1 - 0.05  # all that neither sticker hides


def test_a_drawing_that_cannot_cover_half_is_left_out_at_every_share():
    thin = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0))
    ImageDraw.Draw(thin).rectangle((28, 0, 36, SIZE), fill=(0, 0, 0, 255))
    assert placed_at(0.05, [])(thin, SIZE, random.Random(0), sample_photographs()) is None


def test_more_of_the_side_covers_more():
    shares = [covered(disc(), side, SIZE) for side in range(1, SIZE + 1)]
    assert shares == sorted(shares)
