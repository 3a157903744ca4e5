"""Tidemill: AutoML for the whole life of a model.

Importing the package defines names and loads nothing else; each name fetches its room on first use, so that
``import tidemill`` and ``tidemill --help`` stay quick.

>>> import tidemill
>>> tidemill.__version__
'0.1.0'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidemill.bundle.runtime import Bundle as Bundle
    from tidemill.deploy.client import Client as Client
    from tidemill.sdk.deploy import endpoint as endpoint
    from tidemill.sdk.deploy import endpoints as endpoints
    from tidemill.sdk.estimators import TidemillClassifier as TidemillClassifier
    from tidemill.sdk.estimators import TidemillRegressor as TidemillRegressor
    from tidemill.sdk.fit import fit as fit
    from tidemill.sdk.load import load as load
    from tidemill.sdk.study import Study as Study
    from tidemill.store.workspace import Workspace as Workspace

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "Client",
    "Study",
    "TidemillClassifier",
    "TidemillRegressor",
    "Workspace",
    "__version__",
    "endpoint",
    "endpoints",
    "fit",
    "load",
]

_HOMES = {
    "Bundle": "tidemill.bundle.runtime",
    "Client": "tidemill.deploy.client",
    "Study": "tidemill.sdk.study",
    "TidemillClassifier": "tidemill.sdk.estimators",
    "TidemillRegressor": "tidemill.sdk.estimators",
    "Workspace": "tidemill.store.workspace",
    "endpoint": "tidemill.sdk.deploy",
    "endpoints": "tidemill.sdk.deploy",
    "fit": "tidemill.sdk.fit",
    "load": "tidemill.sdk.load",
}


def __getattr__(name: str) -> object:
    """Fetch a public name from its room on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, fetched or not."""
    return sorted({*globals(), *__all__})
