"""What can be done with a bundle: predict, evaluate, export, verify."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tidemill.bundle.runtime import Bundle


def load(path: str | Path) -> Bundle:
    """Open a bundle for predictions.

    Parameters
    ----------
    path : str or Path
        The bundle's folder.

    Returns
    -------
    Bundle
        Ready to predict; the session starts with the first prediction.

    Raises
    ------
    BundleError
        If the folder is no bundle, or a damaged one.
    """
    return Bundle.open(path)


def predict_to_csv(bundle: str | Path, data: Any, out: str | Path | None) -> int:
    """Predict a file's rows into a CSV file, or to standard output.

    Returns
    -------
    int
        Number of rows written.
    """
    return load(bundle).to_csv(data, sys.stdout if out is None else Path(out))


def predict_to_records(bundle: str | Path, data: Any) -> list[dict[str, Any]]:
    """Predict a file's rows as one dictionary for each row, with the CSV's column names."""
    return load(bundle).predict_records(data)


def evaluate(bundle: str | Path, data: Any) -> dict[str, float]:
    """Compare predictions with the known target of a file; every metric of the task by name."""
    return load(bundle).evaluate(data)


def export(bundle: str | Path, target: str, out: str | Path) -> Path:
    """Write a bundle in the form that another tool wants; see `tidemill.bundle.export` for the targets."""
    from tidemill.bundle.export import export as run

    return run(load(bundle), target, Path(out))


def verify(bundle: str | Path) -> list[str]:
    """Check all of a bundle; an empty list means that it is whole."""
    from tidemill.bundle.verify import verify as run

    return [str(problem) for problem in run(Path(bundle))]
