"""Web mode: commands by HTTPS, who may send them, and what nobody can do with it."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import RemoteError
from swarm.identity import Role
from swci.output import LinesOutput
from swci.web import sessions
from swci.web.conversation import MAX_BODY, MAX_HEAD, content, converse
from swci.web.server import command_of
from swci.web.upload import file_of
from tests import pki
from tests.processes import until
from tests.swci.web import Existing, Site, running

# What existing clients do, and are right to be warned of.
pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")

TASK = Path(__file__).parent / "usr" / "taskdefs" / "user_env_tf_build_task.yaml"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running(tmp_path) as site:
        yield site


def test_commands_of_an_existing_client(site: Site) -> None:
    client = site.client()
    assert client.run("create context c with ip sn1") == [
        "API Server is UP!",
        "CONTEXT CREATED : c",
    ]
    assert client.run("LIST TASKS") == [
        "ERROR : no context is active; use CREATE CONTEXT, then SWITCH CONTEXT"
    ]
    assert client.run("switch context c") == ["DEFAULT CONTEXT SET TO : c"]
    assert client.run("LIST TASKS") == ["ROOTTASK"]
    assert client.run("CREATE TASKRUNNER tr") == ["TASKRUNNER CREATED : tr"]
    assert client.run("LIST NODES")[0].count(",") == 6
    assert client.run("PWD") == ["/platform/swarm/usr"]


def test_upload_and_use(site: Site) -> None:
    client = site.client()
    client.run("create context c with ip sn1")
    client.run("switch context c")
    (site.usr / "taskdefs").mkdir()
    assert client.run("cd taskdefs") == ["Current Directory : /platform/swarm/usr/taskdefs"]
    answer = client.upload(TASK)
    assert answer.status_code == 200
    assert answer.text == f"Task definition uploaded : /platform/swarm/usr/taskdefs/{TASK.name}"
    assert (site.usr / "taskdefs" / TASK.name).read_bytes() == TASK.read_bytes()
    assert (
        client.run(f"CREATE TASK FROM {TASK.name}")[1] == "Task Registered : user_env_tf_build_task"
    )
    assert client.run("FINALIZE TASK user_env_tf_build_task") != []


def test_the_reason_of_a_failure_comes_first(site: Site) -> None:
    """After `Task definition is valid`, the network refuses a name that is taken."""
    client = site.client()
    client.run("create context c with ip sn1")
    client.run("switch context c")
    client.upload(TASK)
    client.run(f"CREATE TASK FROM {TASK.name}")
    again = client.run(f"CREATE TASK FROM {TASK.name}")
    assert again[0].startswith("ERROR : SW4021")
    assert again[1] == "Task definition is valid"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("../outside.yaml", b"x"),
        ("/etc/outside.yaml", b"x"),
        ("..", b"x"),
        (".hidden", b"x"),
        ("a b.yaml", b"x"),
        ("a\\\\b.yaml", b"x"),
        ("a" * 129, b"x"),
        ("taken", b"x"),
    ],
)
def test_uploads_stay_inside(site: Site, name: str, content: bytes) -> None:
    (site.usr / "taken").mkdir()
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="'
        + name.encode()
        + b'"\r\n\r\n'
        + content
        + b"\r\n--b--\r\n"
    )
    answer = site.client().post(
        "/uploadTaskDef", data=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert answer.status_code == 400
    assert answer.json()["CONTENT"][0].startswith("ERROR : SW8044: ")
    assert sorted(path.name for path in site.usr.rglob("*")) == ["taken"]


def test_an_upload_does_not_follow_links(site: Site, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("theirs")
    (site.usr / TASK.name).symlink_to(outside)
    assert site.client().upload(TASK).status_code == 200
    assert outside.read_text() == "theirs"
    assert not (site.usr / TASK.name).is_symlink()


def test_the_host_is_out_of_sight(site: Site, tmp_path: Path) -> None:
    (site.usr / "way-out").symlink_to(tmp_path)
    (site.usr / "mine").write_text("x")
    client = site.client()
    for command in ("cd /etc", "cd ..", "cd way-out", "ls /etc", "ls -l ../cert", "ls way-out/"):
        assert client.run(command)[0].endswith("is outside of the user directory"), command
    assert client.run(f"create task from {TASK}")[0].startswith("ERROR : ")
    assert client.run("ls -1 /platform/swarm/usr") == ["mine", "way-out"]


def test_each_certificate_has_its_session(site: Site) -> None:
    one, other = site.client("SWCI-one"), site.client("SWCI-other")
    one.run("create context c with ip sn1")
    one.run("switch context c")
    assert one.run("list contexts") == ["c"]
    assert other.run("list contexts") == []
    assert one.run("set context env a b") == ["a=b"]
    one.close()
    assert one.run("get context env a") == ["a=b"], "over another connection"
    assert one.run("exit") == []
    assert one.run("list contexts") == [], "EXIT ends the session"
    assert all(client.closed for client in site.network.clients)


def test_sessions_begin_as_the_script_left_them(site: Site) -> None:
    site.session.execute("create context c with ip sn1", LinesOutput())
    site.session.execute("switch context c", LinesOutput())
    client = site.client()
    assert client.run("list tasks") == ["ROOTTASK"]
    client.run("exit")
    assert client.run("list tasks") == ["ROOTTASK"]
    assert not site.network.clients[0].closed


# ---------------------------------------------------------------- the door


def test_who_may_not_enter(site: Site, tmp_path: Path) -> None:
    foreign = pki.authority(tmp_path / "foreign", 2)
    other = pki.authority(tmp_path / "other", 3)
    site.ca.trust(other)
    site.identity.trust.reload()
    for cert in (None, site.files("SWCI-foreign", foreign)):
        with pytest.raises(requests.RequestException):
            Existing(site.port, cert).run("pwd")
    for name, ca, why in (
        ("SL-1", site.ca, "SW1207: certificate SL-1 has the role SL, which may not enter here"),
        ("SN-1", site.ca, "SW1207: certificate SN-1 has the role SN, which may not enter here"),
        ("SWCI-3", other, "SW8041: certificate SWCI-3 is of another organisation"),
    ):
        for answer in (
            Existing(site.port, site.files(name, ca)).post("/exec?cmd=pwd"),
            Existing(site.port, site.files(name, ca)).upload(TASK),
        ):
            assert answer.status_code == 403
            assert answer.json()["CONTENT"][0].startswith(f"ERROR : {why}")
    assert not list(site.usr.iterdir())
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as plain:
        plain.sendall(b"POST /exec?cmd=pwd HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        try:
            assert b"CONTENT" not in plain.recv(1000)
        except ConnectionResetError:
            return


def test_the_server_can_be_verified(site: Site) -> None:
    cert = site.files("SWCI-user")
    url = f"https://127.0.0.1:{site.port}/is_up"
    answer = requests.get(url, cert=cert, verify=str(site.ca.path), timeout=10)
    assert answer.text == "OK"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(pki.authority(site.usr.parent / "foreign", 2).path)
    context.load_cert_chain(*cert)
    with (
        socket.create_connection(("127.0.0.1", site.port), timeout=10) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        context.wrap_socket(plain)


def test_revoked_while_connected(site: Site) -> None:
    user = pki.identity(site.directory / "user", Role.SWCI, site.ca, name="user")
    with site.connect(user) as secure:
        ask(secure, b"GET /is_up HTTP/1.1\r\nHost: x\r\n\r\n")
        site.ca.revoke(user)
        site.identity.trust.reload()
        site.server.audit()
        assert secure.recv(100) == b""
    with site.connect(user) as secure:
        assert b"403" in ask(secure, b"GET /is_up HTTP/1.1\r\nHost: x\r\n\r\n")


def ask(secure: ssl.SSLSocket, request: bytes) -> bytes:
    """Send bytes, and the beginning of the answer."""
    secure.sendall(request)
    return secure.recv(4096)


# ---------------------------------------------------------------- bounds


def test_what_is_no_request(site: Site) -> None:
    client = site.client()
    for path, status in (("/other", 404), ("/exec", 400), ("/exec?x=1", 400), ("/is_up", 405)):
        answer = client.post(path)
        assert answer.status_code == status
        assert answer.json()["CONTENT"][0].startswith("ERROR : SW8042: ")
    assert client.post("/is_up").headers["Allow"] == "GET"
    assert client.post("/exec?cmd=" + "x" * 20_000).status_code == 400
    assert client.post("/exec?cmd=%ff").status_code == 400
    assert client.post("/exec?cmd=pwd%0aexit").status_code == 400
    assert client.post("/exec?cmd=" + "x" * 2 * MAX_HEAD).status_code == 431
    assert client.post("/uploadTaskDef", data=b"x" * (MAX_BODY + 1)).status_code == 413
    assert client.post("/uploadTaskDef", data=iter([b"x" * MAX_BODY, b"y"])).status_code == 413
    assert client.run("pwd") == ["/platform/swarm/usr"]


def test_garbage_ends_the_connection(site: Site) -> None:
    user = pki.identity(site.directory / "user", Role.SWCI, site.ca, name="user")
    with site.connect(user) as secure:
        assert ask(secure, b"\x00\x01\x02\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_a_wait_blocks_nobody_and_ends_with_its_client(site: Site) -> None:
    """Over a bare connection, so that it can be closed in the middle."""
    user = pki.identity(site.directory / "user", Role.SWCI, site.ca, name="user")
    cert = (str(user.source.cert), str(user.source.key))
    waits = [site.connect(user) for _ in range(sessions.MAX_WAITS)]
    for secure in waits:
        secure.sendall(
            b"POST /exec?cmd=SLEEP%20600 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        )
    seat = site.sessions._seats
    until(lambda: seat and seat[user.fingerprint].waits == len(waits), 20, "all wait")
    same = Existing(site.port, cert)
    assert same.run("pwd") == ["/platform/swarm/usr"]
    refused = same.post("/exec?cmd=sleep 600")
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["CONTENT"][0].startswith("ERROR : SW8043: 8 commands of this certificate")
    for secure in waits[1:]:
        secure.close()
    until(lambda: seat[user.fingerprint].waits == 1, 20, "the others are given up")
    site.server.close()
    with waits[0] as secure:
        assert secure.recv(4096).startswith(b"HTTP/1.1 503 "), "told when the program ends"


def run(site: Site, key: str, command: str) -> list[str]:
    out = LinesOutput()
    assert site.sessions.execute(key, command, out, lambda: False)
    return out.lines


def test_exit_ends_the_waits_of_the_session(site: Site) -> None:
    """They would ask closed connections, again and again."""
    client = site.client()
    client.run("create context c with ip sn1")
    other = site.client_again(client)
    said: list[list[str]] = []
    thread = threading.Thread(target=lambda: said.append(other.run("sleep 600")))
    thread.start()
    (seat,) = site.sessions._seats.values()
    until(lambda: seat.waits, 20, "it waits")
    client.run("exit")
    thread.join(20)
    assert said[0][0].startswith("ERROR : SW8043: the session has ended meanwhile, by EXIT")


def test_a_failure_that_ends_the_session(site: Site) -> None:
    client = site.client()
    client.run("cd /platform/swarm/usr")
    for command in ("nonsense", "WAIT FOR IP host 0"):
        client.run("exit on failure")
        assert client.run(command)[0].startswith("ERROR ")
        assert not site.sessions._seats, "the next command begins anew"


def test_one_after_the_other(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "QUEUE", 0.05)
    key = "k"
    with site.sessions.in_turn(key):
        with pytest.raises(sessions.Busy, match="an earlier command"):
            run(site, key, "pwd")
        monkeypatch.setattr(sessions, "QUEUE", 30.0)
        done: list[list[str]] = []
        threads = [
            threading.Thread(target=lambda: done.append(run(site, key, "pwd")))
            for _ in range(sessions.MAX_QUEUED - 1)
        ]
        for thread in threads:
            thread.start()
        until(lambda: site.sessions._seats[key].queued == sessions.MAX_QUEUED, 20, "all queue")
        with pytest.raises(sessions.Busy, match="are under way already"):
            run(site, key, "pwd")
    for thread in threads:
        thread.join(20)
    assert done == [["/platform/swarm/usr"]] * len(threads)


def test_sessions_are_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    for key in "abc":
        run(site, key, "pwd")
    assert list(site.sessions._seats) == ["b", "c"]
    with (
        site.sessions.in_turn("b"),
        site.sessions.in_turn("c"),
        pytest.raises(sessions.Busy, match="2 other certificates"),
    ):
        run(site, "a", "pwd")


@pytest.mark.parametrize(
    ("query", "command"),
    [
        ("cmd=list%20nodes", "list nodes"),
        ("cmd=list+nodes", "list nodes"),
        ("cmd=APPEND%20TASK%20BODY%20t%201%20a+b&c=d%25", "APPEND TASK BODY t 1 a+b&c=d%"),
        ("cmd=%C3%A9", "é"),
        ("cmd=%20pwd%0A", "pwd"),
    ],
)
def test_the_command_of_a_query(query: str, command: str) -> None:
    assert command_of(query) == command


@given(st.text())
def test_any_query(query: str) -> None:
    try:
        assert command_of(query)
    except RemoteError as fault:
        assert fault.code == "SW8042"


@given(st.text(max_size=60), st.binary(max_size=200), st.binary(max_size=80))
def test_any_upload(kind: str, body: bytes, head: bytes) -> None:
    for given_kind, given_body in (
        (kind, body),
        ("multipart/form-data; boundary=b", b"--b\r\n" + head + b"\r\n\r\n" + body + b"\r\n--b--"),
    ):
        try:
            name, _ = file_of(given_kind.encode("utf-8").decode("latin-1"), given_body)
            assert "/" not in name and not name.startswith(".")
        except RemoteError as fault:
            assert fault.code == "SW8044"


PIECES = st.sampled_from(
    [b"POST /exec?cmd=pwd HTTP/1.1\r\n", b"Host: x\r\n", b"Content-Length: 3\r\n", b"\r\n", b"abc",
     b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"Expect: 100-continue\r\n"]
)  # fmt: skip


@given(st.lists(PIECES | st.binary(max_size=50), max_size=12))
def test_any_conversation(pieces: list[bytes]) -> None:
    """Whatever is said, it ends with answers or none, and never with an exception."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"".join(pieces))
        theirs.shutdown(socket.SHUT_WR)
        converse(cast(ssl.SSLSocket, ours), lambda request: content([request.path]))
        ours.shutdown(socket.SHUT_WR)
        said = b""
        while data := theirs.recv(1 << 16):
            said += data
        assert not said or said.startswith(b"HTTP/1.1 ")


def test_the_document_of_a_command(site: Site) -> None:
    client = site.client()
    assert client.post("/exec?output=json&cmd=create context c with ip sn1").json()["ok"]
    client.run("switch context c")
    good = client.post("/exec?output=json&cmd=LIST TASKS").json()
    assert (good["ok"], good["result"], good["error"]) == (True, ["ROOTTASK"], None)
    bad = client.post("/exec?output=json&cmd=GET TASK INFO absent").json()
    assert (bad["ok"], bad["result"]) == (False, None)
    assert bad["error"]["causes"] == ["there is no task absent"]


def test_answers_are_json(site: Site) -> None:
    answer = site.client().post("/exec?cmd=help")
    assert answer.headers["Content-Type"] == "application/json"
    assert "LIST NODES" in json.loads(answer.content)["CONTENT"]
