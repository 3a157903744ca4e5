"""What there is: groups, newest values, values as of a time, samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tidemill.core.errors import DataError
from tidemill.sdk.data.names import actor_name
from tidemill.sdk.features.doors import Place, may, online_features, opened
from tidemill.sdk.features.typed import typed

if TYPE_CHECKING:
    from tidemill.data.features.joined import Joined
    from tidemill.data.features.online.answer import Answer
    from tidemill.data.features.types import FeatureGroup


def groups(*, workspace: Place = None, actor: str | None = None) -> list[dict[str, Any]]:
    """List the feature groups that may be read."""
    from tidemill.data.features.access import readable
    from tidemill.data.features.history import read_history
    from tidemill.data.features.registry import list_groups

    with opened(workspace) as place:
        return [
            {
                "group": g.name,
                "entity": ", ".join(g.entity_names),
                "features": len(g.features),
                "rows": read_history(place, g.name).rows,
                "packing": g.packing.value,
                "ttl_s": g.ttl_s,
                "owner": g.owner,
                "description": g.description,
            }
            for g in readable(place, list_groups(place), actor_name(actor))
        ]


def describe(group: str, *, workspace: Place = None, actor: str | None = None) -> dict[str, Any]:
    """Describe a group: its definition, its roles, its rows, and what its packing costs in bytes and in precision."""
    from tidemill.data.features.access import roles_of
    from tidemill.data.features.history import read_history
    from tidemill.data.features.latest import latest
    from tidemill.data.features.online.rows import Layout
    from tidemill.data.features.packing import packing_error
    from tidemill.data.features.registry import get_group

    with opened(workspace) as place:
        found = get_group(place, group)
        may(place, group, actor, "reader")
        newest = latest(place, group)
        facts = {
            **found.to_json(),
            "roles": {who: role.value for who, role in roles_of(place, group).items()},
            "rows": read_history(place, group).rows,
            "entities": len(newest),
            "row_bytes": Layout.of(found).bitmap_at,
        }
        sample = newest.packed(0, min(len(newest), 1000))
        errors = packing_error(sample, found.packed, found.packing)
        facts["rounding"] = {f.name: float(e) for f, e in zip(found.packed, _steps(found, errors), strict=True) if e}
        return facts


def verify(group: str, *, workspace: Place = None, actor: str | None = None) -> dict[str, Any]:
    """Check every byte that is kept of a group's history.

    Parameters
    ----------
    group : str
        Name of the group.
    workspace : Workspace or path, optional
        Default as everywhere.
    actor : str, optional
        Who asks: a reader of the group. Default ``TIDEMILL_ACTOR``, else the system's user.

    Returns
    -------
    dict
        ``group``, ``rows``, ``segments`` and ``problems``: one sentence for each damaged file, naming it.

    Raises
    ------
    NotFoundError
        For an unknown group.
    RoleError
        Where the actor may not read it.

    Examples
    --------
    >>> import tempfile
    >>> from tidemill.sdk import features
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = features.register({"name": "user", "entity": ["id"], "features": ["age"]}, workspace=folder)
    ...     rows = [{"id": 1, "age": 31.0, "event_time": "2026-01-01T00:00:00Z"}]
    ...     _ = features.push("user", rows, offline=True, workspace=folder)
    ...     features.verify("user", workspace=folder)
    {'group': 'user', 'rows': 1, 'segments': 1, 'problems': []}
    """
    from tidemill.data.features.history import read_history
    from tidemill.data.features.history import verify as run
    from tidemill.data.features.registry import get_group

    with opened(workspace) as place:
        found = get_group(place, group)
        may(place, found.name, actor, "reader")
        history = read_history(place, found.name)
        problems = run(place, found.name)
    return {"group": found.name, "rows": history.rows, "segments": len(history.segments), "problems": problems}


def get(
    group: str,
    keys: Sequence[Any],
    columns: Sequence[str] | None = None,
    *,
    workspace: Place = None,
    actor: str | None = None,
) -> Answer:
    """Read the newest values of some entities.

    Parameters
    ----------
    group : str
        Name of the group.
    keys : sequence
        Entities: one value each, or a tuple or mapping for a key of several columns; text is read as `parse_key` reads
        it.
    columns : sequence of str, optional
        Names of features; all if absent.
    workspace : Workspace or path, optional
        Default as everywhere. To read often, keep `online_features` open.
    actor : str, optional
        Who asks: a reader of the group. Default ``TIDEMILL_ACTOR``, else the system's user.
    """
    with online_features(workspace) as online:
        known = online.group(group)
        may(online.workspace, group, actor, "reader")
        return known.read(entities_of(known.group, keys), columns)


def entities_of(group: FeatureGroup, keys: Sequence[Any]) -> list[Any]:
    """Give entities as stores take them: text is read by `parse_key`, all else is left as it is."""
    return [parse_key(group, key) if isinstance(key, str) else key for key in keys]


def parse_key(group: FeatureGroup, text: str) -> Any:
    """Read an entity's key from text: ``7``, or ``shop=1,user=a`` for a key of several columns.

    Raises
    ------
    DataError
        Where it is no key of the group.
    """
    from tidemill.data.features.types import KeyType

    parts = [text] if len(group.entity) == 1 else text.split(",")
    named = dict(part.split("=", 1) for part in parts if "=" in part) if len(group.entity) > 1 else {}
    values: list[Any] = []
    for key in group.entity:
        value = text if len(group.entity) == 1 else named.get(key.name)
        if value is None:
            shape = ",".join(f"{k.name}=…" for k in group.entity)
            raise DataError(f"The key {text!r} doesn't say {key.name!r}.", hint=f"Write it like {shape}")
        if key.type is KeyType.INT64:
            try:
                values.append(int(value))
            except ValueError:
                raise DataError(f"The entity key {key.name!r} must be a whole number, but got {value!r}.") from None
        else:
            values.append(value)
    return values[0] if len(values) == 1 else tuple(values)


@contextmanager
def historical(
    spine: Any,
    features: str | Sequence[str],
    *,
    label_time: str,
    workspace: Place = None,
    actor: str | None = None,
    **options: Any,
) -> Iterator[Joined]:
    """Join features to the rows of a spine, each as it was known at the row's time.

    See `tidemill.data.features.join.historical` for the options and the result, which is fetched within the block. The
    actor must be a reader of every group, and owns the dataset versions that are made of it.
    """
    from tidemill.data.features.join import historical as run
    from tidemill.data.features.registry import get_group

    with opened(workspace) as place:
        names = {f.partition(":")[0] for f in ([features] if isinstance(features, str) else features)}
        groups = [get_group(place, name) for name in sorted(names)]
        who = may(place, names, actor, "reader")
        joined = run(place, typed(spine, groups), features, label_time=label_time, **options)
        joined.actor = who
        yield joined


def match(source: str, where: str | None = None, *, workspace: Place = None, **options: Any) -> dict[str, Any]:
    """Choose a sample by conditions; the same as `tidemill.sdk.data.match`, which tells the options.

    Parameters
    ----------
    source : str
        A feature group, or a dataset version.
    where : str, optional
        Condition as in SQL after WHERE.
    workspace : Workspace or path, optional
        Default as everywhere.
    **options
        ``as_of``, ``size``, ``balance``, ``stratify``, ``similar_to``, ``over``, ``metric``, ``model``, ``show``,
        ``seed``, ``replay``, ``name``, ``out``, ``save``, ``with_pii``, ``actor``.

    Returns
    -------
    dict
        ``total``, ``matched`` and ``size`` in rows, ``preview`` of the distributions, the ``manifest`` that ``replay``
        takes, and ``version`` where one was kept.
    """
    from tidemill.sdk.data import match as run

    return run(source, where, workspace=workspace, **options)


def _steps(group: FeatureGroup, errors: Any) -> Any:
    """Give the largest rounding error of each feature: of int8 it follows from the range, of float16 it is measured.

    Values that come from a history in that packing are rounded already, so that a second rounding shows nothing.
    """
    from tidemill.data.features.types import Packing

    if group.packing is not Packing.INT8:
        return errors
    return [((f.validation.high or 0.0) - (f.validation.low or 0.0)) / 508 for f in group.packed]
