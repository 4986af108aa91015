"""A small web server for what operators fetch; it misbehaves where a test asks for it."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """Paths and what stands there; `asked` collects what was requested."""

    host: str
    port: int
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)  # answered with less than is announced
    broken: dict[str, int] = field(default_factory=dict)  # answered 503 so many times first
    hangs: set[str] = field(default_factory=set)  # never answered
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str, scheme: str = "http") -> str:
        return f"{scheme}://{self.host}:{self.port}{path}"


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site, path = self.site, self.path
        if path.startswith("http://"):  # as a proxy is asked
            path = "/" + path.split("/", 3)[3]
        site.asked.append(self.path)
        site.headers.append(dict(self.headers))
        if path in site.hangs:
            site.over.wait(60)
            return
        if site.broken.get(path, 0):
            site.broken[path] -= 1
            self.send_error(503)
        elif path in site.redirects:
            self.send_response(302)
            self.send_header("Location", site.redirects[path])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path in site.files:
            data = site.files[path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if path in site.cut else data)
        else:
            self.send_error(404)

    def do_CONNECT(self) -> None:
        """As a proxy for https: pass on what both say, to the port of this machine."""
        self.site.asked.append(f"CONNECT {self.path}")
        self.site.headers.append(dict(self.headers))
        with socket.create_connection(("127.0.0.1", int(self.path.rpartition(":")[2]))) as there:
            self.send_response(200)
            self.end_headers()
            here = self.connection
            while True:
                for ready in select.select([here, there], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        self.close_connection = True
                        return
                    (there if ready is here else here).sendall(data)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serve(
    host: str = "127.0.0.1",
    context: ssl.SSLContext | None = None,
    listener: socket.socket | None = None,
) -> Iterator[Site]:
    """A server in a thread of its own; `listener`: where it is had under that host's name."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer((host, 0), handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener or socket.create_server((host, 0))
    server.server_address = server.socket.getsockname()
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    site = Site(host, server.server_address[1])
    handler.site = site  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.over.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
