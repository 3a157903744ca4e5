"""What things and people are called."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import Any

ENV_ACTOR = "TIDEMILL_ACTOR"


def dataset_name(source: Any) -> str:
    """Name a dataset after its file, or after the version that is named; tables in memory are called ``table``.

    Examples
    --------
    >>> dataset_name("folder/cases.csv"), dataset_name("cases@1a2b"), dataset_name({"x": [1]})
    ('cases', 'cases', 'table')
    """
    if isinstance(source, (str, Path)):
        stem = Path(str(source)).name.split(".")[0].partition("@")[0]
        return stem if stem and "\n" not in stem and len(stem) <= 80 and " " not in stem else "query"
    return "table"


def actor_name(given: str | None = None) -> str:
    """Who acts: the given name, else ``TIDEMILL_ACTOR``, else the name of the system's user."""
    if given:
        return given
    try:
        return os.environ.get(ENV_ACTOR) or getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return ""
