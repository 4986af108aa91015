"""JSON-RPC to an Ethereum-compatible network: several end points, bounded in time and size.

Everything here blocks and belongs into a worker thread. web3 carries the requests (connections,
JSON-RPC framing) and is imported with the first client, as it takes more than a second. Its typed
calls are not used: they convert each field of a block and refuse blocks whose `extraData` is longer
than the main network's, as proof-of-authority networks have it; the few fields that are needed are
read and checked here.

URLs may hold access keys. They are in no log line and in no error text, and the libraries' own
logging of them is switched off: an end point is named by its number.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from swarm.errors import LocalError, RemoteError
from swarm.ledger.ethereum import sender as outcome
from swarm.ledger.ethereum.account import require_web3
from swarm.ledger.ethereum.contract import APPENDED, parse_appended
from swarm.ledger.ethereum.follower import Event, Head, Page, sorted_events
from swarm.ledger.ethereum.sender import Fee

if TYPE_CHECKING:
    from web3.types import RPCEndpoint

T = TypeVar("T")

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
MAX_ANSWER = 48 << 20  # bytes of an answer
PRICE_SECONDS = 15.0  # how long a price of gas, or a tip, is taken to hold
NO_ANSWER = "SW3103"

_URL = re.compile(r"\w+://\S+")


class Unreachable(Exception):
    """An end point does not do its work; another one may."""


class Refusal(Exception):
    """A node refuses a request: it answers with an error. `kind` is one of `sender`'s."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        self.message = _URL.sub("…", message)[:200]
        self.kind = _kind(self.message.lower())
        super().__init__(f"{self.message} ({code})")


class TooMuch(Exception):
    """An end point does not give so many blocks' events at once."""


class Receipt(NamedTuple):
    """Where a transaction was executed, and whether it had an effect."""

    block: int
    ok: bool
    gas: int = 0  # what it took
    contract: str = ""  # address of the contract that it made


class Standing(NamedTuple):
    """What an end point says about our account, for `Sender.plan`."""

    used: int  # transactions in blocks, which is the lowest free nonce
    pending: int  # and those that wait in the node


# How nodes word their refusals (geth and its kin, Besu, Nethermind, Erigon, reth, anvil).
_WORDINGS = (
    (outcome.KNOWN, ("already known", "known transaction", "already imported", "alreadyknown")),
    (outcome.LOW, ("nonce too low", "nonce_too_low", "oldnonce", "nonce is too low")),
    (
        outcome.UNDERPRICED,
        ("underpriced", "fee too low", "feetoolow", "price too low", "gas price below",
         "below the minimum", "block base fee", "current base fee"),
    ),
    (outcome.FUNDS, ("insufficient funds", "upfront cost", "insufficientfunds", "exceeds balance")),
)  # fmt: skip


def _kind(message: str) -> str:
    for kind, wordings in _WORDINGS:
        if any(wording in message for wording in wordings):
            return kind
    return outcome.REFUSED


