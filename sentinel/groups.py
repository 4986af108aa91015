"""Exceptions inside of exception groups, for every Python that we support."""

from __future__ import annotations

from collections.abc import Iterator


def leaves(fault: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions inside of nested groups; before Python 3.11 a library defines these."""
    inner = getattr(fault, "exceptions", None)
    if inner is None:
        yield fault
    else:
        for one in inner:
            yield from leaves(one)
