"""Links in place of mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.errors import LocalError
from swop.private_root import PrivateRoot, build_root, normal, remove_links

ROOT = PrivateRoot(Path("/r"), ("/tmp/test", "/tmp/test/model"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/tmp/test", "/r/tmp/test"),
        ("/tmp/test/", "/r/tmp/test/"),
        ("/tmp/test/model/x.py", "/r/tmp/test/model/x.py"),
        ("/tmp/testing", "/tmp/testing"),
        ("/tmp/test/../other", "/tmp/test/../other"),
        ("model/x.py", "model/x.py"),
        ("--data=/tmp/test/d", "--data=/r/tmp/test/d"),
        ("--data", "--data"),
        ("/usr/lib:/tmp/test/lib", "/usr/lib:/r/tmp/test/lib"),
        ("http://host:80/tmp/test", "http://host:80/tmp/test"),
        ("A=/tmp/test", "A=/tmp/test"),
        ("", ""),
    ],
)
def test_paths_below_a_target_are_rewritten(text: str, expected: str) -> None:
    assert ROOT.rewrite(text) == expected


def test_a_working_directory_that_is_the_root_rewrites_nothing() -> None:
    assert PrivateRoot(Path("/r"), ("/",)).rewrite("/etc/hosts") == "/etc/hosts"


@pytest.mark.parametrize(
    ("path", "expected"), [("/a//b/", "/a/b"), ("/a/./b/../c", "/a/c"), ("/..", "/"), ("/", "/")]
)
def test_paths_are_normalised(path: str, expected: str) -> None:
    assert normal(path) == expected


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    private, model = tmp_path / "private", tmp_path / "model"
    private.mkdir()
    model.mkdir()
    return private, model


def build(tmp_path: Path, sources: tuple[Path, Path]) -> list[Path]:
    private, model = sources
    mounts = [("/w/model", model), ("/w", private)]
    return build_root(tmp_path / "root", mounts, "/w")[1]


def test_a_nested_mount_is_a_link_in_the_outer_source_until_it_is_removed(
    tmp_path: Path, sources: tuple[Path, Path]
) -> None:
    outside = build(tmp_path, sources)
    assert outside == [sources[0] / "model"]
    assert (tmp_path / "root/w/model").resolve() == sources[1]
    assert build(tmp_path, sources) == outside, "a second time changes nothing"
    remove_links(outside)
    assert list(sources[0].iterdir()) == []


def test_an_empty_directory_gives_way(tmp_path: Path, sources: tuple[Path, Path]) -> None:
    (sources[0] / "model").mkdir()
    build(tmp_path, sources)
    assert (sources[0] / "model").is_symlink()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_there_already_is_never_replaced(
    tmp_path: Path, sources: tuple[Path, Path], kind: str
) -> None:
    taken = sources[0] / "model"
    if kind == "file":
        taken.write_text("precious")
    elif kind == "directory":
        taken.mkdir()
        (taken / "precious").touch()
    else:
        taken.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LocalError) as caught:
        build(tmp_path, sources)
    assert caught.value.code == "SW7008"
    assert str(sources[0]) in caught.value.cause or "root/w/model" in caught.value.cause
    assert taken.is_symlink() or taken.exists()
