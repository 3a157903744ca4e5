"""Rows chosen for one need: samples by conditions, and groups that can be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.core.errors import DataError, NotFoundError, OptionError, WorkspaceError
from tidemill.sdk.data.doors import Door, Place, enter, words

if TYPE_CHECKING:
    from tidemill.data.matching import Match, Similar
    from tidemill.data.versions import DatasetVersion

_GROUP = "group:"


def match(
    source: str,
    where: str | None = None,
    *,
    as_of: Any = None,
    size: int | None = None,
    balance: str | None = None,
    stratify: Sequence[str] | str = (),
    similar_to: Similar | str | None = None,
    over: Sequence[str] | str = (),
    metric: str = "l2",
    model: str | None = None,
    show: Sequence[str] | str = (),
    seed: int = 0,
    replay: Mapping[str, Any] | str | Path | None = None,
    name: str | None = None,
    out: str | Path | None = None,
    save: str | Path | None = None,
    with_pii: bool = False,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Choose a sample by conditions, and show how it is distributed before anything is copied.

    Parameters
    ----------
    source : str
        A dataset version, or a feature group (``group:NAME``, or its name alone).
    where, as_of, size, balance, stratify, model, show, seed
        As in `tidemill.data.matching.match`.
    similar_to : str or Similar, optional
        Take the rows first that are nearest to those on which this condition is true.
    over : sequence of str
        With a condition in ``similar_to``: numeric columns over which distance is measured.
    metric : str
        ``"l2"`` or ``"cosine"``.
    replay : path, version or mapping, optional
        Ask the question of an earlier sample again: a file that ``save`` wrote, a version that was matched, or a
        ``manifest``. Nothing but ``as_of`` may be said anew.
    name : str, optional
        Keep the sample as a version of this dataset.
    out : path, optional
        Write the sample to this Parquet file, without columns that are marked as personal data.
    save : path, optional
        Write the manifest to this file (JSON), for ``replay``.
    with_pii : bool
        Write columns of personal data, too; only a writer or an owner of the dataset may ask for it.
    workspace : Workspace or path, optional
        Default as everywhere.
    actor : str, optional
        Who asks; default ``TIDEMILL_ACTOR``, else the system's user.

    Returns
    -------
    dict
        ``total``, ``matched`` and ``size`` in rows, ``preview`` of the distributions, the ``manifest``; ``version``
        where one was kept, ``out`` and ``without`` (columns left out) where rows were written.

    Examples
    --------
    >>> from tidemill.sdk import data
    >>> data.match("people", "age between 20 and 30", size=500, balance="label")["size"]  # doctest: +SKIP
    500
    """
    from tidemill.data import matching

    with enter(workspace, actor) as door:
        ref = _readable(door, source)
        _may_keep(door, ref, name)
        if replay is not None:
            asked = {"a condition": where, "size": size, "balance": balance, "stratify": words(stratify),
                     "similar_to": similar_to, "model": model}  # fmt: skip
            _nothing_else(asked)
            found = matching.replay(door.workspace, _manifest(door, replay), ref, as_of=as_of)
        else:
            found = matching.match(
                door.workspace, ref, where, as_of=as_of, size=size, balance=balance, stratify=words(stratify),
                similar_to=_similar(similar_to, words(over), metric), model=model, show=words(show), seed=seed,
            )  # fmt: skip
        manifest = found.manifest(door.workspace)
        facts: dict[str, Any] = {
            "source": source,
            "total": found.total,
            "matched": found.matched,
            "size": found.size,
            "preview": [shape.to_json() for shape in found.preview],
            "manifest": manifest,
        }
        if save is not None:
            facts["save"] = _write(save, (json.dumps(manifest, indent=2) + "\n").encode())
        if out is not None:
            facts["without"] = _rows_out(door, ref, found, Path(out), with_pii)
            facts["out"] = str(out)
        if name is not None:
            facts["version"] = _keep(door, ref, found.to_version(door.workspace, name))
        return facts


