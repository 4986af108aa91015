"""The types of values in vectors, as methods see them: cut into pieces of one type, and widened.

16-bit floats are computed with as float32, integers and bools as float64. 64-bit integers do not
fit float64, so methods work on their distance from a value in the middle of all (`Wide`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarm.merge.mean import BELOW_2_64, WIRE, Buffer, Segment
from swarm.merge.methods.sorting import around_half, network, sort_with
from swarmlearning.narrow import to_bfloat16

Array = NDArray[Any]

FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})
MIDDLE = 1 << 63  # added to signed 64-bit numbers modulo 2**64, it makes them ascend as unsigned


def is_float(kind: str) -> bool:
    """Whether values of this type can be NaN."""
    return kind in FLOATS


def pieces(
    layout: Sequence[Segment],
    inputs: Sequence[Buffer],
    out: memoryview,
    start: int,
    most: int = 1 << 62,
) -> Iterator[tuple[str, list[Array], Array]]:
    """Cut `inputs` and `out`, bytes `start` on of vectors, into (type, rows, target).

    Each has one type and at most `most` values.
    """
    stop = start + len(out)
    for run in layout:
        low, high = max(run.start, start), min(run.stop, stop)
        if low >= high:
            continue
        wire = WIRE[run.kind]
        count, skip = (high - low) // wire.itemsize, low - start
        rows = [np.frombuffer(data, wire, count, skip) for data in inputs]
        target = np.frombuffer(out, wire, count, skip)
        for at in range(0, count, most):
            piece = slice(at, min(at + most, count))
            yield run.kind, [row[piece] for row in rows], target[piece]


def finite(kind: str, values: Array) -> Array:
    """Which of the raw `values` of a float type are neither NaN nor infinite."""
    if kind == "bfloat16":
        return np.asarray((values & 0x7F80) != 0x7F80)
    return np.isfinite(values)


def widen(kind: str, row: Array, target: Array) -> None:
    """Write the raw values `row` of type `kind` into `target`, float32 or float64."""
    if kind == "bfloat16":
        np.copyto(target, (row.astype(np.uint32) << np.uint32(16)).view(np.float32))
    else:
        np.copyto(target, row, casting="unsafe")


def narrow(kind: str, values: Array, out: Array) -> None:
    """Write float `values` as raw values of type `kind`, rounded to the nearest.

    Integers and bools are limited to their type's range.
    """
    if kind == "bfloat16":
        scratch = np.empty(len(out), np.uint32)
        to_bfloat16(np.ascontiguousarray(values, np.float32), scratch, out)
    elif is_float(kind):
        np.copyto(out, values, casting="same_kind")
    else:
        most = 1 if kind == "bool" else np.iinfo(out.dtype).max
        least = 0 if kind == "bool" else np.iinfo(out.dtype).min
        np.copyto(out, np.clip(_whole(values), least, most), casting="unsafe")


def _whole(values: Array) -> Array:
    """Rounded to the nearest, half to even; NaN, which no two machines convert alike, to 0."""
    return np.nan_to_num(np.rint(values))


class Wide:
    """64-bit integers as float64 distances from the median of each column, and back.

    Distances below 2**53 are exact. The median lies among the values of sound members as long as
    these are the majority, so nobody else can spoil the exactness.
    """

    def __init__(self, rows: Sequence[Array], weights: Array) -> None:
        """`rows` are int64 or uint64, one for each contributor; `weights` (n, k) for the median."""
        offset = MIDDLE if rows[0].dtype.kind == "i" else 0
        self._sign = np.uint64(offset)
        ascending = np.stack([row.view(np.uint64) for row in rows]) + self._sign
        ordered = ascending.copy()
        self._base, _ = around_half(ordered, sort_with(ordered, weights, network(len(rows))))
        above = ascending >= self._base
        size = np.where(above, ascending - self._base, self._base - ascending).astype(np.float64)
        self.distances: Array = np.where(above, size, -size)

    def back(self, distances: Array, out: Array) -> None:
        """Write the integers at these distances, half to even, limited to the type's range."""
        distances = np.nan_to_num(distances)
        steps = np.floor(distances)
        size = np.minimum(np.abs(steps), BELOW_2_64).astype(np.uint64)
        up = self._base + np.minimum(size, ~self._base)
        down = self._base - np.minimum(size, self._base)
        below = np.where(steps < 0, down, up)
        rest = distances - steps
        more = (rest > 0.5) | ((rest == 0.5) & (below % 2 == 1))
        np.copyto(out.view(np.uint64), below + (more & (below < ~np.uint64(0))) - self._sign)
