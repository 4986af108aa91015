"""The outermost layer of the API: refuses, counts, and never lets an exception through."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sentinel.metrics import Metrics
from sentinel.streams import to_json

log = logging.getLogger("swarm.api")


class Door:
    """ASGI middleware; expects `sentinel.server`'s connection state in the scope."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close"})
            return
        status = 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if scope["state"]["peer"] is None:
                await problem(counted, 403, "SW5002", scope["state"]["refused"], close=True)
            else:
                await self._app(scope, receive, counted)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if not status:
                await problem(counted, 500, "SW1001", "the request failed here; see the node's log")
        finally:
            route = scope.get("route")
            self._metrics.requests[getattr(route, "path", "other"), status] += 1


async def problem(send: Send, status: int, code: str, text: str, *, close: bool = False) -> None:
    """Answer with an error outside of the application."""
    body = to_json({"code": code, "text": text})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
