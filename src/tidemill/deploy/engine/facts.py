"""What is known of a model before a worker has loaded it: read from a bundle's folder, or from a bare ONNX file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidemill.bundle import manifest
from tidemill.bundle import spec as bundle_spec
from tidemill.bundle.spec import BundleSpec
from tidemill.core.errors import BundleError, NotFoundError
from tidemill.core.schema import SemanticType
from tidemill.deploy.engine.encoders.base import COLUMNS, IMAGES, TEXTS, Encoding, check_packages

_GRAPH = "1/model.onnx"
_GOLDEN = "tests/golden.npz"
_PLAIN_BYTES = 256 << 20
"""What a model of unknown size may need, until it was measured."""


@dataclass(frozen=True)
class Facts:
    """A model on disk.

    Parameters
    ----------
    id : str
        First 12 digits of its hash: of the manifest of a bundle, or of the file.
    model : Path
        The ONNX file.
    golden : Path or None
        Its golden rows.
    spec : BundleSpec or None
        What a bundle says of itself; None for a bare file.
    curve : tuple of (int, float)
        Milliseconds by batch size, as measured when it was written.
    peak_bytes : int
        Memory that a process of its own needed.
    encoding : Encoding or None
        What its worker does to cells before the graph; None where the graph takes rows as they come.
    """

    id: str
    model: Path
    golden: Path | None = None
    spec: BundleSpec | None = None
    curve: tuple[tuple[int, float], ...] = ((1, 1.0),)
    peak_bytes: int = _PLAIN_BYTES
    encoding: Encoding | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A name for people, from the folder or file."""
        path = self.model.parent.parent if self.spec is not None else self.model
        return path.stem or "model"


def read_facts(path: str | Path) -> Facts:
    """Look at a bundle's folder or at an ONNX file.

    Raises
    ------
    NotFoundError
        If there is nothing.
    BundleError
        If it is neither, is damaged, or keeps data outside of the file.
    MissingExtraError
        If its worker would need a package that is absent.
    """
    place = Path(path).expanduser()
    if not place.exists():
        names = [p.name for p in place.parent.iterdir()] if place.parent.is_dir() else []
        raise NotFoundError.of("bundle", place.name, names)
    return _of_file(place) if place.is_file() else _of_bundle(place)


def _of_bundle(folder: Path) -> Facts:
    try:
        data = (folder / manifest.NAME).read_bytes()
        listed = manifest.parse(data, where=str(folder / manifest.NAME))
        _check_files(folder, listed, (bundle_spec.NAME, _GRAPH, _GOLDEN))
        described = BundleSpec.from_json(json.loads((folder / bundle_spec.NAME).read_bytes()))
        encoding = _encoding(described, folder, listed)
        if encoding is not None:
            check_packages(encoding.name)
            _check_files(folder, listed, encoding.files)
    except FileNotFoundError as error:
        raise BundleError(
            f"This is not a bundle: it has no {Path(str(error.filename)).name}.", where=str(folder)
        ) from error
    except (OSError, ValueError) as error:
        raise BundleError(f"The bundle can't be read ({error}).", where=str(folder)) from error
    measured = described.performance
    curve = tuple((int(p["batch"]), float(p["p50_ms"])) for p in measured.get("latency", ()))
    return Facts(
        id=hashlib.sha256(data).hexdigest()[:12],
        model=(folder / _GRAPH).resolve(),
        golden=(folder / _GOLDEN).resolve(),
        spec=described,
        curve=curve or ((1, 1.0),),
        peak_bytes=int(measured.get("peak_memory_bytes") or _PLAIN_BYTES),
        encoding=encoding,
    )


def _check_files(folder: Path, listed: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        if name not in listed or manifest.entry_of(folder / name) != listed[name]:
            raise BundleError(
                "The file is damaged: its hash is not the one in the manifest.",
                where=str(folder / name),
                hint="Export the bundle again.",
            )


def _encoding(described: BundleSpec, folder: Path, listed: Iterable[str]) -> Encoding | None:
    """What stands between the cells of a bundle's rows and its graph. Here a new kind of cell gets its encoder."""
    features = described.schema.features
    readers = tuple(name for name in listed if name.startswith("readers/"))
    if described.schema.embedded:
        return Encoding(COLUMNS, "", str(folder.resolve()), readers)
    images = [c.name for c in features if c.type is SemanticType.IMAGE]
    if not images and not described.schema.has_texts:
        return None
    if len(features) > 1:
        raise BundleError("Its rows hold more than an image or a text, which is not served.", where=str(folder))
    if images:
        return Encoding(IMAGES, images[0], str(folder.resolve()))
    return Encoding(TEXTS, features[0].name, str(folder.resolve()), readers)


def _of_file(path: Path) -> Facts:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # has no types

    if path.suffix != ".onnx":
        raise BundleError("This is neither a bundle's folder nor an ONNX file.", where=str(path))
    try:
        model = onnx.load_model(str(path), load_external_data=False)
    except DecodeError as error:
        raise BundleError(f"It is not an ONNX file ({error}).", where=str(path)) from error
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in _tensors(model.graph)):
        raise BundleError("It keeps data outside of the file.", where=str(path), hint="Save it as one file.")
    size = path.stat().st_size
    return Facts(manifest.entry_of(path).sha256[:12], path.resolve(), peak_bytes=_PLAIN_BYTES + 4 * size)


def _tensors(graph: Any) -> list[Any]:
    found = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            found += [attribute.t, *attribute.tensors]
            for inner in [attribute.g, *attribute.graphs]:
                found += _tensors(inner)
    return found
