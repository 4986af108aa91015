"""Fetching what a task names, from servers and directories that do not mean well."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.errors import LocalError
from swop import fetching
from swop.fetching import Access, fetch
from swop.reach import Reach, read_reach
from tests import pki
from tests.content.web import Site, serve

LOCAL = Access(read_reach(True, "127.0.0.1, localhost", "X"))


class Counting:
    """A meter with a limit."""

    def __init__(self, limit: int = 1 << 30) -> None:
        self.limit, self.used = limit, 0

    def add(self, count: int) -> None:
        self.used += count
        self.expect(0)

    def expect(self, count: int) -> None:
        if self.used + count > self.limit:
            raise LocalError("SW7025", f"more than {self.limit} bytes")


@pytest.fixture
def site() -> Iterator[Site]:
    with serve() as found:
        yield found


def get(url: str, access: Access = LOCAL, meter: Counting | None = None, sha256: str = "") -> bytes:
    sink = io.BytesIO()
    size = fetch(url, sink, access, meter or Counting(), sha256)
    assert size == len(sink.getvalue())
    return sink.getvalue()


def refused(url: str, access: Access = LOCAL, meter: Counting | None = None) -> str:
    with pytest.raises(LocalError) as caught:
        get(url, access, meter)
    return f"{caught.value.code}: {caught.value.cause}"


def test_a_file_and_its_checksum(site: Site) -> None:
    data = os.urandom(700_000)
    site.files["/a%20b?x=%C3%BC"] = data
    meter = Counting()
    assert get(site.url("/a b?x=ü"), meter=meter, sha256=hashlib.sha256(data).hexdigest()) == data
    assert meter.used == len(data)
    with pytest.raises(LocalError, match=r"SW7024: .*its SHA-256 is .* the task expects 0000"):
        get(site.url("/a b?x=ü"), sha256="0" * 64)


def test_redirects_are_followed_and_bounded(site: Site) -> None:
    site.files["/end"] = b"here"
    site.redirects = {"/1": "/2", "/2": site.url("/end"), "/loop": "/loop"}
    assert get(site.url("/1")) == b"here"
    assert refused(site.url("/loop")).startswith("SW7022")
    assert site.asked.count("/loop") == fetching.MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://x/y", "//u:p@127.0.0.1/x", "gopher://x"]
)
def test_redirects_lead_to_nothing_else(site: Site, target: str) -> None:
    site.redirects["/x"] = target
    assert refused(site.url("/x")).startswith("SW7021")


def test_a_redirect_cannot_reach_what_the_address_could_not(site: Site) -> None:
    """From a listed name to an address of the inside."""
    with serve("127.0.0.2") as inside:
        inside.files["/secret"] = b"secret"
        site.redirects["/x"] = inside.url("/secret")
        assert refused(site.url("/x")) == "SW7021: 127.0.0.2: 127.0.0.2 is not a public address"
        assert inside.asked == []


def test_a_name_is_judged_by_its_address(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the name says at the first look is what is connected to: there is no second one."""
    site.files["/x"] = b"secret"
    looks: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: str, port: int, **options: object) -> object:
        looks.append(host)
        return real("127.0.0.1", port, type=socket.SOCK_STREAM)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    url = f"http://innocent.example:{site.port}/x"
    assert "127.0.0.1 is not a public address" in refused(url, Access(Reach()))
    assert site.asked == [] and looks == ["innocent.example"]
    assert get(url) == b"secret"
    assert len(looks) == 2


def test_the_host_itself_is_refused_under_a_public_address(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swop.reach.PUBLIC_PORTS", (site.port,))
    monkeypatch.setattr("swop.reach._is_public", lambda address: True)
    assert "is this host itself" in refused(site.url("/x"), Access(Reach()))
    assert site.asked == []


def test_a_server_that_fails_is_asked_again(site: Site) -> None:
    site.files["/x"] = b"data"
    site.broken["/x"] = 2
    assert get(site.url("/x")) == b"data"
    site.broken["/x"] = 3
    assert "the server answered 503 Service Unavailable, 3 times" in refused(site.url("/x"))
    assert "answered 404 Not Found" in refused(site.url("/none"))
    assert site.asked.count("/none") == 1


def test_half_an_answer_is_none(site: Site) -> None:
    site.files["/x"] = bytes(1000)
    site.cut.add("/x")
    assert "broke after 500 of 1000 bytes" in refused(site.url("/x"))


def test_a_silent_server_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "SILENCE_SECONDS", 0.1)
    site.hangs.add("/x")
    assert "timed out" in refused(site.url("/x"))


