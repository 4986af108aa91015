"""A real nginx for the tests, from Debian's packages; it passes TLS connections on by name."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
NEEDED = {"nginx": "nginx-light", str(MODULE): "libnginx-mod-stream"}


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
