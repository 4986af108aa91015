"""Event streams: what a client hears, and how often, in virtual time."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing

from sentinel.streams import PING_EVERY, Channel, Pulse, follow_blocks, follow_records


class Client:
    """Notes when something arrives."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.bodies: list[bytes] = []

    async def send(self, message: Any) -> None:
        self.at.append(trio.current_time())
        self.bodies.append(message["body"])

    def longest_silence(self) -> float:
        return max(after - before for before, after in zip(self.at, self.at[1:], strict=False))


async def free(_: float) -> None:
    """No limit."""


def follow(client: Client, beats: float, seconds: float) -> None:
    """Follow a record that never changes while the ledger commits other things."""

    async def main() -> None:
        pulse = Pulse()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                follow_records,
                Channel(client.send),
                pulse,
                lambda: (1, lambda key: {"key": key}),
                ["contracts/quiet"],
                free,
                b"c" * 32,
            )
            for _ in range(int(seconds / beats)):
                await trio.sleep(beats)
                pulse.beat()
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_quiet_record_on_a_busy_ledger_still_gets_pings() -> None:
    client = Client()
    follow(client, beats=0.5, seconds=60)
    assert client.longest_silence() <= PING_EVERY + 0.5
    assert sum(body.startswith(b"data:") for body in client.bodies) == 1


def test_a_quiet_record_on_a_quiet_ledger_gets_pings() -> None:
    client = Client()
    follow(client, beats=60, seconds=60)
    assert client.longest_silence() <= PING_EVERY
    assert len(client.bodies) >= 60 / PING_EVERY


def test_blocks_that_are_not_there_yet_are_waited_for_with_pings() -> None:
    client = Client()

    async def main() -> None:
        pulse = Pulse()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                follow_blocks,
                Channel(client.send),
                pulse,
                lambda: 3,
                lambda height: None,
                1,
                free,
            )
            for _ in range(60):
                await trio.sleep(1)
                pulse.beat()
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert client.longest_silence() <= PING_EVERY + 1
