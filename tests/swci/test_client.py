"""`swarmlearning.swci.Swci` against web mode: what it sends, keeps, and says of failures."""

from __future__ import annotations

import builtins
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.ledger.state import DEFAULT_CONTRACT, DEFAULT_RUNNER
from swarmlearning.swci import Swci, answers, client, topology
from tests import pki
from tests.swci.web import HOST, Site, running

DEFS = Path(__file__).parent / "usr" / "taskdefs"
BUILD, RUN = "user_env_tf_build_task", "swarm_mnist_task"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running(tmp_path) as site:
        yield site


def connect(site: Site, name: str = "SWCI-user", **options: Any) -> Swci:
    cert, key = site.files(name)
    options = {"clientCABundle": str(site.ca.path), **options}
    return Swci(HOST, site.port, cert, key, logger=logging.getLogger("test.swci"), **options)


@pytest.fixture
def swci(site: Site) -> Swci:
    found = connect(site)
    assert found.createContext("c", ip="sn1") == ["API Server is UP!", "CONTEXT CREATED : c"]
    assert found.switchContext("c") == ["DEFAULT CONTEXT SET TO : c"]
    return found


def happen(site: Site, *lines: str) -> None:
    for line in lines:
        site.network.act(line)


# ---------------------------------------------------------------- constructor


def test_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="SWCI IP not provided!"):
        Swci("")
    with pytest.raises(RuntimeError, match="SWCI Port not Integer!"):
        Swci(HOST, "30306")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="certificate files cannot be used"):
        Swci(HOST, clientCert=str(tmp_path / "absent"))
    made = Swci(HOST, 1)
    assert made.logger.name == "swci-web"
    assert "is not verified" in (tmp_path / "swci-web.log").read_text()
    for level, meant in (("debug", logging.DEBUG), (logging.INFO, logging.INFO), ("LOUD", 30)):
        made.setLogLevel(level)
        assert made.logger.level == meant
    assert made.pwd() == []
    assert "no answer from 127.0.0.1:1" in str(made.getErrors())
    for handler in made.logger.handlers:
        handler.close()
    made.logger.handlers.clear()


def test_the_server_is_verified(site: Site, tmp_path: Path) -> None:
    """By its CA, in a file or a directory, and by its role."""
    assert connect(site, clientCABundle=str(site.ca.capath)).pwd() == ["/platform/swarm/usr"]
    foreign = pki.authority(tmp_path / "foreign", 2)
    other = connect(site, clientCABundle=str(foreign.path))
    assert other.pwd() == []
    assert "is not trusted: " in str(other.getErrors())
    assert connect(site, clientCABundle=None).pwd() == ["/platform/swarm/usr"], "as asked for"


def test_another_role_is_no_command_interface(tmp_path: Path) -> None:
    """A learner's certificate is of a trusted CA, too."""
    with running(tmp_path) as site:
        learner = pki.identity(site.directory / "sl", "SL", site.ca)
        site.server._contexts._make = learner.server_context
        site.server._contexts._made = ((0, 0), learner.server_context())
        site.server._contexts._identity = learner
        asked = connect(site)
        assert asked.pwd() == []
        assert "is no command interface: its certificate is SL-1" in str(asked.getErrors())


def test_one_file_for_certificate_and_key(site: Site, tmp_path: Path) -> None:
    cert, key = site.files("SWCI-user")
    both = tmp_path / "both.pem"
    both.write_text(Path(key).read_text() + Path(cert).read_text())
    made = Swci(HOST, site.port, str(both), clientCABundle=str(site.ca.path),
                logger=logging.getLogger("test.swci"))  # fmt: skip
    assert made.pwd() == ["/platform/swarm/usr"]


def test_a_refused_certificate(site: Site) -> None:
    refused = connect(site, "SL-1")
    assert refused.listTasks() == []
    assert str(refused.getErrors()).startswith("ERROR : SW1207: certificate SL-1 has the role SL")
    assert refused.uploadTaskDefintion(str(DEFS / f"{BUILD}.yaml")) == []
    assert str(refused.getErrors()).startswith("ERROR : SW1207: ")


