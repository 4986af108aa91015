"""HTTPS to a command interface in web mode, with the standard library.

With CA certificates the server is verified: its certificate chains to one of them and is one of a
command interface (common name `SWCI-…`, or a SPIFFE id that ends so). Host names are not compared,
as nowhere in a swarm: whom one trusts is said by the CA certificates.
"""

from __future__ import annotations

import http.client
import json
import secrets
import ssl
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

MAX_ANSWER = 64 << 20  # bytes
_PARTIAL_CHAIN = 0x80000  # X509_V_FLAG_PARTIAL_CHAIN: an intermediate CA may be the trusted one


class Failure(Exception):
    """A request was not carried out, or its answer makes no sense. The text says why."""


class Reply(NamedTuple):
    """Lines of an answer."""

    status: int
    lines: list[str]


class Connection:
    """Requests to one command interface, each over a connection of its own."""

    def __init__(
        self, host: str, port: int, cert: str | None, key: str | None, ca: str | None
    ) -> None:
        self._host, self._port, self._verified = host, port, ca is not None
        self._context = _context(cert, key, ca)

    def execute(self, command: str, timeout: float) -> Reply:
        """Send a command. Raises Failure."""
        status, data = self._post("/exec?cmd=" + quote(command, safe=""), b"", {}, timeout)
        lines = self._object(data).get("CONTENT")
        if not isinstance(lines, list):
            raise Failure(f"{self._address} answers with something else than lines")
        return Reply(status, [str(line).strip() for line in lines])

    def document(self, command: str, timeout: float) -> dict[str, Any]:
        """Send a command; its document (result, or error). Raises Failure."""
        path = "/exec?output=json&cmd=" + quote(command, safe="")
        status, data = self._post(path, b"", {}, timeout)
        if status != 200:
            raise Failure(_first_line(data).removeprefix("ERROR : ") or f"status {status}")
        return self._object(data)

    def _object(self, data: bytes) -> dict[str, Any]:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as fault:
            raise Failure(f"{self._address} answers with something else than JSON") from fault
        if not isinstance(value, dict):
            raise Failure(f"{self._address} answers with something else than an object")
        return value

    def upload(self, path: Path, timeout: float) -> Reply:
        """Send a file. Raises Failure; OSError when it cannot be read."""
        boundary = secrets.token_hex(16)
        name = path.name.replace("\\", "_").replace('"', "_")
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = head.encode() + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        status, data = self._post("/uploadTaskDef", body, kind, timeout)
        text = data.decode("utf-8", "replace")
        if status != 200:
            text = _first_line(data) or text
        return Reply(status, [line.strip() for line in text.splitlines()])

    @property
    def _address(self) -> str:
        return f"{self._host}:{self._port}"

    def _post(
        self, path: str, body: bytes, headers: dict[str, str], timeout: float
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection(
            self._host, self._port, context=self._context, timeout=timeout
        )
        try:
            connection.connect()
            if self._verified:
                self._check_role(connection.sock)
            connection.request("POST", path, body=body, headers=headers)
            response = connection.getresponse()
            data = response.read(MAX_ANSWER + 1)
        except ssl.SSLCertVerificationError as fault:
            raise Failure(
                f"the certificate of {self._address} is not trusted: {fault.verify_message}"
            ) from fault
        except TimeoutError as fault:
            raise Failure(f"{self._address} did not answer within {timeout:g} s") from fault
        except (OSError, http.client.HTTPException) as fault:
            raise Failure(
                f"no answer from {self._address} ({fault or type(fault).__name__}); is it a SWCI in"
                " web mode, and is the client certificate of a CA that it trusts?"
            ) from fault
        finally:
            connection.close()
        if len(data) > MAX_ANSWER:
            raise Failure(f"the answer of {self._address} is larger than {MAX_ANSWER} bytes")
        return response.status, data

    def _check_role(self, sock: Any) -> None:
        certificate = sock.getpeercert() or {}
        names = [value for part in certificate.get("subject", ()) for key, value in part
                 if key == "commonName"]  # fmt: skip
        names += [
            urlsplit(value).path.rsplit("/", 1)[-1]
            for key, value in certificate.get("subjectAltName", ())
            if key == "URI" and value.startswith("spiffe://")
        ]
        if not any(name.partition("-")[0].upper() == "SWCI" for name in names):
            shown = ", ".join(names) or "without a name"
            raise Failure(f"{self._address} is no command interface: its certificate is {shown}")


def _context(cert: str | None, key: str | None, ca: str | None) -> ssl.SSLContext:
    """Raises OSError or ssl.SSLError when a file is not there or not what it should be."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE if ca is None else ssl.CERT_REQUIRED
    context.verify_flags |= _PARTIAL_CHAIN
    if ca is not None:
        files = [Path(ca)]
        if files[0].is_dir():  # as in --capath
            files = [file for file in sorted(files[0].iterdir()) if file.suffix in (".pem", ".crt")]
        for file in files:
            context.load_verify_locations(file)
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context


def _first_line(data: bytes) -> str:
    """Of an answer to a command; "" when it is none."""
    try:
        return str(json.loads(data)["CONTENT"][0])
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return ""