class EndPoint:
    """One node's JSON-RPC interface."""

    def __init__(self, url: str, number: int, seconds: float) -> None:
        from requests.exceptions import RequestException
        from web3 import HTTPProvider
        from web3.exceptions import Web3Exception

        from swarm.ledger.ethereum.bounded import BoundedSession

        self.number = number
        self.chain_id: int | None = None  # once it was asked
        self._faults = (RequestException, Web3Exception, OSError, ValueError)
        session = BoundedSession(url, MAX_ANSWER, seconds)
        self._provider = HTTPProvider(
            url,
            request_kwargs={"timeout": (min(CONNECT_SECONDS, seconds), seconds)},
            session=session,
            exception_retry_configuration=None,  # the next end point is the retry
        )
        self._session = session

    def ask(self, method: str, *params: Any) -> Any:
        """Return the result. Raises Unreachable, Refusal."""
        try:
            answer = self._provider.make_request(cast("RPCEndpoint", method), list(params))
        except self._faults as error:
            raise Unreachable(_why(error)) from None
        if not isinstance(answer, dict):
            raise Unreachable("answers something else than JSON-RPC")
        error_ = answer.get("error")
        if error_ is not None:
            if not isinstance(error_, dict):
                raise Refusal(0, str(error_))
            code = error_.get("code")
            raise Refusal(code if isinstance(code, int) else 0, str(error_.get("message", "")))
        return answer.get("result")

    def read(self, method: str, *params: Any) -> Any:
        """Return the result of a question; a node that cannot answer it counts as unreachable."""
        try:
            return self.ask(method, *params)
        except Refusal as refusal:
            raise Unreachable(f"refuses {method}: {refusal}") from None

    def close(self) -> None:
        """Close its connections."""
        self._session.close()

    # ------------------------------------------------------------------ questions

    def head(self, number: int | None = None) -> Head | None:
        """The header of a block, or of the newest; None when it has no such block."""
        name = "latest" if number is None else hex(number)
        return _head(self.read("eth_getBlockByNumber", name, False))

    def newest(self) -> Head:
        """The newest block's header."""
        found = self.head()
        if found is None:
            raise Unreachable("has no newest block")
        return found

    def page(self, address: str, first: int, last: int, position: int, before: Head | None) -> Page:
        """Events of the blocks `first` to `last`, with what proves that they belong together.

        `before` is the header of `last`, if it is known. Raises Unreachable, TooMuch.
        """
        before = before or self.head(last)
        if before is None:
            raise Unreachable(f"has lost block {last}")
        question = {
            "address": address,
            "fromBlock": hex(first),
            "toBlock": hex(last),
            "topics": ["0x" + APPENDED.hex()],
        }
        try:
            logs = self.ask("eth_getLogs", question)
        except Refusal as refusal:
            if last > first:
                raise TooMuch from None
            raise Unreachable(f"refuses eth_getLogs: {refusal}") from None
        except Unreachable:
            if last > first:  # perhaps it takes too long, or the answer was too large
                raise TooMuch from None
            raise
        events = self._events(logs)
        after = self.head(last)
        if after is None:
            raise Unreachable(f"has lost block {last}")
        if first == last == position + 1 and position >= 0:
            at: Head | None = Head(position, after.parent, b"", 0)
        else:
            at = self.head(position) if position >= 0 else None
        return Page(first, at, before, after, events)

    def _events(self, logs: Any) -> tuple[Event, ...]:
        if not isinstance(logs, list):
            raise _malformed("eth_getLogs gives no list")
        times: dict[int, int] = {}
        found = []
        for one in logs:
            if not isinstance(one, dict) or not isinstance(one.get("topics"), list):
                raise _malformed("an event is no record")
            if one.get("removed") is True:
                raise _malformed("an event of a branch that was left")
            number = _number(one.get("blockNumber"), "blockNumber")
            if number not in times:
                times[number] = self._time(one, number)
            topics = [_bytes(topic, "topics") for topic in one["topics"]]
            entry = parse_appended(topics, _bytes(one.get("data"), "data"))
            block = _bytes(one.get("blockHash"), "blockHash")
            place = _number(one.get("logIndex"), "logIndex")
            found.append((number, place, Event(number, block, times[number], entry)))
        return sorted_events(found)

    def _time(self, event: dict[str, Any], number: int) -> int:
        """Time of an event's block: most nodes say it with the event."""
        if event.get("blockTimestamp") is not None:
            return _number(event["blockTimestamp"], "blockTimestamp")
        head = self.head(number)
        if head is None:
            raise Unreachable(f"has lost block {number}")
        return head.time

    def price(self, head: Head) -> int:
        """What the network asks for gas: the price, or the tip where there is a base fee."""
        if not head.base_fee:
            price = _number(self.read("eth_gasPrice"), "gas price")
            if head.base_fee is None or not price:
                return price  # where gas is free, nodes suggest a tip all the same
        try:
            return _number(self.ask("eth_maxPriorityFeePerGas"), "tip")
        except Refusal:  # not part of the standard
            return 1 if head.base_fee else 0

    def standing(self, address: str) -> Standing:
        """Nonces of an account."""
        used = _number(self.read("eth_getTransactionCount", address, "latest"), "nonce")
        pending = _number(self.read("eth_getTransactionCount", address, "pending"), "nonce")
        return Standing(used, max(used, pending))

    def balance(self, address: str) -> int:
        """Funds of an account."""
        return _number(self.read("eth_getBalance", address, "latest"), "balance")

    def call(self, contract: str, data: bytes, block: str = "latest") -> bytes:
        """The result of a method that changes nothing."""
        question = {"to": contract, "data": "0x" + data.hex()}
        return _bytes(self.read("eth_call", question, block), "result")

    def code(self, address: str) -> bytes:
        """The byte code at an address."""
        return _bytes(self.read("eth_getCode", address, "latest"), "code")

    def send(self, raw: bytes) -> None:
        """Hand over a signed transaction. Raises Unreachable, Refusal."""
        self.ask("eth_sendRawTransaction", "0x" + raw.hex())

    def receipt(self, tx_hash: str) -> Receipt | None:
        """What came of a transaction; None while nothing did."""
        value = self.read("eth_getTransactionReceipt", tx_hash)
        if not isinstance(value, dict) or value.get("blockNumber") is None:
            return None
        ok = _number(value.get("status"), "status") == 1
        number = _number(value["blockNumber"], "blockNumber")
        gas = _number(value.get("gasUsed"), "gasUsed")
        return Receipt(number, ok, gas, str(value.get("contractAddress") or "").lower())


