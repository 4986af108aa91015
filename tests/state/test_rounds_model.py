"""Model checking of rounds: small cases exhaustively, larger ones by seeded walks.

After every step `check_step` holds the invariants: no round is decided twice or with a digest that
does not belong to its attempt, and a member counts once. From the points that were reached,
well-behaved members must come to a decision whenever at least `min_peers` of them live.
"""

from __future__ import annotations

import random

import pytest

from tests.state.model import MAX_ATTEMPT, Model


def explore(start: Model, most: int, attempts: int = MAX_ATTEMPT) -> list[Model]:
    """All points that can be reached until the first round is decided and nothing is on its way.

    AssertionError when there are more than `most`, so that "exhaustive" stays true.
    """
    seen = {start.key()}
    reached, frontier = [start], [start]
    while frontier:
        model = frontier.pop()
        for _, move in model.moves():
            after = move()
            contract = after.contract
            if contract["attempt"] > attempts or contract["round"] > 1:
                continue
            if contract["round"] == 1 and not any(after.pending):
                continue
            key = after.key()
            if key not in seen:
                seen.add(key)
                reached.append(after)
                frontier.append(after)
        assert len(seen) <= most
    return reached


def check_stale(model: Model) -> None:
    """Statements about other attempts and rounds change nothing, whoever makes them."""
    contract = model.contract
    here = (contract["round"], contract["attempt"])
    for round_, attempt in ((here[0], here[1] + 1), (here[0], here[1] - 1), (here[0] + 1, here[1])):
        for i, name in enumerate(model.names):
            for one in (
                model.merged(i),
                model.suspicion(i, [model.uid((i + 1) % len(model.names))]),
            ):
                args = {**one.args, "round": round_, "attempt": max(0, attempt)}
                if (args["round"], args["attempt"]) != here or contract["status"] != "MERGING":
                    after = model.apply(name, one.op, args)
                    assert after.contract == contract


def settles(model: Model) -> None:
    """Well-behaved members decide round after round, exactly if enough of them live."""
    if sum(model.alive) >= model.contract["rules"]["min_peers"]:
        model.settle()
        return
    with pytest.raises(AssertionError, match="no decision: round"):
        # What the dead had sent may still decide one round, and no more.
        model.settle(most=8).settle(most=8)


def test_two_learners_one_dies_and_returns_exhaustively() -> None:
    reached = explore(Model.start(2, deaths=1, returns=1), most=20_000)
    assert len(reached) > 500
    for model in random.Random(1).sample(reached, 80):
        settles(model)


def test_three_learners_one_dies_exhaustively() -> None:
    """Statements arrive at once here; `check_stale` shows that late ones would change nothing."""
    reached = explore(Model.start(3, deaths=1, returns=0, atomic=True), most=9_000, attempts=1)
    choose = random.Random(3)
    for model in choose.sample(reached, 60):
        settles(model)
    for model in choose.sample(reached, 60):
        if model.contract["round"] == 0:
            check_stale(model)


def test_two_learners_false_alarm_exhaustively() -> None:
    reached = explore(Model.start(2, deaths=0, false_alarms=1), most=20_000)
    for model in random.Random(2).sample(reached, 50):
        settles(model)


def test_dead_at_min_peers_waits_and_says_for_whom() -> None:
    model = Model.start(2, deaths=1, returns=0)
    for i in range(2):
        sent = model.checkin(i)
        model = model.apply(model.names[i], sent.op, sent.args)
    dead = kill(model, 1).report_lost(1)
    assert "gone: sl-1" in dead.contract["waiting"]
    settles(dead)


