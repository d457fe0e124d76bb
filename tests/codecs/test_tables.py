"""Centres and scales in a few bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from exmem.codecs.tables import Channels, from_text, read_scales, scales_bytes, to_text

SCALES = st.floats(2.0**-10, 2.0**4, width=32)
CENTRES = st.floats(-1e4, 1e4, width=32)


def test_scales_are_sixteenths_of_an_octave_below_the_largest():
    data = scales_bytes(np.array([1.0, 8.0, 8.0 * 2 ** (-1 / 16), 0.0]))
    assert data == np.float32(8).tobytes() + bytes([48, 0, 1, 255])
    np.testing.assert_allclose(read_scales(data), [1, 8, 8 * 2 ** (-1 / 16), 8 * 2 ** (-255 / 16)], rtol=1e-6)
    assert read_scales(scales_bytes(np.zeros(3))).tolist() == [0, 0, 0]


@given(scales=arrays(np.float64, 6, elements=SCALES), centres=arrays(np.float64, 6, elements=CENTRES))
def test_scales_are_rounded_up_and_centres_to_a_thirty_second_of_them(scales, centres):
    channels = Channels.from_bytes(Channels.to_bytes(centres, scales), 6)
    assert (channels.scales >= scales * (1 - 1e-6)).all()
    needed = np.maximum(scales, np.abs(centres) / 2_040)
    # At most an octave's sixteenth more; all scales are within 2^-16 of the largest here, or rounded up to that.
    assert (channels.scales <= np.maximum(needed * 2 ** (1 / 16), needed.max() * 2.0**-15.9) * (1 + 1e-6)).all()
    assert (np.abs(channels.centres - centres) <= channels.scales / 32 + np.abs(centres) * 2.0**-22).all()


def test_channels_of_zeros_stay_zeros():
    channels = Channels.from_bytes(Channels.to_bytes(np.zeros(4), np.zeros(4)), 4)
    assert channels.normalise(np.zeros((2, 4))).tolist() == [[0] * 4] * 2
    assert channels.restore(np.ones((2, 4), np.float32)).tolist() == [[0] * 4] * 2


@pytest.mark.parametrize("largest", [np.nan, np.inf, -1.0])
def test_scales_that_are_no_scales_are_refused(largest):
    with pytest.raises(ValueError, match="scale is out of range"):
        read_scales(np.float32(largest).tobytes() + b"\0")


def test_a_text_of_another_length_is_refused():
    text = to_text(bytes(range(100)))
    assert from_text(text, 100) == bytes(range(100))
    for length in (0, 1, 99, 101, 1_000):
        with pytest.raises(ValueError, match=r".+"):
            from_text(text, length)
    for wrong in ("?", "AAAA", text[:-8], None, 3):
        with pytest.raises(ValueError, match=r".+"):
            from_text(wrong, 100)
