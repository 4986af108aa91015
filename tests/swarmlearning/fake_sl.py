"""A learner without a swarm: speaks the real link, and does with the weights what a test says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from swarmlearning import link, tensors
from swarmlearning.link import Connection, LinkClosed, Message

Arrays = Mapping[str, np.ndarray[Any, Any]]
BOUND = 60.0  # seconds after which a test that hangs fails; importing TensorFlow takes its time


class FakeLearner:
    """Serves one program in a thread; `received` holds what the program said, in order.

    `merge(round, arrays)` makes the merged weights of a round from those handed in. After
    `rounds_until_over` rounds it says that training is over, at a sync or at the end.
    """

    def __init__(
        self,
        folder: Path,
        *,
        merge: Callable[[int, Arrays], Arrays] = lambda _, arrays: arrays,
        interval: int = 0,
        rounds_while_finishing: int = 1,
        over_after_syncs: int | None = None,
        waiting: Sequence[str] = (),
        earlier_model: Arrays | None = None,
    ) -> None:
        self.folder = folder
        self.received: list[Message] = []
        self.handed_in: list[dict[str, np.ndarray[Any, Any]]] = []
        self.layout: tensors.Layout | None = None  # of what was handed in
        self.error: BaseException | None = None
        self._merge = merge
        self._interval = interval
        self._rounds_while_finishing = rounds_while_finishing
        self._over_after_syncs = over_after_syncs
        self._waiting = waiting
        self._round = 0
        if earlier_model is not None:
            self._put(earlier_model)
        self._has_model = earlier_model is not None
        self._listener = link.listen(folder)
        self._listener.settimeout(BOUND)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> list[Message]:
        """Wait for the end of the conversation; raises what went wrong in it."""
        self._thread.join(BOUND)
        assert not self._thread.is_alive(), "the conversation did not end"
        if self.error is not None:
            raise self.error
        return self.received

    def kinds(self) -> list[str]:
        return [message["type"] for message in self.join()]

    def _run(self) -> None:
        try:
            accepted, _ = self._listener.accept()
            self._listener.close()
            with Connection(accepted, link.TO_SL) as connection:
                self.serve(connection)
        except BaseException as error:
            self.error = error

    def serve(self, connection: Connection) -> None:
        opened = self.expect(connection, "open")
        interval = self._interval or opened["syncFrequency"]
        for text in self._waiting:
            connection.send({"type": "waiting", "text": text})
        connection.send({"type": "opened", "round": 0, "uid": "fake", "hasModel": self._has_model})
        syncs = 0
        while True:
            message = self.expect(connection, "sync", "finish", "bye")
            if message["type"] == "bye":
                return
            weights = self._take()
            if message["type"] == "sync":
                syncs += 1
                over = syncs == self._over_after_syncs
                self._answer(connection, message["seq"], weights, interval, over)
                continue
            for left in reversed(range(self._rounds_while_finishing)):
                self._answer(connection, message["seq"], weights, interval, left == 0)

    def expect(self, connection: Connection, *kinds: str) -> Message:
        message = connection.receive(BOUND)
        self.received.append(message)
        assert message["type"] in kinds, f"{message} instead of {kinds}"
        return message

    def _take(self) -> dict[str, np.ndarray[Any, Any]]:
        with tensors.open(self.folder / link.TRAINED) as file:
            arrays = {name: np.array(array) for name, array in file.arrays().items()}
            self.layout = file.layout
            for tensor in file.layout.tensors:
                if tensor.of == "bfloat16":
                    arrays[tensor.name] = arrays[tensor.name].view(ml_dtypes.bfloat16)
        self.handed_in.append(arrays)
        return arrays

    def _put(self, arrays: Arrays) -> None:
        path = self.folder / link.MERGED
        # As the real one does: the same file for all rounds.
        if path.exists():
            with tensors.open(path, write=True) as file:
                file.write(arrays)
        else:
            layout = self.layout or tensors.Layout.of(arrays)
            with tensors.create(path, layout) as file:
                file.write(arrays)

    def _answer(
        self, connection: Connection, seq: int, weights: Arrays, interval: int, over: bool
    ) -> None:
        self._put(self._merge(self._round, weights))
        connection.send(
            {
                "type": "merged",
                "seq": seq,
                "round": self._round,
                "next": interval,
                "over": over,
                "peers": 2,
                "counted": True,
            }
        )
        self.expect(connection, "report")
        self._round += 1


class ScriptedLearner(FakeLearner):
    """A learner whose whole side of the conversation a test writes."""

    def __init__(self, folder: Path, script: Callable[[FakeLearner, Connection], None]) -> None:
        self._script = script
        super().__init__(folder)

    def serve(self, connection: Connection) -> None:
        try:
            self._script(self, connection)
        except LinkClosed:
            return
