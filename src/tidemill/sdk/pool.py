"""The pool of families, of every modality: what there is, and what is known of each. `pool_check` tries them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tidemill.core.errors import MissingExtraError, NotFoundError
from tidemill.core.task import Task, TaskKind
from tidemill.models.pretrained.architectures import Architecture, architecture
from tidemill.models.registry import Entry as Registered

_TABLE = "table of 200 rows, 4 numbers and a category"
_SIDE = 32
_IMAGES = f"{_SIDE} × {_SIDE} pixels of 3 channels, 10 classes"
_TEXTS = "1,000 texts of 120 characters, 10 classes"
_LINES = "1,000 lines of 32 × 256 pixels, 26 characters"
_TABLE_TASKS = {TaskKind.BINARY: ("a", "b"), TaskKind.MULTICLASS: ("a", "b", "c"), TaskKind.REGRESSION: ()}
MODALITIES = ("table", "image", "text", "line")


@dataclass(frozen=True)
class Entry:
    """One family.

    Parameters
    ----------
    name, modality : str
        Its name, and what it learns from: ``"table"``, ``"image"``, ``"text"`` or ``"line"``.
    about : str
        One sentence.
    tasks : tuple of str
        Kinds of tasks that it learns; of tables those that any family may learn.
    weights : tuple of str
        Forms of trained weights that it can begin from.
    licence : str
        Of its code.
    export : str
        The form in which it leaves the house.
    origin : str
        ``"tidemill"``, or the package that registered it.
    absent : str or None
        Why it can't be used here.
    architectures : tuple of Architecture
        Of the weights that it is known to work with, where it begins from those of others.
    """

    name: str
    modality: str
    about: str
    tasks: tuple[str, ...]
    weights: tuple[str, ...]
    licence: str
    export: str
    origin: str
    absent: str | None
    architectures: tuple[Architecture, ...] = ()


def entries() -> list[Entry]:
    """Every family that is known, tables first.

    Examples
    --------
    >>> {"table", "image", "text", "line"} <= {entry.modality for entry in entries()}
    True
    """
    from tidemill.models import pool as tables
    from tidemill.models.recognition import pool as lines
    from tidemill.models.text import pool as texts
    from tidemill.models.vision import pool as images

    tasks = tuple(kind.value for kind in _TABLE_TASKS)
    out = [
        Entry(e.name, "table", _ABOUT.get(e.name, ""), tasks, (), "Apache-2.0" if e.origin == "tidemill" else "",
              "onnx", e.origin, e.absent)
        for e in tables.entries()
    ]  # fmt: skip
    out += [_entry_of(e, "image", e.tasks) for e in images.entries()]
    out += [_entry_of(e, "text", e.tasks) for e in texts.entries()]
    out += [_entry_of(e, "line", (TaskKind.RECOGNITION.value,)) for e in lines.entries()]
    return out


def _entry_of(e: Registered, modality: str, tasks: tuple[str, ...]) -> Entry:
    return Entry(
        e.name, modality, e.about, tasks, e.weights, e.licence, e.export, e.origin, e.absent, e.architectures
    )  # fmt: skip


_ABOUT = {
    "lightgbm": "gradient boosting, leaf by leaf",
    "xgboost": "gradient boosting, level by level",
    "catboost": "gradient boosting with ordered categories",
    "forest": "random forests and extremely randomised trees",
    "linear": "linear and logistic regression",
    "neighbours": "nearest neighbours",
    "bayes": "naive Bayes",
    "mlp": "a small neural net",
    "tabm": "a neural net of members that share their weights, with embedded numbers (TabM)",
}


def list_pool(modality: str | None = None) -> list[dict[str, Any]]:
    """One row for each family, for people."""
    if modality is not None and modality not in MODALITIES:
        raise NotFoundError.of("modality", modality, MODALITIES)
    return [
        {
            "family": e.name,
            "modality": e.modality,
            "about": e.about,
            "weights": ", ".join(e.weights) or None,
            "architectures": ", ".join(a.name for a in e.architectures if not a.refused and not a.absent) or None,
            "export": e.export,
            "usable": "yes" if e.absent is None else e.absent,
        }
        for e in entries()
        if modality in (None, e.modality)
    ]


def show_pool(name: str) -> dict[str, Any]:
    """Everything that is known of a family; parameters and FLOPs are counted on a reference input.

    Parameters
    ----------
    name : str
        Of a family, or of one of its architectures: ``"backbone/ViT"``.

    Raises
    ------
    NotFoundError
        If there is no such family or architecture.
    """
    entry, one = find(name)
    if one is not None:
        return _shown(one, entry.absent is None)
    found: dict[str, Any] = {
        "family": entry.name,
        "modality": entry.modality,
        "about": entry.about,
        "tasks": _tasks(entry),
        "input": {"table": _TABLE, "image": _IMAGES, "text": _TEXTS, "line": _LINES}[entry.modality],
        "licence": entry.licence,
        "weights": list(entry.weights),
        "export": entry.export,
        "origin": entry.origin,
        "usable": entry.absent is None,
        "reason": entry.absent,
    }
    if entry.absent is None:
        found |= _counted(entry)
    if entry.architectures:
        found["architectures"] = [each.name for each in entry.architectures]
    return found


def show_architectures(name: str) -> list[dict[str, Any]]:
    """One row for each architecture that a family is known to work with; costs are counted where it can be used here.

    Raises
    ------
    NotFoundError
        If there is no such family.
    """
    entry, one = find(name)
    return [] if one is not None else [_shown(each, entry.absent is None) for each in entry.architectures]


def _shown(one: Architecture, counted: bool) -> dict[str, Any]:
    """What is known of an architecture, with the costs of its usual size for one image, or for a text of 128 tokens."""
    params, flops, why = None, None, one.refused or one.absent
    if counted and (one.refused or not why):
        from tidemill.models.pretrained.nets import count_usual

        try:
            params, flops = count_usual(one)
        except MissingExtraError as error:  # it is installed, and can't be loaded
            why = str(error)
    return {
        "architecture": one.name,
        "kind": one.kind,
        "side": one.side or None,
        "params": params,
        "flops": flops,
        "low rank": "yes" if one.low_rank else "no",
        "example of weights": one.published,
        "licence": one.licence,
        "source": one.source,
        "usable": why or "yes",
    }


def find(name: str) -> tuple[Entry, Architecture | None]:
    """The family of a name, and the architecture where one is named behind a stroke.

    Raises
    ------
    NotFoundError
        If there is no such family or architecture.
    """
    family, _, one = name.partition("/")
    known = {e.name: e for e in entries()}
    if family not in known:
        raise NotFoundError.of("family", family, known)
    entry = known[family]
    if not one:
        return entry, None
    if not entry.architectures:
        raise NotFoundError(f"The family {family!r} has no architectures to choose from.")
    return entry, architecture(one, entry.architectures)


def _tasks(entry: Entry) -> list[str]:
    """Kinds of tasks; a family of tables is asked itself."""
    if entry.modality != "table" or entry.absent is not None:
        return list(entry.tasks)
    from tidemill.models import pool as tables

    family = tables.families([entry.name])[entry.name]
    asked = (Task(kind, "y", classes) for kind, classes in _TABLE_TASKS.items())
    return [task.kind.value for task in asked if family.supports(task, _table())]


def _counted(entry: Entry) -> dict[str, Any]:
    """Parameters of the space, and what the default costs where that is known before training."""
    task = Task(TaskKind.MULTICLASS, "y", tuple("abcdefghij"))
    if entry.modality == "line":
        from tidemill.models.recognition import pool as lines
        from tidemill.models.recognition._base import LineProfile

        wanted = Task(TaskKind.RECOGNITION, "y")
        seen = LineProfile(1000, _SIDE, 256.0, "abcdefghijklmnopqrstuvwxyz", 128.0, 64.0)
        config = lines.space(wanted, seen, [entry.name]).default()
        cost = lines.families([entry.name])[entry.name].cost(config, wanted, seen)
        return {"space": sorted(set(config) - {"family"}), "params": cost.params, "flops": cost.flops}
    if entry.modality == "text":
        from tidemill.models.text import pool as texts
        from tidemill.models.text._base import TextProfile

        read = TextProfile(1000, 120.0, 200)
        if not texts.families([entry.name])[entry.name].supports(task, read):  # it begins from weights
            return {"space": [], "params": None, "flops": None}
        config = texts.space(task, read, [entry.name]).default()
        cost = texts.families([entry.name])[entry.name].cost(config, task, read)
        return {"space": sorted(set(config) - {"family"}), "params": cost.params, "flops": cost.flops}
    if entry.modality == "image":
        from tidemill.models.vision import pool as images
        from tidemill.models.vision._base import ImageProfile

        profile = ImageProfile(1000, _SIDE, _SIDE, 3, (128.0,) * 3, (64.0,) * 3)
        family = images.families([entry.name])[entry.name]
        if not family.supports(task, profile):
            return {"space": [], "params": None, "flops": None}
        config = images.space(task, profile, [entry.name]).default()
        cost = family.cost(config, task, profile)
        return {"space": sorted(set(config) - {"family"}), "params": cost.params, "flops": cost.flops}
    from tidemill.models import pool as tables

    table = _table()
    known = tables.space(task, table, [entry.name])
    cost = tables.families([entry.name])[entry.name].cost(known.default(), task, table)
    return {"space": sorted({p.name for p in known} - {"family"}), "params": cost.params, "flops": cost.flops}


def _table() -> Any:
    """The table that families are asked about."""
    from tidemill.models.tabular._base import Feature, FeatureKind, TableProfile

    features = tuple(Feature(f"x{i}", f"x{i}", FeatureKind.NUMBER) for i in range(4))
    return TableProfile(200, (*features, Feature("c", "c", FeatureKind.CATEGORY, 3)))
