"""Whatever fits the document of the data routes gets an answer, over a workspace that holds what is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.api.asking import PEOPLE, add_people, local

from tidemill.api import checks, data, data_changes, data_governance, data_rows, feature_rows
from tidemill.api.features import online
from tidemill.api.route import Route
from tidemill.api.shapes import Field, Shape
from tidemill.sdk.features import register
from tidemill.store.workspace import Workspace

ROUTES = [r for room in (checks, data, data_changes, data_governance, data_rows, feature_rows) for r in room.ROUTES]
NAMES = {
    "version": ["people", "people@gold", "none"],
    "tag": ["gold", "x", "abcd"],
    "group": ["user"],
    "endpoint": ["e"],
}
WORDS = [
    "age",
    "person",
    "region",
    "label",
    "people",
    "none",
    "",
    "age > 3",
    "north",
    "2026-01-01",
    "gold",
    "a,b",
    "30d",
]
WHATEVER = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@pytest.fixture
def filled(workspace: Workspace) -> Iterator[Workspace]:
    client = local(workspace)
    add_people(client)
    client.put("/api/v1/data/people/tags/gold")
    register({"name": "user", "entity": ["user_id"], "features": ["age"]}, workspace=workspace)
    yield workspace
    online(workspace).close()


def values(name: str, field: Field) -> st.SearchStrategy[Any]:
    """Give values of a field: often words that mean something here."""
    low, high = field.low, field.high
    if field.choices:
        return st.sampled_from(list(field.choices))
    if field.kind == "string":
        fit = [w for w in WORDS if len(w) >= (low or 0)]
        return st.sampled_from(fit) | st.text(min_size=int(low or 0), max_size=int(min(high or 8, 8)))
    if field.kind == "boolean":
        return st.booleans()
    if field.kind == "integer":
        return st.integers(None if low is None else int(low), None if high is None else int(high)) | st.just(1)
    if field.kind == "number":
        return st.floats(low, high, allow_nan=False, allow_infinity=False) | st.sampled_from([0, 1, 0.5, 3])
    members = WHATEVER if not field.items else values(name, Field(field.items, ""))
    if name == "rows":
        members = st.sampled_from(PEOPLE[:4]) | st.dictionaries(st.sampled_from(WORDS), WHATEVER, max_size=3)
    if field.kind == "array":
        return st.lists(members, min_size=int(low or 0), max_size=4)
    return st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=3), members, min_size=int(low or 0), max_size=3)


def documents(shape: Shape) -> st.SearchStrategy[dict[str, Any]]:
    fields = {name: values(name, field) for name, field in shape.items()}
    return st.fixed_dictionaries(
        {n: v for n, v in fields.items() if shape[n].required},
        optional={n: v for n, v in fields.items() if not shape[n].required},
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path}")
def test_whatever_fits_the_document_is_answered(filled: Workspace, route: Route) -> None:
    client = local(filled)

    @settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(drawn: st.DataObject) -> None:
        path = re.sub(r"{(\w+)}", lambda found: drawn.draw(st.sampled_from(NAMES[found[1]])), route.path)
        query = drawn.draw(documents(route.query))
        asked = {k: str(v).lower() if isinstance(v, bool) else v for k, v in query.items()}
        body: dict[str, Any] = {"json": drawn.draw(documents(route.body))} if route.method in ("POST", "PATCH") else {}
        accept = drawn.draw(st.sampled_from([*route.types, "*/*"]))
        answer = client.request(route.method, path, params=asked, headers={"accept": accept}, **body)
        assert answer.status_code < 500, (path, query, body, answer.text)
        if answer.status_code >= 400:
            assert set(answer.json()) == {"error", "hint", "where"}
        else:
            assert answer.status_code == route.status
            assert answer.headers["content-type"].partition(";")[0] in route.types

    check()
