"""A small HTTP proxy before an Ethereum node, that delays, cuts and refuses on demand."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Answer = Callable[[str, list[Any]], Any]  # method and parameters; None: ask the node


class Proxy:
    """Listens on `url`. `mode`: "pass", "hang" (no answer until closed), "cut", "error", "junk".

    `answer` may give a result in the node's place. `asked` counts requests by method.
    """

    def __init__(self, port: int = 0, answer: Answer | None = None, path: str = "") -> None:
        """`port`: of the node behind it on loopback."""
        self.mode = "pass"
        self.answer = answer
        self.asked: dict[str, int] = {}
        self.released = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                proxy._serve(self, body, port)

            def log_message(self, *_: Any) -> None:
                """Not into the tests' output."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """A client that has gone is no news."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}{path}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, handler: BaseHTTPRequestHandler, body: bytes, port: int) -> None:
        question = json.loads(body)
        method = question["method"]
        self.asked[method] = self.asked.get(method, 0) + 1
        if self.mode == "hang":
            self.released.wait(300)
        if self.mode in ("hang", "cut"):
            handler.close_connection = True
            return
        if self.mode == "error":
            _reply(handler, 503, b"busy")
            return
        if self.mode == "junk":
            _reply(handler, 200, b"<html>welcome</html>")
            return
        result = self.answer(method, question["params"]) if self.answer else None
        if result is not None:
            _reply(handler, 200, json.dumps({"jsonrpc": "2.0", "id": 1, **result}).encode())
            return
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        _reply(handler, answer.status, answer.read())
        connection.close()


def _reply(handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
