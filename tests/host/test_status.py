"""`swarm status`: what is seen of a network of the real state machine, on any width."""

from __future__ import annotations

import dataclasses
import io
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from swarm.errors import RemoteError
from swarm.host import asker
from swarm.host.status import command
from swarm.host.status.gather import Network
from swarm.host.status.overview import Overview, SnAnswer, Snapshot, overview
from swarm.host.status.screen import draw
from swarm.host.text import clean
from swarm.identity import Role
from swarm.launch import cli
from tests import pki
from tests.processes import free_port
from tests.swci.network import START, FakeNetwork

CHAIN = "0f" * 32


def status_of(network: FakeNetwork, name: str, **more: Any) -> dict[str, Any]:
    state = network.world.state
    return {
        "name": name,
        "chain": CHAIN,
        "height": state.height,
        "validators": [{"uid": v.uid, "name": ""} for v in state.validators()],
        "quorum": 2,
        "fault_model": "byzantine",
        "waiting": "",
        "certificate": {"days_left": 800.0, "problem": "", "warning": ""},
        "limited": {},
        "evicted": [],
        "disputed": [],
        "evidence": [],
        **more,
    }


def snapshot(network: FakeNetwork, *answers: SnAnswer) -> Snapshot:
    client = network.connect("10.0.0.1", 30304)
    return Snapshot(
        at=datetime.fromtimestamp(network.clock.now_s(), timezone.utc),
        answers=answers or (SnAnswer("10.0.0.1:30304", status_of(network, "sn-1")),),
        ages={**client.presence(), network.world.uid("sn-1"): 0.0},
        nodes=client.table("nodes"),
        runners=client.table("taskrunners"),
        contracts=client.table("contracts"),
    )


