"""Work that is given up, from another thread or by its time limit."""

from __future__ import annotations

import threading

import pytest

from swarm.errors import LocalError
from swop.work import Work


def test_giving_up_ends_what_blocks_and_is_the_reason() -> None:
    work = Work()
    closed = threading.Event()
    with pytest.raises(LocalError, match="SW7020: the taskrunner was reset"):  # noqa: SIM117
        with work.on_give_up(closed.set):
            work.give_up("the taskrunner was reset")
            work.give_up("another reason")
            assert closed.wait(10)
            raise OSError("the connection broke")
    with pytest.raises(LocalError, match="SW7020"):
        work.check()
    with pytest.raises(LocalError, match="SW7020"), work.on_give_up(closed.set):
        pytest.fail("it must not begin any more")


def test_other_failures_stay_what_they_are() -> None:
    work = Work()
    closed: list[int] = []
    with pytest.raises(OSError, match="disk"), work.on_give_up(lambda: closed.append(1)):
        raise OSError("disk")
    work.give_up("late")
    assert closed == []


def test_the_time_limit() -> None:
    over = threading.Event()
    with (
        Work(seconds=0.01) as work,
        pytest.raises(LocalError, match=r"SW7020: not done within 0 s .SWOP_TASK_MAX_SECONDS"),
        work.on_give_up(over.set),
    ):
        assert over.wait(10)


def test_a_pause_ends_at_once_when_work_is_given_up() -> None:
    work = Work()
    threading.Timer(0.01, work.give_up, ("reset",)).start()
    with pytest.raises(LocalError, match="SW7020: reset"):
        work.pause(60)


def test_an_act_that_fails_does_not_keep_the_others_from_being_done() -> None:
    work, done = Work(), threading.Event()

    def fail() -> None:
        raise OSError("already closed")

    with pytest.raises(LocalError), work.on_give_up(fail), work.on_give_up(done.set):
        work.give_up("x")
        assert done.wait(10)
