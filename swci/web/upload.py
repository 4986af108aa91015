"""Files that clients send: `multipart/form-data` with one field `file`, kept in the user directory.

The name is the client's, so it is one word without directories, and what is there under that name
is replaced and never followed.
"""

from __future__ import annotations

import os
import re
import tempfile
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

from swarm.errors import RemoteError
from swci.command import CommandError
from swci.session import Session

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
FIELD = "file"


def _refused(cause: str) -> RemoteError:
    return RemoteError("SW8044", cause)


def file_of(kind: str, body: bytes) -> tuple[str, bytes]:
    """Name and content of the file in a request's body. Raises RemoteError SW8044."""
    if not kind.lower().startswith("multipart/form-data") or "\n" in kind or "\r" in kind:
        raise _refused("the body is not multipart/form-data")
    head = f"Content-Type: {kind}\r\nMIME-Version: 1.0\r\n\r\n".encode("latin-1")
    # Not the policy HTTP: it would look at line ends of the content.
    message = message_from_bytes(head + body, policy=policy.default)
    assert isinstance(message, EmailMessage), "the policy makes these"
    parts = message.get_payload() if message.is_multipart() else []
    for part in parts if isinstance(parts, list) else []:
        if not isinstance(part, EmailMessage) or part.is_multipart():
            continue
        if part.get_param("name", header="content-disposition") == FIELD:
            data = part.get_payload(decode=True)
            return _checked(part.get_filename()), data if isinstance(data, bytes) else b""
    raise _refused(f"the body has no field {FIELD!r} with a file")


def _checked(name: str | None) -> str:
    if name is None or not _NAME.fullmatch(name):
        raise _refused(
            f"{(name or '')[:200]!r} is no name for a file here: letters, digits and _ . + - only,"
            " without directories"
        )
    return name


def store(session: Session, name: str, data: bytes) -> Path:
    """Keep the file in the session's directory, whole or not at all. Raises RemoteError SW8044."""
    try:
        directory = session.directory.real()
        target = directory / name
        if target.is_dir():
            raise _refused(f"{name} is a directory here")
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".upload-", delete=False) as file:
            try:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                Path(file.name).replace(target)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except CommandError as fault:
        raise _refused("; ".join(fault.lines)) from None
    except OSError as fault:
        raise _refused(f"{name} cannot be kept: {fault.strerror}") from fault
    return target
