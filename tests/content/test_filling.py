"""The process that fills volumes: steps one after the other, copies, limits, and its last word."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.errors import LocalError
from swop import filling
from swop.content import ContentRequest
from swop.fetching import Access
from swop.filling import DiskMeter, Job, Step, fill, where
from swop.hearing import listen
from swop.reach import read_reach
from swop.rules import Rules, read_rules
from swop.work import Work
from tests.content.archives import file, hardlink, symlink, tar, zipped
from tests.content.web import Site, serve

LOCAL = Access(read_reach(True, "127.0.0.1", "X"))
ARCHIVE = tar(file("a/x", b"data"), symlink("a/link", "x"), hardlink("twin", "a/x"), mode="w:gz")


@pytest.fixture
def site() -> Iterator[Site]:
    with serve() as found:
        found.files = {"/set.tar.gz": ARCHIVE, "/f.bin": b"bytes", "/set.zip": zipped(("z", b"z"))}
        yield found


def volumes(directory: Path, count: int = 1) -> tuple[str, ...]:
    made = [directory / f"v{number}" for number in range(count)]
    for path in made:
        path.mkdir()
    return tuple(map(str, made))


def content(directory: str) -> dict[str, bytes]:
    root = Path(directory)
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_steps_and_copies(site: Site, tmp_path: Path) -> None:
    digest = hashlib.sha256(ARCHIVE).hexdigest()
    steps = (
        Step("DOWNLOAD", site.url("/f.bin"), "/files/"),
        Step("DOWNLOAD", site.url("/set.tar.gz"), "kept.tar.gz", digest),
        Step("EXTRACT", "kept.tar.gz", "one"),
        Step("EXTRACT", site.url("/set.zip"), "/two/"),
    )
    job = Job(steps, volumes(tmp_path, 3), LOCAL, 1 << 20)
    told: list[str] = []
    assert fill(job, told.append) == f"6 files, {5 + len(ARCHIVE) + 4 + 1 + 4 + 1} bytes"
    expected = {
        "files/f.bin": b"bytes",
        "kept.tar.gz": ARCHIVE,
        "one/a/x": b"data",
        "one/a/link": b"data",
        "one/twin": b"data",
        "two/z": b"z",
    }
    for volume in job.volumes:
        assert content(volume) == expected
        top = Path(volume, "one")
        assert (top / "a" / "link").is_symlink()
        assert (top / "twin").samefile(top / "a" / "x")
    assert told[0].startswith("1 of 4: DOWNLOAD http://127.0.0.1")
    assert told[-1] == "volume 3 of 3 copied"


def test_a_step_never_follows_a_link_of_an_earlier_one(site: Site, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    site.files["/evil"] = tar(symlink("d", ".."), symlink("t", "../secret"))
    for step in (
        Step("DOWNLOAD", site.url("/f.bin"), "d/secret"),
        Step("EXTRACT", site.url("/set.zip"), "d"),
        Step("EXTRACT", "t"),
    ):
        directory = tmp_path / str(id(step))
        directory.mkdir()
        steps = (Step("EXTRACT", site.url("/evil")), step)
        with pytest.raises(LocalError, match="SW7023"):
            fill(Job(steps, volumes(directory), LOCAL, 1 << 20), lambda _: None)
    assert (tmp_path / "secret").read_text() == "secret"


def test_links_are_judged_when_all_is_there(site: Site, tmp_path: Path) -> None:
    """The first archive's link leads to nothing, and out once the second has come."""
    site.files["/1"] = tar(file("d/x", b""), symlink("d/l", "../p/../../secret"))
    site.files["/2"] = tar(file("p", b""))
    steps = tuple(Step("EXTRACT", site.url(path)) for path in ("/1", "/2"))
    with pytest.raises(LocalError, match="the link 'd/l' leads out of the volume or to nothing"):
        fill(Job(steps, volumes(tmp_path), LOCAL, 1 << 20), lambda _: None)


