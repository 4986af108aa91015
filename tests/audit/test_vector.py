"""The format is what docs/reference/record.md says: two checkers, one of them independent."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from swarm.audit import model, record
from swarm.identity.trust import TrustStore
from swarm.launch import look
from swarm.ledger.state import DEFAULT_CONTRACT
from tests.audit import independent
from tests.audit.history import History
from tests.audit.test_verify import Memory, kept
from tests.docs.test_commands import blocks

VECTOR = Path(__file__).parent / "vectors"
NARROW = VECTOR / "narrow"
TRANSFER = {VECTOR: "", NARROW: "bfloat16"}


def pems(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "ca").glob("*.pem"))]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    made = History(tmp_path_factory.mktemp("history"))
    made.found()
    for _ in range(4):
        made.round(merged_by=3)
    return made


@pytest.mark.parametrize("vector", TRANSFER)
def test_the_vectors_hold(vector: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They were made once, by other keys than anybody has."""
    path, capath = str(vector / "record.json"), str(vector / "ca")
    weights = str(vector / "weights.npz")
    assert look.main(["record", "verify", path, "--capath", capath, "--weights", weights]) == 0
    assert "bit for bit" in capsys.readouterr().out


@pytest.mark.parametrize(("vector", "transfer"), TRANSFER.items())
def test_the_vectors_hold_by_the_page_alone(vector: Path, transfer: str) -> None:
    summary = independent.check((vector / "record.json").read_text(), pems(vector))
    assert summary["rules"]["merge_args"].get("transferDtype", "") == transfer
    arrays = model.read_npz(vector / "weights.npz")
    assert summary["result"] == independent.digest(arrays, transfer)


def test_another_record_holds_by_the_page_alone(history: History) -> None:
    """Four validators that join, three learners, rounds in blocks of several transactions."""
    told = record.export(Memory(history.genesis, history.pairs), DEFAULT_CONTRACT)
    summary = independent.check(
        json.dumps(told), [authority.path.read_bytes() for authority in history.authorities]
    )
    assert summary["result"] == independent.digest(list(history.models[-1].values()))


def test_both_refuse_the_same_lies() -> None:
    text = (VECTOR / "record.json").read_text()
    trusted = TrustStore(capath=VECTOR / "ca").ca_ders
    told = json.loads(text)
    act = next(a for a in told["evidence"]["acts"] if len(a["inclusion"]))
    for old in (
        told["evidence"]["blocks"][1]["certificate"][-8:],
        told["evidence"]["states"][0]["path"][3],
        act["inclusion"][0],
        act["acceptance"][0],
        act["transaction"][-12:],
        told["summary"]["result"],
    ):
        assert text.count(old) >= 1
        wrong = text.replace(old, ("0" if old[0] != "0" else "1") + old[1:])
        with pytest.raises(Exception):  # noqa: B017 - any refusal will do
            independent.check(wrong, pems(VECTOR))
        with pytest.raises(Exception):  # noqa: B017
            record.check(json.loads(wrong), trusted)


def test_the_commands_of_the_page(tmp_path: Path) -> None:
    """As they are there, on a ledger that a node has kept."""
    history = History(tmp_path / "history", validators=2, learners=2)
    history.found()
    history.round()
    kept(history, tmp_path / "node-data").close()
    shutil.copytree(history.capath, tmp_path / "ca")
    np.savez(tmp_path / "weights.npz", *history.models[-1].values())
    script = "".join(blocks("docs/reference/record.md"))
    path = f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "weights.npz is the recorded result, bit for bit" in done.stdout


def test_the_numbers_of_the_page(history: History) -> None:
    told = record.export(Memory(history.genesis, history.pairs), DEFAULT_CONTRACT)
    size = len(json.dumps(told, indent=1)) / len(history.sls) / len(told["summary"]["rounds"])
    assert 6_000 < size < 16_000, size
    lines = Path(independent.__file__).read_text().count("\n")
    assert lines <= 260
