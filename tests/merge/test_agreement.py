"""Who lies about distances: statements and witnesses by themselves, and in real exchanges."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from swarm.identity import Identity, Role
from swarm.merge import sending
from swarm.merge.agreement import Agreement, Statement
from swarm.merge.attempt import Attempt
from swarm.merge.exchange import Exchange, Key, Law
from swarm.merge.methods.base import Matrix
from swarm.merge.progress import Limits
from swarm.merge.sending import Sender
from swarm.merge.wire import LIMITS, MAX_MEMBERS, Channel, Kind, WireError
from tests import pki
from tests.merge.swarmlet import CONTRACT, Node, nodes, vectors
from tests.merge.test_exchange import BOUND, blamed
from tests.processes import until

SUBJECT = bytes(32)
FAR = Limits(stall=60, unreachable=60)
GEO = Law("geomedian")


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> list[Identity]:
    folder = tmp_path_factory.mktemp("trio")
    ca = pki.authority(folder, 1)
    return [pki.identity(folder / str(i), Role.SL, ca) for i in range(3)]


def distances(value: float) -> Matrix:
    """Each of three contributors at a squared distance `value` from the others."""
    return np.full((3, 3), float(value)) - np.diag([float(value)] * 3)


def sides(trio: list[Identity]) -> list[Agreement]:
    names = ["sl-0", "sl-1", "sl-2"]
    return [Agreement(SUBJECT, i, names, 3) for i in range(len(trio))]


def tell(trio: list[Identity], all_sides: list[Agreement], i: int, others: list[Matrix]) -> None:
    """Member `i` sends `others[j]` to member j."""
    for j, matrix in enumerate(others):
        statement = all_sides[i].state(matrix, trio[i].sign)
        if j != i:
            statement = all_sides[j].read(i, statement.frame(), trio[i].public_key_der)
        all_sides[j].statements[i] = statement


def bear_witness(all_sides: list[Agreement]) -> None:
    for i, one in enumerate(all_sides):
        for j, other in enumerate(all_sides):
            if i != j:
                other.hear(i, json.loads(json.dumps(one.witness())))


def test_honest_members_add_up_the_same_and_blame_nobody(trio: list[Identity]) -> None:
    everybody = sides(trio)
    for i in range(3):
        assert everybody[2].missing() == list(range(i, 3))
        tell(trio, everybody, i, [distances(0.1 * (i + 1))] * 3)
    assert not everybody[0].sealed()
    bear_witness(everybody)
    assert all(one.sealed() and not one.liars() for one in everybody)
    assert len({one.total().tobytes() for one in everybody}) == 1
    np.testing.assert_allclose(everybody[0].total(), distances(0.6))


def test_an_owner_with_two_tongues_is_found_by_all_others(trio: list[Identity]) -> None:
    everybody = sides(trio)
    tell(trio, everybody, 0, [distances(1)] * 3)
    tell(trio, everybody, 1, [distances(1), distances(1), distances(2)])
    tell(trio, everybody, 2, [distances(1)] * 3)
    bear_witness(everybody)
    for one in (everybody[0], everybody[2]):
        assert one.liars() == {1: "it sent different distances to different members"}
        assert not one.sealed()


def test_a_witness_that_cannot_show_a_signature_is_the_liar(trio: list[Identity]) -> None:
    everybody = sides(trio)
    for i in range(3):
        tell(trio, everybody, i, [distances(1)] * 3)
    bear_witness(everybody)
    false = everybody[2].witness()
    false["held"][0] = [bytes(32).hex(), everybody[2].statements[0].signature.hex()]
    for one in everybody[:2]:
        one.hear(2, false)
        assert one.liars() == {2: "it shows distances that sl-0 has not signed"}


def test_a_statement_of_another_attempt_or_member_is_not_one(trio: list[Identity]) -> None:
    one, other = Agreement(SUBJECT, 0, ["a", "b", "c"], 3), Agreement(SUBJECT, 1, [], 3)
    elsewhere = Agreement(bytes([1]) * 32, 1, ["a", "b", "c"], 3)
    key = trio[1].public_key_der
    good = other.state(distances(1), trio[1].sign).frame()
    assert one.read(1, good, key).matrix.tolist() == distances(1).tolist()
    stale = elsewhere.state(distances(1), trio[1].sign).frame()
    for payload, i, shown in [
        (stale, 1, key),
        (good, 2, key),
        (good, 1, trio[2].public_key_der),
        (good[:-1], 1, key),
        (good[:72], 1, key),
        (good, 1, b""),
    ]:
        with pytest.raises(WireError, match="not signed"):
            one.read(i, payload, shown)
    for payload in (good[:71], b"", good + bytes(1024)):
        with pytest.raises(WireError, match="expected 72 B and a signature"):
            one.read(1, payload, key)


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        ((0, 1), 7.0, "not symmetric"),
        ((1, 1), 1.0, "from itself"),
        ((1, 1), np.inf, "from itself"),
        ((slice(None), slice(None)), -1.0, "from itself"),
        ((0, 1), np.nan, "not symmetric"),
    ],
)
def test_a_matrix_that_is_none_of_distances(
    trio: list[Identity], place: tuple[int, int], value: float, what: str
) -> None:
    matrix = distances(1)
    matrix[place] = value
    statement = Agreement(SUBJECT, 1, [], 3).state(matrix, trio[1].sign)
    with pytest.raises(WireError, match=what):
        Agreement(SUBJECT, 0, [], 3).read(1, statement.frame(), trio[1].public_key_der)


@pytest.mark.parametrize(
    "held",
    [
        None,
        [],
        [["", ""]] * 3,
        [["00" * 32, "zz"]] * 3,
        [["00" * 32]] * 3,
        [["00" * 31, ""]] * 3,
        [[1, 2]] * 3,
        [1, 2, 3],
        [["00" * 32, "00" * 1025]] * 3,
        [["00" * 32, "00"]] * 4,
    ],
)
def test_malformed_witnesses(held: object) -> None:
    with pytest.raises(WireError, match="WITNESS"):
        Agreement(SUBJECT, 0, ["a", "b", "c"], 3).hear(1, {"held": held})


def test_the_largest_roster_fits_the_frames() -> None:
    agreement = Agreement(SUBJECT, 0, ["name"] * MAX_MEMBERS, MAX_MEMBERS)
    matrix = np.zeros((MAX_MEMBERS, MAX_MEMBERS))
    widest = Statement(matrix, bytes(32), bytes(1024), b"")
    agreement.statements.update(dict.fromkeys(range(MAX_MEMBERS), widest))
    witness = json.dumps(agreement.witness(), separators=(",", ":"))
    assert len(widest.frame()) <= LIMITS[Kind.DISTANCES]
    assert len(witness) <= LIMITS[Kind.WITNESS]


# ---------------------------------------------------------------- in exchanges


@pytest.fixture
def four(tmp_path: Path) -> Callable[[], list[Node]]:
    return lambda: nodes(tmp_path, vectors(4, 70_000))


def begin(members: list[Node]) -> list[Exchange]:
    roster = [node.member() for node in members]
    return [node.begin(roster, Key(CONTRACT, 0, 0), FAR, law=GEO) for node in members]


Frame = Callable[[Attempt, int, Kind, bytes], bytes]


def lie(monkeypatch: pytest.MonkeyPatch, liar: str, change: Frame) -> None:
    """`liar` changes what it sends: (attempt, to whom, kind, payload) -> payload."""
    real = Sender.stream

    def stream(self: Sender, channel: Channel, answer: dict[str, object]) -> None:
        send, attempt = channel.send, self._attempt

        def other(kind: Kind, payload: bytes = b"") -> None:
            if liar in (attempt.name(attempt.me), attempt.uids[attempt.me]):
                payload = change(attempt, self._j, kind, payload)
            send(kind, payload)

        channel.send = other  # type: ignore[method-assign]
        try:
            real(self, channel, answer)
        finally:
            channel.send = send  # type: ignore[method-assign]

    monkeypatch.setattr(Sender, "stream", stream)


def check(members: list[Node], liar: int, why: str) -> None:
    """All others blame the liar and nobody else, and nobody calls a result whole."""
    try:
        exchanges = begin(members)
        for i, exchange in enumerate(exchanges):
            if i != liar:
                found = blamed(exchange)
                assert list(found) == [f"sl-{liar}"] and why in found[f"sl-{liar}"]
        assert all(node.done.empty() for i, node in enumerate(members) if i != liar)
    finally:
        for node in members:
            node.close()


def test_different_distances_to_one_member_are_blamed_by_all(
    four: Callable[[], list[Node]], monkeypatch: pytest.MonkeyPatch
) -> None:
    members = four()

    def two_tongues(attempt: Attempt, j: int, kind: Kind, payload: bytes) -> bytes:
        if kind is not Kind.DISTANCES or j != 3:
            return payload
        assert attempt.agreement is not None
        matrix = 2 * attempt.agreement.statements[attempt.me].matrix
        return attempt.agreement.state(matrix, members[1].identity.sign).frame()

    lie(monkeypatch, "sl-1", two_tongues)
    check(members, 1, "different distances to different members")


def test_a_false_witness_is_blamed_by_all(
    four: Callable[[], list[Node]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def false(attempt: Attempt, j: int, kind: Kind, payload: bytes) -> bytes:
        if kind is not Kind.WITNESS:
            return payload
        held = json.loads(payload)["held"]
        held[0][0] = bytes(32).hex()
        return json.dumps({"held": held}).encode()

    lie(monkeypatch, "sl-2", false)
    check(four(), 2, "distances that sl-0 has not signed")


@pytest.mark.parametrize("side", [0, 3])
def test_who_has_finite_values_does_not_let_itself_be_left_out(
    four: Callable[[], list[Node]], monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    members = four()

    def slander(attempt: Attempt, j: int, kind: Kind, payload: bytes) -> bytes:
        if kind is not Kind.DISTANCES:
            return payload
        assert attempt.agreement is not None
        matrix = attempt.agreement.statements[attempt.me].matrix.copy()
        matrix[side, side] = np.nan
        return attempt.agreement.state(matrix, members[1].identity.sign).frame()

    lie(monkeypatch, "sl-1", slander)
    try:
        exchanges = begin(members)
        assert "says that our weights are not finite" in blamed(exchanges[side])["sl-1"]
    finally:
        for node in members:
            node.close()


@pytest.mark.parametrize("silent", [Kind.DISTANCES, Kind.WITNESS], ids=lambda kind: kind.name)
def test_silence_while_all_agree_is_blamed_by_all_and_nobody_else_is(
    four: Callable[[], list[Node]], monkeypatch: pytest.MonkeyPatch, silent: Kind
) -> None:
    """Their clock moves on once all the others have been heard again."""
    end, now = threading.Event(), [1000.0]

    def hush(attempt: Attempt, j: int, kind: Kind, payload: bytes) -> bytes:
        if kind is silent:
            assert end.wait(BOUND)
        return payload

    monkeypatch.setattr(sending, "WAIT_EVERY", 0.02)
    lie(monkeypatch, "sl-1", hush)
    members = four()
    try:
        roster = [node.member() for node in members]
        limits = Limits(stall=10, unreachable=60)
        key = Key(CONTRACT, 0, 0)
        exchanges = [
            node.begin(roster, key, limits, law=GEO, clock=lambda: now[0]) for node in members
        ]
        honest = [exchange for i, exchange in enumerate(exchanges) if i != 1]
        links = [
            link for one in honest for i, link in one.attempt.links.items() if i != 1
        ]  # among the honest
        until(lambda: all(link.waits or link.complete for link in links), BOUND, "all wait")
        while not all(exchange.poll() for exchange in honest):
            now[0] += 1
            until(
                lambda: all(link.complete or link.since == now[0] for link in links),
                BOUND,
                "all are heard",
            )
        assert 1010 <= now[0] <= 1012
        for exchange in honest:
            (why,) = exchange.poll().values()
            assert exchange.poll() == {"sl-1": why} and "no bytes for" in why
    finally:
        end.set()
        for node in members:
            node.close()


def test_waiting_for_distances_passes_on_how_far_their_owner_is(tmp_path: Path) -> None:
    """The third is slow to take in what is due to it; nobody is to blame while it goes on."""
    members = nodes(tmp_path, vectors(3, 70_000))
    try:
        roster = [node.member() for node in members]
        exchange = members[0].begin(roster, Key(CONTRACT, 0, 0), FAR, law=GEO)
        attempt, third = exchange.attempt, exchange.attempt.uids[2]
        before = attempt.progress_of(2)
        with attempt.changed:
            attempt.links[2].wait_came({third: 5000, "sl-1": 10**9}, attempt.clock())
        assert attempt.progress_of(2) == before + 5000
        assert attempt.own_progress() == 0
        with attempt.changed:
            attempt.ready[2] = 1
        assert attempt.own_progress() == attempt.plan.largest_chunk()
    finally:
        for node in members:
            node.close()
