"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# The same examples in every run, and no limit of time for one: a test fails for what the code does,
# not for chance or a busy machine. `pytest --hypothesis-profile=default` looks for new examples.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
