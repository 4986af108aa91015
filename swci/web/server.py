"""The listener of web mode: who may enter, and what the paths do.

    POST /exec?cmd=<command>     {"CONTENT": [<line>, …]}; the first line begins with `ERROR ` when
                                 the command failed
    POST /exec?output=json&cmd=… the command's document, see `swci.json_lines`
    POST /uploadTaskDef          multipart field `file`: kept in the session's directory
    GET  /is_up                  OK

Whoever sends commands acts as this SWCI: what they do is signed with *its* key. So besides a
certificate of a trusted CA, a client needs the role SWCI and the organisation of this SWCI; others
hear why they are refused, and nothing else.

The clients of the product that this surface comes from put a command into the URL as it is, and
their HTTP library escapes what must be; others escape as forms do. `command_of` understands both.
"""

from __future__ import annotations

import itertools
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from urllib.parse import unquote

from swarm.errors import LocalError, RemoteError
from swarm.guests import Guest, Guests, shut
from swarm.identity import Identity, Peer, Role, check_peer
from swarm.identity.tls import Contexts, presented_chain
from swci.language import MAX_LINE
from swci.output import JsonOutput, LinesOutput, Output
from swci.web.conversation import TEXT, Answer, Request, content, converse, left
from swci.web.sessions import Abandoned, Busy, Sessions
from swci.web.upload import file_of, store

log = logging.getLogger("swci")

AS_JSON = "output=json&"
CONNECTIONS = 128  # at a time
STRANGERS = 32  # of them that have not shown a certificate yet
HANDSHAKE = 10.0  # seconds
IDLE = 60.0  # seconds without a byte of a request
ENDING = 2.0  # seconds that answers may take at the end
NEWS = 60.0  # seconds between two log lines about one address


