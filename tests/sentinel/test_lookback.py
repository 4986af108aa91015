"""The SN looks back at its caller: at nobody else, for nobody else's secret, and rarely."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from sentinel import lookback
from sentinel.lookback import LookBacks
from sentinel.services import Refusal
from swarm.identity import Identity, Role
from tests import pki
from tests.processes import free_port
from tests.sentinel.harness import LiveApi
from tests.sentinel.test_api import ask, post

TOKEN = bytes(range(16))


@contextlib.contextmanager
def answering(*says: bytes) -> Iterator[int]:
    """A port of loopback that says something, in parts, to each who comes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                stream, _ = listener.accept()
                with stream:
                    for part in says:
                        stream.sendall(part)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


@pytest.fixture
def ca(tmp_path: Path) -> pki.Authority:
    return pki.authority(tmp_path)


@pytest.fixture
def api(tmp_path: Path, ca: pki.Authority) -> Iterator[LiveApi]:
    with LiveApi(pki.identity(tmp_path, Role.SN, ca)) as live:
        yield live


@pytest.fixture
def member(tmp_path: Path, ca: pki.Authority) -> Identity:
    return pki.identity(tmp_path, Role.SL, ca)


def look(api: LiveApi, member: Identity, body: object) -> tuple[int, dict[str, object]]:
    raw = json.dumps(body).encode()
    status, answer = ask(api, member, post(raw, "application/json", "/v1/look-back"))
    return status, json.loads(answer)


def test_what_it_reaches(api: LiveApi, member: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    api.starting = "it is joining"  # it looks back already
    monkeypatch.setattr(lookback, "LIMIT", 30.0)  # which is not used up
    with answering(TOKEN) as whole, answering(TOKEN[:7], TOKEN[7:]) as parts:
        status, answer = look(api, member, {"ports": [whole, parts, whole], "token": TOKEN.hex()})
    assert status == 200
    assert answer["address"] == "127.0.0.1"
    assert answer["reached"] == sorted([whole, parts])
    now = answer["now_ms"]
    assert isinstance(now, int) and abs(now / 1000 - time.time()) < 60


def test_what_it_does_not_reach(
    api: LiveApi, member: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookback, "LIMIT", 0.5)
    with answering(b"SSH-2.0-something\r\n") as other, answering() as silent:
        ports = [free_port(), other, silent]
        status, answer = look(api, member, {"ports": ports, "token": TOKEN.hex()})
    assert (status, answer["reached"]) == (200, [])


@pytest.mark.parametrize(
    "body",
    [
        {"ports": [], "token": TOKEN.hex()},
        {"ports": list(range(1, 18)), "token": TOKEN.hex()},
        {"ports": [0], "token": TOKEN.hex()},
        {"ports": [65536], "token": TOKEN.hex()},
        {"ports": ["22"], "token": ""},
        {"ports": [22], "token": TOKEN.hex() + "00"},
        {"token": TOKEN.hex()},
        [22],
        "x",
    ],
)
def test_bodies_that_are_refused(api: LiveApi, member: Identity, body: object) -> None:
    status, answer = look(api, member, body)
    assert (status, answer["code"]) == (400, "SW5006")


def test_an_address_of_the_callers_choice_has_no_effect(api: LiveApi, member: Identity) -> None:
    with answering(TOKEN) as port:
        wanted = {"ports": [port], "token": TOKEN.hex(), "address": "192.0.2.1", "host": "x"}
        status, answer = look(api, member, wanted)
    assert (status, answer["address"], answer["reached"]) == (200, "127.0.0.1", [port])


def test_each_member_rarely(
    api: LiveApi, member: Identity, tmp_path: Path, ca: pki.Authority
) -> None:
    with answering(TOKEN) as port:
        wanted = {"ports": [port], "token": TOKEN.hex()}
        statuses = [look(api, member, wanted)[0] for _ in range(int(lookback.BURST) + 1)]
        assert statuses[:-1] == [200] * int(lookback.BURST)
        assert statuses[-1] == 429
        other = pki.identity(tmp_path, Role.SWOP, ca)
        assert look(api, other, wanted)[0] == 200


def test_closed_and_foreign_ports_take_the_same_time() -> None:
    """On a clock that jumps when nothing happens: the answer comes at the limit, whatever it is."""

    async def main() -> list[float]:
        times = []
        with answering(b"x" * 16) as foreign:
            for port in (free_port(), foreign):
                begun = trio.current_time()
                assert await lookback._reached("127.0.0.1", [port], TOKEN) == []
                times.append(trio.current_time() - begun)
        return times

    clock = trio.testing.MockClock(autojump_threshold=0.1)
    assert trio.run(main, clock=clock) == [lookback.LIMIT, lookback.LIMIT]


def test_so_many_at_the_same_time() -> None:
    async def main() -> None:
        backs = LookBacks(trio.current_time)
        async with trio.open_nursery() as nursery:
            for number in range(lookback.AT_ONCE):
                nursery.start_soon(backs.look, f"member {number}", "127.0.0.1", [closed], TOKEN)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Refusal, match="others already"):
                await backs.look("one more", "127.0.0.1", [closed], TOKEN)
            nursery.cancel_scope.cancel()
        assert not backs._under_way

    closed = free_port()
    trio.run(main)


def test_addresses() -> None:
    assert lookback.plain("::ffff:10.0.0.1") == "10.0.0.1"
    assert lookback.plain("fe80::1") == "fe80::1"
