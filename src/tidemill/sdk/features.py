"""The feature store: register groups, push rows, ask for values as of a time or for now, match samples."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.store.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill.data.features.joined import Joined
    from tidemill.data.features.online.answer import Answer
    from tidemill.data.features.online.features import OnlineFeatures
    from tidemill.data.features.types import FeatureGroup

Place = Workspace | str | Path | None
"""A workspace that is open, its folder, or None for the usual one."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d|w)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_MOST_NAMES = 20


def duration_s(text: str | float | None, noun: str = "duration") -> float | None:
    """Read a duration in seconds from ``"90s"``, ``"15m"``, ``"12h"``, ``"30d"``, ``"2w"`` or a number of seconds.

    Examples
    --------
    >>> duration_s("1.5h"), duration_s(90), duration_s(None)
    (5400.0, 90.0, None)
    """
    if text is None or isinstance(text, (int, float)):
        return None if text is None else float(text)
    found = _DURATION.fullmatch(text.strip())
    if not found:
        raise OptionError(f"The {noun} {text!r} can't be read.", hint="Write it like 90s, 15m, 12h, 30d or 2w.")
    return float(found[1]) * _SECONDS[found[2]]


@contextmanager
def opened(place: Place) -> Iterator[Workspace]:
    """Open a workspace, and close it unless it was open already."""
    if isinstance(place, Workspace):
        yield place
        return
    with Workspace.open(place) as workspace:
        yield workspace


@contextmanager
def online_features(place: Place = None) -> Iterator[OnlineFeatures]:
    """Open the online features of a workspace; keep them open where rows are read one by one.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = register({"name": "user", "entity": ["user_id"], "features": ["age"]}, workspace=folder)
    ...     with online_features(folder) as online:
    ...         online.row("user", 7).state
    'absent'
    """
    from tidemill.data.features.online.features import OnlineFeatures

    with opened(place) as workspace, OnlineFeatures(workspace) as online:
        yield online


def register(
    definition: FeatureGroup | Mapping[str, Any] | str | Path, *, grow: bool = False, workspace: Place = None
) -> FeatureGroup:
    """Add a feature group; the same definition again changes nothing.

    Parameters
    ----------
    definition : FeatureGroup, mapping, or path of a YAML or JSON file
        ``name``, ``entity`` (names, or ``{name, type}`` with ``int64`` or ``string``), ``features`` (names for float32,
        or ``{name, dtype, default, validation, description}``), and where wanted ``event_time``, ``created_time``,
        ``owner``, ``ttl``, ``freshness``, ``description``, ``packing`` (``float32``, ``float16``, ``int8``).
    grow : bool
        Where the group is there already, add the features that it doesn't have.
    workspace : Workspace or path, optional
        Default as everywhere.

    Raises
    ------
    OptionError
        For a definition that can't be used, or another group of that name.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     register({"name": "user", "entity": ["user_id"], "features": ["age"]}, workspace=folder).name
    'user'
    """
    from tidemill.data.features import registry

    group = _definition(definition)
    with opened(workspace) as place:
        known = {g.name for g in registry.list_groups(place, group.name)}
        if grow and group.name in known:
            return registry.grow(place, group.name, group.features)
        return registry.register(place, group)


def infer_group(
    name: str,
    source: Any,
    *,
    entity: Sequence[str],
    event_time: str,
    created_time: str | None = None,
    ttl: str | float | None = None,
    freshness: str | float | None = None,
    packing: str = "float32",
    owner: str = "",
    description: str = "",
) -> FeatureGroup:
    """Make a definition from a table: each column that is no key and no time becomes a feature of its type.

    For int8 packing the range of each number is that of its column, widened by a tenth on both sides.
    """
    from tidemill.data.features.tables import as_table
    from tidemill.data.features.types import EntityKey, FeatureGroup, Packing

    table = as_table(_typed(source))
    for column in (*entity, event_time, *([created_time] if created_time else [])):
        if column not in table.column_names:
            raise NotFoundError.of("column", column, table.column_names)
    taken = {*entity, event_time, created_time}
    wanted = Packing(_one_of(packing, [p.value for p in Packing], "packing"))
    return FeatureGroup(
        name=name,
        entity=tuple(EntityKey(column, _key_type(table, column)) for column in entity),
        features=tuple(_feature(table, c, wanted) for c in table.column_names if c not in taken),
        event_time=event_time,
        created_time=created_time,
        owner=owner,
        ttl_s=duration_s(ttl, "TTL"),
        freshness_s=duration_s(freshness, "freshness"),
        description=description,
        packing=wanted,
    )


