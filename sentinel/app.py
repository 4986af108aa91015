"""The API of a network node.

Thin on purpose: it carries signed transactions to the ledger and reads the state from memory. What
a transaction may do is decided by its signature, inside the state machine; who may connect is
decided by the listener (`sentinel.server`).
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import trio
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response
from starlette.exceptions import HTTPException

from sentinel import lookback, schemas, submission
from sentinel.blocks import answer_blocks
from sentinel.door import Door
from sentinel.limits import Member
from sentinel.metrics import CONTENT_TYPE
from sentinel.ports import Ledger
from sentinel.services import Refusal, Services
from sentinel.streams import (
    Channel,
    EventStream,
    Lookup,
    follow_blocks,
    follow_records,
    to_json,
)
from sentinel.submission import Submission
from sentinel.version import VERSION
from swarm.api.models import PROTOCOL
from swarm.identity import Peer, Role, member_fingerprint
from swarm.ledger.state import TABLES
from swarm.ledger.transaction import SignedTransaction

__all__ = ["Refusal", "Services", "make_app"]

MAX_WATCHED = 64  # records in one event stream
HEIGHT_WAIT = 10.0  # seconds that a read waits for its height
_UID = re.compile(r"[0-9a-f]{32}")


def answer(value: Any, status: int = 200) -> Response:
    """Return a JSON answer; byte strings become hexadecimal."""
    return Response(to_json(value), status, media_type="application/json")


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem, "description": text}
    for status, text in (
        (400, "inadmissible or malformed"),
        (403, "not for the role of this certificate"),
        (404, "no such thing"),
        (413, "too large"),
        (415, "not application/cbor"),
        (429, "more than this member's share: ask again after the seconds in Retry-After"),
        (503, "not now: the reason is in the text"),
    )
}


def make_app(services: Services) -> Door:
    """Return the ASGI application."""
    app = FastAPI(
        title="Swarm network node",
        version=VERSION,
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        responses=_ERRORS,
    )
    _add_errors(app)
    _add_node(app, services)
    _add_state(app, services)
    _add_blocks(app, services)
    _add_lookback(app)
    submit = Submission(services)
    _add_transactions(app, submit)
    _add_events(app, services)
    return Door(app, services, submit)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(_: Request, fault: Refusal) -> Response:
        response = answer({"code": fault.code, "text": fault.text}, fault.status)
        if fault.retry_after:
            response.headers["Retry-After"] = str(fault.retry_after)
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, fault: RequestValidationError) -> Response:
        first = fault.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return answer({"code": "SW5006", "text": f"{where}: {first['msg']}"}, 400)

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, fault: HTTPException) -> Response:
        return answer({"code": "SW5006", "text": str(fault.detail)}, fault.status_code)

    @app.exception_handler(Exception)
    async def failed(_: Request, __: Exception) -> Response:
        # The door logs it.
        return answer({"code": "SW1001", "text": "the request failed; see the node's log"}, 500)


def _add_node(app: FastAPI, services: Services) -> None:
    @app.get("/is_up", response_class=PlainTextResponse)
    async def is_up() -> Response:
        """Tell that this node is ready; 503 and the reason while it is not."""
        services.ledger()
        return PlainTextResponse("OK")

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Numbers in Prometheus' text format."""
        return Response(services.metrics.exposition(), media_type=CONTENT_TYPE)

    @app.get("/v1/version", response_model=schemas.Version)
    async def version() -> Response:
        """Version of the program and of this API."""
        return answer({"version": VERSION, "protocol": PROTOCOL})

    @app.get("/v1/status", response_model=schemas.Status)
    async def status() -> Response:
        """This node's view of the network."""
        services.ledger()
        return answer(services.status())

    @app.get("/v1/presence", response_model=dict[str, float])
    async def presence() -> Response:
        """Seconds since each node was last known to be alive."""
        return answer({uid: round(age, 3) for uid, age in services.ages().items()})

    @app.get("/v1/bootstrap", response_model=schemas.Bootstrap)
    async def bootstrap(request: Request) -> Response:
        """What a joining network node needs; only for certificates with the role SN."""
        peer: Peer = request.state.peer
        if peer.role is not Role.SN:
            why = f"{peer.common_name} has the role {peer.role}; bootstrap is for network nodes"
            services.refusals.note(peer.common_name, "role", why)
            raise Refusal(403, "SW5008", why)
        return answer(await services.bootstrap())


def _add_blocks(app: FastAPI, services: Services) -> None:
    @app.get("/v1/blocks", response_model=schemas.BlocksAnswer)
    async def blocks(after: Annotated[int, Query(ge=0)] = 0) -> Response:
        """Blocks and certificates as they are, from height `after` + 1 on, as many as fit.

        With `after=0` come the genesis and the recoveries that this node's operator has accepted:
        together all that `swarm ledger verify` needs.
        """
        ledger = services.ledger()
        return answer(answer_blocks(ledger, await services.bootstrap(), after))


def _add_lookback(app: FastAPI) -> None:
    backs = lookback.LookBacks(trio.current_time)

    @app.post("/v1/look-back", response_model=schemas.LookBackAnswer)
    async def look_back(request: Request, wanted: schemas.LookBackRequest) -> Response:
        """Try to reach ports of the caller, at the address from which it asks and no other.

        Works while this node is starting, too. A member may ask every 10 s, and 10 times at once.
        """
        peer: Peer = request.state.peer
        address = lookback.plain(request.state.address)
        token = bytes.fromhex(wanted.token)
        reached = await backs.look(peer.fingerprint, address, wanted.ports, token)
        return answer({"address": address, "reached": reached, "now_ms": lookback.now_ms()})


