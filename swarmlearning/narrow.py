"""Narrow floats on the wire: `transferDtype`, and what it does to numbers.

A float tensor that is wider than the transfer type is rounded to it, to the nearest and half to
even, when the program writes its weights into the shared file. From there on the narrow numbers are
the contribution: they are hashed, sent and merged, and the narrow result is what the swarm decides
on. The program gets its exact widening, so all nodes hold equal weights. Other tensors are left
alone: integers, bools, and floats that are no wider.

For a number x within the type's range, what the others get lies within u·|x| of it, or within the
absolute bound where x is tiny:

    type       u        largest     absolute
    float32    2**-24   3.4e38      2**-150
    float16    2**-11   65504       2**-25
    bfloat16   2**-8    3.39e38     2**-134

The merged value is rounded once more. Larger numbers become infinite, which a check-in refuses or
names. (From float64 to bfloat16 the way is through float32, which adds up to 2**-24·|x|.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

PIECE = 32 << 10  # elements at a time: its two buffers of 128 KiB stay in cache
_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


class Bounds(NamedTuple):
    """How far rounding x may lead: `relative`·|x|, or `absolute` where that is more."""

    relative: float
    absolute: float
    largest: float


TRANSFER: Mapping[str, Bounds] = {
    "float32": Bounds(2.0**-24, 2.0**-150, float(np.finfo(np.float32).max)),
    "float16": Bounds(2.0**-11, 2.0**-25, 65504.0),
    "bfloat16": Bounds(2.0**-8, 2.0**-134, (2.0 - 2.0**-7) * 2.0**127),
}


def stored(dtype: str, transfer: str) -> str:
    """The type under which a tensor of type `dtype` travels; `transfer` is "" or in TRANSFER."""
    return transfer if _BYTES.get(transfer, 8) < _BYTES.get(dtype, 0) else dtype


def narrow(source: Array, kind: str, out: Array) -> None:
    """Round floats to `kind`, a key of TRANSFER, into `out` of the same shape.

    `out` is contiguous, and of type uint16 for bfloat16. What is too large becomes infinite.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if kind != "bfloat16":
            np.copyto(out, source, casting="same_kind")
            return
        flat, target = np.ravel(source), out.reshape(-1)
        values = np.empty(min(PIECE, flat.size), np.float32)
        scratch = np.empty(values.size, np.uint32)
        for at in range(0, flat.size, PIECE):
            part = target[at : at + PIECE]
            np.copyto(values[: part.size], flat[at : at + PIECE], casting="same_kind")
            to_bfloat16(values[: part.size], scratch[: part.size], part)


def widen(narrowed: Array, kind: str, of: str) -> Array:
    """The exact widening of `narrowed`, of type `kind`, to type `of`: a new array."""
    with np.errstate(invalid="ignore"):  # a signalling NaN
        if kind != "bfloat16":
            return narrowed.astype(of)
        bits = narrowed.astype(np.uint32)
        np.left_shift(bits, np.uint32(16), out=bits)
        return bits.view(np.float32).astype(of, copy=False)


def to_bfloat16(values: Array, scratch: Array, out: Array) -> None:
    """Round float32 to its upper 16 bits, half to even, into uint16; NaN stays NaN.

    `scratch` is as long, of type uint32. All are contiguous.
    """
    bits = values.view(np.uint32)
    np.right_shift(bits, np.uint32(16), out=scratch)
    np.bitwise_and(scratch, np.uint32(1), out=scratch)
    np.add(scratch, np.uint32(0x7FFF), out=scratch)
    np.add(scratch, bits, out=scratch)
    np.right_shift(scratch, np.uint32(16), out=scratch)
    np.copyto(out, scratch, casting="unsafe")
    nan = np.isnan(values)
    if nan.any():
        out[nan] = 0x7FC0
