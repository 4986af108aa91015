"""Merge methods through whole rounds: real learners and the real state machine."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from swarm.merge import methods
from swarm.merge.attempt import Attempt
from swarm.merge.methods import MixingWeights
from swarm.merge.progress import Limits
from swarm.merge.wire import Kind
from tests.learner.conftest import Swarm
from tests.learner.program import Host
from tests.merge.test_agreement import lie

PATIENT = Limits(stall=30, unreachable=30)


def opened(swarm: Swarm, count: int, method: str, **args: Any) -> list[Host]:
    hosts = [swarm.start(number, limits=PATIENT) for number in range(count)]
    for host in hosts:
        host.program.send_open(min_peers=count, mergeMethod=method, mergeArgs=args)
    for host in hosts:
        host.program.receive("opened")
    return hosts


def model(value: float) -> dict[str, NDArray[Any]]:
    return {"w": np.full(70_000, value, np.float32), "steps": np.array(int(value), np.int64)}


def results(hosts: Sequence[Host]) -> set[bytes]:
    found = set()
    for host in hosts:
        message, weights = host.program.merged()
        assert message["type"] == "merged"
        host.program.report(message["round"])
        found.add(weights["w"].tobytes() + weights["steps"].tobytes())
    return found


@pytest.mark.parametrize(
    ("method", "value"),
    [
        ("coordmedian", 3),
        ("trimmedmean", 10 / 3),
        ("geomedian", 3),
        ("krum", 3),
        ("multikrum", None),
    ],
)
def test_one_that_is_far_out_does_not_move_a_round(
    swarm: Swarm, method: str, value: float | None
) -> None:
    hosts = opened(swarm, 5, method)
    for base in (0, 10):
        for host, x in zip(hosts, (2, 3, 4, 3, 1e30), strict=True):
            host.program.send_sync({**model(base), "w": np.full(70_000, base + x, np.float32)})
        (merged,) = results(hosts)
        values = np.frombuffer(merged[:-8], np.float32)
        assert base + 2 <= values.min() == values.max() <= base + 4
        assert value is None or values[0] == pytest.approx(base + value, abs=1e-4)


def test_a_round_waits_for_as_many_contributors_as_the_method_needs(swarm: Swarm) -> None:
    hosts = [swarm.start(number, limits=PATIENT, grace=0.2) for number in range(6)]
    for host in hosts[:5]:
        mode = "inactive" if host is hosts[4] else "snapshot"
        host.program.send_open(min_peers=5, mode=mode, mergeMethod="krum")
        host.program.receive("opened")
    for host in hosts[:4]:
        host.program.send_sync(model(1))
    hosts[4].program.send_finish(model(9), weight=0)
    hosts[0].program.hear("krum with f = 1 needs 5 contributing members, 4 are here")
    hosts[5].program.send_open(min_peers=5, mergeMethod="krum")
    hosts[5].program.receive("opened")
    hosts[5].program.send_sync(model(1))
    assert results(hosts[:4] + hosts[5:]) == {model(1)["w"].tobytes() + model(1)["steps"].tobytes()}


class Halves(MixingWeights):
    """The middle between the first two, if there is a third to agree."""

    @classmethod
    def needed(cls, args: object) -> int:
        return 3

    def mix(self, distances: object, weights: Sequence[int]) -> Sequence[float]:
        return [0.5, 0.5] + [0.0] * (len(weights) - 2)


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that offers a merge method."""

    class Installed(metadata.Distribution):
        version = "1.5"

        def read_text(self, filename: str) -> str | None:
            return None

        def locate_file(self, path: Any) -> Any:
            raise NotImplementedError

    point = metadata.EntryPoint("halves", f"{__name__}:Halves", methods.GROUP)
    vars(point)["dist"] = Installed()
    monkeypatch.setattr(methods, "entry_points", lambda group: [point])


@pytest.mark.usefixtures("halves")
def test_a_users_method_merges_and_is_on_the_ledger_with_its_version(swarm: Swarm) -> None:
    hosts = opened(swarm, 3, "halves")
    assert swarm.ledger.contract()["rules"]["merge_method"] == "halves@1.5"
    for number, host in enumerate(sorted(hosts, key=lambda host: host.uid)):
        host.program.send_sync(model(10 * number))
    (merged,) = results(hosts)
    assert set(np.frombuffer(merged[:-8], np.float32)) == {5.0}


@pytest.mark.usefixtures("halves")
def test_a_roster_that_cannot_hold_a_users_method_ends_with_a_clear_reason(swarm: Swarm) -> None:
    """The ledger does not know what such a method needs; the learners do."""
    hosts = [swarm.start(number, limits=PATIENT) for number in range(3)]
    for host in hosts:
        mode = "inactive" if host is hosts[2] else "snapshot"
        host.program.send_open(min_peers=3, mode=mode, mergeMethod="halves")
        host.program.receive("opened")
    for host in hosts[:2]:
        host.program.send_sync(model(1))
    hosts[2].program.send_finish(model(1), weight=0)
    for host in hosts:
        error = host.program.receive("error")
        assert error["code"] == "SW6015"
        assert "halves needs 3 contributing members, 2 are here" in error["text"]


def test_one_that_tells_different_distances_is_put_out_and_named(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = [swarm.start(number, limits=PATIENT) for number in range(4)]
    for host in hosts:
        host.program.send_open(min_peers=3, mergeMethod="geomedian")
    for host in hosts:
        host.program.receive("opened")
    liar = hosts[1]
    sign = liar.learner._dialler.sign

    def two_tongues(attempt: Attempt, j: int, kind: Kind, payload: bytes) -> bytes:
        if kind is not Kind.DISTANCES or attempt.name(j) != "sl-3":
            return payload
        assert attempt.agreement is not None
        matrix = 2 * attempt.agreement.statements[attempt.me].matrix
        return attempt.agreement.state(matrix, sign).frame()

    lie(monkeypatch, liar.uid, two_tongues)
    for number, host in enumerate(hosts):
        host.program.send_sync(model(number))
    assert len(results([host for host in hosts if host is not liar])) == 1
    whys = [args["why"] for op, args, ok, _ in swarm.ledger.log if op == "round.suspect" and ok]
    assert any("different distances" in why for why in whys)
    assert liar.uid not in swarm.ledger.contract()["last"]["roster"]