# ---------------------------------------------------------------- methods


def test_tasks(site: Site, swci: Swci) -> None:
    where = f"/platform/swarm/usr/{BUILD}.yaml"
    assert swci.uploadTaskDefintion(str(DEFS / f"{BUILD}.yaml")) == [
        f"Task definition uploaded : {where}"
    ]
    assert swci.listTasks() == ["ROOTTASK"]
    assert swci.createTaskFrom(f"{BUILD}.yaml")[1] == f"Task Registered : {BUILD}"
    assert swci.listTasks() == ["ROOTTASK", BUILD], "what was kept was dropped"
    assert answers.field(swci.getTaskInfo(BUILD), "FINALIZED") == "False"
    assert swci.finalizeTask(BUILD) == [f"Task Finalized : {BUILD}"]
    assert answers.field(swci.getTaskInfo(BUILD), "FINALIZED") == "True"
    assert swci.getTaskBody(BUILD)[0] == "0000: ---"
    swci.uploadTaskDefinition(str(DEFS / f"{RUN}.yaml"))
    assert swci.registerTask(f"{RUN}.yaml") == [f"Registered Task : {RUN}"]
    assert swci.registerTask(f"{RUN}.yaml") == []
    assert str(swci.getErrors()).startswith("ERROR : SW4021")
    assert swci.createTaskFrom("absent.yaml") == []
    assert "absent.yaml" in str(swci.getErrors())
    assert swci.pwd() and swci.getErrors() is None
    assert swci.uploadTaskDefintion("/absent") == []
    assert "No such file" in str(swci.getErrors())


def test_directories(site: Site, swci: Swci) -> None:
    (site.usr / "a b").mkdir()
    (site.usr / "defs").mkdir()
    assert swci.ls() == ["a b", "defs"]
    assert swci.ls("-d defs") == ["defs"]
    assert swci.cd("defs") == ["Current Directory : /platform/swarm/usr/defs"]
    assert swci.sleep(0) == []
    assert swci.getErrors() is None


def test_contexts(site: Site, swci: Swci) -> None:
    with pytest.raises(RuntimeError, match="Either ip or service"):
        swci.createContext("d")
    assert swci.createContext("d", service="proxy:8443")
    assert swci.listContexts() == ["c", "d"]
    assert answers.field(swci.getContextInfo("d"), "API SERVER PORT") == "8443"


def test_what_is_kept(site: Site, swci: Swci) -> None:
    """Own acts are seen at once; those of others after a while, or when asked for."""
    other = connect(site, "SWCI-other")
    other.createContext("c", ip="sn1")
    other.switchContext("c")
    assert swci.listTaskRunners() == [DEFAULT_RUNNER]
    other.createTaskRunner("tr")
    assert swci.listTaskRunners() == [DEFAULT_RUNNER]
    swci.clearCache()
    assert swci.listTaskRunners() == [DEFAULT_RUNNER, "tr"]
    other.createTrainingContract("ct")
    assert swci.listTrainingContracts() == ["ct", DEFAULT_CONTRACT]
    other.createTrainingContract("later")
    now = swci._clock()
    swci._clock = lambda: now + client.CACHE_SECONDS + 1
    assert swci.listTrainingContracts() == ["ct", DEFAULT_CONTRACT, "later"]
    assert answers.field(swci.getTrainingContractInfo("ct"), "TYPE") == "TRAINING"
    without = connect(site, "SWCI-third", enableCaching=False)
    without.createContext("c", ip="sn1")
    without.switchContext("c")
    assert "tr2" not in without.listTaskRunners()
    other.createTaskRunner("tr2")
    assert "tr2" in without.listTaskRunners()


OPERATORS = ("join swop-1 pairs=1 parent=sn-1", "join swop-2 pairs=1 parent=sn-1")
STEPS = (
    ("enroll swop-1 1", "enroll swop-2 1"),
    (
        "status swop-1 RUNNING peer=u1 index=0 text=started",
        "status swop-1 COMPLETE peer=u1 index=0",
    ),
    ("status swop-2 ERROR text='no GPU'",),
)


