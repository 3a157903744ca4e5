"""Suites of other tools come in from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tidemill.core.errors import DataError, OptionError
from tidemill.data.expectations.foreign._base import ForeignSuite, split_word

_MOST_BYTES = 10 << 20
_NAMED = "::"


def read_foreign(word: str) -> ForeignSuite:
    """Read a suite.

    Parameters
    ----------
    word : str
        ``pandera:FILE`` with a schema as pandera writes it (``.yaml``, ``.yml``, ``.json``) or a Python file that holds
        one (``checks.py``, of several ``checks.py::Name``); ``gx:FILE`` with an expectation suite as Great Expectations
        writes it (``.json``). The tool itself is not needed yet.

    Raises
    ------
    OptionError
        For a word that names no suite.
    DataError
        Where the file can't be read, or holds no suite of that kind.
    """
    kind, file = split_word(word)
    plain, _, chosen = file.partition(_NAMED)
    path = Path(plain).expanduser()
    text = _text(path)
    if kind == "pandera" and path.suffix.lower() == ".py":
        return ForeignSuite(kind, str(path), str(path), is_code=True, chosen=chosen)
    if chosen:
        raise OptionError(f"Only a Python file has several suites, but got {file!r}.", where="--suite")
    suite = ForeignSuite(kind, text, str(path))
    tree_of(suite)
    return suite


def tree_of(suite: ForeignSuite) -> dict[str, Any]:
    """Give what the text of a suite says, as plain values.

    Raises
    ------
    DataError
        Where it is no YAML or JSON, or not of the form that its tool writes.
    """
    tree = _json(suite) if suite.kind == "gx" else _yaml(suite)
    key, noun = ("expectations", list) if suite.kind == "gx" else ("columns", dict)
    if not isinstance(tree, dict) or not isinstance(tree.get(key), noun):
        said = "a list of `expectations`" if suite.kind == "gx" else "`columns` by name"
        raise DataError(f"This is no suite of {suite.tool}: {said} are wanted.", where=suite.where)
    return tree


def _json(suite: ForeignSuite) -> Any:
    try:
        return json.loads(suite.text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"The suite is no JSON ({error}).", where=suite.where) from error


def _yaml(suite: ForeignSuite) -> Any:
    import yaml

    try:
        return yaml.safe_load(suite.text)  # JSON is YAML
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(f"The YAML can't be read: {' '.join(str(error).split())}.", where=suite.where) from error


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"A suite has {_MOST_BYTES >> 20} MB at most.", where=str(path))
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = "it is no text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"The suite can't be read: {said}.", where=str(path)) from error
