"""The account that pays for a node's entries: a private key in a file of its own.

The file holds 64 hexadecimal digits and is readable by its owner alone. The key never appears in
arguments, variables, logs or error texts.
"""

from __future__ import annotations

import secrets
import stat
import sys
from pathlib import Path
from typing import Any

from swarm.errors import LocalError

MAX_FILE = 1024


def require_web3() -> None:
    """Raise LocalError SW3101 unless the optional libraries are installed. Takes a second or two,
    once: everything that talks to a network imports them only when it is used."""
    # One of them lifts the interpreter's limit of recursion a hundredfold; a runaway recursion
    # anywhere in the node would then end the process instead of raising.
    limit = sys.getrecursionlimit()
    try:
        import eth_account
        import web3
    except ImportError as error:
        raise LocalError("SW3101", str(error)) from error
    finally:
        sys.setrecursionlimit(limit)
    del eth_account, web3


class Account:
    """One account. Compare and show it by `address`, which is 0x and lower case."""

    def __init__(self, key: bytes) -> None:
        """Of a private key of 32 bytes. LocalError SW3101; ValueError for no private key."""
        require_web3()
        from eth_account import Account as EthAccount

        self._signer: Any = EthAccount.from_key(key)
        self.address: str = self._signer.address.lower()

    @classmethod
    def load(cls, path: Path) -> Account:
        """Read a key file. Raises LocalError SW3105 (SW3101)."""
        try:
            mode = path.stat().st_mode
            text = path.read_text()[:MAX_FILE].strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise LocalError("SW3105", f"{path}: {why}") from None
        if not stat.S_ISREG(mode) or mode & 0o077:
            raise LocalError("SW3105", f"{path}: others may read it (mode {mode & 0o777:o})")
        try:
            key = bytes.fromhex(text.removeprefix("0x"))
            if len(key) != 32:
                raise ValueError
            return cls(key)
        except (ValueError, TypeError):  # and never the text itself
            raise LocalError("SW3105", f"{path}: not 64 hexadecimal digits") from None
        except Exception as error:
            if isinstance(error, LocalError):
                raise
            # What the library says of a number out of range may repeat it.
            raise LocalError("SW3105", f"{path}: no private key of this curve") from None

    @classmethod
    def create(cls, path: Path) -> Account:
        """Make a new account and its file. LocalError SW3105 when the file exists, SW3101."""
        require_web3()
        try:
            path.touch(mode=0o600, exist_ok=False)
            path.write_text(secrets.token_hex(32) + "\n")
        except OSError as error:
            raise LocalError("SW3105", f"{path}: {error.strerror}") from None
        return cls.load(path)

    def sign(self, transaction: dict[str, Any]) -> tuple[bytes, str]:
        """Return a signed transaction and its hash (0x…)."""
        signed = self._signer.sign_transaction(transaction)
        return bytes(signed.raw_transaction), "0x" + bytes(signed.hash).hex()

    def __repr__(self) -> str:
        return f"Account({self.address})"


def keccak(data: bytes) -> bytes:
    """Keccak-256."""
    from eth_utils.crypto import keccak as keccak_256

    return bytes(keccak_256(data))