def text(view: Overview, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(draw(view, width))
    file = console.file
    assert isinstance(file, io.StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


@pytest.fixture
def network() -> FakeNetwork:
    """Two network nodes, two operators, two learners of which one has checked in."""
    network = FakeNetwork()
    for line in (
        "join sn-2 validator=true host=10.0.0.2",
        "join swop-1 pairs=1 parent=sn-1",
        "join swop-2 pairs=2 parent=sn-2 host=10.0.0.2",
        "member sl-1",
        "member sl-2",
        "join sl-1",
        "join sl-2",
        "train sl-1 min_peers=2",
        "train sl-2 min_peers=2",
        "checkin sl-1",
    ):
        network.act(line)
    network.silent.add(network.world.uid("sl-2"))
    return network


def test_a_wide_screen(network: FakeNetwork) -> None:
    assert (
        text(overview(snapshot(network)), 120)
        == """\
NETWORK 0f0f0f0f0f0f0f0f  block 8  2026-09-21 14:13:20 UTC
  2 validators, 2 for a quorum, byzantine
CONTRACTS 1
  defaultbb.cqdb.sml.hpe  CHECKIN · round 0 · 2 learners, 2 needed
    waits: round 0: waiting for 1 more check-in (minPeers 2, checked in: sl-1; not yet: sl-2)
TASKRUNNERS 1
  defaulttaskbb.taskdb.sml.hpe  IDLE
NODES 6
  SENTINEL  sn-1    here               10.0.0.1:30304  votes
  SN        sn-2    here               10.0.0.2:30304  votes
  SWOP      swop-1  here               10.0.0.1:30304  1 pair for defaulttaskbb.taskdb.sml.hpe
  SWOP      swop-2  here               10.0.0.2:30304  2 pairs for defaulttaskbb.taskdb.sml.hpe
  SL        sl-1    here               10.0.0.1:30304  trains defaultbb.cqdb.sml.hpe
  SL        sl-2    silent for 10 min  10.0.0.1:30304  trains defaultbb.cqdb.sml.hpe"""
    )


def test_a_narrow_screen(network: FakeNetwork) -> None:
    shown = text(overview(snapshot(network)), 44)
    assert (
        shown
        == """\
NETWORK 0f0f0f0f0f0f0f0f  block 8
2026-09-21 14:13:20 UTC
  2 validators, 2 for a quorum, byzantine
CONTRACTS 1
  defaultbb.cqdb.sml.hpe  CHECKIN · round 0
· 2 learners, 2 needed
    waits: round 0: waiting for 1 more
    check-in (minPeers 2, checked in: sl-1;
    not yet: sl-2)
TASKRUNNERS 1
  defaulttaskbb.taskdb.sml.hpe  IDLE
NODES 6
  SENTINEL  sn-1    here
  SN        sn-2    here
  SWOP      swop-1  here
  SWOP      swop-2  here
  SL        sl-1    here
  SL        sl-2    silent for 10 min"""
    )
    assert max(map(len, shown.splitlines())) <= 44


@pytest.mark.parametrize("width", [20, 30, 59, 60, 80, 99, 100, 200])
def test_every_width_shows_everything_that_waits(network: FakeNetwork, width: int) -> None:
    shown = text(overview(snapshot(network)), width)
    assert max(map(len, shown.splitlines())) <= width
    squeezed = "".join(shown.split())
    (contract,) = snapshot(network).contracts.values()
    assert "".join(clean(contract["waiting"]).split()) in squeezed


def warnings_of(network: FakeNetwork, *answers: SnAnswer, **more: Any) -> tuple[str, ...]:
    return overview(dataclasses.replace(snapshot(network, *answers), **more)).warnings


def test_warnings(network: FakeNetwork) -> None:
    assert warnings_of(network) == ()
    place = "10.0.0.1:30304"

    def one(**more: Any) -> tuple[str, ...]:
        return warnings_of(network, SnAnswer(place, status_of(network, "sn-1", **more)))

    ends = "the certificate SN-1 expires in 12 days, on 2030-01-01; renew it"
    assert one(certificate={"warning": ends, "problem": ""}) == (f"sn-1: {ends}",)
    assert one(certificate={"days_left": -1.0, "problem": "it expired"}) == (
        "sn-1: its certificate is refused: it expired",
    )
    assert one(limited={"SL-1": 7}) == ("sn-1 turned SL-1 away 7 times for asking too much",)
    assert one(evicted=[{"name": "sl-9", "reason": "voted out"}]) == (
        "sl-9 was evicted: voted out",
    )
    assert one(disputed=[{"name": "sl-9", "votes": 1, "needed": 2}]) == (
        "sl-9 is to be evicted: 1 of 2 votes",
    )
    assert one(evidence=[{"name": "sn-2"}]) == (
        "sn-2 signed two values for one step of the ledger",
    )
    gone = SnAnswer("10.0.0.2:30304", None, "10.0.0.2:30304 did not answer in time")
    far = SnAnswer("10.0.0.3:30304", status_of(network, "sn-3", height=0))
    assert warnings_of(network, *snapshot(network).answers, gone, far) == (
        "10.0.0.2:30304 does not answer: 10.0.0.2:30304 did not answer in time",
        f"sn-3 is {network.world.state.height} blocks behind",
    )
    assert warnings_of(network, own_warning=ends) == (f"this command: {ends}",)


def test_what_the_ledger_waits_for(network: FakeNetwork) -> None:
    answer = SnAnswer("x", status_of(network, "sn-1", waiting="waiting for votes of sn-2"))
    view = overview(snapshot(network, answer))
    assert "    waits: waiting for votes of sn-2" in text(view, 80).splitlines()


def test_rounds_and_their_loss(network: FakeNetwork) -> None:
    view = snapshot(network)
    (name, contract) = next(iter(view.contracts.items()))
    contract["last"] = {"round": 6, "roster": ["a", "b"], "at_ms": (START - 90) * 1000}
    for member, loss in zip(contract["members"].values(), ("0.5", "0.25"), strict=True):
        member.update(loss=loss, reported_round=6)
    (row,) = overview(dataclasses.replace(view, contracts={name: contract})).contracts
    waited = int(view.at.timestamp()) - START + 90
    assert row.last.startswith("round 6 of 2 merged ")
    assert row.last.endswith(" ago, loss 0.3750")
    assert waited >= 90
    assert (
        overview(dataclasses.replace(view, contracts={name: {**contract, "over": True}}))
        .contracts[0]
        .status
        == "FINISHED"
    )


def test_a_failed_task_says_why() -> None:
    network = FakeNetwork()
    runner = {
        "name": "r", "state": "ERROR", "task": "t", "peer_type": "SL", "needed": 2,
        "peers": {"a": {"state": "ERROR"}, "b": {"state": "COMPLETE"}}, "swops": {},
        "waiting": "", "text": "sl-1: out of memory",
    }  # fmt: skip
    view = dataclasses.replace(snapshot(network), runners={"r": runner})
    (row,) = overview(view).taskrunners
    assert (row.progress, row.waiting) == ("1 of 2 pairs complete, 1 failed", "sl-1: out of memory")


# ------------------------------------------------------------------ hostile members


def test_names_cannot_drive_a_terminal(network: FakeNetwork) -> None:
    view = snapshot(network)
    for record in view.nodes.values():
        record["name"] = "\x1b[2J[bold red]x[/]\u202e\r\n"  # type: ignore[index]
    shown = text(overview(view), 120)
    assert "\x1b" not in shown and "\u202e" not in shown and "\r" not in shown
    assert "[bold red]x[/]" in shown  # markup is text, too


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
KEYS = (
    "type name host port active runner pairs contract state task peer_type peers swops needed "
    "waiting text status round members rules min_peers last roster at_ms reported_round loss over "
    "height chain validators quorum certificate warning problem limited evicted disputed votes"
).split()
RECORD = st.dictionaries(st.sampled_from(KEYS), JSON, max_size=12)
TABLE = st.dictionaries(st.text(max_size=8), RECORD | JSON, max_size=4)


@settings(max_examples=30)
@given(RECORD, TABLE, TABLE, TABLE)
def test_nothing_that_is_said_is_an_error(
    status: Any, nodes: Any, runners: Any, contracts: Any
) -> None:
    answers = (SnAnswer("a", status), SnAnswer("b", None, "\x1b"))
    ages = dict.fromkeys(nodes, 3.0)
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
    view = overview(Snapshot(now, answers, ages, nodes, runners, contracts))
    shown = text(view, 70)
    assert all(c.isprintable() or c == "\n" for c in shown)
    json.dumps(dataclasses.asdict(view))


# ------------------------------------------------------------------ the command


def test_no_network_node_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ca = pki.authority(tmp_path)
    files = pki.files(tmp_path, "SWCI-1", ca)
    port = free_port()
    words = ["status", f"--sn=127.0.0.1:{port}", f"--cert={files.cert}", f"--key={files.key}"]
    words.append(f"--capath={ca.capath}")
    assert cli.swarm(words) == 1
    assert capsys.readouterr().out == (
        f"No network node answers: 127.0.0.1:{port}: nothing listens there\n"
    )
    assert cli.swarm([*words, "--json"]) == 1
    value = json.loads(capsys.readouterr().out)
    assert value["problem"] and value["network"] is None


def test_the_last_screen_stays_when_nobody_answers(network: FakeNetwork) -> None:
    seen = overview(snapshot(network))
    lost = overview(Snapshot(seen_at(network), problem="sn-1 is gone"))
    shown = text(command.stale(seen, lost), 120).splitlines()
    assert shown[0] == f"No network node answers: sn-1 is gone (below: as it was at {seen.at})"
    assert any("swop-2" in line for line in shown)


def seen_at(network: FakeNetwork) -> datetime:
    return datetime.fromtimestamp(network.clock.now_s(), timezone.utc)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--sn=a:b"], "--sn: expected a port"),
        (["--cert=x"], "--cert needs --key"),
        (["--cert=x", "--key=y"], "--cert needs --sn"),
        ([], "SW9030: swarm.yaml"),
    ],
)
def test_wrong_command_lines(
    words: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.swarm(["status", *words]) == 1
    assert complaint in capsys.readouterr().err


def test_a_host_asks_with_the_first_identity_that_is_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.swarm(["init", "--yes", "--address=127.0.0.1", "--make-certificates"]) == 0
    parser = command._parser()
    identity, places = asker.asker_of(parser.parse_args(["--sn=10.0.0.9"]))
    assert identity.role is Role.SWCI
    assert places == [("10.0.0.9", 30304), ("127.0.0.1", 30304)]
    (tmp_path / "cert/swci-1-key.pem").unlink()
    assert asker.asker_of(parser.parse_args([]))[0].role is Role.SWOP


def test_an_sn_that_refuses_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its status is still shown, and why there is no more."""
    ca = pki.authority(tmp_path)
    network = Network(pki.identity(tmp_path, Role.SWCI, ca), [("127.0.0.1", 1)], now)

    def refuse(name: str) -> Any:
        raise RemoteError("SW5002", "it refused our certificate")

    monkeypatch.setattr(network._client, "table", refuse)
    found = network.look()
    network.close()
    assert found.problem == "it refused our certificate"
    assert [answer.place for answer in found.answers] == ["127.0.0.1:1"]


def now() -> datetime:
    return datetime(2026, 1, 1, tzinfo=timezone.utc)
