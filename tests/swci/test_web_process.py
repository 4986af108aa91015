"""`python -m swci` in web mode beside a real network node, and the class that programs use."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

import pytest

from swarm.identity import Role
from swarm.ledger.state import DEFAULT_CONTRACT
from swarmlearning.swci import Swci, answers
from tests import pki
from tests.processes import Processes, free_port

pytestmark = pytest.mark.slow

USR = Path(__file__).parent / "usr"


def test_commands_to_a_real_network(tmp_path: Path) -> None:
    with Processes(tmp_path) as run:
        ca = pki.authority(tmp_path)
        sn = run.sn("sn1", ca)
        usr = tmp_path / "usr"
        usr.mkdir()
        (usr / "swci-init").write_text(
            f"CREATE CONTEXT c WITH IP {sn.host} {sn.port}\nSWITCH CONTEXT c\n"
        )
        port = free_port()
        node = run.start(
            "swci1",
            "swci",
            {
                **pki.environment(tmp_path / "cert" / "swci1", Role.SWCI, ca, name="swci1"),
                "SWCI_MODE": "WEB",
                "SWCI_WEB_PORT": str(port),
                "SWARM_LISTEN": "127.0.0.1",
                "USR_DIR": str(usr),
            },
        )
        node.wait_for(f"SWCI WEB SERVER IS UP ON PORT : {port}", plain=True)
        files = pki.files(tmp_path / "cert" / "user", "SWCI-user", ca)
        swci = Swci("127.0.0.1", port, str(files.cert), str(files.key), str(ca.path),
                    logger=logging.getLogger("test.swci"))  # fmt: skip

        assert swci.waitForIP(sn.host, sn.port, retries=1) == ["API Server is UP!"]
        assert [(found.type, found.name) for found in swci.getNodes()] == [("SENTINEL", "sn1")]
        task = "user_env_tf_build_task"
        assert swci.uploadTaskDefintion(str(USR / "taskdefs" / f"{task}.yaml"))
        assert swci.registerTask(f"{task}.yaml") == [f"Registered Task : {task}"]
        assert swci.createTaskRunner("tr") == ["TASKRUNNER CREATED : tr"]
        assert swci.assignTask(task, "tr", peers=1)
        assert swci.getTaskState("tr") == "ASSIGNED"
        waiting = answers.field(swci.getTaskRunnerStatus("tr"), "WAITING")
        assert waiting and "waiting for 1 more operator to enroll" in waiting
        with pytest.raises(TimeoutError):
            swci.waitForTaskRunner("tr", timeout=0)
        assert swci.resetTaskRunner("tr")
        assert swci.getPerformance(DEFAULT_CONTRACT) == []

        node.signal(signal.SIGTERM)
        assert node.process.wait(10) == 0
        assert swci.pwd() == []
        assert "no answer from" in str(swci.getErrors())
        node.wait_end()
        assert "SWCI-user: ASSIGN TASK" in node.log
