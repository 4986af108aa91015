"""One session against every kind of peer, in virtual time."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from swarm.errors import RemoteError
from swarm.mesh import codec, frames, port
from swarm.mesh import session as session_module
from swarm.mesh.session import CALLS, FRAMES, FRAMES_BURST, HELLO_TIMEOUT, cast_frame
from tests.mesh.wires import session


def virtual(test: Callable[..., Awaitable[None]]) -> Any:
    """Run an async test with a clock that jumps to the next event."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        trio.run(functools.partial(test, *args, **kwargs), clock=MockClock(autojump_threshold=0))

    return run


HEAD = frames._HEADER
VIOLATIONS = {
    "a cast before HELLO": cast_frame("m", 1),
    "a call before HELLO": frames.frame(frames.CALL, 1, codec.encode(["m", 1])),
    "a huge HELLO": HEAD.pack(frames.MAX_FIRST + 1, frames.HELLO, 0),
    "the largest length": HEAD.pack(2**32 - 1, frames.HELLO, 0),
    "HELLO that is no CBOR": frames.frame(frames.HELLO, 0, b"\xff"),
    "no bytes in HELLO": frames.frame(frames.HELLO, 0),
    "garbage": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}
LATER_VIOLATIONS = {
    "a huge frame": HEAD.pack(frames.MAX_BODY + 1, frames.CAST, 0),
    "the largest length": HEAD.pack(2**32 - 1, frames.CALL, 7),
    "an unknown kind": frames.frame(99, 0, b"\xf6"),
    "kind 0": frames.frame(0, 0, b"\xf6"),
    "a second HELLO": frames.frame(frames.HELLO, 0, codec.encode({"v": 1})),
    "a cast without CBOR": frames.frame(frames.CAST, 0, b""),
    "a cast that is a number": frames.frame(frames.CAST, 0, b"\x07"),
    "a cast of three": frames.frame(frames.CAST, 0, codec.encode(["m", 1, 2])),
    "a call without a name": frames.frame(frames.CALL, 1, codec.encode([5, 1])),
    "a call with a tag": frames.frame(frames.CALL, 1, b"\x82\x61m\xd8\x23\x61("),
    "a nested call": frames.frame(frames.CALL, 1, b"\x82\x61m" + b"\x81" * 5000 + b"\x00"),
    "a beat without sense": frames.frame(frames.BEAT, 0, b"\x9f"),
    "peers without sense": frames.frame(frames.PEERS, 0, b"\x1f"),
}


@pytest.mark.parametrize("case", VIOLATIONS)
@virtual
async def test_violations_at_the_start_end_the_session_only(case: str) -> None:
    async with session() as (made, script, owner):
        await script.raw(VIOLATIONS[case])
        await made.closed.wait()
        assert made.code == "SW2010"
        assert owner.casts == []
        assert (await script.receive())[0] == frames.HELLO
        kind, _, body = await script.receive()
        assert (kind, body[0]) == (frames.BYE, "SW2010")


@pytest.mark.parametrize("case", LATER_VIOLATIONS)
@virtual
async def test_violations_later_end_the_session_only(case: str) -> None:
    async with session() as (made, script, owner):
        await script.hello()
        await script.raw(LATER_VIOLATIONS[case])
        await made.closed.wait()
        assert made.code == "SW2010"
        assert owner.over == [made]
        kind, _, body = await script.receive()
        assert (kind, body[0]) == (frames.BYE, "SW2010")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=8), st.booleans())
