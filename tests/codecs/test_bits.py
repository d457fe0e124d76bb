"""Codes packed into bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from exmem.codecs.bits import pack_codes, row_bytes, unpack_codes


def test_the_first_code_takes_the_lowest_bits_and_rows_end_with_zeros():
    assert pack_codes(np.array([[1, 0, 1, 1, 0, 0, 0, 0, 1]]), 1).tolist() == [[0b1101, 1]]
    assert pack_codes(np.array([[3, 0, 2, 1, 2], [0, 1, 0, 0, 0]]), 2).tolist() == [[0b01_10_00_11, 2], [4, 0]]
    assert pack_codes(np.array([[15, 1, 7]]), 4).tolist() == [[0x1F, 7]]


@given(data=st.data(), count=st.integers(0, 5), width=st.integers(1, 40))
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_codes_come_back(bits, data, count, width):
    codes = data.draw(arrays(np.uint8, (count, width), elements=st.integers(0, 2**bits - 1)))
    packed = pack_codes(codes, bits)
    assert packed.shape == (count, row_bytes(width, bits))
    np.testing.assert_array_equal(unpack_codes(packed, bits, width), codes)
