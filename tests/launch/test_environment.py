"""Variables of the environment: those that do nothing here are named once, and LOGS_DIR works."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import inherited
from swarm import log as logs
from swarm.errors import LocalError


@pytest.fixture(autouse=True)
def root() -> Iterator[None]:
    """What a test does to the logging of this process does not outlive it."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield
    for handler in logger.handlers:
        if handler not in handlers:
            handler.close()
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_one_notice_names_them_with_their_reasons_and_not_their_values() -> None:
    env = {
        "SL_MAKE_ME_ADMIN": "geheim",
        "SL_LEADER_FAILURE_BASE_TIMEOUT": "600",
        "SWARM_LICENSE_AUTOPASSJ_SERVER_PRIMARY_IP": "10.0.0.1",
        "SN_START_MINING": "True",
        "SN_API_SERVER_PORT": "30304",
    }
    assert inherited.notice(env, "SL") == (
        "without effect here: SL_LEADER_FAILURE_BASE_TIMEOUT, SL_MAKE_ME_ADMIN (learners merge "
        "without a leader); SWARM_LICENSE_AUTOPASSJ_SERVER_PRIMARY_IP (no licence is needed)"
    )
    assert inherited.notice({}, "SN") == ""


def test_a_prefix_restricts_a_variable_to_its_component() -> None:
    env = {"SL_MAKE_ME_ADMIN": "False", "SN_START_MINING": "True"}
    assert inherited.notice(env, "SN") == "without effect here: SN_START_MINING (nothing is mined)"
    assert inherited.notice(env, "SWOP") == ""


def test_every_variable_of_the_product_is_on_the_page() -> None:
    """Those that work, and those that do not."""
    page = (Path(__file__).parents[2] / "docs/reference/configuration.md").read_text()
    named = set(re.findall(r"`([A-Za-z_]+)`", page))
    assert inherited.WITHOUT_EFFECT.keys() <= named
    documented = """
        SWARM_LOOPBACK LOGS_DIR USR_DIR SN_ETH_PORT_EXT SN_I_AM_SENTINEL SN_START_MINING
        SL_MAKE_ME_ADMIN SL_LEADER_FAILURE_BASE_TIMEOUT SL_WAIT_FOR_FULL_QUORUM_SECONDS
        SL_RAM_INTENSIVE SL_MODEL_PARAMS_COMPRESSION_THRESHOLD_MB SWCI_RUN_TASK_MAX_WAIT_TIME
        SWCI_GENERIC_TASK_MAX_WAIT_TIME SWCI_MODE SWCI_STARTUP_SCRIPT SWOP_PROFILE
        SWOP_KEEP_CONTAINERS SWARM_ID_CACERT SWARM_ID_CAPATH SWARM_ID_CERT SWARM_ID_KEY
        SWARM_SPIFFE_WORKLOAD_API_SOCKET_PATH SWARM_LOG_LEVEL SL_LOG_LEVEL http_proxy https_proxy
        no_proxy swarm_node_type
    """.split()
    assert set(documented) <= named, set(documented) - named


def test_logs_go_to_a_directory_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGS_DIR", str(tmp_path / "logs"))
    monkeypatch.setenv("SWARM_NODE_NAME", "../sn1")  # a name is no path
    logs.configure()
    logging.getLogger("swarm.test").info("heard")
    file = tmp_path / "logs" / "sn1.log"
    assert file.read_text().endswith(" : swarm.test : INFO : heard\n")
    assert file.stat().st_mode & 0o077 == 0


def test_that_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGS_DIR", str(tmp_path))
    monkeypatch.setattr(logs, "FILE_BYTES", 5_000)
    logs.configure()
    for number in range(200):
        logging.getLogger("swarm.test").info("%s %d", "x" * 100, number)
    files = list(tmp_path.iterdir())
    assert len(files) == logs.FILES
    assert sum(file.stat().st_size for file in files) <= 5_000
    assert "x 199" in (tmp_path / "node.log").read_text()


def test_a_directory_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LOGS_DIR", str(tmp_path / "file"))
    with pytest.raises(LocalError, match=r"^SW9011: LOGS_DIR: .*node\.log"):
        logs.configure()
