"""The version of the installed distribution."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def _installed() -> str:
    try:
        return version("swarmlearning")
    except PackageNotFoundError:
        return "0+unknown"  # run from a source tree that was never installed


VERSION = _installed()
