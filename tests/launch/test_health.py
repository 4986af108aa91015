"""The health check of the image: what it finds out, without a container."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import health
from swarm.identity import Role
from swarm.pulse import EVERY, STALE, Pulse
from tests import pki


def first_process(tmp_path: Path, *words: str) -> Path:
    path = tmp_path / "cmdline"
    path.write_bytes(b"".join(word.encode() + b"\0" for word in words))
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A certificate, as a network node has one."""
    return pki.environment(tmp_path, Role.SN, pki.authority(tmp_path, 1))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def port_of(listener: socket.socket) -> str:
    return str(listener.getsockname()[1])


def test_a_loop_that_goes_round(tmp_path: Path) -> None:
    env = {"SWARM_PULSE": str(tmp_path / "pulse")}
    learner = first_process(tmp_path, "/sbin/docker-init", "--", "python3", "-m", "swarm.learner")
    assert health.main(env, learner) == 1, "it has not begun"
    Pulse(env).beat()
    assert health.main(env, learner) == 0
    assert (tmp_path / "pulse").stat().st_mode & 0o077 == 0


def test_a_loop_that_is_stuck(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "pulse"
    Pulse({"SWARM_PULSE": str(file)}).beat()
    long_ago = file.stat().st_mtime - STALE - 1
    os.utime(file, (long_ago, long_ago))
    operator = first_process(tmp_path, "python3", "-m", "swop")
    assert health.main({"SWARM_PULSE": str(file)}, operator) == 1
    assert capsys.readouterr().out == f"no sign of life for {STALE + 1:.0f} s\n"


def test_beats_are_rare_and_cost_no_more_when_they_fail(tmp_path: Path) -> None:
    now = [100.0]
    pulse = Pulse({"SWARM_PULSE": str(tmp_path / "pulse")}, lambda: now[0])
    pulse.beat()
    (tmp_path / "pulse").unlink()
    now[0] += EVERY / 2
    pulse.beat()
    assert not (tmp_path / "pulse").exists()
    now[0] += EVERY
    pulse.beat()
    assert (tmp_path / "pulse").exists()
    nowhere = Pulse({"SWARM_PULSE": str(tmp_path / "none" / "pulse")}, lambda: now[0])
    nowhere.beat()
    Pulse({}).beat()  # outside of the image


def test_an_api_that_does_not_answer(
    tmp_path: Path,
    listener: socket.socket,
    files: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The kernel takes the connection; nobody is behind it."""
    monkeypatch.setattr(health, "SECONDS", 0.2)
    node = first_process(tmp_path, "python3", "-m", "sentinel")
    assert health.main({**files, "SN_API_SERVER_PORT": port_of(listener)}, node) == 1
    assert "does not answer" in capsys.readouterr().out
    port = port_of(listener)
    listener.close()
    assert health.main({**files, "SN_API_SERVER_PORT": port}, node) == 1
    assert "takes no connection" in capsys.readouterr().out


def test_something_else_on_the_port(
    tmp_path: Path, listener: socket.socket, files: dict[str, str]
) -> None:
    def answer() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.sendall(b"HTTP/1.0 200 hello\r\n\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    node = first_process(tmp_path, "python3", "-m", "sentinel")
    assert health.main({**files, "SN_API_SERVER_PORT": port_of(listener)}, node) == 1
    thread.join(10)


def test_a_network_node_without_certificate_files(tmp_path: Path) -> None:
    """Its identity comes from a SPIFFE agent: nobody can knock in its name, and its loop tells."""
    env = {"SWARM_PULSE": str(tmp_path / "pulse")}
    node = first_process(tmp_path, "python3", "-m", "sentinel")
    assert health.main(env, node) == 1
    Pulse(env).beat()
    assert health.main(env, node) == 0


def test_a_command_interface(tmp_path: Path, listener: socket.socket) -> None:
    swci = first_process(tmp_path, "python3", "-m", "swci")
    web = {"SWCI_MODE": "web", "SWCI_WEB_PORT": port_of(listener)}
    assert health.main({}, swci) == 0
    assert health.main(web, swci) == 0
    listener.close()
    assert health.main(web, swci) == 1
