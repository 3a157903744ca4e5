"""The OpenAPI document of the routes, written from the same table that checks requests."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tidemill import __version__
from tidemill.api.route import Route
from tidemill.api.shapes import schema_of

_TAGS = {
    "endpoints": "Endpoints",
    "keys": "Keys",
    "audit": "Keys",
    "data": "Data",
    "datasets": "Data",
    "expectations": "Data",
    "features": "Features",
    "jobs": "Jobs",
    "job-kinds": "Jobs",
    "job-quotas": "Jobs",
}


def document(routes: Iterable[Route], *, secured: bool) -> dict[str, Any]:
    """Write the document.

    Parameters
    ----------
    routes : iterable of Route
        What can be asked.
    secured : bool
        True where keys are demanded.
    """
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, secured)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tidemill platform", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {
                        "error": {"type": "string", "description": "What is wrong."},
                        "hint": {"type": ["string", "null"], "description": "What to do about it."},
                        "where": {"type": ["string", "null"], "description": "What it is about."},
                    },
                }
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, secured: bool) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", route.path)
    part = route.path.split("/")[3] if route.path.startswith("/api/v1/") else ""
    parameters: list[dict[str, Any]] = [
        {"name": n, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for n in names
    ]
    parameters += [
        {"name": n, "in": "query", "required": f.required, "schema": f.schema(), "description": f.about}
        for n, f in route.query.items()
    ]
    errors = {"default": {"description": "What is wrong.", "content": _json({"$ref": "#/components/schemas/Error"})}}
    done = {str(route.status): {"description": route.about, "content": _forms(route.types)}}
    operation: dict[str, Any] = {
        "operationId": route.id,
        "summary": route.about,
        "tags": [_TAGS.get(part, "Platform")],
        "responses": {**done, **errors},
    }
    if parameters:
        operation["parameters"] = parameters
    if route.body or route.files:
        required = bool(route.files) or any(f.required for f in route.body.values())
        content = {**(_json(schema_of(route.body)) if route.body else {}), **_forms(route.files)}
        operation["requestBody"] = {"required": required, "content": content}
    if secured and route.scope:
        operation["security"] = [{"key": []}]
        operation["description"] = f"Needs a key for `{route.scope}`."
    return operation


def _forms(types: Iterable[str]) -> dict[str, Any]:
    """What a body may be: an object in JSON, bytes in any other form."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {name: {"schema": {"type": "object"}} if name == "application/json" else binary for name in types}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