def push(
    group: str,
    source: Any,
    *,
    changes: bool = False,
    offline: bool = False,
    partial: bool = False,
    correct: bool = False,
    assume_utc: bool = False,
    workspace: Place = None,
) -> dict[str, Any]:
    """Add rows to a group's history, and put the newest of each entity online.

    Parameters
    ----------
    group : str
        Name of the group.
    source : table, path, or sequence of mappings
        The rows.
    changes : bool
        The rows name only what changed; all else of an entity stays.
    offline : bool
        Leave the online store as it is (`materialize` brings it up to date).
    partial, correct, assume_utc : bool
        See `tidemill.data.features.push.push`.
    workspace : Workspace or path, optional
        Default as everywhere.

    Returns
    -------
    dict
        ``rows`` that came, ``added`` to the history, and of them ``online``, ``older`` and ``ahead`` (see
        `tidemill.data.features.online.group.Written`).
    """
    from tidemill.data.features import push as history
    from tidemill.data.features.online import push as both
    from tidemill.data.features.online.changes import push_changes
    from tidemill.data.features.registry import get_group

    if changes and (partial or offline or correct):
        raise OptionError("Changes go to both places and name what they like: leave the other options out.")
    if offline:
        with opened(workspace) as place:
            rows = _typed(source, [get_group(place, group)])
            done = history.push(place, group, rows, partial=partial, correct=correct, assume_utc=assume_utc)
            return {"group": group, "rows": done.rows, "added": done.added}
    with online_features(workspace) as online:
        rows = _typed(source, [online.group(group).group])
        if changes:
            out = push_changes(online, group, rows, assume_utc=assume_utc)
        else:
            out = both.push(online, group, rows, partial=partial, correct=correct, assume_utc=assume_utc)
    return {
        "group": group,
        "rows": out.offline.rows,
        "added": out.offline.added,
        "online": out.online.written,
        "older": out.online.older,
        "ahead": out.online.ahead,
    }


def materialize(group: str, *, workspace: Place = None) -> dict[str, Any]:
    """Put the newest row of every entity of the history online."""
    from tidemill.data.features.online.push import materialize as run

    with online_features(workspace) as online:
        done = run(online, group)
    return {"group": group, "entities": done.rows, "written": done.written, "older": done.older}


def groups(*, workspace: Place = None) -> list[dict[str, Any]]:
    """List the feature groups."""
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
            for g in list_groups(place)
        ]


def describe(group: str, *, workspace: Place = None) -> dict[str, Any]:
    """Describe a group: its definition, its rows, and what its packing costs in bytes and in precision."""
    from tidemill.data.features.history import read_history
    from tidemill.data.features.latest import latest
    from tidemill.data.features.online.rows import Layout
    from tidemill.data.features.packing import packing_error
    from tidemill.data.features.registry import get_group

    with opened(workspace) as place:
        found = get_group(place, group)
        newest = latest(place, group)
        facts = {
            **found.to_json(),
            "rows": read_history(place, group).rows,
            "entities": len(newest),
            "row_bytes": Layout.of(found).bitmap_at,
        }
        sample = newest.packed(0, min(len(newest), 1000))
        errors = packing_error(sample, found.packed, found.packing)
        facts["rounding"] = {f.name: float(e) for f, e in zip(found.packed, _steps(found, errors), strict=True) if e}
        return facts


def get(group: str, keys: Sequence[Any], columns: Sequence[str] | None = None, *, workspace: Place = None) -> Answer:
    """Read the newest values of some entities.

    Parameters
    ----------
    group : str
        Name of the group.
    keys : sequence
        Entities: one value each, or a tuple or mapping for a key of several columns.
    columns : sequence of str, optional
        Names of features; all if absent.
    workspace : Workspace or path, optional
        Default as everywhere. To read often, keep `online_features` open.
    """
    with online_features(workspace) as online:
        return online.read(group, keys, columns)


