"""The sample profiles are valid, and the schema page is what the models say."""

from __future__ import annotations

from pathlib import Path

import pytest

from swop import schema
from swop.profile import Profile, read_profile

PROFILES = Path(__file__).resolve().parents[2] / "profiles"


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_sample_is_valid(path: Path) -> None:
    checked = read_profile(path)
    assert checked.warnings == ()


def test_the_schema_page_is_up_to_date() -> None:
    assert (PROFILES / "SCHEMA.md").read_text() == schema.text()


def test_the_schema_page_names_every_key() -> None:
    text = schema.text()
    for name in Profile.model_fields:
        assert f"`{name}" in text
    assert "`nodes[].slnodedef.usrcontaineropts.shm-size`" in text
