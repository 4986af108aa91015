"""The work-arounds for libp2p 0.8.1: each against the fault that it is for.

A new release of libp2p fails the first test here. Then run the others against it, look which faults
are gone, take out what is no longer needed, and pin the new version.
"""

from __future__ import annotations

import importlib.metadata
import logging
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from libp2p.crypto import serialization
from libp2p.crypto.keys import KeyType
from libp2p.crypto.pb import crypto_pb2
from libp2p.peer import envelope
from libp2p.peer.id import ID

from swarm.errors import LocalError, RemoteError
from swarm.identity import Identity
from swarm.identity.keys import public_der
from swarm.mesh import fixes, keys, mux, transport
from swarm.mesh.host import Host, StreamWire
from tests.mesh.harness import identity

LOCAL = ("127.0.0.1", 0)


def test_the_version_that_the_work_arounds_are_for() -> None:
    assert importlib.metadata.version("libp2p") == fixes.VERSION == "0.8.1"


async def hold(wire: StreamWire) -> None:
    await wire.write(b"welcome")
    while True:
        await wire.read()


async def stare(_wire: StreamWire) -> None:
    await trio.sleep_forever()


def a_host(name: str = "a", on_wire: Any = hold) -> Host:
    return Host(identity(name), on_wire, lambda *_: None)


def test_slots_of_accepted_connections_come_back() -> None:
    """Unfixed, each accepted connection keeps its slot until the node ends."""

    async def main() -> None:
        server, client = a_host(), a_host("b")
        server.swarm._inbound_limiter = trio.CapacityLimiter(3)
        async with server.running(LOCAL) as addresses, client.running(LOCAL):
            for _ in range(8):
                wire = await client.dial(server.peer_id, addresses[0])
                assert await wire.read() == b"welcome"
                await wire.close()
                with trio.fail_after(10):
                    while server.swarm._inbound_limiter.borrowed_tokens:
                        await trio.sleep(0.01)  # it is given back at the end of libp2p's task

    trio.run(main)


def test_an_exception_in_a_stream_handler_stays_there() -> None:
    """Unfixed, it cancels the whole swarm."""

    async def fail(_: StreamWire) -> None:
        raise RuntimeError("on purpose")

    async def main() -> None:
        server, client = Host(identity("a"), fail, lambda *_: None), a_host("b")
        async with server.running(LOCAL) as addresses, client.running(LOCAL):
            for _ in range(3):
                wire = await client.dial(server.peer_id, addresses[0])
                with pytest.raises(Exception, match=r"(?i)clos|reset"):
                    await wire.read()
                await wire.close()
            assert server.swarm.manager.is_running

    trio.run(main)


def test_dialling_is_quick_and_a_failure_blocks_no_later_attempt() -> None:
    """Unfixed: 250 ms for each success, "negative cache" for 60 s after a failure."""

    async def main() -> None:
        server, client = a_host(), a_host("b")
        async with client.running(LOCAL):
            async with server.running(LOCAL) as addresses:
                pass
            for _ in range(2):
                with pytest.raises(RemoteError) as caught:
                    await client.dial(server.peer_id, addresses[0])
                assert caught.value.code == "SW2016"
                assert "refused" in caught.value.cause
            again = a_host()
            async with again.running(("127.0.0.1", int(addresses[0].rpartition("/")[2]))):
                wire = await client.dial(server.peer_id, addresses[0])
                assert await wire.read() == b"welcome"
                await wire.close()

    trio.run(main)


def test_all_addresses_can_be_dialled_by_name_too() -> None:
    """Unfixed, names in /etc/hosts are not found, and only one address per transport is tried."""

    async def main() -> None:
        server, client = a_host(), a_host("b")
        async with server.running(LOCAL) as addresses, client.running(LOCAL):
            port = addresses[0].rpartition("/")[2]
            wire = await client.dial(server.peer_id, f"/dns4/localhost/tcp/{port}")
            assert await wire.read() == b"welcome"
            await wire.close()
            with pytest.raises(RemoteError) as caught:
                await client.dial(server.peer_id, f"/dns6/no.such.host.invalid/tcp/{port}")
            assert caught.value.code == "SW2016"

    trio.run(main)


def test_ipv6_works_as_well() -> None:
    """libp2p does not know the remote address of an IPv6 connection."""

    async def main() -> None:
        server, client = a_host(), a_host("b")
        try:
            async with server.running(("::1", 0)) as addresses, client.running(LOCAL):
                assert addresses[0].startswith("/ip6/::1/tcp/")
                wire = await client.dial(server.peer_id, addresses[0])
                assert await wire.read() == b"welcome"
                assert not server.door.waiting
                await wire.close()
        except LocalError as error:
            pytest.skip(f"no IPv6 on this machine: {error.cause}")

    trio.run(main)