def test_no_bytes_whatever_make_a_session_fail(chunks: list[bytes], greet: bool) -> None:
    async def main() -> None:
        async with session() as (made, script, _owner):
            try:
                if greet:
                    await script.hello()
                for chunk in chunks:
                    await script.raw(chunk)
            except trio.BrokenResourceError:
                pass  # it closed on what came before
            script.pipe.close()
            await made.closed.wait()

    trio.run(main, clock=MockClock(autojump_threshold=0))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10), st.integers(0, 2**32 - 1), st.binary(max_size=40)),
             max_size=10)
)  # fmt: skip
def test_no_frames_whatever_make_a_session_fail(sent: list[tuple[int, int, bytes]]) -> None:
    async def main() -> None:
        async with session() as (made, script, _owner):
            try:
                await script.hello()
                for kind, number, body in sent:
                    await script.raw(frames.frame(kind, number, body))
            except trio.BrokenResourceError:
                pass  # it closed on what came before
            script.pipe.close()
            await made.closed.wait()

    trio.run(main, clock=MockClock(autojump_threshold=0))


@virtual
async def test_a_refused_hello_tells_the_peer_why() -> None:
    async with session() as (made, script, _owner):
        await script.send(frames.HELLO, "refuse me")
        await made.closed.wait()
        assert (made.code, made.info) == ("SW2011", None)
        await script.receive()
        assert await script.receive() == (frames.BYE, 0, ["SW2011", "another ledger"])


@virtual
async def test_farewells_cannot_forge_log_lines() -> None:
    async with session() as (made, script, _owner):
        await script.hello()
        await script.send(frames.BYE, ["SW2012", "old\nERROR : all is lost\x1b[31m"])
        await made.closed.wait()
        assert made.why is not None
        assert "old?ERROR" in made.why
        assert made.why.isprintable()


@virtual
async def test_no_hello_ends_it() -> None:
    async with session() as (made, _script, _owner):
        before = trio.current_time()
        await made.closed.wait()
        assert trio.current_time() - before <= HELLO_TIMEOUT + 2
        assert "no hello" in (made.why or "")


@virtual
async def test_a_hello_byte_by_byte_ends_it_as_well() -> None:
    async with session() as (made, script, _owner):
        before = trio.current_time()
        try:
            for byte in frames.frame(frames.HELLO, 0, codec.encode({"x": "y" * 1000})):
                await script.raw(bytes([byte]))
                await trio.sleep(0.5)
        except trio.BrokenResourceError:
            pass  # it lost patience
        await made.closed.wait()
        assert trio.current_time() - before <= HELLO_TIMEOUT + 2


@virtual
async def test_a_silent_peer_is_noticed_within_20_s() -> None:
    async with session() as (made, script, _owner):
        await script.hello()
        before = trio.current_time()
        await made.closed.wait()
        assert port.SILENCE <= trio.current_time() - before <= 20
        assert "silent" in (made.why or "")


@virtual
async def test_any_byte_is_a_sign_of_life() -> None:
    """A large frame on a slow line counts while it arrives."""
    async with session() as (made, script, owner):
        await script.hello()
        for byte in cast_frame("m", "x" * 20):
            await script.raw(bytes([byte]))
            await trio.sleep(port.SILENCE - 1)
        assert made.why is None
        assert owner.casts == [("m", "x" * 20)]


@virtual
async def test_a_peer_that_reads_nothing_is_given_up_and_costs_little() -> None:
    """Frozen with open sockets: it gets what the buffers hold, and the rest is bounded."""
    async with session(capacity=64 * 1024) as (made, script, _owner):
        await script.hello()
        frame = cast_frame("m", b"x" * 1000)
        before = trio.current_time()
        dropped = sum(not made.send(frame) for _ in range(20_000))
        waiting, size = made.backlog
        assert dropped >= 20_000 - frames.QUEUE_FRAMES
        assert waiting <= frames.QUEUE_FRAMES
        assert size <= frames.QUEUE_BYTES
        big = cast_frame("m", b"x" * 1_000_000)
        for _ in range(100):
            made.send(big)
        assert made.backlog[1] <= frames.QUEUE_BYTES
        while made.why is None:  # it goes on sending, so only our writing tells
            await script.raw(cast_frame("m", 1))
            await trio.sleep(1)
        assert trio.current_time() - before <= 20
        assert made.code == "SW2004"


