"""Archives of unknown origin: what they may bring, and what they must never do."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm.errors import LocalError
from swop import unpacking
from swop.tree import Tree
from swop.unpacking import Unpacked, unpack
from tests.content.archives import file, hardlink, member, sparse, symlink, tar, zipped
from tests.content.test_fetching import Counting

LINK = stat.S_IFLNK | 0o777


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "volume").mkdir()
    (tmp_path / "outside").write_text("untouched")
    return tmp_path / "volume"


def into(root: Path, data: bytes, below: str = "", limit: int = 1 << 30) -> Unpacked:
    with Tree(root) as tree:
        done = unpack(io.BytesIO(data), len(data), tree, below, Counting(limit))
        tree.check_links("the content")
    return done


def refused(root: Path, data: bytes, limit: int = 1 << 30) -> str:
    """What it is refused with; nothing outside the volume has changed."""
    with pytest.raises(LocalError) as caught:
        into(root, data, limit=limit)
    assert sorted(path.name for path in root.parent.iterdir()) == ["outside", "volume"]
    assert (root.parent / "outside").read_text() == "untouched"
    return f"{caught.value.code}: {caught.value.cause}"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar(root: Path, mode: str, form: int) -> None:
    long = "/".join(["directory-of-a-long-name"] * 12) + "/ü"
    data = tar(
        member("./", tarfile.DIRTYPE),
        member("./data", tarfile.DIRTYPE),
        file("./data/a", b"a" * 700_000),
        file("run.sh", b"#!", 0o4755),
        file("data/empty", b""),
        file(long, b"deep"),
        symlink("data/link", "../run.sh"),
        hardlink("data/twin", "data/a"),
        mode=mode,
    )
    assert form  # both are read, whatever is written
    assert into(root, data, "sub/dir") == Unpacked(4, 700_006)
    top = root / "sub" / "dir"
    assert (top / "data" / "a").read_bytes() == b"a" * 700_000
    assert (top / long).read_bytes() == b"deep"
    assert (top / "data" / "link").read_bytes() == b"#!"
    assert (top / "data" / "twin").stat().st_ino == (top / "data" / "a").stat().st_ino
    assert stat.S_IMODE((top / "run.sh").stat().st_mode) == 0o755
    assert stat.S_IMODE((top / "data" / "a").stat().st_mode) == 0o644


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_zip(root: Path, method: int) -> None:
    data = zipped(
        ("data/", b""),
        ("data/a", b"a" * 70_000),
        ("run.sh", b"#!"),
        ("link", b"data/a"),
        kinds=(stat.S_IFDIR | 0o755, 0, stat.S_IFREG | 0o755, LINK),
        method=method,
    )
    assert into(root, data) == Unpacked(2, 70_002)
    assert (root / "link").read_bytes() == b"a" * 70_000
    assert stat.S_IMODE((root / "run.sh").stat().st_mode) == 0o755


def test_a_later_member_takes_the_place_of_an_earlier_one(root: Path) -> None:
    """And a link's place, not the place that it leads to."""
    data = tar(file("kept", b"1"), symlink("x", "kept"), file("x", b"2"), file("x", b"3"))
    into(root, data)
    assert (root / "x").read_bytes() == b"3" and not (root / "x").is_symlink()
    assert (root / "kept").read_bytes() == b"1"


