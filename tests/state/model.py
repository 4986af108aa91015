"""Learners as a model checker sees them: what they may do, and what they should do.

`Model` is one point of the search: the real state machine, plus for each learner whether it lives
and the one transaction that it has sent and that is not on the ledger yet (the API answers after
the commit, so a learner never has two). Between sending and arriving everything else may happen, so
all late interleavings are covered. With `atomic` a statement arrives at once: enough where late
statements are seen to change nothing, and far fewer points.

`moves` is what members may do without lying, in any order and at any time: more than a real learner
would, so what holds here holds there. `settle` is what well-behaved members do once faults stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

from swarm.identity import Peer
from swarm.ledger.state import DEFAULT_CONTRACT, TABLES, Header, Verdict, methods
from swarm.ledger.state.draft import Context, Draft
from swarm.ledger.state.machine import execute
from swarm.ledger.state.records import Contract
from swarm.ledger.transaction import Transaction
from tests.state.world import RULES, World, sha

Args = dict[str, Any]
Move = Callable[[], "Model"]
MAX_ATTEMPT = 2  # deeper searches repeat what shallower ones have shown


@dataclass(frozen=True)
class Plain:
    """The tables of a state without their digests: what a search does not need, it does not pay."""

    tables: dict[str, dict[str, Any]]
    height: int

    def get(self, table: str, key: str) -> dict[str, Any] | None:
        return self.tables[table].get(key)

    def keys(self, table: str) -> list[str]:
        return sorted(self.tables[table])

    def execute(self, sender: Peer, op: str, args: Args) -> tuple[Plain, Verdict]:
        header = Header(self.height + 1, 1000 * self.height, "")
        draft = Draft(self)
        context = Context(header, sender, bytes(16), bytes(32))
        verdict = execute(draft, context, Transaction(bytes(32), bytes(16), 1 << 30, op, args))
        tables = dict(self.tables)
        for name, changes in draft.changes().items():
            merged = {**tables[name], **changes}
            tables[name] = {key: record for key, record in merged.items() if record is not None}
        return Plain(tables, self.height + 1), verdict


@dataclass(frozen=True)
class Pending:
    """A transaction on its way."""

    op: str
    args: Args = field(hash=False)

    def key(self) -> str:
        return f"{self.op} {sorted(self.args.items())}"


@dataclass(frozen=True)
class Model:
    world: World  # names and uids only; its state is not used
    names: tuple[str, ...]
    tables: Plain
    alive: tuple[bool, ...]
    pending: tuple[Pending | None, ...]
    deaths: int = 1
    false_alarms: int = 0
    returns: int = 1
    atomic: bool = False  # statements arrive at once

    @classmethod
    def start(cls, n: int, min_peers: int = 2, **budget: Any) -> Model:
        """`n` learners, enrolled, in round 0."""
        world = World()
        names = tuple(f"sl-{i}" for i in range(n))
        world.learners(*names, min_peers=min_peers)
        tables = Plain({name: dict(world.state.table(name)) for name in TABLES}, 100)
        return cls(world, names, tables, (True,) * n, (None,) * n, **budget)

    @property
    def contract(self) -> dict[str, Any]:
        record = self.tables.get("contracts", DEFAULT_CONTRACT)
        assert record is not None
        return record

    def uid(self, i: int) -> str:
        return self.world.uid(self.names[i])

    def key(self) -> object:
        """Equal for points from which the same can happen."""
        record = {
            name: value
            for name, value in self.contract.items()
            if name not in ("waiting", "history", "started_ms", "last", "checkins", "faults")
        }
        pending = tuple(one.key() if one else "" for one in self.pending)
        checkins = sorted(self.contract["checkins"])
        last = self.contract["last"]
        budget = (self.deaths, self.false_alarms, self.returns)
        return repr(
            (_sorted(record), checkins, last and last["digest"], pending, self.alive, budget)
        )

    def apply(self, sender: str, op: str, args: Args) -> Model:
        """Order one transaction, whatever the verdict."""
        after, verdict = self.tables.execute(self.world.members[sender], op, args)
        assert verdict.code != "SW1001", verdict
        check_step(self.contract, after.get("contracts", DEFAULT_CONTRACT) or {})
        return replace(self, tables=after)

    def with_pending(self, i: int, pending: Pending | None) -> Model:
        return replace(self, pending=(*self.pending[:i], pending, *self.pending[i + 1 :]))

    # What may happen

    def moves(self) -> Iterator[tuple[str, Move]]:
        """Everything that may happen next: a name, and how to get there."""
        for i, name in enumerate(self.names):
            sent = self.pending[i]
            if sent is not None:
                yield f"{name}'s {sent.op} is ordered", partial(self.arrive, i)
            elif self.alive[i]:
                for one in self.statements(i):
                    yield f"{name} sends {one.op}", partial(self.send, i, one)
            yield from self._faults(i)

    def send(self, i: int, sent: Pending) -> Model:
        """Put a statement on its way."""
        model = self.with_pending(i, sent)
        return model.arrive(i) if self.atomic else model

    def arrive(self, i: int) -> Model:
        """Order what learner `i` has sent."""
        sent = self.pending[i]
        assert sent is not None
        return self.with_pending(i, None).apply(self.names[i], sent.op, sent.args)

    def _faults(self, i: int) -> Iterator[tuple[str, Move]]:
        name = self.names[i]
        if self.alive[i] and self.deaths:
            alive = (*self.alive[:i], False, *self.alive[i + 1 :])
            yield f"{name} dies", partial(replace, self, alive=alive, deaths=self.deaths - 1)
        elif not self.alive[i]:
            if self._state(i) == "active":
                yield f"{name} is reported lost", partial(self.report_lost, i)
            if self.returns and self.pending[i] is None:
                alive = (*self.alive[:i], True, *self.alive[i + 1 :])
                back = replace(self, alive=alive, returns=self.returns - 1)
                yield f"{name} restarts", partial(back.send, i, self.enrolment(i))
        if self.alive[i] and self.false_alarms and self._state(i) == "active":
            alarmed = replace(self, false_alarms=self.false_alarms - 1)
            yield f"{name} is reported lost by mistake", partial(alarmed.report_lost, i)

    def _state(self, i: int) -> str:
        return str(self.contract["members"][self.uid(i)]["state"])

    def report_lost(self, i: int) -> Model:
        about = {"contract": DEFAULT_CONTRACT, "uid": self.uid(i), "reason": ""}
        return self.apply("sn-1", "round.lost", about)

    def statements(self, i: int) -> Iterator[Pending]:
        """What a live learner may say now."""
        contract, uid = self.contract, self.uid(i)
        if self._state(i) != "active":
            yield self.enrolment(i)
        elif contract["status"] == "CHECKIN":
            if uid not in contract["checkins"]:
                yield self.checkin(i)
            elif len(contract["checkins"]) >= contract["rules"]["min_peers"]:
                yield Pending("round.close", self._round(i))
        elif contract["status"] == "MERGING" and uid in contract["roster"]:
            yield self.merged(i)
            others = [one for one in contract["roster"] if one != uid]
            for accused in others:
                yield self.suspicion(i, [accused])
            if len(others) > 1:
                yield self.suspicion(i, others)

    def _round(self, i: int) -> Args:
        return {
            "contract": DEFAULT_CONTRACT,
            "uid": self.uid(i),
            "round": self.contract["round"],
        }

    def enrolment(self, i: int) -> Pending:
        about = {"contract": DEFAULT_CONTRACT, "uid": self.uid(i), "name": self.names[i]}
        rules = {**RULES, "min_peers": self.contract["rules"]["min_peers"]}
        where = {"host": "h", "port": 1}
        return Pending("contract.enroll", {**about, **where, "rules": rules, "mode": "snapshot"})

    def checkin(self, i: int) -> Pending:
        last = self.contract["last"]
        brought = {
            "weight": 10_000,
            "samples": 1,
            "root": sha(self.names[i]),
            "schema": sha("schema"),
            "size": 64,
            "base": last["digest"] if last else None,
            "done": False,
        }
        return Pending("round.checkin", {**self._round(i), **brought})

    def merged(self, i: int) -> Pending:
        """The result of the present attempt: what is merged follows from its roster."""
        contract = self.contract
        attempt = {"attempt": contract["attempt"], "digest": result(contract), "shards": []}
        return Pending("round.merged", {**self._round(i), **attempt})

    def suspicion(self, i: int, accused: list[str]) -> Pending:
        about = {"attempt": self.contract["attempt"], "accused": accused, "why": ""}
        return Pending("round.suspect", {**self._round(i), **about})

    # What should happen

    def settle(self, cut: frozenset[int] = frozenset(), most: int = 60) -> Model:
        """Let all live members behave until a round is decided; `cut` are two members that cannot
        reach each other. AssertionError when it takes more than `most` turns."""
        model, goal = self, self.contract["round"] + 1
        for _ in range(most):
            if model.contract["round"] >= goal:
                return model
            model = model._turn(cut)
        raise AssertionError(f"no decision: {model.contract['waiting']}")

    def _turn(self, cut: frozenset[int]) -> Model:
        model = self
        for i in range(len(self.names)):
            if model.pending[i] is not None:
                model = model.arrive(i)
        for i, name in enumerate(self.names):
            if not model.alive[i] and model._state(i) == "active":
                model = model.report_lost(i)
            elif model.alive[i]:
                sent = model._duty(i, cut)
                if sent is not None:
                    model = model.apply(name, sent.op, sent.args)
        return model

    def _duty(self, i: int, cut: frozenset[int]) -> Pending | None:
        contract, uid = self.contract, self.uid(i)
        if self._state(i) != "active":
            return self.enrolment(i)
        if contract["status"] == "CHECKIN":
            if uid not in contract["checkins"]:
                return self.checkin(i)
            enough = len(contract["checkins"]) >= contract["rules"]["min_peers"]
            return Pending("round.close", self._round(i)) if enough else None
        if uid not in contract["roster"]:
            return None
        roster = [j for j in range(len(self.names)) if self.uid(j) in contract["roster"]]
        missing = [j for j in roster if not self.alive[j] or {i, j} == cut]
        if missing:
            return self.suspicion(i, [self.uid(j) for j in missing])
        if cut and cut <= set(roster):
            # A bystander of a cut: it takes sides, and all bystanders take the same.
            return self.suspicion(i, [max(self.uid(j) for j in cut)])
        return self.merged(i)


def result(contract: dict[str, Any]) -> bytes:
    """The digest that an honest member of the present attempt comes to."""
    return sha(f"{contract['round']} {sorted(contract['roster'])}")


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, _sorted(value[key])) for key in sorted(value)]
    return value


def check_step(before: dict[str, Any], after: dict[str, Any]) -> None:
    """What must be true of every contract, and of every step between two."""
    roster, merged = after["roster"], after["merged"]
    accusers = {one for some in after["suspicions"].values() for one in some}
    active = {uid for uid, member in after["members"].items() if member["state"] == "active"}
    assert set(roster) <= active, "a member that is gone is in the roster"
    assert set(roster) <= set(after["checkins"]), "the roster has one that brought nothing"
    assert set(after["checkins"]) <= active
    assert set(merged) | accusers | set(after["suspicions"]) <= set(roster)
    assert not set(merged) & accusers, "one member counts twice in an attempt"
    if after["status"] == "MERGING":
        assert len(roster) >= after["rules"]["min_peers"]
        assert not methods.shortage(cast(Contract, after), roster), "too few for the method"
        for digest in merged.values():
            assert 2 * list(merged.values()).count(digest) <= len(roster), "decided, but not so"
        for some in after["suspicions"].values():
            assert 2 * len(some) <= len(roster) - 1, "failed, but not so"
    else:
        assert not roster and not merged and not accusers
    if after["status"] == "CHECKIN":
        enough = len(after["checkins"]) >= after["rules"]["min_peers"]
        enough = enough and not methods.shortage(cast(Contract, after), after["checkins"])
        assert not (enough and active <= set(after["checkins"])), "complete, but open"
    _check_decision(before, after)


def _check_decision(before: dict[str, Any], after: dict[str, Any]) -> None:
    if after["round"] == before["round"]:
        assert _decided(before) == _decided(after), "a decided round was decided again"
        assert after["attempt"] >= before["attempt"]
        if after["attempt"] == before["attempt"] and before["status"] == "MERGING":
            assert after["roster"] == before["roster"] or after["over"]
        return
    assert after["round"] == before["round"] + 1
    assert before["status"] == "MERGING"
    last = after["last"]
    assert last["round"] == before["round"] and last["roster"] == before["roster"]
    assert 2 * len(last["holders"]) > len(last["roster"])
    assert last["digest"] == result(before), "decided something that nobody could have merged"


def _decided(contract: dict[str, Any]) -> object:
    last = contract["last"]
    return last and (last["round"], last["digest"], last["roster"])
