"""WAIT FOR TASKRUNNER: follow a task until it has ended, the time is over, or Ctrl-C."""

from __future__ import annotations

from swci.command import ABSENT, CommandError
from swci.display import moment
from swci.output import Output
from swci.ports import Record, Watch
from swci.presence import silent_operators
from swci.progress import ENDED, Progress, failures
from swci.result import Field, Result, field, fields, instant, said
from swci.session import Session

FAILED = "SW8025"
NO_TASK = "SW8026"
MARK_EVERY = 5.0  # seconds without news between two marks
MAX_CONTRACTS = 20  # that are followed for their progress

_WAIT_SETTINGS = {"SL": "SWCI_RUN_TASK_MAX_WAIT_TIME"}
_OTHER_WAIT_SETTING = "SWCI_GENERIC_TASK_MAX_WAIT_TIME"


def wait_for_taskrunner(session: Session, name: str, out: Output) -> Result:
    """Raises CommandError when the task fails or is reset meanwhile."""
    first = session.record("taskrunners", name)
    if first is None:
        raise CommandError(ABSENT, f"there is no taskrunner {name}")
    if first["state"] == "IDLE":
        raise CommandError(NO_TASK, f"taskrunner {name} is IDLE: no task is assigned to it")
    minutes = _minutes(session, first["peer_type"])
    key = f"taskrunners/{name}"
    contracts = sorted(session.table("contracts"))[:MAX_CONTRACTS]
    watch = session.client.watch([key, *(f"contracts/{contract}" for contract in contracts)])
    try:
        out.line(f"WAITING FOR TASKRUNNER TO COMPLETE - Maximum wait time is : {minutes:g} mins")
        ended = _follow(session, watch, key, first["operation"], minutes * 60, out)
    finally:
        watch.close()
    if ended is None:
        return said("WARNING - Maximum configured SWCI wait time is Over", finished=False)
    result = _told(ended)
    if ended["state"] == "ERROR":
        out.result(result)
        for line in failures(ended):
            out.line(line)
        raise CommandError(
            FAILED, "Task has failed, check TASKRUNNER PEER STATUS for Error description"
        )
    return result


def _told(ended: Record) -> Result:
    """How the task ended."""
    seconds = max(0, ended["ended_ms"] - ended["started_ms"]) / 1000
    return fields(
        Field("finished", True, ("TASKRUNNER FINISHED",)),
        field("STATE", ended["state"]),
        field(
            "TIME",
            instant(ended["ended_ms"]),
            f"{moment(ended['ended_ms'])}, after {seconds:.1f} s",
        ),
        Field("seconds", seconds, ()),
        Field("description", ended["text"], ()),
    )


def _minutes(session: Session, peer_type: str) -> float:
    """The longest wait, from the context's settings."""
    setting = _WAIT_SETTINGS.get(peer_type, _OTHER_WAIT_SETTING)
    text = session.context().env.get(setting, "")
    try:
        minutes = float(text)
    except ValueError:
        minutes = -1.0
    if not 0 < minutes < 1e6:
        raise CommandError("SW8028", f"{setting} is {text!r}, but should be a number of minutes")
    return minutes


def _follow(
    session: Session, watch: Watch, key: str, operation: str, limit: float, out: Output
) -> Record | None:
    """The record of the ended task; None when the time is over."""
    progress = Progress(key.partition("/")[2])
    end = session.clock.monotonic() + limit
    own = session.context().height  # an older record may be from before our ASSIGN
    trouble = watch.error  # not connected yet
    told: set[str] = set()  # operators that are known to be silent
    while True:
        # In this order: a record is at least as new as the connection that was seen before it.
        height, error, connected = watch.height, watch.error, watch.connected
        runner = watch.records[key] if height >= own else None
        for line in progress.update(watch.records, session.clock.monotonic()):
            out.line(line)
        if runner is None and height >= own and connected:
            raise CommandError(NO_TASK, f"taskrunner {key.partition('/')[2]} was deleted meanwhile")
        if runner is not None and runner["operation"] != operation:
            raise CommandError(NO_TASK, f"taskrunner {runner['name']} was reset meanwhile")
        if runner is not None and runner["state"] in ENDED:
            return runner
        if error and error != trouble:
            out.line(f"no news at the moment: {error}")
        trouble = error
        left = end - session.clock.monotonic()
        if left <= 0:
            return None
        news = watch.wait(
            lambda seen, h=height, e=error: seen.height != h or seen.error != e,  # type: ignore[misc]
            min(MARK_EVERY, left),
        )
        if not news:
            silent = dict(silent_operators(session, runner)) if runner and connected else {}
            for uid, sentence in silent.items():
                if uid not in told:
                    out.line(sentence)
            told = set(silent)
            out.mark()
