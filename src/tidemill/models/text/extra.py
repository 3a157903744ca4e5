"""The one place that says what to install for encoders of texts."""

from __future__ import annotations

from importlib.util import find_spec

from tidemill.core.errors import MissingExtraError
from tidemill.train.extra import need_torch

PACKAGES = ("torch", "onnxscript", "transformers", "tokenizers")
"""What a trained encoder needs; pieces of text are counted without."""


def need_text(why: str) -> None:
    """Refuse to go on without the packages that open and train encoders.

    Parameters
    ----------
    why : str
        What they are needed for: ``"to begin from trained encoders"``.

    Raises
    ------
    MissingExtraError
        Naming the first that is not installed.
    """
    need_torch(why)
    for package in PACKAGES:
        if find_spec(package) is None:
            raise MissingExtraError.of(package, why, extra="text")
