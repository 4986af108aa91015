"""Fetching one file for a task: http, https, or a file of a directory that the host offers.

What is guarded against, as the address comes from another organisation:

- each connection, that of every redirect included, goes to an address that the policy of `reach.py`
  was asked about: names are resolved once, and the answer is what is connected to;
- a redirect never leads from https to http, nor to `file:`;
- the server's size and speed: bytes are counted against the limit while they come, and whoever
  started us ends us at the task's time limit.

An HTTP proxy of the profile is the administrator's word, so it may stand anywhere; then the proxy
resolves the names, and its own rules apply beside ours.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import ipaddress
import os
import socket
import ssl
import stat
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from swarm.errors import LocalError
from swop.reach import Reach

CHUNK = 1 << 18
MAX_REDIRECTS = 5
SILENCE_SECONDS = 60.0  # between two reads
ATTEMPTS = 3
REDIRECTS = (301, 302, 303, 307, 308)
AGENT = "swarm-swop"


class Meter(Protocol):
    """Counts bytes against a limit; raises LocalError when it is passed."""

    def add(self, count: int) -> None: ...
    def expect(self, count: int) -> None: ...


@dataclass(frozen=True)
class Access:
    """What may be fetched on this host."""

    reach: Reach = field(default_factory=Reach)
    files: str = ""  # the directory of the host below which `file:` may read; "" = nowhere
    files_seen_at: str = ""  # where that directory is found by the one who fetches
    proxies: Mapping[str, str] = field(default_factory=dict)


class _Broken(Exception):
    """The connection failed: worth another attempt."""


def fetch(url: str, sink: IO[bytes], access: Access, meter: Meter, sha256: str = "") -> int:
    """Write what stands at `url` into the empty file `sink`; returns its size.

    Raises LocalError SW7021 (refused by this host's rules), SW7022 (it failed), SW7024 (checksum),
    and what the meter raises.
    """
    digest = hashlib.sha256()
    size = 0
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _open(url, access, meter) as chunks:
                for chunk in chunks:
                    meter.add(len(chunk))
                    digest.update(chunk)
                    sink.write(chunk)
                    size += len(chunk)
            break
        except _Broken as error:
            if attempt == ATTEMPTS:
                raise LocalError("SW7022", f"{url}: {error}, {ATTEMPTS} times") from error
            meter.add(-size)
            sink.seek(0)
            sink.truncate()
            digest, size = hashlib.sha256(), 0
    found = digest.hexdigest()
    if sha256 and found != sha256:
        raise LocalError("SW7024", f"{url}: its SHA-256 is {found}, the task expects {sha256}")
    return size


@contextlib.contextmanager
def _open(url: str, access: Access, meter: Meter) -> Iterator[Iterator[bytes]]:
    if scheme_of(url) == "file":
        with _open_file(url, access) as file:
            meter.expect(os.fstat(file.fileno()).st_size)
            yield iter(lambda: file.read(CHUNK), b"")
        return
    with contextlib.ExitStack() as opened:
        for _ in range(MAX_REDIRECTS + 1):
            answer = _request(url, access, opened)
            if answer.status not in REDIRECTS:
                yield _body(url, answer, meter)
                return
            url = _redirected(url, answer.headers.get("Location", ""))
        raise LocalError("SW7022", f"{url}: more than {MAX_REDIRECTS} redirects")


def scheme_of(url: str) -> str:
    return url.partition(":")[0].lower()


# ------------------------------------------------------------------ files


def _open_file(url: str, access: Access) -> IO[bytes]:
    """A regular file of the directory that the administrator offers."""
    parts = urllib.parse.urlsplit(url)
    wanted = urllib.parse.unquote(parts.path)
    if parts.netloc not in ("", "localhost") or "\0" in wanted:
        raise LocalError("SW7021", f"{url}: expected file:///path of this host")
    if not access.files:
        raise LocalError("SW7021", f"{url}: this host offers no files (SWOP_CONTENT_FILES)")
    inside = os.path.relpath(os.path.normpath(wanted), access.files)
    if not wanted.startswith("/") or inside.startswith(".."):
        raise LocalError("SW7021", f"{url}: not below {access.files} (SWOP_CONTENT_FILES)")
    root = Path(access.files_seen_at or access.files).resolve()
    try:
        path = (root / inside).resolve(strict=True)
        if not path.is_relative_to(root):
            cause = f"{url}: a link leads out of {access.files} (SWOP_CONTENT_FILES)"
            raise LocalError("SW7021", cause)
        # Not to wait for whoever fills a pipe; and what was resolved must not be a link by now.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LocalError("SW7022", f"{url}: {reason}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise LocalError("SW7022", f"{url}: not a regular file")
    return os.fdopen(descriptor, "rb")


# ------------------------------------------------------------------ http


def _request(url: str, access: Access, opened: contextlib.ExitStack) -> http.client.HTTPResponse:
    """Ask once, without following redirects."""
    host, port = host_and_port(url)
    parts = urllib.parse.urlsplit(url)
    proxy = _proxy_for(parts.scheme, host, access.proxies)
    connection = _connection(parts.scheme, host, port, proxy, access)
    opened.callback(connection.close)
    path = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    target = path + (f"?{query}" if query else "")
    headers = {"User-Agent": AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
    if proxy and parts.scheme == "http":
        target = f"http://{parts.netloc.rpartition('@')[2]}{target}"
        headers |= _proxy_login(proxy)
    try:
        connection.request("GET", target, headers=headers)
        return connection.getresponse()
    except LocalError:
        raise
    except ssl.SSLCertVerificationError as error:
        raise LocalError("SW7022", f"{url}: {error.verify_message}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(f"no answer ({_said(error)})") from error


def host_and_port(url: str) -> tuple[str, int]:
    """Host and port of an http or https address. LocalError SW7021 for what is none."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError as error:
        raise LocalError("SW7021", f"{url}: not an address ({error})") from error
    if parts.scheme not in ("http", "https") or not host:
        raise LocalError("SW7021", f"{url}: expected http://, https:// or file://")
    if parts.username is not None or parts.password is not None:
        raise LocalError("SW7021", "an address with a user's name in it: all members would read it")
    return host, port or (443 if parts.scheme == "https" else 80)


def _connection(
    scheme: str, host: str, port: int, proxy: str, access: Access
) -> http.client.HTTPConnection:
    """A connection whose sockets go where they may. It connects with the first request."""
    if proxy:
        _check_names(host, port, access.reach)
        to = urllib.parse.urlsplit(proxy)
        dial = _dialer(None)
    else:
        to = urllib.parse.urlsplit(f"//{f'[{host}]' if ':' in host else host}:{port}")
        dial = _dialer(access.reach)
    target = (to.hostname or "", to.port or 80)
    connection: http.client.HTTPConnection
    if scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(*target, timeout=SILENCE_SECONDS, context=context)
        if proxy:
            connection.set_tunnel(host, port, headers=_proxy_login(proxy))
    else:
        connection = http.client.HTTPConnection(*target, timeout=SILENCE_SECONDS)
    connection._create_connection = dial  # type: ignore[attr-defined]
    return connection


def _dialer(reach: Reach | None) -> Callable[..., socket.socket]:
    """In the place of `socket.create_connection`: connects to allowed addresses only."""

    def dial(address: tuple[str, int], timeout: float, *_: object) -> socket.socket:
        host, port = address
        refused: list[str] = []
        failed: list[str] = []
        for family, kind, protocol, _name, place in _resolve(host, port):
            where = str(place[0])
            if reach is not None and (reason := reach.refusal(host, where, port)):
                refused.append(reason)
                continue
            connected = socket.socket(family, kind, protocol)
            connected.settimeout(timeout)
            try:
                connected.connect(place)
                if reach is not None:
                    _refuse_self(connected, host, where, port, reach)
                return connected
            except OSError as error:
                connected.close()
                failed.append(f"{where}: {_said(error)}")
            except LocalError:
                connected.close()
                raise
        if failed:
            raise OSError("; ".join(failed))
        raise LocalError("SW7021", f"{host}: {'; '.join(dict.fromkeys(refused)) or 'no address'}")

    return dial


def _refuse_self(to: socket.socket, host: str, where: str, port: int, reach: Reach) -> None:
    """A public address may be this host's own, where services take us for a neighbour."""
    if to.getsockname()[0] == to.getpeername()[0] and not reach.lists_name(host):
        address = ipaddress.ip_address(where.partition("%")[0])
        if not any(address in network for network in reach.networks):
            raise LocalError("SW7021", f"{host}:{port}: {where} is this host itself")


def _resolve(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str | int, ...]]]:
    try:
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))  # type: ignore[arg-type]
    except (OSError, UnicodeError) as error:
        raise OSError(f"the name {host} cannot be resolved: {_said(error)}") from error


