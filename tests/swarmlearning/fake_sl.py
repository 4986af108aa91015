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
        self.memory: tensors.TensorFile | None = None  # that the program shares
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
            weights = self._take(connection)
            if message["type"] == "sync":
                syncs += 1
                over = syncs == self._over_after_syncs
                self._answer(connection, message, weights, interval, over)
                continue
            for left in reversed(range(self._rounds_while_finishing)):
                self._answer(connection, message, weights, interval, left == 0)

    def expect(self, connection: Connection, *kinds: str) -> Message:
        message = connection.receive(BOUND)
        self.received.append(message)
        assert message["type"] in kinds, f"{message} instead of {kinds}"
        return message

    def share(self, connection: Connection) -> tensors.TensorFile:
        """Map the memory that came with the last message."""
        if self.memory is not None:
            self.memory.close()
        self.memory = tensors.attach(connection.descriptor())
        return self.memory

    def _take(self, connection: Connection) -> dict[str, np.ndarray[Any, Any]]:
        memory = self.share(connection)
        arrays = {name: np.array(array) for name, array in memory.arrays().items()}
        self.layout = memory.layout
        for tensor in memory.layout.tensors:
            if tensor.of == "bfloat16":
                arrays[tensor.name] = arrays[tensor.name].view(ml_dtypes.bfloat16)
        self.handed_in.append(arrays)
        return arrays

    def _put(self, arrays: Arrays) -> None:
        save(self.folder / link.MERGED, arrays, self.layout)

    def _answer(
        self, connection: Connection, call: Message, weights: Arrays, interval: int, over: bool
    ) -> None:
        merged, shared = self._merge(self._round, weights), call["type"] == "sync"
        if shared:
            assert self.memory is not None
            self.memory.write(merged)
        else:
            self._put(merged)
        connection.send(
            {
                "type": "merged",
                "seq": call["seq"],
                "round": self._round,
                "next": interval,
                "over": over,
                "peers": 2,
                "counted": True,
                "shared": shared,
            }
        )
        self.expect(connection, "report")
        if shared:
            connection.send({"type": "saved"})
        self._round += 1


def save(path: Path, arrays: Arrays, layout: tensors.Layout | None = None) -> None:
    """Save arrays as a tensor file."""
    with tensors.allocate(layout or tensors.Layout.of(arrays)) as memory:
        memory.write(arrays)
        tensors.save(path, memory.layout, memory.data)


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