def tasks(swci: Swci) -> None:
    for name in (BUILD, RUN):
        swci.uploadTaskDefintion(str(DEFS / f"{name}.yaml"))
        assert swci.registerTask(f"{name}.yaml")


def test_a_task_from_assignment_to_the_end(
    site: Site, swci: Swci, capsys: pytest.CaptureFixture[str]
) -> None:
    """With ALL peers; the statuses of those that have enrolled are printed, however many pairs."""
    happen(site, *OPERATORS)
    tasks(swci)
    steps = list(STEPS)
    swci._pause = lambda seconds: happen(site, *steps.pop(0))
    assert swci.getTaskState() == "IDLE"
    status = swci.executeTask(RUN, peers="ALL", pollWaitInSec=1)
    assert answers.field(status, "TASK_STATE") == "ERROR"
    assert answers.field(status, "NEEDED PEERS") == "2"
    printed = capsys.readouterr().out
    assert "SWOP_PEER_INDEX : 0" in printed and "SWOP_PEER_STATUS_DESC : no GPU" in printed
    assert swci.isTaskDone(DEFAULT_RUNNER)
    uid = site.network.world.uid("swop-2")
    found = swci.getPeerStatus(DEFAULT_RUNNER, uid)
    assert found == answers.PeerStatus(uid, "ERROR", "no GPU")
    first = swci.getPeerStatus(DEFAULT_RUNNER, 0)
    assert first and [(p.uid, p.state) for p in first.pairs] == [("u1", "COMPLETE")]
    assert swci.getPeerStatus(DEFAULT_RUNNER, 7) is None
    assert [row.split(",")[0] for row in swci.listTaskRunnerPeers(DEFAULT_RUNNER)] == [
        "Index", "0", "1",
    ]  # fmt: skip
    assert swci.executeTask(RUN, peers=1) == []
    assert str(swci.getErrors()).startswith("ERROR : SW4032"), "not reset after a failure"


def test_one_operator_only(site: Site, swci: Swci) -> None:
    happen(site, *OPERATORS)
    tasks(swci)
    uid = site.network.world.uid("swop-2")
    assert swci.assignTask(BUILD, target=uid)[1] == "PEERS NEEDED : 1"
    info = swci.getTaskRunnerInfo(DEFAULT_RUNNER)
    assert answers.field(info, "TARGET") == uid
    with pytest.raises(TimeoutError, match="is ASSIGNED after 0 s"):
        swci.waitForTaskRunner(timeout=0)
    steps = [("enroll swop-2 1",), ("status swop-2 COMPLETE text=built",)]
    swci._pause = lambda seconds: happen(site, *steps.pop(0))
    assert swci.waitForTaskRunner() == "COMPLETE"
    assert swci.resetTaskRunner() == [f"TASKRUNNER RESET : {DEFAULT_RUNNER}"]
    assert answers.field(swci.getTaskRunnerInfo(DEFAULT_RUNNER), "TARGET") == "*"
    with pytest.raises(RuntimeError, match="there is no taskrunner absent"):
        swci.isTaskDone("absent")


def test_contracts_and_nodes(site: Site, swci: Swci) -> None:
    happen(site, "join sl-1", "train sl-1")
    assert answers.field(swci.getTrainingContractStatus(DEFAULT_CONTRACT), "PEER COUNT") == "1"
    assert [row.completedEpochs for row in swci.getPerformance()] == [0]
    assert swci.resetTrainingContract() == [f"CONTRACT RESET : {DEFAULT_CONTRACT}"]
    assert [(node.type, node.name) for node in swci.getNodes()] == [
        ("SENTINEL", "sn-1"), ("SL", "sl-1"),
    ]  # fmt: skip
    drawn = topology.graph(swci.getNodes(), [])
    assert drawn.number_of_edges() == 1


