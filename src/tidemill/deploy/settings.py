"""What a person may set of an endpoint, checked before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from tidemill.core.errors import OptionError, nearest_hint
from tidemill.deploy.types import CapturePolicy, Endpoint, Priority

SETTINGS = (
    "priority", "min_replicas", "max_replicas", "idle_s", "deadline_ms", "target_ms", "features", "capture",
    "deterministic",
)  # fmt: skip
"""Names of the settings; see `Endpoint`."""


def apply(endpoint: Endpoint, settings: Mapping[str, Any]) -> Endpoint:
    """Change settings of an endpoint; fields of ``capture`` that are not given stay.

    Raises
    ------
    OptionError
        For a name that is not known, or a value of the wrong kind.

    Examples
    --------
    >>> apply(Endpoint("fraud"), {"priority": "bulk", "capture": {"sample": 0.1}}).capture.sample
    0.1
    """
    values: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in SETTINGS:
            raise OptionError(f"An endpoint has no setting {name!r}.", hint=nearest_hint(name, SETTINGS))
        values[name] = _value(endpoint, name, value)
    return replace(endpoint, **values)


def _value(endpoint: Endpoint, name: str, value: Any) -> Any:
    if name == "priority":
        kinds = [p.value for p in Priority]
        if value not in kinds:
            raise OptionError(f"priority must be one of {', '.join(kinds)}, but got {value!r}.")
        return Priority(value)
    if name == "features":
        return _names(name, value)
    if name == "capture":
        return _capture(endpoint.capture, value)
    return _like(name, getattr(endpoint, name), value)


def _capture(policy: CapturePolicy, value: Any) -> CapturePolicy:
    if not isinstance(value, Mapping):
        raise OptionError(f"capture must be an object, but got {value!r}.")
    known = {f.name for f in fields(policy)}
    if strange := [n for n in value if n not in known]:
        raise OptionError(f"capture has no field {strange[0]!r}.", hint=nearest_hint(str(strange[0]), known))
    before = asdict(policy)
    after: dict[str, Any] = {
        n: _names(n, v) if n == "redact" else _like(f"capture.{n}", before[n], v) for n, v in value.items()
    }
    policy = replace(policy, **after)
    for name, high in (("sample", 1.0), ("confidence", 1.0), ("slow_ms", None), ("per_hour", None), ("days", None)):
        number = getattr(policy, name)
        if not number >= 0 or (high is not None and number > high):
            span = "at least 0" if high is None else "between 0 and 1"
            raise OptionError(f"capture.{name} must be {span}, but got {number}.")
    return policy


def _like(name: str, model: Any, value: Any) -> Any:
    if isinstance(model, bool):
        fits = isinstance(value, bool)
    elif isinstance(model, int):
        fits = isinstance(value, int) and not isinstance(value, bool)
    else:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not fits:
        raise OptionError(f"{name} must be of the kind of {model!r}, but got {value!r}.")
    return float(value) if isinstance(model, float) else value


def _names(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, (list, tuple)) or any(not isinstance(v, str) for v in value):
        raise OptionError(f"{name} must be a list of names, but got {value!r}.")
    return tuple(value)
