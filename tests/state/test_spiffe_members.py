"""Members with SPIFFE identities: an id can have any number of keys, and gains nothing by that."""

from __future__ import annotations

from dataclasses import replace

from swarm.identity import Peer
from swarm.identity.delegation import Vouched
from swarm.ledger.genesis import Genesis
from swarm.ledger.state import State, evictions
from swarm.ledger.state.membership import MAX_NODES_PER_KEY, SEAT_TAKEN
from swarm.ledger.state.operation import NOT_YOURS, holder_of
from swarm.ledger.state.svids import STALE
from tests.state.world import FOUNDER, World, genesis, member, sha

HOUR = 3600


def vouch(
    peer: Peer, path: str, begins: int = 0, *, domain: str = "org1.test", hours: float = 1
) -> Peer:
    """The member as one with a SPIFFE id, by a certificate that was issued then."""
    spiffe_id = f"spiffe://{domain}{path}"
    ends = begins + int(hours * HOUR)
    return replace(peer, vouched=Vouched(spiffe_id, sha(spiffe_id).hex(), domain, begins, ends))


class Swarm(World):
    """With members that have ids. `key` tells several keys of one id apart."""

    def add_vouched(
        self, name: str, path: str, *, key: str = "", begins: int = 0, organisation: str = "org-1",
        hours: float = 1,
    ) -> Peer:  # fmt: skip
        peer = self.add(name, certificate=key or name, organisation=organisation)
        self.members[name] = vouch(peer, path, begins, hours=hours)
        return self.members[name]

    def node(self, name: str):  # type: ignore[no-untyped-def]
        return self.state.get("nodes", self.uid(name))


def test_a_node_keeps_its_id() -> None:
    swarm = Swarm()
    swarm.add_vouched("sl-1", "/a/sl")
    assert swarm.join("sl-1").ok
    node = swarm.node("sl-1")
    assert holder_of(node) == node["holder"] == swarm.members["sl-1"].holder != node["fingerprint"]
    swarm.add_vouched("sl-1", "/b/sl")
    assert swarm.join("sl-1").code == NOT_YOURS, "another id, for the same key"
    assert swarm.do("sl-1", "node.leave", uid=swarm.uid("sl-1")).code == NOT_YOURS
    swarm.members["sl-1"] = member("sl-1")
    assert swarm.join("sl-1").code == NOT_YOURS, "none at all"
    swarm.add_vouched("sl-1", "/a/sl", begins=100, organisation="org-9")
    assert swarm.join("sl-1").ok, "renewed, by another CA of its domain"
    assert swarm.node("sl-1")["organisation"] == swarm.members["sl-1"].organisation


def test_an_ordinary_node_has_no_holder_and_hashes_as_before() -> None:
    swarm = Swarm()
    assert swarm.join("sl-1").ok
    assert "holder" not in swarm.node("sl-1") and "holder" not in swarm.node("sn-1")


def test_one_id_has_one_vote() -> None:
    """Keys are free: without this rule, a single network node could be a quorum."""
    swarm = Swarm()
    swarm.add_vouched("sn-2", "/h/sn", key="first")
    swarm.add_vouched("sn-3", "/h/sn", key="second")
    assert swarm.join("sn-2", validator=True).ok
    refused = swarm.join("sn-3", validator=True)
    assert refused.code == SEAT_TAKEN and swarm.uid("sn-2") in refused.text
    assert swarm.join("sn-3").code == SEAT_TAKEN, "not as a follower either"
    assert swarm.join("sn-2", validator=True).ok, "its own update"
    assert swarm.do("sn-2", "node.leave", uid=swarm.uid("sn-2")).ok
    assert swarm.join("sn-3", validator=True).ok, "once the other has left"
    assert len(swarm.state.validators()) == 2


def test_a_founder_has_its_id_from_the_genesis() -> None:
    me = vouch(FOUNDER, "/h/sn")
    made = genesis()
    held = replace(made, founder=replace(made.founder, holder=me.holder))
    assert Genesis.decode(held.encode()) == held != made
    assert Genesis.decode(made.encode()) == made
    swarm = Swarm()
    swarm.state = State.genesis(held)
    swarm.members["sn-1"] = me
    assert swarm.join("sn-1", validator=True).ok
    swarm.add_vouched("sn-2", "/h/sn")
    assert swarm.join("sn-2").code == SEAT_TAKEN


