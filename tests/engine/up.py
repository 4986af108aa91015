"""A Docker engine for the tests: installed and started when none answers.

`ensure()` is idempotent and safe to call from several processes at once (a file lock). What it
copes with, each seen on machines whose last run was cut off:

- a pid file that names a dead process, a zombie (a first process that does not reap), or a live
  foreign process: dockerd would refuse to start;
- a containerd directory left by a killed containerd: dockerd would wait for it in vain;
- a fresh machine without the packages: docker.io, iptables and mmdebstrap come from Debian.

Where none of that is allowed (no root, no apt, no packages), the reason comes back in one line and
the tests that need an engine are skipped with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from tests.machine import install, one_at_a_time

NEEDED = {
    "dockerd": "docker.io",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "/etc/ssl/certs/ca-certificates.crt": "ca-certificates",
}
RUN = Path("/var/run")
LOG = Path("/var/log/dockerd-tests.log")
START_SECONDS = 90.0


def answers() -> bool:
    """Does an engine answer on the default socket (or on DOCKER_HOST)?"""
    if shutil.which("docker") is None:
        return False
    done = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"],
        capture_output=True,
        timeout=30,
        check=False,
    )
    return done.returncode == 0 and bool(done.stdout.strip())


def ensure() -> str:
    """Make an engine answer. Returns "" on success, else the reason in one line."""
    if answers():
        return ""
    if os.environ.get("DOCKER_HOST"):
        return f"no engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}"
    if os.geteuid() != 0:
        return "no Docker engine runs, and starting one needs root"
    with one_at_a_time("engine"):
        if answers():
            return ""
        reason = install(NEEDED)
        if reason:
            return f"no Docker engine: {reason}"
        if answers():
            return ""
        _clear_remains()
        return _start()


def _program(pid_file: Path) -> str:
    """Name of the live process that a pid file names; "" when dead, and a zombie counts as dead."""
    try:
        pid = int(pid_file.read_text())
        status = Path(f"/proc/{pid}/status").read_text()
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except (OSError, ValueError):
        return ""
    zombie = any(line.startswith("State:") and "Z" in line for line in status.splitlines())
    return "" if zombie else name


def _clear_remains() -> None:
    """Remove what a killed engine leaves behind and what keeps the next from starting."""
    pid_file = RUN / "docker.pid"
    if _program(pid_file) != "dockerd":
        pid_file.unlink(missing_ok=True)
    containerd = RUN / "docker" / "containerd"
    if _program(containerd / "containerd.pid") != "containerd":
        shutil.rmtree(containerd, ignore_errors=True)


def _start() -> str:
    """Start dockerd in a session of its own and wait until it answers."""
    if not Path("/sys/fs/cgroup").is_mount() and shutil.which("cgroupfs-mount"):
        subprocess.run(["cgroupfs-mount"], check=False)
    with LOG.open("ab") as log:
        subprocess.Popen(
            ["dockerd"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if answers():
            return ""
        time.sleep(0.2)
    lines = LOG.read_text(errors="replace").strip().splitlines() or ["its log is empty"]
    return f"no Docker engine: dockerd did not answer in {START_SECONDS:.0f} s: {lines[-1][:300]}"
