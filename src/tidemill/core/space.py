"""The conditional search space, and points in it.

A `Space` is data: an ordered list of parameters, each with a range and, where it is conditional, a `When`.
It goes to JSON and back, samplers walk it in order, and a `Config` is checked against it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidemill.core.errors import SpaceError, nearest_hint
from tidemill.core.trial import Config

Value = bool | int | float | str | None


@dataclass(frozen=True)
class When:
    """A parameter is active only while another, earlier one has one of some values."""

    param: str
    values: tuple[Value, ...]

    def holds(self, config: Config) -> bool:
        """True where ``config`` makes the parameter active."""
        return self.param in config and config[self.param] in self.values


@dataclass(frozen=True)
class Float:
    """A real number in ``[low, high]``, on a logarithmic scale if ``log``."""

    name: str
    low: float
    high: float
    default: float
    log: bool = False
    when: tuple[When, ...] = ()

    def __post_init__(self) -> None:
        _check_range(self.name, self.low, self.high, self.log)
        _check_default(self)

    def sample(self, rng: np.random.Generator) -> float:
        """Draw a value uniformly on the parameter's scale."""
        if self.log:
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = float(rng.uniform(self.low, self.high))
        return min(max(value, self.low), self.high)

    def contains(self, value: object) -> bool:
        """True for a finite number within the range."""
        return isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"[{self.low}, {self.high}]"


@dataclass(frozen=True)
class Int:
    """A whole number in ``[low, high]``, on a logarithmic scale if ``log``."""

    name: str
    low: int
    high: int
    default: int
    log: bool = False
    when: tuple[When, ...] = ()

    def __post_init__(self) -> None:
        _check_range(self.name, self.low, self.high, self.log)
        _check_whole(self.name, self.low, self.high)
        _check_default(self)

    def sample(self, rng: np.random.Generator) -> int:
        """Draw a value uniformly on the parameter's scale."""
        if self.log:
            value = round(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))
            return int(min(max(value, self.low), self.high))
        return int(rng.integers(self.low, self.high, endpoint=True))

    def contains(self, value: object) -> bool:
        """True for a whole number within the range."""
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"the whole numbers {self.low}..{self.high}"


@dataclass(frozen=True)
class Categorical:
    """One of a fixed set of values."""

    name: str
    choices: tuple[Value, ...]
    default: Value
    when: tuple[When, ...] = ()

    def __post_init__(self) -> None:
        if not self.choices or len(set(self.choices)) != len(self.choices):
            raise SpaceError(f"`choices` must be distinct and not empty for {self.name!r}, but got {self.choices}.")
        _check_default(self)

    def sample(self, rng: np.random.Generator) -> Value:
        """Draw one of the choices with equal chance."""
        return self.choices[int(rng.integers(len(self.choices)))]

    def contains(self, value: object) -> bool:
        """True for one of the choices."""
        return any(value == c and type(value) is type(c) for c in self.choices)

    def __str__(self) -> str:
        return " | ".join(repr(c) for c in self.choices)


Param = Float | Int | Categorical
_TYPES: dict[str, type[Float] | type[Int] | type[Categorical]] = {
    "float": Float,
    "int": Int,
    "categorical": Categorical,
}


def _check_range(name: str, low: float, high: float, log: bool) -> None:
    if not (low <= high and math.isfinite(low) and math.isfinite(high)):
        raise SpaceError(f"`low <= high` must hold for {name!r}, but got ({low=}, {high=}).")
    if log and low <= 0:
        raise SpaceError(f"A logarithmic range must be positive for {name!r}, but got ({low=}).")


def _check_whole(name: str, *bounds: object) -> None:
    if any(type(v) is not int for v in bounds):
        raise SpaceError(f"The bounds of {name!r} must be whole, but got {bounds}.")


def _check_default(param: Param) -> None:
    if not param.contains(param.default):
        raise SpaceError(f"The default {param.default!r} of {param.name!r} is outside {param}.")


