"""Entry points of the commands. Errors go to standard error as `<command>: <text>`; status 1."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from swarm.errors import LocalError
from swarm.launch import components, docker_backend, look, process_backend, spiffe, stop
from swarm.launch.arguments import Arguments, UsageError, parse
from swarm.launch.docker_backend import Docker
from swarm.launch.docker_options import known_options
from swarm.launch.helps import usage
from swarm.launch.plan import ML, SL, SN, SWCI, SWOP, Component, Launch, default_image

Build = Callable[[Arguments], Launch]


def run_sn(argv: Sequence[str] | None = None) -> int:
    """run-sn: start a network node."""
    return guarded("run-sn", lambda words: _run(SN, components.sn, words), argv)


def run_sl(argv: Sequence[str] | None = None) -> int:
    """run-sl: start a learner, and the user's program beside it."""

    def build(parsed: Arguments) -> Launch:
        def find(name: str, image: str) -> str:
            if _is_process(parsed):
                raise UsageError("mandatory parameter --sn-ip not specified")
            docker = Docker.find(parsed.flag("sudo"))
            return docker_backend.find_network_node(docker, name, image)

        return components.sl(parsed, find)

    return guarded("run-sl", lambda words: _run(SL, build, words), argv)


def run_swop(argv: Sequence[str] | None = None) -> int:
    """run-swop: start an operator."""

    def build(parsed: Arguments) -> Launch:
        return components.swop(
            parsed, lambda: docker_backend.default_socket(Docker.find(parsed.flag("sudo")))
        )

    return guarded("run-swop", lambda words: _run(SWOP, build, words), argv)


def run_swci(argv: Sequence[str] | None = None) -> int:
    """run-swci: start a command interface."""
    return guarded("run-swci", lambda words: _run(SWCI, components.swci, words), argv)


def stop_swarm(argv: Sequence[str] | None = None) -> int:
    """stop-swarm: end the nodes of this host."""
    return guarded("stop-swarm", stop.main, argv)


def swarm(argv: Sequence[str] | None = None) -> int:
    """swarm: look at what runs here."""
    return guarded("swarm", look.main, argv)


def guarded(command: str, body: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """Execute a command; what it complains about goes to standard error, with its name."""
    try:
        return body(sys.argv[1:] if argv is None else argv)
    except (UsageError, LocalError) as error:
        print(f"{command}: {error}", file=sys.stderr)
        return 1
    except ValueError as error:  # a quote that is not closed, in --cmd or --ml-cmd
        print(f"{command}: {error}", file=sys.stderr)
        return 1


def _run(component: Component, build: Build, argv: Sequence[str]) -> int:
    own, common = components.USED_BY[component.name], (*components.COMMON, *components.LICENCE)
    known = known_options(docker_backend.client())
    parsed = parse(argv, (*own, *common), known, sidecars=(ML.name,) if component is SL else ())
    if parsed.flag("help"):
        print(usage(component, own, common))
        return 0
    command = f"run-{component.name}"
    _notices(command, parsed)
    process = _is_process(parsed)
    if not process:
        _find_socket(parsed)
    launch = build(parsed)
    if process:
        return process_backend.start(launch)
    return docker_backend.start(launch, Docker.find(parsed.flag("sudo")))


def _find_socket(parsed: Arguments) -> None:
    """Put a volume and a path in place of the name of a volume or container. Raises UsageError."""
    name = parsed.own.get("socket-path", "")
    if not name or not spiffe.is_name(name):
        return
    docker = Docker.find(parsed.flag("sudo"))
    image = parsed.own.get("image") or default_image()
    place = spiffe.only_one(name, docker_backend.find_sockets(docker, name, image))
    parsed.own["socket-path"] = f"{place.source}:{place.inside}"


def _is_process(parsed: Arguments) -> bool:
    """Which backend --runtime chooses. The name is docker's, too; other values are handed to it."""
    runtime = parsed.own.get("runtime", "docker")
    if runtime.lower() in ("docker", "process"):
        parsed.own["runtime"] = runtime.lower()
        return runtime.lower() == "process"
    parsed.docker.append(("runtime", runtime))
    parsed.own["runtime"] = "docker"
    return False


def _notices(command: str, parsed: Arguments) -> None:
    if any(option.key in parsed.own for option in components.LICENCE):
        print(
            f"{command}: notice: licence server options are ignored, no licence is needed",
            file=sys.stderr,
        )
    for word in parsed.unknown:
        print(
            f"{command}: notice: {word} is an option neither of {command} nor of docker; "
            "it is handed to the node's program",
            file=sys.stderr,
        )
