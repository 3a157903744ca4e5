"""The try-it page: one file of our own, nothing from anywhere else."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

HEADERS = (
    b"content-security-policy: default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
    b"x-content-type-options: nosniff\r\n"
)


@cache
def read() -> bytes:
    """The page."""
    return files("tidemill.deploy.engine").joinpath("page.html").read_bytes()
