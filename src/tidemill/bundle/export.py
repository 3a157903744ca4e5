"""Writes a bundle in the form that another tool wants; one exporter for each form."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, cast

from tidemill.bundle.runtime import Bundle
from tidemill.core.errors import NotFoundError

GROUP = "tidemill.exporters"
"""Entry points of packages that add a form: ``name = "package.module:exporter"``."""
_OURS = {
    "docker": "tidemill.bundle.exporters.docker:EXPORTER",
    "kserve": "tidemill.bundle.exporters.kserve:EXPORTER",
    "mlflow": "tidemill.bundle.exporters.mlflow:EXPORTER",
    "onnx": "tidemill.bundle.exporters.onnx_file:EXPORTER",
    "openvino": "tidemill.bundle.exporters.openvino:EXPORTER",
    "systemd": "tidemill.bundle.exporters.systemd:EXPORTER",
    "triton": "tidemill.bundle.exporters.triton:EXPORTER",
}


class Exporter(Protocol):
    """Writes a bundle in one form."""

    description: str
    """One line for people: what is written, and for whom."""

    def export(self, bundle: Bundle, out: Path) -> Path:
        """Write to ``out`` as a whole or not at all, and return what was written.

        Raise `OptionError` where something stands that must not be lost, `BundleError` where the file system refuses.
        """


def targets() -> dict[str, str]:
    """Names of all forms, ours and those of installed packages, with where each is found."""
    return {**{e.name: e.value for e in entry_points(group=GROUP)}, **_OURS}


def get_exporter(target: str) -> Exporter:
    """Find an exporter by name.

    Raises
    ------
    NotFoundError
        With the nearest names.
    """
    known = targets()
    if target not in known:
        raise NotFoundError.of("export target", target, known)
    module, _, name = known[target].partition(":")
    return cast(Exporter, getattr(import_module(module), name))


def export(bundle: Bundle, target: str, out: str | Path) -> Path:
    """Write a bundle for another tool.

    Parameters
    ----------
    bundle : Bundle
        What to write.
    target : str
        ``"onnx"`` (the graph alone), ``"mlflow"`` (an MLflow model), ``"triton"`` (a model repository),
        ``"docker"`` (Dockerfile and compose file), ``"kserve"`` (manifests), ``"systemd"`` (units with socket
        activation), ``"openvino"`` (OpenVINO IR, extra ``openvino``), or the name of an installed exporter.
    out : path
        File or folder to write.

    Returns
    -------
    Path
        What was written.
    """
    return get_exporter(target).export(bundle, Path(out))
