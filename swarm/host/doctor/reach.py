"""Facts from the network nodes: who answers, whose clock differs, and what they reach of us."""

from __future__ import annotations

import http.client
import json
import logging
import re
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from swarm.api.models import Endpoint
from swarm.api.transport import Answer, Transport, code_of
from swarm.errors import RemoteError
from swarm.host.doctor.facts import DoorFact, SnFact
from swarm.host.hostfile import split_place
from swarm.identity import Identity

log = logging.getLogger("swarm.doctor")

CONNECT_SECONDS = 3.0
ASK_SECONDS = 10.0  # a look back takes up to three
MAX_SNS, MAX_DOORS = 25, 64
MAX_PORTS = 16  # in one request to look back
_MULTIADDRESS = re.compile(r"/(?:ip4|ip6|dns|dns4|dns6)/([^/]+)/tcp/(\d{1,5})")


@dataclass(frozen=True)
class Asking:
    """Who asks, and which of its ports answer with which token."""

    identity: Identity
    ports: Sequence[int]
    token: bytes


def ask_all(
    asking: Asking, places: Sequence[str], own_sns: Sequence[tuple[str, int]], own: str
) -> tuple[tuple[SnFact, ...], tuple[DoorFact, ...]]:
    """Ask the given SNs, and those that they, or running ones of this host, know.

    `own` is this host's address, "" where it stands for other hosts as well.
    """
    with ThreadPoolExecutor(max_workers=8) as pool:
        records: dict[str, dict[str, Any]] = {}
        listed = pool.map(lambda place: _known_by(asking.identity, place), own_sns)
        first = list(pool.map(lambda place: _ask(asking, place, True), places))
        for known in (*listed, *(known for _, known in first)):
            records.update(known)
        named = {*map(split_place, places), *own_sns}
        further = [
            place
            for place in _places_of(records.values())
            if split_place(place) not in named and split_place(place)[0] != own
        ]
        room = max(0, MAX_SNS - len(places))
        second = list(pool.map(lambda place: _ask(asking, place, False), further[:room]))
        doors = list(pool.map(_door, _doors_of(records.values(), own)))
    return tuple(fact for fact, _ in (*first, *second)), tuple(doors)


def _known_by(identity: Identity, place: tuple[str, int]) -> Mapping[str, dict[str, Any]]:
    """The nodes that an SN of this host lists; none when it does not answer."""
    transport = Transport(identity, Endpoint(*place), ASK_SECONDS)
    try:
        return _nodes(transport)
    except RemoteError as error:
        log.debug("%s:%d: %s", *place, error)
        return {}
    finally:
        transport.close()


def _ask(asking: Asking, place: str, needed: bool) -> tuple[SnFact, Mapping[str, dict[str, Any]]]:
    """One SN, and the nodes that it lists."""
    transport = Transport(asking.identity, Endpoint(*split_place(place)), ASK_SECONDS)
    fact: dict[str, Any] = {"place": place, "needed": needed}
    try:
        fact |= _greet(transport)
        fact |= _look_back(transport, asking)
        records = _nodes(transport)
    except RemoteError as error:
        return SnFact(place, needed, (error.code, error.cause)), {}
    finally:
        transport.close()
    return SnFact(**fact), records


def _greet(transport: Transport) -> dict[str, Any]:
    """Whether it is ready, and its clock by the date of its answer."""
    connection = transport.connect(ASK_SECONDS)
    try:
        begun = time.time()
        connection.request("GET", "/is_up")
        response = connection.getresponse()
        body = response.read(64 * 1024)
        middle = (begun + time.time()) / 2
    except (OSError, http.client.HTTPException):
        # Refused behind the handshake, perhaps: this way of asking finds out why.
        transport.exchange("GET", "/is_up")
        return {}
    finally:
        connection.close()
    found: dict[str, Any] = {}
    date = response.getheader("Date")
    if date is not None:
        try:  # whole seconds, cut off: half of one is the best guess for the rest
            found["skew"] = round(parsedate_to_datetime(date).timestamp() + 0.5 - middle, 1)
        except (ValueError, TypeError):
            found["skew"] = None
    if response.status != 200:
        found["starting"] = _text(body).removeprefix("this node is not ready: ")
    return found


def _look_back(transport: Transport, asking: Asking) -> dict[str, Any]:
    asked = tuple(asking.ports[:MAX_PORTS])
    if not asked:
        return {}
    body = json.dumps({"ports": asked, "token": asking.token.hex()}).encode()
    answer = transport.exchange(
        "POST", "/v1/look-back", body=body, headers={"Content-Type": "application/json"}
    )
    if answer.status in (404, 405):
        return {"no_look_back": "its version cannot look back"}
    if answer.status != 200:
        return {"no_look_back": answer.text or f"status {answer.status}"}
    try:
        value = answer.value
        reached = tuple(port for port in value["reached"] if port in asked)
        seen_as, now = str(value["address"])[:64], float(value["now_ms"]) / 1000
    except (KeyError, TypeError, ValueError, OverflowError):
        return {"no_look_back": "its answer is malformed"}
    # Its clock is read when the answer goes out: finer than a date in whole seconds.
    skew = round(now - time.time(), 1)
    return {"seen_as": seen_as, "asked": asked, "reached": reached, "skew": skew}


def _nodes(transport: Transport) -> dict[str, dict[str, Any]]:
    """The ledger's nodes; none from an SN that is not ready."""
    answer: Answer = transport.exchange("GET", "/v1/state/nodes")
    if answer.status != 200 or code_of(answer):
        return {}
    records = answer.value.get("records") if isinstance(answer.value, dict) else None
    if not isinstance(records, dict):
        return {}
    return {uid: one for uid, one in records.items() if isinstance(one, dict)}


def _places_of(records: Iterable[dict[str, Any]]) -> Iterator[str]:
    for record in records:
        if record.get("type") in ("SN", "SENTINEL") and record.get("active") and record.get("host"):
            host = str(record["host"])
            place = f"[{host}]:{record.get('port')}" if ":" in host else f"{host}:{record['port']}"
            try:
                split_place(place)
            except ValueError:
                continue
            yield place


def _doors_of(records: Iterable[dict[str, Any]], own: str) -> list[tuple[str, int, str]]:
    """Ports of other hosts that this one's nodes will connect to: meshes, and learners at work."""
    doors: dict[tuple[str, int], str] = {}
    for record in records:
        if not record.get("active"):
            continue
        name, kind = str(record.get("name", ""))[:64], record.get("type")
        if kind in ("SN", "SENTINEL"):
            for address in record.get("p2p") or []:
                if found := _MULTIADDRESS.match(str(address)):
                    doors[found[1], int(found[2])] = f"mesh of {name}"
        elif kind == "SL" and record.get("host") and isinstance(record.get("port"), int):
            doors[str(record["host"]), record["port"]] = f"learner {name}"
    chosen = [(*door, what) for door, what in doors.items() if door[0] != own]
    return chosen[:MAX_DOORS]


def _door(door: tuple[str, int, str]) -> DoorFact:
    host, port, what = door
    place = f"{host}:{port}"
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except TimeoutError:
        return DoorFact(place, what, f"no answer within {CONNECT_SECONDS:.0f} s")
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        return DoorFact(place, what, why.lower())
    return DoorFact(place, what, "")


def _text(body: bytes) -> str:
    try:
        return str(json.loads(body)["text"])[:300]
    except (ValueError, KeyError, TypeError):
        return body[:300].decode("utf-8", "replace")
