"""Whom one blames, and when: the accounting with a clock of its own."""

from __future__ import annotations

from swarm.merge.progress import SLOWEST, Limits, Link

LIMITS = Limits(stall=10, unreachable=3)


def link() -> Link:
    return Link(LIMITS, 100.0)


def test_silence_is_blamed_after_the_limit_and_not_before() -> None:
    one = link()
    assert one.blame("me", 109.9) == ""
    assert "no bytes for 10 s" in one.blame("me", 110.0)


def test_a_slow_link_is_never_blamed_while_bytes_come() -> None:
    one = link()
    now = 100.0
    for _ in range(1000):
        now += 9.0
        one.bytes_came(1, now)
        one.data_came(now)
        assert one.blame("me", now + 8.9) == ""


def test_the_limit_grows_with_the_pauses_that_ended_well() -> None:
    one = link()
    one.bytes_came(1, 109.0)
    one.data_came(109.0)
    assert one.limit() == 27.0
    assert one.blame("me", 109.0 + 26.9) == ""
    assert one.blame("me", 109.0 + 27.0) != ""


def test_who_waits_for_a_third_is_not_blamed_while_the_third_moves() -> None:
    one = link()
    now = 100.0
    for second in range(100):
        now += 1.0
        one.bytes_came(20, now)
        one.wait_came({"third": (second + 1) * SLOWEST}, now)
        assert one.blame("me", now) == ""


def test_excuses_that_never_change_are_believed_three_limits_long() -> None:
    one = link()
    for second in range(101, 131):
        one.bytes_came(20, second)
        one.wait_came({"third": 5}, second)
    assert one.blame("me", 130.0) == ""
    for second in range(131, 141):
        one.bytes_came(20, second)
        one.wait_came({"third": 5}, second)
    assert "excuses" in one.blame("me", 140.0)


def test_excuses_that_hardly_grow_or_go_up_and_down_are_no_better() -> None:
    for count in (lambda second: second, lambda second: SLOWEST * 10 * (second % 2)):
        one = link()
        for second in range(101, 161):
            one.bytes_came(20, second)
            one.wait_came({"third": count(second)}, second)
        assert "excuses" in one.blame("me", 160.0)


def test_bytes_that_add_up_to_no_part_are_no_progress() -> None:
    one = Link(LIMITS, 100.0, part=60 * SLOWEST)
    for second in range(101, 161):
        one.bytes_came(1, second)
        one.room(True, second)  # it comes with a new connection each time
    assert one.blame("me", 159.9) == ""
    assert "nothing that is whole for 60 s" in one.blame("me", 160.0)


def test_a_part_may_take_as_long_as_this_link_has_shown_to_need() -> None:
    one, now = Link(LIMITS, 100.0, part=100 * SLOWEST), 100.0
    for seconds, patience in ((2, 30.0), (15, 45.0), (40, 100.0), (3, 100.0)):
        for _ in range(seconds):
            now += 1.0
            one.bytes_came(SLOWEST, now)
            assert one.blame("me", now) == ""
        one.data_came(now)
        assert one.patience() == patience


def test_bytes_that_do_not_open_are_an_accident_twice() -> None:
    one = link()
    one.did_not_open()
    one.did_not_open()
    assert one.blame("me", 100.0) == ""
    one.did_not_open()
    assert "do not open" in one.blame("me", 100.0)


def test_who_waits_for_me_in_vain_is_cut_from_me() -> None:
    one = link()
    for second in range(101, 113):
        one.bytes_came(20, second)
        one.wait_came({"me": 5}, second)
    assert "does not get our bytes" in one.blame("me", 112.0)


def test_without_room_here_nobody_is_late() -> None:
    one = link()
    one.room(False, 101.0)
    assert one.blame("me", 500.0) == ""
    one.room(True, 500.0)
    assert one.blame("me", 509.0) == ""
    assert one.blame("me", 510.0) != ""


def test_unreachable_and_reached_again() -> None:
    one = link()
    one.not_reached("refused", 101.0)
    one.not_reached("refused", 103.0)
    assert one.blame("me", 103.9) == ""
    assert "cannot be reached for 3 s (refused)" in one.blame("me", 104.0)
    one.reached()
    assert one.blame("me", 104.0) == ""


def test_why_it_is_not_reached_is_told_before_what_it_said_last() -> None:
    one = link()
    one.wait_came({"third": 1}, 101.0)
    assert one.owes(101.0) == "it waits for others"
    one.not_reached("its key is barred", 102.0)
    assert one.owes(102.0) == "not reachable: its key is barred"


def test_complete_and_proven_faults() -> None:
    one = link()
    one.complete = True
    assert one.blame("me", 1000.0) == ""
    one.fault = "sent garbage"
    assert one.blame("me", 100.0) == "sent garbage"
