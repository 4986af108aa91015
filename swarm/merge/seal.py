"""Records between learners: what TLS 1.3 has agreed on, carried in pieces that suit a model.

TLS cuts its stream into records of at most 16 KiB, and each costs a turn through Python's `ssl`,
two system calls and three copies; a model of 500 MB has 30 000 of them on every link. So TLS does
what nothing else does as well – both certificates, a fresh secret, forward secrecy – and then hands
the connection over. Through TLS each side gives the other a random key for what it will send, and
from then on the TCP stream holds records of up to 1 MiB, each one call to AES-256-GCM, from the
memory that holds the weights and into the memory that shall:

    u32 length of the content (big-endian) · content, encrypted · tag of 16 B

    dialler                          listener
    TLS: MAGIC, key of the dialler ->
                                  <- TLS: MAGIC, key of the listener
    records, in both directions

The nonce is the number of the record, counted for each direction; keys live as long as the
connection. So a record that is changed, repeated, left out, turned around or brought from elsewhere
does not open, and the connection ends; an end in the middle shows as in TLS, by what is missing.
The listener sends its key last and then waits for a record, so neither side's TLS can have read
ahead into the records.

With 2⁴⁰ bytes under one key the chance to tell its ciphertext from noise stays below 2⁻⁵⁶, and one
connection is used for no more (`worn`).
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Buffer = memoryview | bytes | bytearray

MAGIC = b"SWRMSEAL\x00\x00\x00\x01"  # the version of this module is in it
KEY = 32
TAG = 16
LARGEST = 1 << 20  # bytes of content in one record
MOST_BYTES = 1 << 40  # under one key
AHEAD = 16 << 10  # bytes that are read beyond what is asked for: small records come together

_LENGTH = struct.Struct("!I")


class SealError(OSError):
    """The other side's bytes are not what it sent, or it speaks another language."""


class Seal:
    """Both directions of one connection. One thread sends, and the same or one other receives."""

    def __init__(self, sock: socket.socket, own_key: bytes, their_key: bytes) -> None:
        """Take over `sock`, an SSLSocket included: its TLS is not used from now on."""
        self._sock = sock
        self._own, self._theirs = AESGCM(own_key), AESGCM(their_key)
        self._sent, self._received = 0, 0  # records
        self._bytes = 0  # of content, the larger direction
        self._out, self._in = bytearray(), bytearray()  # encrypted records, kept for the next ones
        self._from, self._to = 0, 0  # what was read into the latter and was not asked for yet
        self._rest = memoryview(b"")  # content that came and was not asked for yet

    @property
    def worn(self) -> bool:
        """The keys have been used enough; the connection should not be kept."""
        return self._bytes >= MOST_BYTES

    def send(self, *pieces: Buffer) -> int:
        """Send the pieces as records in one system call or few; returns the bytes on the wire.

        Raises OSError as a socket does.
        """
        contents = [
            memoryview(piece)[at : at + LARGEST]
            for piece in pieces
            for at in range(0, len(piece), LARGEST)
        ]
        size = sum(len(content) for content in contents)
        total = size + len(contents) * (_LENGTH.size + TAG)
        if len(self._out) < total:
            self._out = bytearray(total)
        out, at = memoryview(self._out), 0
        for content in contents:
            head = _LENGTH.pack(len(content))
            start, end = at + len(head), at + len(head) + len(content) + TAG
            out[at:start] = head
            self._own.encrypt_into(_nonce(self._sent), content, head, out[start:end])
            self._sent += 1
            at = end
        self._bytes += size
        socket.socket.sendall(self._sock, out[:total])
        return total

    def receive_into(self, view: memoryview, touched: Callable[[int], None]) -> None:
        """Fill `view`; `touched` hears how many bytes each read brought.

        Raises EOFError when the other side has ended, SealError for bytes that do not open, and
        OSError as a socket does; `view` holds nothing of worth then.
        """
        at, end = min(len(view), len(self._rest)), len(view)
        view[:at], self._rest = self._rest[:at], self._rest[at:]
        while at < end:
            head = self._read(_LENGTH.size, touched)
            (length,) = _LENGTH.unpack(head)
            if not 0 < length <= LARGEST:
                raise SealError(f"record of {length} B")
            if length <= end - at:
                self._open(bytes(head), view[at : at + length], touched)
                at += length
            else:
                content = memoryview(bytearray(length))
                self._open(bytes(head), content, touched)
                view[at:] = content[: end - at]
                self._rest = content[end - at :]
                at = end

    def _open(self, head: bytes, content: memoryview, touched: Callable[[int], None]) -> None:
        """Read one record's content. When it raises, `content` may hold bytes of anybody."""
        data = self._read(len(content) + TAG, touched)
        try:
            self._theirs.decrypt_into(_nonce(self._received), data, head, content)
        except InvalidTag:
            raise SealError("its bytes were changed on the way") from None
        self._received += 1
        self._bytes += len(content)

    def _read(self, count: int, touched: Callable[[int], None]) -> memoryview:
        """`count` bytes; they are valid until the next call."""
        if self._to - self._from < count:
            self._read_more(count, touched)
        start = self._from
        self._from += count
        return memoryview(self._in)[start : self._from]

    def _read_more(self, count: int, touched: Callable[[int], None]) -> None:
        """Read until `count` bytes are here, and what has come with them up to `AHEAD` more."""
        rest = self._in[self._from : self._to]
        if len(self._in) < count + AHEAD:
            self._in = bytearray(count + AHEAD)
        data = memoryview(self._in)
        data[: len(rest)] = rest
        self._from, self._to = 0, len(rest)
        while self._to < count:
            came = socket.socket.recv_into(self._sock, data[self._to : count + AHEAD])
            if came == 0:
                raise EOFError
            self._to += came
            touched(came)


def agree(sock: ssl.SSLSocket, *, dialled: bool) -> Seal:
    """Exchange keys through a finished handshake. Raises OSError, SealError included."""
    own = os.urandom(KEY)
    if dialled:
        sock.sendall(MAGIC + own)
    theirs = b""
    while len(theirs) < len(MAGIC) + KEY:
        data = sock.recv(len(MAGIC) + KEY - len(theirs))
        if not data:
            raise SealError("the other side closed the connection")
        theirs += data
    if not theirs.startswith(MAGIC):
        raise SealError("it speaks another version of the merge protocol")
    if not dialled:
        sock.sendall(MAGIC + own)
    return Seal(sock, own, theirs[len(MAGIC) :])


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")
