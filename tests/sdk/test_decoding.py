"""What is told of a bundle that searches for its texts."""

from __future__ import annotations

from pathlib import Path

from tests.bundle.lines.made import make
from tests.bundle.lines.test_chorus import written

from tidemill.sdk.decoding import decoding_of, searched_words


def test_a_bundle_of_best_paths_needs_no_words(tmp_path: Path) -> None:
    bundle = make(tmp_path / "plain.tm")
    assert decoding_of(bundle) == "of the best path"
    assert searched_words(bundle, "cer") == ""


def test_one_that_searches_says_how_and_how_well(tmp_path: Path) -> None:
    one, several = make(tmp_path / "one.tm", width=4), written(tmp_path / "several.tm", 4)
    assert searched_words(one, "cer") == "Texts of the bundle are searched for by beams of 4: cer 0 out of fold."
    assert decoding_of(several) == "searched for by beams of 4, by 3 nets together"