class Server:
    """Listens for clients. `start`, and `close` at the end."""

    def __init__(self, identity: Identity, sessions: Sessions) -> None:
        self._identity = identity
        self._sessions = sessions
        self._contexts = Contexts(identity, server=True)
        self._guests = Guests(CONNECTIONS, STRANGERS)
        self._numbers = itertools.count(1)
        self._listener: socket.socket | None = None
        self._closing = threading.Event()
        self._threads: set[threading.Thread] = set()
        self._told: dict[str, float] = {}

    def start(self, host: str, port: int) -> int:
        """Listen, and return the port. Raises LocalError SW8040."""
        try:
            self._listener = socket.create_server((host, port), backlog=64)
        except OSError as fault:
            raise LocalError("SW8040", f"{host}:{port}: {fault.strerror}") from None
        threading.Thread(target=self._accept, name="accept", daemon=True).start()
        bound: int = self._listener.getsockname()[1]
        return bound

    def close(self) -> None:
        """Stop listening; let commands end within a moment, and drop all connections."""
        self._closing.set()
        if self._listener is not None:
            shut(self._listener)  # closing alone does not wake a thread that sits in accept()
            self._listener.close()
        end = time.monotonic() + ENDING
        while (threads := list(self._threads)) and (rest := end - time.monotonic()) > 0:
            for guest in self._guests.all():
                if not guest.talks:
                    shut(guest.sock, socket.SHUT_RD)  # its last answer may still go out
            threads[0].join(min(rest, 0.1))
        self._guests.close()

    def audit(self) -> None:
        """End the connections of those whose certificate is no longer good."""
        for guest in self._guests.all():
            if guest.chain:
                try:
                    check_peer(guest.chain, self._identity.trust, {Role.SWCI})
                except RemoteError as fault:
                    log.warning("the connection from %s is closed: %s", guest.name, fault.cause)
                    guest.send_away()

    # ------------------------------------------------------------ connections

    def _accept(self) -> None:
        assert self._listener is not None
        while not self._closing.is_set():
            try:
                sock, address = self._listener.accept()
            except OSError as fault:
                if self._closing.is_set():
                    return
                log.warning("accept failed: %s", fault)
                self._closing.wait(0.1)  # out of file descriptors: others may return some
                continue
            guest, _ = self._guests.enter(sock, address[0])
            if guest is None:
                sock.close()
                continue
            thread = threading.Thread(target=self._serve, args=(guest,), name="from", daemon=True)
            self._threads.add(thread)
            thread.start()

    def _serve(self, guest: Guest) -> None:
        try:
            guest.sock.settimeout(HANDSHAKE)
            secure = self._contexts.current.wrap_socket(
                guest.sock, server_side=True, do_handshake_on_connect=False
            )
            guest.sock = secure
            if guest.gone:  # a moment ago, when neither socket could be shut
                return
            secure.do_handshake()
            secure.settimeout(IDLE)
            converse(secure, self._answers(secure, guest))
        except Abandoned:
            log.info("%s has gone while its command waited", guest.name)
        except (OSError, ValueError) as fault:
            if not guest.gone:
                self._tell(guest, f"the connection from {guest.name} ended: {fault}")
        except Exception:
            log.exception("a connection from %s failed", guest.name)
        finally:
            self._guests.leave(guest)
            guest.sock.close()
            self._threads.discard(threading.current_thread())

    def _tell(self, guest: Guest, text: str) -> None:
        """Log what a stranger does wrong, once a minute."""
        now = time.monotonic()
        if now - self._told.get(guest.name, -NEWS) >= NEWS:
            if len(self._told) > 1000:
                self._told.clear()
            self._told[guest.name] = now
            log.warning("%s", text)

    def _answers(self, secure: ssl.SSLSocket, guest: Guest) -> Callable[[Request], Answer]:
        """What answers this client: its certificate decides."""
        chain = presented_chain(secure)
        try:
            peer = check_peer(chain, self._identity.trust, {Role.SWCI})
            if peer.organisation != self._identity.organisation:
                whose = f"certificate {peer.common_name} is of another organisation"
                raise RemoteError("SW8041", whose)
        except RemoteError as fault:
            self._tell(guest, f"turned away {guest.name}: {fault}")
            refusal = content([f"ERROR : {fault}"], 403)
            return lambda request: refusal
        self._guests.known(guest, chain, peer.holder, peer.common_name)
        return lambda request: self._answer(request, peer, secure, guest)

    # ------------------------------------------------------------ requests

    def _answer(self, request: Request, peer: Peer, secure: ssl.SSLSocket, guest: Guest) -> Answer:
        method = {"/exec": "POST", "/uploadTaskDef": "POST", "/is_up": "GET"}.get(request.path)
        if method is None:
            paths = "POST /exec?cmd=…, POST /uploadTaskDef and GET /is_up"
            return content([f"ERROR : SW8042: there are only {paths}"], 404)
        if request.method != method:
            text = f"ERROR : SW8042: {request.path} is used with {method}"
            return content([text], 405, allow=method)
        if request.path == "/is_up":
            return Answer(200, b"OK", TEXT)
        with self._guests.talking(guest, f"request {next(self._numbers)}"):
            try:
                if request.path == "/exec":
                    return self._execute(request, peer, secure)
                return self._upload(request, peer)
            except Busy as fault:
                return content([f"ERROR : {fault}"], 503)
            except RemoteError as fault:
                return content([f"ERROR : {fault}"], 400)
            except Abandoned:
                if not self._closing.is_set():
                    raise
                return content(["ERROR : SW8043: this SWCI is being stopped"], 503)

    def _execute(self, request: Request, peer: Peer, secure: ssl.SSLSocket) -> Answer:
        query = request.query.removeprefix(AS_JSON)
        line = command_of(query)
        # Not the whole line: bodies of tasks may hold passwords.
        log.info("%s: %s", peer.common_name, " ".join(line.split()[:2]).upper())

        def execute(out: Output) -> bool:
            key = peer.fingerprint
            return self._sessions.execute(
                key, line, out, lambda: self._closing.is_set() or left(secure)
            )

        if query != request.query:
            document = JsonOutput()
            ok = execute(document)
            return Answer(200, json.dumps(document.document(None, line, ok=ok)).encode())
        lines = LinesOutput()
        return content(lines.lines if execute(lines) else _reasons_first(lines.lines))

    def _upload(self, request: Request, peer: Peer) -> Answer:
        name, data = file_of(request.kind, request.body)
        with self._sessions.in_turn(peer.fingerprint) as session:
            store(session, name, data)
            where = session.directory.shown
        log.info("%s: sent the file %s", peer.common_name, name)
        return Answer(200, f"Task definition uploaded : {where}/{name}".encode(), TEXT)


def _reasons_first(lines: list[str]) -> list[str]:
    """Programs look at the first line to see whether a command failed."""
    return sorted(lines, key=lambda line: not line.startswith("ERROR "))


def command_of(query: str) -> str:
    """The command in a query. Raises RemoteError SW8042.

    Everything behind `cmd=` belongs to it, an unescaped `&` too. A plus sign stands for a blank
    where nothing else does, which is how forms are written; beside escaped blanks it is itself.
    """
    name, equals, text = query.partition("=")
    if name != "cmd" or not equals:
        raise RemoteError("SW8042", "there is no cmd=<command> in the query")
    if "%20" not in text:
        text = text.replace("+", " ")
    try:
        line = unquote(text, errors="strict").strip()
    except UnicodeDecodeError:
        raise RemoteError("SW8042", "the command is not UTF-8") from None
    if len(line) > MAX_LINE:
        raise RemoteError("SW8042", f"a command has at most {MAX_LINE} characters")
    if not line or any(char < " " and char != "\t" for char in line):
        raise RemoteError("SW8042", "the command is not one line of text")
    return line
