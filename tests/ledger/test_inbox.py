"""Messages of neighbours: bounded, in turn, and not from those whose messages are wrong."""

from __future__ import annotations

from swarm.ledger import inbox
from swarm.ledger.inbox import Inbox


def taken(box: Inbox, count: int) -> list[str]:
    found = [box.take() for _ in range(count)]
    return [one[0] for one in found if one is not None]


def test_neighbours_take_turns() -> None:
    box = Inbox()
    assert box.put("flooder", [b"x"] * 1000, 0.0) == ""
    assert box.put("a", [b"1", b"2"], 0.0) == ""
    assert box.put("b", [b"1"], 0.0) == ""
    assert set(taken(box, 3)) == {"flooder", "a", "b"}
    assert len(box) == 1000


def test_what_waits_is_bounded_in_number_and_bytes() -> None:
    box = Inbox()
    assert "wait" in box.put("a", [b"x"] * (inbox.MAX_MESSAGES + 5), 0.0)
    assert len(box) == inbox.MAX_MESSAGES and box.dropped["a"] == 5
    assert "wait" in box.put("b", [bytes(1_000_000)] * 20, 0.0)
    assert box.dropped["b"] == 20 - inbox.MAX_BYTES // 1_000_000
    assert box.put("c", [b"x"], 0.0) == ""


def test_a_rate_far_above_an_honest_one_is_cut() -> None:
    box = Inbox()
    accepted = 0
    for tick in range(1000):  # ten seconds
        if not box.put("flooder", [b"x"] * 100, tick / 100):
            accepted += 100
        assert box.put("honest", [b"x"] * 5, tick / 100) == ""
        while box.take():
            pass
    assert accepted <= inbox.BURST + 10 * inbox.RATE
    assert box.dropped["flooder"] > 50_000 and not box.dropped["honest"]


def test_who_sends_wrong_messages_is_not_heard_for_a_while() -> None:
    box = Inbox()
    box.put("a", [b"x"] * 50, 0.0)
    for _ in range(int(inbox.FAULT_BURST)):
        box.fault("a", 0.0)
    assert len(box) == 50, "some are forgiven"
    box.fault("a", 0.0)
    assert len(box) == 0 and box.dropped["a"] == 50
    assert "wrong" in box.put("a", [b"x"], 0.1)
    assert box.put("b", [b"x"], 0.1) == ""
    box.forget("a", 0.1)
    assert "wrong" in box.put("a", [b"x"], 0.2), "coming back does not clear it"
    assert box.put("a", [b"x"], 1.0) == ""
