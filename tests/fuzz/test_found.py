"""What fuzzing found, one test for each defect; those of large inputs are in `bombs.py`."""

from __future__ import annotations

import pytest

from swarm.errors import RemoteError
from swarm.identity.chain import key_fingerprint
from swarm.ledger import codec
from swarm.ledger.application import LedgerApplication, Row
from swarm.mesh import codec as mesh_codec
from swarm.mesh.keys import peer_id_of
from tests.fuzz.ledger_targets import genesis
from tests.fuzz.mesh_targets import material, public_keys

P256 = bytes.fromhex("2a8648ce3d030107")
UNKNOWN_CURVE = bytes.fromhex("2a8648ce3d030177")
EC_KEY = bytes.fromhex("2a8648ce3d0201")
UNKNOWN_KEY = bytes.fromhex("2a8648ce3d0277")


@pytest.mark.parametrize("old, new", [(P256, UNKNOWN_CURVE), (EC_KEY, UNKNOWN_KEY)])
def test_a_certificate_with_a_key_of_an_unknown_kind(old: bytes, new: bytes) -> None:
    certificate = material()[1]
    assert old in certificate
    with pytest.raises(RemoteError) as caught:
        key_fingerprint(certificate.replace(old, new))
    assert caught.value.code == "SW1211"


@pytest.mark.parametrize("old, new", [(P256, UNKNOWN_CURVE), (EC_KEY, UNKNOWN_KEY)])
def test_a_peers_key_of_an_unknown_kind(old: bytes, new: bytes) -> None:
    with pytest.raises(RemoteError) as caught:
        peer_id_of(public_keys()[0].replace(old, new))
    assert caught.value.code == "SW2013"


def test_a_megabyte_of_empty_lists_is_not_even_looked_at() -> None:
    with pytest.raises(RemoteError, match="items"):
        mesh_codec.decode(b"\x9a\x00\x0f\xff\x00" + b"\x80" * 0xFFF00)


def test_stored_records_that_lack_a_field() -> None:
    rows = [Row("txids", "a" * 64 + "/" + "b" * 32, codec.encode({}))]
    with pytest.raises(RemoteError) as caught:
        LedgerApplication.restore(genesis().chain_id, 5, rows)
    assert caught.value.code == "SW3001"
