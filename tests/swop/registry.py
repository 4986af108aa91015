"""An image registry for tests: the parts of the Docker Registry HTTP API v2 that a pull needs.

Plain HTTP on loopback, which engines accept. It serves one image that it makes itself, and lets in
everybody, or who has the login: by Basic authentication, or by a token that its own service gives.
`hangs` makes it take requests and never answer.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import secrets
import socket
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.content.archives import file, tar

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
USER, PASSWORD = "puller", "s3cret-word"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def image(content: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Manifest of an image with one file, `/content`, and its blobs."""
    layer = tar(file("content", content))
    packed = gzip.compress(layer, mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/none"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        }
    ).encode()
    kind = "application/vnd.docker"
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _entry(f"{kind}.container.image.v1+json", config),
        "layers": [_entry(f"{kind}.image.rootfs.diff.tar.gzip", packed)],
    }
    return json.dumps(manifest).encode(), {digest(config): config, digest(packed): packed}


def _entry(kind: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "size": len(data), "digest": digest(data)}


@dataclass
class Registry:
    """`auth` is "", "Basic" or "Bearer"."""

    auth: str
    port: int = 0
    hangs: bool = False
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    asked: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    manifest: bytes = b""
    blobs: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.port}"

    def allows(self, header: str) -> bool:
        if self.auth == "Bearer":
            return header == f"Bearer {self.token}"
        return not self.auth or self.knows(header)

    def knows(self, header: str) -> bool:
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return header == f"Basic {login}"

    @property
    def challenge(self) -> str:
        if self.auth == "Bearer":
            return f'Bearer realm="http://{self.name}/token",service="registry",scope="pull"'
        return 'Basic realm="registry"'


class _Handler(BaseHTTPRequestHandler):
    registry: Registry
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        registry = self.registry
        path = urllib.parse.urlsplit(self.path).path
        header = self.headers.get("Authorization", "")
        registry.asked.append(path)
        if registry.hangs:
            registry.over.wait(120)
            self.close_connection = True
        elif path == "/token":
            ok = registry.knows(header)
            self._answer(200 if ok else 401, json.dumps({"token": registry.token} if ok else {}))
        elif not registry.allows(header):
            error = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
            self._answer(401, json.dumps(error), {"WWW-Authenticate": registry.challenge})
        elif path == "/v2/":
            self._answer(200, "{}")
        elif path.startswith("/v2/team/tool/manifests/"):
            headers = {"Docker-Content-Digest": digest(registry.manifest)}
            self._answer(200, registry.manifest, headers, MANIFEST)
        elif (blob := registry.blobs.get(path.rpartition("/")[2])) is not None:
            self._answer(200, blob, kind="application/octet-stream")
        else:
            error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            self._answer(404, json.dumps(error))

    def _answer(
        self,
        status: int,
        body: bytes | str,
        headers: Mapping[str, str] | None = None,
        kind: str = "application/json",
    ) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in {"Content-Type": kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serve(
    auth: str = "", content: bytes = b"tool", listener: socket.socket | None = None
) -> Iterator[Registry]:
    """A registry in a thread, with the image `team/tool` under every tag.

    `listener`: where it is to be had, when not on the loopback of this machine.
    """
    registry = Registry(auth)
    registry.manifest, registry.blobs = image(content)
    handler = type("Handler", (_Handler,), {"registry": registry})
    listener = listener or socket.create_server(("127.0.0.1", 0))
    registry.port = listener.getsockname()[1]
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        registry.over.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