def test_the_listener_is_closed_at_the_end() -> None:
    """Unfixed, the port goes on accepting."""

    async def main() -> None:
        server = a_host()
        async with server.running(LOCAL) as addresses:
            port = int(addresses[0].rpartition("/")[2])
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", port)

    trio.run(main)


def test_closing_does_not_wait_for_a_peer_that_reads_nothing() -> None:
    """Unfixed, the socket and the swarm's record of it stay for ever."""

    async def main() -> None:
        server, client = a_host("a", stare), a_host("b")
        async with server.running(LOCAL) as addresses, client.running(LOCAL):
            wire = await client.dial(server.peer_id, addresses[0])
            with trio.move_on_after(1.0):
                while True:
                    await wire.write(bytes(1 << 20))
            raw = wire._secured.conn.conn
            before = trio.current_time()
            await wire.close()
            assert trio.current_time() - before < 4
            assert client.swarm.get_connections() == []
            assert raw.stream._stream.stream.socket.fileno() == -1

    trio.run(main)


def test_a_second_node_on_the_same_port_is_noticed() -> None:
    """Unfixed, both listen and each gets half of the connections."""

    async def main() -> None:
        one, two = a_host(), a_host("b")
        async with one.running(LOCAL) as addresses:
            port = int(addresses[0].rpartition("/")[2])
            with pytest.raises(LocalError) as caught:
                async with two.running(("127.0.0.1", port)):
                    pass
        assert caught.value.code == "SW2020"

    trio.run(main)


def test_the_auto_connector_leaves_it() -> None:
    async def main() -> None:
        server = a_host()
        async with server.running(LOCAL):
            stranger = ID.from_base58("QmYJ8U9PrCMT79FGTBorjyjMzRuUciqfu7Yjk1Rr327zPY")
            server.swarm.peerstore.add_addrs(stranger, [], 100)
            await server.swarm.auto_connector.maybe_connect()
            assert server.swarm._resource_manager is None

    trio.run(main)


def test_only_our_security_and_our_muxer_are_offered() -> None:
    upgrader = a_host().swarm.upgrader
    assert list(upgrader.security_multistream.transports) == [transport.PROTOCOL]
    assert list(upgrader.muxer_multistream.transports) == [mux.PROTOCOL]


def test_only_tcp_is_dialled() -> None:
    async def main() -> None:
        client = a_host()
        async with client.running(LOCAL):
            for address in ("/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/127.0.0.1/tcp/1/ws"):
                with pytest.raises(RemoteError) as caught:
                    await client.dial(client.peer_id, address)
                assert caught.value.code == "SW2016"

    trio.run(main)


def test_libp2p_leaves_reporting_to_us(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("libp2p").propagate = False
    fixes.quiet()
    assert logging.getLogger("libp2p").propagate
    logging.getLogger("libp2p.network.auto_connector").info("noise")
    logging.getLogger("libp2p.transport.tcp").error("noise")
    assert not caplog.records


def test_ecdsa_keys_are_known_in_both_tables() -> None:
    """Unfixed: no deserializer in the one, "Unknown key type: 3" from the other."""
    spki = identity("a").public_key_der
    keys.register()
    key = keys.public_key(spki)
    decoded = serialization.deserialize_public_key(key.serialize())
    assert decoded.to_bytes() == spki
    message = crypto_pb2.PublicKey(key_type=KeyType.ECDSA.value, data=spki)
    wrapped = type("Pb", (), {"Type": message.key_type, "Data": message.data})
    assert envelope.pub_key_from_protobuf(wrapped).to_bytes() == spki


def test_the_peer_id_is_the_key_and_signatures_fit() -> None:
    for name in ("a", "b"):
        who: Identity = identity(name)
        pair = keys.key_pair(who)
        assert str(ID.from_pubkey(pair.public_key)) == keys.peer_id_of(who.public_key_der)
        signature = pair.private_key.sign(b"data")
        assert pair.public_key.verify(b"data", signature)
        assert not pair.public_key.verify(b"date", signature)
        assert not pair.public_key.verify(b"data", b"junk")


def test_the_private_key_does_not_leave() -> None:
    pair = keys.key_pair(identity("a"))
    with pytest.raises(NotImplementedError):
        pair.private_key.to_bytes()
    with pytest.raises(NotImplementedError):
        pair.private_key.serialize()


@pytest.mark.parametrize("text", ["", "l" * 46, "Qm" + "0" * 44, "Qm/../../etc", "Q" * 4000])
def test_what_is_no_peer_id(text: str) -> None:
    with pytest.raises(ValueError):
        keys.parse_peer_id(text)


def test_an_unsuitable_key_is_named() -> None:
    class Odd:
        common_name = "SN-odd"
        public_key_der: Any = None

    odd = Odd()
    odd.public_key_der = public_der(ec.generate_private_key(ec.SECP384R1()).public_key())
    with pytest.raises(LocalError) as caught:
        keys.key_pair(odd)  # type: ignore[arg-type]
    assert caught.value.code == "SW2021"