def _add_state(app: FastAPI, services: Services) -> None:
    async def reach(height: int) -> Ledger:
        ledger = services.ledger()
        if height > ledger.state.height:
            with trio.move_on_after(HEIGHT_WAIT):
                await ledger.wait_for(height)
        if height > ledger.state.height:
            raise Refusal(
                503, "SW5005", f"height {height} is not here yet; this node is at "
                f"{ledger.state.height}" + _because(ledger.waiting()),
            )  # fmt: skip
        return ledger

    @app.get("/v1/state/{table}", response_model=schemas.TableAnswer)
    async def table(table: str, min_height: Annotated[int, Query(ge=0)] = 0) -> Response:
        """All records of a table, at a height of at least `min_height`."""
        state = (await reach(min_height)).state
        if table not in TABLES:
            raise Refusal(404, "SW5006", f"there is no table {table}")
        records = dict(state.table(table))
        return answer({"height": state.height, "digest": state.digest(), "records": records})

    @app.get("/v1/state/{table}/{key:path}", response_model=schemas.RecordAnswer)
    async def record(table: str, key: str, min_height: Annotated[int, Query(ge=0)] = 0) -> Response:
        """One record, at a height of at least `min_height`."""
        state = (await reach(min_height)).state
        found = state.get(table, key) if table in TABLES else None
        if found is None:
            raise Refusal(404, "SW5006", f"there is no {table}/{key}")
        return answer({"height": state.height, "record": found})


def _add_transactions(app: FastAPI, submit: Submission) -> None:
    @app.post(
        submission.PATH,
        response_model=schemas.TransactionAnswer,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/cbor": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
    )
    async def transactions(
        wait: Annotated[float, Query(ge=0, le=submission.QUORUM_WAIT)] = submission.QUORUM_WAIT,
    ) -> Response:
        """Commit a signed transaction, and answer with the state machine's verdict.

        After `wait` seconds without a quorum the answer is 503 and the reason; the transaction may
        still be committed later. Sending the same bytes again is safe, and returns their verdict.
        """
        return submit


def _add_events(app: FastAPI, services: Services) -> None:
    @app.get("/v1/events", response_class=EventStream)
    async def events(
        request: Request,
        watch: Annotated[list[str] | None, Query(max_length=MAX_WATCHED)] = None,
        start: Annotated[int | None, Query(alias="from", ge=0)] = None,
        uid: str = "",
        min_height: Annotated[int, Query(ge=0)] = 0,
        chain: Annotated[str, Query(max_length=128)] = "",
    ) -> Response:
        """Server-sent events: committed blocks `from` a height, or records to `watch`.

        With `watch=table/id` the first event holds the records as they are, the next ones those
        that changed. An open stream with `uid` is that node's sign of life. `min_height` is one of
        `chain`, where that is given: on another chain it is not waited for.
        """
        ledger = services.ledger()
        peer: Peer = request.state.peer
        _check_uid(uid, peer, ledger)
        ours = chain in ("", ledger.state.chain.hex())
        if ours and min_height > ledger.state.height:
            with trio.move_on_after(HEIGHT_WAIT):
                await ledger.wait_for(min_height)
            if min_height > ledger.state.height:
                raise Refusal(503, "SW5005", f"height {min_height} is not here yet")
        keys = watch or []
        for key in keys:
            if key.partition("/")[0] not in TABLES or "/" not in key:
                raise Refusal(400, "SW5006", f"watch={key}: not table/id of a known table")

        def snapshot() -> tuple[int, Lookup]:
            state = ledger.state
            return state.height, lambda key: state.get(*key.split("/", 1))

        member: Member = request.state.member

        async def produce(channel: Channel) -> None:
            if start is None:
                await follow_records(
                    channel, services.pulse, snapshot, keys, member.pay, ledger.state.chain
                )
            else:
                await follow_blocks(
                    channel,
                    services.pulse,
                    lambda: ledger.state.height,
                    lambda height: _block_event(ledger, height),
                    start,
                    member.pay,
                )

        def attach() -> None:
            if services.presence.attach(uid, peer.fingerprint):
                services.moved(uid, True)

        def detach() -> None:
            if services.presence.detach(uid, peer.fingerprint):
                services.moved(uid, False)

        if not uid:
            return EventStream(produce)
        return EventStream(produce, on_start=attach, on_end=detach)


def _check_uid(uid: str, peer: Peer, ledger: Ledger) -> None:
    """Nobody may pass for another node: the ledger knows whose key a uid belongs to."""
    if not uid:
        return
    if not _UID.fullmatch(uid):
        raise Refusal(400, "SW5006", "uid is not 32 hexadecimal digits")
    record = ledger.state.get("nodes", uid)
    if record is not None and record["fingerprint"] != peer.fingerprint:
        raise Refusal(403, "SW5008", f"{uid} enrolled with the key of another certificate")


def _block_event(ledger: Ledger, height: int) -> dict[str, Any] | None:
    committed = ledger.block(height)
    if committed is None:
        return None
    transactions = []
    for tx, verdict in zip(committed.block.transactions, committed.verdicts, strict=True):
        signed = SignedTransaction.decode(tx)
        transactions.append(
            {
                "id": signed.transaction.id,
                "op": signed.transaction.op,
                "sender": member_fingerprint(signed.chain_der),
                "ok": verdict.ok,
                "code": verdict.code,
                "text": verdict.text,
            }
        )
    return {
        "height": height,
        "digest": committed.block.header.state,
        "time_ms": committed.block.header.time_ms,
        "transactions": transactions,
        "changed": sorted(committed.changed),
    }


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""
