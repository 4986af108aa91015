"""The list of RPC end points, as users give it."""

from __future__ import annotations

from urllib.parse import urlsplit

from swarm.errors import LocalError

MAX_END_POINTS = 8


def end_points(text: str) -> tuple[str, ...]:
    """URLs from a list with commas. LocalError SW5101, which does not repeat them."""
    urls = tuple(part.strip() for part in text.split(",") if part.strip())
    if not 0 < len(urls) <= MAX_END_POINTS:
        raise LocalError("SW5101", f"--rpc: {len(urls)} URLs where 1 to {MAX_END_POINTS} may be")
    for number, url in enumerate(urls, 1):
        try:
            parts = urlsplit(url)
            fine = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            fine = False
        if not fine:
            raise LocalError("SW5101", f"--rpc: URL {number} is none of http:// or https://")
    return urls