@pytest.mark.parametrize("n", [3, 4])
def test_seeded_walks(n: int) -> None:
    """Long random walks over several rounds, with deaths, returns and false alarms."""
    decided = 0
    for seed in range(25):
        choose = random.Random(1000 * n + seed)
        model = Model.start(n, deaths=2, false_alarms=2, returns=2)
        for _ in range(80):
            moves = list(model.moves())
            if not moves:
                break
            if choose.random() < 0.5:  # prefer arrivals a little, so that walks get somewhere
                moves = [one for one in moves if "ordered" in one[0]] or moves
            model = choose.choice(moves)[1]()
        decided += model.contract["round"]
        settles(model)
    assert decided > 10, "the walks stay at the start and show nothing"


def merging(n: int) -> Model:
    """All of `n` have checked in."""
    model = Model.start(n, deaths=1, returns=1)
    for i in range(n):
        sent = model.checkin(i)
        model = model.apply(model.names[i], sent.op, sent.args)
    assert model.contract["status"] == "MERGING"
    return model


def say_merged(model: Model, i: int) -> Model:
    sent = model.merged(i)
    return model.apply(model.names[i], sent.op, sent.args)


def kill(model: Model, i: int) -> Model:
    return next(move() for name, move in model.moves() if name == f"{model.names[i]} dies")


@pytest.mark.parametrize("victim", range(3))
def test_three_learners_one_dies_after_it_reported_merged(victim: int) -> None:
    model = say_merged(merging(3), victim)
    after = kill(model, victim).settle()
    last = after.contract["last"]
    # Nobody else held that result, so the round is decided among the others, in a new attempt.
    assert last["attempt"] == 1
    assert model.uid(victim) not in last["roster"] + last["holders"]


@pytest.mark.parametrize("victim", range(3))
def test_three_learners_one_dies_when_its_result_has_won(victim: int) -> None:
    """Two of three hold the result: the round stands, and the third fetches from the survivor."""
    model = merging(3)
    model = say_merged(say_merged(model, victim), (victim + 1) % 3)
    assert model.contract["last"]["attempt"] == 0
    dead = kill(model, victim)
    assert dead.uid((victim + 1) % 3) in dead.contract["last"]["holders"]
    after = dead.settle()
    assert after.contract["last"]["round"] == 1


@pytest.mark.parametrize("n", [3, 4, 5])
@pytest.mark.parametrize("merged_first", [False, True])
def test_cut_between_two_members_only(n: int, merged_first: bool) -> None:
    """One of the two goes, always the same one, and all others go on."""
    for one in range(n):
        for other in range(one + 1, n):
            model = merging(n)
            bystander = next(i for i in range(n) if i not in (one, other))
            if merged_first:  # it got everything before the cable was cut
                model = say_merged(model, bystander)
            after = model.settle(frozenset({one, other}))
            loser = max(model.uid(one), model.uid(other))
            roster = after.contract["last"]["roster"]
            assert loser not in roster
            assert len(roster) == n - 1


def test_late_statements_about_a_failed_attempt_count_for_nothing() -> None:
    """Both orders of a late `merged` and the suspicion that ends its attempt."""
    model = merging(3)
    late = [model.merged(i) for i in range(3)]
    accusations = [model.suspicion(i, [model.uid(2)]) for i in (0, 1)]
    for one in accusations:
        model = model.apply(model.names[accusations.index(one)], one.op, one.args)
    assert model.contract["attempt"] == 1
    for i, one in enumerate(late):
        model = model.apply(model.names[i], one.op, one.args)
    assert model.contract["merged"] == {}
    assert model.settle().contract["last"]["attempt"] == 1


def test_a_result_that_wins_before_the_suspicion_stands() -> None:
    model = merging(3)
    accusation = model.suspicion(0, [model.uid(2)])
    late = model.suspicion(1, [model.uid(2)])
    model = model.apply(model.names[0], accusation.op, accusation.args)
    model = say_merged(say_merged(model, 1), 2)
    assert model.contract["round"] == 1
    model = model.apply(model.names[1], late.op, late.args)
    assert model.contract["round"] == 1
    assert model.contract["members"][model.uid(2)]["state"] == "active"
