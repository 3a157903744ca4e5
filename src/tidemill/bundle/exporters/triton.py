"""A model repository for NVIDIA Triton: ``<out>/<name>/config.pbtxt`` and ``<out>/<name>/1/model.onnx``."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from tidemill.bundle.folder import atomic_folder
from tidemill.bundle.runtime import Bundle


@dataclass(frozen=True)
class TritonRepository:
    """Writes a repository with one model, named after the bundle."""

    description: str = "a Triton model repository"

    def export(self, bundle: Bundle, out: Path) -> Path:
        """Write ``out`` as a repository."""
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", bundle.info.name).strip("_.") or "model"
        with atomic_folder(out) as folder:
            (folder / name / "1").mkdir(parents=True)
            shutil.copyfile(bundle.path / "config.pbtxt", folder / name / "config.pbtxt")
            shutil.copyfile(bundle.model_path, folder / name / "1" / "model.onnx")
        return out


EXPORTER = TritonRepository()
