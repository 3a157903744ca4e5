"""The graph alone: one file that says itself which columns it wants."""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from tidemill.bundle.runtime import Bundle
from tidemill.core.errors import BundleError, OptionError


@dataclass(frozen=True)
class OnnxFile:
    """Copies ``model.onnx``; into a folder where ``out`` is one."""

    description: str = "the ONNX graph as one file"

    def export(self, bundle: Bundle, out: Path) -> Path:
        """Write the file; an older one of that name is replaced in one step."""
        path = out / "model.onnx" if out.is_dir() else out
        if path.exists() and not path.is_file():
            raise OptionError("There is something else of that name.", where=str(path))
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(bundle.model_path.read_bytes())
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise BundleError(f"The file could not be written: {error.strerror or error}.", where=str(path)) from error
        return path


EXPORTER = OnnxFile()
