"""An MLflow model: the folder that ``mlflow.pyfunc.load_model`` takes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tidemill.bundle.folder import atomic_folder
from tidemill.bundle.runtime import Bundle


@dataclass(frozen=True)
class MlflowModel:
    """Copies the folder ``1`` of a bundle, which is an MLflow model already."""

    description: str = "an MLflow model folder"

    def export(self, bundle: Bundle, out: Path) -> Path:
        """Write the folder."""
        with atomic_folder(out) as folder:
            shutil.copytree(bundle.path / "1", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        return out


EXPORTER = MlflowModel()
