"""Blocking calls beside the trio loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import trio

T = TypeVar("T")


async def in_thread(call: Callable[..., T], *args: Any) -> T:
    """Run a blocking call in a thread; when cancelled, leave it to itself."""
    run: Any = trio.to_thread.run_sync  # its stubs lag behind its parameters
    result: T = await run(call, *args, abandon_on_cancel=True)
    return result
