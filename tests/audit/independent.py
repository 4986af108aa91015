"""A second checker of records, written from docs/reference/record.md and nothing else.

It shares no code with the product: hashes, CBOR, X.509 and signatures come from libraries. The
numbers of its sections are those of that page.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import cbor2
import ml_dtypes
import numpy as np
from blake3 import blake3
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

Json = dict[str, Any]


class Wrong(Exception):
    """The record does not hold; the text says where."""


def need(condition: object, text: str) -> None:
    if not condition:
        raise Wrong(text)


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def cbor(value: Any) -> bytes:
    return cbor2.dumps(value, canonical=True)


def spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def fits(key_der: bytes, signature: bytes, data: bytes) -> bool:
    key = load_der_public_key(key_der)
    assert isinstance(key, ec.EllipticCurvePublicKey), "this checker knows ECDSA alone"
    try:
        key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


# 2. Merkle proofs


def climb(item: bytes, index: int, size: int, path: list[str]) -> bytes:
    """RFC 9162, 2.1.3.2."""
    value, fn, sn = sha(b"\x00", item), index, size - 1
    need(0 <= index < size, "index")
    for step in map(bytes.fromhex, path):
        need(sn, "a path is too long")
        if fn & 1 or fn == sn:
            value = sha(b"\x01", step, value)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            value = sha(b"\x01", value, step)
        fn, sn = fn >> 1, sn >> 1
    need(sn == 0, "a path is too short")
    return value


# 3. Blocks


def quorum(count: int, model: str) -> int:
    return count // 2 + 1 if model == "crash" else 2 * count // 3 + 1


def blocks(evidence: Json, authorities: dict[str, x509.Certificate]) -> tuple[bytes, Json]:
    raw = bytes.fromhex(evidence["genesis"])
    tag, _, model, cas, founder, *_ = cbor2.loads(raw)
    need(tag == "swarm-genesis-1" and set(cas) <= set(authorities), "genesis")
    chain, keys = sha(raw), {founder[0]: founder[3]}
    found: Json = {}
    for item in evidence["blocks"]:
        raw = bytes.fromhex(item["header"])
        header = cbor2.loads(raw)
        need(header[0] == "swarm-header-1" and header[1] == chain, "header")
        height = header[2]
        need(height > max(found, default=0), "order")
        tag, of, round_, block_id, signatures = cbor2.loads(bytes.fromhex(item["certificate"]))
        need(tag == "swarm-certificate-1" and (of, block_id) == (height, sha(raw)), "certificate")
        data = cbor(["swarm-vote-1", chain, 2, height, round_, block_id])
        need(len({uid for uid, _ in signatures}) == len(signatures), "signers")
        for uid, signature in signatures:
            need(uid in keys and fits(keys[uid], signature, data), "a validator's signature")
        need(len(signatures) >= quorum(len(keys), model), "quorum")
        if "next_validators" in item:
            pairs = [[uid, bytes.fromhex(key)] for uid, key in item["next_validators"]]
            keys = dict(pairs)
        pairs = [[uid, key] for uid, key in keys.items()]
        need(sha(cbor(["swarm-validators-1", pairs])) == header[10], "next validators")
        found[height] = {
            "count": header[6], "root": header[7], "state": header[8], "results": header[9],
            "id": block_id,
        }  # fmt: skip
    return chain, found


# 4. Acts


def acts(
    told: Json, chain: bytes, found: Json, authorities: dict[str, x509.Certificate]
) -> list[Json]:
    result = []
    for act in told["evidence"]["acts"]:
        block, raw = found[act["height"]], bytes.fromhex(act["transaction"])
        place = act["index"], block["count"]
        need(climb(raw, *place, act["inclusion"]) == block["root"], "not in its block")
        need(climb(cbor([True, ""]), *place, act["acceptance"]) == block["results"], "not accepted")
        body, chain_der, signature = cbor2.loads(raw)
        leaf = x509.load_der_x509_certificate(chain_der[0])
        issuer = next((f for f, ca in authorities.items() if ca.subject == leaf.issuer), None)
        need(issuer is not None, "authority")
        assert issuer is not None, "needed above"
        leaf.verify_directly_issued_by(authorities[issuer])
        data = cbor(["swarm-signed-1", sha(cbor(chain_der)), body])
        need(fits(spki(leaf), signature, data), "a member's signature")
        tag, of, _, _, op, args = cbor2.loads(body)
        need(tag == "swarm-tx-1" and of == chain, "another swarm")
        need(args["contract"] == told["contract"], "another contract")
        key = hashlib.sha256(spki(leaf)).hexdigest()
        result.append({**act, "op": op, "args": args, "key": key})
    return result


# 5. States


def states(told: Json, chain: bytes, found: Json) -> list[tuple[str, int, Json]]:
    result = []
    for item in told["evidence"]["states"]:
        key, raw = told["contract"], bytes.fromhex(item["record"])
        need(sha(raw).hex() == item["bucket"][key], "record")
        joined = b"".join(
            len(name.encode()).to_bytes(4, "big") + name.encode() + bytes.fromhex(digest)
            for name, digest in sorted(item["bucket"].items())
        )
        place = sha(key.encode())[0]
        tables = [(name, bytes.fromhex(digest)) for name, digest in item["tables"]]
        need(climb(sha(joined), place, 256, item["path"]) == dict(tables)[item["table"]], "table")
        summary = b"swarm-state-1" + chain + item["height"].to_bytes(8, "big")
        for name, digest in tables:
            summary += bytes([len(name)]) + name.encode() + digest
        need(sha(summary) == found[item["height"]]["state"], "state")
        result.append((item["table"], item["height"], cbor2.loads(raw)))
    return result


# 6. The training


def training(told: Json, done: list[Json], known: list[tuple[str, int, Json]]) -> None:
    contracts = [(height, record) for table, height, record in known if table == "contracts"]
    rounds = [(h, r["last"], r) for h, r in contracts if r["last"]["height"] == h]
    final = contracts[-1][1]["last"]
    created = contracts[-1][1]["created"]
    need(all(record["created"] == created for _, record in contracts), "one contract")
    need(all(act["height"] >= created for act in done), "one contract")
    need([last["round"] for _, last, _ in rounds] == list(range(final["round"] + 1)), "rounds")
    base = None
    for (height, last, record), said in zip(rounds, told["summary"]["rounds"], strict=True):
        need(said["result"] == last["digest"].hex() and said["height"] == height, "summary")
        agreed = set()
        for entry, uid in zip(said["roster"], last["roster"], strict=True):
            own = [
                act for act in done
                if act["args"].get("uid") == uid
                and act["key"] == record["members"][uid]["fingerprint"]
            ]  # fmt: skip
            need(entry["uid"] == uid and entry["root"] == last["roots"][uid].hex(), "roster")
            need(
                any(
                    act["op"] == "round.checkin"
                    and act["args"]["round"] == last["round"]
                    and act["args"]["base"] == base
                    and act["args"]["root"] == last["roots"][uid]
                    and act["args"]["weight"] == last["weights"][uid] == entry["weight"]
                    for act in own
                ),
                "check-in",
            )
            agreed |= {
                uid for act in own
                if act["op"] == "round.merged"
                and act["args"]["digest"] == last["digest"]
                and act["args"]["attempt"] == last["attempt"]
            }  # fmt: skip
        need(2 * len(agreed) > len(last["roster"]), "majority")
        base = last["digest"]
    need(told["summary"]["result"] == final["digest"].hex(), "result")


# 7. The model


def digest(arrays: list[Any], transfer: str = "") -> str:
    data, narrow = b"", np.dtype(getattr(ml_dtypes, transfer, transfer or "float64"))
    for array in arrays:
        if array.dtype.kind == "f" and array.itemsize > narrow.itemsize:
            need(np.array_equal(array.astype(narrow), array, equal_nan=True), "no widening")
            array = array.astype(narrow)
        data += array.tobytes()
        data += bytes(-len(data) % 64)
    aimed = (len(data) + 191) // 192
    size = min(1 << 20, max(1 << 10, (aimed + 63) // 64 * 64))
    leaves = [blake3(data[at : at + size]).digest() for at in range(0, len(data), size)]
    return blake3(b"".join(leaves)).hexdigest()


def check(text: str, pems: list[bytes]) -> Json:
    """The summary of a record that holds. Raises Wrong, or whatever a malformed one leads to."""
    told: Json = json.loads(text)
    need(told["format"] == "swarm-record-1", "format")
    trusted = [x509.load_pem_x509_certificate(pem) for pem in pems]
    authorities = {sha(ca.public_bytes(Encoding.DER)).hex(): ca for ca in trusted}
    chain, found = blocks(told["evidence"], authorities)
    training(told, acts(told, chain, found, authorities), states(told, chain, found))
    summary: Json = told["summary"]
    return summary