def test_all_that_is_written_counts(site: Site, tmp_path: Path) -> None:
    """The copies too: three volumes of five bytes are fifteen."""
    steps = (Step("DOWNLOAD", site.url("/f.bin")),)
    (tmp_path / "few").mkdir()
    with pytest.raises(LocalError, match="SW7025: the task brings more than 14 bytes"):
        fill(Job(steps, volumes(tmp_path / "few", 3), LOCAL, 14), lambda _: None)
    fill(Job(steps, volumes(tmp_path, 3), LOCAL, 15), lambda _: None)


def test_a_full_disk_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "MIN_FREE", 1 << 60)
    with pytest.raises(LocalError, match=r"SW7025: only [0-9]+ bytes are free"):
        DiskMeter(tmp_path, 1 << 50).expect(100 << 20)
    meter = DiskMeter(tmp_path, 1 << 50)
    with pytest.raises(LocalError, match="SW7025: only"):
        for _ in range(100):
            meter.add(1 << 20)


def test_where_a_download_goes() -> None:
    for target, out, expected in (
        ("http://h/a%20b?q", "", "a b"),
        ("http://h/x", "dir/", "dir/x"),
        ("http://h/x", "/dir/y", "dir/y"),
        ("http://h/", "y", "y"),
    ):
        assert where(Step("DOWNLOAD", target, out)) == expected
    for target in ("http://h", "http://h/", "http://h/a/..", "http://h/%2E%2E"):
        with pytest.raises(LocalError, match="SW7013"):
            where(Step("DOWNLOAD", target))


# ------------------------------------------------------------------ the process


def run(job: Job, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-I", "-m", "swop.filling"]
    environment = {**os.environ, filling.JOB: job.to_json()}
    return subprocess.run(command, env=environment, capture_output=True, timeout=60, **options)  # type: ignore[call-overload,no-any-return]


def test_the_process_has_a_last_word(site: Site, tmp_path: Path) -> None:
    (good,) = volumes(tmp_path)
    job = Job((Step("EXTRACT", site.url("/set.tar.gz"), "x"),), (good,), LOCAL, 1 << 20)
    assert Job.from_json(job.to_json()) == job
    done = run(job)
    assert done.returncode == 0, done.stderr
    told: list[str] = []
    assert listen(done.stdout.splitlines(), Work(told.append)) == "3 files, 9 bytes"
    assert told == [f"1 of 1: EXTRACT {site.url('/set.tar.gz')}: 1 files, 4 bytes"]

    failed = run(Job((Step("DOWNLOAD", site.url("/none")),), (good,), LOCAL, 1 << 20))
    assert failed.returncode == 1
    with pytest.raises(LocalError, match=r"SW7022: .*/none: the server answered 404"):
        listen(failed.stdout.splitlines(), Work())


def test_what_asks_for_all_memory_ends_with_a_reason(site: Site, tmp_path: Path) -> None:
    """A member's name of eight gigabytes, as a header may announce it."""
    header = bytearray(tar(file("x", b""))[:512])
    header[156:157] = b"x"  # an extended header
    header[124:136] = b"%011o\0" % ((8 << 30) - 1)
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    site.files["/x"] = bytes(header) + bytes(1024)
    done = run(Job((Step("EXTRACT", site.url("/x")),), volumes(tmp_path), LOCAL, 1 << 20))
    with pytest.raises(LocalError, match="SW7023: a damaged archive: a header of"):
        listen(done.stdout.splitlines(), Work())


def test_a_dictionary_of_four_gigabytes_is_not_made(site: Site, tmp_path: Path) -> None:
    """The header of an xz file may ask for it; the limit of the process's memory says no."""
    data = bytearray(tar(file("x", b"data"), mode="w:xz"))
    header = 4 * (data[12] + 1)  # of the block, behind the twelve bytes of the stream's
    assert data[14:16] == b"\x21\x01"  # LZMA2, whose one property is the dictionary's size
    data[16] = 40
    end = 12 + header
    data[end - 4 : end] = zlib.crc32(data[12 : end - 4]).to_bytes(4, "little")
    site.files["/x"] = bytes(data)
    done = run(Job((Step("EXTRACT", site.url("/x")),), volumes(tmp_path), LOCAL, 1 << 20))
    with pytest.raises(LocalError, match="SW7023: the archive needs too much memory"):
        listen(done.stdout.splitlines(), Work())


def test_it_ends_by_itself_in_time(site: Site, tmp_path: Path) -> None:
    """A container that its operator left behind."""
    site.hangs.add("/x")
    done = run(Job((Step("DOWNLOAD", site.url("/x")),), volumes(tmp_path), LOCAL, 1 << 20, 1))
    assert done.returncode == 1


def test_it_ends_with_whoever_started_it(site: Site, tmp_path: Path) -> None:
    site.hangs.add("/x")
    steps = (Step("DOWNLOAD", site.url("/x")),)
    done = run(Job(steps, volumes(tmp_path), LOCAL, 1 << 20, lifeline=True), input=b"")
    assert done.returncode == 1
    with pytest.raises(LocalError, match="SW7028"):
        listen(done.stdout.splitlines(), Work())


# ------------------------------------------------------------------ at the operator


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"Traceback: boom", "SW7028: .*its last words: Traceback: boom"),
        (json.dumps({"error": ["SW1001", "x"]}).encode(), "SW7028: x"),
        (json.dumps({"error": "x"}).encode(), "SW7028: it ended without"),
        (json.dumps({"error": [1, [2]], "done": ""}).encode(), "SW7028: it ended without"),
        (b"[1]", "SW7028: it ended without"),
        (b"\xff" * 9000, "SW7028: it ended without"),
    ],
)
def test_its_words_are_checked(line: bytes, expected: str) -> None:
    with pytest.raises(LocalError, match=expected):
        listen([line], Work())