def test_too_much_is_refused_before_it_comes(site: Site) -> None:
    site.files["/x"] = bytes(2000)
    meter = Counting(1000)
    assert refused(site.url("/x"), meter=meter).startswith("SW7025")
    assert meter.used == 0


@pytest.mark.parametrize(
    "url", ["ftp://x/y", "http:///x", "http://u@127.0.0.1/x", "http://[x/", "http://a:99999/", "x"]
)
def test_addresses_that_are_none(url: str) -> None:
    assert refused(url).startswith("SW7021")


# ------------------------------------------------------------------ https


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An https server whose CA the machine trusts."""
    ca = pki.authority(tmp_path)
    made = pki.files(tmp_path, "localhost", ca)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert, made.key)
    with serve(context=context) as found:
        yield found


def test_https_checks_certificate_and_name(secure: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    secure.files["/x"] = b"data"
    secure.redirects["/down"] = f"http://localhost:{secure.port}/x"
    url = f"https://localhost:{secure.port}"
    assert get(f"{url}/x") == b"data"
    assert "certificate is not valid for '127.0.0.1'" in refused(secure.url("/x", "https"))
    assert refused(f"{url}/down").startswith("SW7021: " + f"{url}/down: a redirect from https")
    monkeypatch.delenv("SSL_CERT_FILE")
    assert refused(f"{url}/x").startswith("SW7022")


# ------------------------------------------------------------------ proxies


def test_a_proxy_is_the_administrators_word(site: Site) -> None:
    site.files["/x"] = b"by proxy"
    proxy = f"http://me:secret@127.0.0.1:{site.port}"
    access = Access(Reach(), proxies={"http_proxy": proxy, "no_proxy": "127.0.0.1"})
    assert get("http://elsewhere.invalid/x", access) == b"by proxy"
    assert site.asked == ["http://elsewhere.invalid/x"]
    assert site.headers[0]["Proxy-Authorization"] == "Basic bWU6c2VjcmV0"
    assert site.headers[0]["Host"] == "elsewhere.invalid"
    # What is excluded goes directly, and so by the rules; and a proxy is no way inside.
    assert "not a public address" in refused(site.url("/x"), access)
    only = Access(Reach(), proxies={"HTTP_PROXY": proxy})
    assert "not a public address" in refused("http://169.254.169.254/latest", only)
    assert len(site.asked) == 1


def test_https_through_a_proxy_is_checked_at_its_end(site: Site, secure: Site) -> None:
    secure.files["/x"] = b"data"
    proxies = {"https_proxy": f"http://me:secret@127.0.0.1:{site.port}"}
    access = Access(LOCAL.reach, proxies=proxies)
    assert get(f"https://localhost:{secure.port}/x", access) == b"data"
    assert site.asked == [f"CONNECT localhost:{secure.port}"]
    assert site.headers[0]["Proxy-Authorization"] == "Basic bWU6c2VjcmV0"
    assert "Proxy-Authorization" not in secure.headers[0]
    assert "not valid for '127.0.0.1'" in refused(secure.url("/x", "https"), access)


# ------------------------------------------------------------------ files


def test_files_of_the_directory_that_is_offered(tmp_path: Path) -> None:
    offered, secret = tmp_path / "offered", tmp_path / "secret"
    (offered / "sub").mkdir(parents=True)
    (offered / "sub" / "a b").write_bytes(b"data")
    secret.write_bytes(b"secret")
    (offered / "link").symlink_to(secret)
    (offered / "inner").symlink_to("sub/a b")
    os.mkfifo(offered / "pipe")
    access = Access(files=str(offered))
    assert get(f"file://{offered}/sub/a%20b", access) == b"data"
    assert get(f"file://localhost{offered}/inner", access) == b"data"
    for url, said in (
        (f"file://{secret}", "not below"),
        (f"file://{offered}/../secret", "not below"),
        (f"file://{offered}/%2e%2e/secret", "not below"),
        (f"file://{offered}x/y", "not below"),
        (f"file://{offered}/link", "a link leads out"),
        (f"file://server{offered}/sub", "expected file:///path"),
    ):
        assert refused(url, access).startswith("SW7021"), url
        assert said in refused(url, access), url
    assert "not a regular file" in refused(f"file://{offered}/pipe", access)
    assert "not a regular file" in refused(f"file://{offered}", access)
    assert "No such file" in refused(f"file://{offered}/none", access)
    assert "offers no files" in refused(f"file://{offered}/inner", Access())
    # Where the directory is seen under another name, as in a container.
    moved = Access(files="/srv/data", files_seen_at=str(offered))
    assert get("file:///srv/data/inner", moved) == b"data"
