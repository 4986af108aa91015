"""A `requests` session whose answers are bounded in size and time.

requests' own time-out is for each piece of an answer: a server that sends a byte now and then
would hold a worker thread for ever, and one that never ends would fill the memory.
"""

from __future__ import annotations

import os
import time
from typing import Any

import requests

PIECE = 1 << 16


class BoundedSession(requests.Session):
    """Reads an answer as a whole, or raises one of requests' own exceptions."""

    def __init__(self, url: str, most: int, seconds: float) -> None:
        super().__init__()
        # Proxies and CAs of the environment are looked up once: requests does it for each request,
        # which takes longer than the request, and sends logins that it finds in ~/.netrc.
        self.proxies = requests.utils.get_environ_proxies(url)
        self.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
        self.trust_env = False
        self._most = most
        self._seconds = seconds

    def post(self, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """As `Session.post`, with the body read already."""
        end = time.monotonic() + self._seconds
        kwargs["stream"] = True
        kwargs["allow_redirects"] = False  # an access key in a header is for that host alone
        response = super().post(url, *args, **kwargs)
        body = bytearray()
        try:
            for piece in response.iter_content(PIECE):
                body += piece
                if len(body) > self._most:
                    raise requests.exceptions.ContentDecodingError("the answer is too large")
                if time.monotonic() > end:
                    raise requests.exceptions.ReadTimeout("timed out")
        except BaseException:
            response.close()
            raise
        response._content = bytes(body)
        return response
