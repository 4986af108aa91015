"""`Swci`: each command of the command interface as a method.

A call returns the lines that the command says, without blanks around them, and `[]` when it failed;
`getErrors` has the reason then. Names and defaults are those that users' programs carry.

What rarely changes is kept for a while: lists of names, and what GET … INFO and GET TASK BODY say.
A call that changes something drops what is kept about it, so a program sees its own acts; those of
others it sees after `CACHE_SECONDS`, or after `clearCache`.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from swarmlearning.swci import answers
from swarmlearning.swci.answers import Node, PeerStatus, Performance
from swarmlearning.swci.connection import Connection, Failure, Reply

DEFAULT_CONTRACT = "defaultbb.cqdb.sml.hpe"
DEFAULT_TASKRUNNER = "defaulttaskbb.taskdb.sml.hpe"
ALL = "ALL"

CACHE_SECONDS = 60.0
PATIENCE = 150.0  # seconds for a command that does not wait: a network without quorum takes 60
RETRY_SECONDS = 5.0  # between two attempts of WAIT FOR IP
RETRIES_AT_ONCE = 12  # no answer takes longer than a minute, which some firewalls would not bear


class Swci:
    """A command interface in web mode, as its client sees it.

    `clientCert` and `clientPKey` are files in PEM form, or the first holds both. `clientCABundle`
    is a file or directory of CA certificates: with it the server is verified; without it, it is
    not, and a warning says so. Raises RuntimeError for an argument that makes no sense.
    """

    def __init__(
        self,
        swciIp: str,
        port: int = 30306,
        clientCert: str | None = None,
        clientPKey: str | None = None,
        clientCABundle: str | None = None,
        logger: logging.Logger | None = None,
        logLv: int | str = logging.WARNING,
        enableCaching: bool = True,
    ) -> None:
        if not swciIp:
            raise RuntimeError("SWCI IP not provided!")
        if not isinstance(port, int) or isinstance(port, bool):
            raise RuntimeError("SWCI Port not Integer!")
        self.logger = logger or _own_logger()
        self.setLogLevel(logLv)
        try:
            self._connection = Connection(swciIp, port, clientCert, clientPKey, clientCABundle)
        except (OSError, ssl.SSLError) as fault:
            raise RuntimeError(f"certificate files cannot be used: {fault}") from fault
        if clientCABundle is None:
            self.logger.warning("no clientCABundle is given: the SWCI is not verified")
        self._caching = enableCaching
        self._cache: dict[str, tuple[float, list[str]]] = {}
        self._errors: str | None = None
        self._clock: Callable[[], float] = time.monotonic
        self._pause: Callable[[float], None] = time.sleep

    # ------------------------------------------------------------ about this client

    def setLogLevel(self, logLevel: int | str) -> None:
        """A level of `logging`, or its name; WARNING for one that is unknown."""
        level: Any = logLevel.upper() if isinstance(logLevel, str) else logLevel
        try:
            self.logger.setLevel(level)
        except (ValueError, TypeError):
            self.logger.setLevel(logging.WARNING)

    def getErrors(self) -> str | None:
        """Why the last call failed; None when it did not."""
        return self._errors

    def clearCache(self) -> None:
        """Forget what is kept, to see what others have done since."""
        self._cache.clear()

    # ------------------------------------------------------------ any command

    def run(self, command: str, timeout: float = PATIENCE) -> list[str]:
        """Give a command as it is written; its lines, within so many seconds."""
        self.clearCache()  # whatever it changes
        return self._run(command, timeout)

    def ask(self, command: str, timeout: float = PATIENCE) -> Any:
        """Give a command; its result as values, None when it failed (or has none)."""
        self.clearCache()
        self._errors = None
        try:
            document = self._connection.document(command, timeout)
            if document.get("ok") is True:
                return document.get("result")
            error = document.get("error") or {}
            causes = error.get("causes") or ["it failed without a reason"]
            self._errors = "\n".join(f"ERROR : {error.get('code')}: {cause}" for cause in causes)
        except (Failure, AttributeError, TypeError) as fault:
            self._errors = f"ERROR : {fault}"
        self.logger.error("%s", self._errors)
        return None

    # ------------------------------------------------------------ session

    def ls(self, optStr: str = "") -> list[str]:
        """Files in the current directory."""
        return self._run(f"LS {optStr}")

    def pwd(self) -> list[str]:
        """The current directory."""
        return self._run("PWD")

    def cd(self, dirPath: str) -> list[str]:
        """Change the current directory."""
        return self._run(f"CD {dirPath}")

    def sleep(self, sleepTime: int) -> list[str]:
        """Wait so many seconds."""
        return self._run(f"SLEEP {sleepTime}", PATIENCE + sleepTime)

    def createContext(
        self, ctxName: str, ip: str | None = None, port: int = 30304, service: str | None = None
    ) -> list[str]:
        """A context for a network node, by address or by service name. Raises RuntimeError."""
        if ip is None and service is None:
            raise RuntimeError("Either ip or service must be provided!")
        where = f"IP {ip} {port}" if ip is not None else f"SERVICE {service}"
        return self._change(f"CREATE CONTEXT {ctxName} WITH {where}", "CONTEXT")

    def switchContext(self, ctxName: str) -> list[str]:
        """Act on this context from now on."""
        self.clearCache()  # all that is kept is about another network
        return self._run(f"SWITCH CONTEXT {ctxName}")

    def listContexts(self) -> list[str]:
        """Names of contexts."""
        return self._kept("LIST CONTEXTS")

    def getContextInfo(self, ctxName: str) -> list[str]:
        """Address, version and settings of a context."""
        return self._kept(f"GET CONTEXT INFO {ctxName}")

    def waitForIP(self, ip: str, port: int = 30304, retries: int = 360) -> list[str]:
        """Wait until a network node answers: so many times 5 seconds at most."""
        return self._wait_for(f"IP {ip} {port}", retries)

    def waitForService(self, service: str, retries: int = 360) -> list[str]:
        """The same for a node behind a reverse proxy."""
        return self._wait_for(f"SERVICE {service}", retries)

    def _wait_for(self, where: str, retries: int) -> list[str]:
        while True:
            now = min(retries, RETRIES_AT_ONCE)
            lines = self._run(f"WAIT FOR {where} {now}", PATIENCE + now * RETRY_SECONDS)
            retries -= now
            if lines or retries <= 0 or " is DOWN" not in str(self._errors):
                return lines

    def listNodes(self) -> list[str]:
        """Nodes that are alive: comma separated rows under a header."""
        return self._run("LIST NODES")

    def getNodes(self) -> list[Node]:
        """The same, taken apart."""
        return answers.nodes(self.listNodes())

    # ------------------------------------------------------------ training contracts

    def createTrainingContract(self, ctName: str) -> list[str]:
        """A new contract."""
        return self._change(f"CREATE CONTRACT {ctName}", "CONTRACT")

    def deleteTrainingContract(self, ctName: str) -> list[str]:
        """Delete a contract that nothing uses."""
        return self._change(f"DELETE CONTRACT {ctName}", "CONTRACT")

    def listTrainingContracts(self) -> list[str]:
        """Names of contracts."""
        return self._kept("LIST CONTRACTS")

    def getTrainingContractInfo(self, ctName: str) -> list[str]:
        """Name and rules of a contract."""
        return self._kept(f"GET CONTRACT INFO {ctName}")

    def getTrainingContractStatus(self, ctName: str) -> list[str]:
        """How far it is, and what it waits for."""
        return self._run(f"GET CONTRACT STATUS {ctName}")

    def getTrainingContractPerformanceData(self, ctName: str) -> list[str]:
        """PERFDATA: comma separated rows under a header."""
        return self._run(f"PERFDATA {ctName}")

    def getPerformance(self, ctName: str = DEFAULT_CONTRACT) -> list[Performance]:
        """The same, taken apart."""
        return answers.performance(self.getTrainingContractPerformanceData(ctName))

    def resetTrainingContract(self, ctName: str = DEFAULT_CONTRACT) -> list[str]:
        """Back to uninitialized, for a new training."""
        return self._change(f"RESET CONTRACT {ctName}", "CONTRACT")

    # ------------------------------------------------------------ tasks

    def createTaskFrom(self, yamlFileName: str) -> list[str]:
        """Register the task in a file of the current directory."""
        return self._change(f"CREATE TASK FROM {yamlFileName}", "TASK")

    def registerTask(self, yamlFileName: str, finalize: bool = True) -> list[str]:
        """Register the task in a file, and finalize it."""
        lines = self.createTaskFrom(yamlFileName)
        if not lines:
            return []
        name = answers.field(lines, "Task Registered")
        if name is None:
            self._errors = f"ERROR : no name of a task in the answer: {'; '.join(lines)}"
            return []
        if finalize and self._failed(self.finalizeTask(name)):
            return []
        return [f"Registered Task : {name}"]

    def finalizeTask(self, taskName: str) -> list[str]:
        """Freeze a task, so that it can be assigned."""
        return self._change(f"FINALIZE TASK {taskName}", "TASK")

    def deleteTask(self, taskName: str) -> list[str]:
        """Delete a task that nothing uses."""
        return self._change(f"DELETE TASK {taskName}", "TASK")

    def getTaskInfo(self, taskName: str) -> list[str]:
        """Type, author, prerequisite and outcome of a task."""
        return self._kept(f"GET TASK INFO {taskName}")

    def getTaskBody(self, taskName: str) -> list[str]:
        """The body of a task, with line numbers."""
        return self._kept(f"GET TASK BODY {taskName}")

    def listTasks(self) -> list[str]:
        """Names of tasks."""
        return self._kept("LIST TASKS")

    def uploadTaskDefintion(self, taskFilePath: str) -> list[str]:
        """Send a file to the current directory of the session."""
        return self._answer(lambda: self._connection.upload(Path(taskFilePath), PATIENCE))

    uploadTaskDefinition = uploadTaskDefintion  # as it is spelled elsewhere

    # ------------------------------------------------------------ taskrunners

    def createTaskRunner(self, trName: str) -> list[str]:
        """A new taskrunner."""
        return self._change(f"CREATE TASKRUNNER {trName}", "TASKRUNNER")

    def deleteTaskRunner(self, trName: str) -> list[str]:
        """Delete a taskrunner that nothing uses."""
        return self._change(f"DELETE TASKRUNNER {trName}", "TASKRUNNER")

    def listTaskRunners(self) -> list[str]:
        """Names of taskrunners."""
        return self._kept("LIST TASKRUNNERS")

    def getTaskRunnerInfo(self, trName: str) -> list[str]:
        """What it works on."""
        return self._kept(f"GET TASKRUNNER INFO {trName}")

    def getTaskRunnerStatus(self, trName: str) -> list[str]:
        """State of its task."""
        return self._run(f"GET TASKRUNNER STATUS {trName}")

    def listTaskRunnerPeers(self, trName: str) -> list[str]:
        """SWOPs that take part: comma separated rows under a header."""
        return self._run(f"LIST TASKRUNNER PEERS {trName}")

    def getTaskRunnerPeerStatus(self, trName: str, idx: int | str) -> list[str]:
        """What a SWOP has reported; `idx` is its index or uid."""
        return self._run(f"GET TASKRUNNER PEER STATUS {trName} {idx}")

    def getPeerStatus(self, trName: str, idx: int | str) -> PeerStatus | None:
        """The same, taken apart; None when it failed."""
        lines = self.getTaskRunnerPeerStatus(trName, idx)
        return answers.peer_status(lines) if lines else None

    def assignTask(
        self,
        taskName: str,
        trName: str = DEFAULT_TASKRUNNER,
        peers: int | str = 1,
        target: str | None = None,
    ) -> list[str]:
        """Start a task: with so many peers, with all that are there (`peers="ALL"`), or on one SWOP
        only (`target`, its uid), which may also be called into the task that is running."""
        how = f"TARGET {target}" if target is not None else f"WITH {peers} PEERS"
        return self._change(f"ASSIGN TASK {taskName} TO {trName} {how}", "TASKRUNNER")

    def resetTaskRunner(self, trName: str = DEFAULT_TASKRUNNER) -> list[str]:
        """Back to idle; SWOPs remove what they started."""
        return self._change(f"RESET TASKRUNNER {trName}", "TASKRUNNER")

    def getTaskState(self, trName: str = DEFAULT_TASKRUNNER) -> str:
        """IDLE, ASSIGNED, RUNNING, COMPLETE or ERROR. Raises RuntimeError when it is not known."""
        state = answers.field(self.getTaskRunnerStatus(trName), "TASK_STATE")
        if state is None:
            raise RuntimeError(f"no status of {trName}: {self._errors or 'it has no TASK_STATE'}")
        return state

    def isTaskDone(self, trName: str) -> bool:
        """Whether no task is running (any more). Raises RuntimeError when it is not known."""
        return self.getTaskState(trName) in (*answers.ENDED, "IDLE")

    def waitForTaskRunner(
        self,
        trName: str = DEFAULT_TASKRUNNER,
        timeout: float | None = None,
        pollWaitInSec: float = 2.0,
    ) -> str:
        """Wait for the end of a task; COMPLETE or ERROR, or IDLE when it was reset.

        Raises TimeoutError after `timeout` seconds, RuntimeError when the state is not known.
        """
        end = None if timeout is None else self._clock() + timeout
        while True:
            state = self.getTaskState(trName)
            if state in (*answers.ENDED, "IDLE"):
                return state
            if end is not None and self._clock() >= end:
                raise TimeoutError(f"{trName} is {state} after {timeout:g} s")
            self._pause(pollWaitInSec)

    def executeTask(
        self,
        taskName: str,
        trName: str = DEFAULT_TASKRUNNER,
        peers: int | str = 1,
        pollWaitInSec: float = 120,
        resetTROnSuccess: bool = True,
    ) -> list[str]:
        """Assign a task, wait for its end, print the statuses, and reset when it is complete.

        The status at the end; `[]` when it could not be assigned. Raises RuntimeError when the
        state is not known any more.
        """
        if not self.assignTask(taskName, trName, peers):
            return []
        state = self.waitForTaskRunner(trName, pollWaitInSec=pollWaitInSec)
        status = self.getTaskRunnerStatus(trName)
        print("\n".join(status))
        for index, *_ in answers.rows(self.listTaskRunnerPeers(trName), 4):
            print("\n".join(self.getTaskRunnerPeerStatus(trName, index)))
        if state == "COMPLETE" and resetTROnSuccess:
            self.resetTaskRunner(trName)
        return status

    # ------------------------------------------------------------ topology

    def plotTopology(
        self,
        SNColour: str = "#ADD8E6",
        SWOPColor: str = "#33FF33",
        SLColor: str = "#FFCCCB",
        attrs: Sequence[str] = (),
    ) -> Any:
        """Draw the nodes with matplotlib, and return the networkx graph.

        `attrs` names columns of LIST NODES that are shown with each node. Raises RuntimeError
        without networkx or matplotlib (extra `topology`).
        """
        from swarmlearning.swci import topology

        colours = {"SN": SNColour, "SWOP": SWOPColor, "SL": SLColor}
        return topology.draw(self.getNodes(), colours, attrs)

    # ------------------------------------------------------------ requests

    def _run(self, command: str, timeout: float = PATIENCE) -> list[str]:
        return self._answer(lambda: self._connection.execute(command.strip(), timeout))

    def _kept(self, command: str) -> list[str]:
        """The answer to a command, from memory while it is young."""
        at, lines = self._cache.get(command, (0.0, []))
        if lines and self._caching and self._clock() - at < CACHE_SECONDS:
            self._errors = None
            return list(lines)
        lines = self._run(command)
        if lines:
            self._cache[command] = (self._clock(), list(lines))
        return lines

    def _change(self, command: str, about: str) -> list[str]:
        """A command that changes something: what is kept about such things is dropped, and also
        when it failed, as it may have had its effect nevertheless."""
        lines = self._run(command)
        for kept in list(self._cache):
            if f" {about} " in f" {kept} " or kept == f"LIST {about}S":
                del self._cache[kept]
        return lines

    def _answer(self, ask: Callable[[], Reply]) -> list[str]:
        self._errors = None
        try:
            reply = ask()
        except (Failure, OSError, ValueError) as fault:
            self._errors = f"ERROR : {fault}"
        else:
            found = answers.errors_of(reply.lines)
            if not found and reply.status == 200:
                return reply.lines
            self._errors = "\n".join(found) or f"ERROR : status {reply.status}"
        self.logger.error("%s", self._errors)
        return []

    def _failed(self, lines: list[str]) -> bool:
        return not lines and self._errors is not None


def _own_logger() -> logging.Logger:
    """`swci-web`: to the console and to a file in the present directory, when that is possible."""
    logger = logging.getLogger("swci-web")
    if not logger.handlers:
        form = logging.Formatter("%(asctime)s : %(name)s : %(levelname)s : %(message)s")
        handlers: list[logging.Handler] = [logging.StreamHandler()]
        try:
            handlers.append(logging.FileHandler("swci-web.log", delay=True))
        except OSError:
            logger.debug("swci-web.log cannot be written")
        for handler in handlers:
            handler.setFormatter(form)
            logger.addHandler(handler)
    return logger
