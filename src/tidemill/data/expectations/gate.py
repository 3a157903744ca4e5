"""Versions that failed their expectations can't be used for training until somebody says otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tidemill.core.errors import DataError, NotFoundError
from tidemill.data.checks._base import Finding
from tidemill.data.expectations.expected import SUITE, Expected, load_expected, load_suite
from tidemill.data.expectations.suite import Suite
from tidemill.data.versions import find_version
from tidemill.data.versions.governance import audit
from tidemill.store.workspace import Workspace

GATE = "version_gate"
"""Kind of the records that hold the verdict on a version."""
_KEPT = 200


@dataclass(frozen=True)
class Verdict:
    """What was found about a version, and whether it may be used.

    Parameters
    ----------
    version : str
        Hash of the version.
    findings : tuple of Finding
        What is broken.
    blocked : bool
        True where an error stands and nobody has opened the gate.
    """

    version: str
    findings: tuple[Finding, ...]
    blocked: bool


def keep_suite(workspace: Workspace, suite: Suite, *, actor: str = "") -> None:
    """Keep the expectations of a dataset; they hold for the versions that are judged from now on."""
    workspace.records.put(SUITE, suite.dataset, {"yaml": suite.to_yaml()})
    audit(workspace, "dataset_expectations", suite.dataset, actor, {"columns": len(suite.columns)})


def judge(
    workspace: Workspace, ref: str, wanted: Suite | Expected | None = None, *, clock: Callable[[], float] = time.time
) -> Verdict:
    """Check a version and keep the verdict: an error blocks it.

    Parameters
    ----------
    workspace : Workspace
        Where the version is.
    ref : str
        The version.
    wanted : Suite or Expected, optional
        What is expected; default all that is kept for its dataset.
    clock : callable
        Gives the time, for freshness.

    Returns
    -------
    Verdict

    Raises
    ------
    NotFoundError
        Where nothing is expected of the dataset.
    """
    version = find_version(workspace, ref)
    expected = Expected(wanted) if isinstance(wanted, Suite) else wanted
    if expected is None:
        expected = load_expected(workspace, version.dataset) or Expected(load_suite(workspace, version.dataset))
    findings = expected.check(workspace, version.hash, clock=clock)
    blocked = any(f.severity == "error" for f in findings)
    body = {"blocked": blocked, "at": clock(), "findings": [_plain(f) for f in findings[:_KEPT]], "opened_by": None}
    workspace.records.put(GATE, version.hash, body)
    return Verdict(version.hash, tuple(findings), blocked)


def gate(workspace: Workspace, ref: str) -> None:
    """Refuse a version that is blocked; call it before training on one.

    A version that was never judged passes.

    Raises
    ------
    DataError
        With what is broken, and how the gate is opened.
    """
    version = find_version(workspace, ref)
    body = _standing(workspace, version.hash)
    if body is None or not body["blocked"]:
        return
    broken = [f for f in body["findings"] if f["severity"] == "error"]
    told = "; ".join(f"{f['column'] or 'table'}: {f['message'].rstrip('.')}" for f in broken[:3])
    more = f" (and {len(broken) - 3} more)" if len(broken) > 3 else ""
    raise DataError(
        f"{version.ref} is blocked by its checks. {told}{more}.",
        hint=f"Mend the data and write a new version, or open the gate with a reason: "
        f"tidemill data gate {version.ref} --open --reason WHY",
        where=version.ref,
    )


def open_gate(workspace: Workspace, ref: str, *, reason: str, actor: str = "") -> None:
    """Let a blocked version be used all the same; who and why stands in the audit journal.

    Raises
    ------
    NotFoundError
        Where the version was never judged.
    DataError
        Without a reason.
    """
    version = find_version(workspace, ref)
    if not reason.strip():
        raise DataError("The gate is opened with a reason.", hint="Say why the version may be used.")
    record = next((r for r in workspace.records.find(GATE, version.hash) if r.key == version.hash), None)
    if record is None:
        raise NotFoundError(f"{version.ref} was never judged, so nothing blocks it.")
    body = {**record.body, "blocked": False, "opened_by": {"actor": actor, "reason": reason}}
    workspace.records.put(GATE, version.hash, body, expect=record.version)
    audit(workspace, "dataset_gate_opened", version.dataset, actor, {"version": version.hash, "reason": reason})


def verdict(workspace: Workspace, ref: str) -> Verdict | None:
    """Give the standing verdict on a version; None where it was never judged."""
    version = find_version(workspace, ref)
    body = _standing(workspace, version.hash)
    if body is None:
        return None
    return Verdict(version.hash, tuple(Finding(**f) for f in body["findings"]), bool(body["blocked"]))


def _standing(workspace: Workspace, key: str) -> dict[str, Any] | None:
    found: Sequence[Any] = workspace.records.find(GATE, key)
    return next((dict(r.body) for r in found if r.key == key), None)


def _plain(finding: Finding) -> dict[str, Any]:
    return {
        "severity": finding.severity, "code": finding.code, "column": finding.column, "message": finding.message,
        "hint": finding.hint,
    }  # fmt: skip


__all__ = [
    "GATE",
    "SUITE",
    "Verdict",
    "gate",
    "judge",
    "keep_suite",
    "load_suite",
    "open_gate",
    "verdict",
]
