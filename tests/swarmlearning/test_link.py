"""The socket between a program and its learner: framing, checks, and what happens at its end."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmlearning import link
from swarmlearning.link import Connection, LinkClosed, LinkError, LinkTimeout


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection, and the bare socket at its other end."""
    here, there = socket.socketpair()
    with Connection(here) as connection, there:
        yield connection, there


def frame(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


def test_a_message_arrives_as_it_was_sent() -> None:
    here, there = socket.socketpair()
    with Connection(here) as left, Connection(there) as right:
        left.send({"type": "waiting", "text": "für 1 more"})
        assert right.receive(1) == {"type": "waiting", "text": "für 1 more"}


def test_a_long_message_passes_although_no_buffer_holds_it() -> None:
    here, there = socket.socketpair()
    text = "x" * (link.MAX_FRAME - 100)
    with Connection(here) as left, Connection(there) as right:
        sender = threading.Thread(target=left.send, args=({"type": "bye", "text": text},))
        sender.start()
        assert right.receive(10)["text"] == text
        sender.join(10)


def descriptors(file: IO[bytes]) -> int:
    """How many this process has of a file."""
    found = 0
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # another thread's, which is gone
            found += os.path.samestat(path.stat(), os.fstat(file.fileno()))
    return found


def test_a_descriptor_comes_with_its_message() -> None:
    here, there = socket.socketpair()
    with Connection(here) as left, Connection(there, link.TO_SL) as right, TemporaryFile() as file:
        left.send({"type": "bye", "ok": True, "text": "x" * (link.MAX_FRAME // 8)}, file.fileno())
        left.send({"type": "bye", "ok": True, "text": ""})
        right.receive(1)
        taken = right.descriptor()
        assert os.path.sameopenfile(taken, file.fileno())
        assert not os.get_inheritable(taken)
        os.close(taken)
        assert right.receive(1)["text"] == ""
        assert right.descriptor() == -1


def test_descriptors_that_nobody_wants_are_closed() -> None:
    """One at a time is kept, whatever comes, and none after the end; a program takes none."""
    message = frame(b'{"type":"bye","ok":true,"text":""}')
    for accepts in (link.TO_SL, None):
        here, there = socket.socketpair()
        with TemporaryFile() as file, here:
            with Connection(there, accepts) as right:
                for _ in range(3):
                    socket.send_fds(here, [message], [file.fileno()] * 100)
                    right.receive(1)
                assert descriptors(file) == 1 + (accepts is not None)
            assert descriptors(file) == 1


def test_a_message_in_pieces_survives_a_time_out(
    pair: tuple[Connection, socket.socket],
) -> None:
    connection, there = pair
    data = frame(b'{"type":"waiting"}')
    there.sendall(data[:7])
    with pytest.raises(LinkTimeout):
        connection.receive(0)
    there.sendall(data[7:])
    assert connection.receive(1) == {"type": "waiting"}


def test_two_messages_in_one_piece(pair: tuple[Connection, socket.socket]) -> None:
    connection, there = pair
    there.sendall(frame(b'{"type":"a"}') + frame(b'{"type":"b"}'))
    assert [connection.receive(1)["type"], connection.receive(1)["type"]] == ["a", "b"]


@pytest.mark.parametrize(
    "body",
    [b"", b"no json", b"[]", b"{}", b'{"type":7}', b"\xff\xfe", b"[" * 100_000, b'{"type":null}'],
)
def test_what_is_no_message_is_refused(pair: tuple[Connection, socket.socket], body: bytes) -> None:
    connection, there = pair
    there.sendall(frame(body))
    with pytest.raises(LinkError):
        connection.receive(1)


def test_a_length_that_is_too_large_is_refused_before_it_is_read(
    pair: tuple[Connection, socket.socket],
) -> None:
    connection, there = pair
    there.sendall(struct.pack("<I", link.MAX_FRAME + 1))
    with pytest.raises(LinkError, match="at most"):
        connection.receive(1)
    with pytest.raises(LinkError, match="at most"):
        connection.send({"type": "bye", "text": "x" * link.MAX_FRAME})


@given(st.binary(max_size=64))
def test_no_bytes_do_more_than_raise_a_link_error(data: bytes) -> None:
    here, there = socket.socketpair()
    with Connection(here, link.TO_SL) as connection:
        there.sendall(data)
        there.close()
        with pytest.raises(LinkError):
            while True:
                connection.receive(1)


def test_the_end_is_told_from_an_end_in_the_middle() -> None:
    for sent, said in ((b"", "closed the link$"), (b"\x05\0\0", "in the middle")):
        here, there = socket.socketpair()
        with Connection(here) as connection:
            there.sendall(sent)
            there.close()
            with pytest.raises(LinkClosed, match=said):
                connection.receive(1)


def test_sending_to_one_who_is_gone_raises() -> None:
    here, there = socket.socketpair()
    with Connection(here) as connection:
        there.close()
        with pytest.raises(LinkClosed):
            connection.send({"type": "bye"})


GOOD_SYNC = {"type": "sync", "seq": 1, "weightage": 1, "samples": 0, "epochs": 0, "round": -1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "other"}, "unexpected message 'other'"),
        ({"seq": "1"}, "'seq' of type int"),
        ({"seq": True}, "'seq' of type int"),
        ({"seq": None}, "'seq' of type int"),
    ],
)
def test_fields_are_checked(change: dict[str, object], said: str) -> None:
    link.check(GOOD_SYNC, link.TO_SL)
    with pytest.raises(LinkError, match=said):
        link.check({**GOOD_SYNC, **change}, link.TO_SL)


def test_connect_and_listen_in_a_folder_deeper_than_a_socket_name(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 60) / ("e" * 60)
    folder.mkdir(parents=True)
    with pytest.raises(LinkError, match="no learner listens"):
        link.connect(folder)
    with link.listen(folder) as listener:
        assert (folder / link.SOCKET).stat().st_mode & 0o777 == 0o666
        with link.connect(folder) as program:
            accepted, _ = listener.accept()
            with Connection(accepted, link.TO_SL) as learner:
                program.send({"type": "bye", "ok": True, "text": ""})
                assert learner.receive(1)["ok"] is True
    # A socket file without a listener is what a killed learner leaves; the next one replaces it.
    with pytest.raises(LinkError, match="no learner listens"):
        link.connect(folder)
    link.listen(folder).close()


def test_the_folder_comes_from_the_environment() -> None:
    assert link.directory({"SWARM_LINK": "/x"}) == Path("/x")
    assert link.directory({}) == Path("/tmp/hpe-swarm")


def test_numbers_that_json_does_not_know_are_not_sent(
    pair: tuple[Connection, socket.socket],
) -> None:
    with pytest.raises(ValueError, match="JSON"):
        pair[0].send({"type": "report", "loss": float("nan")})
    assert json.loads('{"a": NaN}')  # what the peer would otherwise have to cope with
