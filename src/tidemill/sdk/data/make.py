"""Versions made from versions; no value is copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tidemill.core.errors import NotFoundError
from tidemill.sdk.data.doors import Door, Place, enter, hashes, summary, words


def merge(
    datasets: Sequence[str],
    *,
    identity: str | Sequence[str] = "none",
    rule: str = "newest",
    trusted: Sequence[str] | str = (),
    label: str | None = None,
    missing: bool = False,
    name: str | None = None,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Put versions together, A ∪ B = C.

    Parameters
    ----------
    datasets : sequence of str
        Two versions or more, in any order.
    identity, rule, trusted, label, missing, name
        As in `tidemill.data.versions.operations.merge`; key columns and annotators also as a text with commas.
    workspace, actor : optional
        As in `add`.

    Returns
    -------
    dict
        The version, and ``conflicts``: of how many rows the labels differed, and ``review``, the artifact that lists
        them under the rule ``"both"``.
    """
    from tidemill.data.versions.operations import merge as run

    keys: str | list[str] = identity if identity in ("none", "content") else words(identity)
    with enter(workspace, actor) as door:
        known = _prepare(door, datasets, name)
        done = run(
            door.workspace,
            datasets,
            identity=keys,
            rule=rule,
            trusted=words(trusted),
            label=label,
            missing=missing,
            name=name,
        )
        told = door.made(done.version, known=done.version.hash in known)
        return {**told, "conflicts": done.conflicts, "review": done.review}


def sample(
    dataset: str,
    *,
    way: str = "random",
    size: float | None = None,
    by: Sequence[str] | str | None = None,
    seed: int = 0,
    since: str | None = None,
    until: str | None = None,
    target: str | None = None,
    shares: Mapping[str, float] | None = None,
    name: str | None = None,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Keep a sample of a version.

    Parameters
    ----------
    dataset : str
        The version.
    way, size, by, seed, since, until, target, shares, name
        As in `tidemill.data.versions.operations.sample`.
    workspace, actor : optional
        As in `add`.
    """
    from tidemill.data.versions.operations import sample as run

    with enter(workspace, actor) as door:
        known = _prepare(door, [dataset, *([target] if target else [])], name)
        version = run(
            door.workspace,
            dataset,
            way=way,
            size=size,
            by=words(by) or None,
            seed=seed,
            since=since,
            until=until,
            target=target,
            shares=shares,
            name=name,
        )
        return door.made(version, known=version.hash in known)


def filter_(
    dataset: str,
    where: str,
    *,
    name: str | None = None,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Keep the rows on which a condition is true.

    Parameters
    ----------
    dataset : str
        The version.
    where : str
        As after WHERE in SQL: ``"age between 20 and 30 and region = 'north'"``.
    name, workspace, actor : optional
        As in `sample`.
    """
    from tidemill.data.versions.operations import filter_version

    with enter(workspace, actor) as door:
        known = _prepare(door, [dataset], name)
        version = filter_version(door.workspace, dataset, where, name=name)
        return door.made(version, known=version.hash in known)


def relabel(
    dataset: str,
    labels: Any,
    *,
    key: Sequence[str] | str,
    label: str | None = None,
    annotator: str | None = None,
    name: str | None = None,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Lay other labels over rows; no row is written again.

    Parameters
    ----------
    dataset : str
        The version.
    labels : path or table
        Key columns and the label column; perhaps ``annotator`` and ``at`` (seconds since 1970).
    key : sequence of str
        Columns that tell which row is meant.
    label : str, optional
        The label column; default the target.
    annotator : str, optional
        Who gave the labels; default the actor.
    name, workspace, actor : optional
        As in `sample`.
    """
    from tidemill.data.ingest import read
    from tidemill.data.versions.operations import relabel_by_key

    with enter(workspace, actor) as door:
        known = _prepare(door, [dataset], name)
        version = relabel_by_key(
            door.workspace,
            dataset,
            read(labels).table,
            words(key),
            label=label,
            annotator=door.actor if annotator is None else annotator,
            name=name,
        )
        return door.made(version, known=version.hash in known)


def split(
    dataset: str,
    shares: Mapping[str, float],
    *,
    stratify: str | None = None,
    group: str | None = None,
    order: str | None = None,
    seed: int = 0,
    name: str | None = None,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Cut a version into datasets ``name.part``, no row in two of them.

    Parameters
    ----------
    dataset : str
        The version.
    shares, stratify, group, order, seed, name
        As in `tidemill.data.versions.operations.split`.
    workspace, actor : optional
        As in `add`.
    """
    from tidemill.data.versions.operations import split as run

    with enter(workspace, actor) as door:
        door.may_read(dataset)
        stem = name or door.version(dataset).dataset
        known: set[str] = set()
        for part in shares:
            door.may_write(f"{stem}.{part}")
            known |= hashes(door, f"{stem}.{part}")
        parts = run(door.workspace, dataset, shares, stratify=stratify, group=group, order=order, seed=seed, name=name)
        return {label: door.made(v, known=v.hash in known) for label, v in parts.items()}


def dedupe(
    dataset: str,
    *,
    by: Sequence[str] | str = (),
    near: bool = False,
    tolerance: float = 0.01,
    similarity: float = 0.8,
    name: str | None = None,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Keep the first of rows that are the same, or nearly.

    Parameters
    ----------
    dataset : str
        The version.
    by, near, tolerance, similarity, name
        As in `tidemill.data.versions.operations.drop_duplicates`.
    workspace, actor : optional
        As in `add`.

    Returns
    -------
    dict
        The version, and ``dropped``: how many rows were left out.
    """
    from tidemill.data.versions.operations import drop_duplicates

    with enter(workspace, actor) as door:
        known = _prepare(door, [dataset], name)
        parent = door.version(dataset)
        version = drop_duplicates(
            door.workspace, parent.hash, by=words(by), near=near, tolerance=tolerance, similarity=similarity, name=name
        )
        if version.hash == parent.hash:
            return {**summary(version), "dropped": 0}
        return {**door.made(version, known=version.hash in known), "dropped": parent.rows - version.rows}


def _prepare(door: Door, refs: Sequence[str], name: str | None) -> set[str]:
    """Check the roles, and return the versions that the new one may turn out to be."""
    if not refs:
        raise NotFoundError("No dataset is named.")
    door.may_read(*refs)
    chosen = name or door.version(refs[0]).dataset
    door.may_write(chosen)
    return hashes(door, chosen) | {door.version(ref).hash for ref in refs}
