"""The reference pages say what the code says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from certs.gen_cert import main as gen_cert
from swarm.error_catalogue import CATALOGUE
from swarm.host.hostfile import (
    Certificates,
    Docker,
    HostFile,
    Learner,
    NetworkNode,
    Operator,
)
from swarm.launch import components

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PACKAGES = ("swarm", "sentinel", "swop", "swci", "certs", "swarmlearning")
CODE = re.compile(r"SW[0-9]{4}")
VARIABLE = re.compile(r'"((?:SWARM|SN|SL|SWOP|SWCI|SENTINEL|THIS|USR)_[A-Z0-9_]+)"')
# Names of columns in the answers of commands, and a variable that one part hands to another.
NOT_SETTINGS = {"SWARM_PROGRAM", "SWARM_CONTENT_JOB"}


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]


GENERATOR = runpy.run_path(str(DOCS / "reference" / "generate.py"))


@pytest.mark.parametrize("name", sorted(GENERATOR["PAGES"]))
def test_generated_pages_are_up_to_date(name: str) -> None:
    page = (DOCS / "reference" / name).read_text()
    assert page == GENERATOR["PAGES"][name](), "run: python docs/reference/generate.py"


def test_every_code_that_is_used_is_listed() -> None:
    used = {code for path in sources() for code in CODE.findall(path.read_text())}
    assert used <= set(CATALOGUE)


def test_every_listed_code_is_used() -> None:
    catalogue = REPOSITORY / "swarm" / "error_catalogue.py"
    used = {
        code for path in sources() if path != catalogue for code in CODE.findall(path.read_text())
    }
    assert not set(CATALOGUE) - used


def test_entries_are_sentences_to_go_on_with() -> None:
    for code, entry in CATALOGUE.items():
        for text in entry:
            assert text and text == text.strip() and not text.endswith("."), code


def test_every_setting_is_documented() -> None:
    page = (DOCS / "reference" / "configuration.md").read_text()
    for path in sources():
        for name in VARIABLE.findall(path.read_text()):
            if name.startswith(("SWOP_PEER_", "SL_PEER_", "SL_UID")) or name in NOT_SETTINGS:
                continue
            assert f"`{name}`" in page, f"{name} of {path.relative_to(REPOSITORY)}"


def test_every_flag_is_documented() -> None:
    page = (DOCS / "reference" / "configuration.md").read_text()
    options = [*components.COMMON, *components.LICENCE]
    for own in components.USED_BY.values():
        options += own
    for option in options:
        assert f"--{option.names[0]}`" in page, option.names
    for parameter in gen_cert.params:
        for flag in parameter.opts:
            assert flag == "--help" or f"`{flag}`" in page, flag


LINK = re.compile(r"\]\(([^)#]+)(#[^)]*)?\)")


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        if target.startswith("http"):
            continue
        path = (page.parent / target).resolve()
        assert path.exists(), f"{page.name}: {target}"
        if anchor and path.suffix == ".md":
            titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^a-z0-9 -]", "", one.lower()).replace(" ", "-") for one in titles}
            assert anchor[1:] in anchors, f"{page.name}: {target}{anchor}"


def test_every_key_of_a_hosts_file_is_documented() -> None:
    page = (DOCS / "reference" / "swarm-yaml.md").read_text()
    parts = {
        "": HostFile, "certificates.": Certificates, "network_node.": NetworkNode,
        "operator.": Operator, "operator.learners[].": Learner, "docker.": Docker,
    }  # fmt: skip
    for prefix, model in parts.items():
        for key in model.model_fields:
            if f"{key}." not in parts:
                assert f"`{prefix}{key}`" in page, f"{prefix}{key}"
