"""What a body or a query may hold: typed fields that check values and describe themselves for OpenAPI."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidemill.core.errors import OptionError, nearest_hint

_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
_USUAL = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}
"""What values of a kind nearly always are; no more need be asked of them."""
_MOST_ITEMS = 10_000


@dataclass(frozen=True)
class Field:
    """One value.

    Parameters
    ----------
    kind : str
        A type of JSON.
    about : str
        For people.
    required : bool
        Must be given.
    default : Any
        What it is where it is not given.
    choices : sequence of str
        What a text may be.
    low, high : float, optional
        Bounds of a number; of the length of a text or list.
    items : str
        Type of the members of a list, or of the values of an object; empty for any.
    """

    kind: str
    about: str
    required: bool = False
    default: Any = None
    choices: Sequence[str] = ()
    low: float | None = None
    high: float | None = None
    items: str = ""

    def check(self, name: str, value: Any) -> Any:
        """Give the value if it fits; raises `OptionError`."""
        if not _is(self.kind, value):
            raise OptionError(f"{name} must be of the type {self.kind}, but got {_short(value)}.", where=name)
        if self.choices and value not in self.choices:
            raise OptionError(
                f"{name} can't be {_short(value)}.", where=name, hint=nearest_hint(str(value), self.choices)
            )
        size, high = value, self.high
        if isinstance(value, (list, dict)):
            if self.items:
                self._check_members(name, value.values() if isinstance(value, dict) else value)
            size, high = len(value), _MOST_ITEMS if high is None else high
        elif isinstance(value, str):
            size = len(value)
        if (self.low is not None and size < self.low) or (high is not None and size > high):
            raise OptionError(f"{name} must lie within {self._span(high)}, but is {_short(size)}.", where=name)
        return value

    def _check_members(self, name: str, members: Iterable[Any]) -> None:
        for member in members:
            if not _is(self.items, member):
                raise OptionError(f"{name} must hold values of the type {self.items}.", where=name)

    def _span(self, high: float | None) -> str:
        return f"[{'-∞' if self.low is None else self.low}, {'∞' if high is None else high}]"

    def schema(self) -> dict[str, Any]:
        """JSON Schema."""
        out: dict[str, Any] = {"type": self.kind, "description": self.about}
        if self.choices:
            out["enum"] = list(self.choices)
        names = {"string": ("minLength", "maxLength"), "array": ("minItems", "maxItems")}
        names["object"] = ("minProperties", "maxProperties")
        for name, bound in zip(names.get(self.kind, ("minimum", "maximum")), (self.low, self.high), strict=True):
            if bound is not None:
                out[name] = bound
        if self.items:
            out["items" if self.kind == "array" else "additionalProperties"] = {"type": self.items}
        if not self.required and self.default is not None:
            out["default"] = self.default
        return out


Shape = Mapping[str, Field]
"""Fields by name."""


def read(shape: Shape, document: Any) -> dict[str, Any]:
    """Check a JSON object; every field of the shape is in the result.

    Raises
    ------
    OptionError
        For a field that is not known, missing, or has the wrong form.

    Examples
    --------
    >>> read({"to": Field("string", "Where to.", default="")}, {})
    {'to': ''}
    """
    if not isinstance(document, Mapping):
        raise OptionError("The body must be a JSON object.")
    for name in document:
        if name not in shape:
            raise OptionError(f"There is no field {name!r}.", where=str(name), hint=nearest_hint(str(name), shape))
    missing = [name for name, one in shape.items() if one.required and name not in document]
    if missing:
        raise OptionError(f"The field {missing[0]!r} is missing.", where=missing[0])
    return {n: f.check(n, document[n]) if n in document else f.default for n, f in shape.items()}


def read_text(shape: Shape, words: Mapping[str, str]) -> dict[str, Any]:
    """Check the parameters of a query, which are text."""
    return read(shape, {n: _from_text(shape[n].kind, n, v) if n in shape else v for n, v in words.items()})


def schema_of(shape: Shape) -> dict[str, Any]:
    """JSON Schema of an object."""
    required = [name for name, one in shape.items() if one.required]
    return {
        "type": "object",
        "properties": {name: one.schema() for name, one in shape.items()},
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _is(kind: str, value: Any) -> bool:
    if type(value) is _USUAL.get(kind):
        return True
    if isinstance(value, bool) and kind != "boolean":
        return False
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if kind == "integer" and isinstance(value, float):  # JSON knows one kind of number
        return False
    return isinstance(value, _KINDS[kind])


def _from_text(kind: str, name: str, text: str) -> Any:
    try:
        if kind == "integer":
            return int(text)
        if kind == "number":
            return float(text)
    except ValueError as error:
        raise OptionError(f"{name} must be of the type {kind}, but got {_short(text)}.", where=name) from error
    if kind == "boolean":
        return {"true": True, "false": False}.get(text, text)
    return text


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