def test_any_command(site: Site, swci: Swci) -> None:
    assert swci.run("list tasks") == ["ROOTTASK"]
    assert swci.run("nonsense") == []
    assert "'nonsense' is no command" in str(swci.getErrors())
    happen(site, "join sl-1", "train sl-1")
    (row,) = swci.ask(f"PERFDATA {DEFAULT_CONTRACT}")
    assert (row["epochs"], row["sl_admin"]) == (0, False)
    assert swci.getErrors() is None
    assert swci.ask("GET TASK INFO absent") is None
    assert str(swci.getErrors()).endswith(": there is no task absent")
    refused = connect(site, "SL-1")
    assert refused.ask("LIST TASKS") is None
    assert str(refused.getErrors()).startswith("ERROR : SW1207: ")


def test_waiting_for_a_network_node(site: Site, swci: Swci) -> None:
    assert swci.waitForIP("sn1") == ["API Server is UP!"]
    assert swci.waitForService("proxy:443", retries=1) == ["API Server is UP!"]
    site.network.act("down")
    assert swci.waitForIP("sn1", 30304, retries=client.RETRIES_AT_ONCE + 1) == []
    assert "API Server is DOWN! sn1:30304: nothing listens there" in str(swci.getErrors())
    assert len(site.network.clients) == 5, "in two requests"


# ---------------------------------------------------------------- topology


NODES = [
    "NodeType,HostIP,Port,ContainerName,UUID,ParentUUID,LastAlive",
    "SENTINEL,172.1.1.1,30304,sn1,A,-,now",
    "SN,172.2.2.2,30304,sn2,B,-,now",
    "SWOP,-,-,swop1,C,A,now",
    "SL,172.2.2.2,16000,sl1,D,B,now",
    "swop9 (E) shall be evicted, says CA-1",
]


def test_topology() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    colours = {"SN": "#ADD8E6", "SWOP": "#33FF33", "SL": "#FFCCCB"}
    drawn = topology.draw(answers.nodes(NODES), colours, ["HostIP"])
    assert sorted(map(sorted, drawn.edges)) == [["A", "B"], ["A", "C"], ["B", "D"]]
    assert drawn.nodes["D"] == {"type": "SL", "label": "sl1\n172.2.2.2"}
    texts = [text.get_text() for text in pyplot.gca().texts]
    assert sorted(texts)[0] == "sl1\n172.2.2.2"
    pyplot.close()
    with pytest.raises(ValueError, match="no column Colour"):
        topology.graph([], ["Colour"])


@pytest.mark.parametrize("absent", ["networkx", "matplotlib"])
def test_topology_without_its_libraries(monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.partition(".")[0] == absent:
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RuntimeError, match=r"pip install 'swarmlearning\[topology\]'"):
        topology.draw(answers.nodes(NODES), {}, [])


# ---------------------------------------------------------------- parsing


def test_perfdata() -> None:
    header = "UID,SL ADMIN,MODEL LOSS,MODEL METRIC,TOTAL EPOCHS,COMPLETED EPOCHS"
    assert answers.performance([header, "A,False,0.25,0.5,10,3", "B,True,0,0,0,0"]) == [
        answers.Performance("A", False, 0.25, 0.5, 10, 3),
        answers.Performance("B", True, 0.0, 0.0, 0, 0),
    ]
    assert answers.performance([]) == []


def test_peer_status() -> None:
    found = answers.peer_status(
        ["NAME : tr", "SWOP_UID : A", "SWOP_PEER_STATUS : ERROR", "SWOP_PEER_STATUS_DESC : two",
         "lines : of text", "SL_UID : g-0", "SL_PEER_STATUS : COMPLETE", "SL_PEER_STATUS_DESC : -"]
    )  # fmt: skip
    pair = answers.PeerStatus("g-0", "COMPLETE", "-")
    assert found == answers.PeerStatus("A", "ERROR", "two\nlines : of text", (pair,))


@given(st.lists(st.text()))
def test_any_answer(lines: list[str]) -> None:
    """Nothing that a server says brings a parser down in another way than ValueError."""
    answers.nodes(lines)
    answers.peer_status(lines)
    answers.field(lines, "NAME")
    try:
        answers.performance(lines)
    except ValueError:
        return
