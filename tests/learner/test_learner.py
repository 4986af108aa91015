"""What the learner does around its driver, where a whole swarm would show it by luck only."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from swarm.identity import Role
from swarm.learner.learner import Learner
from swarm.learner.messages import StartExchange, Synced
from swarm.learner.settings import Settings
from swarm.merge.exchange import Key
from tests import pki


def test_a_program_is_asked_once_for_its_weights_whatever_becomes_of_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is asked twice would write them while another attempt merges in their place."""
    identity = pki.identity(tmp_path / "id", Role.SL, pki.authority(tmp_path))
    settings = Settings("127.0.0.1", 1, "h", 1, "127.0.0.1", 1, "sl", tmp_path, 30.0)
    learner = Learner(settings, identity, Mock(), "test")
    learner.core.pending = Synced(1, 10_000, 1, False, -1)
    told: list[str] = []
    begun: list[int] = []
    vectors: Any = SimpleNamespace(spent=True, save=lambda: None, close=lambda: None)
    vectors.prepare_again = lambda: vars(vectors).update(spent=False)
    vectors.buffers = lambda in_place: begun.append(1)
    monkeypatch.setattr(learner, "_vectors", vectors)
    monkeypatch.setattr(learner._link, "tell", lambda message: told.append(message["type"]))
    monkeypatch.setattr("swarm.learner.learner.Exchange", lambda *_, **__: Mock())
    monkeypatch.setattr(learner, "_law", lambda roster: None)
    learner._rewritten()  # nobody has asked
    assert vectors.spent
    for attempt in range(3):
        learner._start(StartExchange(Key("c", 0, attempt), [], {}, {}))
        learner._stop_exchange()
    learner._start(StartExchange(Key("c", 0, 3), [], {}, {}))
    assert (told, begun) == (["again"], [])
    learner._rewritten()
    assert len(begun) == 1
    learner._close()
