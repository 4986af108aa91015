"""What may be told of a host. Pure functions: data in, data that may leave the host out.

Two rules, as nobody can list all secrets:

- What has a structure (environments, the engine's description of a container, profiles, tasks) is
  told by an *allow-list*. Names stay, so that one sees what is set; values of unknown names do not.
- What is free text (logs) is told without every value that the first rule withheld, without private
  keys, and without what looks like a password.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

WITHHELD = "***"
SHORTEST = 4  # characters of a value that is looked for in logs
_PLAIN = frozenset({"true", "false", "none", "null", "info", "debug", "warning", "error"})

# Variables whose values hold names, addresses, paths and switches, and never a secret.
VARIABLES = frozenset(
    """
    FAULT_MODEL LANG LC_ALL LOGS_DIR MAX_EPOCHS METRICS_DIR MIN_PEERS PATH PYTHONDONTWRITEBYTECODE
    PYTHONUNBUFFERED SENTINEL_API_SERVER_PORT SENTINEL_API_SERVICE SENTINEL_NODE_IP SL_FS_PORT
    SL_FS_SERVICE SL_LISTEN_PORT SL_LOG_LEVEL SL_WAIT_FOR_FULL_QUORUM_SECONDS SN_API_SERVER_PORT
    SN_API_SERVICE SN_ETH_P2P_SERVICE SN_ETH_PORT_EXT SN_I_AM_SENTINEL SN_LOG_LEVEL SN_NODE_IP
    SN_P2P_PORT SWARM_DATA_DIR SWARM_FAULT_MODEL SWARM_HOME SWARM_ID_CACERT SWARM_ID_CAPATH
    SWARM_ID_CERT SWARM_ID_KEY SWARM_IMAGE SWARM_KERAS_COMPAT SWARM_LINK SWARM_LISTEN
    SWARM_LOG_LEVEL SWARM_LOOPBACK SWARM_NODE_NAME SWARM_ORDERER SWARM_PULSE SWARM_RUNTIME
    SWARM_SPIFFE_WORKLOAD_API_SOCKET_PATH SWCI_GENERIC_TASK_MAX_WAIT_TIME SWCI_LOG_LEVEL SWCI_MODE
    SWCI_RUN_TASK_MAX_WAIT_TIME SWCI_STARTUP_SCRIPT SWCI_WEB_PORT SWOP_DOCKER_GID SWOP_GID
    SWOP_KEEP_CONTAINERS SWOP_KEEP_LOGS SWOP_LOG_LEVEL SWOP_PROFILE SWOP_UID THIS_NODE_IP TZ USR_DIR
    swarm_node_type
    """.split()
)

# Of the engine's description of a container: True tells a value, "names" the keys of a mapping, a
# mapping says what of a mapping is told, a list of one what of each element is.
Shape = Any
CONTAINER: Shape = {
    "Id": True, "Name": True, "Created": True, "Image": True, "RestartCount": True,
    "Platform": True, "Driver": True,
    "State": {
        "Status": True, "Running": True, "Paused": True, "OOMKilled": True, "Dead": True,
        "Pid": True, "ExitCode": True, "StartedAt": True, "FinishedAt": True,
        "Health": {"Status": True, "FailingStreak": True},
    },
    "Config": {
        "Hostname": True, "User": True, "Image": True, "WorkingDir": True, "ExposedPorts": True,
        "Tty": True, "OpenStdin": True, "StopSignal": True, "Labels": "labels",
        "Env": "environment", "Entrypoint": "program", "Cmd": "program",
    },
    "HostConfig": {
        "NetworkMode": True, "PortBindings": True, "RestartPolicy": True, "AutoRemove": True,
        "CapAdd": True, "CapDrop": True, "Dns": True, "GroupAdd": True, "IpcMode": True,
        "PidMode": True, "Privileged": True, "ReadonlyRootfs": True, "ShmSize": True,
        "Runtime": True, "Memory": True, "MemorySwap": True, "NanoCpus": True,
        "CpuShares": True, "CpusetCpus": True,
        "PidsLimit": True, "Init": True, "DeviceRequests": True, "Devices": True,
        "LogConfig": {"Type": True},
    },
    "Mounts": [{
        "Type": True, "Name": True, "Source": True, "Destination": True, "Mode": True, "RW": True,
    }],
    "NetworkSettings": {
        "Ports": True,
        "Networks": {
            "*": {"IPAddress": True, "Gateway": True, "IPPrefixLen": True, "Aliases": True}
        },
    },
}  # fmt: skip
ENGINE: Shape = {
    "ServerVersion": True, "OperatingSystem": True, "OSType": True, "Architecture": True,
    "KernelVersion": True, "NCPU": True, "MemTotal": True, "Driver": True, "LoggingDriver": True,
    "CgroupDriver": True, "CgroupVersion": True, "DefaultRuntime": True, "Runtimes": "names",
    "SecurityOptions": True, "Containers": True, "ContainersRunning": True, "Images": True,
    "DockerRootDir": True, "Warnings": True,
}  # fmt: skip

# Keys of profiles and tasks, in lower case, whose values are told where these are no mappings.
YAML_KEYS = frozenset(
    """
    name tasktype author prereq outcome body
    command entrypoint workingdir envvars privatecontent sharedcontent src tgt mtype
    buildcontext buildtype buildsteps tag reponame organdreg contenttype opslist operation target
    options out sha256
    groupname taskrunner policyuri resourcemgr mgrtype accessinfo accesstype network apls locator
    host port apisrv service dns nodes slnodedef idx identity attribute atype subpath slhostip
    slhostname slport slfsservice privatedata slenvvars sllabels slnetworkopts ip usrhostname
    usrenvvars usrlabels usrnetworkopts usrcontaineropts gpus shm-size ipc device group-add
    privileged cap-add security-opt
    """.split()
)
_VARIABLE_KEYS = frozenset({"envvars", "slenvvars", "usrenvvars"})
_LABEL_KEYS = frozenset({"sllabels", "usrlabels"})
_OWN_LABELS = ("swarm.", "org.opencontainers.image.")
_SETS = re.compile(r"^\s*(ENV|ARG|LABEL)\b", re.IGNORECASE)  # build steps that give values to names

# A log may hold a piece of a value, as the key at the end of an address: those that are no words.
_PIECES = re.compile(r"[^A-Za-z0-9_.+-]+")
_TELLING = re.compile(r"^(?=.*[0-9A-Z])(?=.*[A-Za-z]).{6,}$")

_PEM = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
_URL = re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://)[^\s/@]{1,400}@", re.IGNORECASE)
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://[^\s?#\"']{1,400}\?)[^\s\"']+", re.IGNORECASE)
_SAID = re.compile(
    r"((?:pass(?:word|wd|phrase)|secret|token|api[_-]?key|access[_-]?key|credentials?)"
    r"[\w-]{0,30}[\"']?\s{0,3}[:=]\s{0,3})(?:\"[^\"\n]*\"|'[^'\n]*'|\S+)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9+/=._~-]{6,}", re.IGNORECASE)


class Redactor:
    """Remembers what it withheld, so that logs, which come last, are told without it."""

    def __init__(self) -> None:
        self._withheld: set[str] = set()

    # ---------------------------------------------------------- what has a structure

    def environment(self, variables: Mapping[str, Any]) -> dict[str, str]:
        """All names, and the values of those that hold no secrets."""
        return {
            name: str(value) if name in VARIABLES else self.withhold(value)
            for name, value in variables.items()
        }

    def shaped(self, data: Any, shape: Shape) -> Any:
        """The part of the engine's `data` that `shape` allows."""
        if shape is True:
            return self._bounded(data)
        if isinstance(shape, list):
            return [self.shaped(item, shape[0]) for item in data or ()]
        if shape == "names":
            return sorted(data or ())
        if shape == "environment":
            pairs = (str(line).partition("=") for line in data or ())
            return self.environment({name: value for name, _, value in pairs})
        if shape == "labels":
            return self._labels(data or {})
        if shape == "program":
            return self._program(data or [])
        if not isinstance(data, Mapping):
            return None
        if "*" in shape:
            return {name: self.shaped(value, shape["*"]) for name, value in data.items()}
        return {key: self.shaped(data[key], shape[key]) for key in shape if key in data}

    def yaml(self, text: str) -> str:
        """A profile or a task. Raises YAMLError, ValueError; comments are not told."""
        documents = list(yaml.safe_load_all(text))
        if not all(isinstance(document, Mapping) for document in documents):
            raise ValueError("neither a profile nor a task")
        told = [self._told(document, "") for document in documents]
        return yaml.safe_dump_all(told, sort_keys=False, allow_unicode=True)

    def withhold(self, value: Any) -> str:
        """Remember a value, or all that are in it, and show that something was there."""
        if isinstance(value, Mapping):
            for item in value.values():
                self.withhold(item)
        elif isinstance(value, list | tuple):
            for item in value:
                self.withhold(item)
        elif value is not None:
            for line in str(value).splitlines():
                self._withheld |= {line.strip(), *filter(_TELLING.search, _PIECES.split(line))}
        return WITHHELD

    def _bounded(self, data: Any) -> Any:
        """Plain data as it is, its texts as if they were free ones."""
        if isinstance(data, str):
            return self.text(data)
        if isinstance(data, Mapping):
            return {str(key): self._bounded(value) for key, value in data.items()}
        if isinstance(data, list):
            return [self._bounded(item) for item in data]
        return data

    def _labels(self, labels: Mapping[str, Any]) -> dict[str, str]:
        return {
            name: str(value) if name.startswith(_OWN_LABELS) else self.withhold(value)
            for name, value in labels.items()
        }

    def _program(self, words: Iterable[Any]) -> list[str]:
        """A command line: what a node's begins with; arguments of users may be anything."""
        listed = [str(word) for word in words]
        told = 3 if listed[:2] == ["python3", "-m"] else min(1, len(listed))
        for word in listed[told:]:
            self.withhold(word.rpartition("=")[2])
        return [*listed[:told], *[WITHHELD] * (len(listed) - told)]

    def _told(self, value: Any, key: str) -> Any:
        """A value of a YAML document, below `key`."""
        if key in _VARIABLE_KEYS or key in _LABEL_KEYS:
            return self._variables(value)
        if isinstance(value, Mapping):
            return {
                str(name): self._told(item, str(name).lower())
                if str(name).lower() in YAML_KEYS
                else self.withhold(item)
                for name, item in value.items()
            }
        if isinstance(value, list):
            return [self._told(item, key) for item in value]
        if key == "buildsteps" and isinstance(value, str) and _SETS.match(value):
            self.withhold(value.split(maxsplit=1)[-1].rpartition("=")[2].strip("\"' "))
            return f"{value.split()[0]} {WITHHELD}"
        return self.text(value) if isinstance(value, str) else value

    def _variables(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._variables(item) for item in value]
        if isinstance(value, Mapping):
            return self.environment({str(name): item for name, item in value.items()})
        return None if value is None else self.withhold(value)

    # ------------------------------------------------------------------- free text

    def text(self, text: str) -> str:
        """A log, or anything else that people and programs write."""
        text = _PEM.sub(WITHHELD, text)
        text = _URL.sub(rf"\1{WITHHELD}@", text)
        text = _QUERY.sub(rf"\1{WITHHELD}", text)
        text = _BEARER.sub(rf"\1 {WITHHELD}", text)
        text = _SAID.sub(rf"\1{WITHHELD}", text)
        hidden = [value for value in self._withheld if _worth_hiding(value)]
        for value in sorted(hidden, key=len, reverse=True):  # one may begin another
            text = text.replace(value, WITHHELD)
        return text


def _worth_hiding(value: str) -> bool:
    """Whether a value says something: `5` and `True` are everywhere in a log."""
    if len(value) < SHORTEST or value.lower() in _PLAIN:
        return False
    return not (value.isdigit() and len(value) < 6)
