"""What must not be told on: secrets that a program was given, where they turn up in its output.

A user program's output goes to the operator's log and, when it fails, to the ledger, where every
member reads it. Masked are the values of variables whose names say that they are secret, passwords
inside of URLs, and private keys in PEM.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MASK = "***"
SHORTEST = 4  # characters; a shorter value would mask half of what is said
_NAMES = re.compile(
    r"PASS(WORD|WD|PHRASE|CODE)?$|PWD$|SECRET|TOKEN|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY",
    re.IGNORECASE,
)
_URL = re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://)[^\s/@:]{0,200}:[^\s/@]{1,200}@", re.IGNORECASE)
_BEGIN = re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----")
_END = re.compile(r"-----END [A-Z ]{0,30}PRIVATE KEY-----")


class Mask:
    """Masks line after line of one program's output."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._secrets = sorted(
            {
                line
                for name, value in environment.items()
                if _NAMES.search(name)
                for line in value.splitlines()
                if len(line) >= SHORTEST
            },
            key=len,
            reverse=True,  # one may be the beginning of another
        )
        self._in_key = False

    def line(self, text: str) -> str:
        """The line as it may be told."""
        if self._in_key:
            end = _END.search(text)
            if end is None:
                return MASK
            self._in_key, text = False, MASK + text[end.end() :]
        begin = _BEGIN.search(text)
        while begin is not None:
            end = _END.search(text, begin.end())
            self._in_key = end is None
            text = text[: begin.start()] + MASK + (text[end.end() :] if end else "")
            begin = _BEGIN.search(text)
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return _URL.sub(rf"\1{MASK}@", text)

    def text(self, text: str) -> str:
        """Several lines."""
        return "\n".join(self.line(line) for line in text.split("\n"))
