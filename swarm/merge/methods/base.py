"""What a merge method is: two kinds, both exact without a leader.

- `PerCoordinate`: value k of the result depends on the members' values k alone, so the owner of a
  shard computes it from what it was sent.
- `MixingWeights` (in `mixing`): the result is Σ λᵢ·xᵢ, and the shares λ follow from the members'
  distances. Each owner measures its shard (`distances`), everybody adds the matrices up and derives
  the same λ.

A method sees *contributors* only: the roster's members of weight > 0, or all when none has any.
`inputs` and rows of matrices are in the order of `contributors`, which is that of the roster.

Values that are not finite never reach the law of a method with `excludes`: per coordinate the value
is left out, for mixing weights the member. `rejected` says whom that befell. A method without
`excludes` lets them through, so whoever has some must not take part.

One thread at a time uses a method. A method of a user's own is a class like those here: `combine`
or `mix` is all that it must define, see docs/how-to/own-merge-method.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swarm.errors import LocalError
from swarm.merge.mean import Buffer, Segment, contributors
from swarm.merge.methods.kinds import Wide, is_float, narrow, pieces, widen

Matrix = NDArray[np.float64]
Values = NDArray[Any]

CACHED = 64 << 10  # values of all rows together that stay in the cache
SHORTEST = 2048  # columns at a time at least: below, calls would cost more than the work in them
NOT_FINITE = "NaN or infinity in its weights"


class Arg(NamedTuple):
    """One entry of mergeArgs: a whole number or a float from `least` to `most`.

    `default` None means that the method derives the value from its inputs.
    """

    kind: type[int] | type[float]
    least: float
    most: float
    default: float | None = None


class Method(ABC):
    """A merge method at work on one attempt. See the module's text."""

    name: ClassVar[str] = ""
    ARGS: ClassVar[Mapping[str, Arg]] = {}
    excludes: ClassVar[bool] = True

    def __init__(
        self, args: Mapping[str, Any], layout: Sequence[Segment], weights: Sequence[int]
    ) -> None:
        """`args` has a value for each of `ARGS`; `weights` are those of the whole roster."""
        if not weights or min(weights) < 0:
            raise ValueError("weights must be non-negative, and at least one")
        self.args = args
        self.layout = layout
        self.contributors = contributors(weights)
        self.weights = [weights[i] if any(weights) else 1 for i in self.contributors]
        # Roster index -> what was wrong with its values. Grows while the method works.
        self.rejected: dict[int, str] = {}

    @classmethod
    def needed(cls, args: Mapping[str, Any]) -> int:
        """Contributors without which the method's promise cannot hold."""
        return 1

    @abstractmethod
    def reduce(self, inputs: Sequence[Buffer], out: memoryview, start: int) -> None:
        """Merge `inputs`, one buffer for each contributor, into `out`.

        All cover the vector's bytes from `start` on; both ends are multiples of 64. Raises
        LocalError (SW6012) when a user's method fails.
        """

    def reject(self, row: int, why: str = NOT_FINITE) -> None:
        """Note that contributor number `row` brought what cannot be used."""
        self.rejected[self.contributors[row]] = why


class PerCoordinate(Method):
    """A method whose law is one of single coordinates: `combine`."""

    by_weight: ClassVar[bool] = True  # what makes a majority sound: its weight, or its number

    def __init__(
        self, args: Mapping[str, Any], layout: Sequence[Segment], weights: Sequence[int]
    ) -> None:
        """See `Method`."""
        super().__init__(args, layout, weights)
        count = len(self.weights)
        self._step = max(SHORTEST, CACHED // count)
        self._columns = np.array(self.weights, np.float64).reshape(count, 1)
        self._room32 = np.empty((count, self._step), np.float32)
        self._room64 = np.empty((count, self._step), np.float64)

    @abstractmethod
    def combine(self, values: Values, weights: Matrix) -> Values:
        """The results, shape (k,), for `values` of shape (n, k): a row for each contributor.

        `values` are finite, float32 or float64, and may be overwritten. `weights` (n, k) must not
        be: 0 where a value is left out because it was not finite (it is 0 then), else the
        contributor's weight. Integers and bools come as float64, those of 64 bits as distances
        from a value in their middle; results are rounded.
        """

    def reduce(self, inputs: Sequence[Buffer], out: memoryview, start: int) -> None:
        """See `Method`. A coordinate that nobody has finite becomes the first contributor's."""
        with np.errstate(all="ignore"):
            for kind, rows, target in pieces(self.layout, inputs, out, start, self._step):
                if is_float(kind):
                    self._floats(kind, rows, target)
                elif target.dtype.itemsize == 8:
                    self._wide(rows, target)
                else:
                    values = self._room64[:, : len(target)]
                    np.stack(rows, out=values, casting="unsafe")
                    narrow(kind, self._result(values, self._all(len(target))), target)

    def _all(self, count: int) -> Matrix:
        return np.broadcast_to(self._columns, (len(self._columns), count))

    def _wide(self, rows: Sequence[Values], target: Values) -> None:
        weights = self._all(len(target))
        wide = Wide(rows, weights if self.by_weight else np.ones_like(weights))
        wide.back(self._result(wide.distances, weights), target)

    def _floats(self, kind: str, rows: Sequence[Values], target: Values) -> None:
        room = self._room64 if kind == "float64" else self._room32
        values = room[:, : len(target)]
        for row, wide in zip(rows, values, strict=True):
            widen(kind, row, wide)
        sound = np.isfinite(values)
        if sound.all():
            narrow(kind, self._result(values, self._all(len(target))), target)
            return
        for number in range(len(rows)):
            if not sound[number].all():
                self.reject(number)
        values[~sound] = 0
        narrow(kind, self._result(values, np.where(sound, self._columns, 0.0)), target)
        nobody = ~sound.any(axis=0)
        target[nobody] = rows[0][nobody]

    def _result(self, values: Values, weights: Matrix) -> Values:
        count = values.shape[1]
        found: Values = guarded(
            self.name, lambda: np.asarray(self.combine(values, weights), values.dtype)
        )
        if found.shape != (count,):
            raise LocalError("SW6012", f"{self.name}: shape {found.shape}, not ({count},)")
        return found


def whole(weights: Matrix) -> bool:
    """Whether `weights` of `combine` leave no value out: each row is one number, repeated."""
    return weights.strides[1] == 0


def guarded(name: str, law: Callable[[], Any]) -> Any:
    """Run a method's law; whatever it raises becomes LocalError SW6012, as it may be a user's."""
    try:
        return law()
    except Exception as error:
        raise LocalError("SW6012", f"{name}: {type(error).__name__}: {error}") from error
