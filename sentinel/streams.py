"""Server-sent events (WHATWG HTML 9.2) of committed blocks and of changed records.

Every stream reads the state for itself and sleeps on one shared `Pulse`, so a slow reader costs
nothing but its own connection: it skips to the latest records when it is ready for more.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

PING_EVERY = 5.0  # seconds between signs of life on a stream without events

EVENT_UNITS = 0.5  # of the member's share (`sentinel.limits`)

Pay = Callable[[float], Awaitable[None]]
Lookup = Callable[[str], Any]


def to_json(value: Any) -> bytes:
    """Encode plain values; byte strings become hexadecimal."""
    return json.dumps(value, default=bytes.hex, separators=(",", ":")).encode()


class Pulse:
    """Wakes up everybody who waits, at each commit."""

    def __init__(self) -> None:
        self._event = trio.Event()
        self._encoded: dict[str, tuple[Any, bytes]] = {}

    def beat(self) -> None:
        """Wake all that have taken `next` so far."""
        self._encoded.clear()
        self._event.set()
        self._event = trio.Event()

    def encode(self, key: str, record: Any) -> bytes:
        """A record as JSON: made once in a beat for all who are told of it."""
        known, text = self._encoded.get(key, (None, b""))
        if not text or known is not record:
            text = to_json(record)
            self._encoded[key] = record, text
        return text

    def next(self) -> trio.Event:
        """Return the event of the next beat. Take it before reading what it announces."""
        return self._event


class EventStream(Response):
    """A response that runs `produce(emit)` until it returns or the client is gone.

    `on_start` and `on_end` surround it.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        produce: Callable[[Channel], Awaitable[None]],
        status_code: int = 200,  # FastAPI looks here when it writes the OpenAPI document
        *,
        on_start: Callable[[], None] = lambda: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(status_code=status_code, headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._produce = produce
        self._on_start = on_start
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        self._on_start()
        try:
            async with trio.open_nursery() as nursery:

                async def until_gone() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    nursery.cancel_scope.cancel()

                nursery.start_soon(until_gone)
                await self._produce(Channel(send))
                nursery.cancel_scope.cancel()
        finally:
            self._on_end()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Channel:
    """The writing end of one event stream."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._ping_at = trio.current_time() + PING_EVERY

    async def event(self, value: Mapping[str, Any]) -> None:
        """Send one event with a JSON value."""
        await self.text(to_json(value))

    async def text(self, value: bytes) -> None:
        """Send one event with a value that is JSON already."""
        await self._raw(b"data: " + value + b"\n\n")

    async def ping(self) -> None:
        """Send a comment: the stream is alive."""
        await self._raw(b": ping\n\n")

    async def _raw(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self._ping_at = trio.current_time() + PING_EVERY

    async def pause(self, news: trio.Event) -> None:
        """Wait for `news`, with pings.

        A ping is due since the last thing sent: news that is none for this stream is no sign of
        life to its client.
        """
        while not news.is_set():
            with trio.move_on_at(self._ping_at):
                await news.wait()
                return
            await self.ping()


async def follow_records(
    channel: Channel,
    pulse: Pulse,
    snapshot: Callable[[], tuple[int, Lookup]],
    keys: Sequence[str],
    pay: Pay,
    chain: bytes,
) -> None:
    """Send the records of `keys` now, and whenever one of them changes.

    The first event names the `chain`, so that who comes back sees whether it is another one.

    `pay` waits while the client has had more than its share.

    `snapshot` returns height and a lookup of one and the same state. The first event carries all
    keys, later ones only those that changed; a record that does not exist is null.
    """
    known: dict[str, Any] | None = None
    while True:
        news = pulse.next()
        height, lookup = snapshot()
        records = {key: lookup(key) for key in keys}
        changed = {k: v for k, v in records.items() if known is None or v != known[k]}
        if changed or known is None:
            parts = [to_json(key) + b":" + pulse.encode(key, changed[key]) for key in changed]
            first = b',"chain":' + to_json(chain) if known is None else b""
            event = b'{"height":%d,"records":{%b}%b}' % (height, b",".join(parts), first)
            await channel.text(event)
            known = records
            await pay(EVENT_UNITS)
        await channel.pause(news)


async def follow_blocks(
    channel: Channel,
    pulse: Pulse,
    height: Callable[[], int],
    block: Callable[[int], Mapping[str, Any] | None],
    start: int,
    pay: Pay,
) -> None:
    """Send committed blocks from height `start` on, for ever; `pay` as for `follow_records`."""
    at = start
    while True:
        news = pulse.next()
        while at <= height():
            event = block(at)
            if event is not None:
                await channel.event(event)
                await pay(EVENT_UNITS)
            at += 1
        await channel.pause(news)