BAD_TARS: dict[str, Callable[[], bytes]] = {
    "up": lambda: tar(file("../outside", b"x")),
    "up inside": lambda: tar(file("a/../../outside", b"x")),
    "absolute": lambda: tar(file("/outside", b"x")),
    "absolute directory": lambda: tar(member("/tmp/x", tarfile.DIRTYPE)),
    "link up": lambda: tar(symlink("x", "../outside")),
    "absolute link": lambda: tar(symlink("x", "/etc/passwd")),
    "link to nothing": lambda: tar(symlink("x", "none")),
    "circle": lambda: tar(symlink("x", "y"), symlink("y", "x")),
    "through a link": lambda: tar(symlink("d", ".."), file("d/outside", b"x")),
    "directory through a link": lambda: tar(symlink("d", ".."), member("d/new", tarfile.DIRTYPE)),
    # Each link on its own stays inside, as long as one does not follow the other.
    "links together": lambda: tar(
        member("a/b/c", tarfile.DIRTYPE),
        symlink("a/b/c/up", "../../.."),
        symlink("out", "a/b/c/up/../outside"),
    ),
    "hard link up": lambda: tar(hardlink("x", "../outside")),
    "absolute hard link": lambda: tar(hardlink("x", "/etc/passwd")),
    "hard link through a link": lambda: tar(symlink("d", ".."), hardlink("x", "d/outside")),
    "hard link to a link": lambda: tar(symlink("d", "../outside"), hardlink("x", "d")),
    "hard link to nothing": lambda: tar(hardlink("x", "none")),
    "hard link to itself": lambda: tar(file("x", b"1"), hardlink("x", "./x")),
    "hard link to a directory": lambda: tar(member("d", tarfile.DIRTYPE), hardlink("x", "d")),
    "device": lambda: tar(member("null", tarfile.CHRTYPE)),
    "disk": lambda: tar(member("sda", tarfile.BLKTYPE)),
    "pipe": lambda: tar(member("pipe", tarfile.FIFOTYPE)),
    "no name": lambda: tar(file("./", b"x")),
    "file as directory": lambda: tar(file("a", b"x"), file("a/b", b"x")),
    "file over directory": lambda: tar(member("a/b", tarfile.DIRTYPE), file("a", b"x")),
    "too deep": lambda: tar(file("/".join("a" * 200), b"x")),
    "too long": lambda: tar(file("a" * 300, b"x")),
    "sparse without end": lambda: sparse("x", 1 << 60),
    "cut off": lambda: tar(file("x", b"x" * 5000))[:2000],
    "cut off, packed": lambda: tar(file("x", os.urandom(5000)), mode="w:gz")[:3000],
    "damaged header": lambda: _damage(tar(file("x", b"x"), file("y", b"y")), 1024 + 148),
    "no archive": lambda: b"hello, world" * 100,
    "empty": lambda: b"",
    "a zip cut off": lambda: zipped(("x", b"x" * 5000))[:-10],
    "zip up": lambda: zipped(("../outside", b"x")),
    "zip absolute": lambda: zipped(("/outside", b"x")),
    "zip link up": lambda: zipped(("x", b"../outside"), kinds=(LINK,)),
    "zip device": lambda: zipped(("x", b""), kinds=(stat.S_IFBLK | 0o644,)),
    "zip through a link": lambda: zipped(("d", b".."), ("d/outside", b"x"), kinds=(LINK,)),
    "zip damaged": lambda: _damage(zipped(("x", b"x" * 5000), method=zipfile.ZIP_STORED), 100),
}


def _damage(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("name", BAD_TARS)
def test_what_is_refused(root: Path, name: str) -> None:
    """Each with a reason, and with nothing written outside."""
    said = refused(root, BAD_TARS[name]())
    assert said.startswith(("SW7023", "SW7025")), said


def test_a_bomb_is_not_written_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three megabytes of zeros in three kilobytes, with bounds that are as small."""
    monkeypatch.setattr(unpacking, "FREE_BYTES", 1 << 20)
    monkeypatch.setattr(unpacking, "MAX_RATIO", 100)
    zeros = bytes(3 << 20)
    for data in (
        zipped(("x", zeros)),
        tar(file("x", zeros), mode="w:gz"),
        tar(*(file(f"x{n}", zeros[:300_000]) for n in range(10)), mode="w:bz2"),
        sparse("x", 3 << 20),
        # Headers only: a million empty files would be as bad.
        tar(*(member(f"{n}") for n in range(5000)), mode="w:xz"),
    ):
        assert "taken for a bomb" in refused(root, data)
        assert sum(path.stat().st_size for path in root.rglob("*")) <= 2 << 20


def test_the_limit_counts_before_and_while_it_is_written(root: Path) -> None:
    assert refused(root, tar(file("x", bytes(5000))), limit=4000).startswith("SW7025")
    assert list(root.iterdir()) == []
    several = tar(*(file(f"x{n}", bytes(1500)) for n in range(4)))
    assert refused(root, several, limit=4000).startswith("SW7025")


def test_a_zip_that_lies_about_its_size(root: Path) -> None:
    data = zipped(("x", b"x" * 5000), method=zipfile.ZIP_STORED)
    lying = data.replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little"))
    assert refused(root, lying).startswith("SW7023")


def test_many_members_are_too_many(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MAX_ENTRIES", 10)
    assert "more than 10 members" in refused(root, tar(*(member(f"{n}") for n in range(11))))


def test_a_sparse_file_is_written_out(root: Path) -> None:
    assert into(root, sparse("x", 100_000)) == Unpacked(1, 100_000)
    assert (root / "x").read_bytes() == bytes(100_000)
