"""The outermost layer of the API: refuses, limits, counts, and never lets an exception through."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sentinel import submission
from sentinel.limits import READ, STREAM, TRANSACTION, Crowded, Kind, Member
from sentinel.services import Refusal, Services
from swarm.api.models import PROTOCOL, PROTOCOL_HEADER
from swarm.identity import Peer

log = logging.getLogger("swarm.api")

CROWDED = "SW5009"
OUR_PROTOCOL = (PROTOCOL_HEADER.lower().encode(), str(PROTOCOL).encode())
EVENTS = "/v1/events"


class Door:
    """ASGI middleware; expects `sentinel.server`'s connection state in the scope.

    The application finds the `Member` that a request belongs to in the scope's state.
    """

    def __init__(self, app: ASGIApp, services: Services, submit: submission.Submission) -> None:
        self._app = app
        self._submit = submit
        self._limits = services.limits
        self._refusals = services.refusals
        self._metrics = services.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close"})
            return
        status = size = 0

        async def counted(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), OUR_PROTOCOL]}
            else:
                size += len(message.get("body", b""))
            await send(message)

        kind = _kind(scope)
        member: Member | None = None
        try:
            member = await self._enter(scope, kind)
            app = self._submit if kind is TRANSACTION else self._app
            await app(scope, receive, counted)
        except Crowded as fault:
            if scope["method"] == "POST" and not fault.close:
                await _drain(receive)
            problem = {"code": CROWDED, "text": fault.text}
            await submission.respond(
                counted, 429, problem, retry_after=fault.retry_after, close=fault.close
            )
        except Refusal as fault:
            problem = {"code": fault.code, "text": fault.text}
            await submission.respond(counted, fault.status, problem, close=True)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if not status:
                problem = {"code": "SW1001", "text": "the request failed here; see the node's log"}
                await submission.respond(counted, 500, problem)
        finally:
            if member is not None:
                member.leave(kind, status, 0 if kind is STREAM else size)
            route = scope.get("route")
            path = submission.PATH if kind is TRANSACTION else getattr(route, "path", "other")
            self._metrics.requests[path, status] += 1

    async def _enter(self, scope: Scope, kind: Kind) -> Member:
        """Wait for the request's turn. Raises Crowded, or Refusal for who may not enter at all."""
        state = scope["state"]
        peer: Peer | None = state["peer"]
        if peer is None:
            raise Refusal(403, state["code"], state["refused"])
        _check_protocol(scope)
        try:
            if state["refused"]:
                raise Crowded("connections", state["refused"], 1, close=True)
            member = self._limits.member(peer)
            await member.enter(kind)
        except Crowded as fault:
            self._limits.refuse(peer.common_name, fault.limit)
            self._refusals.note(peer.common_name, "crowded", fault.text)
            raise
        state["member"] = member
        return member


def _check_protocol(scope: Scope) -> None:
    """Raises Refusal when the client says that it speaks another protocol."""
    for name, value in scope["headers"]:
        if name == OUR_PROTOCOL[0] and value != OUR_PROTOCOL[1]:
            theirs = value[:20].decode("latin-1")
            text = f"the client speaks protocol {theirs}, and this network node {PROTOCOL}"
            raise Refusal(400, "SW2012", text)


def _kind(scope: Scope) -> Kind:
    if scope["method"] == "POST" and scope["path"] == submission.PATH:
        return TRANSACTION
    return STREAM if scope["path"] == EVENTS else READ


async def _drain(receive: Receive) -> None:
    """Read a body that is not wanted, so that the connection can go on."""
    try:
        await submission.read_body(receive)
    except Refusal as fault:
        log.debug("the body of a refused request: %s", fault.text)
