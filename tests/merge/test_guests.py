"""Who has to go when all places are taken."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from swarm.guests import Guest, Guests


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    made: list[socket.socket] = []
    yield made
    for one in made:
        one.close()


def enter(guests: Guests, sockets: list[socket.socket], address: str) -> tuple[Guest, str]:
    """A new guest, and the address of the one that had to go."""
    pair = socket.socketpair()
    sockets += pair
    guest, leaving = guests.enter(pair[0], address)
    assert guest is not None
    return guest, leaving.who if leaving else ""


def test_a_stranger_with_many_connections_loses_its_oldest(sockets: list[socket.socket]) -> None:
    guests = Guests(4, 4)
    member, _ = enter(guests, sockets, "member")
    strangers = [enter(guests, sockets, "stranger")[0] for _ in range(3)]
    other, left = enter(guests, sockets, "other")
    assert left == "stranger"
    assert guests.all() == [member, *strangers[1:], other]
    assert strangers[0].gone
    assert sockets[3].recv(1) == b""  # its other end: the connection was ended


def test_a_member_is_counted_by_its_key_and_makes_room_for_itself(
    sockets: list[socket.socket],
) -> None:
    guests = Guests(4, 4)
    mine = [enter(guests, sockets, f"address {k}")[0] for k in range(2)]
    for guest in mine:
        guests.known(guest, [b"chain"], "key", "SL-1")
    enter(guests, sockets, "a")
    enter(guests, sockets, "b")
    assert enter(guests, sockets, "c")[1] == "key"
    assert mine[0].gone and mine[0].name == "SL-1 (address 0)"


def test_there_are_fewer_places_for_strangers(sockets: list[socket.socket]) -> None:
    guests = Guests(9, 2)
    member, _ = enter(guests, sockets, "a")
    guests.known(member, [b"chain"], "key", "SL-1")
    first, _ = enter(guests, sockets, "a")
    second, _ = enter(guests, sockets, "b")
    assert enter(guests, sockets, "c")[1] == "a"
    assert guests.all()[:2] == [member, second] and first.gone


def test_nobody_is_sent_away_in_the_middle_of_a_talk(sockets: list[socket.socket]) -> None:
    guests = Guests(2, 2)
    first, _ = enter(guests, sockets, "a")
    second, _ = enter(guests, sockets, "a")
    with guests.talking(first, "merge"), guests.talking(second, "fetch"):
        assert guests.enter(sockets[0], "b") == (None, None)
    assert enter(guests, sockets, "b")[1] == "a"
    assert guests.all()[0] is second


def test_of_two_talks_about_the_same_the_newer_one_stays(sockets: list[socket.socket]) -> None:
    guests = Guests(3, 3)
    older, newer = (enter(guests, sockets, "a")[0] for _ in range(2))
    with guests.talking(older, "fetch x"), guests.talking(newer, "fetch x"):
        assert older.gone and not newer.gone


def test_after_the_end_nobody_comes_in(sockets: list[socket.socket]) -> None:
    guests = Guests(3, 3)
    guest, _ = enter(guests, sockets, "a")
    guests.close()
    assert guest.gone
    assert guests.enter(sockets[0], "b") == (None, None)