@virtual
async def test_calls_to_a_peer_that_reads_nothing_time_out_and_free_their_place() -> None:
    async with session(capacity=1024) as (made, script, _owner):
        await script.hello()
        codes: list[str] = []

        async def one() -> None:
            with pytest.raises(RemoteError) as caught:
                await made.call("m", b"x" * 100_000, timeout=3)
            codes.append(caught.value.code)

        async with trio.open_nursery() as nursery:
            for _ in range(3 * CALLS):
                nursery.start_soon(one)
        assert codes == ["SW2002"] * (3 * CALLS)
        assert made.backlog[1] <= frames.QUEUE_BYTES
        assert not made._answers
        assert made._slots.value == CALLS


@virtual
async def test_a_cancelled_caller_cuts_no_frame() -> None:
    async with session(capacity=1024) as (made, script, _owner):
        await script.hello()
        with trio.move_on_after(0.1):
            await made.call("first", b"x" * 50_000, timeout=30)
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                for expected in ("first", "second"):
                    kind, number, body = await script.receive()
                    assert (kind, body[0]) == (frames.CALL, expected)
                    await script.send(frames.RESULT, "done", number)

            nursery.start_soon(answer)
            assert await made.call("second", None, timeout=30) == "done"


@virtual
async def test_at_most_so_many_calls_are_served_at_a_time() -> None:
    async with session() as (_made, script, owner):
        release = trio.Event()
        running = 0
        most = 0

        async def slow(_arg: Any) -> Any:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await release.wait()
            running -= 1
            return "done"

        owner.handlers["slow"] = slow
        await script.hello()
        for number in range(1, 200):
            await script.send(frames.CALL, ["slow", None], number)
        for number in range(CALLS + 1, 200):
            assert await script.receive() == (
                frames.ERROR, number, ["SW2007", f"{CALLS} requests under way"],
            )  # fmt: skip
        release.set()
        answered = {(await script.receive())[1] for _ in range(CALLS)}
        assert answered == set(range(1, CALLS + 1))
        assert most == CALLS


@virtual
async def test_our_own_calls_stay_within_the_peers_limit() -> None:
    async with session() as (made, script, _owner):
        await script.hello()
        async with trio.open_nursery() as nursery:
            for n in range(100):
                nursery.start_soon(made.call, "m", n, 30.0)
            await trio.testing.wait_all_tasks_blocked()
            asked = [await script.receive() for _ in range(CALLS)]
            assert not script.incoming.data
            for _, number, _ in asked:
                await script.send(frames.RESULT, None, number)
            for _ in range(100 - CALLS):
                _, number, _ = await script.receive()
                await script.send(frames.RESULT, None, number)


@virtual
async def test_answers_that_nobody_waits_for_are_ignored() -> None:
    async with session() as (made, script, _owner):
        await script.hello()
        for number in (0, 1, 2**32 - 1):
            await script.raw(frames.frame(frames.RESULT, number, b"not even CBOR"))
            await script.send(frames.ERROR, ["SW2005", "x"], number)
        await script.send(frames.CALL, ["none", 1], 5)
        assert await script.receive() == (frames.ERROR, 5, ["SW2006", "none"])
        assert made.why is None


@virtual
async def test_a_senseless_answer_fails_the_call_only() -> None:
    async with session() as (made, script, _owner):
        await script.hello()
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                _, number, _ = await script.receive()
                await script.raw(frames.frame(frames.RESULT, number, b"\xff"))

            nursery.start_soon(answer)
            with pytest.raises(RemoteError) as caught:
                await made.call("m", None, timeout=5)
        assert caught.value.code == "SW2010"
        assert made.why is None


