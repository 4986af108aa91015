"""Two hosts on one Docker engine: a network for each, and published ports as the way between them.

A container reaches what another network publishes through that network's gateway address, as a host
reaches another host; the networks themselves have no route to each other.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from two_hosts import REPOSITORY, Host, StepFailed, free_ports, replace

VOLUME = "sl-cli-lib"
WHEEL = "swarmlearning-client-py3-none-manylinux_2_24_x86_64.whl"


def docker(*arguments: str, check: bool = True) -> str:
    """Run the engine's client; its output. Raises StepFailed with what it said."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise StepFailed(f"docker {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


class DockerHosts:
    """Images, networks and the volume with the library's wheel; all but the images go away."""

    def __init__(self, directory: Path, tag: str) -> None:
        self._directory = directory
        self._tag = tag
        self._networks = [f"{tag}host-{index}-net" for index in (1, 2)]

    def __enter__(self) -> list[Host]:
        if not docker("version", "--format", "{{.Server.Version}}", check=False):
            raise StepFailed("no Docker engine answers; start one, or use RUNTIME=process")
        _build()
        self._remove()
        try:
            self._fill_volume()
            return [self._host(index, network) for index, network in enumerate(self._networks, 1)]
        except BaseException:
            self._remove()
            raise

    def _fill_volume(self) -> None:
        helper, volume = f"{self._tag}helper", self._tag + VOLUME
        docker("volume", "create", volume)
        docker("container", "create", "--name", helper, "-v", f"{volume}:/data", "hello-world")
        docker("cp", "-L", str(REPOSITORY / "lib" / WHEEL), f"{helper}:/data")
        docker("rm", helper)

    def _host(self, index: int, network: str) -> Host:
        docker("network", "create", network)
        settings = json.loads(docker("network", "inspect", network))[0]["IPAM"]["Config"][0]
        directory = self._directory / f"host-{index}"
        directory.mkdir(parents=True)
        p2p, api, learner = free_ports(3)
        return Host(
            index=index,
            address=settings["Gateway"],
            directory=directory,
            p2p_port=p2p,
            api_port=api,
            learner_port=learner,
            network=network,
        )

    def adapt(self, host: Host) -> None:
        """Let the build task read this demonstration's volume, not one that the user may have."""
        task = host.workspace / "swci" / "taskdefs" / "user_env_tf_build_task.yaml"
        replace(task, {f"BuildContext: {VOLUME}": f"BuildContext: {self._tag}{VOLUME}"})

    def __exit__(self, *exc: object) -> None:
        self._remove()

    def _remove(self) -> None:
        docker("rm", "-f", f"{self._tag}helper", check=False)
        docker("network", "rm", *self._networks, check=False)
        docker("volume", "rm", self._tag + VOLUME, check=False)


def _build() -> None:
    """The image of all nodes, and on the way the library's wheel."""
    build = REPOSITORY / "image" / "build"
    if status := subprocess.run([str(build)], cwd=REPOSITORY, check=False).returncode:
        raise StepFailed(f"{build} ended with status {status}")
