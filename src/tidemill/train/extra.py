"""The one place that says what to do where PyTorch is absent."""

from __future__ import annotations

from importlib.util import find_spec

from tidemill.core.errors import MissingExtraError


def need_torch(why: str) -> None:
    """Refuse to go on without PyTorch; call it before the first import of a module that needs it.

    Parameters
    ----------
    why : str
        What it is needed for: ``"to train deep models"``.

    Raises
    ------
    MissingExtraError
        Where it is not installed.
    """
    if find_spec("torch") is None:
        raise MissingExtraError.of("torch", why, extra="deep")
