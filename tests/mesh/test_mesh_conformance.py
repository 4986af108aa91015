"""What every `MeshPort` promises, held against the real mesh and against the double."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from swarm.errors import LocalError, RemoteError
from swarm.mesh.port import MAX_MESSAGE, PeerInfo
from tests.mesh.harness import Stage, scene
from tests.mesh.watch import Log, Peers


async def echo(_peer: PeerInfo, arg: Any) -> Any:
    return arg


async def code_of(awaitable: Any) -> str:
    with pytest.raises(RemoteError) as caught:
        await awaitable
    return caught.value.code


@scene
async def test_a_call_is_answered_with_plain_values(stage: Stage) -> None:
    a, b = await stage.join("a"), await stage.join("b")
    b.handle("echo", echo)
    values: list[Any] = [
        None, True, 0, -1, 2**63, 1.5, "ä", b"\x00\xff", [], {}, {"a": [1, {"b": b""}]},
        "x" * 100_000,
    ]  # fmt: skip
    for value in values:
        assert await a.call(b.peer_id, "echo", value) == value


@scene
async def test_the_handler_knows_who_calls(stage: Stage) -> None:
    a, b = await stage.join("a"), await stage.join("b")

    async def who(peer: PeerInfo, _arg: Any) -> Any:
        return [peer.peer_id, peer.uid, peer.fingerprint, peer.common_name]

    b.handle("who", who)
    mine = next(p for p in b.peers() if p.peer_id == a.peer_id)
    assert await a.call(b.peer_id, "who") == [
        mine.peer_id, mine.uid, mine.fingerprint, mine.common_name,
    ]  # fmt: skip


@scene
async def test_receivers_get_copies(stage: Stage) -> None:
    a, b = await stage.join("a"), await stage.join("b")
    kept: list[Any] = []

    async def keep(_peer: PeerInfo, arg: Any) -> Any:
        kept.append(arg)
        return arg

    b.handle("keep", keep)
    sent = {"list": [1]}
    answer = await a.call(b.peer_id, "keep", sent)
    answer["list"].append(2)
    sent["list"].append(3)
    assert kept == [{"list": [1]}]


@scene
async def test_failures_have_their_codes(stage: Stage) -> None:
    a, b = await stage.join("a"), await stage.join("b")

    async def fail(_peer: PeerInfo, _arg: Any) -> Any:
        raise ZeroDivisionError("secret insides")

    async def refuse(_peer: PeerInfo, _arg: Any) -> Any:
        raise RemoteError("SW2011", "on purpose")

    async def never(_peer: PeerInfo, _arg: Any) -> Any:
        await trio.sleep_forever()

    async def unfit(_peer: PeerInfo, _arg: Any) -> Any:
        return object()

    for name, handler in {"fail": fail, "refuse": refuse, "never": never, "unfit": unfit}.items():
        b.handle(name, handler)
    with pytest.raises(RemoteError) as caught:
        await a.call(b.peer_id, "fail")
    assert caught.value.code == "SW2005"
    assert "secret" not in caught.value.cause
    with pytest.raises(RemoteError) as caught:
        await a.call(b.peer_id, "refuse")
    assert (caught.value.code, caught.value.cause) == ("SW2011", "on purpose")
    assert await code_of(a.call(b.peer_id, "nothing")) == "SW2006"
    assert await code_of(a.call(b.peer_id, "never", timeout=0.05)) == "SW2002"
    assert await code_of(a.call(b.peer_id, "unfit")) == "SW2014"
    assert await code_of(a.call("nobody", "fail")) == "SW2001"
    b.handle("fail", echo)
    assert await a.call(b.peer_id, "fail", 1) == 1


@scene
async def test_what_cannot_travel_is_the_callers_mistake(stage: Stage) -> None:
    a, b = await stage.join("a"), await stage.join("b")
    b.handle("echo", echo)
    assert len(await a.call(b.peer_id, "echo", b"x" * (MAX_MESSAGE - 5))) == MAX_MESSAGE - 5
    for bad in (object(), {1: 2}, 2**70, b"x" * MAX_MESSAGE, {"deep": _nested(100)}):
        with pytest.raises(LocalError) as caught:
            await a.call(b.peer_id, "echo", bad)
        assert caught.value.code == "SW2014"
        with pytest.raises(LocalError):
            a.cast("echo", bad)
    assert await a.call(b.peer_id, "echo", 1) == 1


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@scene
async def test_calls_run_side_by_side_and_are_not_mixed_up(stage: Stage) -> None:
    a, b = await stage.join("a"), await stage.join("b")
    gates = [trio.Event() for _ in range(20)]

    async def gated(_peer: PeerInfo, n: Any) -> Any:
        await gates[n].wait()
        if n:
            gates[n - 1].set()
        return n

    b.handle("gated", gated)
    answers: dict[int, int] = {}

    async def one(n: int) -> None:
        answers[n] = await a.call(b.peer_id, "gated", n)

    async with trio.open_nursery() as nursery:
        for n in range(20):
            nursery.start_soon(one, n)
        gates[-1].set()
    assert answers == {n: n for n in range(20)}


@scene
async def test_call_all_reports_each_peer(stage: Stage) -> None:
    a, b, c = await stage.join("a"), await stage.join("b"), await stage.join("c")
    b.handle("n", echo)
    answers = await a.call_all("n", 5)
    assert set(answers) == {b.peer_id, c.peer_id}
    assert answers[b.peer_id] == 5
    assert isinstance(answers[c.peer_id], RemoteError)
    assert answers[c.peer_id].code == "SW2006"


@scene
async def test_casts_reach_all_or_one_in_order(stage: Stage) -> None:
    a, b, c = await stage.join("a"), await stage.join("b"), await stage.join("c")
    at_b: Log[Any] = Log()
    at_c: Log[Any] = Log()
    b.on_cast("n", lambda peer, n: at_b.append((peer.peer_id, n)))
    c.on_cast("n", lambda peer, n: at_c.append((peer.peer_id, n)))
    for n in range(100):
        a.cast("n", n)
    a.cast("n", "only b", to=b.peer_id)
    a.cast("n", "nobody", to="unknown")
    a.cast("unheard of", 1)
    a.cast("n", "end")
    await at_c.length(101)
    await at_b.length(102)
    assert at_b == [(a.peer_id, n) for n in [*range(100), "only b", "end"]]
    assert at_c == [(a.peer_id, n) for n in [*range(100), "end"]]


@scene
async def test_a_failing_cast_handler_harms_nobody(stage: Stage) -> None:
    a, b = await stage.join("a"), await stage.join("b")
    got: Log[Any] = Log()

    def handler(_peer: PeerInfo, n: Any) -> None:
        got.append(n)
        raise RuntimeError("on purpose")

    b.on_cast("n", handler)
    a.cast("n", 1)
    a.cast("n", 2)
    await got.length(2)
    b.handle("echo", echo)
    assert await a.call(b.peer_id, "echo", 3) == 3


@scene
async def test_who_leaves_is_reported_and_may_return(stage: Stage) -> None:
    a, b = await stage.join("a"), await stage.join("b")
    watch = Peers(a)

    def broken(_peer: PeerInfo, _up: bool, _why: str) -> None:
        raise RuntimeError("on purpose")

    a.on_peer(broken)
    for _ in range(3):
        await stage.leave("b")
        assert await watch.down(b.peer_id)
        assert a.peers() == []
        assert await code_of(a.call(b.peer_id, "echo")) == "SW2001"
        again = await stage.join("b")
        assert again.peer_id == b.peer_id
        await watch.up(b.peer_id)
        again.handle("echo", echo)
        assert await a.call(b.peer_id, "echo", 1) == 1
    assert watch.alternates()


@scene
async def test_a_call_fails_when_its_peer_leaves(stage: Stage) -> None:
    a, b = await stage.join("a"), await stage.join("b")
    arrived = trio.Event()

    async def never(_peer: PeerInfo, _arg: Any) -> Any:
        arrived.set()
        await trio.sleep_forever()

    b.handle("never", never)
    codes: list[str] = []

    async def caller() -> None:
        codes.append(await code_of(a.call(b.peer_id, "never", timeout=60)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller)
        with trio.fail_after(30):
            await arrived.wait()
        await stage.leave("b")
    assert codes == ["SW2003"]


@scene
async def test_signs_of_life_carry_a_value(stage: Stage) -> None:
    a = await stage.join("a")
    at_a: Log[Any] = Log()

    def broken(_peer: PeerInfo, _value: Any) -> None:
        raise RuntimeError("on purpose")

    a.on_beat(broken)
    a.on_beat(lambda peer, value: at_a.append((peer.peer_id, value)))
    b = await stage.join("b")
    b.set_beat(lambda: {"height": 7})
    await at_a.until(lambda log: (b.peer_id, {"height": 7}) in log)
    uid = next(p.uid for p in a.peers())
    age = a.last_seen(uid)
    assert age is not None
    assert 0 <= age < 6
    assert a.last_seen("unknown") is None
    await stage.leave("b")
    await Peers(a).events.until(lambda _: not a.peers())
    assert a.last_seen(uid) is not None
