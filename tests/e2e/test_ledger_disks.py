"""What a user sees when something is wrong with a node's data directory.

Always one line with code and remedy and exit status 1; nothing in the directory changes, and the
node has voted for nothing meanwhile.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.api.client import ApiClient
from swarm.errors import RemoteError
from swarm.ledger import wal
from swarm.ledger.store import FILE
from tests import pki
from tests.e2e.forked import ForkedProcesses
from tests.e2e.ledger_load import Load, judge
from tests.e2e.test_ledger_faults import network, settle
from tests.processes import Daemon, Processes, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")


@pytest.fixture
def ca(tmp_path: Path) -> pki.Authority:
    return pki.authority(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Processes]:
    with ForkedProcesses(tmp_path) as processes:
        yield processes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this container may not mount")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def data(sn: Daemon) -> Path:
    return Path(sn.env["SWARM_DATA_DIR"])


def ledger(sn: Daemon) -> dict[str, bytes]:
    """Genesis and ledger with its log, byte by byte. SQLite may leave an empty log behind."""
    found = {p.name: p.read_bytes() for p in data(sn).iterdir() if p.name[0] in "gl"}
    return {name: content for name, content in found.items() if content}


def create(client: ApiClient, name: str) -> None:
    task = {"name": name, "type": "RUN_SWARM", "author": "A", "prereq": "ROOTTASK"}
    client.submit("task.create", {**task, "outcome": "o"}, patience=5)


def refuses(sn: Daemon, code: str, *texts: str) -> None:
    """The node ends with status 1 and one line that has all this; the ledger stays as it is."""
    before = ledger(sn) if data(sn).is_dir() else {}
    mark = len(sn.lines)
    sn.start()
    sn.wait_end(60)
    told = [line for line in sn.lines[mark:] if "ERROR" in line or "CRITICAL" in line]
    assert told and all(text in told[-1] for text in (code, *texts)), sn.tail()
    assert sn.lines[-1].split()[2] == "1"
    assert "Traceback" not in "".join(sn.lines[mark:])
    assert code == "SW3015" or not before or ledger(sn) == before


def used(run: Processes, ca: pki.Authority, **env: str) -> Daemon:
    """A node that has worked, and was killed."""
    sn = run.sn("sn1", ca, env=env)
    client = run.direct(ca, sn)
    for number in range(3):
        create(client, f"t{number}")
    sn.kill()
    return sn


def test_a_damaged_page_or_a_missing_log(run: Processes, ca: pki.Authority) -> None:
    sn = used(run, ca)
    path = data(sn) / FILE
    log = wal.path_of(path)
    kept = log.read_bytes()
    log.unlink()
    refuses(sn, "SW3011", "write-ahead log", "is missing", "move the data directory away")
    log.write_bytes(kept)
    damaged = bytearray(kept)
    damaged[len(kept) // 2] ^= 1
    log.write_bytes(damaged)
    refuses(sn, "SW3011", "write-ahead log is damaged in frame")
    log.write_bytes(kept)
    run.restart(sn)  # nothing was lost by all that
    assert run.direct(ca, sn).record("tasks", "t2") is not None
    sn.terminate()
    whole = path.read_bytes()
    assert b"swarm-block-1" in whole
    path.write_bytes(whole.replace(b"swarm-block-1", b"swarm-block-7", 1))
    refuses(sn, "SW3011", str(path))
    path.write_bytes(whole[: len(whole) // 2])
    refuses(sn, "SW3011", str(path))


def test_another_nodes_directory_and_one_in_use(run: Processes, ca: pki.Authority) -> None:
    sn1 = run.sn("sn1", ca)
    sn2 = run.sn("sn2", ca, sentinel=sn1)
    sn2.kill()
    own = sn2.env["SWARM_DATA_DIR"]
    sn2.env["SWARM_DATA_DIR"] = sn1.env["SWARM_DATA_DIR"]
    sn2.close()
    sn2._pid = 0  # the next one gets the changed environment
    refuses(sn2, "SW3015", "is open in another process")
    sn1.terminate()
    refuses(sn2, "SW3016", "is the ledger of the network node")
    sn2.close()
    sn2._pid = 0
    sn2.env["SWARM_DATA_DIR"] = own
    run.restart(sn2)


def test_a_directory_that_is_none(run: Processes, ca: pki.Authority, tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("mine")
    sn = run.sn("sn1", ca, env={"SWARM_DATA_DIR": str(place)}, wait=None)
    sn.wait_end(60)
    refuses(sn, "SW3012", str(place))
    assert place.read_text() == "mine"


@ROOT
def test_a_full_disk(run: Processes, ca: pki.Authority, small_disk: Path) -> None:
    sn = run.sn("sn1", ca, env={"SWARM_DATA_DIR": str(small_disk / "data")})
    client = run.direct(ca, sn)
    written = []
    with pytest.raises(RemoteError):
        for number in range(2000):
            create(client, f"t{number}")
            written.append(f"t{number}")
    sn.wait_end(60)
    assert any("SW3012" in line and "disk is full" in line for line in sn.lines), sn.tail()
    assert sn.lines[-1].split()[2] == "1" and "Traceback" not in sn.log
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    run.restart(sn)
    assert len(written) > 20
    assert set(written) <= set(run.direct(ca, sn).table("tasks"))


@ROOT
def test_a_disk_that_became_read_only(run: Processes, ca: pki.Authority, small_disk: Path) -> None:
    sn = used(run, ca, SWARM_DATA_DIR=str(small_disk / "data"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refuses(sn, "SW3012", "mend the disk")
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    run.restart(sn)
    assert run.direct(ca, sn).record("tasks", "t2") is not None


def test_an_old_copy_of_a_directory_contradicts_nothing(
    run: Processes, ca: pki.Authority, tmp_path: Path
) -> None:
    """A validator that was restored from a backup has forgotten what it signed since."""
    nodes = network(run, ca)
    old = nodes[1]
    load = Load(run, ca, nodes)
    assert load.more(10)
    old.signal(signal.SIGSTOP)  # for a copy of all files from one moment
    shutil.copytree(data(old), tmp_path / "backup")
    old.signal(signal.SIGCONT)
    assert load.more(40)
    old.kill()
    shutil.rmtree(data(old))
    shutil.copytree(tmp_path / "backup", data(old))
    run.restart(old)
    old.wait_for("SW3017: .*signed what it does not remember", 60)
    assert load.more(40)
    client = run.direct(ca, old)
    until(lambda: "old copy" not in str(client.status()["waiting"]), 60, "it votes again")
    assert load.more(10)
    load.stop()
    settle(run, ca, nodes)
    judge(nodes, load)
