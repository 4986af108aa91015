"""A user's program, reduced to what its learner sees of it; and learners that run as threads."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarm.identity import Identity
from swarm.learner.learner import Learner
from swarm.learner.settings import Settings
from swarm.merge.progress import Limits
from swarmlearning import link, tensors
from swarmlearning.tensors import Layout
from tests.learner.fake_ledger import Client, Ledger
from tests.processes import free_port

BOUND = 60.0  # seconds; never reached when things work
CONTRACT = "defaultbb.cqdb.sml.hpe"


class Program:
    """The link's other end, step by step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.connection = link.connect(folder)
        self.memory: tensors.TensorFile | None = None
        self.lent = False  # the learner has not said `saved` yet
        self.shared = False  # the last answer lies in the memory
        self.handed_in: dict[str, NDArray[Any]] = {}
        self.agains = 0  # how often it was asked for its weights again
        self.stopped = False  # it does not answer that
        self._inbox: queue.Queue[dict[str, Any] | link.LinkError] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.transfer = ""  # transferDtype, as the contract's rules have it
        self.seq = 0
        self.round = -1  # of the model that it has
        self.heard: list[str] = []

    def _listen(self) -> None:
        """As a program that waits does: hand the weights in again whenever the learner asks."""
        try:
            while True:
                message = self.connection.receive()
                if message["type"] == "again":
                    if self.stopped:
                        continue
                    assert self.memory is not None
                    self.memory.write(self.handed_in)
                    self.agains += 1
                    self.connection.send({"type": "again"})
                else:
                    self._inbox.put(message)
        except link.LinkError as error:
            self._inbox.put(error)

    def take(self) -> dict[str, Any]:
        """The next message. Raises LinkError."""
        message = self._inbox.get(timeout=BOUND)
        if isinstance(message, link.LinkError):
            self._inbox.put(message)
            raise message
        return message

    def receive(self, *types: str) -> dict[str, Any]:
        """The next message of one of these types; there may be waiting and saving before it."""
        while True:
            message = self.take()
            if message["type"] == "saved":
                self.lent = False
            elif message["type"] == "waiting":
                self.heard.append(message["text"])
            if message["type"] in types:
                if message["type"] == "merged":
                    self.round = message["round"]
                    self.shared = self.lent = message["shared"]
                elif message["type"] == "opened" and message["hasModel"]:
                    self.round = message["round"] - 1
                return message
            assert message["type"] in ("waiting", "saved"), message

    def hear(self, part: str) -> str:
        """Wait until the learner says that it waits for something, with `part` in the sentence."""
        while True:
            text = str(self.receive("waiting")["text"])
            if part in text:
                return text

    def send_open(self, min_peers: int = 2, mode: str = "snapshot", **other: Any) -> None:
        message = {
            "type": "open",
            "protocol": link.PROTOCOL,
            "library": "test",
            "contract": CONTRACT,
            "minPeers": min_peers,
            "syncFrequency": 5,
            "adaptive": False,
            "mergeMethod": "mean",
            "mergeArgs": {},
            "mode": mode,
            "weightage": 1,
            "totalEpochs": 1,
            "round": self.round,
        }
        self.transfer = other.get("mergeArgs", {}).get("transferDtype", "")
        self.connection.send({**message, **other})

    def open(self, min_peers: int = 2, mode: str = "snapshot") -> dict[str, Any]:
        self.send_open(min_peers, mode)
        return self.receive("opened")

    def write(self, arrays: dict[str, NDArray[Any]]) -> None:
        if self.lent:
            self.receive("saved")
        if self.memory is None:
            self.memory = tensors.allocate(Layout.of(arrays, self.transfer))
        self.memory.write(arrays)
        self.handed_in = arrays

    def call(self, message: dict[str, Any]) -> None:
        """Send a message with the memory."""
        assert self.memory is not None
        self.connection.send(message, self.memory.descriptor)

    def send_sync(self, arrays: dict[str, NDArray[Any]], weight: int = 1) -> None:
        self.write(arrays)
        self.seq += 1
        message = {"type": "sync", "seq": self.seq, "weightage": weight, "samples": 7, "epochs": 1}
        self.call({**message, "round": self.round})

    def send_finish(self, arrays: dict[str, NDArray[Any]], weight: int = 1) -> None:
        self.write(arrays)
        self.seq += 1
        message = {"type": "finish", "seq": self.seq, "weightage": weight, "epochs": 1}
        self.call({**message, "round": self.round, "own": True})

    def merged(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """The next answer, with the weights that it is about."""
        message = self.receive("merged", "over")
        return message, self.weights()

    def weights(self) -> dict[str, NDArray[Any]]:
        if self.shared:
            assert self.memory is not None
            return {name: np.array(array) for name, array in self.memory.arrays().items()}
        with tensors.open(self.folder / link.MERGED) as file:
            return {name: np.array(array) for name, array in file.arrays().items()}

    def report(self, round_: int, loss: str = "0.5") -> None:
        self.connection.send(
            {
                "type": "report",
                "round": round_,
                "loss": loss,
                "metric": "0.9",
                "epochs": 1,
                "totalEpochs": 1,
            }
        )

    def sync(
        self, arrays: dict[str, NDArray[Any]], weight: int = 1
    ) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        self.send_sync(arrays, weight)
        message, weights = self.merged()
        if message["type"] == "merged":
            self.report(message["round"])
        return message, weights

    def bye(self, ok: bool = True, text: str = "") -> None:
        self.connection.send({"type": "bye", "ok": ok, "text": text})

    def close(self) -> None:
        self.connection.close()
        if self.memory:
            self.memory.close()


class Host:
    """A learner as a thread, with its program's end of the link."""

    def __init__(
        self,
        folder: Path,
        ledger: Ledger,
        identity: Identity,
        name: str,
        *,
        grace: float = 30.0,
        limits: Limits | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        self.settings = Settings(
            "127.0.0.1", 1, "127.0.0.1", port, "127.0.0.1", port, name, folder, grace
        )
        self.learner = Learner(
            self.settings, identity, Client(ledger, identity), "test", limits=limits
        )
        self.uid = self.learner.uid
        self.status: int | None = None
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()
        bell = threading.Event()
        for _ in range(int(BOUND / 0.02)):
            try:
                self.program = Program(folder)
                return
            except link.LinkError:
                bell.wait(0.02)
        raise AssertionError("the learner does not listen")

    def _run(self) -> None:
        self.status = self.learner.run()

    def ended(self) -> int | None:
        self.thread.join(BOUND)
        assert not self.thread.is_alive()
        return self.status

    def close(self) -> None:
        self.program.close()
        self.learner.stop()
        self.thread.join(BOUND)