@virtual
async def test_a_flood_leaves_others_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "FRAMES_BURST", 1e6)
    async with session(capacity=1 << 22) as (made, script, owner):
        await script.hello()
        flood = b"".join(cast_frame("m", n) for n in range(50_000))
        await script.raw(flood)
        turns = 0
        while len(owner.casts) < 50_000:
            await trio.sleep(0)
            turns += 1
        assert turns >= 50_000 // (2 * session_module._YIELD_EVERY)
        assert made.why is None


@virtual
async def test_a_flood_is_read_no_faster_than_the_share_of_a_peer() -> None:
    async with session() as (_, script, owner):
        await script.hello()
        seconds = 20
        count = int(FRAMES_BURST + seconds * FRAMES)
        flood = cast_frame("m", 1) * 500
        began = trio.current_time()
        for _ in range(count // 500):
            await script.raw(flood)
        while len(owner.casts) < count - 500:
            await trio.sleep(0.1)
        # What was read in one piece is handled before it is paid for.
        assert trio.current_time() - began >= seconds - 6
        assert owner.slow > 0


@virtual
async def test_what_the_ledger_sends_under_full_load_is_not_slowed() -> None:
    async with session() as (_, script, owner):
        await script.hello()
        for _ in range(1000):
            await script.raw(cast_frame("ledger", [b"x" * 5000] * 3) * 10)
            await trio.sleep(0.02)
        while len(owner.casts) < 10_000:
            await trio.sleep(0.01)
        assert owner.slow == 0


@virtual
async def test_signs_of_life_go_first_and_do_not_pile_up() -> None:
    async with session(capacity=1024) as (made, script, owner):
        beats = 0

        def payload() -> bytes:
            nonlocal beats
            beats += 1
            return codec.encode(beats)

        owner.payload = payload
        await script.hello()
        await trio.testing.wait_all_tasks_blocked()
        for n in range(500):
            made.send(cast_frame("m", [n, b"x" * 100]))
        await trio.sleep(2.2 * port.BEAT)
        seen = []
        while (frame := await script.receive(beats=True)) != (
            frames.CAST,
            0,
            ["m", [499, b"x" * 100]],
        ):
            if frame[0] == frames.BEAT:
                seen.append(frame[2])
        assert seen == [1, 3]  # the one between them was replaced
        assert made.why is None


@virtual
async def test_a_process_that_stood_still_does_not_blame_its_peers() -> None:
    async with session() as (made, script, owner):
        await script.hello()
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        await trio.testing.wait_all_tasks_blocked()
        clock.jump(60)  # stopped for a minute; the peer went on sending meanwhile
        await trio.sleep(0)
        await script.send(frames.CAST, ["m", 1])
        await trio.sleep(1)
        assert made.why is None
        assert owner.casts == [("m", 1)]


@virtual
async def test_what_is_under_way_survives_retirement() -> None:
    async with session() as (made, script, owner):

        async def slow(_arg: Any) -> Any:
            await trio.sleep(2)
            return "late"

        owner.handlers["slow"] = slow
        await script.hello()
        await script.send(frames.CALL, ["slow", None], 9)
        await trio.testing.wait_all_tasks_blocked()
        made.retire()
        assert await script.receive() == (frames.RESULT, 9, "late")
        await made.closed.wait()
        assert "superseded" in (made.why or "")


@virtual
async def test_the_end_fails_all_calls_at_once() -> None:
    async with session() as (made, script, _owner):
        await script.hello()
        codes: list[str] = []

        async def one() -> None:
            with pytest.raises(RemoteError) as caught:
                await made.call("m", None, timeout=100)
            codes.append(caught.value.code)

        async with trio.open_nursery() as nursery:
            for _ in range(2 * CALLS):
                nursery.start_soon(one)
            await trio.testing.wait_all_tasks_blocked()
            before = trio.current_time()
            script.pipe.close()
        assert trio.current_time() - before < 3
        assert codes == ["SW2003"] * (2 * CALLS)
        with pytest.raises(RemoteError):
            await made.call("m", None, timeout=1)
        assert not made.send(cast_frame("m", 1))
