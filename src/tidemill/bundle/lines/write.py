"""Builds a bundle that reads lines of text: proves the graph, measures it, writes the folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tidemill.bundle.evidence import Evidence
from tidemill.bundle.images.write import write_image_bundle
from tidemill.bundle.lines.parity import prove
from tidemill.bundle.parts import Recipe
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.spec import BundleInfo
from tidemill.data.images.pictures import Pictures


def write_line_bundle(
    out_dir: str | Path,
    recipe: Recipe,
    *,
    tables: Mapping[str, Pictures],
    info: BundleInfo | None = None,
    evidence: Sequence[Evidence] = (),
) -> Bundle:
    """Prove a recipe's graph on images of lines and write it as a bundle; as `write_image_bundle` does.

    Parameters
    ----------
    out_dir, tables, info, evidence
        As `tidemill.bundle.images.write.write_image_bundle` takes them.
    recipe : Recipe
        What to ship; its encoder is a `LineEncoder`, its one part reads lines.

    Raises
    ------
    ParityError
        With the lines that are read otherwise; nothing is written.
    OptionError, BundleError
        As `tidemill.bundle.images.write.write_image_bundle`.
    """
    return write_image_bundle(out_dir, recipe, tables=tables, info=info, evidence=evidence, prove=prove)
