"""What a convolution holds on processors besides what it is given and makes.

oneDNN works on channels in blocks. Where a picture's channels are not its last axis, it copies what it reads into
blocks, computes in blocks, and copies the result back; PyTorch's own count of memory doesn't see these copies. At their
most, they and the results together are as large as this module says: measured for single convolutions on a processor
with AVX-512 as the rise of resident memory, within 2 %; strided ones backward, and transposed ones forward, take up to
half as much again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_BLOCK = 16
"""Channels of a block; the last one is filled up."""
_FEW = 4
"""Pictures of so few channels are read as they are."""


def held_by(func: Any, args: tuple[Any, ...], out: Any) -> int:
    """Most bytes that an operation holds besides its arguments; 0 for all but convolutions that copy.

    Parameters
    ----------
    func : OpOverload
        As a dispatch mode sees it.
    args : tuple
        Its arguments.
    out : Any
        What it made.

    Examples
    --------
    >>> x, weight = torch.empty(2, 64, 8, 8), torch.empty(64, 64, 3, 3)
    >>> given = (x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)
    >>> held_by(torch.ops.aten.convolution.default, given, x) == 2 * x.nbytes
    True
    >>> held_by(torch.ops.aten.convolution.default, (x.to(memory_format=torch.channels_last), *given[1:]), x)
    0
    """
    packet = func._overloadpacket
    if packet is torch.ops.aten.convolution:
        return 0 if _last(args[0]) else _forward(args[0], out)
    if packet is torch.ops.aten.convolution_backward:
        grad, x, mask = args[0], args[1], args[10]
        return 0 if _last(x) else _backward(grad, x, mask)
    return 0


def _forward(x: Tensor, out: Tensor) -> int:
    return max(_read(x) + _filled(out), _filled(out) + out.nbytes)


def _backward(grad: Tensor, x: Tensor, mask: list[bool]) -> int:
    """First the gradient of the input is computed, then, while that is held, those of the weights."""
    into = x.nbytes if mask[0] else 0
    first = _filled(x) + max(_filled(grad), into) if mask[0] else 0
    return max(first, into + _read(x) + _filled(grad) if mask[1] else 0)


def _read(x: Tensor) -> int:
    return 0 if x.shape[1] <= _FEW else _filled(x)


def _filled(x: Tensor) -> int:
    channels = x.shape[1]
    return x.nbytes * (-(-channels // _BLOCK) * _BLOCK) // channels


def _last(x: Tensor) -> bool:
    """Whether channels are the last axis in memory."""
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