def compare(
    source: str,
    treated: str,
    on: Sequence[str] | str,
    *,
    where: str | None = None,
    exact: Sequence[str] | str = (),
    method: str = "propensity",
    caliper: float | None = None,
    ratio: int = 1,
    replace: bool = False,
    seed: int = 0,
    outcome: str | None = None,
    plot: str | Path | None = None,
    name: str | None = None,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Find for those who were treated partners who were not and who are otherwise alike, and say how alike they are.

    Parameters
    ----------
    source : str
        A dataset version, or a feature group.
    treated, on, where, exact, method, caliper, ratio, replace, seed
        As in `tidemill.data.matching.compare`; columns also as a text with commas.
    outcome : str, optional
        Column whose mean difference between the groups is told.
    plot : path, optional
        Draw the balance: ``.svg`` or ``.png``.
    name : str, optional
        Keep both groups as a version of this dataset.
    workspace, actor : optional
        As in `match`.

    Returns
    -------
    dict
        The question (``condition`` says who was treated), ``pairs``, ``treated`` and ``controls`` (rows),
        ``without_partner``, the ``balance`` of every
        covariate (standardised mean difference and ratio of variances, before and after), and where asked for
        ``effect`` (``mean`` and ``error``), ``plot`` and ``version``.

    Examples
    --------
    >>> from tidemill.sdk import data
    >>> data.compare("visits", "campaign = 'yes'", "age,region", plot="balance.svg")["pairs"]  # doctest: +SKIP
    812
    """
    from tidemill.data import matching

    form = None if plot is None else _picture(Path(plot))
    with enter(workspace, actor) as door:
        ref = _readable(door, source)
        _may_keep(door, ref, name)
        if method not in ("propensity", "nearest"):
            raise OptionError(f"A method is 'propensity' or 'nearest', but got {method!r}.", where="--method")
        chosen: Any = method
        found = matching.compare(
            door.workspace, ref, treated, words(on), where=where, exact=words(exact), method=chosen, caliper=caliper,
            ratio=ratio, replace=replace, seed=seed,
        )  # fmt: skip
        facts = {**found.to_json(), "source": source, "condition": found.question["treated"]}
        if outcome is not None:
            mean, error = found.effect(outcome)
            facts["effect"] = {"outcome": outcome, "mean": mean, "error": error}
        if plot is not None and form is not None:
            facts["plot"] = _write(plot, found.plot(form=form))
        if name is not None:
            facts["version"] = _keep(door, ref, found.to_version(door.workspace, name))
        return facts


def _readable(door: Door, source: str) -> str:
    """Say what a name means, and refuse who may not read it."""
    from tidemill.data.features.access import check_access
    from tidemill.data.features.registry import list_groups
    from tidemill.data.versions import list_versions
    from tidemill.data.versions.governance import Role

    groups = {g.name for g in list_groups(door.workspace)}
    if source.startswith(_GROUP) or source in groups:
        name = source.removeprefix(_GROUP)
        check_access(door.workspace, name, door.actor, Role.READER)
        return _GROUP + name
    if not source.strip():
        raise OptionError("Say what to match from: a dataset, or a feature group.")
    try:
        door.may_read(source)
    except NotFoundError:
        if not groups or "@" in source:
            raise
        known = groups | {v.dataset for v in list_versions(door.workspace)}
        raise NotFoundError.of("dataset or feature group", source, known) from None
    return source


def _may_keep(door: Door, ref: str, name: str | None) -> None:
    if name is None:
        return
    if not name.strip():
        raise OptionError("A dataset needs a name.", where="--name")
    door.may_write(name)


def _keep(door: Door, ref: str, version: DatasetVersion) -> str:
    from tidemill.data.features.access import facts_of
    from tidemill.data.versions.governance import inherit

    if ref.startswith(_GROUP):  # a copy of its values is no more open than the group is
        told = facts_of(door.workspace, ref.removeprefix(_GROUP))
        inherit(door.workspace, version, actor=door.actor, also=[told])
    door.made(version)
    return version.hash


def _nothing_else(asked: Mapping[str, Any]) -> None:
    said = [noun for noun, value in asked.items() if value]
    if said:
        raise OptionError(
            f"A replay asks what was asked before, so {said[0]} can't be given.",
            hint="Leave it out, or ask a new question without --replay.",
            where="--replay",
        )


def _similar(given: Similar | str | None, over: Sequence[str], metric: str) -> Similar | None:
    from tidemill.data.matching import Similar

    if given is None or isinstance(given, Similar):
        if over and given is None:
            raise OptionError("Similar to what?", hint="Say --similar-to CONDITION.", where="--over")
        return given
    if not over:
        raise OptionError("Over which columns shall rows be alike?", hint="Say --over age,income.", where="--over")
    if metric not in ("l2", "cosine"):
        raise OptionError(f"A distance is 'l2' or 'cosine', but got {metric!r}.", where="--metric")
    chosen: Any = metric
    return Similar(tuple(over), where=given, metric=chosen)


def _manifest(door: Door, given: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    """Find the manifest of an earlier sample: as it is, in a file, or in the lineage of a version."""
    if isinstance(given, Mapping):
        return given
    path = Path(given)
    if path.is_file():
        return _read_manifest(path)
    try:
        version = door.version(str(given))
    except NotFoundError as error:
        raise NotFoundError(
            f"There is neither a file nor a version {str(given)!r}.", hint=error.hint, where="--replay"
        ) from None
    door.may_read(str(given))
    if version.operation != "match":
        raise DataError(
            f"{version.ref} was made by {version.operation}; only a version that was matched can be replayed.",
            where="--replay",
        )
    return version.parameters


def _read_manifest(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"The selection can't be read: {error}.", where=str(path)) from error
    found = found.get("manifest", found) if isinstance(found, Mapping) else found  # of --json, too
    if not isinstance(found, Mapping) or found.get("kind") != "match":
        raise DataError(
            "This is no selection.", hint="One is written by: tidemill data match … --save FILE.", where=str(path)
        )
    return found


def _rows_out(door: Door, ref: str, found: Match, path: Path, with_pii: bool) -> list[str]:
    """Write the rows, without what is marked as personal; returns the columns that were left out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tidemill.data.versions.governance import audit, facts_of

    names, left = list(found.resident.source.names), []
    if not ref.startswith(_GROUP):
        version = door.version(ref)
        if with_pii:
            door.may_write(version.dataset)
        else:
            marked = facts_of(door.workspace, version.dataset).pii
            left = [n for n in names if n in marked]
        told = {"version": version.hash, "without": left, "rows": found.size}
        audit(door.workspace, "dataset_exported", version.dataset, door.actor, told)
    rows = found.table([n for n in names if n not in left])
    try:
        pq.write_table(rows, str(path))
    except (OSError, pa.ArrowException) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise WorkspaceError(f"The sample can't be written: {said}.", where=str(path)) from error
    return left


def _picture(path: Path) -> Any:
    form = {".svg": "svg", ".png": "png"}.get(path.suffix.lower())
    if form is None:
        raise OptionError("A picture ends in .svg or .png.", where=str(path))
    return form


def _write(out: str | Path, data: bytes) -> str:
    path = Path(out)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise OptionError(f"The file can't be written: {error.strerror}.", where=str(path)) from error
    return str(path)
