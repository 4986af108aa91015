"""The pure follower: what it asks for, and what it believes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import RemoteError
from swarm.ledger.ethereum.account import keccak
from swarm.ledger.ethereum.contract import Entry, head_after
from swarm.ledger.ethereum.follower import (
    PAGE_MOST,
    Changed,
    Event,
    Follower,
    Head,
    Page,
    Position,
)

AUTHOR = "0x" + "ab" * 20


def block_hash(number: int, branch: int = 0) -> bytes:
    return keccak(b"%d/%d" % (number, branch))


def head(number: int, branch: int = 0) -> Head:
    return Head(number, block_hash(number, branch), block_hash(number - 1, branch), number * 12)


def events(*numbers: int, start: int = 0, before: bytes = bytes(32)) -> tuple[Event, ...]:
    """An event in each of these blocks."""
    made = []
    for index, number in enumerate(numbers, start):
        bare = Entry(index, AUTHOR, b"", b"data %d" % index)
        before = head_after(before, bare, keccak)
        made.append(Event(number, block_hash(number), number * 12, bare._replace(head=before)))
    return tuple(made)


def page(first: int, last: int, *found: Event, position: Head | None = None) -> Page:
    return Page(first, position, head(last), head(last), found)


def follower(confirmations: int = 1) -> Follower:
    return Follower(Position.before(10), confirmations, keccak)


def test_nothing_is_asked_for_before_it_is_final() -> None:
    one = follower(confirmations=3)
    assert one.question(head(9)) is None
    assert one.question(head(11)) is None
    assert one.question(head(12)) == (10, 10)
    assert one.question(head(20)) == (10, 18)
    assert follower().question(head(20)) == (10, 20)


def test_long_ways_are_gone_in_pages_that_fit_the_end_point() -> None:
    one = follower()
    assert one.question(head(10**6)) == (10, 10 + PAGE_MOST - 1)
    for _ in range(40):
        one.too_much()
    assert one.question(head(10**6)) == (10, 10)
    one.position, _ = one.take(page(10, 10))
    assert one.question(head(10**6)) == (11, 12)


def test_events_become_blocks_and_a_position() -> None:
    one = follower()
    found = events(11, 11, 13)
    position, blocks = one.take(page(10, 14, *found))
    assert [(b.number, len(b.entries), b.time) for b in blocks] == [(11, 2, 132), (13, 1, 156)]
    assert position == Position(14, block_hash(14), 3, found[-1].entry.head)
    assert one.position == Position.before(10)
    assert Position.decode(position.encode()) == position
    one.position = position
    more = events(15, start=3, before=position.head)
    one.take(page(15, 16, *more, position=head(14)))


def test_a_change_of_what_was_final_is_no_fault_of_an_end_point() -> None:
    one = follower()
    one.position, _ = one.take(page(10, 14))
    with pytest.raises(Changed) as caught:
        one.take(page(15, 15, position=head(14, branch=1)))
    assert caught.value.code == "SW3108"
    assert block_hash(14).hex() in caught.value.cause
    with pytest.raises(Changed):
        one.question(head(14, branch=1))
    assert one.question(head(14)) is None
    assert one.question(head(13, branch=1)) is None  # another end point, that is behind


def wrong(one: Follower, answer: Page) -> str:
    before = one.position
    with pytest.raises(RemoteError) as caught:
        one.take(answer)
    assert caught.value.code == "SW3109"
    assert one.position == before
    return caught.value.cause


def test_what_is_not_believed() -> None:
    good = events(11, 12, 13)
    altered = good[1]._replace(entry=good[1].entry._replace(data=b"other"))
    assert "entry 1 where 0 comes next" in wrong(follower(), page(10, 14, *good[1:]))
    assert "entry 2 where 1 comes next" in wrong(follower(), page(10, 14, good[0], good[2]))
    assert "hash chain" in wrong(follower(), page(10, 14, good[0], altered))
    assert "another question" in wrong(follower(), page(10, 12, *good))
    assert "another question" in wrong(follower(), page(12, 14))
    assert "out of order" in wrong(
        follower(), page(10, 14, good[0]._replace(number=12), good[1]._replace(number=11))
    )
    twins = (good[0], good[1]._replace(number=11))
    assert "two blocks" in wrong(follower(), page(10, 14, *twins))
    moved = page(10, 14)._replace(before=head(14, branch=1))
    assert "changed while" in wrong(follower(), moved)
    one = follower()
    one.position, _ = one.take(page(10, 14))
    assert "unknown" in wrong(one, page(15, 16, position=None))


@given(st.lists(st.integers(0, 60), max_size=25), st.data())
def test_pages_of_any_size_give_the_same_blocks(numbers: list[int], data: st.DataObject) -> None:
    """Against reading everything at once."""
    found = events(*sorted(10 + number for number in numbers))
    whole, expected = follower().take(page(10, 80, *found))
    one, blocks = follower(), []
    while one.position.number < 80:
        first = one.position.number + 1
        last = data.draw(st.integers(first, 80))
        part = [event for event in found if first <= event.number <= last]
        at = head(first - 1) if one.position.hash else None
        one.position, some = one.take(page(first, last, *part, position=at))
        blocks += some
    assert (one.position, blocks) == (whole, expected)
