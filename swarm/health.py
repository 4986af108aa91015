"""`python3 -m swarm.health`: is the node of this container alive? Status 0, or 1 and the reason.

Which node it is says the command line of the container's first process. What is asked, on loopback
and nowhere else:

- SN: does its API answer? Its own certificate opens it.
- SL and SWOP, and an SN whose certificate is in no file (SPIFFE): does their main loop go round
  (see `swarm.pulse`)?
- SWCI: in web mode, does its port take connections? Else it waits for somebody's commands, and that
  it runs is enough.

Started every half minute in every container: only what is small is imported.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from swarm.pulse import STALE

SECONDS = 5.0  # for an answer
FIRST_PROCESS = Path("/proc/1/cmdline")
API_PORT, WEB_PORT = 30304, 30306


class Unhealthy(Exception):
    """The node is there, but not well; the text says why."""


def main(env: Mapping[str, str] = os.environ, first_process: Path = FIRST_PROCESS) -> int:
    """Look, and say what was found."""
    words = first_process.read_bytes().decode(errors="replace").split("\0")
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    try:
        if module == "sentinel" and env.get("SWARM_ID_CERT") and env.get("SWARM_ID_KEY"):
            api(env)
        elif module in ("sentinel", "swarm.learner", "swop"):
            loop(env, time.time())
        elif module == "swci" and env.get("SWCI_MODE", "").upper() == "WEB":
            _connect(env, int(env.get("SWCI_WEB_PORT") or WEB_PORT)).close()
    except Unhealthy as why:
        print(why)
        return 1
    print("healthy")
    return 0


def loop(env: Mapping[str, str], now: float) -> None:
    """Has the main loop beaten lately?"""
    path = env.get("SWARM_PULSE", "")
    try:
        age = now - Path(path).stat().st_mtime
    except OSError as fault:
        raise Unhealthy(f"no sign of life yet: {path} ({fault.strerror})") from fault
    if age > STALE:
        raise Unhealthy(f"no sign of life for {age:.0f} s")


def api(env: Mapping[str, str]) -> None:
    """Does the network node's API say that it is up?"""
    port = int(env.get("SN_API_SERVER_PORT") or API_PORT)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is told to whoever answers on our own loopback
    try:
        context.load_cert_chain(env["SWARM_ID_CERT"], env["SWARM_ID_KEY"])
        with context.wrap_socket(_connect(env, port)) as door:
            door.sendall(b"GET /is_up HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b""
            while chunk := door.recv(4096):
                answer += chunk
                if len(answer) > 65536:
                    break
    except OSError as fault:
        raise Unhealthy(f"the API on port {port} does not answer ({fault})") from fault
    if not answer.startswith(b"HTTP/1.1 200"):
        raise Unhealthy(f"the API on port {port} says {answer[:80]!r}")


def _connect(env: Mapping[str, str], port: int) -> socket.socket:
    host = env.get("SWARM_LISTEN", "")
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - where it listens, not we
        host = "127.0.0.1"
    try:
        return socket.create_connection((host, port), timeout=SECONDS)
    except OSError as fault:
        raise Unhealthy(f"port {port} takes no connection ({fault})") from fault


if __name__ == "__main__":
    sys.exit(main())
