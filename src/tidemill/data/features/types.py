"""The words of the feature store as plain types: groups, features, what their values must be."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import Any

from tidemill.core.errors import NotFoundError, OptionError

FEATURE_GROUP = "feature_group"
"""Kind of the records that hold what feature groups are."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,127}", re.ASCII)
_RESERVED = "__"


class KeyType(str, Enum):
    """Type of one entity key."""

    INT64 = "int64"
    STRING = "string"


class DType(str, Enum):
    """Type of a feature's values. ``TIMESTAMP`` is in UTC; ``CATEGORY`` is a string with few different values."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"
    FLOAT16 = "float16"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    BOOL = "bool"
    STRING = "string"
    CATEGORY = "category"
    TIMESTAMP = "timestamp"

    @property
    def is_float(self) -> bool:
        """True for the three floating types."""
        return self in (DType.FLOAT16, DType.FLOAT32, DType.FLOAT64)

    @property
    def is_text(self) -> bool:
        """True for strings and categories."""
        return self in (DType.STRING, DType.CATEGORY)


class Packing(str, Enum):
    """Number type of a group's packed rows; float16 and int8 are lossy and chosen on purpose."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"


PACKED_DTYPES: Mapping[Packing, frozenset[DType]] = {
    Packing.FLOAT32: frozenset(
        (DType.FLOAT32, DType.FLOAT16, DType.INT8, DType.INT16, DType.UINT8, DType.BOOL),
    ),
    Packing.FLOAT16: frozenset((DType.FLOAT32, DType.FLOAT16, DType.INT8, DType.UINT8, DType.BOOL)),
    Packing.INT8: frozenset((DType.FLOAT32, DType.FLOAT16)),
}
"""Types that go into packed rows. float32 loses nothing of them; float16 and int8 round float32 alone."""


