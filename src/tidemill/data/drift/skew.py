"""Train/serve skew: whether what an endpoint is asked looks like what its model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tidemill.core.errors import NotFoundError
from tidemill.core.schema import Schema
from tidemill.data.checks._base import SEVERITIES, Finding
from tidemill.data.drift.compare import Drift
from tidemill.data.drift.kept import table_drift, version_sketch
from tidemill.data.matching._vectors import KINDS, column_types
from tidemill.data.versions import find_version
from tidemill.data.versions.manifest import BLOB
from tidemill.store.workspace import Workspace

_LISTED = 30


@dataclass(frozen=True)
class Skew:
    """What differs between training and serving.

    Parameters
    ----------
    findings : tuple of Finding
        Absent columns and other types (errors), more missing values and drift (warnings), new columns and what was left
        out (info).
    drift : Drift
        Of the columns that both have in one type.
    """

    findings: tuple[Finding, ...]
    drift: Drift


def skew(
    workspace: Workspace,
    ref: str,
    served: pa.Table,
    *,
    columns: Sequence[str] | None = None,
    apart: Mapping[str, str] | None = None,
    **options: Any,
) -> Skew:
    """Hold captured rows against the version that a model was trained on.

    Parameters
    ----------
    workspace : Workspace
        Where the version is.
    ref : str
        The version.
    served : pyarrow.Table
        Rows that came to an endpoint.
    columns : sequence of str, optional
        What the model asks for; default every column of the version but its target.
    apart : mapping of str to str, optional
        Columns that can't be compared, each with the reason as a sentence. Columns of the version that name stored
        media are left out in any case.
    **options
        As for `tidemill.data.drift.compare.drift`.

    Raises
    ------
    NotFoundError
        For an unknown version or column, with the nearest names.
    """
    version = find_version(workspace, ref)
    for name in columns or ():
        if name not in version.schema:
            raise NotFoundError.of("column", name, version.schema.names)
    reference = version_sketch(workspace, version.hash)
    features = [c.name for c in version.schema.features]
    asked = [n for n in (features if columns is None else columns) if n in reference.grid.axes]
    left_out = _left_out(version.schema, asked, apart or {})
    wanted = [n for n in asked if n not in left_out]
    types = column_types(served)
    alike = [n for n in wanted if types.get(n) is reference.grid.axes[n].kind]
    moved = table_drift(workspace, version.hash, served.select(alike), **options)
    there = [n for n in served.column_names if n not in left_out]
    findings = [*_shape(wanted, types, reference.grid.axes, there), *_moved(moved), *_told(left_out)]
    return Skew(tuple(sorted(findings, key=lambda f: SEVERITIES.index(f.severity))), moved)


def _left_out(schema: Schema, asked: Sequence[str], apart: Mapping[str, str]) -> dict[str, str]:
    """Columns that are not compared, with the reason: what the caller says, and those that name stored media."""
    named = {c.name: (c.unit or "").removeprefix(BLOB) for c in schema if (c.unit or "").startswith(BLOB)}
    return {**{n: f"It names a stored {named[n]} in each row." for n in asked if n in named}, **apart}


def _told(left_out: Mapping[str, str]) -> list[Finding]:
    hint = "Nothing about it is compared here; `tidemill watch` shows what is known of it in service."
    return [
        Finding("info", "left_out", name, f"The column is left out of the comparison. {why}", hint)
        for name, why in left_out.items()
    ]


def _shape(wanted: Sequence[str], types: dict[str, type], axes: Any, there: Sequence[str]) -> list[Finding]:
    out = []
    for name in wanted:
        if name not in there:
            out.append(
                Finding("error", "column_absent", name, "Training had this column; requests lack it.",
                        "Send it, or train without it.")
            )  # fmt: skip
        elif types.get(name) is not axes[name].kind:
            found = KINDS.get(types[name], "something else") if name in types else "something else"
            message = f"In training it was {KINDS[axes[name].kind]}, in requests it is {found}."
            out.append(Finding("error", "type", name, message, "Convert it before it is sent."))
    new = [n for n in there if n not in axes]
    if new:
        out.append(
            Finding("info", "column_new", None, f"Requests carry {len(new)} columns that training lacked: "
                    f"{', '.join(map(repr, new[:5]))}.", "They are not used.")
        )  # fmt: skip
    return out


def _moved(moved: Drift) -> list[Finding]:
    out = []
    for c in moved.drifted[:_LISTED]:
        why = f"population stability index {c.psi:.2f}"
        if c.missing_after - c.missing_before > 0.05:
            why += f", missing {c.missing_before:.1%} → {c.missing_after:.1%}"
        if c.unseen > 0.01:
            why += f", {c.unseen:.1%} values that training never saw"
        out.append(
            Finding("warning", "skew", c.column, f"Requests are distributed differently ({why}).",
                    "Look how the value is computed where requests are made.")
        )  # fmt: skip
    if len(moved.drifted) > _LISTED:
        rest = len(moved.drifted) - _LISTED
        out.append(Finding("warning", "skew", None, f"The same holds for {rest:,} more columns.", "See the report."))
    return out
