"""Whole numbers of 1 to 8 bits, packed in bytes along the last dimension.

A number is cut in planes of 4, 2 and 1 bits (3 bits are a plane of two and a plane of one), 8 are one plane.
In a plane of `width` bits a byte holds 8 / width numbers that lie a whole plane apart, so that unpacking is a
shift and a mask of whole rows.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F


@functools.cache
def planes(bits: int) -> tuple[tuple[int, int], ...]:
    """(width, shift) of each plane, the lowest bits first: ((2, 0), (1, 2)) of 3."""
    assert 1 <= bits <= 8, "a byte has 8 bits"
    found, shift = [], 0
    for width in (8, 4, 2, 1):
        if bits & width:
            found.append((width, shift))
            shift += width
    return tuple(found)


def n_bytes(n: int, bits: int) -> int:
    """Bytes that n numbers take: n * bits / 8, each plane rounded up."""
    return sum(-(-n * width // 8) for width, _ in planes(bits))


def pack(codes: Tensor, bits: int) -> Tensor:
    """(…, n) numbers below 2 ** bits as (…, n_bytes(n, bits)) uint8."""
    n, found = codes.shape[-1], []
    for width, shift in planes(bits):
        per = 8 // width
        plane = (codes.to(torch.uint8) >> shift) & (2**width - 1)
        plane = F.pad(plane, (0, -n % per)).unflatten(-1, (per, -1))
        byte = plane[..., 0, :].clone()
        for place in range(1, per):
            byte |= plane[..., place, :] << (width * place)
        found.append(byte)
    return torch.cat(found, -1)


def unpack(packed: Tensor, bits: int, n: int) -> Tensor:
    """The (…, n) uint8 numbers that `pack` was given."""
    codes, first = None, 0
    for width, shift in planes(bits):
        per, length = 8 // width, -(-n * width // 8)
        bytes_ = packed[..., first : first + length].contiguous()  # three times as fast as rows apart
        first += length
        parts = [(bytes_ >> (width * place)) & (2**width - 1) for place in range(per)]
        plane = (torch.cat(parts, -1) if per > 1 else bytes_)[..., :n]
        codes = plane if codes is None else codes | plane << shift
    assert codes is not None
    return codes
