"""`POST /v1/transactions`, without a framework in between.

All acts of the swarm pass here, hundreds a second under load, and a general router spends more on
each than the ledger does. FastAPI knows the route for its OpenAPI document; the door calls this
response directly.
"""

from __future__ import annotations

from urllib.parse import parse_qs

import trio
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from sentinel.services import Refusal, Services
from sentinel.streams import to_json
from swarm.errors import RemoteError
from swarm.identity import Peer
from swarm.ledger.transaction import MAX_TRANSACTION

PATH = "/v1/transactions"
MAX_DRAIN = 1 << 20  # bytes of a too large body that are read, so that the client sees the answer
BODY_LIMIT = 10.0  # seconds for a body to arrive
QUORUM_WAIT = 30.0  # seconds that a submit waits for its commit
CONTENT_TYPE = b"application/cbor"

# Refusals of the ledger that say nothing about the transaction itself: it may be sent again.
_STATUSES = {"SW3007": 429, "SW3008": 503}


class Submission(Response):
    """The answer to a transaction: its verdict, once it is committed."""

    def __init__(self, services: Services) -> None:
        super().__init__()
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            status, retry, value = 200, 0, await self._judge(scope, receive)
        except Refusal as fault:
            status, retry = fault.status, fault.retry_after
            value = {"code": fault.code, "text": fault.text}
        await respond(send, status, value, retry_after=retry)

    async def _judge(self, scope: Scope, receive: Receive) -> dict[str, object]:
        services = self._services
        started = trio.current_time()
        peer: Peer = scope["state"]["peer"]
        wait = _wait_of(scope["query_string"])
        try:
            _check_type(scope)
            body = await read_body(receive)
        except Refusal as fault:
            services.refusals.note(peer.common_name, "body", f"{fault.text} (transaction)")
            raise
        ledger = services.ledger()
        done = None
        outcome = "waiting"
        try:
            with trio.move_on_after(wait):
                done = await ledger.submit(body)
            if done is not None:
                outcome = "ok" if done[1].ok else "refused"
        except RemoteError as fault:
            outcome = "inadmissible"
            services.refusals.note(peer.common_name, fault.code, f"transaction: {fault}")
            status = _STATUSES.get(fault.code, 400)
            if status == 429:
                services.limits.refuse(peer.common_name, "mempool")
            retry = 1 if status == 429 else 0
            raise Refusal(status, fault.code, fault.cause, retry) from fault
        finally:
            services.metrics.submitted(outcome, trio.current_time() - started)
        if done is None:
            why = ledger.waiting() or f"not committed within {wait:g} s"
            raise Refusal(503, "SW5005", why)
        height, verdict = done
        return {
            "height": height,
            "ok": verdict.ok,
            "code": verdict.code,
            "text": verdict.text,
            "result": verdict.result,
        }


def _wait_of(query: bytes) -> float:
    """Seconds of the parameter `wait`. Raises Refusal."""
    if not query:
        return QUORUM_WAIT
    given = parse_qs(query.decode("latin-1")).get("wait", [""])[-1]
    try:
        wait = float(given) if given else QUORUM_WAIT
    except ValueError:
        wait = -1.0
    if not 0 <= wait <= QUORUM_WAIT:
        raise Refusal(400, "SW5006", f"query.wait: not a number from 0 to {QUORUM_WAIT:g}")
    return wait


def _check_type(scope: Scope) -> None:
    kind = b""
    for name, value in scope["headers"]:
        if name == b"content-type":
            kind = value.partition(b";")[0].strip()
    if kind != CONTENT_TYPE:
        told = kind.decode("latin-1") or "missing"
        raise Refusal(415, "SW5006", f"content type {told}, not application/cbor")


async def read_body(receive: Receive) -> bytes:
    """Read a bounded body. Raises Refusal 413, 400."""
    message = await _part(receive)
    body = message.get("body", b"")
    if message.get("more_body"):
        parts, size = [body], len(body)
        with trio.move_on_after(BODY_LIMIT) as scope:
            while message.get("more_body") and size <= MAX_DRAIN:
                message = await _part(receive)
                size += len(message.get("body", b""))
                if size <= MAX_TRANSACTION:
                    parts.append(message.get("body", b""))
        if scope.cancelled_caught:
            raise Refusal(400, "SW5006", f"the body did not arrive within {BODY_LIMIT:.0f} s")
        if size > MAX_TRANSACTION:
            raise Refusal(413, "SW5006", f"the body has more than {MAX_TRANSACTION} bytes")
        body = b"".join(parts)
    if len(body) > MAX_TRANSACTION:
        raise Refusal(413, "SW5006", f"the body has more than {MAX_TRANSACTION} bytes")
    if not body:
        raise Refusal(400, "SW5006", "the body is empty")
    return bytes(body)


async def _part(receive: Receive) -> Message:
    with trio.move_on_after(BODY_LIMIT):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "SW5006", "the client is gone")
        return message
    raise Refusal(400, "SW5006", f"the body did not arrive within {BODY_LIMIT:.0f} s")


async def respond(
    send: Send, status: int, value: object, *, retry_after: int = 0, close: bool = False
) -> None:
    """Answer with JSON, outside of the framework."""
    body = to_json(value)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if retry_after:
        headers.append((b"retry-after", str(retry_after).encode()))
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
