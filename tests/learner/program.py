"""A user's program, reduced to what its learner sees of it; and learners that run as threads."""

from __future__ import annotations

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
        self.trained: tensors.TensorFile | None = None
        self.transfer = ""  # transferDtype, as the contract's rules have it
        self.seq = 0
        self.round = -1  # of the model that it has
        self.heard: list[str] = []

    def receive(self, *types: str) -> dict[str, Any]:
        while True:
            message = self.connection.receive(BOUND)
            if message["type"] != "waiting":
                assert message["type"] in types, message
                if message["type"] == "merged":
                    self.round = message["round"]
                elif message["type"] == "opened" and message["hasModel"]:
                    self.round = message["round"] - 1
                return message
            self.heard.append(message["text"])

    def hear(self, part: str) -> str:
        """Wait until the learner says that it waits for something, with `part` in the sentence."""
        while True:
            message = self.connection.receive(BOUND)
            assert message["type"] == "waiting", message
            self.heard.append(message["text"])
            if part in message["text"]:
                return str(message["text"])

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
        if self.trained is None:
            layout = Layout.of(arrays, self.transfer)
            self.trained = tensors.create(self.folder / link.TRAINED, layout)
        self.trained.write(arrays)

    def send_sync(self, arrays: dict[str, NDArray[Any]], weight: int = 1) -> None:
        self.write(arrays)
        self.seq += 1
        message = {"type": "sync", "seq": self.seq, "weightage": weight, "samples": 7, "epochs": 1}
        self.connection.send({**message, "round": self.round})

    def send_finish(self, arrays: dict[str, NDArray[Any]], weight: int = 1) -> None:
        self.write(arrays)
        self.seq += 1
        message = {"type": "finish", "seq": self.seq, "weightage": weight, "epochs": 1}
        self.connection.send({**message, "round": self.round, "own": True})

    def merged(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """The next answer, with the weights that lie in merged.bin then."""
        message = self.receive("merged", "over")
        return message, self.weights()

    def weights(self) -> dict[str, NDArray[Any]]:
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
        if self.trained:
            self.trained.close()


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
