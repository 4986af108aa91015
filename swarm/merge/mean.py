"""The weighted mean, Σ wᵢ·xᵢ / Σ wᵢ, over any byte range of vectors of mixed types.

What holds for every type:

- accumulation is in float32 or wider (float64 for float64 and all integers), in the order in which
  the inputs are given; the same inputs in the same order give the same bytes;
- the result has the input's type; integers and bools are rounded to the nearest;
- inputs of weight 0 take no part at all, so an inf or NaN in them does no harm. When all weights
  are 0, all count alike;
- work happens in pieces that stay in the cache, straight into the output, without allocation after
  construction.

64-bit integers do not fit float64. They are averaged as distances from the first input, computed
modulo 2⁶⁴, which is exact as long as inputs lie within 2⁵³ of each other; counters that differ by
more are rounded to float64's precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swarmlearning.narrow import to_bfloat16

PIECE = 32 << 10  # elements at a time: two float32 buffers of 128 KiB

Array = NDArray[Any]
Buffer = memoryview | bytearray | bytes


class Segment(NamedTuple):
    """A run of one type in the vector; `kind` is a tag of the tensor file's layout."""

    start: int
    stop: int
    kind: str


WIRE: dict[str, np.dtype[Any]] = {
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "bfloat16": np.dtype("<u2"),
    "int8": np.dtype("i1"),
    "int16": np.dtype("<i2"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "uint8": np.dtype("u1"),
    "uint16": np.dtype("<u2"),
    "uint32": np.dtype("<u4"),
    "uint64": np.dtype("<u8"),
    "bool": np.dtype("u1"),
}


def segments(tensors: Sequence[tuple[str, int]], size: int) -> tuple[Segment, ...]:
    """Runs of equal type for tensors given as (type tag, offset), ascending; `size` ends the last.

    The padding after a tensor counts as more of its type: offsets are multiples of 64, so it is a
    whole number of elements, and a model of one type becomes one run.
    """
    runs: list[Segment] = []
    for number, (kind, start) in enumerate(tensors):
        stop = tensors[number + 1][1] if number + 1 < len(tensors) else size
        if stop <= start:
            continue
        if runs and runs[-1].kind == kind and runs[-1].stop == start:
            runs[-1] = Segment(runs[-1].start, stop, kind)
        else:
            runs.append(Segment(start, stop, kind))
    return tuple(runs)


class WeightedMean:
    """Reduces ranges of vectors with fixed weights. One thread at a time; buffers are reused."""

    def __init__(self, layout: Sequence[Segment], weights: Sequence[float]) -> None:
        """`weights` are non-negative, one for each input, in the order of inputs."""
        if not weights or min(weights) < 0:
            raise ValueError("weights must be non-negative, and at least one")
        self._layout = layout
        self.contributors = contributors(weights)
        total = math.fsum(weights) or len(weights)
        # Sum and quotient are correctly rounded, so everybody computes the same shares.
        self._shares = [(weights[i] if any(weights) else 1) / total for i in self.contributors]
        # The same memory for either width: one kind is reduced at a time.
        self._acc32, self._tmp32 = np.empty(PIECE, np.float32), np.empty(PIECE, np.float32)
        self._acc64, self._tmp64 = self._acc32.view(np.float64), self._tmp32.view(np.float64)

    def reduce(self, inputs: Sequence[Buffer], out: memoryview, start: int) -> None:
        """Write the mean of `inputs` into `out`; all cover the vector's bytes from `start` on.

        `inputs` holds one buffer for each index of `contributors`, in that order. The range must
        begin and end at multiples of 64.
        """
        stop = start + len(out)
        # inf and NaN in weights are the user's business: they pass through without warnings.
        with np.errstate(all="ignore"):
            for run in self._layout:
                low, high = max(run.start, start), min(run.stop, stop)
                if low >= high:
                    continue
                wire = WIRE[run.kind]
                count, skip = (high - low) // wire.itemsize, low - start
                arrays = [np.frombuffer(data, wire, count, skip) for data in inputs]
                self._reduce_run(run.kind, arrays, np.frombuffer(out, wire, count, skip))

    def _reduce_run(self, kind: str, arrays: Sequence[Array], out: Array) -> None:
        step = PIECE if kind in _NARROW else PIECE // 2
        work = getattr(self, _NARROW.get(kind) or _WIDE.get(kind, "_integers"))
        for at in range(0, len(out), step):
            piece = slice(at, min(at + step, len(out)))
            work([array[piece] for array in arrays], out[piece])

    def _sum(self, arrays: Sequence[Array], acc: Array, tmp: Array) -> None:
        """acc = Σ share·array, in acc's precision; `arrays` may be narrower."""
        scalar = acc.dtype.type
        np.multiply(arrays[0], scalar(self._shares[0]), out=acc, casting="same_kind")
        for array, share in zip(arrays[1:], self._shares[1:], strict=True):
            np.multiply(array, scalar(share), out=tmp, casting="same_kind")
            np.add(acc, tmp, out=acc)

    def _float32(self, arrays: Sequence[Array], out: Array) -> None:
        self._sum(arrays, out, self._tmp32[: len(out)])

    def _float64(self, arrays: Sequence[Array], out: Array) -> None:
        self._sum(arrays, out, self._tmp64[: len(out)])

    def _float16(self, arrays: Sequence[Array], out: Array) -> None:
        acc, tmp = self._acc32[: len(out)], self._tmp32[: len(out)]
        acc.fill(0)
        for array, share in zip(arrays, self._shares, strict=True):
            np.copyto(tmp, array)
            np.multiply(tmp, np.float32(share), out=tmp)
            np.add(acc, tmp, out=acc)
        np.copyto(out, acc, casting="same_kind")

    def _bfloat16(self, arrays: Sequence[Array], out: Array) -> None:
        acc, tmp = self._acc32[: len(out)], self._tmp32[: len(out)]
        bits = tmp.view(np.uint32)
        acc.fill(0)
        for array, share in zip(arrays, self._shares, strict=True):
            np.copyto(bits, array)
            np.left_shift(bits, np.uint32(16), out=bits)
            np.multiply(tmp, np.float32(share), out=tmp)
            np.add(acc, tmp, out=acc)
        to_bfloat16(acc, bits, out)

    def _integers(self, arrays: Sequence[Array], out: Array) -> None:
        acc, tmp = self._acc64[: len(out)], self._tmp64[: len(out)]
        if out.dtype.itemsize == 8:
            self._wide_integers(arrays, acc, tmp, out)
            return
        self._sum(arrays, acc, tmp)
        np.rint(acc, out=acc)
        np.copyto(out, acc, casting="unsafe")

    def _wide_integers(self, arrays: Sequence[Array], acc: Array, tmp: Array, out: Array) -> None:
        base = arrays[0].view(np.uint64)
        acc.fill(0)
        for array, share in zip(arrays[1:], self._shares[1:], strict=True):
            # Modulo 2⁶⁴ the difference of two 64-bit numbers, signed or not, is exact; read as a
            # signed number it is right when they lie less than 2⁶³ apart, and the float estimate
            # says when they do not.
            near = (array.view(np.uint64) - base).view(np.int64)
            np.subtract(array, arrays[0], out=tmp, dtype=np.float64, casting="unsafe")
            np.copyto(tmp, near, where=np.abs(tmp) < 2.0**62)
            np.multiply(tmp, share, out=tmp)
            np.add(acc, tmp, out=acc)
        np.rint(acc, out=acc)
        steps = np.minimum(np.abs(acc), BELOW_2_64).astype(np.uint64)
        np.copyto(out.view(np.uint64), np.where(acc < 0, base - steps, base + steps))


BELOW_2_64 = float(2**64 - 2**11)

_NARROW = {"float32": "_float32", "float16": "_float16", "bfloat16": "_bfloat16"}
_WIDE = {"float64": "_float64"}


def contributors(weights: Sequence[float]) -> list[int]:
    """Indices of the inputs that take part: those of weight > 0, or all when none has any."""
    some = [index for index, weight in enumerate(weights) if weight > 0]
    return some or list(range(len(weights)))