def forget(
    group: str,
    keys: Sequence[Any],
    *,
    dry_run: bool = False,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Erase entities from a feature group: from its history, from its kept states, and from the online store.

    Parameters
    ----------
    group : str
        Name of the group.
    keys : sequence
        Entities, as `get` takes them; text is read as `parse_key` reads it. Unknown ones are fine.
    dry_run : bool
        Only say what would be done.
    workspace : Workspace or path, optional
        Default as everywhere.
    actor : str, optional
        Who asks for it; default ``TIDEMILL_ACTOR``, else the system's user.

    Returns
    -------
    dict
        ``rows`` of the history and ``segments`` that hold such rows, ``online`` (entities that had newest values), and
        ``versions``: datasets that hold copies of such rows, for `tidemill.sdk.data.forget`.
    """
    from tidemill.data.features.forget import forget as run
    from tidemill.data.features.online.answer import ABSENT
    from tidemill.sdk.data.names import actor_name

    with online_features(workspace) as online:
        known = online.group(group)
        entities = [parse_key(known.group, key) if isinstance(key, str) else key for key in keys]
        told = run(online.workspace, group, entities, actor=actor_name(actor), dry_run=dry_run)
        if dry_run:
            gone = sum(state != ABSENT for state in known.read(entities).states) if entities else 0
        else:
            gone = known.delete(entities)
        return {**told.to_json(), "online": gone, "dry_run": dry_run}


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
    spine: Any, features: str | Sequence[str], *, label_time: str, workspace: Place = None, **options: Any
) -> Iterator[Joined]:
    """Join features to the rows of a spine, each as it was known at the row's time.

    See `tidemill.data.features.join.historical` for the options and the result, which is fetched within the block.
    """
    from tidemill.data.features.join import historical as run
    from tidemill.data.features.registry import get_group

    with opened(workspace) as place:
        names = {f.partition(":")[0] for f in ([features] if isinstance(features, str) else features)}
        rows = _typed(spine, [get_group(place, name) for name in sorted(names)])
        yield run(place, rows, features, label_time=label_time, **options)


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


def _typed(source: Any, groups: Sequence[FeatureGroup] = ()) -> Any:
    """Read a text file into typed columns; all else is left as it is.

    Cells of text files are text. Those of the groups' keys and features get their types; of other columns those that
    are numbers throughout become numbers.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from tidemill.data import textforms
    from tidemill.data.features.tables import as_table

    if not isinstance(source, (str, Path)):
        return source
    path = Path(source).expanduser()
    if path.suffix.lower() in (".parquet", ".pq", ".arrow", ".feather"):
        return source  # typed already, and read in parts where it is large
    table = as_table(path)
    kinds = {name: kind for group in groups for name, kind in _kinds(group).items()}
    for at, name in enumerate(table.column_names):
        column = table[name]
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            continue
        kind = kinds.get(name)
        if kind is not None and (pa.types.is_large_string(kind) or pa.types.is_timestamp(kind)):
            trimmed = column if pa.types.is_large_string(kind) else pc.utf8_trim_whitespace(column)
        else:
            trimmed = pc.utf8_trim_whitespace(column)
        gone = pc.is_in(trimmed, value_set=pa.array(sorted(textforms.MISSING), column.type))
        kept = pc.if_else(gone, pa.scalar(None, column.type), trimmed)
        table = table.set_column(at, name, _cast(kept, kind, name, str(path)))
    return table


def _kinds(group: FeatureGroup) -> dict[str, pa.DataType]:
    import pyarrow as pa

    from tidemill.data.features.entities import key_type
    from tidemill.data.features.intake import arrow_type

    features = {f.name: pa.large_string() if f.dtype.is_text else arrow_type(f) for f in group.features}
    times = dict.fromkeys([group.event_time, *([group.created_time] if group.created_time else [])], pa.timestamp("ns"))
    return {k.name: key_type(k) for k in group.entity} | times | features


def _cast(column: pa.ChunkedArray, kind: pa.DataType | None, name: str, where: str) -> pa.ChunkedArray:
    import pyarrow as pa

    if kind is not None and (pa.types.is_large_string(kind) or pa.types.is_timestamp(kind)):
        return column  # times are read where their zone is known
    if kind is not None:
        try:
            return column.cast(pa.float32() if pa.types.is_float16(kind) else kind)
        except pa.ArrowInvalid as error:
            raise DataError(f"A cell of the column {name!r} is no {kind}: {error}.", where=where) from None
    for guess in (pa.int64(), pa.float64(), pa.bool_()):
        try:
            return column.cast(guess)
        except pa.ArrowInvalid:
            continue
    return column


def _definition(definition: FeatureGroup | Mapping[str, Any] | str | Path) -> FeatureGroup:
    from tidemill.data.features.types import FeatureGroup

    if isinstance(definition, FeatureGroup):
        return definition
    if isinstance(definition, (str, Path)):
        return _from_mapping(_read_file(Path(definition).expanduser()), where=str(definition))
    return _from_mapping(definition, where=None)


def _read_file(path: Path) -> Mapping[str, Any]:
    from tidemill.data.ingest._base import existing_file

    existing_file(path)
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        if path.suffix.lower() == ".json":
            found = json.loads(text)
        else:
            import yaml

            found = yaml.safe_load(text)
    except Exception as error:
        if not isinstance(error, ValueError) and type(error).__module__.split(".")[0] != "yaml":
            raise
        raise OptionError(f"The definition can't be read: {error}.", where=str(path)) from error
    if not isinstance(found, Mapping):
        raise OptionError("A definition is a mapping with `name`, `entity` and `features`.", where=str(path))
    return found


_FIELDS = (
    "name",
    "entity",
    "features",
    "event_time",
    "created_time",
    "owner",
    "ttl",
    "ttl_s",
    "freshness",
    "freshness_s",
    "description",
    "packing",
)


def _from_mapping(data: Mapping[str, Any], where: str | None) -> FeatureGroup:
    from tidemill.data.features.types import FeatureGroup

    for name in data:
        if name not in _FIELDS:
            raise NotFoundError.of("setting of a feature group", str(name), _FIELDS)
    for name in ("name", "entity", "features"):
        if not data.get(name):
            raise OptionError(f"The definition has no {name!r}.", where=where)
    body = {k: v for k, v in data.items() if k not in ("ttl", "freshness")}
    body["ttl_s"] = duration_s(data.get("ttl", data.get("ttl_s")), "TTL")
    body["freshness_s"] = duration_s(data.get("freshness", data.get("freshness_s")), "freshness")
    for name in ("entity", "features"):
        given = data[name] if isinstance(data[name], list) else [data[name]]
        body[name] = [{"name": part} if isinstance(part, str) else part for part in given]
    try:
        return FeatureGroup.from_json(body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OptionError(
            f"The definition can't be read: {error}.",
            where=where,
            hint="Entities are names or {name, type}; features are names or {name, dtype, default, …}.",
        ) from error


def _one_of(value: str, known: Sequence[str], noun: str) -> str:
    if value not in known:
        raise NotFoundError.of(noun, value, known)
    return value


def _key_type(table: pa.Table, column: str) -> Any:
    import pyarrow as pa

    from tidemill.data.features.types import KeyType

    return KeyType.INT64 if pa.types.is_integer(table[column].type) else KeyType.STRING


def _feature(table: pa.Table, column: str, packing: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    from tidemill.data.features.types import PACKED_DTYPES, DType, Feature, Packing, Validation

    kind = table[column].type
    if pa.types.is_dictionary(kind):
        return Feature(column, DType.CATEGORY)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return Feature(column, DType.TIMESTAMP)
    names = {"double": "float32", "float": "float32", "halffloat": "float16", "uint16": "int32", "uint32": "int64"}
    text = names.get(str(kind), str(kind))
    try:
        dtype = DType(text)
    except ValueError:
        dtype = DType.STRING
    if packing is not Packing.INT8 or dtype not in PACKED_DTYPES[packing]:
        return Feature(column, dtype)
    bounds = pc.min_max(table[column].cast(pa.float64()).filter(pc.is_finite(table[column]))).as_py()
    low, high = bounds["min"] or 0.0, bounds["max"] or 0.0
    margin = (high - low) / 10 or 1.0
    return Feature(column, dtype, validation=Validation(low=low - margin, high=high + margin))


def _steps(group: FeatureGroup, errors: Any) -> Any:
    """Give the largest rounding error of each feature: of int8 it follows from the range, of float16 it is measured.

    Values that come from a history in that packing are rounded already, so that a second rounding shows nothing.
    """
    from tidemill.data.features.types import Packing

    if group.packing is not Packing.INT8:
        return errors
    return [((f.validation.high or 0.0) - (f.validation.low or 0.0)) / 508 for f in group.packed]
