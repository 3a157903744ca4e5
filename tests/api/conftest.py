"""The API over a workspace with one bundle, without a network."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from tests.bundle.small import make

from tidemill.api.app import make_app
from tidemill.api.context import Context, Limits
from tidemill.deploy.keyring import KeyRing
from tidemill.store.workspace import Workspace

HERE = "http://127.0.0.1"


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], bytes]:
    """Give the n-th small bundle as a tar file."""
    root = tmp_path_factory.mktemp("packed")
    made: dict[int, bytes] = {}

    def of(number: int) -> bytes:
        if number not in made:
            make(root / f"m{number}", "binary", rows=200 + number)
            made[number] = pack(root / f"m{number}")
        return made[number]

    return of


def pack(folder: Path, mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]  # a mode as text
        archive.add(folder, arcname=folder.name)
    return file.getvalue()


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "ws") as opened:
        yield opened


class Client:
    """Asks an application without a network."""

    def __init__(self, app: Starlette, base_url: str = HERE) -> None:
        self._app = app
        self._base_url = base_url

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=self._base_url) as client:
                return await client.request(method, path, **options)

        return asyncio.run(run())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def put(self, path: str, **options: Any) -> httpx.Response:
        return self.request("PUT", path, **options)

    def patch(self, path: str, **options: Any) -> httpx.Response:
        return self.request("PATCH", path, **options)

    def delete(self, path: str, **options: Any) -> httpx.Response:
        return self.request("DELETE", path, **options)


@pytest.fixture
def client(workspace: Workspace) -> Client:
    """Everybody on this machine may ask."""
    return Client(make_app(Context(workspace, limits=Limits(body_bytes=4096, bundle_bytes=8 << 20))))


@pytest.fixture
def locked(workspace: Workspace) -> tuple[Client, KeyRing]:
    """Only keys may ask."""
    ring = KeyRing(workspace.records)
    return Client(make_app(Context(workspace, ring)), "http://example"), ring
