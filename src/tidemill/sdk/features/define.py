"""Feature groups come about: defined by words, by a file or after a table, and registered."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.sdk.data.names import actor_name
from tidemill.sdk.features.doors import Place, may, opened
from tidemill.sdk.features.typed import typed

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill.data.features.types import FeatureGroup

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d|w)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


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


def register(
    definition: FeatureGroup | Mapping[str, Any] | str | Path,
    *,
    grow: bool = False,
    workspace: Place = None,
    actor: str | None = None,
) -> FeatureGroup:
    """Add a feature group; the same definition again changes nothing.

    Parameters
    ----------
    definition : FeatureGroup, mapping, or path of a YAML or JSON file
        ``name``, ``entity`` (names, or ``{name, type}`` with ``int64`` or ``string``), ``features`` (names for float32,
        or ``{name, dtype, default, validation, description}``), and where wanted ``event_time``, ``created_time``,
        ``owner``, ``ttl``, ``freshness``, ``description``, ``packing`` (``float32``, ``float16``, ``int8``).
    grow : bool
        Where the group is there already, add the features that it doesn't have. Needs a writer.
    workspace : Workspace or path, optional
        Default as everywhere.
    actor : str, optional
        Who does it; default ``TIDEMILL_ACTOR``, else the system's user.

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
            who = may(place, group.name, actor, "writer")
            return registry.grow(place, group.name, group.features, actor=who)
        return registry.register(place, group, actor=actor_name(actor))


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

    table = as_table(typed(source))
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
    import yaml

    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        if path.suffix.lower() == ".json":
            found = json.loads(text)
        else:
            found = yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
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