def test_names_in_archives_steer_no_terminal(site: Site, tmp_path: Path) -> None:
    site.files["/x"] = tar(file("a", b""), file("a/\x1b[2J\n2026 : swop : INFO : all is well", b""))
    done = run(Job((Step("EXTRACT", site.url("/x")),), volumes(tmp_path), LOCAL, 1 << 20))
    with pytest.raises(LocalError) as caught:
        listen(done.stdout.splitlines(), Work())
    assert caught.value.cause.isprintable()
    assert caught.value.cause.startswith("member 'a/")
    told: list[str] = []
    listen([json.dumps({"say": "x\x1b[2J\ny"}).encode(), b'{"done": "1"}'], Work(told.append))
    assert told == ["x y"]


def test_a_request_is_checked_before_anything_happens() -> None:
    def request(outcome: str, *steps: Step) -> ContentRequest:
        return ContentRequest("t", outcome, (outcome,), steps)

    step = Step("DOWNLOAD", "https://h/x")
    assert request("good", step).uses_network
    assert not request("good", Step("EXTRACT", "file:///x")).uses_network
    assert request("good", step).digest != request("good", Step("EXTRACT", "https://h/x")).digest
    for outcome, wrong in (("../x", step), ("x/y", step), ("-x", step), ("x", step)):
        with pytest.raises(LocalError, match=r"SW7013.*cannot name a volume"):
            request(outcome, wrong)
    with pytest.raises(LocalError, match="SW7021"):
        request("good", Step("DOWNLOAD", "https://"))


def test_rules_of_the_host() -> None:
    assert read_rules({}) == Rules()
    rules = read_rules(
        {
            "SWOP_TASK_MAX_SECONDS": "60",
            "SWOP_CONTENT_MAX_BYTES": "2g",
            "SWOP_CONTENT_PUBLIC": "No",
            "SWOP_CONTENT_HOSTS": "data.lan, 10.0.0.0/8",
            "SWOP_CONTENT_FILES": "/srv/data/",
        }
    )
    assert (rules.task_seconds, rules.content_bytes) == (60, 2 << 30)
    assert rules.files == "/srv/data"
    assert not rules.reach.public and rules.reach.lists_name("data.lan")
    for name, text in (
        ("SWOP_TASK_MAX_SECONDS", "0"),
        ("SWOP_CONTENT_MAX_BYTES", "many"),
        ("SWOP_CONTENT_PUBLIC", "perhaps"),
        ("SWOP_CONTENT_FILES", "data"),
        ("SWOP_CONTENT_FILES", "/srv/../etc"),
    ):
        with pytest.raises(LocalError, match=f"SW7004: {name}: expected"):
            read_rules({name: text})