def test_a_new_key_under_the_same_name_takes_the_place() -> None:
    """A learner or operator whose lasting key is gone; others of that id stay."""
    swarm = Swarm()
    for name, key in (("sl-1", "old"), ("sl-2", "old"), ("swop-1", "op")):
        swarm.add_vouched(name, "/h/sl" if name.startswith("sl") else "/h/swop", key=key)
        assert swarm.join(name).ok
    before = swarm.uid("sl-1")
    swarm.add_vouched("sl-1", "/h/sl", key="new")
    assert swarm.join("sl-1").ok and swarm.uid("sl-1") != before
    gone = swarm.state.get("nodes", before)
    assert gone is not None and not gone["active"] and not gone["evicted"]
    assert swarm.node("sl-2")["active"] and swarm.node("swop-1")["active"]
    swarm.add_vouched("sl-2", "/other/sl", key="elsewhere")
    assert swarm.join("sl-2").ok
    assert sum(n["name"] == "sl-2" and n["active"] for n in nodes(swarm)) == 2, "another's id"


def test_places_are_counted_for_the_id() -> None:
    """A learner with a fresh key for every training does not fill the ledger."""
    swarm = Swarm()
    for number in range(MAX_NODES_PER_KEY + 3):
        swarm.add_vouched(f"sl-{number}", "/h/sl", key=f"key {number}")
        assert swarm.join(f"sl-{number}").ok
    assert sum(node["type"] == "SL" for node in nodes(swarm)) == MAX_NODES_PER_KEY


def test_an_eviction_bars_the_id_with_all_its_keys() -> None:
    swarm = Swarm()
    swarm.add("swci-1")
    swarm.add_vouched("sl-1", "/h/sl", key="one")
    swarm.add_vouched("sl-2", "/h/sl", key="two")
    swarm.add_vouched("sl-3", "/i/sl", key="three")
    for name in ("sl-1", "sl-2", "sl-3"):
        assert swarm.join(name).ok
    assert swarm.evict("swci-1", "sl-1").result["evicted"]
    assert not swarm.node("sl-1")["active"] and swarm.node("sl-2")["evicted"]
    assert swarm.node("sl-3")["active"]
    swarm.add_vouched("sl-9", "/h/sl", key="a new one")
    for name in ("sl-1", "sl-2", "sl-9"):
        assert swarm.join(name).code == evictions.BARRED
    assert swarm.members["sl-9"].holder in swarm.state.barred()


def test_what_a_certificate_that_is_long_gone_signs() -> None:
    """Keys that leaked after their time, by way of a network node that takes anything."""
    swarm = Swarm()
    swarm.add_vouched("sl-1", "/h/sl", begins=10 * HOUR)
    assert swarm.join("sl-1").ok
    for begins, good in ((9.5, True), (9, True), (8.9, False), (0, False)):
        swarm.add_vouched("sl-2", "/h/sl2", begins=int(begins * HOUR))
        verdict = swarm.join("sl-2")
        assert verdict.ok is good and (good or verdict.code == STALE), begins
    swarm.members["sl-2"] = vouch(swarm.members["sl-2"], "/h/sl2", 0, domain="org2.test")
    swarm.names[swarm.uid("sl-2")] = "sl-2"
    assert swarm.do("sl-2", "node.leave", uid=swarm.uid("sl-2")).code == NOT_YOURS, "not stale"
    swarm.add_vouched("sl-4", "/h/sl4", begins=99 * HOUR)
    refused = swarm.do("sl-4", "node.leave", uid="0" * 32)
    assert not refused.ok
    swarm.add_vouched("sl-1", "/h/sl", begins=20 * HOUR)
    assert swarm.join("sl-1").ok, "what is refused leaves no mark"
    swarm.members["sl-5"] = member("sl-5")
    assert swarm.join("sl-5").ok, "ordinary certificates are not looked at"


def nodes(swarm: Swarm):  # type: ignore[no-untyped-def]
    return list(swarm.state.table("nodes").values())
