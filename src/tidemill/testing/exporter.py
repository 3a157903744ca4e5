"""What every exporter promises; subclass `ExporterSuite` and give the two fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidemill.bundle.export import Exporter
from tidemill.bundle.runtime import Bundle
from tidemill.core.errors import BundleError, OptionError


class ExporterSuite:
    """Laws of `tidemill.bundle.export.Exporter`.

    A subclass provides the fixtures ``exporter`` (an `Exporter`) and ``bundle`` (an opened `Bundle`).
    """

    def test_it_says_what_it_writes(self, exporter: Exporter) -> None:
        """The description is one line."""
        assert exporter.description.strip()
        assert "\n" not in exporter.description

    def test_it_returns_what_it_wrote(self, exporter: Exporter, bundle: Bundle, tmp_path: Path) -> None:
        """The result exists, lies at or in ``out``, and nothing else was written beside it."""
        out = tmp_path / "new" / "out"
        result = exporter.export(bundle, out)
        assert result.exists()
        assert result == out or out in result.parents
        assert [p.name for p in out.parent.iterdir()] == ["out"]

    def test_the_bundle_stays_as_it_is(self, exporter: Exporter, bundle: Bundle, tmp_path: Path) -> None:
        """Exporting reads the bundle and changes none of its files."""
        before = {p: p.read_bytes() for p in bundle.path.rglob("*") if p.is_file()}
        exporter.export(bundle, tmp_path / "out")
        assert {p: p.read_bytes() for p in bundle.path.rglob("*") if p.is_file()} == before

    def test_the_graph_is_inside_byte_for_byte(self, exporter: Exporter, bundle: Bundle, tmp_path: Path) -> None:
        """Where the form keeps ONNX, it is the graph that was proven."""
        result = exporter.export(bundle, tmp_path / "out")
        files = [result] if result.is_file() else list(result.rglob("*.onnx"))
        assert all(p.read_bytes() == bundle.model_path.read_bytes() for p in files)

    def test_a_foreign_folder_is_refused(self, exporter: Exporter, bundle: Bundle, tmp_path: Path) -> None:
        """A folder with a person's files is left as it is, or only added to."""
        (tmp_path / "mine").write_text("mine", encoding="utf-8")
        try:
            exporter.export(bundle, tmp_path)
        except OptionError:
            assert [p.name for p in tmp_path.iterdir()] == ["mine"]
        assert (tmp_path / "mine").read_text(encoding="utf-8") == "mine"

    def test_a_place_that_can_not_be_written(self, exporter: Exporter, bundle: Bundle, tmp_path: Path) -> None:
        """A refusal of the file system is one clear error, and leaves nothing."""
        (tmp_path / "file").write_text("", encoding="utf-8")
        with pytest.raises((BundleError, OptionError)):
            exporter.export(bundle, tmp_path / "file" / "out")
        assert [p.name for p in tmp_path.iterdir()] == ["file"]
