"""The records of all tables: plain values, so that they can be hashed, stored and sent as they are.

Times in milliseconds are claims of block proposers, for people to read. Heights are block heights.
Names of fields are part of the ledger's format: changing one changes every state digest.
"""

from __future__ import annotations

from typing import Any, TypedDict

from typing_extensions import NotRequired


class Node(TypedDict):
    """nodes/{uid}: a component that enrolled; only its own key can change it."""

    uid: str
    type: str  # SENTINEL | SN | SWOP | SL
    name: str  # as announced, for example the container's name
    organisation: str
    fingerprint: str  # of its key
    public_key: bytes
    host: str
    port: int
    p2p: list[str]  # multiaddresses (SN)
    peer_id: str  # (SN)
    parent: str  # uid of the SN that it talks to, or ""
    validator: bool
    active: bool
    runner: str  # taskrunner that it listens on (SWOP)
    pairs: int  # learner and program pairs in its profile (SWOP)
    contract: str  # (SL)
    joined: int  # height
    version: str
    evicted: int  # height at which its key was barred; 0 for members in good standing
    holder: NotRequired[str]  # of a node with a SPIFFE identity: fingerprint that stands for its id


class Authority(TypedDict):
    """cas/{fingerprint}: a CA whose certificates may sign transactions once admitted."""

    der: bytes
    votes: list[str]  # uids of SNs, sorted
    admitted: bool


class Eviction(TypedDict):
    """evictions/{fingerprint}: votes for barring a member's key, or that it is barred."""

    uid: str  # the node that the first vote named
    name: str
    organisation: str
    votes: dict[str, str]  # organisation to the common name of who voted for it
    at: int  # height at which it was carried out; 0 while votes are lacking
    needed: int  # validators that it took; 0 while votes are lacking
    reason: str  # one sentence for its owner; "" while votes are lacking


class Case(TypedDict):
    """Two contradicting statements of one validator (`consensus/statement.py`)."""

    height: int
    round: int
    kind: int  # 0 proposal, 1 prevote, 2 precommit
    first: bytes
    second: bytes
    reporter: str  # uid
    recorded: int  # height of the block that has it


class Evidence(TypedDict):
    """evidence/{uid}: what proves that a validator signed two values for one step."""

    name: str
    cases: list[Case]


class Recovery(TypedDict):
    """recoveries/{height}: a block that survivors made without a quorum."""

    validators: list[str]  # uids of those that went on
    dropped: list[str]
    reason: str
    by: str


class Task(TypedDict):
    """tasks/{name}."""

    name: str
    type: str
    author: str
    prereq: str
    outcome: str
    body: list[str]
    finalized: bool
    created: int  # height
    creator: str  # fingerprint
    organisation: str


class Operator(TypedDict):
    """A SWOP that takes part in the task of a taskrunner."""

    index: int  # in order of enrolment
    pairs: int
    state: str  # ENROLLED | RUNNING | COMPLETE | ERROR
    text: str
    updated_ms: int


class PairStatus(TypedDict):
    """One learner and program pair of a RUN_SWARM task."""

    swop: str
    index: int
    state: str
    text: str
    updated_ms: int


class Taskrunner(TypedDict):
    """taskrunners/{name}."""

    name: str
    state: str  # IDLE | ASSIGNED | RUNNING | COMPLETE | ERROR
    task: str
    peer_type: str  # SL (RUN_SWARM) | SWOP | "" when idle
    operation: str  # names one assignment
    needed: int  # peers that have to complete
    target: str  # "*" or a SWOP's uid
    invited: list[str]  # SWOPs that may take part; empty: any
    started_ms: int
    ended_ms: int
    text: str
    waiting: str
    swops: dict[str, Operator]
    peers: dict[str, PairStatus]
    created: int  # height
    organisation: str


class Rules(TypedDict):
    """What all learners of a contract agree on; set by the first that enrolls."""

    min_peers: int
    merge_method: str
    merge_args: dict[str, Any]
    sync_frequency: int
    adaptive: bool
    set_by: str


class Member(TypedDict):
    """A learner in a contract."""

    name: str
    host: str
    port: int
    state: str  # active | lost | left
    done: bool  # its program has ended its loop
    mode: str  # snapshot | inactive | active
    joined_round: int
    missed: int  # rosters that closed without it while it was active
    fingerprint: str
    loss: str
    metric: str
    epochs: int
    total_epochs: int
    reported_round: int  # -1 before the first report


class Checkin(TypedDict):
    """What a learner puts into the current round."""

    weight: int
    samples: int
    root: bytes  # of the hash tree over its vector
    done: bool
    at_ms: int


class Decided(TypedDict):
    """The last decided round: the model that everybody goes on with."""

    round: int
    attempt: int
    digest: bytes
    roster: list[str]
    holders: list[str]  # members that have the whole vector, sorted
    weights: dict[str, int]
    samples: dict[str, int]
    roots: dict[str, bytes]  # of the hash trees over what each member of the roster brought
    height: int  # of the block that decided it
    size: int  # bytes of the vector
    started_ms: int
    at_ms: int


class PastRound(TypedDict):
    """A line of a contract's history."""

    round: int
    attempts: int
    roster: list[str]
    digest: bytes
    started_ms: int
    at_ms: int


class Fault(TypedDict):
    """A case of a member that failed a round, for people."""

    round: int
    attempt: int
    uid: str
    name: str
    by: str  # names of those who say so
    why: str
    height: int  # of the block that has it


class Contract(TypedDict):
    """contracts/{name}: one training."""

    name: str
    created: int  # height
    organisation: str
    status: str  # UNINITIALIZED | CHECKIN | MERGING | FINISHED
    rules: Rules | None
    members: dict[str, Member]
    round: int
    attempt: int  # within the round; never used twice, so a late message cannot count elsewhere
    started_ms: int  # when the roster of this round closed first, 0 before
    checkins: dict[str, Checkin]
    schema: bytes | None  # digest over names, shapes and types of the tensors
    roster: list[str]
    suspicions: dict[str, list[str]]  # accused to accusers
    reasons: dict[str, str]  # accuser to why
    merged: dict[str, bytes]
    lost_reports: dict[str, list[str]]
    last: Decided | None
    over: bool
    waiting: str
    history: list[PastRound]
    faults: list[Fault]
    interval: int  # batches until the next merge; 0 before there are rules
    losses: list[int]  # of the last rounds, see `pace`; empty without adaptive sync


class Schema(TypedDict):
    """schemas/{contract}: what the first check-in said about the model."""

    digest: bytes
    tensors: list[str]  # one line each, to name the one that differs
    size: int
    set_by: str


class Settings(TypedDict):
    """meta/settings: fixed by the genesis."""

    chain_name: str
    fault_model: str