class Client:
    """All end points of one network: uses one, and goes on to the next when it fails."""

    def __init__(
        self, urls: Sequence[str], chain_id: int | None, *, seconds: float = ANSWER_SECONDS
    ) -> None:
        """`chain_id`: of the network that it must be; None takes any. LocalError SW3101."""
        require_web3()
        quiet()
        self._end_points = [EndPoint(url, number, seconds) for number, url in enumerate(urls, 1)]
        self._expected = chain_id
        self._current = 0
        self._price: tuple[float, int] | None = None

    @property
    def count(self) -> int:
        """How many end points there are."""
        return len(self._end_points)

    @property
    def current(self) -> int:
        """Number of the end point in use."""
        return self._end_points[self._current].number

    def run(self, work: Callable[[EndPoint], T]) -> T:
        """Do `work` with an end point that can. RemoteError SW3103 when none can; passes others."""
        faults = []
        for _ in range(self.count):
            place = self._current
            point = self._end_points[place]
            try:
                self._check(point)
                return work(point)
            except Unreachable as fault:
                faults.append(f"{point.number}: {fault}")
                self.skip(place)
        what = "the RPC end point" if self.count == 1 else f"none of {self.count} RPC end points"
        fails = "fails" if self.count == 1 else "works"
        raise RemoteError(NO_ANSWER, f"{what} {fails} ({'; '.join(faults)})")

    def skip(self, place: int | None = None) -> None:
        """Use the next end point from now on, unless somebody has changed it already."""
        if place is None or place == self._current:
            self._current = (self._current + 1) % self.count

    def _check(self, point: EndPoint) -> None:
        if point.chain_id is None:
            point.chain_id = _number(point.read("eth_chainId"), "chain id")
        if self._expected not in (None, point.chain_id):
            raise Unreachable(f"belongs to network {point.chain_id}, not {self._expected}")

    def chain_id(self) -> int:
        """The network's id. LocalError SW3102 when the end points that answer say a wrong one."""
        try:
            found = self.run(lambda point: point.chain_id)
        except RemoteError as fault:
            told = {point.chain_id for point in self._end_points} - {None}
            if told:
                raise LocalError("SW3102", fault.cause) from None
            raise
        assert found is not None, "it was checked"
        return found

    def quote(self, point: EndPoint, head: Head) -> Fee:
        """What to offer for gas after the block `head`. Raises Unreachable."""
        now = time.monotonic()
        if self._price is None or now - self._price[0] > PRICE_SECONDS:
            self._price = (now, point.price(head))
        price = self._price[1]
        if head.base_fee is None:
            return Fee(price, None)
        # Twice the present base fee outlasts five full blocks.
        return Fee(2 * head.base_fee + price, price)

    def standing(self, address: str) -> Standing:
        """Nonces. RemoteError SW3103."""
        return self.run(lambda point: point.standing(address))

    def close(self) -> None:
        """Close all connections."""
        for point in self._end_points:
            point.close()


def quiet() -> None:
    """Keep the libraries from logging URLs: both do so on level DEBUG."""
    for name in ("web3", "urllib3", "requests"):
        logger = logging.getLogger(name)
        if logger.getEffectiveLevel() < logging.WARNING:
            logger.setLevel(logging.WARNING)


def _why(error: Exception) -> str:
    """What failed, in words that hold no URL."""
    name = type(error).__name__
    response = getattr(error, "response", None)
    if response is not None:
        return f"answers with HTTP status {response.status_code}"
    if "Timeout" in name or "timed out" in str(error).lower():
        return "does not answer in time"
    if "Connection" in name or isinstance(error, ConnectionError):
        return "cannot be connected to"
    return f"gives an unusable answer ({name})"


def _head(value: Any) -> Head | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _malformed("a block is no record")
    base = value.get("baseFeePerGas")
    return Head(
        _number(value.get("number"), "number"),
        _bytes(value.get("hash"), "hash"),
        _bytes(value.get("parentHash"), "parentHash"),
        _number(value.get("timestamp"), "timestamp"),
        None if base is None else _number(base, "baseFeePerGas"),
    )


def _number(value: Any, what: str) -> int:
    if not isinstance(value, str) or not value.startswith("0x") or len(value) > 66:
        raise _malformed(f"{what} is no number")
    try:
        return int(value, 16)
    except ValueError:
        raise _malformed(f"{what} is no number") from None


def _bytes(value: Any, what: str) -> bytes:
    if not isinstance(value, str) or not value.startswith("0x"):
        raise _malformed(f"{what} is not hexadecimal")
    try:
        return bytes.fromhex(value[2:])
    except ValueError:
        raise _malformed(f"{what} is not hexadecimal") from None


def _malformed(what: str) -> Unreachable:
    return Unreachable(f"gives a malformed answer: {what}")
