"""The graph of versions: as text, as a picture, and what refers to what."""

from __future__ import annotations

import datetime as dt
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill.core.errors import NotFoundError
from tidemill.data.versions.ledger import TAG, DatasetVersion, list_versions
from tidemill.store.workspace import Workspace

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _EDGE = 250, 58, 46, 18, 16
_SHOWN = ("identity", "rule", "way", "size", "by", "where", "label", "rows", "part", "near")


PREPARE = "prepare"
"""Operation that brings a version into the form a fit asks for: other types, rows without a target left out."""


@dataclass(frozen=True)
class Node:
    """A version in the graph.

    Parameters
    ----------
    version : DatasetVersion
        The version.
    tags : tuple of str
        Its tags.
    models : tuple of str
        Studies that were made from it.
    """

    version: DatasetVersion
    tags: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        v = self.version
        return {
            "version": v.ref,
            "hash": v.hash,
            "dataset": v.dataset,
            "rows": v.rows,
            "operation": v.operation,
            "parameters": dict(v.parameters),
            "parents": list(v.parents),
            "tags": list(self.tags),
            "studies": list(self.models),
            "created": dt.datetime.fromtimestamp(v.created_at, dt.timezone.utc).isoformat(" ", "seconds"),
        }


def studies_of(workspace: Workspace) -> dict[str, list[str]]:
    """Names of the studies by hash of a version that they learned or were tested from."""
    found: dict[str, list[str]] = {}
    for record in workspace.metadata.studies():
        source = record.settings.get("source") or {}
        named = {record.dataset_version, source.get("version"), source.get("test_version")} - {None, ""}
        for key in sorted(str(n) for n in named):
            found.setdefault(key, []).append(record.name)
    return found


def bundles_of(workspace: Workspace) -> dict[str, list[str]]:
    """Bundles in the workspace by hash of the version that they name as their data."""
    found: dict[str, list[str]] = {}
    folder = workspace.path / "bundles"
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        for key in sorted(_versions_named(path)):
            found.setdefault(key, []).append(path.name)
    return found


def _versions_named(folder: Path) -> set[str]:
    named: set[str] = set()
    for file in sorted(folder.glob("*.json")):
        try:
            named |= set(_values_of(json.loads(file.read_bytes()), ("dataset_version", "version", "test_version")))
        except (OSError, ValueError):  # a bundle that is being written, or is broken: `verify` tells more
            continue
    return {n for n in named if len(n) == 64}


def _values_of(value: Any, names: Sequence[str]) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in names and isinstance(inner, str):
                yield inner
            else:
                yield from _values_of(inner, names)
    elif isinstance(value, list):
        for inner in value:
            yield from _values_of(inner, names)


def log(workspace: Workspace, dataset: str | None = None) -> list[Node]:
    """Return the versions of a dataset with all that they were made from and all that was made of them, newest first.

    Raises
    ------
    NotFoundError
        For an unknown dataset, with the nearest names.
    """
    every = list_versions(workspace)
    wanted = every
    if dataset is not None:
        if not any(v.dataset == dataset for v in every):
            raise NotFoundError.of("dataset", dataset, {v.dataset for v in every})
        near = _connected(every, {v.hash for v in every if v.dataset == dataset})
        wanted = [v for v in every if v.hash in near]
    tags: dict[str, list[str]] = {}
    for record in workspace.records.find(TAG):
        tags.setdefault(record.body["hash"], []).append(record.key.rpartition("@")[2])
    models = studies_of(workspace)
    nodes = {(v.dataset, v.hash): Node(v, tuple(tags.get(v.hash, ())), tuple(models.get(v.hash, ()))) for v in wanted}
    return list(nodes.values())[::-1]


def _connected(every: Sequence[DatasetVersion], start: set[str]) -> set[str]:
    up = {v.hash: set(v.parents) for v in every}
    down: dict[str, set[str]] = {}
    for v in every:
        for p in v.parents:
            down.setdefault(p, set()).add(v.hash)
    found: set[str] = set()
    for way in (up, down):
        queue = list(start)
        seen: set[str] = set()
        while queue:
            at = queue.pop()
            if at not in seen:
                seen.add(at)
                queue += way.get(at, ())
        found |= seen
    return found


