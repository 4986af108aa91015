"""An engine that begins an answer and falls silent: no call waits for it for ever."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from swarm.errors import LocalError
from swop import docker_runtime, engine
from swop.docker_runtime import DockerRuntime
from swop.kept_logs import MIB, KeptLogs
from swop.runtime import AWAY

FRAME = b"\x01\0\0\0\0\0\0\3up\n"  # of what a program said
CONTAINER = {
    "Id": "c",
    "Name": "/c",
    "State": {"Status": "running"},
    "Config": {"Labels": {}, "Tty": False},
}


class _Silent(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    over: threading.Event

    def do_GET(self) -> None:
        if "/logs" in self.path:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(FRAME), FRAME))
            self.over.wait(60)  # and the last chunk never comes
            self.close_connection = True
            return
        answer = CONTAINER if "/json" in self.path else {"ApiVersion": "1.41", "Version": "1"}
        self._answer(200, json.dumps(answer).encode())

    def do_POST(self) -> None:
        self._answer(409, b'{"message": "it does not run"}')

    def do_DELETE(self) -> None:
        self._answer(204, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerRuntime]:
    handler = type("Handler", (_Silent,), {"over": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr(docker_runtime, "connect", lambda *_: engine.connect(1))
    runtime = DockerRuntime("u" * 32, "image", KeptLogs(tmp_path, MIB))
    yield runtime
    runtime.close()
    handler.over.set()
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_the_tail_of_a_log_is_given_up(runtime: DockerRuntime) -> None:
    with pytest.raises(LocalError, match="the engine does not answer") as caught:
        runtime.log_tail("c")
    assert caught.value.code == AWAY


def test_an_output_that_is_followed_is_given_up_after_its_own_limit(runtime: DockerRuntime) -> None:
    chunks = iter(runtime.follow("c"))
    assert next(chunks) == b"up\n"
    with pytest.raises(LocalError, match="output of c"):
        next(chunks)


def test_a_container_is_removed_without_its_log(
    runtime: DockerRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    runtime.remove(["c"])
    assert "the log of c is not kept" in caplog.text