def _check_names(host: str, port: int, reach: Reach) -> None:
    """Behind a proxy: refuse what we know to be refused; unknown names are the proxy's matter."""
    with contextlib.suppress(OSError):
        for *_, place in _resolve(host, port):
            if reason := reach.refusal(host, str(place[0]), port):
                raise LocalError("SW7021", f"{host}: {reason}")


def _redirected(url: str, location: str) -> str:
    if not location or any(ord(c) < 33 or ord(c) == 127 for c in location):
        raise LocalError("SW7022", f"{url}: a redirect to nowhere")
    found = urllib.parse.urljoin(url, location)
    if url.startswith("https:") and not found.startswith("https:"):
        raise LocalError("SW7021", f"{url}: a redirect from https to {found[:200]}")
    host_and_port(found)
    return found


def _body(url: str, answer: http.client.HTTPResponse, meter: Meter) -> Iterator[bytes]:
    """The bytes of an answer that says 200, all of them."""
    if answer.status >= 500:
        raise _Broken(f"the server answered {answer.status} {answer.reason}")
    if answer.status != 200:
        raise LocalError("SW7022", f"{url}: the server answered {answer.status} {answer.reason}")
    expected = answer.length
    if expected is not None:
        meter.expect(expected)
    count = 0
    while True:
        try:
            chunk = answer.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(f"the connection broke after {count} bytes ({_said(error)})") from error
        if not chunk:
            break
        count += len(chunk)
        yield chunk
    if expected is not None and count != expected:
        raise _Broken(f"the connection broke after {count} of {expected} bytes")


# ------------------------------------------------------------------ proxies


def _proxy_for(scheme: str, host: str, proxies: Mapping[str, str]) -> str:
    """The proxy for this host, as the usual variables name it; "" = none."""
    found = {name.lower(): value for name, value in proxies.items() if value}
    proxy = found.get(f"{scheme}_proxy", "")
    excluded = {"no": found.get("no_proxy", "")}
    if not proxy or urllib.request.proxy_bypass_environment(host, excluded):  # type: ignore[attr-defined]
        return ""
    return proxy if "//" in proxy else f"http://{proxy}"


def _proxy_login(proxy: str) -> dict[str, str]:
    parts = urllib.parse.urlsplit(proxy)
    if parts.username is None:
        return {}
    login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def _said(error: BaseException) -> str:
    """What an error says, on one line."""
    return " ".join((getattr(error, "strerror", None) or str(error) or repr(error)).split())[:300]
