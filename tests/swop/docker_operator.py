"""An operator with the DOCKER runtime in a thread, beside the real state machine."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from swop.daemon import Daemon
from swop.docker_runtime import DockerRuntime
from swop.plan import Host, Program
from swop.profile import parse_profile
from tests.swop.fake_api import FakeNetwork
from tests.swop.test_profile import PROFILE

# In the SL's place: it ends with 0 when its ML wrote "bye", as the real one does.
LEARNER = (
    "import os, time; print('learner up', flush=True)\n"
    "while not os.path.exists(os.environ['SWARM_LINK'] + '/bye'): time.sleep(0.02)"
)


class StandInRuntime(DockerRuntime):
    """DOCKER, with a program in the SL's place."""

    def start(self, program: Program) -> None:
        if program.role == "SL":
            program = replace(program, entrypoint=("python3", "-c"), command=(LEARNER,))
        super().start(program)


class DockerOperator:
    """A daemon in a thread; `run_task` makes it run a program as a task."""

    def __init__(
        self, network: FakeNetwork, name: str, directory: Path, runtime: DockerRuntime, **more: Any
    ) -> None:
        self.network, self.runtime = network, runtime
        for file in ("sl-1-key.pem", "sl-1-cert.pem", "ca/capath/ca.pem", "user/data"):
            (directory / file).parent.mkdir(parents=True, exist_ok=True)
            (directory / file).touch()
        self.user = directory / "user"
        text = PROFILE.replace("/certs/", f"{directory}/").replace("/data/user1", str(self.user))
        text = (
            text[: text.index("        usrcontaineropts")] + text[text.index("        usrenvv") :]
        )
        text = text.replace("slport: 16000", "slport: null").replace("host-1-net", "bridge")
        # The default network has no aliases.
        text = text.replace("slhostname: sl1", "slhostname: null")
        text = text.replace("usrhostname: user1", "usrhostname: null")
        self.uid = network.world.uid(name)
        self.daemon = Daemon(
            name=name,
            host=Host(self.uid, "127.0.0.1", 30304),
            profile=parse_profile(text, "p.yaml").profile,
            runtime=runtime,
            api=network.as_member(name),
            **more,
        )
        self.thread = threading.Thread(target=self.daemon.run, daemon=True)

    def start(self) -> DockerOperator:
        self.thread.start()
        self.network.until(lambda: self.network.record("nodes", self.uid))
        return self

    def stop(self) -> None:
        self.daemon.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()

    def run_task(self, image: str, code: str) -> None:
        """Register a RUN_SWARM that runs `code` in this image, and assign it."""
        (self.user / "program.py").write_text(code)
        steps = ["BuildContext: null", "BuildType: INLINE", "BuildSteps: [FROM x]"]
        self.network.task("build", "MAKE_USER_CONTAINER", steps, outcome=image)
        lines = [
            "Command: program.py",
            "Entrypoint: python3",
            "WorkingDir: /w",
            "Envvars: [{API_TOKEN: t0ken}]",
            "PrivateContent: /w",
            "SharedContent: null",
        ]
        self.network.task("train", "RUN_SWARM", lines, prereq="build")
        self.network.assign("train", peers=1)

    def pair(self) -> Any:
        """Its pair on the ledger."""
        peers = self.network.runner()["peers"].values()
        return next((peer for peer in peers if peer["swop"] == self.uid), None)