def draw_text(nodes: Sequence[Node]) -> str:
    """Draw the graph with letters: a line for each version, newest first, ``*`` in the column of its descent."""
    lanes: list[str | None] = []
    out: list[str] = []
    for node in nodes:
        v = node.version
        if v.hash not in lanes:
            lanes.append(v.hash)
        at = lanes.index(v.hash)
        marks = " ".join("*" if i == at else "│" if lane else " " for i, lane in enumerate(lanes))
        out.append(f"{marks}  {v.ref}  {v.rows:,} rows  {_how(v)}{_extra(node)}")
        parents = [p for p in v.parents if p not in lanes]
        before = len(lanes)
        lanes[at] = parents.pop(0) if parents else None
        lanes += parents
        joined = [p for p in v.parents if p in lanes]
        if len(lanes) > before or len(joined) > 1:
            links = " ".join(
                "├" if i == at and joined else "╮" if i >= before else "│" if x else " " for i, x in enumerate(lanes)
            )
            out.append(links)
        while lanes and lanes[-1] is None:
            lanes.pop()
    return "\n".join(out)


def draw_svg(nodes: Sequence[Node]) -> str:
    """Draw the graph as one SVG picture: parents to the left of what was made of them."""
    order = list(reversed(nodes))
    depth: dict[str, int] = {}
    for node in order:
        v = node.version
        depth[v.hash] = 1 + max((depth[p] for p in v.parents if p in depth), default=-1)
    places: dict[str, tuple[int, int]] = {}
    used: dict[int, int] = {}
    for node in order:
        if node.version.hash in places:
            continue
        column = depth[node.version.hash]
        row = used.get(column, 0)
        used[column] = row + 1
        places[node.version.hash] = (
            _EDGE + column * (_WIDTH + _GAP_X),
            _EDGE + row * (_HEIGHT + _GAP_Y),
        )
    wide = max((x for x, _ in places.values()), default=0) + _WIDTH + _EDGE
    high = max((y for _, y in places.values()), default=0) + _HEIGHT + _EDGE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" '
        'font-family="system-ui, sans-serif" font-size="12" role="img" aria-label="Lineage of dataset versions">'
    ]
    for node in order:
        x, y = places[node.version.hash]
        for p in node.version.parents:
            if p in places:
                px, py = places[p][0] + _WIDTH, places[p][1] + _HEIGHT // 2
                mid = (px + x) // 2
                parts.append(
                    f'<path d="M{px} {py} C{mid} {py} {mid} {y + _HEIGHT // 2} {x} {y + _HEIGHT // 2}" '
                    'fill="none" stroke="#8a94a6" stroke-width="1.5"/>'
                )
    parts += [_box(node, *places[node.version.hash]) for node in order]
    return "\n".join([*parts, "</svg>"])


def draw_html(nodes: Sequence[Node], title: str) -> str:
    """Wrap the picture in a page that needs nothing else."""
    name = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title></head>\n'
        f'<body style="font-family:system-ui,sans-serif"><h1>{name}</h1>\n{draw_svg(nodes)}\n</body></html>\n'
    )


def _box(node: Node, x: int, y: int) -> str:
    v = node.version
    told = html.escape(f"{v.hash}\n{json.dumps(dict(v.parameters), sort_keys=True)}")
    fill = "#e8f1ff" if not v.parents else "#eef8ee" if v.operation == "merge" else "#ffffff"
    lines = [
        (18, "600", v.ref),
        (34, "400", f"{v.rows:,} rows · {_how(v)}"),
        (50, "400", _extra(node).strip() or " "),
    ]
    texts = "".join(
        f'<text x="{x + 10}" y="{y + dy}" font-weight="{weight}" fill="#1c2430">{html.escape(_cut(text))}</text>'
        for dy, weight, text in lines
    )
    return (
        f'<g><title>{told}</title><rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="8" fill="{fill}" '
        f'stroke="#5b6b84"/>{texts}</g>'
    )


def _how(v: DatasetVersion) -> str:
    told = [f"{k}={_short(v.parameters[k])}" for k in _SHOWN if v.parameters.get(k) not in (None, False, [], "")]
    return f"{v.operation}({', '.join(told)})" if told else v.operation


def _extra(node: Node) -> str:
    tags = f"  [{', '.join(node.tags)}]" if node.tags else ""
    return tags + (f"  → {', '.join(node.models)}" if node.models else "")


def _short(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _cut(text: str, most: int = 38) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
