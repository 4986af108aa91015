"""Which options `docker container create` knows, and which of them take a value.

All of them pass through the run-* commands. The engine's own help is asked, so that options of
newer engines work; without an engine a table serves, as command lines must be understood then, too.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

# `  -e, --env list       Set environment variables`: short name, long name, type of the value.
_LINE = re.compile(r"^\s+(?:-(\w), )?--([a-z0-9][a-z0-9-]*)(?: ([\w<>|-]+))?(?:\s{2,}\S|\s*$)")
_SECONDS = 10

_VALUES = """
add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent cgroupns
cidfile cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems
device device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write-iops dns
dns-option dns-search domainname entrypoint env env-file expose gpus group-add health-cmd
health-interval health-retries health-start-interval health-start-period health-timeout hostname ip
ip6 ipc isolation kernel-memory label label-file link link-local-ip log-driver log-opt mac-address
memory memory-reservation memory-swap memory-swappiness mount name network network-alias
oom-score-adj pid pids-limit platform publish pull restart runtime security-opt shm-size
stop-signal stop-timeout storage-opt sysctl tmpfs ulimit user userns uts volume volume-driver
volumes-from workdir
""".split()
_FLAGS = """
disable-content-trust help init interactive no-healthcheck oom-kill-disable privileged publish-all
quiet read-only rm tty use-api-socket
""".split()
_SHORT = {
    "a": "attach",
    "c": "cpu-shares",
    "e": "env",
    "h": "hostname",
    "i": "interactive",
    "l": "label",
    "m": "memory",
    "p": "publish",
    "P": "publish-all",
    "q": "quiet",
    "t": "tty",
    "u": "user",
    "v": "volume",
    "w": "workdir",
}


@dataclass(frozen=True)
class DockerOptions:
    """Long names, each with whether it takes a value, and short names for them."""

    takes_value: Mapping[str, bool]
    short: Mapping[str, str]


BUILT_IN = DockerOptions(
    {**dict.fromkeys(_VALUES, True), **dict.fromkeys(_FLAGS, False)}, dict(_SHORT)
)


def parse_help(text: str) -> DockerOptions:
    """The options that a help text of docker lists."""
    values: dict[str, bool] = {}
    short: dict[str, str] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        letter, name, kind = match.groups()
        values[name] = kind is not None
        if letter:
            short[letter] = name
    return DockerOptions(values, short)


def known_options(docker: str | None) -> DockerOptions:
    """What the engine's client at path `docker` understands; the table when there is none."""
    if docker is None:
        return BUILT_IN
    try:
        done = subprocess.run(
            [docker, "container", "create", "--help"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return BUILT_IN
    found = parse_help(done.stdout)
    # A help text that is not understood must not make known options unknown.
    return DockerOptions(
        {**BUILT_IN.takes_value, **found.takes_value}, {**BUILT_IN.short, **found.short}
    )
