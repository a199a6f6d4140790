"""Packed numbers come back, in as many bytes as they must take."""

import pytest
import torch

from penjing.models.bits import n_bytes, pack, planes, unpack


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("n", [1, 7, 8, 33])
def test_packed_numbers_come_back(bits: int, n: int) -> None:
    codes = torch.randint(0, 2**bits, (3, n), dtype=torch.uint8)
    packed = pack(codes, bits)
    assert (packed.shape, packed.dtype) == ((3, n_bytes(n, bits)), torch.uint8)
    assert torch.equal(unpack(packed, bits, n), codes)


def test_eight_times_as_many_numbers_take_as_many_bytes_as_they_have_bits() -> None:
    assert [n_bytes(8 * 48, bits) for bits in range(1, 9)] == [48 * bits for bits in range(1, 9)]


def test_a_number_of_bits_is_cut_in_planes() -> None:
    assert planes(3) == ((2, 0), (1, 2))
    assert planes(7) == ((4, 0), (2, 4), (1, 6))
    assert planes(8) == ((8, 0),)
