"""The table of all commands."""

from __future__ import annotations

from functools import lru_cache

from swci.commands import contexts, contracts, general, nodes, taskrunners, tasks
from swci.language import Language

TABLE = (
    *contexts.COMMANDS,
    *contracts.COMMANDS,
    *tasks.COMMANDS,
    *taskrunners.COMMANDS,
    *nodes.COMMANDS,
    *general.COMMANDS,
)


@lru_cache(maxsize=1)
def language() -> Language:
    """The language of the table; making the parser takes some milliseconds."""
    return Language(TABLE)