class Space:
    """An ordered, conditional set of parameters.

    Parameters
    ----------
    params : iterable of Float, Int or Categorical
        In such an order that conditions look back only.

    Examples
    --------
    >>> space = Space([
    ...     Categorical("family", ("linear", "forest"), "linear"),
    ...     Int("forest.trees", 50, 500, 100, log=True, when=(When("family", ("forest",)),)),
    ... ])
    >>> space.default()
    {'family': 'linear'}
    >>> Space.from_json(space.to_json()) == space
    True
    """

    def __init__(self, params: Iterable[Param]) -> None:
        self.params: tuple[Param, ...] = tuple(params)
        seen: set[str] = set()
        for param in self.params:
            if param.name in seen:
                raise SpaceError(f"The parameter {param.name!r} stands twice in the space.")
            for when in param.when:
                if when.param not in seen:
                    raise SpaceError(f"{param.name!r} depends on {when.param!r}, which must stand before it.")
            seen.add(param.name)

    def __iter__(self) -> Iterator[Param]:
        return iter(self.params)

    def __len__(self) -> int:
        return len(self.params)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.params == other.params

    def __hash__(self) -> int:
        return hash(self.params)

    def __add__(self, other: Space) -> Space:
        return Space((*self.params, *other.params))

    def active(self, param: Param, config: Config) -> bool:
        """True where every condition of ``param`` holds in ``config``."""
        return all(w.holds(config) for w in param.when)

    def sample(self, rng: np.random.Generator) -> Config:
        """Draw a config, each active parameter on its own scale."""
        config: Config = {}
        for param in self.params:
            if self.active(param, config):
                config[param.name] = param.sample(rng)
        return config

    def default(self, **fixed: Value) -> Config:
        """Return the config of all defaults, with some values fixed (dots in names as ``__``)."""
        given = {k.replace("__", "."): v for k, v in fixed.items()}
        names = [p.name for p in self.params]
        for name in given:
            if name not in names:
                raise SpaceError(f"{name!r} is not a parameter of the space.", hint=nearest_hint(name, names))
        return self.complete(given)

    def complete(self, partial: Config) -> Config:
        """Fill the active parameters that ``partial`` leaves out with their defaults; drop inactive ones."""
        config: Config = {}
        for param in self.params:
            if self.active(param, config):
                config[param.name] = partial.get(param.name, param.default)
        return config

    def check(self, config: Config) -> None:
        """Raise `SpaceError` with all that is wrong with ``config``."""
        wrong: list[str] = []
        known = {p.name: p for p in self.params}
        wrong += [f"{name!r} is not a parameter" for name in config if name not in known]
        for param in self.params:
            active = self.active(param, config)
            if active and param.name not in config:
                wrong.append(f"{param.name!r} is missing")
            elif not active and param.name in config:
                wrong.append(f"{param.name!r} is given, but not active")
            elif active and not param.contains(config[param.name]):
                wrong.append(f"{param.name!r} is {config[param.name]!r}, outside {param}")
        if wrong:
            raise SpaceError("The config does not fit the space: " + "; ".join(wrong) + ".")

    def to_json(self) -> list[dict[str, Any]]:
        """Plain list for JSON."""
        out: list[dict[str, Any]] = []
        for p in self.params:
            item: dict[str, Any] = {"type": type(p).__name__.lower(), "name": p.name, "default": p.default}
            if isinstance(p, Categorical):
                item["choices"] = list(p.choices)
            else:
                item |= {"low": p.low, "high": p.high, "log": p.log}
            if p.when:
                item["when"] = [{"param": w.param, "values": list(w.values)} for w in p.when]
            out.append(item)
        return out

    @classmethod
    def from_json(cls, data: list[dict[str, Any]]) -> Space:
        """Rebuild from `to_json`."""
        params: list[Param] = []
        for item in data:
            if item.get("type") not in _TYPES:
                raise SpaceError(f"{item.get('type')!r} is not a type of parameter.", hint=nearest_hint("", _TYPES))
            fields = {k: v for k, v in item.items() if k not in ("type", "when")}
            if "choices" in fields:
                fields["choices"] = tuple(fields["choices"])
            when = tuple(When(w["param"], tuple(w["values"])) for w in item.get("when", ()))
            params.append(_TYPES[item["type"]](**fields, when=when))
        return cls(params)


def config_key(config: Config) -> str:
    """Canonical text of a config: equal configs give equal keys.

    Examples
    --------
    >>> config_key({"b": 1, "a": 0.5})
    '{"a": 0.5, "b": 1}'
    """
    return json.dumps(config, sort_keys=True)
