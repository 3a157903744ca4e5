"""What the tests of the data routes share: people in a dataset, and keys that ask."""

from __future__ import annotations

from typing import Any

import httpx
from tests.api.conftest import Client

from tidemill.api.app import make_app
from tidemill.api.context import Context
from tidemill.deploy.keyring import KeyRing
from tidemill.deploy.keys import Keys
from tidemill.store.workspace import Workspace

PEOPLE = [
    {
        "person": f"p{i}",
        "age": 20.5 + i * 7 % 13,
        "region": ("north", "south", "east")[i % 3],
        "label": "good" if i % 2 else "bad",
    }
    for i in range(40)
]


def local(workspace: Workspace, **options: Any) -> Client:
    """Ask as a program on this machine, without keys."""
    return Client(make_app(Context(workspace, **options)))


def add_people(client: Client, name: str = "people", rows: Any = None) -> str:
    """Make a version; gives its hash."""
    body = {"rows": PEOPLE if rows is None else rows}
    made = client.post("/api/v1/data", params={"name": name, "target": "label"}, json=body)
    assert made.status_code == 201, made.text
    return str(made.json()["hash"])


class Askers:
    """Keys by name, each with one scope."""

    def __init__(self, workspace: Workspace, **scopes: str) -> None:
        keys = Keys(workspace.records, workspace.journal)
        self._made = {name: keys.create(name, [scope]) for name, scope in scopes.items()}
        self._client = Client(make_app(Context(workspace, KeyRing(workspace.records))), "http://example")

    def named(self, name: str) -> str:
        """What a key is called where roles are given."""
        return f"key:{self._made[name][0].id}"

    def ask(self, who: str, method: str, path: str, **options: Any) -> httpx.Response:
        head = {"authorization": f"Bearer {self._made[who][1]}", **options.pop("headers", {})}
        return self._client.request(method, f"/api/v1{path}", headers=head, **options)

    def status(self, who: str, method: str, path: str, **options: Any) -> int:
        return self.ask(who, method, path, **options).status_code
