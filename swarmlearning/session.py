"""The program's side of the link to its learner: one training, from `open` to `bye`.

Knows nothing of frameworks: weights come and go as named numpy arrays. They are copied once, into
the memory that the learner shares, and once out of it. Any failure is raised as `SwarmError` and
says what happened; after one, the session is closed.

A learner that goes away is no failure: the session waits for it to be started again, says which
model its program has, and repeats the call that was not answered.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from swarmlearning import link, tensors
from swarmlearning.errors import SwarmError
from swarmlearning.settings import Settings
from swarmlearning.tensors import Array, Layout, TensorFile, TensorFileError

CONNECT_EVERY = 0.2  # seconds between two attempts while the learner is not there
SAY_EVERY = 5.0  # seconds between two log lines about that


class Merged(NamedTuple):
    """The learner's answer: a round is decided, or training was over before there was one."""

    decided: bool
    has_model: bool  # there are weights to load
    over: bool
    round: int = 0
    next: int = 0  # batches until the next merge
    peers: int = 0  # how many contributed
    counted: bool = False  # the weights handed in are among them


class Session:
    """The conversation of one program with its learner."""

    def __init__(self, folder: Path, logger: logging.Logger) -> None:
        self._folder = folder
        self._logger = logger
        self._connection: link.Connection | None = None
        self._memory: TensorFile | None = None  # what the learner shares
        self._weights: Mapping[str, Array] | None = None  # handed in, until the call is answered
        self._opening: dict[str, Any] = {}
        self._call: dict[str, Any] = {}  # what waits for an answer; empty when nothing does
        self._report: dict[str, Any] = {}  # what could not be reported yet
        self._sequence = 0
        self._offered = -1  # round of the model that there is to load
        self._shared = False  # it lies in the memory, not in the merged file
        self._lent = False  # the learner still needs the memory
        self._round = -1  # round of the model that the program has
        self._said = ""
        self._phase = "Init"
        self._transfer = ""  # the type that wider floats travel in
        self.has_model = False  # the swarm decided a model before this node joined

    def open(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Wait for the learner, enroll with the contract's rules, wait until it is enrolled."""
        self._clock, self._sleep = clock, sleep
        self._transfer = str(settings.merge_args.get("transferDtype", ""))
        self._opening = {
            "type": "open",
            "protocol": link.PROTOCOL,
            "library": _version(),
            "contract": settings.contract,
            "minPeers": settings.min_peers,
            "syncFrequency": settings.sync_frequency,
            "adaptive": settings.adaptive,
            "mergeMethod": settings.merge_method,
            "mergeArgs": dict(settings.merge_args),
            "mode": settings.mode.name,
            "weightage": settings.weightage,
            "totalEpochs": settings.total_epochs,
        }
        self._greet()
        self._phase = "Sync"

    def sync(
        self, arrays: Mapping[str, Array], *, weightage: int, samples: int, epochs: int
    ) -> Merged:
        """Hand in `arrays`, wait until the round is decided."""
        merged = self._ask(arrays, "sync", weightage=weightage, samples=samples, epochs=epochs)
        self._call = {}
        return merged

    def finish(
        self, arrays: Mapping[str, Array], *, weightage: int, epochs: int
    ) -> Iterator[Merged]:
        """Hand in the final `arrays`; yields each round that follows, the last one being over.

        The caller answers each yielded round by `report` before it takes the next.
        """
        self._phase = "End"
        merged = self._ask(arrays, "finish", weightage=weightage, epochs=epochs, own=True)
        # What a learner that is restarted from now on must know: see `link`.
        own = merged.counted and self._opening["mode"] != "active"
        while not merged.over:
            self._call |= {"round": merged.round, "own": own}
            yield merged
            merged = self._answer()
        self._call = {}
        yield merged

    @contextlib.contextmanager
    def merged(self, model: Callable[[], Mapping[str, Array]]) -> Iterator[Mapping[str, Array]]:
        """The merged weights, as read-only arrays over the memory or the file that they lie in.

        They are valid inside the `with` only, since what is handed in next goes into the same
        memory: copy what shall stay. `model` gives the weights that they must fit; it is asked only
        by a late joiner, which has not handed in any yet.
        """
        if self._shared:
            assert self._memory is not None, "a call was answered"
            with self._arrays(self._memory) as arrays:
                yield arrays
        else:
            layout = self._memory.layout if self._memory else Layout.of(model(), self._transfer)
            try:
                file = tensors.open(self._folder / link.MERGED)
            except (OSError, TensorFileError) as error:
                self._fail(f"cannot read the merged weights: {error}")
            with file:
                if file.layout != layout:
                    difference = layout.difference(file.layout)
                    self._fail(f"the merged model does not fit this one: {difference}")
                with self._arrays(file) as arrays:
                    yield arrays
        self._round = self._offered

    @staticmethod
    @contextlib.contextmanager
    def _arrays(file: TensorFile) -> Iterator[Mapping[str, Array]]:
        arrays = file.arrays()
        yield arrays
        if isinstance(arrays, dict):
            arrays.clear()  # whoever holds it still does not hold the mapping

    def report(self, round_: int, loss: float, metric: float, epochs: int, total: int) -> None:
        """Tell how the merged weights do on this node's validation data."""
        connection = self._open_connection()
        self._report = {
            "type": "report",
            "round": round_,
            "loss": _decimal(loss),
            "metric": _decimal(metric),
            "epochs": epochs,
            "totalEpochs": total,
        }
        with contextlib.suppress(link.LinkClosed):  # the next learner will hear it
            connection.send(self._report)
            self._report = {}

    def bye(self) -> None:
        """Say that this program is done, and wait until the learner has ended.

        The others may need the last model from it for a moment. Never raises for a lost link.
        """
        if self._connection is None:
            return
        message = {"type": "bye", "ok": True, "text": ""}
        with contextlib.suppress(link.LinkError):
            try:
                self._connection.send(message)
            except link.LinkClosed:  # restarted meanwhile; it waits for a program
                self._connection = link.connect(self._folder)
                self._connection.send(message)
            while True:
                self._say(self._connection.receive().get("text", ""))
        self.close()

    def close(self) -> None:
        """Give socket and memory back; the learner takes that, without a bye, for a crash."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._forget_memory()

    def _forget_memory(self) -> None:
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def _connect(self) -> link.Connection:
        said = self._clock()
        while True:
            try:
                return link.connect(self._folder)
            except link.LinkError as error:
                if self._clock() - said >= SAY_EVERY:
                    said = self._clock()
                    self._logger.info("Waiting for the learner (SL) to start: %s", error)
            self._sleep(CONNECT_EVERY)

    def _greet(self) -> None:
        """Open the session with whatever learner comes, and say again what it must know."""
        while True:
            self._connection = self._connect()
            try:
                self._connection.send({**self._opening, "round": self._round})
                answer = self._next("opened")
                if self._report:
                    self._connection.send(self._report)
                self._repeat()
            except link.LinkClosed as error:
                self._lost(error)
            else:
                break
        self._report = {}
        if self._lent:  # to the one that is gone, or that is not yet
            self._forget_memory()
            self._lent = False
        if not self._call:
            self.has_model = answer["hasModel"]
            self._offered, self._shared = answer["round"] - 1, False

    def _repeat(self) -> None:
        """Say again what was not answered. Raises LinkClosed."""
        if self._weights is not None and self._call["type"] == "sync":
            self._forget_memory()  # see `link`
            self._write(self._weights)
        if self._call:
            self._send_call()

    def _send_call(self) -> None:
        assert self._memory is not None, "weights were written"
        self._open_connection().send(self._call, self._memory.descriptor)

    def _lost(self, error: link.LinkClosed) -> None:
        """The learner is gone. It may be started again, unless it said why it gave up."""
        words = self._last_words()
        if words:
            self._fail(words)
        assert self._connection is not None
        self._connection.close()
        self._logger.warning(
            "The learner (SL) is gone (%s); waiting for it to be started again", error
        )
        self._sleep(CONNECT_EVERY)

    def _write(self, arrays: Mapping[str, Array]) -> None:
        try:
            if self._memory is None:
                self._memory = tensors.allocate(Layout.of(arrays, self._transfer))
            self._memory.write(arrays)
        except (OSError, TensorFileError) as error:
            self._fail(f"cannot hand over the weights: {error}")

    def _ask(self, arrays: Mapping[str, Array], kind: str, **fields: int) -> Merged:
        """Write weights and hand them in; the answer, or the first of them."""
        self._await_memory()
        self._write(arrays)
        self._weights = arrays
        self._sequence += 1
        self._call = {"type": kind, "seq": self._sequence, "round": self._round, **fields}
        try:
            self._send_call()
        except link.LinkClosed as error:
            self._lost(error)
            self._greet()
        except link.LinkError as error:
            self._fail(f"the learner (SL) does not listen: {error}")
        answer = self._answer()
        self._weights = None
        return answer

    def _await_memory(self) -> None:
        """Wait until the learner has saved what lies in the memory: as a rule, it has."""
        while self._lent:
            try:
                self._next("saved", timeout=SAY_EVERY)
            except link.LinkTimeout:
                self._say("Waiting for the learner (SL) to save the last merged model")
            except link.LinkClosed as error:
                self._lost(error)
                self._greet()

    def _receive(self, *expected: str) -> link.Message:
        """The next message of one of the `expected` types, if need be from the next learner."""
        while True:
            try:
                return self._next(*expected)
            except link.LinkClosed as error:
                self._lost(error)
                self._greet()

    def _next(self, *expected: str, timeout: float | None = None) -> link.Message:
        """As `_receive`, from this learner. Raises LinkClosed when it is gone, LinkTimeout."""
        connection = self._open_connection()
        while True:
            try:
                message = connection.receive(timeout)
            except (link.LinkClosed, link.LinkTimeout):
                raise
            except link.LinkError as error:
                self._fail(f"the learner (SL) sent something that makes no sense: {error}")
            kind = message["type"]
            if kind == "waiting":
                self._say(message["text"])
            elif kind == "again" and self._weights is not None:
                self._write(self._weights)
                connection.send({"type": "again"})
            elif kind == "saved":
                self._lent = False
                if kind in expected:
                    return message
            elif kind == "error":
                self._fail(f"{message['code']}: {message['text']}")
            elif kind in expected:
                return message
            else:
                self._fail(f"the learner (SL) sent {kind!r} at the wrong time")

    def _open_connection(self) -> link.Connection:
        if self._connection is None:
            self._fail("the session is closed; make a new SwarmCallback for another training")
        return self._connection

    def _answer(self) -> Merged:
        message = self._receive("merged", "over")
        if message["seq"] != self._sequence:
            self._fail(
                f"the learner (SL) answered call {message['seq']}, expected {self._sequence}"
            )
        self._said = ""
        self._shared = self._lent = message.get("shared", False)
        if message["type"] == "over":
            return Merged(False, message["hasModel"], True)
        if message["next"] < 1 and not message["over"]:
            self._fail(f"the learner (SL) asks for a merge every {message['next']} batches")
        merged = Merged(True, True, *(message[name] for name in Merged._fields[2:]))
        self._offered = merged.round
        if not merged.counted and self._call["type"] == "sync":
            self._logger.warning(
                "Round %d was decided without this node's weights, which came too late",
                merged.round,
            )
        return merged

    def _say(self, text: str) -> None:
        if text and text != self._said:
            self._said = text
            self._logger.info("%s", text)

    def _last_words(self) -> str:
        """The error that the learner sent before it went away, if it did."""
        assert self._connection is not None
        with contextlib.suppress(link.LinkError):
            while True:
                message = self._connection.receive(0)
                if message["type"] == "error":
                    return f"{message['code']}: {message['text']}"
        return ""

    def _fail(self, cause: str) -> NoReturn:
        self.close()
        raise SwarmError(f"{self._phase} Swarm call to SL container failed - {cause}") from None


def _decimal(value: float) -> str:
    """A number as the ledger keeps it: a short decimal string."""
    return format(float(value), ".9g")


def _version() -> str:
    try:
        return metadata.version("swarmlearning")
    except metadata.PackageNotFoundError:  # used from a source tree that is not installed
        return "unknown"
