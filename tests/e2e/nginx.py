"""A real nginx for the tests, from Debian's packages; it passes TLS connections on by name."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.engine.up import one_at_a_time

PACKAGES = ("nginx-light", "libnginx-mod-stream")
MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def ensure() -> str:
    """Make nginx present. Returns "" on success, else the reason in one line."""
    with one_at_a_time("nginx"):
        if shutil.which("nginx") and MODULE.exists():
            return ""
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            return f"no nginx with its stream module (Debian: {' '.join(PACKAGES)})"
        install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *PACKAGES]
        for command in (["apt-get", "update", "-q"], install):
            done = subprocess.run(
                command,
                # Debian starts the service that it installs, on port 80; nobody asked for that.
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"},
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
        if done.returncode:
            return f"apt-get install {' '.join(PACKAGES)} failed: {done.stderr.strip()[-200:]}"
        return ""


def start(prefix: Sequence[str], directory: Path, stream: str) -> subprocess.Popen[bytes]:
    """Run nginx on a host, in the foreground, with this `stream` block."""
    directory.mkdir()
    directory.chmod(0o755)
    configuration = directory / "nginx.conf"
    configuration.write_text(
        f"load_module {MODULE};\n"
        f"daemon off;\nworker_processes 1;\npid {directory}/pid;\n"
        f"error_log {directory}/error.log;\n"
        "events { worker_connections 256; }\n" + stream
    )
    return subprocess.Popen(
        [*prefix, "nginx", "-p", str(directory), "-c", str(configuration)],
        stdin=subprocess.DEVNULL,
        stdout=(directory / "output").open("wb"),
        stderr=subprocess.STDOUT,
    )