@dataclass(frozen=True)
class Validation:
    """What a feature's values must be; a push that breaks it is refused whole.

    Parameters
    ----------
    low, high : float or None
        Smallest and largest value allowed; for numbers. int8 packing needs both: they are its range.
    nullable : bool
        Whether a value may be missing.
    allowed : tuple
        The only values allowed; empty for any.
    """

    low: float | None = None
    high: float | None = None
    nullable: bool = True
    allowed: tuple[Any, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {"low": self.low, "high": self.high, "nullable": self.nullable, "allowed": list(self.allowed)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Validation:
        """Rebuild from `to_json`."""
        return cls(data.get("low"), data.get("high"), data.get("nullable", True), tuple(data.get("allowed", ())))


@dataclass(frozen=True)
class EntityKey:
    """One part of an entity's key.

    Parameters
    ----------
    name : str
        Name of the column.
    type : KeyType
        ``int64`` or ``string``.
    """

    name: str
    type: KeyType = KeyType.INT64


@dataclass(frozen=True)
class Feature:
    """One feature of a group.

    Parameters
    ----------
    name : str
        Name of the column.
    dtype : DType
        Type of the values. NaN is a missing value.
    default : float, int, bool, str or None
        What is answered, offline and online alike, where there is no value: the cell is missing, the value is
        older than the group's TTL, or the entity is unknown. None answers with null (NaN in packed rows).
    validation : Validation
        What the values must be.
    description : str
        For people.
    """

    name: str
    dtype: DType = DType.FLOAT32
    default: Any = None
    validation: Validation = field(default_factory=Validation)
    description: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON; what is at its default is left out (groups have tens of thousands)."""
        data: dict[str, Any] = {"name": self.name, "dtype": self.dtype.value}
        if self.default is not None:
            data["default"] = self.default
        if self.validation != Validation():
            data["validation"] = self.validation.to_json()
        if self.description:
            data["description"] = self.description
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Feature:
        """Rebuild from `to_json`."""
        return cls(
            data["name"],
            DType(data.get("dtype", "float32")),
            data.get("default"),
            Validation.from_json(data["validation"]) if "validation" in data else _ANYTHING,
            data.get("description", ""),
        )


_ANYTHING = Validation()


@dataclass(frozen=True)
class FeatureGroup:
    """Features that belong to one entity and are written together.

    Parameters
    ----------
    name : str
        Letters, digits, ``_``, ``-`` and ``.``; unique in the workspace.
    entity : tuple of EntityKey
        The key of an entity, one or more columns.
    features : tuple of Feature
        In the order of the packed row. The list only ever grows at its end.
    event_time : str
        Column that says when the values became true.
    created_time : str or None
        Column that says when the values became known; without it, the time of the push.
    owner : str
        Who answers for it.
    ttl_s : float or None
        A value older than this at the asked time counts as missing.
    freshness_s : float or None
        A newest value older than this is stale: it is answered, and said to be stale.
    description : str
        For people.
    packing : Packing
        Number type of packed rows.
    schema_version : int
        1, 2, 3 …; counted up whenever the list of features grows.
    widths : tuple of int
        Number of features at schema version 1, 2, 3 …; tells how wide an older packed row is.

    Examples
    --------
    >>> g = FeatureGroup("user", (EntityKey("user_id"),), (Feature("age"), Feature("city", DType.CATEGORY)))
    >>> [f.name for f in g.packed], [f.name for f in g.others]
    (['age'], ['city'])
    """

    name: str
    entity: tuple[EntityKey, ...]
    features: tuple[Feature, ...]
    event_time: str = "event_time"
    created_time: str | None = None
    owner: str = ""
    ttl_s: float | None = None
    freshness_s: float | None = None
    description: str = ""
    packing: Packing = Packing.FLOAT32
    schema_version: int = 1
    widths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_group(self)
        if not self.widths:
            object.__setattr__(self, "widths", (len(self.features),))
        index = {f.name: i for i, f in enumerate(self.features)}
        packed = tuple(f for f in self.features if f.dtype in PACKED_DTYPES[self.packing])
        others = tuple(f for f in self.features if f.dtype not in PACKED_DTYPES[self.packing])
        object.__setattr__(self, "_index", index)
        object.__setattr__(self, "_packed", packed)
        object.__setattr__(self, "_others", others)

    @property
    def entity_names(self) -> tuple[str, ...]:
        """Names of the key columns."""
        return tuple(k.name for k in self.entity)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features in order."""
        return tuple(f.name for f in self.features)

    @property
    def packed(self) -> tuple[Feature, ...]:
        """Features of the packed row, in its order; that of an older schema version is a prefix of it."""
        packed: tuple[Feature, ...] = self._packed  # type: ignore[attr-defined]  # set in __post_init__
        return packed

    @property
    def others(self) -> tuple[Feature, ...]:
        """Features that no packed row holds exactly (text, 64-bit numbers, times); kept as Arrow columns."""
        others: tuple[Feature, ...] = self._others  # type: ignore[attr-defined]  # set in __post_init__
        return others

    def feature(self, name: str) -> Feature:
        """Find a feature; raises `NotFoundError` with the nearest names."""
        index: dict[str, int] = self._index  # type: ignore[attr-defined]  # set in __post_init__
        if name not in index:
            raise NotFoundError.of(f"feature in group {self.name!r}:", name, index)
        return self.features[index[name]]

    def at_version(self, schema_version: int) -> FeatureGroup:
        """Give the group as it was at an older schema version."""
        if not 1 <= schema_version <= self.schema_version:
            raise OptionError(f"Group {self.name!r} has the schema versions 1 to {self.schema_version}.")
        if schema_version == self.schema_version:
            return self
        width = self.widths[schema_version - 1]
        return replace(
            self,
            features=self.features[:width],
            schema_version=schema_version,
            widths=self.widths[:schema_version],
        )

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {
            "name": self.name,
            "entity": [{"name": k.name, "type": k.type.value} for k in self.entity],
            "features": [f.to_json() for f in self.features],
            "event_time": self.event_time,
            "created_time": self.created_time,
            "owner": self.owner,
            "ttl_s": self.ttl_s,
            "freshness_s": self.freshness_s,
            "description": self.description,
            "packing": self.packing.value,
            "schema_version": self.schema_version,
            "widths": list(self.widths),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FeatureGroup:
        """Rebuild from `to_json`."""
        return cls(
            name=data["name"],
            entity=tuple(EntityKey(k["name"], KeyType(k.get("type", "int64"))) for k in data["entity"]),
            features=tuple(Feature.from_json(f) for f in data["features"]),
            event_time=data.get("event_time", "event_time"),
            created_time=data.get("created_time"),
            owner=data.get("owner", ""),
            ttl_s=data.get("ttl_s"),
            freshness_s=data.get("freshness_s"),
            description=data.get("description", ""),
            packing=Packing(data.get("packing", "float32")),
            schema_version=data.get("schema_version", 1),
            widths=tuple(data.get("widths", ())),
        )


def _check_group(group: FeatureGroup) -> None:
    if not _NAME.fullmatch(group.name):
        raise OptionError(
            f"The name of a feature group has letters, digits, '_', '-' and '.', but got {group.name!r}.",
            hint="Begin with a letter; at most 128 characters.",
        )
    if not group.entity:
        raise OptionError(f"Group {group.name!r} needs at least one entity key.")
    if not group.features:
        raise OptionError(f"Group {group.name!r} needs at least one feature.")
    times = [group.event_time] + ([group.created_time] if group.created_time else [])
    _check_names(group, [*group.entity_names, *times, *group.feature_names])
    for noun, seconds in (("ttl_s", group.ttl_s), ("freshness_s", group.freshness_s)):
        if seconds is not None and not (seconds > 0 and math.isfinite(seconds)):
            raise OptionError(f"`{noun}` must be a positive number of seconds, but got {seconds}.")
    for feature in group.features:
        _check_feature(feature, group)


def _check_names(group: FeatureGroup, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not name or not name.isprintable() or name.startswith(_RESERVED):
            raise OptionError(
                f"A column of group {group.name!r} must be printable text that doesn't begin with '__', "
                f"but got {name!r}."
            )
        if name in seen:
            raise OptionError(f"There are two columns {name!r} in group {group.name!r}.")
        seen.add(name)


def _check_feature(feature: Feature, group: FeatureGroup) -> None:
    rule = feature.validation
    if rule is _ANYTHING and feature.default is None and group.packing is not Packing.INT8:
        return  # the common case, tens of thousands of times
    if rule.low is not None and rule.high is not None and not rule.low <= rule.high:
        raise OptionError(
            f"`low <= high` must hold, but got (low={rule.low}, high={rule.high}).", where=f"feature {feature.name!r}"
        )
    ranged = not (feature.dtype.is_text or feature.dtype in (DType.BOOL, DType.TIMESTAMP))
    if not ranged and not (rule.low is None and rule.high is None):
        raise OptionError("A range is for numbers.", where=f"feature {feature.name!r}")
    packs = feature.dtype in PACKED_DTYPES[group.packing]
    if group.packing is Packing.INT8 and packs and (rule.low is None or rule.high is None or rule.low == rule.high):
        raise OptionError(
            "int8 packing needs a range.",
            hint="Give `low` and `high` in the feature's validation, or pack as float32.",
            where=f"feature {feature.name!r}",
        )
    if feature.default is not None and not _fits(feature.default, feature.dtype):
        raise OptionError(
            f"The default {feature.default!r} is no {feature.dtype.value}.", where=f"feature {feature.name!r}"
        )


_BOUNDS = {
    DType.INT8: (-(2**7), 2**7 - 1),
    DType.INT16: (-(2**15), 2**15 - 1),
    DType.INT32: (-(2**31), 2**31 - 1),
    DType.INT64: (-(2**63), 2**63 - 1),
    DType.UINT8: (0, 2**8 - 1),
    DType.FLOAT16: (-65504.0, 65504.0),
    DType.FLOAT32: (-3.4028234663852886e38, 3.4028234663852886e38),
    DType.FLOAT64: (-math.inf, math.inf),
}


def _fits(value: Any, dtype: DType) -> bool:
    if dtype.is_text:
        return isinstance(value, str)
    if dtype is DType.TIMESTAMP:
        return isinstance(value, str) and _is_zoned_time(value)
    if dtype is DType.BOOL:
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, (int, float) if dtype.is_float else int):
        return False
    low, high = _BOUNDS[dtype]
    return low <= value <= high


def _is_zoned_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).tzinfo is not None
    except ValueError:
        return False
