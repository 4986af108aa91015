"""Large inputs made to cost time or memory: nesting, lengths that lie, aliases, long numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swarm.mesh import frames
from tests.fuzz.source import join

MIB = 1 << 20

CBOR = (
    b"\x81" * 60_000,  # lists in lists
    b"\xa1\x61a" * 20_000,  # maps in maps
    b"\x9b" + b"\xff" * 8,  # a list of 2⁶⁴ items
    b"\xbb" + b"\x7f" * 8,
    b"\x5b" + b"\xff" * 8,  # a byte string of that length
    b"\x9a\x00\x0f\xff\x00" + b"\x80" * 0xFFF00,  # a million empty lists
    b"\x9f" * 1000,  # without an end
    b"\xc2\x58\xff" + b"\xff" * 255,  # a large number
    b"\xd8\x1c" * 1000,  # shared values
)
JSON = (
    b"[" * 200_000,
    b'{"a":' * 100_000,
    b"[" * 900 + b"]" * 900,  # what a parser takes may still be too deep to print
    b'{"text":' + b"[" * 900 + b"]" * 900 + b"}",
    b"1" * 100_000,
    b'{"height": Infinity, "records": {}, "ok": true, "code": "", "text": "", "result": {}}',
    b'{"chain": "", "height": Infinity}',
    b'{"chain": "", "height": NaN}',
    b'{"chain": "", "height": 1e400, "peers": NaN, "genesis": [[]]}',
    b'"\\ud800"',
    b'{"' + b"x" * MIB + b'": 1}',
)
LAUGHS = b"a0: &a0 [x, x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12)
)
YAML = (
    b"[" * 3_000,
    b"{a: " * 3_000,
    b"- " * 3_000,
    b"".join(b" " * n + b"a:\n" for n in range(400)),
    LAUGHS,
    b"a: &a [*a, *a, *a]\n",
    b"a: &a {b: *a, c: *a}\nTaskType: *a\n",
    b"Name: " + b"1:" * 20_000 + b"1\n",  # base 60
    b"Name: " + b"1" * 20_000 + b"\n",
    b"Name: 1_" + b"_" * 20_000 + b"\n",
    b"%TAG ! tag:yaml.org,2002:python/\na: !object/apply:os.system [x]\n",
    b"? " * 3_000,
    b"<<: [&a {b: c}, *a]\n",
    b"a: !!timestamp x\n",
    b"a: 2020-99-99\n",
    b"a: !!binary \xff\n",
    b"a: " + b"'" * 20_001,
    b"".join(b"k%d: v\n" % n for n in range(4_000)),
)
_HELLO = frames.frame(frames.HELLO, 0, b"\xa0")


def _frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "little") + payload


def _tensors(text: bytes) -> bytes:
    return b"SWRMTNSR" + (1).to_bytes(4, "little") + len(text).to_bytes(4, "little") + text


def _npy(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


BOMBS: Mapping[str, Sequence[bytes]] = {
    **dict.fromkeys(
        ("codec", "transaction", "body", "header", "block", "certificate", "message", "statement",
         "genesis", "mesh-codec"), CBOR,
    ),
    "rows": [join([b"nodes", b"x", one[:60_000]]) for one in CBOR],
    "store": [bytes([column, 0]) + one[:4096] for column in range(12) for one in CBOR[:4]],
    "mesh-session": [
        b"\xff" * 9,
        _HELLO * 1000,
        frames.frame(frames.BEAT, 0) * 20_000,
        *(frames.frame(frames.HELLO, 0, one[:60_000]) for one in CBOR),
    ],
    **dict.fromkeys(("mesh-book", "recovery", "api-answer"), JSON),
    "api-events": [
        *(b"data: " + one + b"\n\n" for one in JSON),
        (b"data: " + b"x" * 9000 + b"\n") * 3000,  # an event that never ends
        b"x" * (20 * MIB),  # a line that never ends
    ],
    "link": [*(_frame(one) for one in JSON), b"\xff" * 4, _frame(b"")],
    "tensors": [
        *(_tensors(one) for one in JSON),
        _tensors(b'{"size":0,"tensors":[' + b"[]," * 100_000 + b"[]]}"),
        _tensors(b'{"size":0,"tensors":[["a","int8",[' + b"9" * 4000 + b"],0]]}"),
        _tensors(b'{"size":0,"tensors":[["a","int8",[' + b"0," * 100_000 + b"0],0]]}"),
    ],
    **dict.fromkeys(
        ("merge-wire", "merge-listener", "merge-exchange", "merge-agreement", "merge-fetch"),
        [
            bytes([kind, 0, 0, 0]) + len(one).to_bytes(4, "big") + one
            for kind in (1, 2) for one in (*(one[:4096] for one in JSON), b"\xff" * 9)
        ] + [bytes([kind, 0, 0, 0]) + b"\xff" * 4 for kind in range(12)],
    ),
    **dict.fromkeys(("task", "profile", "host"), YAML),
    "task-body": [bytes([n % 4]) + one for n, one in enumerate(YAML)],
    "command": [b"a " * 8000, b"x" * 16_000, b"LIST " * 3000, b"\x00" * 16_000, b"\n" * 9000],
    "record-file": JSON,
    "export": [
        b"swarm-export-1\n" + size + one for one in CBOR for size in (b"\xff" * 4, b"\0\0\xff\0")
    ],
    "weights": [
        _npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999999,)}"),
        _npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}") + b"cos\nsystem\n",
        _npy(b"(" * 118),
        _npy(b"{" * 9000),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
        b"PK\x05\x06" + b"\xff" * 18,
    ],
    "appended": [join([b"\xff" * 32] * 4)],
    "pem": [b"-----BEGIN CERTIFICATE-----\n" * 40_000, b"-----BEGIN X509 CRL-----\n" * 1000],
    "chain": [join([b"\x30" * 60_000] * 3), join([b"\x30\x84\xff\xff\xff\xff"] * 5)],
    "x509": [b"\x30\x80" * 8000, b"\x30" * 16_000],
    "public-key": [b"\x30\x80" * 30_000],
    "api-request": [
        join([b"GET", b"v1/events", b"watch=nodes/x&" * 4000, b"", b""]),
        join([b"GET", b"v1/state/nodes", b"min_height=" + b"9" * 4000, b"", b""]),
        join([b"GET", b"v1/state/nodes", b"min_height=" + b"9" * 6000, b"", b""]),
        join([b"GET", b"v1/events", b"from=" + b"9" * 4000, b"", b""]),
        join([b"GET", b"v1/state/" + b"x/" * 20_000, b"", b"", b""]),
        join([b"GET", b"v1/state/nodes/\xff\xed\xa0\x80", b"", b"", b""]),
        join([b"POST", b"v1/transactions", b"wait=nan", b"application/cbor", b"x"]),
        join([b"POST", b"v1/transactions", b"wait=" + b"1" * 6000, b"application/cbor", b"x"]),
        join([b"POST", b"v1/transactions", b"", b"application/cbor", b"\x83" * 60_000]),
    ],
}  # fmt: skip
