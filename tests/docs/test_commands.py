"""Every command that the documentation shows is executed, or is one that another test executes."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What brought this test about in the first place, or is run by the end-to-end tests.
ELSEWHERE = {
    "make install", "make install image", "make demo", "make demo RUNTIME=docker",
    "make demo ORDERER=ethereum",
}  # fmt: skip
# Pages whose commands are run below.
RUN_HERE = {
    "docs/tutorial.md",
    "docs/how-to/ethereum.md",
    "docs/how-to/certificates.md",
    "docs/how-to/your-own-model.md",
    "docs/how-to/members.md",
    "docs/how-to/one-file.md",  # these two by tests/docs/test_host_pages.py
    "docs/how-to/before-you-train.md",
    "docs/how-to/logs.md",  # by tests/docs/test_logs_page.py
    "docs/how-to/without-operator.md",  # by tests/docs/test_run_sl_page.py
    "docs/how-to/hand-on-logs.md",  # by tests/collect/test_page.py
    "docs/how-to/reverse-proxy.md",  # by tests/e2e/test_reverse_proxy.py
    "docs/how-to/commands-from-programs.md",  # by tests/swci/test_web_page.py
    "docs/how-to/own-merge-method.md",  # by tests/merge/methods/test_packages.py
    "docs/reference/record.md",  # by tests/audit/test_vector.py
}


def blocks(page: str) -> list[str]:
    return BLOCK.findall((REPOSITORY / page).read_text())


def commands(text: str) -> list[str]:
    """The commands of a block: continued lines joined, blanks squeezed, comments dropped."""
    joined = text.replace("\\\n", " ")
    lines = (" ".join(line.split("  #")[0].split()) for line in joined.splitlines())
    return [line for line in lines if line]


def shell(directory: Path, script: str, **variables: str) -> str:
    """Run a page's blocks in one shell, in a directory that looks like the repository's root."""
    for name in ("examples", "scripts"):
        (directory / name).symlink_to(REPOSITORY / name)
    (directory / ".venv").symlink_to(Path(sys.prefix))
    path = f"{directory / '.venv' / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=directory,
        env={**os.environ, "PATH": path, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def free(*ports: int) -> bool:
    """Whether nobody listens on these ports of loopback."""
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return False
    return True


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(
    not free(30303, 30304, 31303, 31304, 16000, 18000),
    reason="the tutorial's ports are in use on this machine",
)
def test_tutorial(tmp_path: Path) -> None:
    script = "".join(
        block for block in blocks("docs/tutorial.md") if block.strip() != "make install"
    )
    try:
        output = shell(tmp_path, script)
    finally:
        subprocess.run(
            [str(Path(sys.prefix) / "bin" / "stop-swarm"), "--runtime=process"],
            env={**os.environ, "SWARM_HOME": str(tmp_path / "workspace" / "nodes")},
            capture_output=True,
            check=False,
        )
    assert "STATE : COMPLETE" in output
    digests = re.findall(r'"weights_sha256": "(\w{64})"', output)
    assert len(digests) == 2
    assert digests[0] == digests[1]


def test_certificates(tmp_path: Path) -> None:
    shell(tmp_path, "\n".join(blocks("docs/how-to/certificates.md")))
    assert (tmp_path / "workspace/mnist/cert/ca/capath/ca-1-cert.pem").is_file()


@pytest.mark.slow
def test_your_own_model(tmp_path: Path) -> None:
    """With the example's program and few digits in the place of the reader's own."""
    import numpy as np

    shutil.copy(REPOSITORY / "examples/mnist/model/mnist_tf.py", tmp_path / "my_program.py")
    rng = np.random.default_rng(1)
    digits = {
        f"{kind}_{part}": rng.integers(0, 10, (500, 28, 28) if kind == "x" else 500, np.uint8)
        for kind in "xy"
        for part in ("train", "test")
    }
    np.savez(tmp_path / "mnist.npz", **digits)
    page = "\n".join(blocks("docs/how-to/your-own-model.md"))
    shell(tmp_path, page, MAX_EPOCHS="1", TF_CPP_MIN_LOG_LEVEL="3")
    assert (tmp_path / "result.json").is_file()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(
    not free(30303, 30304, 31303, 31304, 32303, 32304),
    reason="the page's ports are in use on this machine",
)
def test_members(tmp_path: Path) -> None:
    page = blocks("docs/how-to/members.md")
    last = (
        "sed -i '/30304/d; /32304/d' look\n"
        "SWARM_HOME=host2 run-swci --runtime=process --name=swci2 --usr-dir=. "
        "--init-script-name=look $swci\n"
    )
    try:
        output = shell(tmp_path, "".join([*page, last]))
    finally:
        for host in ("host1", "host2", "host3"):
            subprocess.run(
                [str(Path(sys.prefix) / "bin" / "stop-swarm"), "--runtime=process"],
                env={**os.environ, "SWARM_HOME": str(tmp_path / host)},
                capture_output=True,
                check=False,
            )
    assert "Dropped     sn1" in output
    before, after = output.split("Dropped     sn1")
    assert [line.split(",")[3] for line in before.splitlines() if ",127.0.0.1,3" in line] == [
        "sn1", "sn2", "sn3",
    ]  # fmt: skip
    assert [line.split(",")[3] for line in after.splitlines() if ",127.0.0.1,3" in line] == ["sn2"]


def test_all_other_commands_are_those_of_the_example() -> None:
    """README and guides may shorten the example's steps, but not say something else."""
    guide = " ".join(
        (REPOSITORY / "examples/mnist/README.md").read_text().replace("\\\n", " ").split()
    )
    guide = re.sub(r"\$\{\w+\}", "…", guide)
    for page in [*sorted(REPOSITORY.glob("docs/**/*.md")), REPOSITORY / "README.md"]:
        name = str(page.relative_to(REPOSITORY))
        if name in RUN_HERE:
            continue
        for block in blocks(name):
            for command in commands(block):
                for part in command.split(" && "):
                    known = part in ELSEWHERE or part in guide or _flags_known(part, guide)
                    assert known, f"{name}: `{part}` is run by no test"


def _flags_known(command: str, guide: str) -> bool:
    """A run-* command whose every word is in the example's guide, addresses and ports aside."""
    words = command.split()
    if not words[0].startswith("./scripts/bin/run-"):
        return False
    return all(re.sub(r"=[\d.]+$", "=…", word) in guide for word in words)
